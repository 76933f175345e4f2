"""A hand that moves the joints of an emulated arm where no servo holds them, as a person does to calibrate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robolearn.errors import BadInput


class Hand:
    """Where a hand wants an arm's joints; they go there at the plant's own speed, so an encoder is seen on the whole way."""

    def __init__(self, joints: int) -> None:
        self._q = np.full(joints, np.nan)

    def take(self, q: Sequence[float | None] | None) -> None:
        """Leads the joints to q (n,) [rad], of which None leaves a joint alone; None for all lets go. BadInput otherwise."""
        wanted = [None] * len(self._q) if q is None else list(q)
        if len(wanted) != len(self._q) or not all(angle is None or np.isfinite(angle) for angle in wanted):
            raise BadInput(f"hand: want {len(self._q)} angles [rad] or null, got {wanted}")
        self._q = np.array([np.nan if angle is None else angle for angle in wanted])

    def lead(self, goals: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns goals (n,) [rad] and who is held (n,), those joints among them that the hand has and no servo holds."""
        led = np.isfinite(self._q) & ~held
        return np.where(led, self._q, goals), held | led
