"""Boards: what is printed is what is found, at its true size, in OpenCV's old pattern and its new one."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from board_pictures import LENS, facing, shoot

from robolearn.errors import AlreadyExists, BadInput, UnknownName
from robolearn.video.calibration import printing
from robolearn.video.calibration.boards import Board, Sighting, detect
from robolearn.video.calibration.coverage import Coverage, still
from robolearn.video.calibration.intrinsics import pixels_of

CHARUCO = Board()
CHESS = Board("chessboard", (9, 6), 0.025)
A4 = printing.PAPERS["a4"]


@pytest.mark.parametrize(
    "board", [CHARUCO, CHESS, Board(size=(5, 7), square_m=0.02, marker_m=0.014, dictionary="6X6_250")], ids=str
)
def test_a_board_in_a_picture_is_found_to_a_tenth_of_a_pixel(board: Board) -> None:
    camera_from_board = facing(board, (0.02, -0.01, 0.45), (0.3, -0.4, 0.2))
    seen = detect(board, shoot(board, LENS, camera_from_board))
    off = np.linalg.norm(seen.pixels - pixels_of(LENS, camera_from_board, board.corners[seen.ids]), axis=-1)
    assert len(seen) == len(board.corners)
    assert np.median(off) < 0.1 and off.max() < 0.4


def test_the_old_pattern_is_another_board_where_rows_are_even() -> None:
    """OpenCV 4.6 changed boards with an even row count (opencv #23152); calib.io still prints the old one."""
    new, old = Board(size=(7, 4)), Board(size=(7, 4), legacy=True)
    page = printing.picture(old, A4, 100)
    assert len(detect(old, page)) == 18 and len(detect(new, page)) == 0
    odd = printing.picture(Board(size=(7, 5)), A4, 100)
    assert len(detect(Board(size=(7, 5), legacy=True), odd)) == 24


def test_a_page_without_the_board_shows_nothing() -> None:
    assert len(detect(CHARUCO, np.full((480, 640, 3), 200, np.uint8))) == 0
    assert len(detect(CHESS, np.full((480, 640), 200, np.uint8))) == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": (2, 5)}, "want at least 3 x 3"),
        ({"marker_m": 0.03}, "want markers smaller than the squares of 0.03 m, got 0.03 m"),
        ({"size": (11, 11)}, "want a dictionary of 60 markers, got 4X4_50, which has 50"),
    ],
)
def test_a_board_that_cannot_be_made_says_why(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Board(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="did you mean '4X4_50'"):
        Board(dictionary="4x4_50")


def test_the_pdf_has_its_true_size_and_prints_what_is_found(tmp_path: Path) -> None:
    """The page is drawn again from the PDF's own numbers: 72 points an inch, from the bottom left."""
    printing.write_pdf(tmp_path / "board.pdf", CHARUCO, A4)
    text = (tmp_path / "board.pdf").read_bytes().decode("latin-1")
    box = [float(number) for number in re.findall(r"/MediaBox \[([^\]]+)\]", text)[0].split()]
    assert np.allclose(box, [0, 0, 297 / 25.4 * 72, 210 / 25.4 * 72], atol=1e-3)
    scale = 200 / 72  # 200 pixels an inch
    page = np.full((round(box[3] * scale), round(box[2] * scale)), 255, np.uint8)
    for numbers in re.findall(r"^([\d.]+) ([\d.]+) ([\d.]+) ([\d.]+) re$", text, re.MULTILINE):
        left, bottom, width, height = (float(number) * scale for number in numbers)
        page[round(page.shape[0] - bottom - height) : round(page.shape[0] - bottom), round(left) : round(left + width)] = 0
    seen = detect(CHARUCO, page)
    assert len(seen) == 24
    across = np.linalg.norm(seen.pixels[5] - seen.pixels[0]) / scale / 72 * 25.4
    assert across == pytest.approx(5 * 30, abs=0.1)  # [mm]
    assert "ChArUco 7 x 5 squares" in text and text.endswith("%%EOF\n")
    table = int(re.findall(r"startxref\n(\d+)", text)[0])
    assert text[table : table + 4] == "xref"
    first = int(re.findall(r"^(\d{10}) 00000 n", text, re.MULTILINE)[0])
    assert text[first:].startswith("1 0 obj")


def test_the_png_says_its_resolution(tmp_path: Path) -> None:
    path = tmp_path / "board.png"
    printing.write_png(path, CHARUCO, A4, 150)
    raw = path.read_bytes()
    at = raw.index(b"pHYs")
    across, down, unit = struct.unpack(">IIB", raw[at + 4 : at + 13])
    assert (across, down, unit) == (5906, 5906, 1)  # dots a metre
    assert len(detect(CHARUCO, cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))) == 24
    with pytest.raises(AlreadyExists):
        printing.write_png(path, CHARUCO, A4, 150)
    with pytest.raises(BadInput, match=r"280 x 200 mm do not fit on paper of 297 x 210 mm"):
        printing.write_pdf(tmp_path / "large.pdf", Board(square_m=0.04, marker_m=0.03), A4)


def test_coverage_asks_for_what_is_missing_and_is_content_in_the_end() -> None:
    coverage = Coverage(CHARUCO, LENS.size)
    wished = coverage.missing()
    assert (
        "lean the board: right side away" in wished and "corners at the top far left" in wished and "12 more pictures" in wished
    )
    flat = _seen(facing(CHARUCO, (0.0, 0.0, 0.5)))
    coverage.add(flat)
    assert not coverage.is_new(flat) and coverage.is_new(_seen(facing(CHARUCO, (0.1, 0.0, 0.5))))
    assert "lean the board: right side away" in coverage.missing()
    for turn in ((0.0, 0.5, 0.0), (0.0, -0.5, 0.0), (0.5, 0.0, 0.0), (-0.5, 0.0, 0.0)):
        for x in (-0.16, 0.16):
            for y in (-0.1, 0.1):
                coverage.add(_seen(facing(CHARUCO, (x, y, 0.45), turn)))
    coverage.add(_seen(facing(CHARUCO, (0.0, 0.0, 0.24))))
    assert coverage.missing() == []
    assert coverage.drawn() == ["■ ■ ■ ■"] * 3


def test_a_board_whose_right_side_is_far_leans_that_way() -> None:
    coverage = Coverage(CHARUCO, LENS.size)
    camera_from_board = facing(CHARUCO, (0.0, 0.0, 0.5), (0.0, -0.5, 0.0))
    points = camera_from_board[:3, :3] @ CHARUCO.corners.T
    assert points[2, 5] > points[2, 0]  # the last corner of a row is farther than the first
    coverage.add(_seen(camera_from_board))
    assert coverage.leans.tolist() == [1, 0, 0, 0]


def test_a_board_that_moves_is_not_still() -> None:
    seen = _seen(facing(CHARUCO, (0.0, 0.0, 0.5)))
    moved = Sighting(seen.ids, seen.pixels + 2.0)
    assert still(seen, Sighting(seen.ids, seen.pixels + 0.2)) and not still(seen, moved)
    assert not still(Sighting(seen.ids[:3], seen.pixels[:3]), seen)


def _seen(camera_from_board: np.ndarray) -> Sighting:
    """Returns what an exact detector would see."""
    pixels = pixels_of(LENS, camera_from_board, CHARUCO.corners)
    inside = ((pixels > 0) & (pixels < np.array(LENS.size) - 1)).all(-1)
    return Sighting(np.flatnonzero(inside), pixels[inside])
