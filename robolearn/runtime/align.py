"""The way from the measured pose to the first target, before anything else moves the arm: slow, straight, and only while held.

It is walked along one number, the share of the straight line in joint space, by the tracker: what was checked for collisions
before it began is then what is driven, also after any number of stops.
"""

from __future__ import annotations

import math

import numpy as np

from robolearn.errors import ArrayMismatch, BadInput
from robolearn.runtime._filters import SafeShare
from robolearn.runtime._rates import Credit
from robolearn.runtime.limits import Limits
from robolearn.runtime.tracker import Tracker

Array = np.ndarray
_STAND = 1e-9  # [rad] a way that is none


class Align:
    """Walks from `start` to `target` at `align_share` of the top speed while the dead-man is held; let go, it ramps to a stop.

    q: (n,) [rad] where it is now; done: it is at the target and stands. Acceleration and jerk are those of the limits.
    """

    def __init__(
        self,
        limits: Limits,
        period_s: float,
        start: Array,
        target: Array,
        safe_share: SafeShare | None = None,
        confirmed: bool = False,
    ) -> None:
        """start: the measured pose, target: the first setpoint, (n,) [rad] each; confirmed: a person agreed to a longer way.

        safe_share: see `collision.Checker`. BadInput where the way is longer than `max_align` and nobody confirmed it, where it
        ends outside the hard range, and where it is not free.
        """
        self.start, self.target = _pose(start, limits, "measured pose"), _pose(target, limits, "first target")
        _check_way(self.start, self.target, limits, safe_share, confirmed)
        self._way = self.target - self.start
        self.done = float(np.abs(self._way).max()) < _STAND
        self.q = self.start.copy()
        self._credit: Credit | None = None
        self._period_s, self._tracker = period_s, Tracker(_along(self._way, limits), period_s)
        self._tracker.reset(np.zeros(1))

    @property
    def at_rest(self) -> bool:
        """True where the reference stands, at the target or on the way."""
        return self._tracker.at_rest

    def step(self, now_s: float, deadman: bool) -> Array:
        """Returns the setpoint (n,) [rad] of this tick, at now_s [s]; asked more often than once a period, it goes no faster."""
        if self._credit is None:
            self._credit = Credit(self._period_s)
            self._credit.reset(now_s)
        if self.done or self._credit.take(now_s, least=0.999) == 0.0:
            return self.q.copy()
        share = float((self._tracker.step(np.ones(1)) if deadman else self._tracker.stop())[0])
        self.done = self._tracker.at_rest and share > 1 - 1e-9
        self.q = self.target.copy() if self.done else self.start + min(max(share, 0.0), 1.0) * self._way
        return self.q.copy()


def _pose(q: Array, limits: Limits, what: str) -> Array:
    pose, n = np.array(q, dtype=float), len(limits.names)
    if pose.shape != (n,) or not np.isfinite(pose).all():
        raise ArrayMismatch(f"align: {what}: want {n} finite joint angles, got {np.array2string(pose, precision=3, threshold=8)}")
    return pose


def _check_way(start: Array, target: Array, limits: Limits, safe_share: SafeShare | None, confirmed: bool) -> None:
    names, bounds = limits.names, limits.bounds
    outside = np.maximum(bounds.lower - target, target - bounds.upper)
    if outside.max() > 1e-9:
        worst = int(np.argmax(outside))
        hard = f"{bounds.lower[worst]:.3f} .. {bounds.upper[worst]:.3f} rad"
        raise BadInput(f"align: the first target of {names[worst]} is {target[worst]:.3f}, outside its hard range {hard}")
    gap = np.abs(target - start)
    worst = int(np.argmax(gap))
    if limits.on("align") and not confirmed and gap[worst] > limits.max_align * (1 + 1e-9):
        raise BadInput(
            f"align: {names[worst]} is {gap[worst]:.3f} rad from the first target, want {limits.max_align:g} at most: "
            "move the arm nearer by hand, or confirm the longer way"
        )
    if not limits.on("collision"):
        return
    if safe_share is None:
        raise BadInput(
            "align: the collision limit needs safe_share: q, q -> share; give it, or switch it off (without: [collision])"
        )
    share = float(safe_share(start, target))
    if not share >= 1.0:
        raise BadInput(
            f"align: the straight way to the first target is blocked after {100 * share:.0f} % of it: move the arm by hand"
        )


def _along(way: Array, limits: Limits) -> Limits:
    """Returns the limits of the share of the way (1,), at which no joint exceeds its own."""
    bounds, length = limits.bounds, np.maximum(np.abs(way), _STAND)

    def least(rates: Array) -> tuple[float, ...]:
        rate = float(np.min(rates / length))
        return (rate,) if math.isfinite(rate) else ()

    return Limits(
        names=("share",),
        lower=(0.0,),
        upper=(1.0,),
        soft_margin=0.0,
        velocity=least(limits.align_share * bounds.velocity),
        acceleration=least(bounds.acceleration),
        jerk=least(bounds.jerk),
        without=(
            "workspace",
            "effort",
            "temperature",
            *(word for word in limits.without if word in ("velocity", "acceleration", "jerk")),
        ),
    )
