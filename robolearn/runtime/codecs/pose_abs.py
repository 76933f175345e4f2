"""Where the hand should be: position [m], two columns of its rotation, and a gripper command, in the world's frame."""

from __future__ import annotations

import numpy as np

from robolearn import geometry
from robolearn.core import ArraySpec
from robolearn.runtime.codecs import _base
from robolearn.runtime.codecs._base import Target
from robolearn.runtime.kinematics import Hand

NAMES = ("x", "y", "z", "r00", "r01", "r02", "r10", "r11", "r12", "gripper")


def make(hand: Hand) -> PoseAbs:
    """Returns the codec of an arm."""
    return PoseAbs(hand)


class PoseAbs:
    """Inverse kinematics from where the arm is."""

    def __init__(self, hand: Hand) -> None:
        self._hand = hand
        self.action = ArraySpec((10,), names=NAMES, frame="world")

    def target(self, action: np.ndarray, q: np.ndarray) -> Target:
        """Returns the angles nearest to q whose hand comes nearest to the asked pose."""
        action = np.asarray(action, dtype=float)
        wanted = geometry.pose(action[:3], geometry.matrix_from_rot6d(action[3:9]))
        found = self._hand.solve(wanted, q)
        return Target(found.q, _base.aperture(float(action[-1])), found.position, found.angle)

    def action_of(self, q: np.ndarray, aperture: float, before: np.ndarray) -> np.ndarray:
        """Returns the hand's pose at q and the command."""
        del before  # Unused: the pose is absolute.
        pose = self._hand.pose(q)
        rot6d = geometry.rot6d_from_matrix(pose[:3, :3])
        return np.concatenate([pose[:3, 3], rot6d, np.array([_base.gripper_command(aperture)])]).astype(np.float32)
