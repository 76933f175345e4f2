"""A driver in this process, on a clock that is simulated: what `Hosted` does, without a process and as fast as the machine can.

The loop of the driver, its guard and its life are the same; only time is another: it passes when somebody sleeps.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hardware._asked import Asked
from hardware._base import Driver, Identity
from hardware._errors import TransportLost
from hardware._loop import Loop, MakeGuard
from hardware._records import Hosting, Sample
from hardware._ring import new_run


class SimulatedTime:
    """Time that passes only in `sleep`; who asked for it is called on the way, at its instants."""

    def __init__(self, start_ns: int = 1_000_000_000) -> None:
        self._now_ns, self._apart = start_ns, False
        self._due_ns: list[int] = []
        self._turns: list[tuple[int, Callable[[], None]]] = []

    def now_ns(self) -> int:
        """Returns this instant [ns]."""
        return self._now_ns

    def now_s(self) -> float:
        """Returns this instant [s]."""
        return self._now_ns / 1e9

    def every(self, period_s: float, turn: Callable[[], None]) -> None:
        """Calls `turn` once a period from now on; who was called first is called first where two are due at once."""
        period_ns = round(period_s * 1e9)
        self._turns.append((period_ns, turn))
        self._due_ns.append(self._now_ns + period_ns)

    def sleep(self, seconds: float) -> None:
        """Lets so much time pass. Within a turn, or `apart`, nobody else is called meanwhile; what they miss is skipped."""
        end = self._now_ns + math.ceil(max(0.0, seconds) * 1e9)
        while not self._apart and self._turns and min(self._due_ns) <= end:
            first = int(np.argmin(self._due_ns))
            period_ns, turn = self._turns[first]
            self._now_ns = max(self._now_ns, self._due_ns[first])
            with self.apart():
                turn()
            missed = max(0, self._now_ns - self._due_ns[first]) // period_ns
            self._due_ns[first] += (1 + missed) * period_ns
        self._now_ns = max(self._now_ns, end)

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Runs a block in which time passes for itself alone."""
        before, self._apart = self._apart, True
        try:
            yield
        finally:
            self._apart = before


class Stepped(Asked):
    """A driver at work in this process. Its loop turns once a period of `time`, whenever somebody sleeps there."""

    def __init__(
        self, name: str, driver: Driver, make_guard: MakeGuard, time: SimulatedTime, hosting: Hosting = Hosting()
    ) -> None:
        """driver: made with `time.now_ns` as its clock."""
        self.name, self._time, self._hosting = name, time, hosting
        self._loop = Loop(name, driver, make_guard, hosting, time.now_ns, time.sleep)
        time.every(hosting.period_s, self._loop.turn)

    @property
    def alive(self) -> bool:
        """Whether it was not closed."""
        return not self._loop.ending

    def connect(self) -> Identity:
        """Opens the device and starts the loop, which reads only until `activate`."""
        return self._begun(new_run(), 0.0)

    def read_fresh(self, after: int, timeout_s: float) -> Sample:
        """Lets time pass until a cycle after number `after`, and returns it; TransportLost where none comes in time."""
        end = self._time.now_ns() + timeout_s * 1e9
        while (sample := self.read()).cycle <= after:
            if self._time.now_ns() > end:
                raise TransportLost(self.name, f"no new cycle in {timeout_s:g} s")
            self._time.sleep(self._hosting.period_s)
        return sample

    def close(self) -> list[str]:
        """Ramps to rest and closes the device; returns what went wrong, never raises, may be called twice."""
        went_wrong = [] if self._loop.ending else list(self._call("close", 0.0)["errors"])
        self._unlink()
        return went_wrong

    def _now_ns(self) -> int:
        return self._time.now_ns()

    def _call(self, what: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        del timeout_s  # Unused: an answer takes no time.
        with self._time.apart():  # the loop turns by itself where a call wants it to
            return self._loop.calls[what](arguments)
