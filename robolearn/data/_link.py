"""The recorder's other process, seen from the control loop: started, told, listened to, never waited for while a tick runs."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robolearn import config
from robolearn.data._ring import Sender, new_memory
from robolearn.errors import DatasetError

Event = dict[str, Any]
_ROOT = Path(__file__).resolve().parent.parent.parent


class Link:
    """A running `robolearn.data._writer` on the journal `folder`; failed: why this episode can take no more ("": it can)."""

    def __init__(self, folder: Path, buffer_mib: int, options: dict[str, Any], lock: int) -> None:
        self.folder, self.failed = folder, ""
        memory = new_memory(buffer_mib << 20)
        inner, self._pipe = os.pipe()
        command = [sys.executable, "-m", "robolearn.data._writer", json.dumps({**options, "memory": memory, "pipe": inner})]
        paths = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, pass_fds=(memory, inner, lock), env={**os.environ, "PYTHONPATH": paths}
        )
        os.close(inner)
        self._ring = Sender(memory, self._pipe)
        os.close(memory)
        self._buffer, self._inbox = b"", deque[Event]()

    @property
    def pid(self) -> int:
        """Process id of the recorder."""
        return self._process.pid

    @property
    def waiting_bytes(self) -> int:
        """Bytes handed over that the recorder has not taken yet."""
        return self._ring.used

    def offer(self, header: bytes, arrays: Sequence[np.ndarray]) -> bool:
        """Hands over a message at once; False where it cannot be taken (`failed` says why, if it is for good)."""
        try:
            return self._ring.send(header, arrays)
        except BrokenPipeError:
            self.failed = "the recorder's process is gone; what it had is kept, `robolearn data salvage` makes an episode of it"
            return False

    def tell(self, values: Event, patience_s: float) -> None:
        """Sends a message that is not part of a tick and may therefore wait for room."""
        deadline = time.monotonic() + patience_s
        while not self.offer(json.dumps(values).encode(), []):
            if self._process.poll() is not None:
                raise DatasetError(f"{self.folder}: the recorder's process is gone; earlier episodes are safe")
            if time.monotonic() > deadline:
                raise DatasetError(f"{self.folder}: the recorder takes nothing any more since {patience_s:g} s")
            self.listen(0.01)

    def listen(self, timeout_s: float = 0.0) -> None:
        """Reads what the recorder has said, waiting at most `timeout_s` for a first word."""
        assert self._process.stdout is not None
        out = self._process.stdout.fileno()
        while select.select([out], [], [], timeout_s)[0]:
            text = os.read(out, 1 << 16)
            if not text:
                break
            self._buffer, timeout_s = self._buffer + text, 0.0
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            event = json.loads(line)
            self._inbox.append(event)
            if event["event"] == "failed":
                self.failed = event["why"]
            for number, why in event.get("refused", {}).items():
                config.warn(f"robolearn: {self.folder}: episode {number} stays in the journal only: {why}")
            if event["event"] == "pack_failed":
                config.warn(f"robolearn: {self.folder}: not packed ({event['why']}); the episodes are safe in the journal")

    def wait_for(self, kinds: Collection[str], patience_s: float) -> Event:
        """Returns the next event of one of these kinds; DatasetError where the recorder dies or stays silent."""
        deadline = time.monotonic() + patience_s
        while True:
            while self._inbox:
                event = self._inbox.popleft()
                if event["event"] in kinds:
                    return event
            gone = self._process.poll() is not None
            self.listen(0.0 if gone else 0.2)
            if not self._inbox and (gone or time.monotonic() > deadline):
                what = f"ended ({self._process.returncode})" if gone else f"has not answered for {patience_s:g} s"
                raise DatasetError(f"{self.folder}: the recorder's process {what}; earlier episodes are safe")

    def close(self, patience_s: float) -> None:
        """Lets the recorder finish its work and ends it."""
        if self._process.poll() is None:
            self.tell({"kind": "close"}, patience_s)
            self.wait_for({"closed"}, patience_s * 10)
        os.close(self._pipe)
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()
