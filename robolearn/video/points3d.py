"""A hand's path as the nine virtual gripper points that Point Policy reads and predicts (arXiv 2502.20391), and the way back.

So a policy that never saw a robot gives 3-D points, and a robot takes the pose that lays its own points on them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robolearn.core import Camera
from robolearn.video import pinhole
from robolearn.video.follow import follow_points
from robolearn.video.rigid import kabsch
from robolearn.video.triangulate import triangulate

Array = np.ndarray
BEHIND = 0.127  # [m] from the hand frame, between the fingertips, back to the base point
# Seen from the base point (z approach, y opening) [m]; the first two are the fingertips.
EXTRA = np.array(
    [
        [0.0, 0.04, 0.16], [0.0, -0.04, 0.16], [0.0, 0.0, 0.08], [0.0, 0.05, 0.08],
        [0.0, -0.05, 0.08], [0.0, 0.0, 0.04], [0.0, 0.05, 0.04], [0.0, -0.05, 0.04],
    ]
)  # fmt: skip
TIPS, HALF_CLOSED = (1, 2), 0.015
N_POINTS = len(EXTRA) + 1
CODEC = "points3d"  # of a spec whose actions are points
NAMES = tuple(f"{name}_{axis}" for name in ("base", *(f"p{k}" for k in range(1, N_POINTS))) for axis in "xyz")


def layout(closed: Array) -> Array:
    """Returns the nine points (..., 9, 3) [m] in the hand's frame for closed (...) bool."""
    closed = np.asarray(closed, dtype=bool)
    points = np.broadcast_to(np.concatenate([np.zeros((1, 3)), EXTRA]), (*closed.shape, N_POINTS, 3)).copy()
    for tip, side in zip(TIPS, (1.0, -1.0), strict=True):
        points[..., tip, 1] = side * np.where(closed, HALF_CLOSED, EXTRA[0, 1])
    return points - (0.0, 0.0, BEHIND)


def nine_points(world_from_hand: Array, closed: Array) -> Array:
    """Returns the nine points (..., 9, 3) [m] of hands at world_from_hand (..., 4, 4)."""
    rotation = np.swapaxes(world_from_hand[..., :3, :3], -1, -2)
    return layout(closed) @ rotation + world_from_hand[..., None, :3, 3]


def hand_of(points: Array) -> tuple[Array, Array]:
    """Returns (world_from_hand (..., 4, 4), closed (...) bool) of nine points (..., 9, 3), which need not fit exactly.

    Closed is what the tips' distance is nearer to; the pose is Kabsch's of the points as they are with such fingers.
    """
    apart = np.linalg.norm(points[..., TIPS[0], :] - points[..., TIPS[1], :], axis=-1)
    closed = apart < EXTRA[0, 1] + HALF_CLOSED
    return kabsch(layout(closed), points), closed


def object_points(cameras: Sequence[Camera], frames: Sequence[Array], seeds_px: Array) -> tuple[Array, Array]:
    """Returns (points (T, n, 3) [m], alive (T, n) bool) of things, clicked in the first frame of every view, then followed.

    frames: (T, H, W, 3) uint8 of each view; seeds_px (view, n, 2) [px]. Followed by optical flow; a point that a view loses is
    NaN and not alive from there on.
    """
    tracks, alive = zip(*(follow_points(view, seeds) for view, seeds in zip(frames, seeds_px, strict=True)), strict=True)
    ideal = np.stack([pinhole.undistort(camera, track) for camera, track in zip(cameras, tracks, strict=True)])
    seen = np.stack(alive)
    points = triangulate(cameras, ideal, seen)
    return points, np.isfinite(points).all(axis=-1)
