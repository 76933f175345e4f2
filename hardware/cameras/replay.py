"""A video file or a folder of pictures as a camera, paced by our clock, with faults at chosen captures; it says it is emulated.

Captures are numbered from 0 at `connect`, through all rounds of a loop; a fault names the capture at which it happens.
Who reads late misses captures as at a real camera, and they are counted.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hardware._base import Frame, Identity
from hardware._errors import ConfigMismatch, TransportCorrupt, TransportLost
from robolearn.errors import ConfigError, MissingDependency

NEEDS = ()  # no library beside what every installation has
NAME = "replay"
_PICTURES = (".bmp", ".jpeg", ".jpg", ".png")


@dataclass(frozen=True)
class Config:
    """What is played, and what goes wrong on the way."""

    path: str
    """A video file, or a folder of .png, .jpg or .bmp pictures, which are shown in the order of their names."""
    size: tuple[int, int] = (640, 480)
    """Width and height [px], which the pictures must have."""
    hz: float = 30.0
    """Pictures per second."""
    own_times: bool = False
    """Keep the video's own times between pictures; hz is then their nominal rate. A folder has none."""
    loop: bool = True
    """Begin anew at the end; otherwise the camera is gone there, as if it were unplugged, until it is connected again."""
    drop: tuple[int, ...] = ()
    """Captures that get lost."""
    twice: tuple[int, ...] = ()
    """Captures that show the picture before them once more."""
    stall_at: tuple[int, ...] = ()
    """Captures that arrive late; what is captured until then is lost."""
    stall_s: tuple[float, ...] = ()
    """How late [s], one for each of stall_at."""

    def __post_init__(self) -> None:
        if min(self.size) < 1 or self.hz <= 0:
            raise ConfigError(f"replay: want a size of at least (1, 1) and hz above 0, got {self.size} and {self.hz:g}")
        if len(self.stall_at) != len(self.stall_s) or any(seconds <= 0 for seconds in self.stall_s):
            raise ConfigError(f"replay stall_s: want {len(self.stall_at)} times above 0, as stall_at has, got {self.stall_s}")
        if any(capture < 1 for capture in self.twice):
            raise ConfigError(f"replay twice: want captures from 1 on, before which there is a picture, got {self.twice}")


def make(config: Config, clock_ns: Callable[[], int] = time.monotonic_ns, sleep: Callable[[float], None] = time.sleep) -> Replay:
    """Returns the camera, not connected; nothing is opened yet."""
    return Replay(config, clock_ns, sleep)


class Pictures(Protocol):
    """A file or folder, opened. size: (width, height) [px] of its first picture."""

    size: tuple[int, int]

    def advance(self) -> float | None:
        """Goes to the next picture and returns its own time [s], NaN where it has none; None at the end."""

    def picture(self) -> np.ndarray | None:
        """Returns the picture, (height, width, 3) uint8 RGB; None where it cannot be read."""

    def close(self) -> None:
        """Lets go of the file."""


class Replay:
    """The `FrameSource`."""

    def __init__(self, config: Config, clock_ns: Callable[[], int], sleep: Callable[[float], None]) -> None:
        self.size, self.hz = config.size, config.hz
        self._config, self._clock_ns, self._sleep = config, clock_ns, sleep
        self._stalls = dict(zip(config.stall_at, config.stall_s, strict=True))
        self._pictures: Pictures | None = None
        self._captures: Iterator[tuple[int, int]] = iter(())
        self._ahead: tuple[int, int] | None = None
        self._last: np.ndarray | None = None
        self._lost = 0

    def connect(self) -> Identity:
        """Opens the file and starts the clock; TransportLost without pictures, ConfigMismatch where they are of another size."""
        self.close()
        pictures = _opened(self._config.path)
        if pictures.size != self.size:
            pictures.close()
            raise ConfigMismatch(NAME, f"{self._config.path}: want pictures of size {self.size}, they have {pictures.size}")
        self._pictures = pictures
        self._captures, self._lost = self._timed(self._clock_ns()), 0
        return Identity(NAME, serial="EMULATED", parts=(self._config.path,), emulated=True)

    def read(self, timeout_s: float) -> Frame | None:
        """Waits for the next capture; TransportLost at the end, TransportCorrupt where a picture cannot be read."""
        if self._pictures is None:
            raise TransportLost(NAME, "it is not connected")
        until, skipped = self._clock_ns() + round(timeout_s * 1e9), 0
        while True:
            if self._ahead is None:
                self._ahead = self._next_capture()
            seq, due_ns = self._ahead
            stall_s = self._stalls.get(seq, 0.0)
            ready_ns = due_ns + round(stall_s * 1e9)
            self._sleep(max(0.0, min(ready_ns, until) - self._clock_ns()) / 1e9)
            now = self._clock_ns()
            if now < ready_ns:
                return None
            self._ahead = None
            late = not stall_s and now - due_ns > 1e9 / self.hz and skipped < self.hz  # a slow decoder shows something at last
            if seq not in self._config.drop and not late:
                return self._shown(seq, due_ns)
            self._lost, skipped = self._lost + 1, skipped + late

    def close(self) -> None:
        """Lets go of the file."""
        if self._pictures is not None:
            self._pictures.close()
        self._pictures, self._ahead, self._last = None, None, None

    def _next_capture(self) -> tuple[int, int]:
        capture = next(self._captures, None)
        if capture is None:
            raise TransportLost(NAME, f"{self._config.path}: it has ended; connecting again begins anew", phase="read")
        return capture

    def _timed(self, start_ns: int) -> Iterator[tuple[int, int]]:
        """Yields the number of each capture and when it is due [ns], moving the file on."""
        first_s, base_ns, due_ns = float("nan"), start_ns, start_ns
        for seq in itertools.count():
            assert self._pictures is not None
            own_s = self._pictures.advance()
            if own_s is None:
                if not self._config.loop:
                    return
                self._pictures.close()
                self._pictures, first_s, base_ns = _opened(self._config.path), float("nan"), due_ns + round(1e9 / self.hz)
                own_s = self._pictures.advance()
                if own_s is None:
                    return
            first_s = own_s if np.isnan(first_s) else first_s
            timed = self._config.own_times and not np.isnan(own_s)
            due_ns = base_ns + round((own_s - first_s) * 1e9) if timed else start_ns + round(seq * 1e9 / self.hz)
            yield seq, due_ns

    def _shown(self, seq: int, due_ns: int) -> Frame:
        assert self._pictures is not None
        image = self._last if seq in self._config.twice and self._last is not None else self._pictures.picture()
        if image is None or image.shape != (self.size[1], self.size[0], 3):
            self._lost += 1
            got = "nothing that can be read" if image is None else f"one of size {image.shape[1::-1]}"
            raise TransportCorrupt(NAME, f"{self._config.path}: capture {seq}: want a picture of size {self.size}, got {got}")
        dropped, self._lost, self._last = self._lost, 0, image
        return Frame(image.copy(), due_ns, self._clock_ns(), 0, seq, dropped, domain="file")


def _opened(path: str) -> Pictures:
    try:
        import cv2
    except ImportError:
        raise MissingDependency("opencv-python", "replayed pictures", "pip install opencv-python") from None
    place = Path(path).expanduser()
    if not place.exists():
        raise TransportLost(NAME, f"{path}: there is no such file or folder", phase="connect")
    return Folder(cv2, place) if place.is_dir() else Video(cv2, place)


class Folder:
    """The `Pictures` of a folder."""

    def __init__(self, cv2: Any, place: Path) -> None:
        self._cv2, self._at = cv2, -1
        self._paths = sorted(path for path in place.iterdir() if path.suffix.lower() in _PICTURES)
        if not self._paths:
            raise TransportLost(NAME, f"{place}: want {', '.join(_PICTURES)} pictures in it, there are none", phase="connect")
        self.advance()
        first = self.picture()
        if first is None:
            raise TransportLost(NAME, f"{self._paths[0]}: it cannot be read as a picture", phase="connect")
        self.size, self._at = (first.shape[1], first.shape[0]), -1

    def advance(self) -> float | None:
        """Goes to the next file; it has no time."""
        self._at += 1
        return float("nan") if self._at < len(self._paths) else None

    def picture(self) -> np.ndarray | None:
        """Reads the file."""
        image = self._cv2.imread(str(self._paths[self._at]), self._cv2.IMREAD_COLOR)
        return None if image is None else self._cv2.cvtColor(image, self._cv2.COLOR_BGR2RGB)

    def close(self) -> None:
        """Has nothing to let go of."""


class Video:
    """The `Pictures` of a video file."""

    def __init__(self, cv2: Any, place: Path) -> None:
        self._cv2, self._capture = cv2, cv2.VideoCapture(str(place), cv2.CAP_FFMPEG)
        self._grabbed = self._capture.isOpened() and self._capture.grab()  # the size may be known from then on only
        if not self._grabbed:
            self._capture.release()
            raise TransportLost(NAME, f"{place}: it cannot be read as a video", phase="connect")
        width, height = (self._capture.get(key) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        self.size = (round(width), round(height))

    def advance(self) -> float | None:
        """Decodes the next picture."""
        if not self._grabbed and not self._capture.grab():
            return None
        self._grabbed = False
        return float(self._capture.get(self._cv2.CAP_PROP_POS_MSEC)) / 1000

    def picture(self) -> np.ndarray | None:
        """Converts the picture."""
        there, image = self._capture.retrieve()
        return self._cv2.cvtColor(image, self._cv2.COLOR_BGR2RGB) if there else None

    def close(self) -> None:
        """Closes the file."""
        self._capture.release()
