"""The pictures of a calibration's report: where corners were and how far off, a lens taken out, epipolar lines of a pair."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from robolearn.core import Camera
from robolearn.video import pinhole
from robolearn.video.calibration import stereo
from robolearn.video.calibration.boards import Board
from robolearn.video.calibration.coverage import CELLS
from robolearn.video.calibration.intrinsics import Lens, pixels_of, tilts
from robolearn.video.calibration.stereo import Pair

WIDTH = 480  # [px] of one picture
_PAPER, _LINE, _INK = (250, 249, 247), (214, 208, 200), (120, 110, 100)  # BGR
_BLUE, _ORANGE, _GREEN = (178, 111, 47), (30, 105, 210), (87, 139, 46)
_ARROW_PX = 18.0  # how long the arrow of a large residual is drawn
_SHOWN = 7  # corners with an epipolar line
_QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 88)
_COLOURS = (_BLUE, _ORANGE, _GREEN, (150, 60, 150), (60, 60, 200), (140, 140, 0), (40, 40, 40))


def jpeg(picture: np.ndarray) -> bytes:
    """Returns a BGR picture as JPEG."""
    return bytes(cv2.imencode(".jpg", picture, _QUALITY)[1])


def residuals(board: Board, lens: Lens) -> tuple[np.ndarray, float]:
    """Returns the picture of all corners with their residuals as arrows, and by how much the arrows are enlarged."""
    size = lens.camera.size
    errors = [
        pixels_of(lens.camera, camera_from_board, board.corners[seen.ids]) - seen.pixels
        for seen, camera_from_board in zip(lens.sightings, lens.camera_from_board, strict=True)
    ]
    lengths = np.linalg.norm(np.concatenate(errors), axis=-1)
    times = _round(_ARROW_PX / max(float(np.quantile(lengths, 0.95)), 1e-6))
    scale = WIDTH / size[0]
    canvas = np.full((round(size[1] * scale), WIDTH, 3), _PAPER, np.uint8)
    for k in range(1, CELLS[1]):
        cv2.line(canvas, (WIDTH * k // CELLS[1], 0), (WIDTH * k // CELLS[1], canvas.shape[0]), _LINE, 1)
    for k in range(1, CELLS[0]):
        cv2.line(canvas, (0, canvas.shape[0] * k // CELLS[0]), (WIDTH, canvas.shape[0] * k // CELLS[0]), _LINE, 1)
    for seen, off in zip(lens.sightings, errors, strict=True):
        for pixel, arrow in zip(seen.pixels, off, strict=True):
            start = pixel * scale
            cv2.line(canvas, _at(start), _at(start + arrow * times), _ORANGE, 1, cv2.LINE_AA)
            cv2.circle(canvas, _at(start), 1, _BLUE, -1, cv2.LINE_AA)
    return canvas, times


def leans(lens: Lens) -> np.ndarray:
    """Returns the picture of how the board leaned: a dot a picture, circles every 15 degrees, as far as it leaned."""
    side = WIDTH * 3 // 4
    canvas = np.full((side, side, 3), _PAPER, np.uint8)
    dots = np.degrees(tilts(lens.camera_from_board))
    circles = range(15, max(45, 15 * int(np.ceil(np.abs(dots).max(initial=0.0) / 15))) + 1, 15)
    middle, per_degree = side / 2, side / 2 / (circles[-1] + 5)
    cv2.line(canvas, (0, side // 2), (side, side // 2), _LINE, 1)
    cv2.line(canvas, (side // 2, 0), (side // 2, side), _LINE, 1)
    for degrees in circles:
        cv2.circle(canvas, _at((middle, middle)), round(degrees * per_degree), _LINE, 1, cv2.LINE_AA)
        place = _at(middle + np.array([0.72, 0.72]) * degrees * per_degree)
        for colour, thick in ((_PAPER, 4), (_INK, 1)):
            cv2.putText(canvas, f"{degrees} deg", place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, thick, cv2.LINE_AA)
    for lean in dots:
        cv2.circle(canvas, _at(middle + lean * per_degree), 4, _BLUE, -1, cv2.LINE_AA)
    return canvas


def straightened(camera: Camera, path: Path) -> np.ndarray:
    """Returns a picture as it was taken, and beside it without the lens's distortion."""
    image = _read(path)
    plain = cv2.undistort(image, np.array(camera.K), np.array(camera.dist))
    return np.hstack([_small(picture) for picture in (image, plain)])


def epipolar(cameras: tuple[Camera, Camera], second_from_first: np.ndarray, pair: Pair, paths: tuple[Path, Path]) -> np.ndarray:
    """Returns both pictures of a pair, undistorted: corners in each, and the lines on which the other one says they lie."""
    first, second = cameras
    matrix = stereo.fundamental(first, second, second_from_first)
    pixels = [pinhole.undistort(first, pair.first), pinhole.undistort(second, pair.second)]
    spread = np.argsort(pixels[0][:, 1])[np.linspace(0, len(pair.ids) - 1, min(_SHOWN, len(pair.ids))).astype(int)]
    drawn = []
    for camera, path, mine, others, toward in (
        (first, paths[0], pixels[0], pixels[1], matrix.T),
        (second, paths[1], pixels[1], pixels[0], matrix),
    ):
        image = cv2.undistort(_read(path), np.array(camera.K), np.array(camera.dist))
        scale = WIDTH / image.shape[1]
        small = _small(image)
        for k, at in enumerate(spread):
            a, b, c = toward @ (*others[at], 1.0)
            _draw_line(small, (a, b, c), scale, _COLOURS[k])
            cv2.circle(small, _at(mine[at] * scale), 4, _COLOURS[k], 1, cv2.LINE_AA)
        drawn.append(small)
    height = min(picture.shape[0] for picture in drawn)
    return np.hstack([picture[:height] for picture in drawn])


def _read(path: Path) -> np.ndarray:
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR))


def _draw_line(picture: np.ndarray, line: tuple[float, float, float], scale: float, colour: tuple[int, int, int]) -> None:
    """Draws a u + b v + c = 0, of the picture before it was scaled, across the picture."""
    a, b, c = line
    if abs(b) < 1e-9:  # an upright line says nothing that a person could see
        return
    ends = [np.array([u, -(c + a * u) / b]) * scale for u in (0.0, picture.shape[1] / scale)]
    cv2.line(picture, _at(ends[0]), _at(ends[1]), colour, 1, cv2.LINE_AA)


def _round(value: float) -> float:
    """Returns the largest of 1, 2, 5, 10, 20, ... up to a value."""
    ten = 10.0 ** np.floor(np.log10(value))
    return float(ten * max(step for step in (1, 2, 5) if step * ten <= value))


def _small(picture: np.ndarray) -> np.ndarray:
    height = round(picture.shape[0] * WIDTH / picture.shape[1])
    return np.asarray(cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA))


def _at(pixel: object) -> tuple[int, int]:
    x, y = np.clip(np.asarray(pixel, float), -30_000, 30_000)
    return round(float(x)), round(float(y))
