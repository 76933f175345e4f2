"""`Beat`: how late each tick of a loop came by the monotonic clock, and how far the wall clock jumped meanwhile."""

from __future__ import annotations

from collections.abc import Callable


class Beat:
    """Looked at once a tick. period_s: of the ticks; clock_ns: monotonic; wall_ns: of the day."""

    def __init__(self, period_s: float, clock_ns: Callable[[], int], wall_ns: Callable[[], int]) -> None:
        self._period_s, self._clock_ns, self._wall_ns = period_s, clock_ns, wall_ns
        self._before_ns, self._offset_ns, self._stalled_ns = 0, 0, 0

    def begin(self) -> None:
        """Begins to count here, for an episode."""
        self._offset_ns = self._wall_ns() - self._clock_ns()
        self.go_on()

    def go_on(self) -> None:
        """Goes on from here: what took its time before is no lateness."""
        self._before_ns = self._clock_ns()

    def look(self, now_ns: int) -> tuple[float, float]:
        """Returns how late this tick is, and by how much the wall clock was set since the last one [s]."""
        late_s, self._before_ns = (now_ns - self._before_ns) * 1e-9 - self._period_s, now_ns
        before, self._offset_ns = self._offset_ns, self._wall_ns() - self._clock_ns()
        return late_s, (self._offset_ns - before) * 1e-9

    def stalled(self, now_ns: int) -> None:
        """Notes a stall."""
        self._stalled_ns = now_ns

    def calm_s(self, now_ns: int) -> float:
        """Returns how long ago the last stall was [s]."""
        return (now_ns - self._stalled_ns) * 1e-9
