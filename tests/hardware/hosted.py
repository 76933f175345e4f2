"""A plain virtual arm and a plain guard for tests of the hosting; functions of a module, as a new process wants them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from hardware._base import ArmState, Caps, Setpoint, Stop
from hardware.emulators._plants import FirstOrder
from hardware.robots.virtual import Body, Config, Virtual
from robolearn.errors import BadInput, ConfigError

JOINTS = ("a", "b", "c")
SPEED = 1.0  # [rad/s] that the plain guard allows


def body() -> Body:
    return Body(FirstOrder(np.zeros(3), 0.02, 6.0), JOINTS, np.full(3, -2.0), np.full(3, 2.0))


def make_arm(watchdog_s: float = 20.0) -> Virtual:  # longer than shared cores stall
    return Virtual(Config(watchdog_s=watchdog_s, opening_m=0.08), body)


def broken() -> Virtual:
    raise ValueError("this driver cannot be made")


def refused() -> Virtual:
    raise ConfigError("virtual: there is no such arm")


def no_guard(caps: Caps, period_s: float) -> SpeedGuard:
    raise BadInput("limits: no jerk")


class SpeedGuard:
    """Keeps a speed limit and counts nothing."""

    filters = ("velocity",)
    wants_temperature = False

    def __init__(self, period_s: float) -> None:
        self._step = SPEED * period_s

    def reset(self, q: np.ndarray, aperture: float | None, now_s: float) -> None:
        self._q = q.copy()

    def step(self, setpoint: Setpoint, state: ArmState, now_s: float) -> tuple[Setpoint, tuple[str, ...]]:
        wanted = setpoint.q - self._q
        self._q = self._q + np.clip(wanted, -self._step, self._step)
        return Setpoint(self._q.copy(), setpoint.aperture), ("velocity",) if np.abs(wanted).max() > self._step else ()

    def stop(self, state: ArmState, now_s: float) -> tuple[Setpoint, bool]:
        return Setpoint(self._q.copy()), True

    def feel(self, temperature: Mapping[str, float]) -> None:
        raise AssertionError("it asked for none")


def make_guard(caps: Caps, period_s: float) -> SpeedGuard:
    return SpeedGuard(period_s)


quick_watchdog = partial(make_arm, 0.2)


class FailingGuard(SpeedGuard):
    """A mistake of ours, in the middle of a motion."""

    def step(self, setpoint: Setpoint, state: ArmState, now_s: float) -> tuple[Setpoint, tuple[str, ...]]:
        raise ZeroDivisionError("a mistake")


def make_failing_guard(caps: Caps, period_s: float) -> FailingGuard:
    return FailingGuard(period_s)


class Far(SpeedGuard):
    """Lets through what is beyond the hard limits."""

    def step(self, setpoint: Setpoint, state: ArmState, now_s: float) -> tuple[Setpoint, tuple[str, ...]]:
        return Setpoint(np.full(3, 9.0)), ()


def make_far_guard(caps: Caps, period_s: float) -> Far:
    return Far(period_s)


class Witness(Virtual):
    """An arm that writes into a file how it is stopped and let go of."""

    def deactivate(self, stop: Stop) -> None:
        super().deactivate(stop)
        self._write(f"deactivate {stop}")

    def disconnect(self) -> list[Exception]:
        self._write("disconnect")
        return super().disconnect()

    def _write(self, line: str) -> None:
        with Path(os.environ["ROBOLEARN_WITNESS"]).open("a") as file:
            file.write(f"{line}\n")


def make_witness() -> Witness:
    return Witness(Config(), body)


class Clumsy(Witness):
    """An arm whose driver fails, once the motors are on, with an error that is none of the wire."""

    def exchange(self, setpoint: Setpoint | None) -> ArmState:
        if setpoint is not None:
            raise OSError("no such file")
        return super().exchange(setpoint)


def make_clumsy() -> Clumsy:
    return Clumsy(Config(), body)


class Alarmed(Virtual):
    """An arm that is found with an alarm."""

    def exchange(self, setpoint: Setpoint | None) -> ArmState:
        return replace(super().exchange(setpoint), alarm=8)


def make_alarmed() -> Alarmed:
    return Alarmed(Config(), body)
