"""A printed ChArUco board as MuJoCo draws it: a thin box with the board's picture on it, in the board's own frame."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from robolearn.errors import BadInput
from robolearn.video.calibration.boards import Board, opencv_board

PICTURE = "board.png"
_PX_PER_M = 4000
_THICK = 0.002  # [m]
_FACES = "0 3 1  0 2 3  4 5 7  4 7 6  0 1 5  0 5 4  2 7 3  2 6 7  0 4 6  0 6 2  1 3 7  1 7 5"


@dataclass(frozen=True)
class BoardMesh:
    """asset, body: MJCF of a mocap body `board`, whose frame is the board's; files: what the MJCF names, by name."""

    asset: str
    body: str
    files: dict[str, bytes]


def board_mesh(board: Board) -> BoardMesh:
    """Returns a board with a white margin of half a square; BadInput for a chessboard, which is not drawn here."""
    if board.kind != "charuco":
        raise BadInput(f"board mesh: want a ChArUco board, got a {board}")
    margin = board.square_m / 2
    inside = (board.size[0] * board.square_m, board.size[1] * board.square_m)
    picture = opencv_board(board).generateImage([round(side * _PX_PER_M) for side in inside], marginSize=0, borderBits=1)
    border = round(margin * _PX_PER_M)
    picture = cv2.copyMakeBorder(picture, border, border, border, border, cv2.BORDER_CONSTANT, value=255)
    encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB))[1].tobytes()
    low, high = (-margin, -margin), (inside[0] + margin, inside[1] + margin)
    corners = [(x, y, z) for z in (0.0, _THICK) for y in (low[1], high[1]) for x in (low[0], high[0])]
    across = [((x - low[0]) / (high[0] - low[0]), (y - low[1]) / (high[1] - low[1])) for x, y, _ in corners]
    asset = (
        f'<texture name="board" type="2d" file="{PICTURE}"/>'
        '<material name="board" texture="board" specular="0" shininess="0"/>'
        f'<mesh name="board" vertex="{words(np.ravel(corners))}" texcoord="{words(np.ravel(across))}" face="{_FACES}"/>'
    )
    geom = '<geom type="mesh" mesh="board" material="board" contype="0" conaffinity="0"/>'
    return BoardMesh(asset, f'<body name="board" mocap="true">{geom}</body>', {PICTURE: encoded})


def words(numbers: object) -> str:
    """Returns numbers as MJCF writes them."""
    return " ".join(f"{number:.9g}" for number in np.asarray(numbers))
