"""Feetech STS servos on a pseudo-terminal: protocol 0 with a memory table each, EPROM lock, alarms and a plant behind them.

It says what it is by firmware 255.0. Where the metal's behaviour is not documented it does what is worse for a driver: switched
on, a servo goes to whatever stands in its goal register; overloaded, it refuses to be switched off until its supply is cut.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hardware import _feetech_wire as wire
from hardware._feetech_wire import REGISTERS, Packet
from hardware.emulators._base import Faults, one_of, unknown
from hardware.emulators._delayed import Delayed
from hardware.emulators._goals import Goals
from hardware.emulators._hand import Hand
from hardware.emulators._plants import FirstOrder
from hardware.emulators._pty import Wire
from robolearn.core import Plant
from robolearn.errors import ConfigError

_SIZE, _EPROM_END = 128, 40
_FIXED = {r.address + k for r in REGISTERS.values() if r.fixed for k in range(r.size)}
_STOPS = 4 | 8 | 32  # alarms in which a servo no longer follows
_OVERLOAD = 32
_OPS = ("set", "alarm", "clear", "dead", "alive", "drop", "corrupt", "delay", "freeze", "thaw", "unplug", "replug", "stats")


@dataclass(frozen=True)
class Config:
    """Which servos there are."""

    ids: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    """Of the servos, in the order of the plant's joints."""
    model: int = 777
    """Their model number; 777 is the STS3215."""
    q: tuple[float, ...] = ()
    """Where they begin [rad], 0 in the middle of the turn; empty: all 0."""
    homing: tuple[int, ...] = ()
    """Homing offsets [ticks] in the EPROM; empty: all 0."""
    voltage: float = 7.4
    """Of the supply [V]."""
    lag_s: float = 0.0
    """Dead time from a goal until the joints follow it [s]."""
    seed: int = 0
    """Of the faults."""

    def __post_init__(self) -> None:
        if not self.ids or len(set(self.ids)) != len(self.ids) or not all(0 <= servo <= 253 for servo in self.ids):
            raise ConfigError(f"feetech ids: want different numbers from 0 to 253, got {self.ids}")
        for name in ("q", "homing"):
            if getattr(self, name) and len(getattr(self, name)) != len(self.ids):
                raise ConfigError(
                    f"feetech {name}: want {len(self.ids)} numbers, one for each of ids, got {len(getattr(self, name))}"
                )


class Servo:
    """The memory of one servo, and what it says to a packet."""

    def __init__(self, servo: int, model: int, homing: int, voltage: float) -> None:
        self.id, self.saved = servo, bytearray(_EPROM_END)
        self.memory, self._registered = bytearray(_SIZE), b""
        self.goal_written = False
        factory = {
            "firmware_major": wire.EMULATED_FIRMWARE // 100, "model": model, "id": servo, "return_delay": 250,
            "response_level": 1, "max_position": wire.TICKS - 1, "max_temperature": 70, "max_torque": 1000, "phase": 12,
            "p_gain": 32, "d_gain": 32, "protection_current": 500, "homing": homing, "protective_torque": 20,
            "protection_time": 200, "overload_torque": 80,
        }  # fmt: skip
        self._ram = {"torque_limit": 1000, "lock": 1, "voltage": round(10 * voltage), "temperature": 25}
        for name, value in factory.items():
            self.put(name, value)
        self.saved[:] = self.memory[:_EPROM_END]
        self.power_up()

    def power_up(self) -> None:
        """Begins anew: what was written to a locked EPROM is forgotten, the torque is off, no alarm is left."""
        self.memory[:] = self.saved + bytes(_SIZE - _EPROM_END)
        for name, value in self._ram.items():
            self.put(name, value)

    def get(self, name: str) -> int:
        """Returns a register."""
        at = REGISTERS[name].address
        return wire.decode(REGISTERS[name], self.memory[at : at + REGISTERS[name].size])

    def put(self, name: str, value: int) -> None:
        """Sets a register from inside, read-only or not."""
        at = REGISTERS[name].address
        self.memory[at : at + REGISTERS[name].size] = wire.encode(REGISTERS[name], value)

    def answer(self, packet: Packet) -> bytes | None:
        """Returns the parameters of the status packet, None where the servo says nothing."""
        said: bytes | None = b""
        if packet.code == wire.READ and len(packet.params) == 2:
            address, length = packet.params
            return bytes(self.memory[address : address + length]).ljust(length, b"\0")
        if packet.code == wire.PING:
            return said
        if packet.code == wire.WRITE and len(packet.params) >= 2:
            self.write(packet.params[0], packet.params[1:])
        elif packet.code == wire.REG_WRITE and len(packet.params) >= 2:
            self._registered = packet.params
        elif packet.code == wire.ACTION:
            if self._registered:
                self.write(self._registered[0], self._registered[1:])
            self._registered = b""
        else:
            said = None
        return said if self.get("response_level") else None

    def write(self, address: int, data: bytes) -> None:
        """Writes what can be written; torque-off of an overloaded servo cannot."""
        for at, value in enumerate(data, start=address):
            stuck = at == REGISTERS["torque"].address and self.get("alarm") & _OVERLOAD
            if at >= _SIZE or stuck or at in _FIXED:
                continue
            self.memory[at] = value
            if at < _EPROM_END and not self.get("lock"):
                self.saved[at] = value
            self.goal_written |= at == REGISTERS["goal"].address


class Servos:
    """Servos on one wire: the protocol, without the wire. unheard: damaged packets; packets: whole ones."""

    def __init__(self, servos: Sequence[Servo]) -> None:
        self.servos = {servo.id: servo for servo in servos}
        self.packets, self.unheard = 0, 0

    def answers(self, packet: Packet) -> list[tuple[int, bytes]]:
        """Returns (servo, status packet) of everyone who says something, in the order of the wire."""
        self.packets += 1
        if packet.code == wire.SYNC_READ:
            read = Packet(0, wire.READ, packet.params[:2])
            return [self._status(self.servos[s], read) for s in packet.params[2:] if s in self.servos]  # type: ignore[misc]
        if packet.code == wire.SYNC_WRITE and len(packet.params) >= 2:
            address, length = packet.params[:2]
            for at in range(2, len(packet.params) - length, length + 1):
                if packet.params[at] in self.servos:
                    self.servos[packet.params[at]].write(address, packet.params[at + 1 : at + 1 + length])
            return []
        if packet.servo == wire.BROADCAST:
            for servo in self.servos.values():
                servo.answer(packet)
            return []
        said = self._status(self.servos[packet.servo], packet) if packet.servo in self.servos else None
        return [said] if said else []

    def answer(self, request: bytes) -> bytes:
        """Returns all that comes back for some bytes."""
        buffer, said = bytearray(request), b""
        while (packet := self.next(buffer)) is not None:
            said += b"".join(status for _, status in self.answers(packet))
        return said

    def next(self, buffer: bytearray) -> Packet | None:
        """Returns the next whole packet; damaged ones are counted and passed over."""
        while True:
            try:
                return wire.take(buffer)
            except ValueError:
                self.unheard += 1

    def _status(self, servo: Servo, packet: Packet) -> tuple[int, bytes] | None:
        params = servo.answer(packet)
        return None if params is None else (servo.id, wire.pack(Packet(servo.id, servo.get("alarm"), params)))


class Feetech:
    """The emulator: `Servos` on a pseudo-terminal, moved by a plant in real time."""

    def __init__(self, config: Config, plant: Plant, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        """plant: with a joint for each of config.ids, 0 rad in the middle of the turn."""
        self.joints = tuple(f"servo_{servo}" for servo in config.ids)
        homing = config.homing or (0,) * len(config.ids)
        self.wire = Servos([Servo(s, config.model, h, config.voltage) for s, h in zip(config.ids, homing, strict=True)])
        self.faults, self.goals, self._hand = Faults(config.seed), Goals(), Hand(len(config.ids))
        self._plant, self._clock_ns, self._now_ns = plant, clock_ns, clock_ns()
        self._line = Wire(self.faults, clock_ns)
        self._buffer = bytearray()
        self._drive()
        self._measure()

    def open(self) -> str:
        """Opens the pseudo-terminal and returns its path."""
        return self._line.open()

    def turn(self, timeout_s: float) -> None:
        """Waits at most so long for packets, moves the plant up to now and answers them."""
        came = self._line.read(timeout_s)
        self._advance()
        if not came:
            self._buffer.clear()  # a packet that stops in the middle is given up, as a servo does
            return
        self._buffer += came
        self._measure()
        while (packet := self.wire.next(self._buffer)) is not None:
            answers = self.wire.answers(packet)
            if packet.code not in (wire.PING, wire.READ, wire.SYNC_READ):
                self._drive()
            said = [self.faults.spoil(status) for servo, status in answers if servo not in self.faults.dead]
            self._line.say(b"".join(said))

    def control(self, op: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Does one op: set id name value (a register), alarm id bits, clear id (its supply is cut for a moment), or a fault.

        set hand takes a list of angles, where a hand moves the joints that have no torque (`hardware.emulators._hand`).
        """
        if self.faults.set(op, args):
            return {}
        if op == "set" and "hand" in args:
            self._hand.take(args["hand"])
        elif op == "set":
            one_of(REGISTERS, args["name"], "register")
            self._servo(args).put(args["name"], int(args["value"]))
        elif op == "alarm":
            self._servo(args).put("alarm", int(args["bits"]))
        elif op == "clear":
            self._servo(args).power_up()
        elif op in ("unplug", "replug"):
            self._line.unplug() if op == "unplug" else self._line.replug()
            self._buffer.clear()
        elif op == "stats":
            return self._stats()
        else:
            raise unknown(op, _OPS)
        self._drive()
        return {}

    def close(self) -> None:
        """Closes the pseudo-terminal."""
        self._line.close()

    def _servo(self, args: Mapping[str, Any]) -> Servo:
        return one_of(self.wire.servos, int(args["id"]), "servo")

    def _advance(self) -> None:
        now = self._clock_ns()
        self._plant.advance((now - self._now_ns) / 1e9)
        self._now_ns = now

    def _measure(self) -> None:
        """Writes what the plant does into the registers, as long as nothing is frozen."""
        if self.faults.frozen:
            return
        seen = {name: values.tolist() for name, values in self._plant.measure().items()}
        for servo, q, qd, effort in zip(self.wire.servos.values(), seen["q"], seen["qd"], seen["effort"], strict=True):
            ticks = round(wire.MIDDLE + q / wire.TICK_RAD) - servo.get("homing")
            servo.put("position", ticks if servo.get("phase") & wire.MULTI_TURN else ticks % wire.TICKS)
            servo.put("velocity", _within(qd / wire.TICK_RAD, -32767, 32767))
            servo.put("current", _within(effort / wire.AMPERE_PER_UNIT, -500, 500))  # as if 1 A gave 1 N m
            servo.put("moving", int(abs(qd) > 0.01))

    def _drive(self) -> None:
        """Gives the plant the goals of those servos that follow; the others stay, or fall."""
        servos = list(self.wire.servos.values())
        if any(servo.goal_written for servo in servos):
            self.goals.note(_rad(servo, servo.get("goal")) for servo in servos if servo.goal_written)
            for servo in servos:
                servo.goal_written = False
        held = np.array([servo.get("torque") == 1 and not servo.get("alarm") & _STOPS for servo in servos])
        targets = [_rad(s, _within(s.get("goal"), s.get("min_position"), s.get("max_position"))) for s in servos]
        goals, held = self._hand.lead(np.where(held, targets, self._plant.measure()["q"]), held)
        self._plant.command(goals)
        torque = getattr(self._plant, "torque", None)  # not every plant can fall
        if torque is not None:
            torque[:] = held

    def _stats(self) -> dict[str, Any]:
        seen = self._plant.measure()
        return {
            "packets": self.wire.packets, "unheard": self.wire.unheard, **self.faults.counts, "goals": self.goals.stats(),
            "q": seen["q"].tolist(), "qd": seen["qd"].tolist(),
            "torque": [servo.get("torque") for servo in self.wire.servos.values()],
        }  # fmt: skip


def _rad(servo: Servo, ticks: int) -> float:
    """Returns the plant's angle at which a servo says so many ticks."""
    return float((ticks + servo.get("homing") - wire.MIDDLE) * wire.TICK_RAD)


def _within(value: float, lowest: int, highest: int) -> int:
    return int(min(max(value, lowest), highest))


def make(config: Config, plant: Plant | None = None) -> Feetech:
    """Returns the servos, not open yet; plant: None for one of first order."""
    plant = plant or FirstOrder(config.q or (0.0,) * len(config.ids))
    return Feetech(config, Delayed(plant, config.lag_s) if config.lag_s else plant)
