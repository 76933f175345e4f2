"""The five points a gripper and a hand share: a base and two on each finger (Motion Tracks, arXiv 2501.06994).

Hands use the common 21-point order: 0 wrist; 1-4 thumb; 5-8 index; 9-12 middle; 13-16 ring; 17-20 little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray

LAYOUT = ("base", "right1", "left1", "right2", "left2")
BASE_IDS = {"index": 5, "wrist": 0}  # the authors' code takes the index knuckle; their page says wrist
# By hand: ids of right1, left1, right2, left2. Thumb and index change sides with the hand.
HAND_IDS = {"right": (2, 6, 4, 8), "left": (6, 2, 8, 4)}
OPEN_FROM = 0.9  # of gripper_open: below it the authors draw the fingers closed
_GRIPPER_FRAME = np.diag([1.0, -1.0, -1.0])  # the authors' frame g points back out of the hand


@dataclass(frozen=True)
class GripperShape:
    """Where the points lie in the hand's frame (z approach, y opening axis) [m]: depths along z, half the opening along y."""

    depths: tuple[float, float] = (0.075, 0.150)
    half_open: float = 0.05
    half_closed: float = 0.025


def gripper_points(world_from_hand: Array, gripper_open: Array | float, shape: GripperShape = GripperShape()) -> Array:
    """Returns the world points (..., 5, 3) [m] of grippers at world_from_hand (..., 4, 4), in the order of LAYOUT.

    gripper_open: (...) in [0, 1]; below 0.9 the fingers count as closed, as in the authors' data.
    """
    world_from_hand = np.asarray(world_from_hand, dtype=float)
    half = np.where(np.asarray(gripper_open, dtype=float) < OPEN_FROM, shape.half_closed, shape.half_open)
    half = np.broadcast_to(half, world_from_hand.shape[:-2])
    near, far = shape.depths
    offsets = np.zeros((*half.shape, 5, 3))
    offsets[..., 1:, 1] = half[..., None] * (1.0, -1.0, 1.0, -1.0)
    offsets[..., 1:, 2] = (-near, -near, -far, -far)
    # The authors subtract Euler angles, which is this turn for every pose or only near one, by the order of the angles.
    rotation = world_from_hand[..., :3, :3] @ _GRIPPER_FRAME
    return offsets @ np.swapaxes(rotation, -1, -2) + world_from_hand[..., None, :3, 3]


def five_of_hand(landmarks: Array, right_hand: bool, base: str = "index") -> Array:
    """Returns the five points (..., 5, d) of a hand's landmarks (..., 21, d) in the order of LAYOUT; `base` as in BASE_IDS."""
    ids = [BASE_IDS[base], *HAND_IDS["right" if right_hand else "left"]]
    return np.asarray(landmarks)[..., ids, :]


def mirrored(landmarks: Array, width: int) -> Array:
    """Returns pixels (..., 2) as they lie in the picture of `width` px flipped left to right: u becomes width - 1 - u."""
    flipped = np.array(landmarks, dtype=float)
    flipped[..., 0] = width - 1 - flipped[..., 0]
    return flipped
