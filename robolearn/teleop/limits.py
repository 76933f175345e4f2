"""What stands between a solved target and a command: caps of speed and acceleration, and the age of the input.

The input's age decides alone: up to 100 ms it is followed, then the last command is held, after 500 ms the clutch lets go, so
that a link that comes back after a stall cannot make the arm lurch (the hand is latched anew).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from robolearn.errors import BadInput

Array = np.ndarray


class Age(StrEnum):
    """What the age of the newest input means."""

    FRESH = "fresh"
    HELD = "held"
    DISENGAGED = "disengaged"


@dataclass(frozen=True)
class Freshness:
    """hold_s: from when on the last command is held [s]; disengage_s: from when on the clutch lets go [s]."""

    hold_s: float = 0.1
    disengage_s: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.hold_s <= self.disengage_s:
            raise BadInput(f"freshness: want 0 < hold_s <= disengage_s, got {self.hold_s:g} and {self.disengage_s:g}")

    def of(self, age_s: float) -> Age:
        """Returns what an age [s] means; one that is no number counts as the oldest."""
        if not age_s <= self.disengage_s:
            return Age.DISENGAGED
        return Age.FRESH if age_s <= self.hold_s else Age.HELD


@dataclass
class Limiter:
    """Follows targets (n,) with capped speed and acceleration, and never so fast that it could not stop inside [low, high].

    max_speed, max_acceleration: [unit/s], [unit/s^2]; low, high (n,). Each axis for itself.
    """

    max_speed: float
    max_acceleration: float
    low: Array | None = None
    high: Array | None = None
    position: Array = field(default_factory=lambda: np.zeros(0))
    speed: Array = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        if self.max_speed <= 0 or self.max_acceleration <= 0:
            raise BadInput(f"limiter: want caps above 0, got {self.max_speed:g} and {self.max_acceleration:g}")

    def reset(self, position: Array) -> None:
        """Begins at rest at `position` (n,), brought inside the range."""
        self.position = np.array(position, float)
        if self.low is not None and self.high is not None:
            self.position = np.clip(self.position, self.low, self.high)
        self.speed = np.zeros_like(self.position)

    def step(self, target: Array, dt: float) -> tuple[Array, bool]:
        """Returns the next position (n,) on the way to `target` after dt [s], and whether a cap changed it.

        A target that is no number counts as the position of now: the arm brakes.
        """
        wanted = np.where(np.isfinite(target), target, self.position)
        if self.low is not None and self.high is not None:
            wanted = np.clip(wanted, self.low, self.high)
        gap, a = wanted - self.position, self.max_acceleration
        # The fastest speed from which the target is met: braking from n a dt takes n (n + 1) / 2 a dt^2, linear in between.
        unit = a * dt * dt
        n = np.floor((np.sqrt(1.0 + 8.0 * np.abs(gap) / unit) - 1.0) / 2.0)
        braking = n * a * dt + (np.abs(gap) - n * (n + 1) / 2 * unit) / ((n + 1) * dt)
        speed = np.sign(gap) * np.minimum(np.minimum(braking, self.max_speed), np.abs(gap) / dt)
        self.speed = np.clip(speed, self.speed - a * dt, self.speed + a * dt)
        self.position = self.position + self.speed * dt
        if self.low is not None and self.high is not None:
            self.position = np.clip(self.position, self.low, self.high)
        return self.position.copy(), bool(np.any(np.abs(self.position - target) > 1e-12) or not np.isfinite(target).all())
