"""A serial line of this machine: a pseudo-terminal that an emulator answers, at a path that stays when it is plugged in again."""

from __future__ import annotations

import contextlib
import os
import select
import tempfile
import tty
from pathlib import Path


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
