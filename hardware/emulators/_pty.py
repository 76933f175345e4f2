"""A serial line of this machine: a pseudo-terminal that an emulator answers, at a path that stays when it is plugged in again.

`Line` is the bare line, `Wire` a line on which answers take their time.
"""

from __future__ import annotations

import contextlib
import os
import select
import tempfile
import tty
from collections import deque
from collections.abc import Callable
from pathlib import Path

from hardware.emulators._base import Faults
from robolearn.errors import BadInput


class Line:
    """The emulator's end of a serial line. path: what a driver opens, a link that keeps its name over unplugging."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="robolearn-tty-")
        self.path = str(Path(self._folder.name) / "tty")
        self._ends: tuple[int, int] | None = None
        self.replug()

    def replug(self) -> None:
        """Opens a new pseudo-terminal under the same path; nothing where one is open."""
        if self._ends is not None:
            return
        near, far = os.openpty()
        tty.setraw(near)
        tty.setraw(far)
        os.set_blocking(near, False)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        os.symlink(os.ttyname(far), self.path)
        self._ends = near, far  # the far end stays open here, so that a driver may close and open it without an end of file

    def unplug(self) -> None:
        """Takes the line away: a driver that has it open gets an input/output error."""
        if self._ends is not None:
            for end in self._ends:
                os.close(end)
            self._ends = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)

    def read(self, timeout_s: float) -> bytes:
        """Returns what has come in, waiting at most so long; empty where nothing has."""
        if self._ends is None:
            select.select([], [], [], timeout_s)
            return b""
        if not select.select([self._ends[0]], [], [], timeout_s)[0]:
            return b""
        try:
            return os.read(self._ends[0], 65536)
        except (BlockingIOError, OSError):
            return b""

    def write(self, answer: bytes) -> None:
        """Sends an answer; lost where the line is unplugged."""
        if self._ends is not None and answer:
            with contextlib.suppress(BlockingIOError, OSError):
                os.write(self._ends[0], answer)

    def close(self) -> None:
        """Unplugs for good; may be called twice."""
        self.unplug()
        self._folder.cleanup()


class Wire:
    """An emulator's serial line: each answer leaves when it is due, later by `Faults.delay_s`, while the plant moves on."""

    def __init__(self, faults: Faults, clock_ns: Callable[[], int]) -> None:
        """clock_ns: by which answers are due."""
        self._faults, self._clock_ns = faults, clock_ns
        self._line: Line | None = None
        self._due: deque[tuple[int, bytes]] = deque()

    @property
    def path(self) -> str:
        """What a driver opens."""
        return self._there().path

    def open(self) -> str:
        """Opens the line and returns its path."""
        self._line = Line()
        return self._line.path

    def read(self, timeout_s: float) -> bytes:
        """Sends what is due and returns what has come in, waiting at most so long, or until the next answer is due."""
        line = self._there()
        self.flush()
        if self._due:
            timeout_s = min(timeout_s, max(0.0, (self._due[0][0] - self._clock_ns()) / 1e9))
        return line.read(timeout_s)

    def say(self, answer: bytes, at_ns: int | None = None) -> None:
        """Puts an answer on the line. at_ns: when its last byte is there, None for now; a delay is added to both."""
        if answer:
            due = self._clock_ns() if at_ns is None else at_ns
            self._due.append((due + int(self._faults.delay_s * 1e9), answer))
        self.flush()

    def flush(self) -> None:
        """Sends what is due, in the order in which it was said."""
        line, said = self._there(), b""
        while self._due and self._due[0][0] <= self._clock_ns():
            said += self._due.popleft()[1]
        line.write(said)

    def unplug(self) -> None:
        """Takes the line away, and what was still to be said."""
        self._due.clear()
        self._there().unplug()

    def replug(self) -> None:
        """Brings the line back under its path."""
        self._there().replug()

    def close(self) -> None:
        """Unplugs for good; may be called twice."""
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def _there(self) -> Line:
        if self._line is None:
            raise BadInput("emulator: open it first")
        return self._line
