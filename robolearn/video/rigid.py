"""The rigid motion that best takes one set of points to another."""

from __future__ import annotations

import numpy as np

from robolearn import geometry

Array = np.ndarray


def kabsch(source: Array, target: Array, weights: Array | None = None) -> Array:
    """Returns target_from_source (..., 4, 4) [m] of least squares for points (..., n, 3) [m]; its determinant is always +1.

    weights: (n,) >= 0. NaN where a point that weighs something is not finite. (Kabsch, 1976; the sign as in Umeyama, 1991.)
    """
    source, target = np.broadcast_arrays(np.asarray(source, dtype=float), np.asarray(target, dtype=float))
    share = np.ones(source.shape[-2]) if weights is None else np.asarray(weights, dtype=float)
    share = (share / share.sum())[:, None]
    used = (share > 0)[:, 0]
    known = np.isfinite(source[..., used, :]).all((-1, -2)) & np.isfinite(target[..., used, :]).all((-1, -2))
    keep = known[..., None, None] & used[:, None]
    source, target = np.where(keep, source, 0.0), np.where(keep, target, 0.0)
    source_mean, target_mean = (share * source).sum(-2, keepdims=True), (share * target).sum(-2, keepdims=True)
    covariance = np.swapaxes(share * (source - source_mean), -1, -2) @ (target - target_mean)
    u, _, vt = np.linalg.svd(covariance)
    v, ut = np.swapaxes(vt, -1, -2), np.swapaxes(u, -1, -2)
    v[..., :, 2] *= np.linalg.det(v @ ut)[..., None]  # a mirror image is no motion
    rotation = v @ ut
    position = (target_mean - source_mean @ np.swapaxes(rotation, -1, -2))[..., 0, :]
    return np.where(known[..., None, None], geometry.pose(position, rotation), np.nan)


def spread(points: Array) -> Array:
    """Returns the middle one (...) [m] of the three standard deviations of points (..., n, 3) along their own axes.

    It is 0 where the points lie on a line, which leaves the turn about that line open.
    """
    centred = points - points.mean(-2, keepdims=True)
    return np.linalg.svd(centred, compute_uv=False)[..., 1] / np.sqrt(points.shape[-2])
