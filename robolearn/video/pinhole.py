"""The pinhole camera: world points to pixels and the smaller picture's camera. An integer pixel is a pixel's centre."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from robolearn import geometry
from robolearn.core import Camera
from robolearn.errors import BadInput

Array = np.ndarray
_SETTLED = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-10)  # rounds, and px that the last one may move


def camera_from_world(camera: Camera) -> Array:
    """Returns camera_from_world (4, 4) [m]."""
    if not camera.world_from_camera:
        raise BadInput(f"camera: want a pose (world_from_camera), got none for a picture of {camera.size}; calibrate it first")
    return geometry.inverse(np.asarray(camera.world_from_camera, dtype=float))


def centre(camera: Camera) -> Array:
    """Returns where the camera's centre is in the world (3,) [m]."""
    return geometry.inverse(camera_from_world(camera))[:3, 3]


def projection_matrix(camera: Camera) -> Array:
    """Returns K [R t] (3, 4), which takes a world point (x, y, z, 1) [m] to depth * (u, v, 1) [px, m]."""
    return np.asarray(camera.K, dtype=float) @ camera_from_world(camera)[:3]


def depth(camera: Camera, points: Array) -> Array:
    """Returns how far (...) [m] world points (..., 3) [m] lie along the camera's axis; negative behind it."""
    row = camera_from_world(camera)[2]
    return np.asarray(points, dtype=float) @ row[:3] + row[3]


def project(camera: Camera, points: Array) -> Array:
    """Returns the pixels (..., 2) of world points (..., 3) [m], lens distortion left out; NaN behind the camera."""
    matrix = projection_matrix(camera)
    homogeneous = np.asarray(points, dtype=float) @ matrix[:, :3].T + matrix[:, 3]
    far = homogeneous[..., 2:]
    return homogeneous[..., :2] / np.where(far > 0, far, np.nan)


def undistort(camera: Camera, pixels: Array) -> Array:
    """Returns the pixels (..., 2) that the same camera without lens distortion would show."""
    pixels = np.asarray(pixels, dtype=float)
    if not any(camera.dist) or pixels.size == 0:
        return pixels.copy()
    matrix, dist = np.asarray(camera.K, dtype=float), np.asarray(camera.dist, dtype=float)
    ideal = cv2.undistortPointsIter(pixels.reshape(-1, 1, 2), matrix, dist, np.eye(3), matrix, _SETTLED)
    return np.asarray(ideal).reshape(pixels.shape)


def resized(camera: Camera, size: tuple[int, int]) -> Camera:
    """Returns the camera of the whole picture scaled to `size` (width, height) [px]; the two scales may differ."""
    (fx, skew, cx), (_, fy, cy), _ = camera.K
    sx, sy = size[0] / camera.size[0], size[1] / camera.size[1]
    matrix = (
        (fx * sx, skew * sx, (cx + 0.5) * sx - 0.5),
        (0.0, fy * sy, (cy + 0.5) * sy - 0.5),
        (0.0, 0.0, 1.0),
    )
    return replace(camera, size=(int(size[0]), int(size[1])), K=matrix)


def resized_pixels(pixels: Array, size: tuple[int, int], new_size: tuple[int, int]) -> Array:
    """Returns where pixels (..., 2) of a picture of `size` lie after scaling it to `new_size`, both (width, height)."""
    scale = np.asarray(new_size, dtype=float) / np.asarray(size, dtype=float)
    return (np.asarray(pixels, dtype=float) + 0.5) * scale - 0.5
