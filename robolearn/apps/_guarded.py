"""The limits of `robolearn.runtime` as the guard of a hosted driver: the only thing that knows both sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hardware._base import ArmState, Caps, Setpoint
from robolearn.runtime.filters import Chain, Filtered, Measured
from robolearn.runtime.guard import Guard
from robolearn.runtime.limits import defaults


class Guarded:
    """A `hardware._base.Guard` that keeps declared limits."""

    def __init__(self, guard: Guard) -> None:
        self._guard, self.filters = guard, guard.filters

    def reset(self, q: np.ndarray, aperture: float | None, now_s: float) -> None:
        """Begins at rest at q (n,) [rad]."""
        self._guard.reset(q, aperture, now_s)

    def step(self, setpoint: Setpoint, state: ArmState, now_s: float) -> tuple[Setpoint, tuple[str, ...]]:
        """Returns what may be sent, and which limits changed it."""
        left = self._guard.towards(setpoint.q, setpoint.aperture, setpoint.qd, _measured(state), now_s)
        return _setpoint(left), left.which

    def stop(self, state: ArmState, now_s: float) -> tuple[Setpoint, bool]:
        """Returns the next step of a ramp to rest, and whether it rests."""
        left, resting = self._guard.rest(_measured(state), now_s)
        return _setpoint(left), resting


@dataclass(frozen=True)
class MakeGuard:
    """Makes the guard of an arm once its driver has said what it is; it crosses to the driver's process as it stands.

    share: of the device's own speed; more: further fields of `robolearn.runtime.limits.Limits`; without: limits switched off.
    """

    share: float = 0.25
    more: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ("workspace", "collision", "effort", "temperature")

    def __call__(self, caps: Caps, period_s: float) -> Guarded:
        """Returns the guard; BadInput where a limit has no number."""
        limits = defaults(
            caps.joints,
            tuple(caps.lower.tolist()),
            tuple(caps.upper.tolist()),
            tuple(caps.velocity.tolist()),
            share=self.share,
            without=self.without,
            **self.more,
        )
        return Guarded(Guard(Chain(limits, period_s), period_s))


def _measured(state: ArmState) -> Measured:
    return Measured(state.q, state.effort if np.isfinite(state.effort).all() else None)


def _setpoint(left: Filtered) -> Setpoint:
    return Setpoint(left.q, left.aperture)
