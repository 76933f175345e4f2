"""Follows targets at the rate of the loop, inside speed, acceleration and jerk: seams, late data and stops come out smooth.

Ruckig (Berscheid and Kroeger, "Jerk-limited Real-time Trajectory Generation with Arbitrary Target States", RSS 2021, arXiv
2105.04830) plans anew from the state of now whenever the target changes. Each joint is planned for itself: keeping joints in step
can make one of them swing past its target, and past its range. A moving target is planned to in a frame that moves with it:
"be here now at this speed" would be answered by a run-up, away from a target that is already leaving.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from robolearn.errors import ArrayMismatch, BadInput, MissingDependency
from robolearn.runtime.limits import Limits, unit_doubt

Array = np.ndarray


class Tracker:
    """The reference that the motors follow: position q, speed qd and acceleration qdd, (n,) each, and the way it is on.

    It starts at rest at a pose (`reset`), gets a target at every tick (`step`) or is stopped (`stop`). Positions stay in the soft
    range or, from outside it, never go farther out. unsolved: how often Ruckig found no way, and a stop was sent instead.
    """

    def __init__(self, limits: Limits, period_s: float) -> None:
        """period_s: of the loop [s]. BadInput where the limits lack a speed or acceleration, MissingDependency without Ruckig."""
        for word in ("velocity", "acceleration"):
            if not limits.on(word):
                raise BadInput(f"tracker: it needs a limit of {word}, which is switched off: take it out of `without`")
        if not 0 < period_s < math.inf:
            raise BadInput(f"tracker: want a finite period above 0 [s], got {period_s:g}")
        try:
            import ruckig
        except ImportError as error:
            raise MissingDependency("ruckig", "the tracker of setpoints", "pip install 'robolearn[deploy]'") from error
        n, bounds = len(limits.names), limits.bounds
        self.limits, self.period_s, self.unsolved = limits, period_s, 0
        self._lib, self._otg = ruckig, ruckig.Ruckig(n, period_s)
        self._in, self._out = ruckig.InputParameter(n), ruckig.OutputParameter(n)
        self._stop, self._way = ruckig.InputParameter(n), ruckig.Trajectory(n)
        for given in (self._in, self._stop):
            given.max_velocity, given.max_acceleration = bounds.velocity, bounds.acceleration
            given.max_jerk, given.synchronization = bounds.jerk, ruckig.Synchronization.No
        self._stop.control_interface = ruckig.ControlInterface.Velocity
        self.q, self.qd, self.qdd = np.zeros(0), np.zeros(0), np.zeros(0)

    def reset(self, q: Array) -> None:
        """Starts at rest at q (n,) [rad]; ArrayMismatch where that is no pose."""
        pose = self._checked(q, "pose")
        self.adopt(pose, np.zeros_like(pose), np.zeros_like(pose))

    def adopt(self, q: Array, qd: Array, qdd: Array) -> None:
        """Goes on from what was sent instead, after the filters cut it: q (n,) [rad], qd, qdd as `filters.Sent` has them.

        They are means over the last period, so the speed of now is half a period further on.
        """
        bounds, pose = self.limits.bounds, self._checked(q, "pose")
        self.qdd = np.clip(self._checked(qdd, "qdd"), -bounds.acceleration, bounds.acceleration)
        speed = self._checked(qd, "qd") + self.qdd * self.period_s / 2
        self.qd = np.clip(speed, -bounds.velocity, bounds.velocity)
        self.q = pose
        self._otg.reset()

    @property
    def at_rest(self) -> bool:
        """True where the reference stands."""
        return bool(np.all(np.abs(self.qd) < 1e-9) and np.all(np.abs(self.qdd) < 1e-6))

    def step(self, target: Array, target_qd: Array | None = None) -> Array:
        """Returns the reference (n,) [rad] one period later, on the fastest way to `target` (n,) [rad].

        target_qd: (n,) [rad/s] how fast the target moves, without which a moving one is followed at the distance that stopping
        takes; it is cut to what range and speed allow. A target outside the range is one at its end. ArrayMismatch for what is
        not (n,) finite numbers, or no radians: the reference is then what it was, and the caller may `stop`.
        """
        goal = self._checked(target, "target")
        speed = np.zeros_like(goal) if target_qd is None else self._checked(target_qd, "target_qd")
        if not self.q.size:
            raise BadInput("tracker: reset it to the measured pose before the first target")
        if why := unit_doubt(goal, self.limits):  # cut to the range, it would look like a target
            raise ArrayMismatch(f"tracker: target: {why}")
        bounds = self.limits.bounds
        low, high = np.minimum(bounds.soft_lower, self.q), np.maximum(bounds.soft_upper, self.q)
        goal = np.clip(goal, low, high)
        speed = self._tame(speed, goal, low, high)
        then = self._after(goal, speed)
        if speed.any() and (astray := self._runs_out(then, low, high)).any():
            speed = np.where(astray, 0.0, speed)  # it cannot be caught up with and left again inside the range: go to it and rest
            then = self._after(goal, speed)
        return self._go(then)

    def stop(self) -> Array:
        """Returns the reference (n,) [rad] one period later, on the fastest way to rest, wherever that is."""
        if not self.q.size:
            raise BadInput("tracker: reset it to the measured pose before it is stopped")
        return self._go(None)

    def _go(self, then: tuple[Array, Array, Array] | None) -> Array:
        """Takes a state as that of now and returns its q (n,); None is one period of a stop."""
        if then is None and (then := self._after(None, np.zeros_like(self.q))) is None:
            raise BadInput(f"tracker: Ruckig finds no way to stop from {self.q}, {self.qd}, {self.qdd}: reset it to a pose")
        self.q, self.qd, self.qdd = then
        return self.q.copy()

    def _after(self, goal: Array | None, speed: Array) -> tuple[Array, Array, Array] | None:
        """Returns q, qd, qdd (n,) one period on, on the way to a goal that moves at `speed`, or to rest without a goal.

        None where Ruckig finds no way; for a goal that is counted.
        """
        interface, top = self._lib.ControlInterface, self.limits.bounds.velocity
        self._in.control_interface = interface.Velocity if goal is None else interface.Position
        self._in.target_position = self.q if goal is None else goal
        self._in.target_velocity = np.zeros_like(speed)
        self._in.max_velocity, self._in.min_velocity = top - speed, -top - speed
        self._in.current_position, self._in.current_velocity, self._in.current_acceleration = self.q, self.qd - speed, self.qdd
        try:
            solved = int(self._otg.update(self._in, self._out)) >= 0
        except self._lib.RuckigError:
            solved = False
        if not solved:
            self.unsolved += goal is not None
            return None
        q = np.array(self._out.new_position) + speed * self.period_s
        return q, np.array(self._out.new_velocity) + speed, np.array(self._out.new_acceleration)

    def _runs_out(self, then: tuple[Array, Array, Array] | None, low: Array, high: Array) -> Array:
        """Returns which joints (n,) could not stop any more between low and high."""
        if then is None:
            return np.zeros(len(low), dtype=bool)
        self._stop.current_position, self._stop.current_velocity, self._stop.current_acceleration = then
        try:
            solved = int(self._otg.calculate(self._stop, self._way)) >= 0
        except self._lib.RuckigError:
            solved = False
        if not solved:
            return np.ones(len(low), dtype=bool)
        ends = np.array([(each.min, each.max) for each in self._way.position_extrema])
        return np.asarray((ends[:, 0] < low - 1e-9) | (ends[:, 1] > high + 1e-9))

    def _tame(self, speed: Array, goal: Array, low: Array, high: Array) -> Array:
        """Returns the speeds (n,) at which the target may be passed, so that run-up and stop fit between low and high.

        A stop from v takes v^2 / 2a + v a / 2j at most. The target may be passed at the beginning of a period: at the end of it,
        the reference is v times the period farther.
        """
        a, j = self.limits.bounds.acceleration, self.limits.bounds.jerk
        ramp_s, room = a / (2 * j) + self.period_s, np.maximum(np.minimum(goal - low, high - goal), 0.0)
        most = np.minimum(self.limits.bounds.velocity, a * (np.sqrt(ramp_s**2 + 2 * room / a) - ramp_s))
        return np.clip(speed, -0.999 * most, 0.999 * most)

    def _checked(self, values: Any, what: str) -> Array:
        n = len(self.limits.names)
        try:
            array = np.array(values, dtype=float)
        except (TypeError, ValueError) as error:
            raise ArrayMismatch(f"tracker: {what}: want {n} finite numbers, got {type(values).__name__}") from error
        if array.shape != (n,) or not np.isfinite(array).all():
            raise ArrayMismatch(
                f"tracker: {what}: want {n} finite numbers, got {np.array2string(array, precision=4, threshold=8)}"
            )
        return array
