"""The control box of a UFACTORY xArm: private Modbus TCP (502) and report ports (30001-30003), for the vendor's SDK.

A frame is `u16 transaction | u16 protocol | u16 length | u8 function | data`, headers big-endian, floats little-endian; an answer
has a byte of state after the function. The serial number of the arm ends in EMULATED: it says that it is none. Not modelled:
kinematics (poses read zero, Cartesian commands do nothing), planning (a joint move goes straight to its goal), grippers, rails.
Faults: dead and alive silence the box with its sockets open, unplug and replug end its connections, freeze stops the measured
values, delay holds every word back, drop loses answers; alarm raises an error code, pstop is a collision (31), estop the button
(1), and clear lets the button go.
"""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hardware.emulators._base import Faults, unknown
from hardware.emulators._goals import Goals
from hardware.emulators._plants import FirstOrder
from hardware.emulators._tcp import Ports
from robolearn.core import Plant
from robolearn.errors import ConfigError

VERSION, SERIAL, MOTION_ENABLE, SET_STATE, GET_STATE, QUEUE, ERROR, CLEAR_ERROR, CLEAR_WARNING = 1, 2, 11, 12, 13, 14, 15, 16, 17
MODE, MOVE_JOINT, SERVO_JOINT, POSE, JOINTS = 19, 23, 29, 41, 42
MOVING, RESTING, PAUSED, STOPPED, MODE_CHANGED = 1, 2, 3, 4, 5
HAS_ERROR, NOT_READY, INVALID = 0x40, 0x10, 0x08  # bits of the answer's state byte
EMERGENCY, COLLISION = 1, 31  # error codes
WHO, BOX = "XI1304EMULATED", "AC1300"
HEARTBEAT = struct.pack(">3H", 0, 1, 2)
REPORTS = {30001: 5.0, 30002: 5.0, 30003: 100.0}  # port: Hz
OPS = ("dead", "alive", "alarm", "clear", "drop", "delay", "freeze", "thaw", "pstop", "estop", "unplug", "replug", "stats")
_TICK_HZ = 250.0


@dataclass(frozen=True)
class Config:
    """Where it listens and how it begins."""

    host: str = ""
    """An address of this machine; empty: one of 127.x.y.z that is free."""
    port: int = 502
    """Of the commands; ports below 1024 need a privilege."""
    axes: int = 7
    """Joints of the arm, 5 to 7."""
    q: tuple[float, ...] = (0.0,) * 7
    """Where the joints begin [rad], unless a plant is given."""
    seed: int = 0
    """Of the drawn faults."""

    def __post_init__(self) -> None:
        if self.axes not in (5, 6, 7) or len(self.q) != 7 or not 0 < self.port < 65536:
            got = f"{self.axes}, {len(self.q)} and {self.port}"
            raise ConfigError(f"xarm: want 5 to 7 axes, 7 angles in q (the last ones unused) and a port, got {got}")


def make(config: Config, plant: Plant | None = None, clock_ns: Callable[[], int] = time.monotonic_ns) -> XArm:
    """Returns the emulator, not open yet; plant: seven joints, None for some of first order with the arm's speed limit."""
    return XArm(config, plant or FirstOrder(config.q, time_constant_s=0.03, speed=np.pi), clock_ns)


class Box:
    """What the control box knows and does. `answer` is the protocol: a frame in, a frame out."""

    def __init__(self, plant: Plant, axes: int = 7) -> None:
        self.plant, self.axes = plant, axes
        self.enabled, self.mode, self.state, self.error, self.pressed, self.frozen = False, 0, STOPPED, 0, False, False
        self.goals, self.calls = Goals(), Counter[int]()
        self._seen: Mapping[str, np.ndarray] = dict(plant.measure())

    def answer(self, frame: bytes) -> bytes:
        """Returns the answer to one whole frame, nothing to a heartbeat."""
        if frame[:6] == HEARTBEAT or len(frame) < 7:
            return b""
        transaction, protocol, _, function = struct.unpack_from(">3HB", frame)
        self.calls[function] += 1
        data = self._do(function, frame[7:])
        state = (HAS_ERROR if self.error else 0) | (0 if self._ready else NOT_READY) | (INVALID if data is None else 0)
        body = bytes([function, state]) + (data or b"")
        return struct.pack(">3H", transaction, protocol, len(body)) + body

    def report(self, port: int) -> bytes:
        """Returns one report as a port gives it."""
        seen = self._seen
        floats = struct.pack("<20f", *seen["q"], *(0.0,) * 6, *seen["effort"])
        body = struct.pack(">BH", self._shown | self.mode << 4, 0) + floats
        if port != 30003:
            on = 0xFF * self.enabled
            body += (
                bytes([on, on, self.error, 0]) + struct.pack("<10f", *(0.0,) * 10) + b"\x03\x03" + struct.pack("<3f", 0, 0, -1)
            )
        if port == 30002:
            limits = struct.pack("<12f", 1000, 1, 50000, 0.1, 1000, 20, 0.01, 20, 0.0001, 4, 2.3, 2.7)
            body += (
                bytes([self.axes, self.axes, 1, 1, 0, 0]) + self._version[:30].ljust(30, b"\0") + limits + bytes(16) + b"\x1e" * 7
            )
        return struct.pack(">I", len(body) + 4) + body

    def fail(self, code: int) -> None:
        """Raises an error, which stops the arm where it is."""
        self.error, self.state = code, STOPPED
        self.plant.command(np.asarray(self.plant.measure()["q"]))

    def advance(self, seconds: float) -> None:
        """Lets so much time pass."""
        self.plant.advance(seconds)
        if not self.frozen:
            self._seen = dict(self.plant.measure())

    def stats(self) -> dict[str, Any]:
        """Returns counters, goals as they came over the wire, and the state, as JSON takes it."""
        calls = {str(function): count for function, count in self.calls.items()}
        return {
            "calls": calls, "goals": self.goals.stats(), "enabled": self.enabled, "mode": self.mode, "state": self._shown,
            "error_code": self.error, "q": np.asarray(self.plant.measure()["q"]).tolist(),
        }  # fmt: skip

    @property
    def _ready(self) -> bool:
        return self.enabled and self.state < PAUSED and not self.error

    @property
    def _shown(self) -> int:
        moving = bool(np.abs(self._seen["qd"]).max() > 0.01)
        return self.state if self.state >= PAUSED else MOVING if moving else RESTING

    @property
    def _version(self) -> bytes:
        return f"{self.axes},{self.axes},{WHO},{BOX},v2.5.0".encode()

    def _do(self, function: int, data: bytes) -> bytes | None:
        """Does one function and returns its data; None for what the box has not."""
        if function in (MOVE_JOINT, SERVO_JOINT):
            return self._move(data, 1 if function == SERVO_JOINT else 0)
        if function == JOINTS:
            kinds = (data[0] & 0x0F) if data else 1
            return b"".join(struct.pack("<7f", *self._seen[name]) for name in ("q", "qd", "effort")[:kinds])
        answers: dict[int, Callable[[], bytes]] = {
            VERSION: lambda: self._version.ljust(40, b"\0"),
            SERIAL: lambda: f"{WHO}\0{BOX}\0".encode().ljust(40, b"\0"),
            GET_STATE: lambda: bytes([self._shown]),
            QUEUE: lambda: bytes(2),
            ERROR: lambda: bytes([self.error, 0]),
            POSE: lambda: bytes(24),
            CLEAR_WARNING: lambda: b"",
        }
        if function in answers:
            return answers[function]()
        if function == MOTION_ENABLE and len(data) == 2:
            self.enabled = bool(data[1]) and not self.error
            if not self.enabled:
                self.plant.command(np.asarray(self.plant.measure()["q"]))  # the brakes hold it
        elif function == SET_STATE and data:
            self.state = self.state if self.error else RESTING if data[0] == 0 else data[0]
            self.plant.command(np.asarray(self.plant.measure()["q"]))
        elif function == MODE and data:
            self.mode, self.state = data[0], MODE_CHANGED  # until it is told to start
            self.plant.command(np.asarray(self.plant.measure()["q"]))
        elif function == CLEAR_ERROR:
            self.error = EMERGENCY if self.pressed else 0
        else:
            return None
        return b""

    def _move(self, data: bytes, mode: int) -> bytes | None:
        """Takes a joint goal; it is followed in the right mode and while the arm is ready."""
        if len(data) < 28:
            return None
        goal = struct.unpack_from("<7f", data)
        if self.goals.note(goal) and self._ready and self.mode == mode:
            self.plant.command(np.array(goal))
        return b""


class Control:
    """One client's connection to the command port."""

    def __init__(self, box: Box, spoil: Callable[[bytes], bytes]) -> None:
        self._box, self._spoil, self._rest = box, spoil, b""

    def greet(self) -> bytes:
        """Says nothing: the client begins."""
        return b""

    def feed(self, data: bytes) -> bytes:
        """Takes bytes however they are cut; returns the answers to the whole frames among them."""
        self._rest += data
        answers = b""
        while len(self._rest) >= 6 and len(self._rest) >= (whole := 6 + struct.unpack_from(">H", self._rest, 4)[0]):
            answers += self._spoil(self._box.answer(self._rest[:whole]))
            self._rest = self._rest[whole:]
        return answers

    def end(self) -> None:
        """Keeps nothing."""


class Listener:
    """One client's connection to a report port: it only listens."""

    def greet(self) -> bytes:
        """Says nothing yet."""
        return b""

    def feed(self, data: bytes) -> bytes:
        """Ignores what it says."""
        return b""

    def end(self) -> None:
        """Keeps nothing."""


class XArm:
    """The `Emulator`: one control box behind four ports."""

    def __init__(self, config: Config, plant: Plant, clock_ns: Callable[[], int]) -> None:
        self._config, self._clock_ns, self._faults = config, clock_ns, Faults(config.seed)
        self.joints = tuple(f"joint{k}" for k in range(1, 8))
        self.box = Box(plant, config.axes)
        talks: dict[int, Callable[[], Any]] = {config.port: lambda: Control(self.box, self._faults.spoil)}
        self._ports = Ports({**talks, **dict.fromkeys(REPORTS, Listener)}, clock_ns)
        self._tick, self._began_ns = 0, 0

    def open(self) -> str:
        """Listens and returns the address."""
        self._began_ns = self._clock_ns()
        return self._ports.open(self._config.host)

    def turn(self, timeout_s: float) -> None:
        """Answers for at most so long, moves the plant up to now and reports."""
        self._ports.wait(timeout_s)
        tick = int((self._clock_ns() - self._began_ns) * _TICK_HZ / 1e9)
        if tick == self._tick:
            return
        self.box.advance((tick - self._tick) / _TICK_HZ)
        for port, hz in REPORTS.items():
            every = _TICK_HZ / hz
            if tick // every > self._tick // every:
                for _, say in self._ports.talks(port):
                    say(self.box.report(port))
        self._tick = tick

    def control(self, op: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Does one of `OPS`; alarm takes a code."""
        if op not in OPS:
            raise unknown(op, OPS)
        if op in ("dead", "alive"):
            self._ports.silent = op == "dead"
        elif op in ("alarm", "pstop", "estop"):
            self.box.pressed = self.box.pressed or op == "estop"
            self.box.fail(int(args["code"]) if op == "alarm" else COLLISION if op == "pstop" else EMERGENCY)
        elif op == "clear":
            self.box.pressed = False
        elif op == "unplug":
            self._ports.unplug()
        elif op == "replug":
            self._ports.replug()
        elif op == "stats":
            return {**self.box.stats(), **self._faults.counts}
        else:
            self._faults.set(op, args)
            self.box.frozen, self._ports.delay_s = self._faults.frozen, self._faults.delay_s
        return {}

    def close(self) -> None:
        """Closes all ports."""
        self._ports.close()
