"""Feetech STS and SMS servos on a serial bus, written directly on pyserial; the bytes are in `hardware._feetech_wire`.

The family has no watchdog of its own: where the host dies, servos hold their last goal. An arm of them wants a power relay in its
supply that opens when the host stops closing it.

An answer does not say which request it belongs to. After a miss a late one could therefore pass for the next; it is flushed out
by a read of a length that nothing else has, whose answer comes after everything that was still on its way. The length changes
from one such read to the next, as their answers may be late too.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from hardware import _feetech_wire as wire
from hardware._errors import BadCommand, ConfigMismatch, DeviceFault, NotReady, TransportCorrupt, TransportLost, TransportTimeout
from hardware._feetech_wire import REGISTERS, TICKS, Packet
from hardware._servo_bus import Sample, bits_named, firmly, open_port, read_firmly, register, settle, wire_errors
from robolearn.errors import MissingDependency

_BLOCK = (56, 15)  # position to current in one read
_WRITE_NS = 50_000_000  # what the answer to a write may take: EPROM is slow, and no cycle waits for it
_BARRIERS = range(6, 15)  # lengths of the reads that flush out late answers; no other answer has one of them
SETTINGS: Mapping[str, int] = MappingProxyType({"operating_mode": 0, "return_delay": 0})


class FeetechBus:
    """A `ServoBus`. counters: misses by kind."""

    ticks_per_turn = TICKS
    watchdog_s: tuple[float, float] | None = None
    homing_sign = -1
    zero_registers: tuple[str, ...] = ("homing",)

    def __init__(
        self,
        name: str,
        port: str,
        baud: int = 1_000_000,
        settings: Mapping[int, Mapping[str, int]] = MappingProxyType({}),
        timeout_s: float = 0.008,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """name: opens every message; settings: by servo, what `configure` writes beyond SETTINGS; timeout_s: of one request."""
        self._name, self._port_name, self._baud, self._settings = name, port, baud, settings
        self._timeout_ns, self._clock_ns, self.counters = int(timeout_s * 1e9), clock_ns, Counter[str]()
        self._port: Any = None
        self._late, self._heard, self._barrier, self._sent_ns, self._recv_ns = False, -1, 0, 0, 0

    def open(self) -> None:
        """Opens the port; TransportLost where that cannot be done, MissingDependency without pyserial."""
        try:
            self._port = open_port(self._name, self._port_name, self._baud)
        except ImportError:
            raise MissingDependency("pyserial", self._name, "pip install 'robolearn[feetech]'") from None
        self._late, self._heard = False, -1

    def close(self) -> None:
        """Closes the port, whatever is left of it."""
        port, self._port = self._port, None
        if port is not None:
            with contextlib.suppress(TransportLost), wire_errors(self._name, self._port_name):  # it was unplugged
                port.close()

    def ping(self, servo: int) -> tuple[int, int]:
        """Returns the model number, and the firmware as 100 major + minor."""
        major, minor, _, low, high = self._get(servo, 0, 5)
        return low | high << 8, 100 * major + minor

    def read(self, servo: int, name: str) -> int:
        """Returns a register; "firmware" is 100 major + minor."""
        if name == "firmware":
            major, minor = self._get(servo, 0, 2)
            return 100 * major + minor
        place = self._register(name)
        return wire.decode(place, self._get(servo, place.address, place.size))

    def write(self, servo: int, name: str, value: int) -> None:
        """Writes a register and reads it back, EPROM with the lock open; an answer's alarm bits alone refuse nothing."""
        place = self._register(name)
        if place.fixed:
            raise NotReady(self._name, f"{name} of servo {servo} cannot be written")
        data = self._encoded(servo, name, value)
        if place.eprom:
            self._put(servo, "lock", b"\x00")
        bits = self._put(servo, name, data)
        if place.eprom:
            self._put(servo, "lock", b"\x01")
        got = self.read(servo, name)
        if got != value:
            said = f"servo {servo} does not take {name} = {value}, it stays {got}"
            if bits:
                named = ", ".join(self.alarms(servo, bits))
                raise DeviceFault(self._name, f"{said} (alarm: {named}); switch its supply off and on", bits)
            raise ConfigMismatch(self._name, said, raw=got)

    def sample(self, servos: Sequence[int]) -> Sample:
        """Returns one sync read of position to current; an alert is any bit of the answer's status or of the alarm register."""
        request = Packet(wire.BROADCAST, wire.SYNC_READ, bytes([*_BLOCK, *servos]))
        answers = self._ask(request, dict.fromkeys(servos, _BLOCK[1]))
        position, velocity, current, alarm = (
            np.array([_field(answers[servo].params, name) for servo in servos], dtype=np.int64)
            for name in ("position", "velocity", "current", "alarm")
        )
        return Sample(
            position,
            velocity * wire.TICK_RAD,
            current * wire.AMPERE_PER_UNIT,
            np.array([answers[servo].code != 0 for servo in servos]) | (alarm != 0),
            self._sent_ns,
            self._recv_ns,
        )

    def goals(self, servos: Sequence[int], ticks: Sequence[int]) -> None:
        """Writes all goals [ticks, 0..4095] with one sync write; BadCommand, and nothing on the wire, for anything else."""
        params = bytearray([REGISTERS["goal"].address, REGISTERS["goal"].size])
        for servo, tick in zip(servos, ticks, strict=True):
            goal = self._encoded(servo, "goal", tick)
            if not 0 <= tick < TICKS:
                raise BadCommand(self._name, f"goal of servo {servo}: want 0 to {TICKS - 1} ticks, got {tick}")
            params += bytes([servo]) + goal
        self._ask(Packet(wire.BROADCAST, wire.SYNC_WRITE, bytes(params)), {})

    def alarms(self, servo: int, bits: int) -> tuple[str, ...]:
        """Returns the names of alarm bits, "bit 6" for one without."""
        del servo  # Unused: one family, one meaning.
        return bits_named(bits, wire.ALARMS)

    def reboot(self, servo: int) -> None:
        """Switches the torque off, which is all that the family has; DeviceFault where an alarm stays all the same."""
        firmly(lambda: self._put(servo, "torque", b"\x00"))
        bits = read_firmly(self, servo, "alarm")
        if bits:
            named = ", ".join(self.alarms(servo, bits))
            raise DeviceFault(self._name, f"servo {servo} keeps its alarm ({named}); switch its supply off and on", bits)

    def configure(self, servo: int) -> Mapping[str, tuple[int, int]]:
        """Writes what differs of: answers to everything, position mode, no return delay, one turn, and the given settings."""
        if read_firmly(self, servo, "response_level") != 1:  # it would answer none of the writes that follow
            for name, value in (("lock", 0), ("response_level", 1), ("lock", 1)):
                self._ask(Packet(servo, wire.WRITE, bytes([self._register(name).address, value])), {})
            changed = {"response_level": (0, read_firmly(self, servo, "response_level"))}
        else:
            changed = {}
        phase = read_firmly(self, servo, "phase") & ~wire.MULTI_TURN
        wanted = {**SETTINGS, "phase": phase, **self._settings.get(servo, {})}
        return {**changed, **settle(self, servo, wanted, self._name)}

    def model_name(self, number: int) -> str:
        """Returns what a model number stands for."""
        return wire.MODELS.get(number, f"model {number}")

    def _register(self, name: str) -> wire.Register:
        return register(self._name, name, REGISTERS)

    def _encoded(self, servo: int, name: str, value: int) -> bytes:
        try:
            return wire.encode(self._register(name), value)
        except (TypeError, ValueError) as error:
            raise BadCommand(self._name, f"{name} of servo {servo}: {error}") from None

    def _get(self, servo: int, address: int, length: int) -> bytes:
        """Returns bytes of a servo's table."""
        return self._ask(Packet(servo, wire.READ, bytes([address, length])), {servo: length})[servo].params

    def _put(self, servo: int, name: str, data: bytes) -> int:
        """Writes a register and returns the alarm bits of the answer."""
        return self._ask(Packet(servo, wire.WRITE, bytes([self._register(name).address]) + data), {servo: 0})[servo].code

    def _ask(self, request: Packet, wanted: Mapping[int, int]) -> dict[int, Packet]:
        """Sends a request and returns the answers of the wanted servos; wanted: the length of each one's parameters."""
        if self._port is None:
            raise TransportLost(self._name, f"{self._port_name} is not open")
        try:
            with wire_errors(self._name, self._port_name):
                if self._late and wanted:
                    servo = self._heard if self._heard >= 0 else next(iter(wanted))
                    self._heard = -1  # who is silent now is not asked twice
                    self._barrier = (self._barrier + 1) % len(_BARRIERS)
                    length = _BARRIERS[self._barrier]
                    self._talk(Packet(servo, wire.READ, bytes([0, length])), {servo: length})
                    self._late = False
                return self._talk(request, wanted)
        except (TransportTimeout, TransportCorrupt) as error:
            self._late = True
            self.counters["timeouts" if isinstance(error, TransportTimeout) else "corrupt"] += 1
            raise

    def _talk(self, request: Packet, wanted: Mapping[int, int]) -> dict[int, Packet]:
        found: dict[int, Packet] = {}
        buffer = bytearray()
        patience_ns = max(self._timeout_ns, _WRITE_NS) if request.code == wire.WRITE else self._timeout_ns
        self._port.reset_input_buffer()
        self._sent_ns = self._clock_ns()
        self._port.write(wire.pack(request))
        while len(found) < len(wanted):
            left_s = max(0.0, (self._sent_ns + patience_ns - self._clock_ns()) / 1e9)  # what is there already is never late
            if not select.select([self._port.fileno()], [], [], left_s)[0]:
                self._heard = next(iter(found), -1)
                raise self._missed([servo for servo in wanted if servo not in found], buffer, patience_ns)
            buffer += self._port.read(4096)
            try:
                while (packet := wire.take(buffer)) is not None:
                    if wanted.get(packet.servo) == len(packet.params):  # else: a late answer to something else
                        found[packet.servo] = packet
            except ValueError as error:
                raise TransportCorrupt(self._name, str(error), raw=bytes(buffer)) from None
        self._recv_ns, self._heard = self._clock_ns(), next(iter(found), self._heard)
        return found

    def _missed(self, silent: Sequence[int], rest: bytearray, patience_ns: int) -> TransportTimeout | TransportCorrupt:
        who = f"servo {', '.join(map(str, silent))} on {self._port_name}"
        if rest:
            return TransportCorrupt(self._name, f"{who}: want a whole answer, got {rest.hex(' ')}", raw=bytes(rest))
        hint = "" if self._heard >= 0 else "; check ids, baud, supply, and that the adapter's latency timer is 1 ms"
        return TransportTimeout(self._name, f"{who}: no answer in {patience_ns / 1e6:g} ms{hint}")


def _field(params: bytes, name: str) -> int:
    """Returns one register of the block that `sample` reads."""
    at = REGISTERS[name].address - _BLOCK[0]
    return wire.decode(REGISTERS[name], params[at : at + REGISTERS[name].size])
