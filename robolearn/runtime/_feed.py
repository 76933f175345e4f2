"""What feeds the process that writes a run log (`robolearn.runtime._segments`), without ever waiting for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

from robolearn.errors import BadInput
from robolearn.runtime import _segments
from robolearn.runtime._segments import CLOSE, MESSAGE

_ROOT = Path(__file__).resolve().parent.parent.parent
_START_S = 60.0


class Feed:
    """The end of the pipe that hands messages to a new process and never waits for it.

    given, dropped: messages; safe: how many of the given the writer has flushed; heard_s: when it spoke last; why: what is wrong.
    Raises BadInput where the process cannot begin.
    """

    def __init__(self, folder: Path, how: Mapping[str, Any], clock_s: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock_s, self.close_s = int(how["buffer_mib"]) << 20, clock_s, float(how["close_s"])
        self._pipe, theirs = Pipe()
        arguments = [str(theirs.fileno()), os.fspath(folder.absolute()), json.dumps(dict(how))]
        paths = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", _segments.__name__, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            env={**os.environ, "PYTHONPATH": paths},
            start_new_session=True,  # Ctrl-C and a closed terminal are for the program that moves the robot
        )
        theirs.close()
        self._queue, self._lock = deque[bytes](), threading.Lock()
        self._bytes_in, self._bytes_out, self.given, self.dropped, self.safe = 0, 0, 0, 0, 0
        self.why, self._gone, self._done = "", False, False
        self.heard_s = clock_s()
        try:
            begun = self._hear(_START_S)
        except (EOFError, OSError) as error:
            raise BadInput(f"{folder}: the writer of the run log did not begin ({self.process.wait()})") from error
        if not begun:
            self.process.kill()
            raise BadInput(f"{folder}: the writer of the run log did not begin within {_START_S:g} s")
        self._thread = threading.Thread(target=self._feed, name="run log", daemon=True)
        self._thread.start()

    def offer(self, message: bytes) -> None:
        """Takes a message at once, or drops it and says why."""
        with self._lock:
            behind = message[0] != CLOSE and self._bytes_in - self._bytes_out + len(message) > self._most
            if self._gone or behind:  # why it is gone was said before, or is said by `close`
                self.dropped += 1
                self.why = self.why or (f"the writer is behind by more than {self._most >> 20} MiB" if behind else "")
                return
            self._bytes_in, self.given = self._bytes_in + len(message), self.given + 1
            self._queue.append(message)

    def close(self) -> None:
        """Lets the writer finish, for `close_s` at most."""
        self._done = True  # first: from here on the end of the writer is no surprise, and its exit status tells
        self.offer(MESSAGE.pack(CLOSE, 0, 0, 0))
        end = time.monotonic() + self.close_s
        try:
            self._thread.join(self.close_s)
            if self.process.wait(max(0.0, end - time.monotonic())):
                self.why = self.why or f"the writer's process ended ({self.process.returncode})"
        except subprocess.TimeoutExpired:
            self.why = self.why or f"the writer did not end within {self.close_s:g} s"
            self.process.kill()
            self.process.wait()
        self._thread.join()
        self._pipe.close()

    def _feed(self) -> None:
        try:
            while True:
                for _ in range(len(self._queue)):
                    message = self._queue.popleft()
                    self._pipe.send_bytes(message)
                    self._bytes_out += len(message)
                    if message[0] == CLOSE:
                        return
                self._hear(0.01)
        except (EOFError, OSError):
            self._gone, self.why = True, self.why or ("" if self._done else "the writer's process is gone")

    def _hear(self, patience_s: float) -> bool:
        """Takes in what the writer says; True where it said something within `patience_s`."""
        heard = False
        while self._pipe.poll(patience_s):
            said = json.loads(self._pipe.recv_bytes())
            self.safe, self.heard_s, self.why, patience_s = said["safe"], self._clock_s(), self.why or said["why"], 0.0
            heard = True
        return heard
