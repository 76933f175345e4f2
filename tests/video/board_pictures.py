"""Pictures of a board without a renderer: its plane seen through a known camera, drawn large and made small."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from robolearn import geometry
from robolearn.core import Camera
from robolearn.video.calibration.boards import Board
from robolearn.video.calibration.printing import PAPERS, picture, rectangles

SIZE = (640, 480)
LENS = Camera(SIZE, ((600.0, 0.0, 330.0), (0.0, 600.0, 235.0), (0.0, 0.0, 1.0)))
_FINE = 3  # a picture is drawn so many times as large
_DPI = 300


def shoot(board: Board, camera: Camera, camera_from_board: np.ndarray, paper: str = "a3") -> np.ndarray:
    """Returns the picture (height, width) uint8 of a printed board at a pose (4, 4) [m]; lens distortion is left out."""
    page = _page(board, paper)
    per_m = _DPI / 0.0254
    corner = rectangles(board, PAPERS[paper])[0]  # of the first square, where the board begins
    square = board.square_m if board.kind == "chessboard" else 0.0  # a chessboard's frame begins at the first inner corner
    board_from_page = np.array(
        [
            [1 / per_m, 0, 0.5 / per_m - corner.left / 1000 - square],
            [0, 1 / per_m, 0.5 / per_m - corner.top / 1000 - square],
            [0, 0, 1],
        ]
    )
    fine_from_pixel = np.array([[_FINE, 0, (_FINE - 1) / 2], [0, _FINE, (_FINE - 1) / 2], [0, 0, 1]])
    flat = fine_from_pixel @ np.array(camera.K) @ camera_from_board[:3][:, [0, 1, 3]] @ board_from_page
    large = (camera.size[0] * _FINE, camera.size[1] * _FINE)
    seen = cv2.warpPerspective(page, flat, large, flags=cv2.INTER_AREA, borderValue=120)
    return np.asarray(cv2.resize(seen, camera.size, interpolation=cv2.INTER_AREA))


@cache
def _page(board: Board, paper: str) -> np.ndarray:
    return picture(board, PAPERS[paper], _DPI)


def facing(board: Board, place: tuple[float, float, float], turn: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    """Returns camera_from_board (4, 4): the board's middle at a place [m] before the camera, turned by a vector [rad]."""
    middle = geometry.pose(-board.corners.mean(0), np.eye(3))
    return geometry.pose(place, geometry.matrix_from_rotvec(turn)) @ middle


def around(board: Board, rng: np.random.Generator, count: int, far_m: float = 0.5) -> np.ndarray:
    """Returns poses (count, 4, 4) as a person shows a board: over the whole picture, leaning to all sides."""
    places = rng.uniform(-1, 1, (count, 3)) * (0.17, 0.12, 0.08) + (0.0, 0.0, far_m)
    turns = rng.uniform(-0.55, 0.55, (count, 3))
    return np.stack([facing(board, tuple(place), tuple(turn)) for place, turn in zip(places, turns, strict=True)])
