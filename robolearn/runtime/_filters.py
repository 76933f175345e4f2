"""The filters of the chain, one limit each: plain functions or small frozen classes `(q, aperture, tick) -> Ruling`.

They change nothing but what they return. Setpoints q (n,) [rad], aperture 0 .. 1 or None.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from robolearn.runtime import _rates
from robolearn.runtime.limits import Bounds, Limits, unit_doubt

Array = np.ndarray
Points = Callable[[Array], Array]  # forward kinematics: q (n,) [rad] -> points of tool and gripper (k, 3) [m]
SafeShare = Callable[[Array, Array], float]  # from q (n,), to q (n,) [rad] -> share of the straight way that is free, 0 .. 1


@dataclass(frozen=True)
class Measured:
    """What the arm says of itself: q (n,) [rad]; effort (n,) [N m or A]; temperature (n,) [deg C]; None where unknown."""

    q: Array
    effort: Array | None = None
    temperature: Array | None = None


@dataclass(frozen=True)
class Sent:
    """What went to the motors last: q (n,) [rad], its speed qd [rad/s] and acceleration qdd [rad/s^2], aperture 0 .. 1."""

    q: Array
    qd: Array
    qdd: Array
    aperture: float | None = None


@dataclass(frozen=True)
class Tick:
    """What a filter may know: stamp_s, when the setpoint was made; now_s; dt_s, the time it may use; names, whom it is for."""

    sent: Sent
    stamp_s: float
    now_s: float
    dt_s: float
    measured: Measured | None = None
    names: tuple[str, ...] = ()


class Ruling(NamedTuple):
    """What a filter left of a setpoint; which: the limits that changed it, why: in one line; reject: none of it may go out."""

    q: Array
    aperture: float | None
    which: tuple[str, ...] = ()
    why: str = ""
    reject: bool = False


Filter = Callable[[Array, float | None, Tick], Ruling]


def finite(q: Array, aperture: float | None, tick: Tick) -> Ruling:
    """Refuses NaN and infinity."""
    if np.isfinite(q).all() and (aperture is None or np.isfinite(aperture)):
        return Ruling(q, aperture)
    return Ruling(
        q, aperture, ("finite",), f"not finite: q {np.array2string(q, precision=3, threshold=8)}, aperture {aperture}", True
    )


@dataclass(frozen=True)
class Shape:
    """Refuses another number of joints, and other joints or another order where the setpoint says whom it is for."""

    names: tuple[str, ...]

    def __call__(self, q: Array, aperture: float | None, tick: Tick) -> Ruling:
        """Returns q as it came."""
        if q.shape != (len(self.names),):
            return Ruling(q, aperture, ("shape",), f"want {len(self.names)} joints, got an array of shape {q.shape}", True)
        if tick.names and tick.names != self.names:
            return Ruling(q, aperture, ("shape",), f"want the joints {self.names}, got {tick.names}", True)
        return Ruling(q, aperture)


@dataclass(frozen=True)
class Unit:
    """Refuses what cannot be radians."""

    limits: Limits

    def __call__(self, q: Array, aperture: float | None, tick: Tick) -> Ruling:
        """Returns q as it came."""
        why = unit_doubt(q, self.limits)
        return Ruling(q, aperture, ("unit",), why, True) if why else Ruling(q, aperture)


@dataclass(frozen=True)
class Age:
    """Refuses a setpoint that was made too long ago, or later than now by another clock."""

    max_age_s: float

    def __call__(self, q: Array, aperture: float | None, tick: Tick) -> Ruling:
        """Returns q as it came."""
        age_s = tick.now_s - tick.stamp_s
        if abs(age_s) <= self.max_age_s:
            return Ruling(q, aperture)
        kind = "of another clock" if age_s < 0 else "too old"
        return Ruling(q, aperture, ("age",), f"{kind}: made {age_s:.3f} s ago, want {self.max_age_s:g} s at most", True)


@dataclass(frozen=True)
class Position:
    """Cuts each joint to its soft range; a joint outside it may stay where it is, or come back."""

    bounds: Bounds

    def __call__(self, q: Array, aperture: float | None, tick: Tick) -> Ruling:
        """Returns the nearest q inside."""
        last = tick.sent.q
        inside = np.clip(q, np.minimum(self.bounds.soft_lower, last), np.maximum(self.bounds.soft_upper, last))
        if np.all(np.abs(inside - q) < 1e-9):  # rounding is no cut
            return Ruling(q, aperture)
        return Ruling(inside, aperture, ("position",))


@dataclass(frozen=True)
class Workspace:
    """Takes a setpoint back towards the last one until every point of the tool is inside all boxes and planes.

    Where a point is outside already, it may come nearer but not go farther.
    """

    limits: Limits
    points: Points

    def outside(self, q: Array) -> Array:
        """Returns how far [m] the points are outside, the largest for each side of a box and each plane (m,); below 0 inside."""
        at = np.asarray(self.points(q), float).reshape(-1, 3)
        sides = [side for box in self.limits.boxes for side in (np.array(box.lower) - at, at - np.array(box.upper))]
        planes = [plane.offset - at @ np.array(plane.normal) / np.linalg.norm(plane.normal) for plane in self.limits.planes]
        return np.concatenate([side.max(axis=0) for side in sides] + [np.atleast_1d(plane.max()) for plane in planes])

    def allows(self, q: Array, sent: Sent) -> bool:
        """Returns whether q is inside, or no farther outside than what was sent last."""
        outside = self.outside(q)
        return bool(np.all(outside <= 0) or np.all(outside <= np.maximum(self.outside(sent.q), 0.0) + 1e-9))

    def __call__(self, q: Array, aperture: float | None, tick: Tick) -> Ruling:
        """Returns the farthest q on the straight way from the last one, to 1/4096."""
        if self.allows(q, tick.sent):
            return Ruling(q, aperture)
        good, bad = 0.0, 1.0
        for _ in range(12):
            middle = (good + bad) / 2
            if self.allows(tick.sent.q + middle * (q - tick.sent.q), tick.sent):
                good = middle
            else:
                bad = middle
        return Ruling(tick.sent.q + good * (q - tick.sent.q), aperture, ("workspace",))


@dataclass(frozen=True)
class Rate:
    """Cuts speed, acceleration and jerk against what was sent last."""

    bounds: Bounds

    def __call__(self, q: Array, aperture: float | None, tick: Tick) -> Ruling:
        """Returns q, or a step on the way to it from which the arm can stop there."""
        sent = tick.sent
        left, which = _rates.limited(q, sent.q, sent.qd, sent.qdd, self.bounds, tick.dt_s)
        return Ruling(left, aperture, which)


@dataclass(frozen=True)
class Aperture:
    """Cuts the gripper's opening to 0 .. 1 and, unless speed [1/s] is None, how fast it changes once one was sent."""

    speed: float | None

    def __call__(self, q: Array, aperture: float | None, tick: Tick) -> Ruling:
        """Returns q as it came."""
        if aperture is None:
            return Ruling(q, None)
        left = min(max(aperture, 0.0), 1.0)
        last = tick.sent.aperture
        if last is not None and self.speed is not None:
            reach = self.speed * tick.dt_s * (1 + 1e-6)
            left = min(max(left, last - reach), last + reach)
        return Ruling(q, left, ("aperture",) if left != aperture else ())


@dataclass(frozen=True)
class Collision:
    """Scales the step back along its way to where it is free; what the callable says is no number counts as blocked."""

    safe_share: SafeShare

    def __call__(self, q: Array, aperture: float | None, tick: Tick) -> Ruling:
        """Returns q, or the last free setpoint on the straight way to it."""
        share = float(self.safe_share(tick.sent.q, q))
        if share >= 1.0:
            return Ruling(q, aperture)
        return Ruling(tick.sent.q + (share if share > 0 else 0.0) * (q - tick.sent.q), aperture, ("collision",))


@dataclass(frozen=True)
class Effort:
    """Stays where a joint with too much effort would be pushed farther from where it is; towards where it is it may go."""

    largest: Array

    def __call__(self, q: Array, aperture: float | None, tick: Tick) -> Ruling:
        """Returns q, or what was sent last."""
        measured, effort = tick.measured, None if tick.measured is None else tick.measured.effort
        if measured is None or effort is None or not (_known(effort, q) and _known(measured.q, q)):
            return Ruling(q, aperture, ("effort",), "no effort is measured: switch the limit off by name, or measure it", True)
        over = np.abs(effort) > self.largest
        if not over.any():
            return Ruling(q, aperture)
        pushed = np.abs(q - measured.q) > np.abs(tick.sent.q - measured.q)
        return Ruling(tick.sent.q if (over & pushed).any() else q, aperture, ("effort",))


@dataclass(frozen=True)
class Temperature:
    """Refuses motion while a joint is too hot, or its temperature unknown."""

    limits: Limits

    def __call__(self, q: Array, aperture: float | None, tick: Tick) -> Ruling:
        """Returns q as it came."""
        heat = None if tick.measured is None else tick.measured.temperature
        most = math.inf if self.limits.max_temperature is None else self.limits.max_temperature
        if heat is None or not _known(heat, q):
            why = "no temperature is measured: switch the limit off by name, or measure it"
            return Ruling(q, aperture, ("temperature",), why, True)
        hottest = int(np.argmax(heat))
        if heat[hottest] <= most:
            return Ruling(q, aperture)
        why = f"{self.limits.names[hottest]} is {heat[hottest]:.0f} deg C hot, want {most:g} at most"
        return Ruling(q, aperture, ("temperature",), why, True)


@dataclass(frozen=True)
class Step:
    """The last look, at the very numbers that would go out: what is not right against what was sent last is not sent."""

    bounds: Bounds
    workspace: Workspace | None = None

    def __call__(self, q: Array, aperture: float | None, tick: Tick) -> Ruling:
        """Returns q, or what was sent last."""
        last, bounds = tick.sent.q, self.bounds
        slow = np.abs(q - last) <= bounds.velocity * tick.dt_s * (1 + 1e-5) + 1e-12 if tick.dt_s > 0 else q == last
        inside = (q >= np.minimum(bounds.lower, last) - 1e-9) & (q <= np.maximum(bounds.upper, last) + 1e-9)
        if not bool(np.all(slow & inside)) or (self.workspace is not None and not self.workspace.allows(q, tick.sent)):
            return Ruling(last.copy(), aperture, ("step",))
        return Ruling(q, aperture)


def _known(values: Array, like: Array) -> bool:
    return np.shape(values) == like.shape and bool(np.isfinite(values).all())
