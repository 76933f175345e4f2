"""Joint angles [rad] and a gripper command: what the joints should be."""

from __future__ import annotations

import numpy as np

from robolearn.core import ArraySpec
from robolearn.runtime.codecs import _base
from robolearn.runtime.codecs._base import Target
from robolearn.runtime.kinematics import Hand


def make(hand: Hand) -> JointAbs:
    """Returns the codec of an arm."""
    return JointAbs(len(hand.joints))


class JointAbs:
    """Angles as they are."""

    def __init__(self, n: int) -> None:
        """n: joints of the arm."""
        self.action = ArraySpec((n + 1,), names=(*[f"q{i}" for i in range(n)], "gripper"))

    def target(self, action: np.ndarray, q: np.ndarray) -> Target:
        """Returns the asked angles."""
        del q  # Unused: the angles are absolute.
        return Target(np.asarray(action[:-1], dtype=float), _base.aperture(float(action[-1])))

    def action_of(self, q: np.ndarray, aperture: float, before: np.ndarray) -> np.ndarray:
        """Returns the angles and the command."""
        del before  # Unused: the angles are absolute.
        return np.append(q, _base.gripper_command(aperture)).astype(np.float32)
