"""How far the hand should move from where it is, in shares of one command's reach, and a gripper command (as OSC_POSE)."""

from __future__ import annotations

import numpy as np

from robolearn import geometry
from robolearn.core import ArraySpec
from robolearn.runtime.codecs import _base
from robolearn.runtime.codecs._base import Target
from robolearn.runtime.kinematics import Hand

NAMES = ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
REACH = np.array([0.05, 0.05, 0.05, 0.5, 0.5, 0.5])  # [m, rad] of one command


def make(hand: Hand) -> OscDelta:
    """Returns the codec of an arm whose base stands upright in the world's axes."""
    return OscDelta(hand)


class OscDelta:
    """A step from the pose reached, clipped to its reach."""

    def __init__(self, hand: Hand) -> None:
        self._hand = hand
        self.action = ArraySpec((7,), names=NAMES, frame="world")

    def target(self, action: np.ndarray, q: np.ndarray) -> Target:
        """Returns the angles nearest to q whose hand is one step further."""
        action = np.asarray(action, dtype=float)
        step, now = np.clip(action[:6], -1.0, 1.0) * REACH, self._hand.pose(q)
        turned = geometry.matrix_from_rotvec(step[3:]) @ now[:3, :3]
        found = self._hand.solve(geometry.pose(now[:3, 3] + step[:3], turned), q)
        return Target(found.q, _base.aperture(float(action[-1])), found.position, found.angle)

    def action_of(self, q: np.ndarray, aperture: float, before: np.ndarray) -> np.ndarray:
        """Returns the share of a command's reach from the pose at `before` to the pose at q."""
        now, then = self._hand.pose(before), self._hand.pose(q)
        turn = geometry.rotvec_from_matrix(then[:3, :3] @ now[:3, :3].T)
        step = np.concatenate([then[:3, 3] - now[:3, 3], turn]) / REACH
        return np.append(np.clip(step, -1.0, 1.0), _base.gripper_command(aperture)).astype(np.float32)
