"""How two fixed cameras stand to each other, from pictures of one board taken at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from robolearn import geometry
from robolearn.core import Camera
from robolearn.errors import BadInput
from robolearn.video import pinhole
from robolearn.video.calibration.boards import Board, Sighting
from robolearn.video.calibration.intrinsics import board_pose
from robolearn.video.triangulate import triangulate

_ODD_TURN, _ODD_SHARE = np.radians(12.0), 0.25  # [rad], and of the board's distance: no noise of corners does that
_LEAST_PAIRS, _LEAST_SHARED = 3, 6
# Lenses stay as they are; OpenCV drops coefficients beyond the fifth where it is not told that there are such.
_FLAGS = cv2.CALIB_FIX_INTRINSIC | cv2.CALIB_RATIONAL_MODEL | cv2.CALIB_THIN_PRISM_MODEL | cv2.CALIB_TILTED_MODEL
_SETTLED = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-7)


@dataclass(frozen=True)
class Pair:
    """Two pictures of one board at one time. ids: (n,) of the corners that both show; first, second: (n, 2) [px]."""

    name: str
    ids: np.ndarray
    first: np.ndarray
    second: np.ndarray


@dataclass(frozen=True)
class Stereo:
    """How a camera stands to the first one. second_from_first: (4, 4) [m]; rms_px: of all corners in both pictures.

    pair_rms_px: (pair,); square: (mean, standard deviation) of the triangulated distance of neighbours in squares, truly 1;
    pairs: names of the pictures.
    """

    second_from_first: np.ndarray
    rms_px: float
    pair_rms_px: np.ndarray
    square: tuple[float, float]
    pairs: tuple[str, ...]

    @property
    def baseline_m(self) -> float:
        """Distance of the two cameras [m]."""
        return float(np.linalg.norm(self.second_from_first[:3, 3]))


def pair_up(first: Mapping[str, Sighting], second: Mapping[str, Sighting]) -> list[Pair]:
    """Returns the pairs that show enough of the board in both views; both are by what pictures of one time have in common."""
    pairs = []
    for name in sorted(first.keys() & second.keys()):
        ids, here, there = np.intersect1d(first[name].ids, second[name].ids, return_indices=True)
        if len(ids) >= _LEAST_SHARED:
            pairs.append(Pair(name, ids, first[name].pixels[here], second[name].pixels[there]))
    return pairs


def calibrate(board: Board, first: Camera, second: Camera, pairs: Sequence[Pair]) -> Stereo:
    """Returns how the second camera stands to the first; both lenses are kept as they are."""
    board.needs_frame("stereo")
    if len(pairs) < _LEAST_PAIRS:
        raise BadInput(
            f"stereo: want at least {_LEAST_PAIRS} pictures of the same time with {_LEAST_SHARED} corners of the board in both "
            f"views, got {len(pairs)}; pictures belong together by the last number in their names"
        )
    odd = _odd(board, first, second, pairs)
    if odd:
        named = ", ".join(odd[:8]) + (", ..." if len(odd) > 8 else "")
        raise BadInput(
            f"stereo: pictures {named} do not show the board at one time, as the other {len(pairs) - len(odd)} pairs do; "
            "leave them out, or give pictures of one camera alone numbers of their own"
        )
    objects = [board.corners[pair.ids].astype(np.float32) for pair in pairs]
    ones, others = [pair.first.astype(np.float32) for pair in pairs], [pair.second.astype(np.float32) for pair in pairs]
    lenses = [value for camera in (first, second) for value in (np.array(camera.K), np.pad(camera.dist, (0, 14))[:14])]
    start = cv2.stereoCalibrateExtended(  # type: ignore[call-overload]
        objects, ones, others, *lenses, first.size, np.eye(3), np.zeros(3), flags=_FLAGS, criteria=_SETTLED
    )
    rms, turn, shift, by_pair = float(start[0]), np.asarray(start[5]), np.ravel(start[6]), np.asarray(start[-1])
    second_from_first = geometry.pose(shift, turn)
    square = squares(board, first, second, second_from_first, pairs)
    per_pair = np.sqrt(np.mean(by_pair.reshape(len(pairs), -1) ** 2, axis=-1))
    return Stereo(second_from_first, rms, per_pair, square, tuple(pair.name for pair in pairs))


def _odd(board: Board, first: Camera, second: Camera, pairs: Sequence[Pair]) -> list[str]:
    """Returns the names of pairs by which the cameras stand quite otherwise to each other than by the largest group of pairs."""
    here = np.stack([board_pose(first, board, Sighting(pair.ids, pair.first))[0] for pair in pairs])
    there = np.stack([board_pose(second, board, Sighting(pair.ids, pair.second))[0] for pair in pairs])
    places = there @ geometry.inverse(here)
    turned = geometry.angle_between(places[:, None, :3, :3], places[None, :, :3, :3])
    apart = np.linalg.norm(places[:, None, :3, 3] - places[None, :, :3, 3], axis=-1)
    far = float(np.median(np.linalg.norm(here[:, :3, 3], axis=-1)))
    alike = (turned < _ODD_TURN) & (apart < _ODD_SHARE * far)
    group = alike[int(np.argmax(alike.sum(-1)))]
    return [pair.name for pair, is_in in zip(pairs, group, strict=True) if not is_in]


def squares(
    board: Board, first: Camera, second: Camera, second_from_first: np.ndarray, pairs: Sequence[Pair]
) -> tuple[float, float]:
    """Returns mean and standard deviation of the triangulated distances of neighbouring corners, in squares."""
    cameras = in_first(first, second, second_from_first)
    lengths = []
    for pair in pairs:
        points = np.full((len(board.corners), 3), np.nan)
        views = np.stack([pinhole.undistort(cameras[0], pair.first), pinhole.undistort(cameras[1], pair.second)])
        points[pair.ids] = triangulate(cameras, views)
        ends = points[board.neighbours]
        lengths.append(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=-1))
    found = np.concatenate(lengths) / board.square_m
    found = found[np.isfinite(found)]
    return (float(found.mean()), float(found.std())) if len(found) else (float("nan"), float("nan"))


def epipolar_px(first: Camera, second: Camera, second_from_first: np.ndarray, pair: Pair) -> np.ndarray:
    """Returns how far (n,) [px] corners of the second picture lie from the lines that the first one says they lie on."""
    here, there = pinhole.undistort(first, pair.first), pinhole.undistort(second, pair.second)
    lines = np.concatenate([here, np.ones((len(here), 1))], -1) @ fundamental(first, second, second_from_first).T
    return np.abs(np.sum(lines[:, :2] * there, -1) + lines[:, 2]) / np.linalg.norm(lines[:, :2], axis=-1)


def fundamental(first: Camera, second: Camera, second_from_first: np.ndarray) -> np.ndarray:
    """Returns F (3, 3): F (u, v, 1) of the first picture is the line in the second on which its point lies, both undistorted."""
    x, y, z = second_from_first[:3, 3]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    lens = np.linalg.inv(np.array(first.K))
    return np.linalg.inv(np.array(second.K)).T @ cross @ second_from_first[:3, :3] @ lens


def in_first(first: Camera, second: Camera, second_from_first: np.ndarray) -> tuple[Camera, Camera]:
    """Returns both cameras with the first one's frame as the world."""
    return placed(first, np.eye(4)), placed(second, geometry.inverse(second_from_first))


def placed(camera: Camera, world_from_camera: np.ndarray) -> Camera:
    """Returns the camera at another place."""
    return replace(camera, world_from_camera=tuple(tuple(row) for row in np.asarray(world_from_camera, float).tolist()))
