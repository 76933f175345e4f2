"""Rotations and rigid transforms. Names read as sentences: `world_from_hand @ hand_from_tip` gives world_from_tip.

Quaternions say their order in the name (wxyz, xyzw). rot6d is the first two *rows* of a rotation matrix, flattened
(Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", 2019), as in robomimic and Diffusion
Policy. All functions take leading batch axes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

Array = np.ndarray


def quat_wxyz_from_matrix(matrix: Array) -> Array:
    """Returns the unit quaternion (..., 4) with w >= 0 of a rotation matrix (..., 3, 3)."""
    matrix = np.asarray(matrix)
    quat = Rotation.from_matrix(matrix.reshape(-1, 3, 3)).as_quat(canonical=True, scalar_first=True)
    return quat.reshape(matrix.shape[:-2] + (4,))


def matrix_from_quat_wxyz(quat_wxyz: Array) -> Array:
    """Returns the rotation matrix (..., 3, 3) of a quaternion (..., 4), which need not be of unit length."""
    quat_wxyz = np.asarray(quat_wxyz)
    matrix = Rotation.from_quat(quat_wxyz.reshape(-1, 4), scalar_first=True).as_matrix()
    return matrix.reshape(quat_wxyz.shape[:-1] + (3, 3))


def rot6d_from_matrix(matrix: Array) -> Array:
    """Returns the first two rows (..., 6) of a rotation matrix (..., 3, 3)."""
    matrix = np.asarray(matrix)
    return matrix[..., :2, :].reshape(matrix.shape[:-2] + (6,))


def matrix_from_rot6d(rot6d: Array) -> Array:
    """Returns the rotation matrix (..., 3, 3) nearest by Gram-Schmidt to rot6d (..., 6)."""
    rot6d = np.asarray(rot6d, dtype=float)
    a, b = rot6d[..., :3], rot6d[..., 3:]
    x = a / np.maximum(np.linalg.norm(a, axis=-1, keepdims=True), 1e-12)
    b = b - np.sum(x * b, axis=-1, keepdims=True) * x
    y = b / np.maximum(np.linalg.norm(b, axis=-1, keepdims=True), 1e-12)
    return np.stack([x, y, np.cross(x, y)], axis=-2)


def rotvec_from_matrix(matrix: Array) -> Array:
    """Returns the rotation vector (..., 3) [rad], angle in [0, pi], of a rotation matrix (..., 3, 3)."""
    matrix = np.asarray(matrix)
    return Rotation.from_matrix(matrix.reshape(-1, 3, 3)).as_rotvec().reshape(matrix.shape[:-2] + (3,))


def matrix_from_rotvec(rotvec: ArrayLike) -> Array:
    """Returns the rotation matrix (..., 3, 3) of a rotation vector (..., 3) [rad]."""
    rotvec = np.asarray(rotvec, dtype=float)
    return Rotation.from_rotvec(rotvec.reshape(-1, 3)).as_matrix().reshape(rotvec.shape[:-1] + (3, 3))


def pose(position: ArrayLike, matrix: ArrayLike) -> Array:
    """Returns the transform (..., 4, 4) from a position (..., 3) [m] and a rotation matrix (..., 3, 3)."""
    position, matrix = np.asarray(position, dtype=float), np.asarray(matrix, dtype=float)
    out = np.zeros(np.broadcast_shapes(position.shape[:-1], matrix.shape[:-2]) + (4, 4))
    out[..., :3, :3], out[..., :3, 3], out[..., 3, 3] = matrix, position, 1.0
    return out


def inverse(transform: Array) -> Array:
    """Returns b_from_a (..., 4, 4) of a rigid a_from_b (..., 4, 4)."""
    rotation = np.swapaxes(transform[..., :3, :3], -1, -2)
    return pose(-(rotation @ transform[..., :3, 3:])[..., 0], rotation)


def slerp(start: Array, end: Array, fraction: Array) -> Array:
    """Returns rotation matrices (n, 3, 3) on the shortest way from `start` to `end` (3, 3) at `fraction` (n,) in [0, 1]."""
    turn = rotvec_from_matrix(start.T @ end)
    return start @ matrix_from_rotvec(np.asarray(fraction, dtype=float)[:, None] * turn)


def angle_between(a: Array, b: Array) -> Array:
    """Returns the angle [rad] of the rotation between two rotation matrices (..., 3, 3)."""
    trace = np.einsum("...ij,...ij->...", a, b)
    return np.arccos(np.clip((trace - 1.0) / 2.0, -1.0, 1.0))


def yaw_of(matrix: Array) -> Array:
    """Returns the heading [rad] about the world's z axis of a rotation matrix (..., 3, 3)."""
    return np.arctan2(matrix[..., 1, 0], matrix[..., 0, 0])


def rotation_z(yaw: ArrayLike) -> Array:
    """Returns the rotation matrix (..., 3, 3) about z by `yaw` (...) [rad]."""
    yaw = np.asarray(yaw, dtype=float)
    return matrix_from_rotvec(np.stack([np.zeros_like(yaw), np.zeros_like(yaw), yaw], axis=-1))


def wrap(angle: ArrayLike) -> Array:
    """Returns `angle` [rad] in [-pi, pi)."""
    return (np.asarray(angle) + np.pi) % (2 * np.pi) - np.pi


def torso_frame(shoulder_right: ArrayLike, shoulder_left: ArrayLike, below: ArrayLike) -> Array:
    """Returns world_from_torso (4, 4) [m]: between the shoulders, x forward, y left, z up; NaN where the points give none.

    `below` is any point under the shoulders, such as the middle of the hips. ("MakeFrame" of SEW-Mimic, arXiv 2602.01632.)
    """
    right, left, below = (np.asarray(point, dtype=float) for point in (shoulder_right, shoulder_left, below))
    origin = (left + right) / 2
    y = _unit(left - right)
    x = _unit(np.cross(y, origin - below))
    return pose(origin, np.stack([x, y, np.cross(x, y)], axis=-1))


def hand_frame(wrist: ArrayLike, index: ArrayLike, pinky: ArrayLike) -> Array:
    """Returns world_from_hand (3, 3): x where the fingers point, z to the thumb's side; NaN where the points give none.

    y is the palm's normal on the right hand and the back's on the left, so that a mirrored body gives M H M, M = diag(1, -1, 1).
    """
    wrist, index, pinky = (np.asarray(point, dtype=float) for point in (wrist, index, pinky))
    x = _unit((index + pinky) / 2 - wrist)
    y = _unit(np.cross(index - pinky, x))
    return np.stack([x, y, np.cross(x, y)], axis=-1)


def _unit(vector: Array) -> Array:
    """Returns the vector (..., 3) at length 1, NaN where it is shorter than a nanometre."""
    length = np.linalg.norm(vector, axis=-1, keepdims=True)
    return np.where(length > 1e-9, vector / np.maximum(length, 1e-9), np.nan)
