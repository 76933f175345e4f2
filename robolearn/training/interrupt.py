"""Ctrl-C while a step is half done would leave weights, average and random numbers of different steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class FinishStep:
    """Within this block Ctrl-C sets `asked`, so that the step can be finished; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> FinishStep:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self._before)

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
