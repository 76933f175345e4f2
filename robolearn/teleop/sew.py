"""SEW retargeting (SEW-Mimic, arXiv 2602.01632): a seven-joint arm takes the pose of a human one, in closed form.

    arm = robots.arm("panda")
    result = solve(arm, upper, lower, hand, q_prev)          # one target
    stream = Stream(arm, hz=60, max_speed=3.0)               # a stream, never faster than max_speed
    batch = solve_batch(arm, U, L, H)                        # many at once, numpy or torch

upper, lower (3,): directions shoulder to elbow and elbow to wrist; hand (3, 3): rotation of the hand body; all in the arm's
base frame. Optimal without limits; with limits each stage is optimal after the one before it, which is not the same.
"""

from __future__ import annotations

from enum import StrEnum
from math import isfinite, sqrt
from typing import Any, Literal, NamedTuple

import numpy as np

from robolearn.errors import BadInput
from robolearn.teleop import _pose
from robolearn.teleop._axis import Angles, Targets
from robolearn.teleop._batch import Batch, solve_batch
from robolearn.teleop._points import nearest_points
from robolearn.teleop._subproblems import Vec
from robolearn.teleop.arm import Arm

__all__ = ["Arm", "Batch", "Result", "Status", "Stream", "branches", "solve", "solve_batch"]

Array = np.ndarray
Mode = Literal["axis", "points", "pose"]
EXACT_RAD = 1e-6
EXACT_M = 1e-6
NEAR_SO3 = 1e-3


class Status(StrEnum):
    """What a solution is."""

    EXACT = "exact"
    LIMITED = "limited"  # joint limits or the speed bind: the best that they leave, stage by stage
    SINGULAR = "singular"  # damped near a pole: a little off, and calm
    UNREACHABLE = "unreachable"  # the hand's position is out of reach; the nearest is given
    HELD = "held"  # the input was no pose; the angles before it are given


WHY = {
    Status.LIMITED: "the speed cap or a joint limit binds",
    Status.SINGULAR: "near a pole: damped",
    Status.UNREACHABLE: "out of reach: the nearest pose",
}


class Result(NamedTuple):
    """q (7,) [rad]; residuals (3,) [rad] of upper arm, forearm and hand (mode "pose": elbow plane, 0, hand).

    position_error: of the hand [m], mode "pose" only; why: what was wrong with a held input, what keeps a stream from its target.
    """

    q: Array
    residuals: Array
    status: Status
    position_error: float = 0.0
    why: str = ""


def solve(
    arm: Arm,
    upper: Any,
    lower: Any,
    hand: Any,
    q_prev: Any = None,
    mode: Mode = "axis",
    position: Any = None,
) -> Result:
    """Returns the joint angles nearest to `q_prev` (7,) (default: mid-range) that take the pose.

    mode "axis": the arm's axes take the directions; "points": the lines between its joints do; "pose": the hand takes
    `position` (3,) [m] and `hand` exactly, and the elbow lies in the plane of the human one. A target that is no pose is HELD:
    q_prev comes back, with the reason; BadInput where there is no q_prev.
    """
    q = tuple(arm.middle().tolist()) if q_prev is None else tuple(np.asarray(q_prev, float).tolist())
    target, why = _targets(arm, upper, lower, hand, q, mode, position)
    if target is None:
        if q_prev is None:
            raise BadInput(f"retargeting: {why}")
        return Result(np.array(q), np.full(3, np.nan), Status.HELD, np.nan, why)
    if mode == "pose":
        return _posed(arm, _pose.solve(arm, target, q))
    if mode == "axis":
        exact = arm.plan.nearest(target.axes, q)
        if exact is not None:
            return Result(np.array(exact[0]), np.array(exact[1]), Status.EXACT if max(exact[1]) < EXACT_RAD else Status.LIMITED)
        found = None
    else:
        found = nearest_points(arm, target.axes, q)
    if found is None:
        found = arm.plan.boxed(target.axes, q, arm.plan.low, arm.plan.high)
    left = arm.plan.residuals(target.axes, found) if mode == "axis" else _point_residuals(arm, target.axes, found)
    return Result(np.array(found), np.array(left), Status.EXACT if max(left) < EXACT_RAD else Status.LIMITED)


def branches(arm: Arm, upper: Any, lower: Any, hand: Any) -> Array:
    """Returns the eight exact solutions (8, 7) [rad] of mode "axis", in (-pi, pi], whatever the limits."""
    target, why = _targets(arm, upper, lower, hand, (0.0,) * 7, "axis", None)
    if target is None:
        raise BadInput(f"retargeting: {why}")
    found = np.array(arm.plan.branches(target.axes, (0.0,) * 7))
    return np.pi - (np.pi - found) % (2 * np.pi)


class Stream:
    """Follows a stream of targets: every joint moves at most max_speed / hz a step, whatever comes in.

    Each stage takes its best point in the box of the joint limits and of what the speed allows; near a pole, where its first
    angle hardly matters, that angle's share of the box shrinks by r^2 / (r^2 + eps^2). eps 0: most accurate, 0.1: calmest.
    """

    def __init__(self, arm: Arm, hz: float, max_speed: float = 3.0, eps: float = 0.05, mode: Mode = "axis") -> None:
        if not hz > 0 or not max_speed > 0 or not eps >= 0:
            raise BadInput(f"retargeting stream: want hz and max_speed above 0 and eps not below, got {hz}, {max_speed}, {eps}")
        self.arm, self.mode, self.eps = arm, mode, eps
        self.most = max_speed / hz  # [rad] a step
        self.reset(arm.middle())

    def reset(self, q: Any) -> None:
        """Begins at joint angles q (7,) [rad], brought inside the limits."""
        start = np.asarray(q, float)
        if start.shape != (7,) or not np.isfinite(start).all():
            raise BadInput(f"retargeting stream: want seven finite joint angles to start from, got {np.array2string(start)}")
        self.q = np.clip(start, self.arm.low, self.arm.high)

    def step(self, upper: Any, lower: Any, hand: Any, position: Any = None) -> Result:
        """Returns the next joint angles; the ones before them, HELD, where the target is no pose."""
        q = tuple(self.q.tolist())
        target, why = _targets(self.arm, upper, lower, hand, q, self.mode, position)
        if target is None:
            return Result(self.q.copy(), np.full(3, np.nan), Status.HELD, np.nan, why)
        if self.mode == "axis":
            return self._axis_step(target.axes, q)
        found = _pose.solve(self.arm, target, q).q if self.mode == "pose" else nearest_points(self.arm, target.axes, q)
        if found is None:
            found = self.arm.plan.boxed(target.axes, q, self.arm.plan.low, self.arm.plan.high)
        step = np.array(found) - self.q
        limited = bool(np.abs(step).max() > self.most)
        self._move(self.q + np.clip(step, -self.most, self.most))
        now = tuple(self.q.tolist())
        if self.mode == "points":
            left, far = _point_residuals(self.arm, target.axes, now), 0.0
        else:
            left, far = _pose.errors(self.arm, target, self.q)
        status = Status.EXACT if max(left) < EXACT_RAD and far < EXACT_M else Status.LIMITED
        if self.mode == "pose" and not limited and far >= EXACT_M:
            status = Status.UNREACHABLE
        return Result(self.q.copy(), np.array(left), status, far, WHY.get(status, ""))

    def _axis_step(self, t: Targets, q: Angles) -> Result:
        plan, most, damped = self.arm.plan, self.most, False
        upper, fore, point, side = t.upper, t.fore, t.point, t.side
        found: list[float] = []
        for i, stage in zip((0, 2, 4), plan.stages, strict=True):
            v = (upper, fore, point)[i // 2]
            r2 = stage.pole_distance(v) ** 2
            share = r2 / (r2 + self.eps**2) if self.eps > 0 else 1.0
            damped = damped or share < 0.5
            low, high = self._box(i, q[i], most * share), self._box(i + 1, q[i + 1], most)
            a, b = stage.best_in_box(v, (low[0], high[0]), (low[1], high[1]), (q[i], q[i + 1]))
            found += [a, b]
            fore, point, side = stage.carry_all(a, b, fore, point, side)
        low_7, high_7 = self._box(6, q[6], most)
        found.append(plan.last_in(side, low_7, high_7, q[6]))
        self._move(np.array(found))
        left = plan.residuals(t, tuple(self.q.tolist()))
        status = Status.EXACT if max(left) < EXACT_RAD else Status.SINGULAR if damped else Status.LIMITED
        return Result(self.q.copy(), np.array(left), status, why=WHY.get(status, ""))

    def _box(self, i: int, q: float, most: float) -> tuple[float, float]:
        low, high = self.arm.plan.low[i], self.arm.plan.high[i]
        return max(low, q - most), min(high, q + most)

    def _move(self, q: Array) -> None:
        """Takes the new angles; the box is kept to the last bit, so that no caller's check on |dq| fails by rounding."""
        step = np.clip(q - self.q, -self.most, self.most)
        following = np.clip(self.q + step, self.arm.low, self.arm.high)
        over = np.abs(following - self.q) > self.most
        following[over] = np.nextafter(following[over], self.q[over])
        self.q = following


def _posed(arm: Arm, found: _pose.Found) -> Result:
    far, left = found.position_error, found.residuals
    status = Status.EXACT if far < EXACT_M and max(left) < 1e-5 else Status.UNREACHABLE if found.out_of_reach else Status.LIMITED
    return Result(np.array(found.q), np.array(left), status, far)


def _targets(
    arm: Arm, upper: Any, lower: Any, hand: Any, q: Angles, mode: Mode, position: Any
) -> tuple[_pose.Target | None, str]:
    """Returns what to aim at, or (None, why) where the input is no pose. In mode "pose" the directions may be missing."""
    rows, why = _rotation(hand)
    if rows is None:
        return None, why
    if mode == "pose":
        place = _vector(position)
        if place is None:
            return None, "the hand's position is missing or not a number (want three finite metres)"
        u, low = (_unit(upper), _unit(lower)) if upper is not None and lower is not None else (None, None)
        if upper is not None and lower is not None and (u is None or low is None):
            return None, "a limb direction is zero or not a number"
        zero: Vec = (0.0, 0.0, 0.0)
        axes = arm.plan.targets(u or zero, low or zero, rows)
        return _pose.Target(axes, rows, place, u is not None), ""
    u, low = _unit(upper), _unit(lower)
    if u is None or low is None:
        return None, f"the {'upper arm' if u is None else 'forearm'}'s direction is zero or not a number"
    return _pose.Target(arm.plan.targets(u, low, rows), rows, (0.0, 0.0, 0.0), True), ""


def _vector(value: Any) -> Vec | None:
    try:
        x, y, z = np.asarray(value, float).tolist()
    except (TypeError, ValueError):
        return None
    return (x, y, z) if isfinite(x) and isfinite(y) and isfinite(z) else None


def _unit(value: Any) -> Vec | None:
    v = _vector(value)
    if v is None:
        return None
    n = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])
    return (v[0] / n, v[1] / n, v[2] / n) if n > 1e-9 else None


def _rotation(value: Any) -> tuple[list[list[float]] | None, str]:
    """Returns a rotation matrix as rows: itself where it is one, the nearest where it is nearly one, else (None, why)."""
    matrix = np.asarray(value, float) if value is not None else np.empty(0)
    if matrix.shape != (3, 3):
        return None, f"the hand's rotation has shape {matrix.shape}, want (3, 3)"
    rows = matrix.tolist()
    (a, b, c), (d, e, f), (g, h, i) = rows
    n1, n2, n3 = a * a + b * b + c * c - 1, d * d + e * e + f * f - 1, g * g + h * h + i * i - 1
    m1, m2, m3 = a * d + b * e + c * f, a * g + b * h + c * i, d * g + e * h + f * i
    off = max(abs(n1), abs(n2), abs(n3), abs(m1), abs(m2), abs(m3))
    if not isfinite(off) or not isfinite(n1 + n2 + n3 + m1 + m2 + m3):
        return None, "the hand's rotation is not a number"
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    if determinant < 0.5:
        return None, f"the hand's rotation has determinant {determinant:.2f}, want 1 (a mirrored frame is none)"
    if off < 1e-12:
        return rows, ""
    left, _, right = np.linalg.svd(matrix)
    nearest = left @ right
    if off > 2 * NEAR_SO3:
        return None, f"the hand's rotation is {off:.3g} from orthonormal, want less than {2 * NEAR_SO3:g}"
    return nearest.tolist(), ""


def _point_residuals(arm: Arm, t: Targets, q: Angles) -> tuple[float, float, float]:
    """Returns the angles [rad] between the lines of the joints and the limb directions, and of the hand."""
    shoulder, elbow, wrist, _ = arm.keypoints(np.array(q))
    hand = arm.plan.residuals(t, q)[2]

    def angle(a: Array, b: Vec) -> float:
        crossed = np.cross(a, b)
        return float(np.arctan2(np.linalg.norm(crossed), a @ np.array(b)))

    return angle(elbow - shoulder, t.upper), angle(wrist - elbow, t.fore), hand
