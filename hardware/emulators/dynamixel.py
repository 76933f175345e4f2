"""A bus of Dynamixel X-series servos on a pseudo-terminal, protocol 2.0: drivers talk to it as to metal.

Known instructions: ping, read, write, reg write, action, reboot, clear, sync and bulk read and write, fast sync and bulk read.
With `baud` every byte takes its time on the line, of requests and answers, and every answer its return delay.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hardware.emulators import _dynamixel_wire as wire
from hardware.emulators._base import Faults, one_of, unknown
from hardware.emulators._dynamixel_bus import Bus
from hardware.emulators._dynamixel_table import REGISTERS, Mount, Servo
from hardware.emulators._hand import Hand
from hardware.emulators._plants import FirstOrder
from hardware.emulators._pty import Wire
from robolearn.core import Plant
from robolearn.errors import ConfigError

OPS = ("set", "dead", "alive", "alarm", "clear", "drop", "corrupt", "delay", "freeze", "thaw", "unplug", "replug", "stats")
_GOAL, _FINE_S = 116, 0.001


@dataclass(frozen=True)
class Config:
    """Which servos there are, and how they are mounted."""

    ids: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    """Of the servos, as the bus knows them."""
    models: tuple[int, ...] = ()
    """Model numbers; empty: all XL330-M288."""
    joints: tuple[int, ...] = ()
    """The plant's joint that each servo moves; empty: one each, in order. Two servos may share one."""
    zeros: tuple[int, ...] = ()
    """Tick of each bare encoder where the joint is at 0 rad; empty: half a turn."""
    signs: tuple[int, ...] = ()
    """1 or -1: whether the joint turns as the servo counts; empty: all 1."""
    homing: tuple[int, ...] = ()
    """Homing offsets that were set at some time; empty: none."""
    drive_modes: tuple[int, ...] = ()
    """Drive modes that were set at some time, 1 turns a servo over; empty: all 0."""
    q: tuple[float, ...] = ()
    """Where the joints begin [rad]; empty: all 0. Ignored where a plant is given."""
    firmware: int = 52
    """Version that all of them report."""
    baud: int = 0
    """Rate [1/s] at which bytes take time; 0: none."""
    reboot_s: float = 0.1
    """How long a reboot takes [s]."""
    obliging: bool = False
    """Torque-on makes the present position the goal."""
    seed: int = 0
    """Of the faults."""

    def __post_init__(self) -> None:
        for name in ("models", "joints", "zeros", "signs", "homing", "drive_modes"):
            if getattr(self, name) and len(getattr(self, name)) != len(self.ids):
                raise ConfigError(f"dynamixel {name}: want {len(self.ids)} numbers, one for each of ids")
        if not self.ids or len(set(self.ids)) < len(self.ids) or not all(0 <= number <= 252 for number in self.ids):
            raise ConfigError(f"dynamixel ids: want different numbers of 0 to 252, got {self.ids}")


def make(config: Config, plant: Plant | None = None) -> Dynamixel:
    """Returns the bus, not open; plant: what the servos move, None for joints of first order."""
    return Dynamixel(config, plant)


def servos_of(config: Config) -> list[Servo]:
    """Returns the servos that a configuration describes."""
    n = len(config.ids)
    servos = []
    for k, number in enumerate(config.ids):
        mount = Mount((config.joints or range(n))[k], (config.zeros or (2048,) * n)[k], (config.signs or (1,) * n)[k])
        servo = Servo(number, (config.models or (1200,) * n)[k], config.firmware, mount, config.obliging)
        servo.put(20, (config.homing or (0,) * n)[k])
        servo.put(10, (config.drive_modes or (0,) * n)[k])
        servos.append(servo)
    return servos


class Dynamixel:
    """The emulator. joints: of the plant, named by the servo that moves each."""

    def __init__(self, config: Config, plant: Plant | None = None, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        """plant: what the servos move, None for joints of first order."""
        self._config, self._clock_ns = config, clock_ns
        self._servos = servos_of(config)
        owners: dict[int, int] = {}
        for k, servo in enumerate(self._servos):
            owners.setdefault(servo.mount.joint, k)
        self.joints = tuple(f"servo{config.ids[owners[joint]]}" for joint in sorted(owners))
        if sorted(owners) != list(range(len(owners))) or (config.q and len(config.q) != len(owners)):
            raise ConfigError(f"dynamixel joints: want 0 to n-1 and as many angles in q, got {config.joints} and {config.q}")
        self._owners = [self._servos[owners[joint]] for joint in sorted(owners)]
        self._plant: Any = plant or FirstOrder(config.q or (0.0,) * len(owners))
        self._faults = Faults(config.seed)
        self._bus = Bus(self._servos, self._faults.dead, config.reboot_s)
        self._stream, self._line, self._hand = wire.Stream(), Wire(self._faults, clock_ns), Hand(len(owners))
        self._moved_at = self._line_free = clock_ns() / 1e9
        self._show()
        for servo in self._servos:
            servo.switched_on()

    def open(self) -> str:
        """Opens the line and returns its path."""
        return self._line.open()

    def turn(self, timeout_s: float) -> None:
        """Waits for requests, answers what is due and moves the joints up to now."""
        data = self._line.read(timeout_s)
        self._move_on()
        for packet in self._stream.feed(data):
            self._queue(packet, self._bus.answer(packet))
        self._line.flush()

    def control(self, op: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Does one of `OPS`.

        set takes id and address and value (any register), or id and zero (the tick of the bare encoder at 0 rad), or hand, where
        a hand moves the joints that have no torque (`hardware.emulators._hand`); alarm takes id and bits; clear takes id and
        undoes it, as switching off and on would.
        """
        if op in ("dead", "alive", "drop", "corrupt", "delay", "freeze", "thaw"):
            self._faults.set(op, args)
        elif op == "set" and "hand" in args:
            self._hand.take(args["hand"])
        elif op == "set" and "zero" in args:
            servo = self._by_id(int(args["id"]))
            servo.mount = replace(servo.mount, zero=int(args["zero"]))
            self._show()
            servo.switched_on()
        elif op == "set":
            one_of(REGISTERS, int(args["address"]), "register at address")
            self._by_id(int(args["id"])).put(int(args["address"]), int(args["value"]))
        elif op in ("alarm", "clear"):
            self._by_id(int(args["id"])).alarm(int(args["bits"]) if op == "alarm" else 0)
        elif op in ("unplug", "replug"):
            self._stream = wire.Stream()
            getattr(self._line, op)()
        elif op != "stats":
            raise unknown(op, OPS)
        return self._stats() if op == "stats" else {}

    def close(self) -> None:
        """Unplugs the line for good."""
        self._line.close()

    def _by_id(self, number: int) -> Servo:
        return one_of({servo.id: servo for servo in self._servos}, number, "servo")

    def _move_on(self) -> None:
        """Gives the plant the goals, moves it, and shows what it does; time shorter than a millisecond is saved up."""
        now = self._bus.now = self._clock_ns() / 1e9
        if now - self._moved_at < _FINE_S:
            return
        for servo in self._servos:
            servo.watch(now)
        held = np.zeros(len(self._owners), dtype=bool)
        held[[servo.mount.joint for servo in self._servos if servo.torque]] = True
        goals = self._plant.measure()["q"]
        for joint in np.flatnonzero(held):
            angle = self._owners[joint].angle(self._owners[joint].get(_GOAL))
            goals[joint] = angle if math.isfinite(angle) else goals[joint]
        goals, self._plant.torque[:] = self._hand.lead(goals, held)
        self._plant.command(goals)
        self._plant.advance(now - self._moved_at)
        self._moved_at = now
        self._show()

    def _show(self) -> None:
        if self._faults.frozen:
            return
        seen = self._plant.measure()
        q, qd, effort = (np.asarray(seen[key]).tolist() for key in ("q", "qd", "effort"))
        for servo in self._servos:
            joint = servo.mount.joint
            servo.measure(q[joint], qd[joint], effort[joint])

    def _queue(self, packet: bytes, answers: Sequence[bytes]) -> None:
        """Puts answers on the line, all of them when the last byte would be there: adapters hand on in pieces too."""
        spoiled = b"".join(map(self._faults.spoil, answers))
        at = self._bus.now
        if self._config.baud:
            delays = {servo.id: 2e-6 * servo.table[9] for servo in self._servos}
            at = max(at, self._line_free) + 10 / self._config.baud * (len(packet) + sum(map(len, answers)))
            at += sum(delays.get(answer[4], 0.0) for answer in answers)
            self._line_free = at
        self._line.say(spoiled, int(at * 1e9))

    def _stats(self) -> dict[str, Any]:
        servos = {
            str(servo.id): {
                "torque": servo.torque, "watchdog": servo.get(98), "alarm": servo.get(70), "goal": servo.get(_GOAL),
                "position": servo.get(132),
            }
            for servo in self._servos
        }  # fmt: skip
        seen = {"goals": self._bus.goals.stats(), "q": self._plant.measure()["q"].tolist()}
        return {**self._bus.counts, **self._faults.counts, **seen, "servos": servos}
