"""Dynamixel servos of the X series on one serial port: a `ServoBus` through the vendor's package (protocol 2.0).

The package makes, stuffs, checks and finds packets. Time-outs, lengths and errors are ours: its own time-outs are 34 ms and more
by the wall clock, it takes an answer that is too short for a value, and it hides the alert bit of sync reads.
"""

from __future__ import annotations

import contextlib
import select
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hardware._dynamixel_registers import ALARMS, DAMAGED, EXTENDED_POSITION, MODELS, REFUSALS, REGISTERS
from hardware._errors import BadCommand, ConfigMismatch, DeviceFault, HwError, TransportCorrupt, TransportLost, TransportTimeout
from hardware._servo_bus import Sample, bits_named, latency_timer_ms, open_port, register, settle, wire_errors
from robolearn.errors import MissingDependency

SETTINGS = {
    "status_level": 2,
    "return_delay": 0,
    "operating_mode": EXTENDED_POSITION,
}  # of every servo, where `wanted` says nothing else
_PING, _READ, _WRITE, _REBOOT, _SYNC_READ, _SYNC_WRITE, _ALL = 1, 2, 3, 8, 0x82, 0x83, 0xFE
_RAD_S = 0.229 * 2 * np.pi / 60  # a unit of velocity
_BLOCK = np.dtype([("current", "<i2"), ("velocity", "<i4"), ("position", "<i4")])  # registers 126 to 135
_SUCCESS, _TIMEOUT = 0, -3001  # results of the package
_BARRIERS = (5, 6, 7, 8, 9, 11, 12, 13, 14)  # lengths of the reads that flush out late answers; no other answer has one of them
_SETUP_S = 0.05  # what an answer may take where no cycle waits for it
_DELAY_S = 508e-6  # longest return delay, before `configure` has set it


class DynamixelBus:
    """The bus on `port` (a path) at `baud` [1/s]. wanted: settings by servo and register, besides `SETTINGS`.

    reply_s: what an answer may take beyond the time of its bytes; slowest_ms: of the adapter's latency timer.
    """

    ticks_per_turn = 4096
    watchdog_s: tuple[float, float] | None = (0.02, 2.54)
    homing_sign = 1
    zero_registers: tuple[str, ...] = ("homing", "drive_mode")

    def __init__(
        self,
        name: str,
        port: str,
        baud: int = 1_000_000,
        wanted: Mapping[int, Mapping[str, int]] | None = None,
        reply_s: float = 0.004,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        slowest_ms: int = 2,
    ) -> None:
        self._name, self._path, self._baud, self._wanted = name, port, baud, wanted or {}
        self._reply_s, self._clock_ns, self._slowest_ms = reply_s, clock_ns, slowest_ms
        self._line: _Line | None = None
        self._packets: Any = None
        self._unsure, self._barrier = False, 0  # an answer is late: it may still come
        self._delay_s: dict[int, float] = {}
        self._amperes: dict[int, float] = {}

    def open(self) -> None:
        """Opens the port; TransportLost where it is not there, ConfigMismatch where its adapter waits too long."""
        try:
            import dynamixel_sdk as sdk
        except ImportError:
            raise MissingDependency("dynamixel_sdk", "a Dynamixel bus", "pip install 'robolearn[dynamixel]'") from None
        waits_ms = latency_timer_ms(self._path)
        if waits_ms is not None and waits_ms > self._slowest_ms:
            where = f"/sys/bus/usb-serial/devices/{Path(self._path).resolve().name}/latency_timer"
            said = f"{self._path}: the adapter waits {waits_ms} ms, want {self._slowest_ms} at most; echo 1 | sudo tee {where}"
            raise ConfigMismatch(self._name, said, phase="connect")
        if sdk.PortHandler(self._path).getCFlagBaud(self._baud) <= 0:
            raise ConfigMismatch(self._name, f"{self._path} has no rate of {self._baud}; name another baud", phase="connect")
        port = open_port(self._name, self._path, self._baud)
        self._line, self._packets, self._unsure = _Line(port, self._clock_ns), sdk.PacketHandler(2.0), False

    def close(self) -> None:
        """Closes the port; may be called twice."""
        line, self._line = self._line, None
        if line is not None:
            with contextlib.suppress(TransportLost), wire_errors(self._name, self._path):  # it was unplugged
                line.close()

    def ping(self, servo: int) -> tuple[int, int]:
        """Returns model number and firmware."""
        with self._talk():
            self._send(_packet(servo, _PING), 14, _SETUP_S)
            _, said = self._receive(servo, 3)
        model = said[0] | said[1] << 8
        self._amperes[servo] = MODELS.get(model, ("", np.nan))[1]
        return model, said[2]

    def read(self, servo: int, name: str) -> int:
        """Returns a register in the servo's units, sign decoded."""
        address, size, signed = self._register(name)
        with self._talk():
            self._settle(servo)
            self._send(_packet(servo, _READ, struct.pack("<HH", address, size)), 11 + size, self._patience(servo))
            error, said = self._receive(servo, size)
        self._check(servo, name, error)
        return int.from_bytes(bytes(said), "little", signed=signed)

    def write(self, servo: int, name: str, value: int) -> None:
        """Writes a register; the servo's answer is checked."""
        address, size, signed = self._register(name)
        try:
            data = int(value).to_bytes(size, "little", signed=signed)
        except OverflowError:
            raise BadCommand(self._name, f"{name}: want {size} bytes{' with a sign' if signed else ''}, got {value}") from None
        with self._talk():
            self._settle(servo)
            self._send(_packet(servo, _WRITE, struct.pack("<H", address) + data), 11, self._patience(servo))
            error, _ = self._receive(servo, 0)
        self._check(servo, f"{name} = {value}", error)

    def sample(self, servos: Sequence[int]) -> Sample:
        """Returns current, velocity and position of all of them; no value where one answer is missing."""
        said, alert, missing = bytearray(), [], None
        with self._talk():
            self._settle(servos[0])
            sent_ns = self._clock_ns()
            ask = _packet(_ALL, _SYNC_READ, struct.pack("<HH", 126, _BLOCK.itemsize) + bytes(servos))
            self._send(ask, len(servos) * (11 + _BLOCK.itemsize), self._patience(*servos))
            for servo in servos:
                try:
                    error, block = self._receive(servo, _BLOCK.itemsize)
                    self._check(servo, "a sync read", error)
                except HwError as problem:  # the others still answer, and the wire has room for one: hear them out
                    missing = missing or problem
                else:
                    said += bytes(block)
                    alert.append(error > 127)
            recv_ns = self._clock_ns()
            if missing is not None:
                raise missing
        blocks = np.frombuffer(said, _BLOCK)
        amperes = np.array([self._amperes.get(servo, np.nan) for servo in servos])
        return Sample(
            position=blocks["position"].astype(np.int64),
            velocity=blocks["velocity"] * _RAD_S,
            current=blocks["current"] * amperes,
            alert=np.array(alert),
            sent_ns=sent_ns,
            recv_ns=recv_ns,
        )

    def goals(self, servos: Sequence[int], ticks: Sequence[int]) -> None:
        """Writes goal positions [ticks]; nobody answers."""
        try:
            goals = b"".join(struct.pack("<Bi", servo, int(tick)) for servo, tick in zip(servos, ticks, strict=True))
        except (ValueError, OverflowError, struct.error) as error:  # not a number, or beyond 32 bits
            raise BadCommand(self._name, f"goals: want {len(servos)} counts of 32 bits, got {ticks} ({error})") from None
        with self._talk():
            self._send(_packet(_ALL, _SYNC_WRITE, struct.pack("<HH", REGISTERS["goal"][0], 4) + goals), 0, 0.0)

    def alarms(self, servo: int, bits: int) -> tuple[str, ...]:
        """Returns the names of alarm bits."""
        del servo  # they are the same in the whole family
        return bits_named(bits, ALARMS)

    def reboot(self, servo: int) -> None:
        """Restarts a servo, which clears its alarm; it is away for some tenths of a second."""
        with self._talk():
            self._send(_packet(servo, _REBOOT), 11, _SETUP_S)
            self._receive(servo, 0)

    def configure(self, servo: int) -> Mapping[str, tuple[int, int]]:
        """Writes the settings that differ and returns them; ConfigMismatch for one that does not take."""
        wanted = {**SETTINGS, **self._wanted.get(servo, {})}
        order = sorted(wanted, key=lambda name: (name != "status_level", self._register(name)[0]))  # first of all, let it answer
        changed = settle(self, servo, {name: wanted[name] for name in order}, self._name)
        self._delay_s[servo] = 2e-6 * wanted["return_delay"]
        return changed

    def model_name(self, number: int) -> str:
        """Returns what a model number stands for."""
        return MODELS.get(number, (f"model {number}",))[0]

    def _register(self, name: str) -> tuple[int, int, bool]:
        return register(self._name, name, REGISTERS)

    def _patience(self, *servos: int) -> float:
        return self._reply_s + sum(self._delay_s.get(servo, _DELAY_S) for servo in servos)

    @contextlib.contextmanager
    def _talk(self) -> Iterator[None]:
        """Turns what the port throws into our errors, and frees it for the next call."""
        if self._line is None:
            raise TransportLost(self._name, f"{self._path} is not open")
        try:
            with wire_errors(self._name, self._path):
                yield
        except TransportTimeout:
            self._unsure = True
            raise
        finally:
            self._line.is_using = False

    def _send(self, packet: list[int], answer: int, patience_s: float) -> None:
        """Sends a packet; its answer of so many bytes is due when the bytes and the patience are over."""
        assert self._line is not None  # `_talk` has looked
        due_s = 10 * (len(packet) + answer) / self._baud + patience_s
        result = self._packets.txPacket(self._line, packet)
        if result != _SUCCESS:
            raise TransportLost(self._name, f"{self._path} takes no bytes: {self._packets.getTxRxResult(result)}", raw=result)
        self._line.wait_until(self._clock_ns() + int(1e9 * due_s))

    def _receive(self, servo: int, length: int) -> tuple[int, list[int]]:
        """Returns error byte and data of the answer of a servo; passes over what others say, and what is not as long as asked."""
        odd = ""
        while True:
            packet, result = self._packets.rxPacket(self._line, False)
            if result != _SUCCESS:
                self._unsure = True
                if result == _TIMEOUT and not odd:
                    raise TransportTimeout(self._name, f"no answer from servo {servo}", raw=result)
                raise TransportCorrupt(self._name, f"servo {servo}: {odd or 'its answer is damaged'}", raw=result)
            got = (packet[5] | packet[6] << 8) - 4  # the package cuts data to the length asked for, whatever came
            if packet[4] == servo and (got == length or (got == 0 and packet[8] & 0x7F)):
                return packet[8], packet[9 : 9 + got]
            if packet[4] == servo:
                odd = f"its answer has {got} bytes, want {length}"

    def _settle(self, servo: int) -> None:
        """After a late answer: waits for one of a length that nothing else has, so that all before it is off the line.

        The length changes from call to call, as this answer may be late too.
        """
        if self._unsure:
            self._barrier = (self._barrier + 1) % len(_BARRIERS)
            length = _BARRIERS[self._barrier]
            self._send(_packet(servo, _READ, struct.pack("<HH", 0, length)), 11 + length, self._patience(servo))
            if len(self._receive(servo, length)[1]) != length:  # a refusal, and nobody knows of what
                raise TransportCorrupt(self._name, f"servo {servo}: want {length} bytes, got none")
            self._unsure = False

    def _check(self, servo: int, what: str, error: int) -> None:
        if error & 0x7F:
            said = f"servo {servo} refuses {what}: {REFUSALS.get(error & 0x7F, 'unknown')} error"
            if error & 0x7F == DAMAGED:  # our request, on its way
                raise TransportCorrupt(self._name, said, raw=error)
            if error > 127:
                raise DeviceFault(self._name, f"{said}, under an alarm; clear the fault", error)
            raise ConfigMismatch(self._name, said, raw=error)


class _Line:
    """The package's port with our time-outs: it sleeps for bytes instead of spinning, by a clock that nobody sets."""

    def __init__(self, port: Any, clock_ns: Callable[[], int]) -> None:
        """port: pyserial's, open."""
        self.is_using = False
        self._serial, self._clock_ns = port, clock_ns
        self._rest, self._due_ns = b"", 0

    def close(self) -> None:
        self._serial.close()

    def wait_until(self, due_ns: int) -> None:
        self._due_ns = due_ns

    def clearPort(self) -> None:  # the names are the package's
        self._rest = b""
        self._serial.reset_input_buffer()

    def writePort(self, packet: list[int]) -> int:
        return int(self._serial.write(bytes(packet)))

    def readPort(self, length: int) -> bytes:
        if not self._rest:
            left_s = max(0, self._due_ns - self._clock_ns()) / 1e9
            if not select.select([self._serial.fileno()], [], [], left_s)[0]:
                return b""
            self._rest = self._serial.read(4096)
        said, self._rest = self._rest[:length], self._rest[length:]
        return said

    def isPacketTimeout(self) -> bool:
        return self._clock_ns() >= self._due_ns


def _packet(servo: int, instruction: int, parameters: bytes = b"") -> list[int]:
    """Returns what the package wants to send: header, id, length, instruction, parameters, and room for the checksum."""
    length = len(parameters) + 3
    return [0, 0, 0, 0, servo, length & 0xFF, length >> 8, instruction, *parameters, 0, 0]
