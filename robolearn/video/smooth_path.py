"""Smooths a recorded path of poses in both directions of time: no lag, and an end that moves is not pulled back.

At every instant a straight line in time is fitted to the neighbours with Gaussian weights (local linear regression: Cleveland,
"Robust Locally Weighted Regression", 1979), for rotations in the tangent space at their weighted mean (Markley et al.,
"Averaging Quaternions", 2007). Poses that are guesses, such as those across a gap, count less.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from robolearn import geometry
from robolearn.errors import BadInput

Array = np.ndarray
REACH = 3.0  # neighbours so many standard deviations away count
GUESS = 0.1  # the weight of a pose that was filled in


def smoothed(world_from_hand: Array, hz: float, sigma_s: float, weight: Array | None = None) -> Array:
    """Returns the path (T, 4, 4) smoothed by a Gaussian of `sigma_s` [s] in time; weight (T,): how much each pose counts."""
    poses = np.asarray(world_from_hand, dtype=float)
    if not hz > 0 or not sigma_s >= 0:
        raise BadInput(f"smoothing a path: want hz above 0 and sigma_s at least 0, got {hz:g} and {sigma_s:g}")
    sigma = sigma_s * hz  # [frames]
    if sigma == 0 or len(poses) < 2:
        return poses.copy()
    reach = max(1, int(np.ceil(REACH * sigma)))
    offset = np.arange(-reach, reach + 1)
    rows = np.arange(len(poses))[:, None] + offset  # (T, window)
    inside = (rows >= 0) & (rows < len(poses))
    rows = rows.clip(0, len(poses) - 1)
    counts = np.ones(len(poses)) if weight is None else np.asarray(weight, dtype=float)
    w = np.exp(-0.5 * (offset / sigma) ** 2) * inside * counts[rows]
    position = _line_at_zero(w, offset, poses[rows, :3, 3])
    mean = nearest_rotation(np.einsum("tw,twij->tij", w, poses[rows, :3, :3]))
    away = geometry.rotvec_from_matrix(np.swapaxes(mean, -1, -2)[:, None] @ poses[rows, :3, :3])
    turn = _line_at_zero(w, offset, away)
    return geometry.pose(position, mean @ geometry.matrix_from_rotvec(turn))


def resampled(world_from_hand: Array, t_s: Array, wanted_s: Array) -> Array:
    """Returns the path (n, 4, 4) at times `wanted_s` (n,), from poses (T, 4, 4) at `t_s` (T,), straight and slerp in between.

    Times outside the path give its ends.
    """
    t_s = np.asarray(t_s, dtype=float)
    at = np.clip(np.asarray(wanted_s, dtype=float), t_s[0], t_s[-1])
    if len(t_s) == 1:
        return np.repeat(np.asarray(world_from_hand, dtype=float), len(at), axis=0)
    position = np.stack([np.interp(at, t_s, world_from_hand[:, k, 3]) for k in range(3)], axis=-1)
    return geometry.pose(position, Slerp(t_s, Rotation.from_matrix(world_from_hand[:, :3, :3]))(at).as_matrix())


def nearest_rotation(matrix: Array) -> Array:
    """Returns the rotation (..., 3, 3) nearest to a matrix (..., 3, 3), determinant +1."""
    left, _, right = np.linalg.svd(matrix)
    sign = np.ones(matrix.shape[:-2] + (3,))
    sign[..., 2] = np.sign(np.linalg.det(left @ right))
    return (left * sign[..., None, :]) @ right


def _line_at_zero(w: Array, offset: Array, values: Array) -> Array:
    """Returns where (T, 3) the weighted straight line through values (T, window, 3) is at offset 0; w (T, window)."""
    s0, s1, s2 = w.sum(1), w @ offset, w @ offset**2
    y0, y1 = np.einsum("tw,twk->tk", w, values), np.einsum("tw,twk->tk", w * offset, values)
    spread = s0 * s2 - s1**2
    flat = spread < 1e-9 * np.maximum(s0 * s2, 1e-12)  # one neighbour only: no line, the mean
    line = (s2[:, None] * y0 - s1[:, None] * y1) / np.where(flat, 1.0, spread)[:, None]
    return np.where(flat[:, None], y0 / np.maximum(s0, 1e-12)[:, None], line)
