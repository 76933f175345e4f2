"""Time as an argument: nothing in robolearn calls time.time() behind the caller's back.

`Deadline` keeps a loop's rate: absolute deadlines t0 + k T, whole periods skipped when late, never a burst, and what that cost.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from robolearn.errors import BadInput

_FIRST_S, _PER_DECADE, _DECADES = 1e-6, 20, 7  # bins of the histogram: from 1 us to 10 s, each 12 % wider than the last
_STALLS, _STALL_WINDOW_S = 3, 10.0


def now_ns() -> dict[str, int]:
    """Returns this instant [ns] on both clocks of the machine: monotonic for intervals, wall for the calendar."""
    return {"monotonic": time.monotonic_ns(), "wall": time.time_ns()}


@dataclass(frozen=True)
class Timing:
    """How a loop kept its deadlines. ticks: how many ran; late: of these, begun when their deadline had passed already.

    overruns: times that whole periods were lost, skipped: how many; stalls: ticks later than 100 ms; p50_s, p99_s: lateness, no
    more than 12 % too high; max_s: exact; counts: histogram over the edges 1e-6 10^(i/20) s, the last one open.
    """

    period_s: float
    ticks: int
    late: int
    overruns: int
    skipped: int
    stalls: int
    p50_s: float
    p99_s: float
    max_s: float
    counts: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {**asdict(self), "counts": list(self.counts)}


class Deadline:
    """Waits for the deadlines of a loop of one thread. clock_ns: monotonic; sleep: for seconds; stall_s: lateness that counts.

    tick: the k of the deadline waited for last, which jumps where periods were skipped.
    """

    def __init__(
        self,
        period_s: float,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
        stall_s: float = 0.1,
    ) -> None:
        if not 0 < period_s < 60:
            raise BadInput(f"loop: want a period above 0 and below 60 s, got {period_s:g}")
        self.period_s, self._clock_ns, self._sleep, self._stall_s = period_s, clock_ns, sleep, stall_s
        self.tick, self._zero_ns = -1, 0
        self._counts = np.zeros(_PER_DECADE * _DECADES + 1, np.int64)
        self._ticks = self._late = self._overruns = self._skipped = self._stalls = 0
        self._most_s = 0.0
        self._recent: deque[int] = deque(maxlen=_STALLS + 1)

    @property
    def next_ns(self) -> int:
        """When the next tick is due [ns]."""
        return self._zero_ns + round((self.tick + 1) * self.period_s * 1e9)

    @property
    def wants_hold(self) -> bool:
        """True while more than 3 stalls lie in the last 10 s."""
        full = len(self._recent) > _STALLS
        return full and self._clock_ns() - self._recent[0] <= _STALL_WINDOW_S * 1e9

    def wait(self) -> float:
        """Sleeps until the next deadline and returns how late [s] it woke; the first call begins the grid at once."""
        now = self._clock_ns()
        if self.tick < 0:
            self.tick, self._zero_ns = 0, now
            return self._count(0.0, now)
        due = self.next_ns
        self.tick += 1
        if now > due:
            self._late += 1
            # To the newest deadline that has passed; with a nanosecond to spare, so that the one after is a period away.
            lost = int((now - self._zero_ns + 1) / (self.period_s * 1e9)) - self.tick
            if lost > 0:
                self.tick, self._overruns, self._skipped = self.tick + lost, self._overruns + 1, self._skipped + lost
            return self._count((now - due) * 1e-9, now)
        while now < due:
            self._sleep((due - now) * 1e-9)
            now = self._clock_ns()
        return self._count((now - due) * 1e-9, now)

    def restart(self) -> None:
        """Begins the grid anew with the next `wait`: after work that was meant to take long, and counts as no stall."""
        self.tick = -1

    def timing(self) -> Timing:
        """Returns the figures since the start."""
        p50_s, p99_s = (self._quantile(share) for share in (0.5, 0.99))
        counters = (self._ticks, self._late, self._overruns, self._skipped, self._stalls)
        return Timing(self.period_s, *counters, p50_s, p99_s, self._most_s, tuple(map(int, self._counts)))

    def _count(self, late_s: float, now_ns: int) -> float:
        place = math.ceil(_PER_DECADE * math.log10(late_s / _FIRST_S)) if late_s > _FIRST_S else 0
        self._counts[min(place, len(self._counts) - 1)] += 1
        self._ticks, self._most_s = self._ticks + 1, max(self._most_s, late_s)
        if late_s > self._stall_s:
            self._stalls += 1
            self._recent.append(now_ns)
        return late_s

    def _quantile(self, share: float) -> float:
        """Returns the upper edge of the bin in which the quantile lies, the largest lateness at most."""
        place = int(np.searchsorted(np.cumsum(self._counts), math.ceil(share * self._ticks)))
        return min(_FIRST_S * 10 ** (place / _PER_DECADE), self._most_s)


def ping_offset(t_send_ns: Sequence[int], t_remote_ns: Sequence[int], t_reply_ns: Sequence[int]) -> tuple[int, int]:
    """Returns how far the remote clock is ahead of ours and half the interval in which that lies [ns], by the fastest of n pings.

    The lead is remote - midpoint (Cristian, 1989). BadInput without a ping.
    """
    sizes = [len(t_send_ns), len(t_remote_ns), len(t_reply_ns)]
    if not t_send_ns or len(set(sizes)) > 1:
        raise BadInput(f"ping: want one ping or more and as many stamps and replies, got {sizes}")
    trips = [reply - send for send, reply in zip(t_send_ns, t_reply_ns, strict=True)]
    if min(trips) < 0:
        raise BadInput(f"ping: want replies after their pings, got one {-min(trips)} ns before")
    best = trips.index(min(trips))
    return t_remote_ns[best] - (t_send_ns[best] + t_reply_ns[best]) // 2, (trips[best] + 1) // 2
