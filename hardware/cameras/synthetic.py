"""A camera that draws, or films what somebody else draws on this machine; it says that it is emulated.

By itself it draws a moving pattern with the number and the time of each frame in its pixels. The first 16 bytes of every row are
the frame's number and its time of capture [monotonic ns], little-endian; the rest is a slope that moves one pixel a frame. So age
can be read off a picture, and one byte of another frame in it is found (`Pattern.whole`).
With `address` it takes the pictures of a simulated scene, as `robolearn emulate --scene` serves them: it sends a byte, and gets
PICTURE (width, height, when it was so [monotonic ns]) and then the pixels.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hardware._base import Frame, Identity
from hardware._errors import TransportLost
from robolearn.errors import ConfigError

NEEDS = ()  # no library beside what every installation has
NAME = "synthetic"
_MARK = 16  # bytes at the beginning of each row
_ANSWER_S = 2.0  # that a served picture may take
PICTURE = struct.Struct("<IIq")  # what comes before the pixels of a served picture
_PERIOD = 61  # frames after which the slope is where it was; prime to any depth of a ring


@dataclass(frozen=True)
class Config:
    """What is drawn."""

    size: tuple[int, int] = (640, 480)
    """Width and height [px]."""
    hz: float = 30.0
    """Frames per second."""
    address: str = ""
    """HOST:PORT of who draws; empty: the pattern."""

    def __post_init__(self) -> None:
        host, colon, port = self.address.rpartition(":")
        if self.address and not (host and colon and port.isdigit()):
            raise ConfigError(f"synthetic address: want HOST:PORT, got '{self.address}'")
        if 3 * self.size[0] < _MARK or self.size[1] < 1 or self.hz <= 0:
            raise ConfigError(f"synthetic: want a size of at least (6, 1) and hz above 0, got {self.size} and {self.hz:g}")


def make(
    config: Config, clock_ns: Callable[[], int] = time.monotonic_ns, sleep: Callable[[float], None] = time.sleep
) -> Synthetic:
    """Returns the camera, not connected."""
    return Synthetic(config, clock_ns, sleep, Served(config.address, config.size) if config.address else Pattern(config.size))


class Painter(Protocol):
    """Who draws the pictures."""

    def open(self) -> None:
        """Gets ready; TransportLost in one line where that cannot be."""

    def shoot(self, seq: int, t_ns: int) -> tuple[np.ndarray, int]:
        """Returns picture `seq`, due at `t_ns`: (height, width, 3) uint8 RGB, and when what it shows was so [monotonic ns]."""

    def close(self) -> None:
        """Lets go; may be called twice."""


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

    def open(self) -> None:
        """Needs nothing."""

    def shoot(self, seq: int, t_ns: int) -> tuple[np.ndarray, int]:
        """Returns frame `seq`, as if captured at the instant that it was due."""
        return self.draw(seq, t_ns), t_ns

    def close(self) -> None:
        """Holds nothing."""

    def mark(self, image: np.ndarray) -> tuple[int, int]:
        """Returns number and time of capture [ns] as the first row of a picture says."""
        seq, t_ns = np.ascontiguousarray(image[0]).reshape(-1)[:_MARK].copy().view("<i8")
        return int(seq), int(t_ns)

    def whole(self, image: np.ndarray) -> bool:
        """Returns whether every byte belongs to the frame that the first row names."""
        return image.shape == self._shape and bool(np.array_equal(image, self.draw(*self.mark(image))))


class Served:
    """Pictures that another process of this machine draws, one for each byte that it is sent."""

    def __init__(self, address: str, size: tuple[int, int]) -> None:
        """address: HOST:PORT; size: (width, height) [px] that is wanted."""
        self._address, self._size = address, size
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Connects; TransportLost where nobody is there."""
        host, _, port = self._address.rpartition(":")
        try:
            self._socket = socket.create_connection((host, int(port)), _ANSWER_S)
        except OSError as error:
            said = error.strerror or error
            raise TransportLost(NAME, f"nobody draws at {self._address} ({said}); is `emulate --scene` running?") from None

    def shoot(self, seq: int, t_ns: int) -> tuple[np.ndarray, int]:
        """Returns a picture of now; TransportLost where none comes, or one of another size."""
        del seq, t_ns  # Unused: the picture is of when it is drawn.
        if self._socket is None:
            raise TransportLost(NAME, "it is not connected")
        try:
            self._socket.sendall(b"?")
            width, height, shown_ns = PICTURE.unpack(self._take(PICTURE.size))
            if (width, height) != self._size:
                raise TransportLost(NAME, f"want pictures of {self._size}, {self._address} draws {(width, height)}")
            pixels = self._take(3 * width * height)
        except OSError as error:
            raise TransportLost(NAME, f"no picture from {self._address} ({error})") from None
        return np.frombuffer(pixels, np.uint8).reshape(height, width, 3), shown_ns

    def close(self) -> None:
        """Hangs up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _take(self, size: int) -> bytes:
        assert self._socket is not None
        came = bytearray()
        while len(came) < size:
            piece = self._socket.recv(size - len(came))
            if not piece:
                raise OSError("it has hung up")
            came += piece
        return bytes(came)


class Synthetic:
    """The `FrameSource`. Captures happen on a fixed grid; who comes late gets the newest, and the others are counted."""

    def __init__(self, config: Config, clock_ns: Callable[[], int], sleep: Callable[[float], None], painter: Painter) -> None:
        self.size, self.hz = config.size, config.hz
        self._painter, self._clock_ns, self._sleep = painter, clock_ns, sleep
        self._start_ns: int | None = None
        self._next = 0

    def connect(self) -> Identity:
        """Starts the grid; TransportLost where who draws is not there."""
        self._painter.open()
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
        image, shown_ns = self._painter.shoot(seq, t_ns)
        return Frame(image, shown_ns, self._clock_ns(), 0, seq, dropped, domain="sim")

    def close(self) -> None:
        """Stops the grid and lets go of who draws."""
        self._start_ns = None
        self._painter.close()
