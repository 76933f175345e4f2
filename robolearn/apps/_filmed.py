"""A clock to be filmed: a code of black and white cells that a camera can read, and how late the camera's pictures are.

Four ArUco markers give the corners, 36 cells between them the time: 24 bits of milliseconds in Gray code, 12 bits of checksum. A
picture taken while the screen changed has cells of two times, and its checksum then does not fit.
"""

from __future__ import annotations

import shutil
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np

from hardware._base import Frame, Identity
from hardware._camera_host import HostedCamera
from hardware._errors import TransportLost
from hardware.cameras import synthetic
from robolearn.apps._sweep import Clock
from robolearn.errors import BadInput

CODE = (16, 28)  # height and width [cells]
_BITS, _CHECK, _SIDE = 24, 12, 6  # of the time, of its checksum; cells of a marker's side, and bits on a side of the code
_PLACES = ((1, 1), (1, 21), (9, 21), (9, 1))  # row and column of each marker's first cell, clockwise
_LONGEST_S = 2.0  # a picture that is older was read wrongly
_LEAST = 30  # pictures that have to show the clock
_LOOK_S = 0.02  # how long a new picture is waited for between two pictures of the clock


@dataclass(frozen=True)
class Film:
    """How late pictures are. seconds: median from what is shown until we have its picture; interval: 95 % of the pictures.

    stamped_s: median by the camera's own stamps of capture, of the clock `domain`; read: pictures that showed the clock.
    """

    seconds: float
    interval: tuple[float, float]
    stamped_s: float
    domain: str
    frames: int
    read: int


def draw(t_ns: int) -> np.ndarray:
    """Returns the picture of a time: CODE uint8, 0 black and 255 white, one pixel a cell."""
    picture = np.full(CODE, 255, np.uint8)
    for marker, (row, column) in enumerate(_PLACES):
        picture[row : row + _SIDE, column : column + _SIDE] = cv2.aruco.generateImageMarker(_dictionary(), marker, _SIDE)
    picture[2:14, 8:20] = np.kron(_bits(t_ns // 1_000_000), np.ones((2, 2), np.uint8)) * 255
    return picture


def read_clock(image: np.ndarray, near_ns: int) -> int | None:
    """Returns the time [ns] that a picture (height, width, 3) uint8 RGB shows, the last one before near_ns that fits.

    None where no clock, or no whole one, is in it.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    corners, ids, _ = cv2.aruco.ArucoDetector(_dictionary(), _parameters()).detectMarkers(grey)
    found = {} if ids is None else {int(marker): corner[0] for marker, corner in zip(ids.ravel(), corners, strict=True)}
    if not set(range(len(_PLACES))) <= set(found):
        return None
    cells = np.array([[0, 0], [_SIDE, 0], [_SIDE, _SIDE], [0, _SIDE]], float)  # corners of a marker, (x, y)
    there = np.concatenate([cells + (column, row) for row, column in _PLACES]).astype(np.float32)
    seen = np.concatenate([found[marker] for marker in range(len(_PLACES))]).astype(np.float32)
    image_from_cells, _ = cv2.findHomography(there, seen)
    if image_from_cells is None:
        return None
    flat = cv2.warpPerspective(grey, np.linalg.inv(image_from_cells @ np.diag([1 / 8, 1 / 8, 1.0])), (8 * CODE[1], 8 * CODE[0]))
    means = flat[16:112, 64:160].reshape(_SIDE, 16, _SIDE, 16)[:, 4:12, :, 4:12].mean(axis=(1, 3))
    white, black = flat[2:6].mean(), flat[10:14, 10:54].mean()  # the edge of the code, and of a marker
    milliseconds = _time_of(means > (white + black) / 2)
    if milliseconds is None:
        return None
    behind = (near_ns // 1_000_000 - milliseconds) % (1 << _BITS)
    return (near_ns // 1_000_000 - behind) * 1_000_000


def blocks(picture: np.ndarray) -> str:
    """Returns a picture as text of half blocks, two rows of cells a line."""
    signs = {(False, False): " ", (True, False): "\u2580", (False, True): "\u2584", (True, True): "\u2588"}
    white = picture > 127
    return "\n".join(
        "".join(signs[bool(a), bool(b)] for a, b in zip(*white[k : k + 2], strict=True)) for k in range(0, len(white), 2)
    )


def watch(camera: HostedCamera, identity: Identity, seconds: float, clock: Clock) -> Film:
    """Shows the clock in the terminal, for so long, and returns how late its pictures come.

    A camera that draws its own time is read without a screen. BadInput where too few pictures show the clock.
    """
    drawn = synthetic.Pattern(camera.size) if identity.model == synthetic.NAME else None
    if drawn is None and not sys.stdout.isatty():
        raise BadInput("calibrate latency: the clock to be filmed needs a terminal; run it in one, and point the camera at it")
    frames: list[Frame] = []
    shown: list[int | None] = []
    end, last = clock.now_ns() + seconds * 1e9, -1
    with _screen() if drawn is None else _nothing():
        while (now := clock.now_ns()) < end:
            if drawn is None:
                _show(now)
            frame = camera.newer(last, _LOOK_S)
            if frame is None:
                if not camera.alive:
                    raise TransportLost(camera.name, camera.why.removeprefix(f"{camera.name}: "))
                continue
            last = frame.seq
            frames.append(frame)
            shown.append(read_clock(frame.image, frame.t_recv_ns) if drawn is None else drawn.mark(frame.image)[1])
    return film(frames, shown)


def film(frames: list[Frame], shown: list[int | None]) -> Film:
    """Returns how late frames are after what they show [ns], None for those that show nothing."""
    pairs = [(frame, t_ns) for frame, t_ns in zip(frames, shown, strict=True) if t_ns is not None]
    late = np.array([(frame.t_recv_ns - t_ns) / 1e9 for frame, t_ns in pairs])
    late = late[(late >= 0) & (late < _LONGEST_S)]
    if len(late) < _LEAST:
        said = f"{len(late)} of {len(frames)} pictures show the clock, want {_LEAST}"
        raise BadInput(f"calibrate latency: {said}; let it fill a third of the picture, sharp and not too bright")
    low, high = np.quantile(late, (0.025, 0.975))
    stamped = float(np.median([(frame.t_recv_ns - frame.t_capture_ns) / 1e9 for frame in frames]))
    return Film(float(np.median(late)), (float(low), float(high)), stamped, frames[0].domain, len(frames), len(late))


def _dictionary() -> cv2.aruco.Dictionary:
    return cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)


def _parameters() -> cv2.aruco.DetectorParameters:
    parameters = cv2.aruco.DetectorParameters()
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    return parameters


def _bits(milliseconds: int) -> np.ndarray:
    """Returns the cells (6, 6) uint8 of a time."""
    low = milliseconds % (1 << _BITS)
    word = (low ^ low >> 1) << _CHECK | zlib.crc32(low.to_bytes(4, "little")) % (1 << _CHECK)
    return np.array([word >> k & 1 for k in range(_BITS + _CHECK)], np.uint8).reshape(_SIDE, _SIDE)


def _time_of(cells: np.ndarray) -> int | None:
    """Returns the time [ms, modulo 2^24] that cells (6, 6) bool say; None where their checksum does not fit."""
    word = sum(1 << k for k, on in enumerate(cells.ravel().tolist()) if on)
    time = word >> _CHECK
    for shift in (1, 2, 4, 8, 16):
        time ^= time >> shift
    return time if np.array_equal(_bits(time), cells) else None


@contextmanager
def _screen() -> Iterator[None]:
    """Takes the terminal for the clock, and gives it back."""
    columns, lines = shutil.get_terminal_size()
    if columns < CODE[1] or lines < CODE[0] // 2:
        raise BadInput(f"calibrate latency: want a terminal of {CODE[1]} by {CODE[0] // 2}, got {columns} by {lines}")
    sys.stdout.write("\x1b[?1049h\x1b[?25l\x1b[30;107m\x1b[2J")  # its other page, no cursor, black on white
    try:
        yield
    finally:
        sys.stdout.write("\x1b[0m\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _show(t_ns: int) -> None:
    rows = blocks(255 - draw(t_ns)).split("\n")  # ink is black on white
    sys.stdout.write("".join(f"\x1b[{k};1H{row}" for k, row in enumerate(rows, 1)))
    sys.stdout.flush()
