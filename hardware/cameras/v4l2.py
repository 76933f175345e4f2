"""A USB or built-in camera through Video4Linux and OpenCV, opened by a name that survives replugging.

OpenCV hands out the driver's stamp of a buffer (CAP_PROP_POS_MSEC). Where that is a time of our monotonic clock it is the time of
capture, and else the time of receipt less `latency_s`; the first frame after `connect` decides, and a stamp of another clock
later is refused. OpenCV does not tell numbers of buffers: captures that are missing are counted from the stamps, at the nominal
rate, so a camera that slows down in the dark counts every gap.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from hardware._base import Frame, Identity
from hardware._errors import ConfigMismatch, TransportCorrupt, TransportLost
from robolearn.errors import ConfigError, MissingDependency

NEEDS = ()  # no library beside what every installation has
NAME = "v4l2"
_BY_ID = Path("/dev/v4l/by-id")
_CLASS = Path("/sys/class/video4linux")
_FRESH_S = 1.0  # how old the first stamp may be to be of our clock
_OLD_S = 10.0  # and later ones: a host that stood still finds old buffers


@dataclass(frozen=True)
class Config:
    """Which camera, and what it shall give."""

    path: str
    """/dev/v4l/by-id/NAME, /dev/v4l/by-path/NAME, or a link of your own; never a number, which changes at the next plugging."""
    size: tuple[int, int] = (640, 480)
    """Width and height [px]."""
    hz: float = 30.0
    """Frames per second."""
    fourcc: str = "MJPG"
    """How the camera shall code pictures, as `v4l2-ctl --list-formats-ext` names it; empty: as OpenCV chooses."""
    latency_s: float = 0.0
    """From capture to receipt [s]; used where the driver's stamps are not of our clock."""

    def __post_init__(self) -> None:
        if self.path.isdecimal() or re.fullmatch(r"/dev/video\d*", self.path) or not self.path:
            raise ConfigError(f"v4l2 path: want {_BY_ID}/NAME or another lasting name, got '{self.path}'{_known()}")
        if min(self.size) < 1 or self.hz <= 0 or self.latency_s < 0 or len(self.fourcc) not in (0, 4):
            got = f"{self.size}, {self.hz:g}, {self.latency_s:g} and '{self.fourcc}'"
            raise ConfigError(f"v4l2: want size and hz above 0, latency_s of at least 0 and a fourcc of 4 letters, got {got}")


class Capture(Protocol):
    """An opened camera; every call raises OSError when it is gone."""

    def ask(self, fourcc: str, size: tuple[int, int], hz: float) -> tuple[str, tuple[int, int], float]:
        """Sets what it shall give, and returns what it will."""

    def wait(self, timeout_s: float) -> float | None:
        """Waits for a picture and returns its stamp [ms]; None where none came."""

    def picture(self) -> np.ndarray | None:
        """Returns the picture, (height, width, 3) uint8 RGB; None where it cannot be decoded."""

    def release(self) -> None:
        """Lets go of the camera."""


def make(
    config: Config,
    clock_ns: Callable[[], int] = time.monotonic_ns,
    open_capture: Callable[[str], Capture] | None = None,
    sysfs: Path = _CLASS,
) -> V4l2:
    """Returns the camera, not connected. open_capture: in OpenCV's place; sysfs: where the system describes cameras."""
    return V4l2(config, clock_ns, open_capture or OpenCv, sysfs)


class V4l2:
    """The `FrameSource`."""

    def __init__(self, config: Config, clock_ns: Callable[[], int], open_capture: Callable[[str], Capture], sysfs: Path) -> None:
        self.size, self.hz = config.size, config.hz
        self._config, self._clock_ns, self._open, self._sysfs = config, clock_ns, open_capture, sysfs
        self._capture: Capture | None = None
        self._domain, self._last_ns, self._seq = "", 0, -1

    def connect(self) -> Identity:
        """Opens the camera and sets it; TransportLost where there is none, ConfigMismatch where it gives something else."""
        self.close()
        c = self._config
        try:
            self._capture = self._open(c.path)
            fourcc, size, hz = self._capture.ask(c.fourcc, c.size, c.hz)
        except OSError as error:
            self.close()
            raise TransportLost(NAME, f"{c.path}: {error}", phase="connect") from error
        if (c.fourcc and fourcc != c.fourcc) or size != c.size or abs(hz - c.hz) > 0.05 * c.hz:
            self.close()
            wanted, got = (f"{f} {s[0]} x {s[1]} at {r:g} Hz" for f, s, r in ((c.fourcc, c.size, c.hz), (fourcc, size, hz)))
            raise ConfigMismatch(NAME, f"{c.path}: want {wanted}, it gives {got}; see v4l2-ctl --list-formats-ext")
        self._domain, self._last_ns = "", 0
        return self._who()

    def read(self, timeout_s: float) -> Frame | None:
        """Waits for a picture; pictures that cannot be decoded, or are not newer than the last, are passed over."""
        if self._capture is None:
            raise TransportLost(NAME, f"{self._config.path}: it is not connected")
        until = self._clock_ns() + round(timeout_s * 1e9)
        while True:
            try:
                stamp_ms = self._capture.wait(max(0.0, (until - self._clock_ns()) / 1e9))
                now = self._clock_ns()
                image = None if stamp_ms is None else self._capture.picture()
            except OSError as error:
                self.close()
                raise TransportLost(NAME, f"{self._config.path}: the camera is gone ({error})", phase="read") from error
            if stamp_ms is not None and image is not None:
                frame = self._frame(image, round(stamp_ms * 1e6), now)
                if frame is not None:
                    return frame
            if self._clock_ns() >= until:
                return None

    def close(self) -> None:
        """Lets go of the camera; what it says to that is of no use to anybody."""
        capture, self._capture = self._capture, None
        if capture is not None:
            with contextlib.suppress(OSError):
                capture.release()

    def _frame(self, image: np.ndarray, stamp_ns: int, now: int) -> Frame | None:
        """Returns the frame, None where it is not newer than the last; TransportCorrupt where its stamp is of another clock."""
        period_ns = 1e9 / self.hz
        if image.shape != (self.size[1], self.size[0], 3):
            raise TransportCorrupt(NAME, f"{self._config.path}: want a picture of size {self.size}, got {image.shape[1::-1]}")
        age_ns = now - stamp_ns
        if not self._domain:
            self._domain = "monotonic" if -period_ns < age_ns < _FRESH_S * 1e9 else "received"
        elif self._domain == "monotonic" and not -period_ns < age_ns < _OLD_S * 1e9:
            raise TransportCorrupt(
                NAME, f"{self._config.path}: its stamps were of our clock, and this one lies {age_ns / 1e9:.3f} s back"
            )
        timed = self._domain == "monotonic"
        t_ns = stamp_ns if timed else now - round(self._config.latency_s * 1e9)
        if self._last_ns and t_ns <= self._last_ns:
            return None
        periods = (t_ns - self._last_ns) / period_ns if self._last_ns else 1.0
        dropped = max(0, (round(periods) if timed else int(periods)) - 1)  # times of receipt scatter
        self._last_ns, self._seq = t_ns, self._seq + 1 + dropped
        # A stamp is of the first or the last line, which OpenCV does not say; a receipt is later than that by the way to us.
        t_unc_ns = round(period_ns / 2 if timed else period_ns)
        return Frame(image, min(t_ns, now), now, t_unc_ns, self._seq, dropped, domain=self._domain)

    def _who(self) -> Identity:
        entry = self._sysfs / Path(self._config.path).resolve().name
        device = (entry / "device").resolve()
        emulated = any(part == "virtual" or part.startswith("vivid") for part in entry.resolve().parts)
        model, serial = _text(entry / "name"), _text(device.parent / "serial")
        return Identity(model or NAME, serial, parts=(self._config.path,), emulated=emulated)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _known() -> str:
    names = sorted(path.name for path in _BY_ID.glob("*"))
    return f" (there are {', '.join(names)})" if names else ""


class OpenCv:
    """The `Capture` of OpenCV."""

    def __init__(self, path: str) -> None:
        """Opens the device; OSError says why it cannot be."""
        try:
            import cv2
        except ImportError:
            raise MissingDependency("opencv-python", "the camera", "pip install opencv-python") from None
        if not Path(path).exists():
            raise OSError(f"there is no such camera{_known()}")
        if not os.access(path, os.R_OK | os.W_OK):
            raise OSError("it may not be opened; become a member of the group 'video'")
        self._cv2, self._capture = cv2, cv2.VideoCapture(path, cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise OSError("it cannot be opened as a camera; does another program have it?")

    def ask(self, fourcc: str, size: tuple[int, int], hz: float) -> tuple[str, tuple[int, int], float]:
        """Sets coding, size and rate, in the order in which one limits the next, and starts the stream."""
        cv2, capture = self._cv2, self._capture
        if fourcc:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*fourcc))
        for key, value in ((cv2.CAP_PROP_FRAME_WIDTH, size[0]), (cv2.CAP_PROP_FRAME_HEIGHT, size[1]), (cv2.CAP_PROP_FPS, hz)):
            capture.set(key, value)
        if not capture.grab():
            raise OSError("it is there and gives no picture")
        code = int(capture.get(cv2.CAP_PROP_FOURCC))
        got = round(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), round(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        return code.to_bytes(4, "little").decode("latin-1"), got, float(capture.get(cv2.CAP_PROP_FPS))

    def wait(self, timeout_s: float) -> float | None:
        """Waits in the kernel, in whole milliseconds and at least one: 0 would be for ever."""
        try:
            ready, _ = self._cv2.VideoCapture.waitAny([self._capture], max(1_000_000, round(timeout_s * 1e9)))
        except self._cv2.error as error:
            raise OSError(str(error).strip().splitlines()[-1]) from error
        return float(self._capture.get(self._cv2.CAP_PROP_POS_MSEC)) if ready else None

    def picture(self) -> np.ndarray | None:
        """Decodes what `wait` has found."""
        try:
            there, image = self._capture.retrieve()
        except self._cv2.error:
            return None
        return self._cv2.cvtColor(image, self._cv2.COLOR_BGR2RGB) if there else None

    def release(self) -> None:
        """Closes the device."""
        self._capture.release()
