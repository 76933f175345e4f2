"""Time as an argument: nothing in robolearn calls time.time() behind the caller's back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


def now_ns() -> dict[str, int]:
    """Returns this instant [ns] on both clocks of the machine: monotonic for intervals, wall for the calendar."""
    return {"monotonic": time.monotonic_ns(), "wall": time.time_ns()}


@dataclass
class Rate:
    """Keeps a loop at `hz`: `wait` sleeps to the next tick of a fixed grid and returns how late [s] it came."""

    hz: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _next: float | None = None

    def wait(self) -> float:
        """Sleeps until the next tick; 0 when on time. A tick that was missed is skipped, never made up for in a burst."""
        now = self.clock()
        if self._next is None:
            self._next = now
        late = max(0.0, now - self._next)
        if late == 0.0:
            self.sleep(self._next - now)
        period = 1.0 / self.hz
        self._next += period * (1 + int(late / period))
        return late
