"""What an emulator saw of goal values at the wire, before any check of its own: the witness that no bad value left a driver."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Goals:
    """Goal values as they arrived, in SI units. count: of goals; non_finite: of goals with NaN or infinity in them."""

    count: int = 0
    non_finite: int = 0
    lowest: float = float("inf")
    highest: float = float("-inf")
    last: list[float] = field(default_factory=list)

    def note(self, values: Iterable[float]) -> bool:
        """Takes down one goal; returns whether all of it is finite."""
        goal = np.array(list(values), dtype=float)
        finite = bool(np.isfinite(goal).all())
        self.count += 1
        self.non_finite += not finite
        self.last = goal.tolist()
        if finite:
            self.lowest, self.highest = min(self.lowest, goal.min()), max(self.highest, goal.max())
        return finite

    def stats(self) -> dict[str, Any]:
        """Returns all of it as JSON takes it; min and max are null before the first finite goal."""
        seen = self.count > self.non_finite
        return {
            "count": self.count,
            "non_finite": self.non_finite,
            "min": float(self.lowest) if seen else None,
            "max": float(self.highest) if seen else None,
            "last": [value if np.isfinite(value) else str(value) for value in self.last],
        }
