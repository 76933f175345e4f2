"""The last thing before the motors: a list of filters, each of which lets a setpoint pass, cuts it, or refuses it.

    finite, shape, unit, age, position, workspace, velocity + acceleration + jerk, aperture, collision, effort, temperature, step

`Chain` runs the list and holds what changes: what was sent last, counters, timers. Whatever comes in, what goes out is finite,
inside the hard range and no faster than the limits; a refused setpoint becomes a brake. Where they cannot all hold, range, speed,
workspace and collision win over acceleration and jerk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from robolearn.errors import ArrayMismatch, BadInput
from robolearn.runtime import _filters, _rates
from robolearn.runtime._filters import Filter, Measured, Points, Ruling, SafeShare, Sent, Tick
from robolearn.runtime.limits import ALWAYS, SWITCHES, Limits

__all__ = ["Chain", "Filter", "Filtered", "Measured", "Result", "Ruling", "Sent", "Tick", "filters_of"]

Array = np.ndarray
REJECTS_TO_HOLD = 3
SUSTAINED_S = 0.5
STALL_PERIODS = 3  # nothing sent for longer than so many periods: the motors stand


class Result(StrEnum):
    """What became of a setpoint."""

    PASS = "pass"
    CLAMP = "clamp"
    REJECT = "reject"


@dataclass(frozen=True)
class Filtered:
    """What may be sent, always: q (n,) [rad], aperture 0 .. 1 or None; and what became of the setpoint, by which limits, why."""

    q: Array
    aperture: float | None
    result: Result
    which: tuple[str, ...] = ()
    why: str = ""


def filters_of(limits: Limits, points: Points | None = None, safe_share: SafeShare | None = None) -> list[tuple[str, Filter]]:
    """Returns the filters that `limits` ask for, named, in order; BadInput where one lacks its callable.

    points: forward kinematics, for the workspace; safe_share: for collisions (`collision.Checker.safe_share`).
    """
    for word, given, what in (
        ("workspace", points, "points: q -> (k, 3)"),
        ("collision", safe_share, "safe_share: q, q -> share"),
    ):
        if limits.on(word) and given is None:
            raise BadInput(f"chain: the {word} limit needs {what}; give it, or switch it off by name (without: [{word}])")
    bounds = limits.bounds
    workspace = _filters.Workspace(limits, points) if limits.on("workspace") and points is not None else None
    rates = any(limits.on(word) for word in ("velocity", "acceleration", "jerk"))
    listed: list[tuple[str, Filter | None]] = [
        ("finite", _filters.finite),
        ("shape", _filters.Shape(limits.names)),
        ("unit", _filters.Unit(limits)),
        ("age", _filters.Age(limits.max_age_s) if limits.on("age") else None),
        ("position", _filters.Position(bounds) if limits.on("position") else None),
        ("workspace", workspace),
        ("rate", _filters.Rate(bounds) if rates else None),
        ("aperture", _filters.Aperture(limits.aperture_speed if limits.on("aperture") else None)),
        ("collision", _filters.Collision(safe_share) if limits.on("collision") and safe_share is not None else None),
        ("effort", _filters.Effort(bounds.effort) if limits.on("effort") else None),
        ("temperature", _filters.Temperature(limits) if limits.on("temperature") else None),
        ("step", _filters.Step(bounds, workspace)),
    ]
    return [(name, rule) for name, rule in listed if rule is not None]


class Chain:
    """Runs the filters on every setpoint and keeps what was sent last, the counters and the clamp timer.

    counts: how often each limit cut or refused a setpoint, and how many of them passed, were cut, were refused.
    """

    def __init__(
        self, limits: Limits, period_s: float, points: Points | None = None, safe_share: SafeShare | None = None
    ) -> None:
        """period_s: of the loop that sends [s]; points, safe_share: see `filters_of`."""
        if not 0 < period_s < math.inf:
            raise BadInput(f"chain: want a finite period above 0 [s], got {period_s:g}")
        self.limits, self.filters = limits, filters_of(limits, points, safe_share)
        self.counts = dict.fromkeys((*(result.value for result in Result), *ALWAYS, *SWITCHES[:-1]), 0)
        self._credit, self._sent = _rates.Credit(period_s), Sent(np.zeros(0), np.zeros(0), np.zeros(0))
        self._clamped_since: float | None = None
        self._rejects = 0

    def reset(self, q: Array, now_s: float, aperture: float | None = None) -> None:
        """Starts at rest at the measured pose q (n,) [rad]; ArrayMismatch where that is not one. Counters stay.

        aperture: measured, None or NaN without a gripper; without it, the first aperture is sent as it comes.
        """
        pose = np.array(q, dtype=float)
        if pose.shape != (len(self.limits.names),) or not np.isfinite(pose).all():
            raise ArrayMismatch(
                f"chain: want {len(self.limits.names)} finite joint angles, got {np.array2string(pose, threshold=8)}"
            )
        opening = None if aperture is None or not math.isfinite(aperture) else float(aperture)
        self._sent = Sent(pose, np.zeros_like(pose), np.zeros_like(pose), opening)
        self._credit.reset(now_s)
        self._clamped_since, self._rejects = None, 0

    @property
    def sent(self) -> Sent:
        """What went out last."""
        return self._sent

    @property
    def wants_hold(self) -> bool:
        """True once three setpoints in a row were refused, until one is not."""
        return self._rejects >= REJECTS_TO_HOLD

    def sustained(self, now_s: float) -> bool:
        """Returns whether nothing has passed uncut for more than 0.5 s: a warning."""
        return self._clamped_since is not None and now_s - self._clamped_since > SUSTAINED_S

    def filter(
        self,
        q: Any,
        aperture: float | None,
        stamp_s: float,
        now_s: float,
        measured: Measured | None = None,
        names: tuple[str, ...] = (),
    ) -> Filtered:
        """Returns what may be sent now of a setpoint that was made at stamp_s [s], on the clock of now_s.

        q: (n,) [rad], or anything; names: of the joints it is for, if it says so. What goes out counts as sent: call it once a
        period. BadInput before the first `reset`.
        """
        if not self._sent.q.size:
            raise BadInput("chain: reset it to the measured pose before the first setpoint")
        dt_s = self._credit.take(now_s)
        if self._credit.elapsed_s > STALL_PERIODS * self._credit.period_s:
            self._sent = replace(self._sent, qd=np.zeros_like(self._sent.qd), qdd=np.zeros_like(self._sent.qd))
        tick = Tick(self._sent, stamp_s, now_s, dt_s, measured, names)
        ruling = self._ruled(q, aperture, tick)
        result = Result.REJECT if ruling.reject else Result.CLAMP if ruling.which else Result.PASS
        self._book(ruling, result, tick)
        why = ruling.why or (f"cut by {', '.join(ruling.which)}" if ruling.which else "")
        return Filtered(ruling.q.copy(), ruling.aperture, result, ruling.which, why)

    def _ruled(self, q: Any, aperture: Any, tick: Tick) -> Ruling:
        """Returns what all filters together leave; what is refused becomes a brake, which is checked in its turn."""
        try:
            left = Ruling(np.array(q, dtype=float), None if aperture is None else float(aperture))
        except (TypeError, ValueError, OverflowError):
            return self._braked(
                tick, ("shape",), f"want {len(self.limits.names)} numbers, got {type(q).__name__}, {aperture!r:.20}"
            )
        which: tuple[str, ...] = ()
        for _, rule in self.filters:
            left = rule(left.q, left.aperture, tick)
            which += left.which
            if left.reject:
                return self._braked(tick, which, left.why)
        return left._replace(which=which)

    def _braked(self, tick: Tick, which: tuple[str, ...], why: str) -> Ruling:
        q = _rates.brake(tick.sent.q, tick.sent.qd, self.limits.bounds, tick.dt_s)
        for name, rule in self.filters:
            if name in ("collision", "step"):
                left = rule(q, tick.sent.aperture, tick)
                q, which = left.q, which + left.which
        return Ruling(q, tick.sent.aperture, which, why, reject=True)

    def _book(self, ruling: Ruling, result: Result, tick: Tick) -> None:
        for word in (result.value, *dict.fromkeys(ruling.which)):
            self.counts[word] += 1
        self._rejects = self._rejects + 1 if result is Result.REJECT else 0
        if result is Result.PASS:
            self._clamped_since = None
        elif self._clamped_since is None and math.isfinite(tick.now_s):
            self._clamped_since = tick.now_s
        if tick.dt_s == 0.0:  # no time, no motion: the speed stays what it was
            return
        qd = (ruling.q - tick.sent.q) / tick.dt_s
        qdd = (qd - tick.sent.qd) / tick.dt_s
        # A forced stop is over when it is done: what comes next is not measured against it.
        qdd = np.where(np.abs(qdd) > self.limits.bounds.acceleration * 1.001, 0.0, qdd)
        self._sent = Sent(ruling.q, qd, qdd, tick.sent.aperture if ruling.aperture is None else ruling.aperture)
