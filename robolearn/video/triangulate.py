"""Points in space from pixels in two or more calibrated views (DLT: Hartley and Zisserman, 2nd ed., section 12.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robolearn.core import Camera
from robolearn.errors import BadInput
from robolearn.video import pinhole

Array = np.ndarray
MIN_BASELINE = 1e-3  # [m] between two camera centres; nearer ones see no depth


def triangulate(cameras: Sequence[Camera], pixels: Array, valid: Array | None = None) -> Array:
    """Returns world points (..., 3) [m] from undistorted pixels (view, ..., 2); NaN where fewer than two views are valid.

    valid: (view, ...) bool; a pixel that is not finite is invalid in any case.
    """
    pixels = np.asarray(pixels, dtype=float)
    seen = np.isfinite(pixels).all(-1) & (True if valid is None else np.asarray(valid, dtype=bool))
    rows = []
    for camera, view_pixels, view_seen in zip(cameras, np.where(seen[..., None], pixels, 0.0), seen, strict=True):
        matrix = pinhole.projection_matrix(camera)
        equations = view_pixels[..., None] * matrix[2] - matrix[:2]  # (..., 2, 4), zero at the point
        rows.append(np.where(view_seen[..., None, None], equations, 0.0))
    homogeneous = np.linalg.svd(np.concatenate(rows, axis=-2))[2][..., -1, :]
    scale = homogeneous[..., 3:]
    enough = (seen.sum(0) >= 2)[..., None] & (np.abs(scale) > 1e-12)
    return homogeneous[..., :3] / np.where(enough, scale, np.nan)


def reprojection_errors(cameras: Sequence[Camera], points: Array, pixels: Array) -> Array:
    """Returns how far (view, ...) [px] world points (..., 3) [m] project from the pixels (view, ..., 2) they came from."""
    back = np.stack([pinhole.project(camera, points) for camera in cameras])
    return np.linalg.norm(back - pixels, axis=-1)


def require_baseline(cameras: Sequence[Camera]) -> None:
    """Refuses fewer than two cameras, and cameras that all stand in one place."""
    if len(cameras) < 2:
        raise BadInput(f"triangulate: want two calibrated views or more, got {len(cameras)}; one view gives no depth")
    centres = np.array([pinhole.centre(camera) for camera in cameras])
    apart = np.linalg.norm(centres - centres[0], axis=-1).max()
    if apart < MIN_BASELINE:
        raise BadInput(
            f"triangulate: want cameras at least {1e3 * MIN_BASELINE:g} mm apart, got {1e3 * apart:.3g} mm; "
            "is one calibration given twice?"
        )
