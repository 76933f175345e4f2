"""Mode C: the hand's pose exactly, the elbow in the plane of the human one.

From the hand follows the wrist W, from W and the plane's normal n the elbow: with e = unit(W - S) and
cos A = (a^2 + D^2 - b^2) / (2 a D) the upper arm is u = cos A e + sin A (e x n); then mode B. Where the wrist is not spherical
(Panda: 88 mm), W moves on a circle with q7, found as the root of "the wrist's own q7 minus the assumed one". Where the shoulder
is not (Gen3, Sawyer, GR1: its centre moves), the closed form is a start, and Newton steps on pose and plane finish.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import inf, sqrt
from typing import NamedTuple

import numpy as np

from robolearn import geometry
from robolearn.teleop._axis import Angles, Targets, atan2_difference, rows_times, vec
from robolearn.teleop._points import links, point_branches, within
from robolearn.teleop._subproblems import Vec, cross, dot, turned
from robolearn.teleop.arm import Arm, nearest_point

Array = np.ndarray
SPHERICAL_M = 1e-9
VAGUE = 0.05  # sine between the limbs below which they say nothing of a plane
GRID = 48
TURNS_RAD = tuple(np.deg2rad(s * k) for k in range(10, 181, 10) for s in (1, -1))


class Target(NamedTuple):
    """What to aim at: directions of mode A, rotation of the hand as rows, its place (3,) [m]; planar: directions are given."""

    axes: Targets
    rows: list[list[float]]
    place: Vec
    planar: bool


class Found(NamedTuple):
    """A solution and how far it is from the target: residuals (elbow plane, 0, rotation) [rad], position error [m]."""

    q: Angles
    residuals: tuple[float, float, float]
    position_error: float
    out_of_reach: bool


class Wrist(NamedTuple):
    """At q = 0: axis 7's nearest point to the wrist as seen from the wrist, and the hand as seen from that point [m]."""

    offset: Vec
    hand: Vec
    spherical: bool
    shoulder_fixed: bool  # the first three axes and the fifth and sixth meet, so that lengths are constant


@lru_cache(maxsize=64)
def wrist_of(arm: Arm) -> Wrist:
    """Returns the wrist of an arm, computed once."""
    on_7 = arm.joint_points[6] + ((arm.wrist - arm.joint_points[6]) @ arm.axes[6]) * arm.axes[6]
    offset = on_7 - arm.wrist
    first = nearest_point(arm.joint_points[0], arm.axes[0], arm.shoulder, arm.axes[1])
    first = first + ((arm.shoulder - first) @ arm.axes[0]) * arm.axes[0]
    second = arm.joint_points[1] + ((arm.shoulder - arm.joint_points[1]) @ arm.axes[1]) * arm.axes[1]
    sixth = arm.joint_points[5] + ((arm.wrist - arm.joint_points[5]) @ arm.axes[5]) * arm.axes[5]
    gaps = (first - arm.shoulder, second - arm.shoulder, sixth - arm.wrist)
    meet = all(float(np.linalg.norm(gap)) < 1e-6 for gap in gaps)
    return Wrist(vec(offset), vec(arm.hand_position - on_7), float(np.linalg.norm(offset)) < SPHERICAL_M, meet)


def solve(arm: Arm, target: Target, q: Angles, search: bool = True) -> Found:
    """Returns the solution nearest to q; the nearest plane or pose that can be had where the wanted one cannot."""
    if not wrist_of(arm).shoulder_fixed:
        return _by_steps(arm, target, q)
    normal = plane_normal(arm, target, q)
    roots = _Roots(arm, target, normal)
    best = roots.near(q)
    if best is None and search:
        best = roots.anywhere(q)
        for turn in TURNS_RAD if best is None else ():
            best = _Roots(arm, target, _turned_about_reach(arm, target, normal, turn)).anywhere(q)
            if best is not None:
                break
    if best is None:
        best = settle(arm, target, q)
    left, far = errors(arm, target, np.array(best))
    if max(far, left[2]) > 1e-9:  # near a stretched arm the root is ill posed, and Newton's steps are not
        polished = settle(arm, target, best)
        left_2, far_2 = errors(arm, target, np.array(polished))
        if far_2 + left_2[2] < far + left[2]:
            best, left, far = polished, left_2, far_2
    return Found(best, left, far, roots.clipped and far > 1e-6)


def _by_steps(arm: Arm, target: Target, q: Angles) -> Found:
    """Returns what Newton steps reach from q, or, where these end short, from the axis mode's answer."""
    best: Found | None = None
    near = arm.plan.nearest(target.axes, q) if target.planar else None
    for start in (q, near[0] if near is not None else None):
        if start is None:
            continue
        found = settle(arm, target, start, plane=True)
        left, far = errors(arm, target, np.array(found))
        if best is None or far < best.position_error - 1e-9:
            best = Found(found, left, far, False)
        if best.position_error < 1e-9 and best.residuals[2] < 1e-9:
            break
    assert best is not None
    points = np.vstack([arm.joint_points, arm.hand_position])
    longest = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())  # no pose of the arm is further from the first joint
    return best._replace(out_of_reach=float(np.linalg.norm(np.array(target.place) - points[0])) > longest)


def plane_normal(arm: Arm, target: Target, q: Angles) -> Vec:
    """Returns the human elbow plane's normal u x l, the arm's own at q where the human arm is straight or not given."""
    if target.planar:
        n = cross(target.axes.upper, target.axes.fore)
        if dot(n, n) > VAGUE**2:
            return unit(n)
    shoulder, elbow, wrist, _ = arm.keypoints(np.array(q))
    n = vec(np.cross(elbow - shoulder, wrist - elbow))
    return unit(n) if dot(n, n) > 1e-12 else (0.0, 1.0, 0.0)


def errors(arm: Arm, target: Target, q: Array) -> tuple[tuple[float, float, float], float]:
    """Returns ((elbow plane, 0, rotation) [rad], position [m]) of a solution q (7,)."""
    pose = arm.pose(q)
    far = float(np.linalg.norm(pose[:3, 3] - np.array(target.place)))
    turn = float(np.linalg.norm(geometry.rotvec_from_matrix(pose[:3, :3].T @ np.array(target.rows))))
    plane = abs(plane_error(arm, target, q) or 0.0) if target.planar else 0.0
    return (plane, 0.0, turn), far


class _Roots:
    """The closed form for one plane, and the root in q7 where the wrist needs one."""

    def __init__(self, arm: Arm, target: Target, normal: Vec) -> None:
        self.arm, self.target, self.normal = arm, target, normal
        self.wrist = wrist_of(arm)
        hand = np.array(target.rows) @ arm.hand_rotation.T  # R_07
        self.turn = hand.tolist()
        place, offset = target.place, rows_times(self.turn, self.wrist.hand)
        self.on_7: Vec = (place[0] - offset[0], place[1] - offset[1], place[2] - offset[2])
        self.clipped = False

    def at(self, q7: float, q: Angles) -> list[Angles | None]:
        """Returns the eight branches if joint 7 stood at q7."""
        w = self.on_7
        if not self.wrist.spherical:
            back = rows_times(self.turn, turned(self.arm.plan.h[6], -q7, self.wrist.offset))
            w = (w[0] - back[0], w[1] - back[1], w[2] - back[2])
        limbs = self.limbs(w)
        t = self.target.axes
        return point_branches(self.arm, Targets(*limbs, t.point, t.side), q)

    def limbs(self, w: Vec) -> tuple[Vec, Vec]:
        """Returns the directions of upper arm and forearm that put the wrist at w, the elbow in the plane."""
        link, s = links(self.arm), vec(self.arm.shoulder)
        reach = (w[0] - s[0], w[1] - s[1], w[2] - s[2])
        distance = sqrt(dot(reach, reach))
        a, b = link.upper_length, link.lower_length
        d = min(max(distance, abs(a - b) + 1e-9), a + b - 1e-9)
        self.clipped = abs(d - distance) > 1e-6
        e = unit(reach) if distance > 1e-9 else (0.0, 0.0, 1.0)
        along = dot(self.normal, e)
        n = (self.normal[0] - along * e[0], self.normal[1] - along * e[1], self.normal[2] - along * e[2])
        n = unit(n) if dot(n, n) > 1e-12 else unit(cross(e, (e[1], e[2], e[0])))
        cosine = min(1.0, max(-1.0, (a * a + d * d - b * b) / (2 * a * d)))
        sine = sqrt(1.0 - cosine * cosine)
        m = cross(e, n)
        u = (cosine * e[0] + sine * m[0], cosine * e[1] + sine * m[1], cosine * e[2] + sine * m[2])
        return u, unit((d * e[0] - a * u[0], d * e[1] - a * u[1], d * e[2] - a * u[2]))

    def near(self, q: Angles) -> Angles | None:
        """Returns the solution that continues q; None where it leaves the limits or q7 does not settle."""
        if self.wrist.spherical:
            return self._nearest(self.at(q[6], q), q)
        first = self._labelled_nearest(self.at(q[6], q), q)
        if first is None:
            return None
        gap = self._gap(first, q)
        x0, x1 = q[6], q[6] + 1e-3
        f0, f1 = gap(x0), gap(x1)
        for _ in range(14):
            if f0 is None or f1 is None or abs(f1 - f0) < 1e-15:
                return None
            if abs(f1) < 1e-13:
                break
            step = min(0.3, max(-0.3, -f1 * (x1 - x0) / (f1 - f0)))
            x0, f0, x1 = x1, f1, x1 + step
            f1 = gap(x1)
        if f1 is None or abs(f1) > 1e-9:
            return None
        branch = self.at(x1, q)[first]
        return within(self.arm, branch, q) if branch is not None else None

    def anywhere(self, q: Angles) -> Angles | None:
        """Returns the solution nearest to q of all that the limits allow, None of none."""
        if self.wrist.spherical:
            return self._nearest(self.at(q[6], q), q)
        low, high = self.arm.plan.low[6], self.arm.plan.high[6]
        if high - low == inf:
            low, high = -np.pi, np.pi
        grid = [low + (high - low) * i / (GRID - 1) for i in range(GRID)]
        values = [[None if b is None else atan2_difference(b[6], x) for b in self.at(x, q)] for x in grid]
        found: list[Angles | None] = []
        for i in range(GRID - 1):
            for label in range(8):
                f0, f1 = values[i][label], values[i + 1][label]
                if f0 is not None and f1 is not None and f0 * f1 <= 0 and abs(f0) + abs(f1) < 1.5:
                    x = bisect(self._gap(label, q), grid[i], grid[i + 1], f0)
                    found.append(self.at(x, q)[label])
        return self._nearest(found, q)

    def _gap(self, label: int, q: Angles) -> Callable[[float], float | None]:
        def gap(q7: float) -> float | None:
            branch = self.at(q7, q)[label]
            return None if branch is None else atan2_difference(branch[6], q7)

        return gap

    def _nearest(self, branches: list[Angles | None], q: Angles) -> Angles | None:
        fits = [within(self.arm, branch, q) for branch in branches if branch is not None]
        return min((fit for fit in fits if fit is not None), key=lambda fit: distance(fit, q), default=None)

    def _labelled_nearest(self, branches: list[Angles | None], q: Angles) -> int | None:
        gaps = [
            (sum(abs(atan2_difference(x, y)) for x, y in zip(branch, q, strict=True)), label)
            for label, branch in enumerate(branches)
            if branch is not None
        ]
        return min(gaps)[1] if gaps else None


def settle(arm: Arm, target: Target, q: Angles, steps: int = 30, plane: bool = False) -> Angles:
    """Returns the angles inside the limits that damped Gauss-Newton steps lead to: the pose, and with `plane` the elbow's."""
    at, want_p, want_r = np.array(q, float), np.array(target.place), np.array(target.rows)
    for _ in range(steps):
        pose = arm.pose(at)
        error = np.concatenate([want_p - pose[:3, 3], geometry.rotvec_from_matrix(want_r @ pose[:3, :3].T)])
        jacobian = pose_jacobian(arm, at, pose[:3, 3])
        if plane and target.planar:
            off = plane_error(arm, target, at)
            if off is not None:
                row = [((plane_error(arm, target, at + 1e-6 * e) or off) - off) / 1e-6 for e in np.eye(7)]
                error, jacobian = np.append(error, -off), np.vstack([jacobian, row])
        if np.linalg.norm(error) < 1e-13:
            break
        damping = 1e-10 + 1e-3 * min(1.0, float(error @ error))
        step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + damping * np.eye(len(error)), error)
        at = np.clip(at + np.clip(step, -0.3, 0.3), arm.low, arm.high)
    return tuple(at.tolist())


def plane_error(arm: Arm, target: Target, q: Array) -> float | None:
    """Returns the signed angle [rad] from the human elbow plane to the arm's, about shoulder to wrist; None: no plane."""
    shoulder, elbow, wrist, _ = arm.keypoints(q)
    reach = wrist - shoulder
    reach = reach / max(float(np.linalg.norm(reach)), 1e-12)
    want = np.cross(target.axes.upper, target.axes.fore)
    want, have = want - (want @ reach) * reach, np.cross(elbow - shoulder, wrist - elbow)
    if np.linalg.norm(want) <= VAGUE or np.linalg.norm(have) < 1e-9:
        return None
    return float(np.arctan2(np.cross(want, have) @ reach, want @ have))


def pose_jacobian(arm: Arm, q: Array, tip: Array) -> Array:
    """Returns the Jacobian (6, 7) of the hand's position and turn, in the base frame."""
    turned_by = arm.frames(q)
    before = np.concatenate([np.eye(3)[None], turned_by[:-1]])
    axes = np.einsum("nij,nj->ni", before, arm.axes)
    places, points = np.empty((7, 3)), arm.joint_points
    places[0] = points[0]
    for i in range(1, 7):
        places[i] = places[i - 1] + turned_by[i - 1] @ (points[i] - points[i - 1])
    return np.concatenate([np.cross(axes, tip - places).T, axes.T])


def bisect(gap: Callable[[float], float | None], low: float, high: float, value: float) -> float:
    """Returns a root of `gap` between low and high, where its signs differ."""
    for _ in range(60):
        middle = (low + high) / 2
        at = gap(middle)
        if at is None:
            return middle
        if at * value > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def distance(a: Angles, b: Angles) -> float:
    """Returns the sum of |a - b|."""
    return sum(abs(x - y) for x, y in zip(a, b, strict=True))


def unit(v: Vec) -> Vec:
    """Returns v / |v|."""
    n = sqrt(dot(v, v))
    return (v[0] / n, v[1] / n, v[2] / n)


def _turned_about_reach(arm: Arm, target: Target, normal: Vec, turn: float) -> Vec:
    """Returns the plane's normal turned about the line from shoulder to hand."""
    reach = np.array(target.place) - arm.shoulder
    return turned(vec(reach / max(float(np.linalg.norm(reach)), 1e-9)), turn, normal)
