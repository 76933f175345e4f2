"""A lens from pictures of a board: focal lengths, principal point and distortion, and how well they are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from robolearn.core import Camera
from robolearn.errors import BadInput
from robolearn.geometry import pose
from robolearn.video.calibration.boards import Board, Sighting

Model = Literal["none", "standard", "rational"]
GOOD_RMS_PX = 0.5  # of real pictures; of drawn ones 0.15
_NO_DISTORTION = cv2.CALIB_ZERO_TANGENT_DIST | cv2.CALIB_FIX_K1 | cv2.CALIB_FIX_K2 | cv2.CALIB_FIX_K3
_FLAGS = {"none": _NO_DISTORTION, "standard": 0, "rational": cv2.CALIB_RATIONAL_MODEL}
_LEAST_VIEWS, _LEAST_CORNERS = 3, 6
_FOCAL_SHARE = 0.05  # of the focal length that its standard deviation may be


@dataclass(frozen=True)
class Lens:
    """A camera without its place. rms_px: of all corners; view_rms_px: (n,) by picture; focal_sigma_px: standard deviation of fx.

    camera_from_board: (n, 4, 4) [m]; sightings: the n pictures that were used.
    """

    camera: Camera
    rms_px: float
    view_rms_px: np.ndarray
    focal_sigma_px: float
    camera_from_board: np.ndarray
    sightings: tuple[Sighting, ...]


def calibrate(board: Board, sightings: Sequence[Sighting], size: tuple[int, int], model: Model = "standard") -> Lens:
    """Returns the lens that explains where the board's corners were seen (Zhang 2000, by OpenCV).

    size: (width, height) [px]; model: no distortion, k1 k2 p1 p2 k3, or eight coefficients for wide lenses. BadInput where the
    pictures cannot tell a lens: fewer than three, or all of a board that faces the camera.
    """
    used = tuple(seen for seen in sightings if len(seen) >= _LEAST_CORNERS)
    if len(used) < _LEAST_VIEWS:
        raise BadInput(
            f"calibration: want at least {_LEAST_VIEWS} pictures with {_LEAST_CORNERS} corners of {board}, got {len(used)} "
            f"of {len(sightings)}; is the board the one that was printed?"
        )
    objects = [board.corners[seen.ids].astype(np.float32) for seen in used]
    images = [seen.pixels.astype(np.float32) for seen in used]
    found = cv2.calibrateCameraExtended(objects, images, size, None, None, flags=_FLAGS[model])  # type: ignore[call-overload]
    rms, matrix, dist, turns, shifts, sigma, _, by_view = found
    focal, unsure = float(matrix[0, 0]), float(np.ravel(sigma)[0])
    if not np.isfinite(rms) or not unsure <= _FOCAL_SHARE * focal:
        raise BadInput(
            f"calibration: {len(used)} pictures leave the focal length open ({focal:.0f} px +- {unsure:.0f}); "
            "tilt the board by 20 to 40 degrees to all four sides"
        )
    poses = pose(np.reshape(shifts, (-1, 3)), np.stack([cv2.Rodrigues(turn)[0] for turn in turns]))
    camera = Camera(size, _rows(matrix), () if model == "none" else tuple(np.ravel(dist).tolist()))
    return Lens(camera, float(rms), np.ravel(by_view), unsure, poses, used)


def board_pose(camera: Camera, board: Board, seen: Sighting) -> tuple[np.ndarray, float]:
    """Returns camera_from_board (4, 4) [m] of one picture, and the RMS of its residuals [px]; NaN where it shows too little."""
    if len(seen) < _LEAST_CORNERS:
        return np.full((4, 4), np.nan), float("nan")
    points, matrix, dist = board.corners[seen.ids], np.array(camera.K), np.array(camera.dist)
    there, turn, shift = cv2.solvePnP(points, seen.pixels, matrix, dist, flags=cv2.SOLVEPNP_IPPE)
    if not there:
        return np.full((4, 4), np.nan), float("nan")
    turn, shift = cv2.solvePnPRefineLM(points, seen.pixels, matrix, dist, turn, shift)
    camera_from_board = pose(np.ravel(shift), cv2.Rodrigues(turn)[0])
    return camera_from_board, rms(pixels_of(camera, camera_from_board, points) - seen.pixels)


def pixels_of(camera: Camera, camera_from_object: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Returns where points (n, 3) [m] of an object appear, (n, 2) [px], distortion included."""
    turn, shift = cv2.Rodrigues(camera_from_object[:3, :3])[0], camera_from_object[:3, 3]
    pixels, _ = cv2.projectPoints(points, turn, shift, np.array(camera.K), np.array(camera.dist))
    return np.asarray(pixels).reshape(-1, 2)


def rms(errors: np.ndarray) -> float:
    """Returns the root mean square length of errors (n, 2) [px], NaN of none."""
    return float(np.sqrt(np.mean(np.sum(errors**2, axis=-1)))) if len(errors) else float("nan")


def tilts(camera_from_board: np.ndarray) -> np.ndarray:
    """Returns how the board (..., 4, 4) leans, (..., 2) [rad]: its right side away from the camera, its lower side away."""
    return np.stack([np.arcsin(np.clip(camera_from_board[..., 2, k], -1, 1)) for k in (0, 1)], axis=-1)


def _rows(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in np.asarray(matrix, float).tolist())
