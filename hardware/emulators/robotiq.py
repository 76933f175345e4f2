"""A Robotiq 2F gripper on a pseudo-terminal (Modbus RTU) or a loopback port (Modbus TCP), with a plant for its fingers.

It says what it is in the device identification (function 43), which the metal does not know: the vendor is "robolearn". Another
unit's requests meet silence on the line, as on RS-485, and exception 11 on TCP, as from a gateway.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hardware.emulators._base import Faults, unknown
from hardware.emulators._goals import Goals
from hardware.emulators._modbus import Conversation, crc16, take
from hardware.emulators._plants import FirstOrder
from hardware.emulators._pty import Wire
from hardware.emulators._tcp import Ports
from robolearn.core import Plant
from robolearn.errors import BadInput, ConfigError

COMMAND, STATUS, BLOCK = 0x03E8, 0x07D0, 8  # of each block three registers are in use, the rest reads 0
TCP_PORT = 1502
IDENTITY = (b"robolearn", b"EMULATED 2F", b"1")
_OPS = ("set", "alarm", "clear", "dead", "alive", "drop", "corrupt", "delay", "freeze", "thaw", "unplug", "replug", "stats")
_NOTES = (0, 0x05, 0x07, 0x09)  # faults with which the fingers still move


@dataclass(frozen=True)
class Config:
    """Which gripper it is."""

    transport: str = "rtu"
    """rtu: on a pseudo-terminal; tcp: on an address of this machine."""
    unit: int = 9
    """Its Modbus address."""
    opening_m: float = 0.085
    """Between the fingers when open [m]."""
    object_m: float = 0.0
    """Width of what lies between the fingers [m]; 0: nothing."""
    speed: tuple[float, float] = (0.02, 0.15)
    """Of the fingers at speed register 0 and 255 [m/s]."""
    activated: bool = False
    """Whether somebody has homed it already."""
    seed: int = 0
    """Of the faults."""

    def __post_init__(self) -> None:
        if self.transport not in ("rtu", "tcp"):
            raise ConfigError(f"robotiq transport: want rtu or tcp, got '{self.transport}'")
        if not 0 <= self.object_m <= self.opening_m or not 0 < self.speed[0] <= self.speed[1]:
            raise ConfigError(f"robotiq: want object_m from 0 to {self.opening_m:g} and rising speeds, got {self}")


class Gripper:
    """The registers, and what they make the fingers do. Positions: 0 open .. 255 closed; reference: where they should be now."""

    def __init__(self, config: Config, position: float) -> None:
        """position: where the fingers begin."""
        self.config, self.position, self.reference = config, position, position
        self.command, self.goals = [0x0100 if config.activated else 0, 0, 0], Goals()
        self.state, self.fault, self.contact = 3 if config.activated else 0, 0, 0
        self.object_m, self._homing = config.object_m, list[float]()

    @property
    def action(self) -> int:
        """The bits of the action request."""
        return self.command[0] >> 8

    def answer(self, pdu: bytes) -> bytes:
        """Returns the answer to function and data, an exception where they are not to be answered."""
        function, data = pdu[0], pdu[1:]
        try:
            if function in (3, 4):
                return bytes([function]) + self._read(*struct.unpack(">HH", data))
            if function == 6:
                self._write(int.from_bytes(data[:2], "big"), data[2:])
                return pdu
            if function == 16:
                self._write(int.from_bytes(data[:2], "big"), data[5:])
                return pdu[:5]
            if function == 23:
                read_at, count, write_at = struct.unpack(">HHH", data[:6])
                self._write(write_at, data[9:])
                return bytes([function]) + self._read(read_at, count)
            if function == 43 and data[:1] == b"\x0e":
                said = b"".join(bytes([k, len(word)]) + word for k, word in enumerate(IDENTITY))
                return bytes([43, 14, 1, 1, 0, 0, len(IDENTITY)]) + said
        except LookupError:
            return bytes([function | 0x80, 2])
        except struct.error:
            return bytes([function | 0x80, 3])
        return bytes([function | 0x80, 1])

    def advance(self, seconds: float, position: float) -> float:
        """Takes the measured position and returns where the fingers should be after so many seconds."""
        self.position = position
        slowest, fastest = self.config.speed
        share = 1.0 if self.state == 1 else (self.command[2] >> 8) / 255
        step = (slowest + (fastest - slowest) * share) * seconds / self.config.opening_m * 255
        goal = self._target()
        self.reference += float(np.clip(goal - self.reference, -step, step))
        arrived = abs(self.reference - goal) < 0.5 and abs(position - goal) < 1.0
        if self._homing and arrived:
            self._homing.pop(0)
            self.state = 1 if self._homing else 3
        going = self.state == 3 and self.action & 0x08
        requested = self.command[1] & 0xFF
        self.contact = (3 if abs(requested - goal) < 1.0 else 2) if going and arrived else 0
        if self.fault == 0x0B and arrived:
            self.fault = 0x0F
        return self.reference

    def _target(self) -> float:
        if self._homing:
            return self._homing[0]
        if self.fault == 0x0B:
            return 0.0
        if self.state != 3 or not self.action & 0x08 or self.fault not in _NOTES:
            return self.reference
        closest = 255 * (1 - self.object_m / self.config.opening_m)
        goal = float(self.command[1] & 0xFF)
        return min(goal, closest) if self.reference <= closest + 0.5 else goal

    def _status(self) -> list[int]:
        action = self.action & 0x09 | self.state << 4 | self.contact << 6
        moving = abs(self.reference - self.position) > 1.0
        current = 30 if moving else (self.command[2] & 0xFF) // 4 if self.contact == 2 else 0
        position = int(np.clip(round(self.position), 0, 255))
        return [action << 8, self.fault << 8 | self.command[1] & 0xFF, position << 8 | current]

    def _read(self, address: int, count: int) -> bytes:
        for base, used in ((COMMAND, self.command), (STATUS, self._status())):
            if base <= address and address + count <= base + BLOCK and count:
                whole = used + [0] * (BLOCK - len(used))
                return bytes([2 * count]) + struct.pack(f">{count}H", *whole[address - base : address - base + count])
        raise LookupError

    def _write(self, address: int, data: bytes) -> None:
        values = struct.unpack(f">{len(data) // 2}H", data)
        if not COMMAND <= address <= address + len(values) <= COMMAND + len(self.command) or not values:
            raise LookupError
        before, requested = self.action, self.command[1]
        for at, value in enumerate(values, start=address - COMMAND):
            self.command[at] = value
        if self.command[1] != requested:
            self.contact = 0
        if self.action & 0x08:
            self.goals.note([(1 - (self.command[1] & 0xFF) / 255) * self.config.opening_m])
        if not self.action & 0x01:
            self.state, self.fault, self._homing = 0, 0x07 if self.action & 0x08 else 0, []
        elif not before & 0x01:
            self.state, self.fault, self._homing = 1, 0, [255.0, 0.0]
        elif self.state == 1 and self.action & 0x08:
            self.fault = 0x05
        elif self.action & 0x10 and self.fault != 0x0F:
            self.fault = 0x0B
        if self.state == 3 and self.fault in _NOTES:
            self.fault = 0


class Robotiq:
    """The emulator: a `Gripper` on a line or a port, its fingers moved by a plant in real time. unheard: damaged requests."""

    joints = ("gripper",)

    def __init__(self, config: Config, plant: Plant, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        """plant: with one joint, the opening [m]."""
        self.config, self.faults, self._plant = config, Faults(config.seed), plant
        self._clock_ns, self._now_ns = clock_ns, clock_ns()
        self.gripper, self.requests, self.unheard = Gripper(config, self._position()), 0, 0
        self._end: Wire | Ports | None = None
        self._buffer = bytearray()

    def open(self) -> str:
        """Opens the line or the port and returns its path, or tcp://host:port."""
        if self.config.transport == "rtu":
            self._end = Wire(self.faults, self._clock_ns)
            return self._end.open()
        self._end = Ports({TCP_PORT: lambda: Conversation(self.config.unit, self.answer, self.spoil)}, self._clock_ns)
        return f"tcp://{self._end.open()}:{TCP_PORT}"

    def turn(self, timeout_s: float) -> None:
        """Waits at most so long for requests, answers them, and moves the fingers up to now."""
        if isinstance(self._end, Ports):
            self._end.wait(timeout_s)  # answers through `Conversation`
        elif self._end is not None:
            came = self._end.read(timeout_s)
            if not came:
                self.unheard += bool(self._buffer)
                self._buffer.clear()  # silence ends a frame
            self._buffer += came
            while (request := take(self._buffer)) is not None:
                unit, pdu = request
                if unit == self.config.unit:
                    frame = bytes([unit]) + self.answer(pdu)
                    self._end.say(self.spoil(frame + crc16(frame)))
        self._advance()

    def answer(self, pdu: bytes) -> bytes:
        """Returns the gripper's answer at this instant."""
        self.requests += 1
        self._advance()
        return self.gripper.answer(pdu)

    def spoil(self, frame: bytes) -> bytes:
        """Returns a frame as it arrives."""
        return b"" if self.config.unit in self.faults.dead else self.faults.spoil(frame)

    def control(self, op: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Does one op: set object_m, alarm bits (the fault, which a reset ends), clear, and the faults."""
        if op == "corrupt" and args.get("p") and self.config.transport == "tcp":
            raise BadInput("corrupt: TCP delivers no damaged bytes; drop them instead")
        if self.faults.set(op, args):
            if isinstance(self._end, Ports):
                self._end.delay_s = self.faults.delay_s
            return {}
        if op == "set":
            self.gripper.object_m = float(np.clip(float(args["object_m"]), 0.0, self.config.opening_m))
        elif op == "alarm":
            self.gripper.fault = int(args["bits"]) & 0x0F
        elif op == "clear":
            self.gripper.fault = 0
        elif op in ("unplug", "replug"):
            if self._end is not None:
                self._end.unplug() if op == "unplug" else self._end.replug()
        elif op == "stats":
            seen = self._plant.measure()
            return {
                "requests": self.requests, "unheard": self.unheard, **self.faults.counts, "goals": self.gripper.goals.stats(),
                "q": seen["q"].tolist(), "qd": seen["qd"].tolist(), "torque": [self.gripper.action & 0x01],
            }  # fmt: skip
        else:
            raise unknown(op, _OPS)
        return {}

    def close(self) -> None:
        """Closes the line or the port."""
        if self._end is not None:
            self._end.close()
        self._end = None

    def _position(self) -> float:
        return 255 * (1 - float(self._plant.measure()["q"][0]) / self.config.opening_m)

    def _advance(self) -> None:
        now = self._clock_ns()
        seconds, self._now_ns = (now - self._now_ns) / 1e9, now
        seen = self.gripper.position if self.faults.frozen else self._position()
        reference = self.gripper.advance(seconds, seen)
        self._plant.command(np.array([(1 - reference / 255) * self.config.opening_m]))
        self._plant.advance(seconds)


def make(config: Config, plant: Plant | None = None) -> Robotiq:
    """Returns the gripper, not open yet; plant: None for fingers that are open and follow at once."""
    return Robotiq(config, plant or FirstOrder([config.opening_m], time_constant_s=0.005, speed=10.0))
