"""A bus of servos that are a dictionary, and arms on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hardware._calibration import ServoCalibration, ServoGripper, ServoJoint
from hardware._errors import DeviceFault, TransportLost, TransportTimeout
from hardware._life import Attended
from hardware._servo_bus import TRIPPED, Sample
from hardware.robots._servo_arm import Options, ServoArm

ARM = ServoCalibration(
    "toy",
    (ServoJoint("pan", 1, 1, 2048, -1.5, 1.5, registers={"homing": 3}), ServoJoint("lift", 2, -1, 100, -0.5, 2.0)),
    ServoGripper("jaw", 3, 1000, 500, 0.05),
)
START = {1: 2048, 2: 4000, 3: 1250}
MS = 1_000_000


@dataclass
class Clock:
    """Time [ns] that passes when told to."""

    now: int = 0

    def __call__(self) -> int:
        return self.now


@dataclass
class ToyBus:
    """Servos that are a dictionary. log: what was written, in order; dead: who is silent.

    stubborn, dead_to_off: who refuses torque, or torque-off; deaf_to_goals: how many sync writes are lost; mute: no write is
    answered; fixed: registers that take no value.
    """

    clock: Clock = field(default_factory=Clock)
    ticks_per_turn: int = 4096
    watchdog_s: tuple[float, float] | None = (0.02, 2.54)
    answer_ns: int = MS
    log: list[tuple[Any, ...]] = field(default_factory=list)
    dead: set[int] = field(default_factory=set)
    stubborn: set[int] = field(default_factory=set)
    dead_to_off: set[int] = field(default_factory=set)
    fixed: set[str] = field(default_factory=set)
    deaf_to_goals: int = 0
    mute: bool = False
    settings: tuple[str, ...] = ("return_delay",)
    is_open: bool = False
    homing_sign: int = 1
    zero_registers: tuple[str, ...] = ("homing",)

    def __post_init__(self) -> None:
        self.table: dict[int, dict[str, int]] = {
            servo: {"homing": 3, "position": at, "goal": 0, "torque": 0, "watchdog": 0, "alarm": 0, "return_delay": 250}
            | {"temperature": 30 + servo, "voltage": 120, "speed": 10 * servo, "marker": 0}
            for servo, at in START.items()
        }

    def open(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    def _ask(self, servo: int) -> dict[str, int]:
        self.clock.now += self.answer_ns
        if not self.is_open:
            raise TransportLost("toy", "the port is not open")
        if servo in self.dead:
            raise TransportTimeout("toy", f"no answer from servo {servo}")
        return self.table[servo]

    def ping(self, servo: int) -> tuple[int, int]:
        self._ask(servo)
        return 1200, 52

    def read(self, servo: int, name: str) -> int:
        return self._ask(servo)[name]

    def write(self, servo: int, name: str, value: int) -> None:
        self.log.append((name, servo, value))
        table = self._ask(servo)
        if name == "torque" and servo in (self.stubborn | self.dead_to_off if value == 0 else self.stubborn):
            raise DeviceFault("toy", f"servo {servo} refuses torque = {value}", 32)
        if name not in self.fixed:
            table[name] = value
        if self.mute:
            raise TransportTimeout("toy", f"no answer from servo {servo}")

    def sample(self, servos: Sequence[int]) -> Sample:
        sent = self.clock.now
        tables = [self._ask(servo) for servo in servos]
        speed = np.array([table["speed"] for table in tables], float)
        position = np.array([table["position"] for table in tables])
        alert = np.array([table["alarm"] > 0 for table in tables])
        return Sample(position, speed, speed / 100, alert, sent, self.clock.now)

    def goals(self, servos: Sequence[int], ticks: Sequence[int]) -> None:
        self.log.append(("goals", tuple(servos), tuple(ticks)))
        if self.deaf_to_goals:
            self.deaf_to_goals -= 1
            return
        for servo, tick in zip(servos, ticks, strict=True):
            if self.table[servo]["watchdog"] == TRIPPED:  # it takes no goals
                continue
            self.table[servo]["goal"] = tick
            for shadow in (4,) if servo == 1 and 4 in self.table else ():
                self.table[shadow]["goal"] = tick

    def tripped(self, servos: set[int]) -> None:
        """Lets the watchdogs of some servos run out."""
        for servo in servos:
            self.table[servo]["watchdog"] = TRIPPED

    def alarms(self, servo: int, bits: int) -> tuple[str, ...]:
        return ("overload",) if bits & 32 else ()

    def reboot(self, servo: int) -> None:
        self.log.append(("reboot", servo))
        self._ask(servo).update(alarm=0, torque=0)

    def configure(self, servo: int) -> Mapping[str, tuple[int, int]]:
        table = self._ask(servo)
        changed = {name: (table[name], 0) for name in self.settings if table[name]}
        table.update(dict.fromkeys(self.settings, 0))
        return changed

    def model_name(self, number: int) -> str:
        return f"model {number}"


def pair(bus: ToyBus | None = None, calibration: ServoCalibration = ARM, **options: Any) -> tuple[ServoArm, ToyBus]:
    """Returns a driver, not connected, and its bus."""
    bus = bus or ToyBus()
    return ServoArm(bus, calibration, Options("toy", 2.0, **options), bus.clock), bus


def active(**options: Any) -> tuple[Attended, ToyBus]:
    """Returns an arm that holds, and its bus with an empty log."""
    arm, bus = pair(**options)
    attended = Attended(arm, "toy", 0.1, clock_ns=bus.clock)
    attended.connect()
    attended.configure()
    attended.activate()
    bus.log.clear()
    return attended, bus


def shadowed() -> ToyBus:
    """Returns a bus with a fourth servo that follows the first."""
    bus = ToyBus()
    bus.table[4] = dict(bus.table[1])
    return bus
