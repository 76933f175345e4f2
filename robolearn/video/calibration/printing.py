"""A board on paper at its true size: PDF of black rectangles, or PNG that says its resolution. Neither needs a library.

A ruler of 100 mm is printed beside the board: what it measures on paper is the scale of the print.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from robolearn.errors import AlreadyExists, BadInput
from robolearn.video.calibration.boards import Board, opencv_board

PAPERS = {"a4": (297.0, 210.0), "a3": (420.0, 297.0), "a2": (594.0, 420.0), "letter": (279.4, 215.9)}  # landscape [mm]
_POINTS = 72 / 25.4  # of PDF, per mm
_RULER_MM = 100.0
_FOOT_MM = 14.0  # below the board, for ruler and words
_EDGE_MM = 5.0  # that printers leave white


@dataclass(frozen=True)
class Rectangle:
    """A black rectangle on paper [mm]: left, top, width, height from the page's top left corner."""

    left: float
    top: float
    width: float
    height: float


def rectangles(board: Board, paper: tuple[float, float]) -> list[Rectangle]:
    """Returns the board's black parts in the middle of a page (width, height) [mm]; BadInput where it does not fit."""
    square = 1000 * board.square_m
    columns, rows = board.size if board.kind == "charuco" else (board.size[0] + 1, board.size[1] + 1)
    wide, high = columns * square, rows * square
    if wide > paper[0] - 2 * _EDGE_MM or high > paper[1] - 2 * _EDGE_MM - _FOOT_MM:
        raise BadInput(
            f"board: {wide:.0f} x {high:.0f} mm do not fit on paper of {paper[0]:.0f} x {paper[1]:.0f} mm with its edges; want a "
            f"smaller --square-mm or a larger --paper ({', '.join(PAPERS)})"
        )
    left, top = (paper[0] - wide) / 2, (paper[1] - _FOOT_MM - high) / 2
    return [Rectangle(left + x, top + y, w, h) for x, y, w, h in _parts(board, columns, rows)]


def write_pdf(path: Path, board: Board, paper: tuple[float, float], overwrite: bool = False) -> None:
    """Writes one page (width, height) [mm] with the board, a ruler and the board in words."""
    _free(path, overwrite)
    high = paper[1]
    marks = [*rectangles(board, paper), *_ruler(paper)]
    drawn = [
        f"{part.left * _POINTS:.4f} {(high - part.top - part.height) * _POINTS:.4f} "
        f"{part.width * _POINTS:.4f} {part.height * _POINTS:.4f} re"
        for part in marks
    ]
    said = f"{board}  -  the ruler is {_RULER_MM:g} mm: print at 100 %, then measure".replace("(", "\\(").replace(")", "\\)")
    at = f"{4 * _EDGE_MM * _POINTS:.2f} {(_EDGE_MM + 1) * _POINTS:.2f}"
    content = "0 g\n" + "\n".join(drawn) + f"\nf\nBT /F1 8 Tf {at} Td ({said}) Tj ET\n"
    box = f"[0 0 {paper[0] * _POINTS:.4f} {high * _POINTS:.4f}]"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox {box} /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        f"<< /Length {len(content)} >>\nstream\n{content}endstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    path.write_bytes(_pdf(objects))


def write_png(path: Path, board: Board, paper: tuple[float, float], dpi: int, overwrite: bool = False) -> None:
    """Writes the same page as a picture, grey, with its resolution in it."""
    _free(path, overwrite)
    path.write_bytes(_with_resolution(bytes(cv2.imencode(".png", picture(board, paper, dpi))[1]), dpi))


def picture(board: Board, paper: tuple[float, float], dpi: int) -> np.ndarray:
    """Returns the page (height, width) uint8."""
    per_mm = dpi / 25.4
    page = np.full((round(paper[1] * per_mm), round(paper[0] * per_mm)), 255, np.uint8)
    for part in [*rectangles(board, paper), *_ruler(paper)]:
        x0, x1 = (round(x * per_mm) for x in (part.left, part.left + part.width))
        y0, y1 = (round(y * per_mm) for y in (part.top, part.top + part.height))
        page[y0:y1, x0:x1] = 0
    place = (round(4 * _EDGE_MM * per_mm), page.shape[0] - round((_EDGE_MM + 1) * per_mm))
    words = f"{board}  -  the ruler is {_RULER_MM:g} mm: print at 100 %, then measure"
    cv2.putText(page, words, place, cv2.FONT_HERSHEY_SIMPLEX, dpi / 300, 0, max(1, dpi // 150), cv2.LINE_AA)
    return page


def _parts(board: Board, columns: int, rows: int) -> Iterator[tuple[float, float, float, float]]:
    """Yields (left, top, width, height) [mm] of what is black, from the board's top left corner."""
    square = 1000 * board.square_m
    if board.kind == "chessboard":
        for row in range(rows):
            for column in range(row % 2, columns, 2):
                yield column * square, row * square, square, square
        return
    made, bits = opencv_board(board), board_bits(board)
    whites = {tuple(np.round(np.min(quad[:, :2], axis=0) / board.square_m - 1e-6).astype(int)) for quad in made.getObjPoints()}
    for row in range(rows):
        for column in range(columns):
            if (column, row) not in whites:
                yield column * square, row * square, square, square
    side = 1000 * board.marker_m
    for number, quad in enumerate(made.getObjPoints()):
        left, top = 1000 * np.min(quad[:, :2], axis=0)
        marker = cv2.aruco.generateImageMarker(made.getDictionary(), int(made.getIds()[number]), bits)
        for y, line in enumerate(marker):
            for first, last in _runs(line == 0):
                yield left + first * side / bits, top + y * side / bits, (last - first) * side / bits, side / bits


def board_bits(board: Board) -> int:
    """Returns how many cells a marker of the board is wide, its black border included."""
    return int(opencv_board(board).getDictionary().markerSize) + 2


def _runs(black: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yields (first, behind the last) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], black.astype(int), [0]])))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _ruler(paper: tuple[float, float]) -> list[Rectangle]:
    left, top = (paper[0] - _RULER_MM) / 2, paper[1] - _EDGE_MM - 8
    ticks = [
        Rectangle(left + x - 0.1, top - (3 if x % 50 == 0 else 1.5), 0.2, 3 if x % 50 == 0 else 1.5) for x in range(0, 101, 10)
    ]
    return [Rectangle(left, top, _RULER_MM, 0.2), *ticks]


def _free(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise AlreadyExists(path, "board")
    path.parent.mkdir(parents=True, exist_ok=True)


def _pdf(objects: list[str]) -> bytes:
    """Returns a PDF 1.4 of numbered objects, the first one its catalogue."""
    out, offsets = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, start=1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{text}\nendobj\n".encode("latin-1")
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    head = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    tail = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    return out + head.encode() + tail.encode()


def _with_resolution(png: bytes, dpi: int) -> bytes:
    """Returns a PNG with the chunk pHYs behind its header, by which programs print it at its true size."""
    header_ends = 8 + 12 + 13
    body = b"pHYs" + struct.pack(">IIB", round(dpi / 0.0254), round(dpi / 0.0254), 1)
    chunk = struct.pack(">I", 9) + body + struct.pack(">I", zlib.crc32(body))
    return png[:header_ends] + chunk + png[header_ends:]
