"""Two arms that must not meet: the published capsule filter (SEW-Mimic, Algorithms 4 and 9 to 12) and a smooth guard.

`Filter` projects the keypoints of a frame that would collide (position-based dynamics, Mueller et al. 2007; Macklin et al. 2016)
and solves again. It has no memory, so consecutive frames may be far apart; behind a speed limit it holds instead.
`Guard` moves within the speed limit from one safe pose to the next: it steps towards the target and slides along what is near.
Neither is a guarantee for shapes outside the capsules.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import numpy as np

from robolearn import geometry
from robolearn.teleop import capsules
from robolearn.teleop.sew import Status, Stream, solve
from robolearn.teleop.torso import Torso

Array = np.ndarray
D_MIN, D_ACT = 0.01, 0.03  # [m] kept between capsules; where projecting begins
SWEEPS, COMPLIANCE, WALK = 20, 1e-6, 100
SLIDES = 8


class Verdict(StrEnum):
    """What became of a frame."""

    ACCEPTED = "accepted"
    CORRECTED = "corrected"
    XPBD_FAILED = "xpbd_failed"  # the projection found no free place: held
    IK_FAILED = "ik_failed"  # the arms cannot take it: held
    VALIDATION_FAILED = "validation_failed"  # they could, but would touch: held


class Goal(NamedTuple):
    """What both arms are asked for, in the torso frame: upper, lower (2, 3), hand (2, 3, 3), and q (2, 7) without a filter."""

    upper: Array
    lower: Array
    hand: Array
    q: Array


class Filtered(NamedTuple):
    """q (2, 7) [rad]; what became of the frame; the smallest clearance [m] of q."""

    q: Array
    verdict: Verdict
    clearance: float


class Filter:
    """The published filter. `step` never returns a pose whose capsules are nearer than d_min, unless it began in one."""

    def __init__(self, torso: Torso, q: Array, d_min: float = D_MIN, d_act: float = D_ACT) -> None:
        self.torso, self.radii, self.d_min, self.d_act = torso, capsules.radii(torso), d_min, d_act
        self.q = np.array(q, float)
        self.lengths = np.linalg.norm(np.diff(torso.keypoints(self.q), axis=1), axis=2)  # (2, 3), constant where axes meet

    def clearance(self, q: Array) -> float:
        """Returns the smallest clearance [m] of the fifteen pairs at q (2, 7)."""
        return float(capsules.near(self.torso.keypoints(q), self.radii).clearance.min())

    def step(self, goal: Goal) -> Filtered:
        """Returns where the arms go instead of `goal.q`: there, to the projection, or nowhere."""
        clear = self.clearance(goal.q)
        if clear >= self.d_min:
            self.q = goal.q.copy()
            return Filtered(self.q, Verdict.ACCEPTED, clear)
        points, ok = self._projected(self._first_near(self.torso.keypoints(self.q), self.torso.keypoints(goal.q)))
        if not ok:
            return self._held(Verdict.XPBD_FAILED)
        q = self._solved(points, goal)
        if q is None:
            return self._held(Verdict.IK_FAILED)
        clear = self.clearance(q)
        if clear < self.d_min - 1e-6:
            return self._held(Verdict.VALIDATION_FAILED)
        self.q = q
        return Filtered(q, Verdict.CORRECTED, clear)

    def _held(self, verdict: Verdict) -> Filtered:
        return Filtered(self.q, verdict, self.clearance(self.q))

    def _first_near(self, now: Array, wanted: Array) -> Array:
        """Returns the first keypoints on the straight way to the wanted ones whose capsules are nearer than d_act."""
        far = float(np.linalg.norm(wanted - now, axis=-1).max())
        n = int(np.clip(np.ceil(far / self.radii.min()), 1, WALK))
        for share in np.arange(1, n + 1) / n:
            points = now + share * (wanted - now)
            if capsules.near(points, self.radii).clearance.min() < self.d_act:
                return points
        return wanted

    def _projected(self, points: Array) -> tuple[Array, bool]:
        """Returns keypoints pushed apart to d_min with the true link lengths, and whether that was possible."""
        points = points.copy()
        multipliers = np.zeros(len(capsules.PAIRS))
        for _ in range(SWEEPS):
            near = capsules.near(points, self.radii)
            wrong = np.flatnonzero(near.clearance < self.d_min)
            if not len(wrong):
                return points, True
            for k in wrong:
                self._push(points, int(k), near, multipliers)
            self._stretch(points)
        return points, bool(capsules.near(points, self.radii).clearance.min() >= self.d_min - 1e-4)

    def _push(self, points: Array, k: int, near: capsules.Near, multipliers: Array) -> None:
        """Moves the ends of one pair apart along its normal; torso and shoulders weigh infinitely."""
        i, j = capsules.PAIRS[k]
        s, t, n = near.s[k], near.t[k], near.normal[k]
        gradients = [(i, 0, -(1 - s) * n), (i, 1, -s * n), (j, 0, (1 - t) * n), (j, 1, t * n)]
        total, moves = 0.0, []
        for capsule, end, gradient in gradients:
            if capsule == 0:
                continue
            side, point = (capsule - 1) // 3, (capsule - 1) % 3 + end
            if point == 0:
                continue
            total += float(gradient @ gradient)
            moves.append((side, point, gradient))
        change = -(near.clearance[k] - self.d_min + COMPLIANCE * multipliers[k]) / (total + COMPLIANCE)
        change = max(change, -multipliers[k])
        multipliers[k] += change
        for side, point, gradient in moves:
            points[side, point] += change * gradient

    def _stretch(self, points: Array) -> None:
        for side in range(2):
            for k in range(3):
                way = points[side, k + 1] - points[side, k]
                way = way / max(float(np.linalg.norm(way)), 1e-9)
                points[side, k + 1] = points[side, k] + self.lengths[side, k] * way

    def _solved(self, points: Array, goal: Goal) -> Array | None:
        """Returns joint angles (2, 7) that put the keypoints there, the hands keeping their roll."""
        q = np.empty((2, 7))
        unfiltered = self.torso.keypoints(goal.q)
        for side, arm in enumerate(self.torso.arms):
            base = self.torso.torso_from_base[side][:3, :3].T
            shoulder, elbow, wrist, hand = points[side] @ base.T
            before, now = base @ (unfiltered[side, 3] - unfiltered[side, 2]), hand - wrist
            turned = shortest_turn(before, now) @ base @ goal.hand[side]
            result = solve(arm, elbow - shoulder, wrist - elbow, turned, self.q[side], "points")
            if result.status is Status.HELD or result.residuals[:2].max() > 0.05:
                return None
            q[side] = result.q
        return q


class Guard:
    """Both arms from one safe pose to the next: no step above max_speed / hz, no capsule nearer than d_min."""

    def __init__(self, torso: Torso, q: Array, hz: float, max_speed: float, d_min: float = D_MIN) -> None:
        self.torso, self.radii, self.d_min = torso, capsules.radii(torso), d_min
        self.q, self.most = np.array(q, float), max_speed / hz
        self.streams = [Stream(arm, hz, max_speed) for arm in torso.arms]

    def clearance(self, q: Array) -> float:
        """Returns the smallest clearance [m] of the fifteen pairs at q (2, 7)."""
        return float(capsules.near(self.torso.keypoints(q), self.radii).clearance.min())

    def step(self, goal: Goal) -> Filtered:
        """Returns the next pose: the streams' own where it is clear, else one slid along what is near, else this one."""
        wanted = np.empty((2, 7))
        for side, stream in enumerate(self.streams):
            stream.reset(self.q[side])
            base = self.torso.torso_from_base[side][:3, :3].T
            wanted[side] = stream.step(base @ goal.upper[side], base @ goal.lower[side], base @ goal.hand[side]).q
        clear = self.clearance(wanted)
        if clear >= self.d_min:
            self.q = wanted
            return Filtered(self.q, Verdict.ACCEPTED, clear)
        best = self._slid(wanted)
        if best is None:
            return Filtered(self.q, Verdict.XPBD_FAILED, self.clearance(self.q))
        self.q = best
        return Filtered(self.q, Verdict.CORRECTED, self.clearance(best))

    def _slid(self, q: Array) -> Array | None:
        """Returns the nearest clear pose inside the speed box that pushing the near pairs apart leads to, None of none."""
        low = np.maximum(self.q - self.most, np.stack([arm.low for arm in self.torso.arms]))
        high = np.minimum(self.q + self.most, np.stack([arm.high for arm in self.torso.arms]))
        for _ in range(SLIDES):
            near = capsules.near(self.torso.keypoints(q), self.radii)
            if near.clearance.min() >= self.d_min:
                return q
            wrong = np.flatnonzero(near.clearance < self.d_min + 2e-3)
            slopes = self._slopes(q, wrong)
            wish = self.d_min + 1e-3 - near.clearance[wrong]
            step = slopes.T @ np.linalg.solve(slopes @ slopes.T + 1e-6 * np.eye(len(wrong)), np.maximum(wish, 0.0))
            q = np.clip(q + step.reshape(2, 7), low, high)
        for share in (0.5, 0.25, 0.1):  # less of the way, both arms alike
            part = self.q + share * (q - self.q)
            if self.clearance(part) >= self.d_min:
                return part
        return None

    def _slopes(self, q: Array, pairs: Array) -> Array:
        """Returns how the clearances of `pairs` change with the joints: (pairs, 14), by differences of the keypoints."""
        still = capsules.near(self.torso.keypoints(q), self.radii)
        starts, ends = capsules.segments(self.torso.keypoints(q))
        out = np.zeros((len(pairs), 14))
        for joint in range(14):
            moved = q.copy()
            moved[joint // 7, joint % 7] += 1e-6
            starts_2, ends_2 = capsules.segments(self.torso.keypoints(moved))
            for row, k in enumerate(pairs):
                i, j = capsules.PAIRS[k]
                one = (1 - still.s[k]) * (starts_2[i] - starts[i]) + still.s[k] * (ends_2[i] - ends[i])
                two = (1 - still.t[k]) * (starts_2[j] - starts[j]) + still.t[k] * (ends_2[j] - ends[j])
                out[row, joint] = still.normal[k] @ (two - one) / 1e-6
        return out


def shortest_turn(a: Array, b: Array) -> Array:
    """Returns the rotation (3, 3) of the shortest turn from direction a to b (any lengths); none where one is zero."""
    n = float(np.linalg.norm(a) * np.linalg.norm(b))
    axis = np.cross(a, b)
    size = float(np.linalg.norm(axis))
    if n < 1e-12 or size < 1e-12:
        return np.eye(3)
    return geometry.matrix_from_rotvec(axis / size * np.arctan2(size, a @ b))
