"""Where an arm should be between two setpoints: on the straight way from one to the next, in time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hardware._base import Setpoint


@dataclass(frozen=True)
class Way:
    """The straight way from the last target to the next, reached when the setpoint says; nowhere to go where there is no goal."""

    begin: np.ndarray | None = None
    begin_ns: int = 0
    goal: Setpoint | None = None
    left_ns: int = 0

    def to(self, goal: Setpoint, q: np.ndarray, left_ns: int) -> Way:
        """Returns the way to a new goal, asked at `left_ns`, from where this one is then, or from q (n,) if it goes nowhere."""
        here = self._place(left_ns) if self.goal is not None else q
        return Way(here, left_ns, goal, left_ns)

    def at(self, now_ns: int, hold_after_s: float) -> Setpoint | None:
        """Returns the target of this instant; None where there is no goal, or the last one is older than `hold_after_s`."""
        if self.goal is None or now_ns - self.left_ns > hold_after_s * 1e9:
            return None
        span_s = (self.goal.t_ns - self.begin_ns) / 1e9
        moving = self.begin is not None and span_s > 0 and now_ns < self.goal.t_ns
        qd = (self.goal.q - self.begin) / span_s if moving else None
        return Setpoint(self._place(now_ns), self.goal.aperture, self.goal.t_ns, qd)

    def _place(self, now_ns: int) -> np.ndarray:
        assert self.goal is not None and self.begin is not None
        span = self.goal.t_ns - self.begin_ns
        share = 1.0 if span <= 0 else min(1.0, max(0.0, (now_ns - self.begin_ns) / span))
        return self.begin + share * (self.goal.q - self.begin)
