"""Where a fixed camera is, from one ArUco marker on the gripper at a measured place: no hand-eye equation (Point Policy).

The marker's centre is a known point of the robot's base frame at every pose of the gripper, and one pixel of the picture; many of
both are one perspective-n-point problem (arXiv 2502.20391: a 4X4_50 marker on a Franka's hand).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from robolearn import geometry
from robolearn.core import Camera
from robolearn.errors import BadInput
from robolearn.video.calibration.boards import dictionary
from robolearn.video.calibration.intrinsics import pixels_of, rms

_LEAST = 6
_FLAT = 0.02  # [m] standard deviation of the points across their flattest direction; less leaves the pose weak
_OUTLIER_PX = 8.0


@dataclass(frozen=True)
class MarkerPose:
    """Where the camera is. base_from_camera: (4, 4) [m]; rms_px: of the points used; errors_px: (n,) of all; used: (n,) bool."""

    base_from_camera: np.ndarray
    rms_px: float
    errors_px: np.ndarray
    used: np.ndarray
    warnings: tuple[str, ...] = ()


def marker_centre(image: np.ndarray, name: str, marker: int) -> np.ndarray:
    """Returns the centre (2,) [px] of one marker in an image, grey or RGB uint8: where its diagonals cross; NaN without it."""
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    settings = cv2.aruco.DetectorParameters()
    settings.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    quads, ids, _ = cv2.aruco.ArucoDetector(dictionary(name), settings).detectMarkers(grey)
    at = [] if ids is None else np.flatnonzero(np.ravel(ids) == marker)
    if len(at) != 1:
        return np.full(2, np.nan)
    corners = np.concatenate([np.reshape(quads[at[0]], (4, 2)), np.ones((4, 1))], axis=-1)
    first, second = np.cross(corners[0], corners[2]), np.cross(corners[1], corners[3])
    centre = np.cross(first, second)  # the mean of the corners is off where the marker is seen askew
    return np.asarray(centre[:2] / centre[2])


def solve(camera: Camera, base_from_gripper: np.ndarray, gripper_from_marker: np.ndarray, pixels: np.ndarray) -> MarkerPose:
    """Returns where the camera is, from poses (n, 4, 4) [m], the marker's centre (3,) [m] in the gripper and its pixels (n, 2).

    NaN pixels are poses without the marker. Points that fit nothing are left out; BadInput where too few remain.
    """
    seen = np.isfinite(pixels).all(-1)
    points = base_from_gripper[:, :3, :3] @ np.asarray(gripper_from_marker, float) + base_from_gripper[:, :3, 3]
    if seen.sum() < _LEAST:
        raise BadInput(f"marker: want it in at least {_LEAST} pictures, better 20, got {seen.sum()} of {len(seen)}")
    spread = np.linalg.svd(points[seen] - points[seen].mean(0), compute_uv=False) / np.sqrt(seen.sum())
    if spread[1] < _FLAT:
        raise BadInput(
            f"marker: want points that fill a volume, got a line of {1000 * spread[0]:.0f} x {1000 * spread[1]:.0f} mm; "
            "move the gripper to all sides, and up and down"
        )
    matrix, dist = np.array(camera.K), np.array(camera.dist)
    found, turn, shift, kept = cv2.solvePnPRansac(
        points[seen], pixels[seen], matrix, dist, reprojectionError=_OUTLIER_PX, iterationsCount=1000, confidence=0.9999,
        flags=cv2.SOLVEPNP_SQPNP,
    )  # fmt: skip
    used = np.zeros(len(seen), bool)
    if found:
        used[np.flatnonzero(seen)[np.ravel(kept)]] = True
    if used.sum() < max(_LEAST, seen.sum() / 2):
        raise BadInput(
            f"marker: {used.sum()} of {seen.sum()} pictures fit one place of the camera to {_OUTLIER_PX:g} px; are the poses "
            "those of the base, and is the marker's place in the gripper right?"
        )
    turn, shift = cv2.solvePnPRefineLM(points[used], pixels[used], matrix, dist, turn, shift)
    camera_from_base = geometry.pose(np.ravel(shift), cv2.Rodrigues(turn)[0])
    residuals = pixels_of(camera, camera_from_base, points) - pixels
    flat = f"the points lie in a slab of {1000 * spread[2]:.0f} mm; move the gripper up and down too"
    warnings = (flat,) if spread[2] < _FLAT else ()
    return MarkerPose(
        geometry.inverse(camera_from_base), rms(residuals[used]), np.linalg.norm(residuals, axis=-1), used, warnings
    )
