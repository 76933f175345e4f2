"""A camera that draws: a moving pattern with the number and the time of each frame in its pixels; it says that it is emulated.

The first 16 bytes of every row are the frame's number and its time of capture [monotonic ns], little-endian; the rest is a slope
that moves one pixel a frame. So age can be read off a picture, and one byte of another frame in it is found (`Pattern.whole`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hardware._base import Frame, Identity
from hardware._errors import TransportLost
from robolearn.errors import ConfigError

NEEDS = ()  # no library beside what every installation has
NAME = "synthetic"
_MARK = 16  # bytes at the beginning of each row
_PERIOD = 61  # frames after which the slope is where it was; prime to any depth of a ring


@dataclass(frozen=True)
class Config:
    """What is drawn."""

    size: tuple[int, int] = (640, 480)
    """Width and height [px]."""
    hz: float = 30.0
    """Frames per second."""

    def __post_init__(self) -> None:
        if 3 * self.size[0] < _MARK or self.size[1] < 1 or self.hz <= 0:
            raise ConfigError(f"synthetic: want a size of at least (6, 1) and hz above 0, got {self.size} and {self.hz:g}")


def make(
    config: Config, clock_ns: Callable[[], int] = time.monotonic_ns, sleep: Callable[[float], None] = time.sleep
) -> Synthetic:
    """Returns the camera, not connected."""
    return Synthetic(config, clock_ns, sleep)


class Pattern:
    """The pictures of one size, and how to read them."""

    def __init__(self, size: tuple[int, int]) -> None:
        """size: (width, height) [px]."""
        width, height = size
        across = np.arange(3 * (width + _PERIOD)) // 3
        self._wide = ((across + 3 * np.arange(height)[:, None]) % 256).astype(np.uint8)
        self._shape = (height, width, 3)

    def draw(self, seq: int, t_ns: int) -> np.ndarray:
        """Returns frame `seq`, captured at `t_ns`: (height, width, 3) uint8 RGB."""
        width = self._shape[1]
        shift = 3 * (seq % _PERIOD)
        image = self._wide[:, shift : shift + 3 * width].copy()
        image[:, :_MARK] = np.array([seq, t_ns], "<i8").view(np.uint8)
        return image.reshape(self._shape)

    def mark(self, image: np.ndarray) -> tuple[int, int]:
        """Returns number and time of capture [ns] as the first row of a picture says."""
        seq, t_ns = np.ascontiguousarray(image[0]).reshape(-1)[:_MARK].copy().view("<i8")
        return int(seq), int(t_ns)

    def whole(self, image: np.ndarray) -> bool:
        """Returns whether every byte belongs to the frame that the first row names."""
        return image.shape == self._shape and bool(np.array_equal(image, self.draw(*self.mark(image))))


class Synthetic:
    """The `FrameSource`. Captures happen on a fixed grid; who comes late gets the newest, and the others are counted."""

    def __init__(self, config: Config, clock_ns: Callable[[], int], sleep: Callable[[float], None]) -> None:
        self.size, self.hz = config.size, config.hz
        self._pattern, self._clock_ns, self._sleep = Pattern(config.size), clock_ns, sleep
        self._start_ns: int | None = None
        self._next = 0

    def connect(self) -> Identity:
        """Starts the grid."""
        self._start_ns, self._next = self._clock_ns(), 0
        return Identity(NAME, serial="EMULATED", emulated=True)

    def read(self, timeout_s: float) -> Frame | None:
        """Draws the newest capture that was not given yet, or the next; None where that one comes later than the time-out."""
        if self._start_ns is None:
            raise TransportLost(NAME, "it is not connected")
        now = self._clock_ns()
        seq = max(self._next, int((now - self._start_ns) * self.hz / 1e9))
        t_ns = self._start_ns + round(seq * 1e9 / self.hz)
        self._sleep(max(0.0, min(timeout_s, (t_ns - now) / 1e9)))
        if self._clock_ns() < t_ns:
            return None
        dropped, self._next = seq - self._next, seq + 1
        image = self._pattern.draw(seq, t_ns)
        return Frame(image, t_ns, self._clock_ns(), 0, seq, dropped, domain="sim")

    def close(self) -> None:
        """Stops the grid."""
        self._start_ns = None
