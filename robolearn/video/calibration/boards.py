"""Calibration boards: ChArUco and chessboard, where their corners lie, how they are found in a picture and drawn.

Board frame (OpenCV 4.6 and later): origin at the top left corner of the board, x right, y down, z away from who looks at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from robolearn.errors import BadInput, UnknownName

Kind = Literal["charuco", "chessboard"]
DICTIONARIES = tuple(sorted(name.removeprefix("DICT_") for name in dir(cv2.aruco) if name.startswith("DICT_")))
_WINDOW = 11  # [px] half side in which a chessboard's corner is refined (OpenCV's sample), less where corners lie closer
_LEAST = 4  # corners with which a picture of a ChArUco board counts as one


@dataclass(frozen=True)
class Board:
    """A printed board. size: (columns, rows), of squares for ChArUco and of inner corners for a chessboard, as OpenCV counts.

    square_m, marker_m: sides [m]; dictionary: of the markers, such as 4X4_50; legacy: the pattern of OpenCV before 4.6 and of
    calib.io, which differs where the number of rows is even.
    """

    kind: Kind = "charuco"
    size: tuple[int, int] = (7, 5)
    square_m: float = 0.03
    marker_m: float = 0.022
    dictionary: str = "4X4_50"
    legacy: bool = False

    def __post_init__(self) -> None:
        """Refuses a board that cannot be made; BadInput says why."""
        least = 3 if self.kind == "charuco" else 2
        if min(self.size) < least or not 0 < self.square_m < 10:
            raise BadInput(
                f"board: want at least {least} x {least} and squares of up to 10 m, got {self.size}, {self.square_m} m"
            )
        if self.kind == "chessboard":
            return
        if not 0 < self.marker_m < self.square_m:
            raise BadInput(f"board: want markers smaller than the squares of {self.square_m:g} m, got {self.marker_m:g} m")
        if self.dictionary not in DICTIONARIES:
            raise UnknownName("dictionary", self.dictionary, DICTIONARIES, where="board")
        held = dictionary(self.dictionary).bytesList.shape[0]
        if held < self.n_markers:
            raise BadInput(f"board: want a dictionary of {self.n_markers} markers, got {self.dictionary}, which has {held}")

    @property
    def n_markers(self) -> int:
        """How many markers a ChArUco board has: one in every white square."""
        return self.size[0] * self.size[1] // 2 if self.kind == "charuco" else 0

    @property
    def columns_rows(self) -> tuple[int, int]:
        """(columns, rows) of the inner corners, which is what is measured."""
        return (self.size[0] - 1, self.size[1] - 1) if self.kind == "charuco" else self.size

    @property
    def symmetric(self) -> bool:
        """True for a chessboard that looks the same upside down, so that its frame is not known."""
        return self.kind == "chessboard" and sum(self.size) % 2 == 0

    @property
    def corners(self) -> np.ndarray:
        """Corners (n, 3) [m] in the board's frame, row by row."""
        columns, rows = self.columns_rows
        grid = np.stack([*np.meshgrid(np.arange(columns), np.arange(rows)), np.zeros((rows, columns))], axis=-1)
        first = (1.0, 1.0, 0.0) if self.kind == "charuco" else (0.0, 0.0, 0.0)
        return (grid.reshape(-1, 3) + first) * self.square_m

    @property
    def neighbours(self) -> np.ndarray:
        """Pairs (m, 2) of ids of corners that lie one square apart."""
        columns, rows = self.columns_rows
        ids = np.arange(columns * rows).reshape(rows, columns)
        across = np.stack([ids[:, :-1], ids[:, 1:]], axis=-1).reshape(-1, 2)
        return np.concatenate([across, np.stack([ids[:-1], ids[1:]], axis=-1).reshape(-1, 2)])

    def needs_frame(self, what: str) -> None:
        """Raises BadInput where `what` needs to know which end of the board is up and this board does not say it."""
        if self.symmetric:
            raise BadInput(
                f"{what}: a chessboard of {self.size[0]} x {self.size[1]} inner corners looks the same upside down; "
                "want one with an even and an odd number, or a ChArUco board"
            )

    def __str__(self) -> str:
        """Returns the board in words."""
        columns, rows = self.size
        if self.kind == "chessboard":
            return f"chessboard {columns} x {rows} inner corners, squares {1000 * self.square_m:g} mm"
        old = ", legacy pattern" if self.legacy else ""
        sides = f"squares {1000 * self.square_m:g} mm, markers {1000 * self.marker_m:g} mm"
        return f"ChArUco {columns} x {rows} squares, {sides}, DICT_{self.dictionary}{old}"


@dataclass(frozen=True)
class Sighting:
    """What a picture shows of a board. ids: (n,) of the corners seen; pixels: (n, 2) [px]; name: of the picture."""

    ids: np.ndarray
    pixels: np.ndarray
    name: str = ""

    def __len__(self) -> int:
        """Returns how many corners were seen."""
        return len(self.ids)


def dictionary(name: str) -> Any:
    """Returns OpenCV's dictionary of markers by its name without DICT_."""
    return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, f"DICT_{name}"))


def detect(board: Board, image: np.ndarray, name: str = "", window_px: int = 0) -> Sighting:
    """Returns the board's corners in an image, grey or RGB uint8, to a part of a pixel; none where it is not there.

    window_px: half side in which a chessboard's corner is refined; 0: as large as the next corner allows, which fits better.
    """
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    found = _charuco(board, grey) if board.kind == "charuco" else _chessboard(board, grey, window_px)
    return Sighting(*found, name)


def opencv_board(board: Board) -> Any:
    """Returns the ChArUco board of OpenCV."""
    made = cv2.aruco.CharucoBoard(board.size, board.square_m, board.marker_m, dictionary(board.dictionary))
    made.setLegacyPattern(board.legacy)
    return made


def count_markers(board: Board, grey: np.ndarray) -> int:
    """Returns how many of a ChArUco board's markers a grey picture shows."""
    _, ids, _ = cv2.aruco.ArucoDetector(dictionary(board.dictionary)).detectMarkers(grey)
    return 0 if ids is None else int(np.sum(np.ravel(ids) < board.n_markers))


def _charuco(board: Board, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pixels, ids, _, _ = cv2.aruco.CharucoDetector(opencv_board(board)).detectBoard(grey)
    if ids is None or len(ids) < _LEAST:
        return np.zeros(0, int), np.zeros((0, 2))
    ids = np.ravel(ids).astype(int)
    # OpenCV's own window reaches into the markers: with it drawn corners were 0.20 px off, with one as wide as the gap 0.09.
    gap = (board.square_m - board.marker_m) / 2 / board.square_m
    half = int(np.clip(round(gap * _closest(board, ids, np.reshape(pixels, (-1, 2)))), 2, _WINDOW))
    return ids, _refined(grey, pixels, half)


def _chessboard(board: Board, grey: np.ndarray, window_px: int) -> tuple[np.ndarray, np.ndarray]:
    there, pixels = cv2.findChessboardCorners(grey, board.size, flags=cv2.CALIB_CB_ADAPTIVE_THRESH | cv2.CALIB_CB_NORMALIZE_IMAGE)
    if not there:
        return np.zeros(0, int), np.zeros((0, 2))
    ids = np.arange(len(pixels))
    half = window_px or int(np.clip(_closest(board, ids, np.reshape(pixels, (-1, 2))) / 2 - 1, 2, _WINDOW))
    return ids, _refined(grey, pixels, half)


def _closest(board: Board, ids: np.ndarray, pixels: np.ndarray) -> float:
    """Returns the least distance [px] of two neighbouring corners of those seen, 0 where there are none."""
    at = np.full((len(board.corners), 2), np.nan)
    at[ids] = pixels
    ends = at[board.neighbours]
    lengths = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=-1)
    return float(np.nanmin(lengths)) if np.isfinite(lengths).any() else 0.0


def _refined(grey: np.ndarray, pixels: np.ndarray, half: int) -> np.ndarray:
    until = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01)
    corners = np.asarray(pixels, np.float32).reshape(-1, 1, 2)
    return np.asarray(cv2.cornerSubPix(grey, corners, (half, half), (-1, -1), until), float).reshape(-1, 2)
