"""`Arm`: a seven-joint arm as the retargeting sees it, seven axes in its base frame (product of exponentials), nothing else.

An arm qualifies where consecutive axes are perpendicular (SEW-Mimic, arXiv 2602.01632). R_0i(q) = R(h_1, q_1) ... R(h_i, q_i);
the hand is R_07 Rh0. Lengths matter only to the modes that use positions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import mujoco
import numpy as np

from robolearn import geometry
from robolearn.errors import BadInput
from robolearn.teleop import _read
from robolearn.teleop._axis import Plan

Array = np.ndarray
SKEW = 0.02  # [rad] how far from perpendicular consecutive axes may be


@dataclass(frozen=True, eq=False)
class Arm:
    """One arm at q = 0 in its base frame, right-handed, [m] and [rad].

    axes (7, 3): unit joint axes h_i; hand_rotation (3, 3), hand_position (3,): of the hand body; shoulder, elbow, wrist (3,):
    on axes 2/3, 4/3 and 5/6 where these come nearest; low, high (7,): limits, infinite where there are none.
    """

    name: str
    axes: Array
    hand_rotation: Array
    hand_position: Array
    shoulder: Array
    elbow: Array
    wrist: Array
    low: Array
    high: Array
    joint_names: tuple[str, ...] = ()
    anchors: Array | None = None
    exact: bool = True  # False: axes that are nearly perpendicular count as perpendicular, as published

    @classmethod
    def from_mjcf(
        cls, path_or_model: mujoco.MjModel | str | os.PathLike[str], base: str, joints: Sequence[str], hand: str, name: str = ""
    ) -> Arm:
        """Returns the arm of an MJCF or URDF file (or model, or MJCF text) from body `base` to body `hand`.

        BadInput where the model lacks a name, or consecutive axes are not perpendicular.
        """
        found = _read.chain(_read.load(path_or_model), base, tuple(joints), hand)
        axes = found.axes
        lean = np.abs(np.sum(axes[:-1] * axes[1:], axis=1))
        if lean.max() > SKEW:
            k = int(lean.argmax())
            raise BadInput(f"arm {name or hand}: axes {k + 1} and {k + 2} are not perpendicular (cosine {lean[k]:.3f}, want 0)")

        def meet(on: int, near: int) -> Array:
            return nearest_point(found.anchors[on], axes[on], found.anchors[near], axes[near])

        return cls(
            name or hand, axes, found.hand_rotation, found.hand_position, meet(2, 1), meet(3, 2), meet(4, 5),
            found.low, found.high, tuple(joints), found.anchors,
        )  # fmt: skip

    def without_limits(self) -> Arm:
        """Returns this arm with joints that turn for ever."""
        return replace(self, low=np.full(7, -np.inf), high=np.full(7, np.inf))

    def middle(self) -> Array:
        """Returns the middle (7,) of the joint ranges, 0 where there is none."""
        limited = np.isfinite(self.low) & np.isfinite(self.high)
        return np.where(limited, (np.where(limited, self.low, 0.0) + np.where(limited, self.high, 0.0)) / 2, 0.0)

    def frames(self, q: Array) -> Array:
        """Returns R_01 ... R_07 (7, 3, 3) at joint angles q (7,)."""
        out, turned = np.empty((7, 3, 3)), np.eye(3)
        for i in range(7):
            turned = turned @ rotation(self.axes[i], float(q[i]))
            out[i] = turned
        return out

    def directions(self, q: Array) -> tuple[Array, Array, Array]:
        """Returns the limb directions upper, lower (3,) and the hand's rotation (3, 3) at q (7,)."""
        turned = self.frames(q)
        return turned[1] @ self.upper_axis, turned[3] @ self.lower_axis, turned[6] @ self.hand_rotation

    def keypoints(self, q: Array) -> Array:
        """Returns shoulder, elbow, wrist and hand (4, 3) [m] at q (7,)."""
        turned = self.frames(q)
        shoulder = self._carried(turned, self.shoulder, 1)
        elbow = self._carried(turned, self.elbow, 2)
        wrist = self._carried(turned, self.wrist, 4)
        return np.stack([shoulder, elbow, wrist, self._carried(turned, self.hand_position, 6)])

    def pose(self, q: Array) -> Array:
        """Returns base_from_hand (4, 4) at q (7,)."""
        turned = self.frames(q)
        return geometry.pose(self._carried(turned, self.hand_position, 6), turned[6] @ self.hand_rotation)

    @cached_property
    def upper_axis(self) -> Array:
        """The upper arm's direction a_3 = +-h_3 (3,) at q = 0."""
        return self.axes[2] * (1.0 if self.axes[2] @ (self.elbow - self.shoulder) >= 0 else -1.0)

    @cached_property
    def lower_axis(self) -> Array:
        """The forearm's direction a_5 = +-h_5 (3,) at q = 0."""
        return self.axes[4] * (1.0 if self.axes[4] @ (self.wrist - self.elbow) >= 0 else -1.0)

    @cached_property
    def plan(self) -> Plan:
        """What the scalar solver needs, computed once."""
        return Plan(self)

    @cached_property
    def joint_points(self) -> Array:
        """One point (7, 3) [m] on each axis at q = 0."""
        if self.anchors is not None:
            return self.anchors
        return np.stack([self.shoulder, self.shoulder, self.shoulder, self.elbow, self.wrist, self.wrist, self.wrist])

    def _carried(self, turned: Array, point: Array, joint: int) -> Array:
        """Returns where a point of the link behind joint index `joint` has gone: it turns about each axis before it in turn."""
        points, position, before = self.joint_points, self.joint_points[0].copy(), np.eye(3)
        for i in range(joint + 1):
            following = points[i + 1] if i < joint else point
            before = turned[i]
            position = position + before @ (following - points[i])
        return position


def rotation(axis: Array, angle: float) -> Array:
    """Returns R(axis, angle) (3, 3) about a unit axis (Rodrigues)."""
    c, s, (x, y, z) = np.cos(angle), np.sin(angle), axis
    d = 1.0 - c
    return np.array(
        [
            [c + d * x * x, d * x * y - s * z, d * x * z + s * y],
            [d * x * y + s * z, c + d * y * y, d * y * z - s * x],
            [d * x * z - s * y, d * y * z + s * x, c + d * z * z],
        ]
    )


def nearest_point(point: Array, axis: Array, other: Array, other_axis: Array) -> Array:
    """Returns the point (3,) of the line (point, axis) that is nearest to the line (other, other_axis), both axes unit."""
    b, gap = axis @ other_axis, other - point
    denominator = 1.0 - b * b
    along = (gap @ axis - (gap @ other_axis) * b) / denominator if denominator > 1e-12 else gap @ axis
    return point + along * axis
