"""A plant that hears its commands late: the dead time of a controller, put in on purpose and to the microsecond."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

from robolearn.core import Plant
from robolearn.errors import BadInput


class Delayed:
    """A `core.Plant` around another one: a command reaches it `seconds` after it was given; torque is switched at once."""

    def __init__(self, inner: Plant, seconds: float) -> None:
        """seconds: 0 or more; BadInput otherwise."""
        if not 0 <= seconds < 10:
            raise BadInput(f"plant: want a delay of 0 to 10 s, got {seconds:g}")
        self.inner, self._seconds, self._now_s = inner, seconds, 0.0
        self._coming = deque[tuple[float, np.ndarray]]()
        self.torque: np.ndarray = getattr(inner, "torque", np.ones(len(inner.measure()["q"]), dtype=bool))

    def command(self, target: np.ndarray) -> None:
        """Takes a target (n,) [rad] for later."""
        self._coming.append((self._now_s + self._seconds, np.array(target, dtype=float)))
        self._hand_on()

    def advance(self, seconds: float) -> None:
        """Moves on, stopping at every instant at which a command arrives."""
        end_s = self._now_s + seconds
        while self._coming and self._coming[0][0] <= end_s:
            self.inner.advance(max(0.0, self._coming[0][0] - self._now_s))
            self._now_s = max(self._now_s, self._coming[0][0])
            self._hand_on()
        self.inner.advance(end_s - self._now_s)
        self._now_s = end_s

    def measure(self) -> Mapping[str, np.ndarray]:
        """Returns q [rad], qd [rad/s] and effort [N m], each (n,)."""
        return self.inner.measure()

    def _hand_on(self) -> None:
        while self._coming and self._coming[0][0] <= self._now_s:
            self.inner.command(self._coming.popleft()[1])
