"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal

_PARENT_DEATH = 1  # PR_SET_PDEATHSIG


def die_with_parent(parent: int) -> None:
    """Asks the system to end this process when process `parent` ends (Linux), also when it is killed."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGTERM)
    if os.getppid() != parent:  # it was gone before we asked
        os._exit(1)
