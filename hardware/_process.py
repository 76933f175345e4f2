"""Processes that do not outlive the one that started them, and the pipe between the two."""

from __future__ import annotations

import ctypes
import json
import os
import signal
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

_PARENT_DEATH = 1  # PR_SET_PDEATHSIG


class ParentGone(Exception):
    """The process at the other end of the pipe has ended."""


def die_with_parent(parent: int) -> None:
    """Asks the system to end this process when process `parent` ends (Linux), also when it is killed.

    What the system watches is the thread that started this process: it must live as long as the parent does.
    """
    ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGTERM)
    if os.getppid() != parent:  # it was gone before we asked
        os._exit(1)


def heard(pipe: Connection, timeout_s: float | None = 0.0) -> dict[str, Any] | None:
    """Returns the next message, None where none comes in time (None: waits for ever); ParentGone where none can come."""
    try:
        return dict(json.loads(pipe.recv_bytes())) if pipe.poll(timeout_s) else None
    except (EOFError, OSError):
        raise ParentGone from None


def say(pipe: Connection, message: Mapping[str, Any]) -> None:
    """Sends a message of plain JSON values; ParentGone where nobody can read it."""
    data = json.dumps(message).encode()
    try:
        pipe.send_bytes(data)
    except OSError:
        raise ParentGone from None
