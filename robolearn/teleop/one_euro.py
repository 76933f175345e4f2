"""The one-Euro filter for points and for rotations: calm when the hand rests, quick when it moves.

    cutoff = min_cutoff + beta |speed|,   a = 1 / (1 + 1 / (2 pi cutoff dt)),   x_hat += a (x - x_hat)
(Casiez, Roussel, Vogel, "1 Euro filter", CHI 2012). Rotations move along the shortest way by the share a. Time comes with the
samples [s]; a repeated or older time and a value that is no number give the last output again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robolearn import geometry
from robolearn.errors import BadInput

Array = np.ndarray


@dataclass(frozen=True)
class Tuning:
    """min_cutoff [Hz]: less is calmer at rest; beta: more is quicker in motion; d_cutoff [Hz]: of the speed."""

    min_cutoff: float = 1.0
    beta: float = 0.02
    d_cutoff: float = 1.0

    def __post_init__(self) -> None:
        if not (self.min_cutoff > 0 and self.d_cutoff > 0 and self.beta >= 0):
            raise BadInput(
                f"one-Euro filter: want min_cutoff > 0, d_cutoff > 0, beta >= 0, got {self.min_cutoff:g}, "
                f"{self.d_cutoff:g}, {self.beta:g}"
            )


def share(cutoff: Array | float, dt: float) -> Array | float:
    """Returns the share in [0, 1] of a new value that a first-order low pass with `cutoff` [Hz] takes after `dt` [s]."""
    return 1.0 / (1.0 + 1.0 / (2.0 * math.pi * cutoff * dt))


class OneEuro:
    """Filters an array of any shape, each number by its own speed."""

    def __init__(self, tuning: Tuning = Tuning()) -> None:
        self.tuning = tuning
        self.reset()

    def reset(self) -> None:
        """Forgets the past: the next value passes unchanged."""
        self._time: float | None = None
        self._value = self._raw = self._speed = np.zeros(0)

    def step(self, t_s: float, value: Array) -> Array:
        """Returns the filtered value at time `t_s` [s]."""
        value = np.asarray(value, dtype=float)
        usable = np.isfinite(value).all() and math.isfinite(t_s)
        if self._time is None:
            if not usable:
                raise BadInput("one-Euro filter: want finite numbers first, got NaN or infinity")
            self._time, self._value, self._raw, self._speed = t_s, value, value, np.zeros_like(value)
            return value.copy()
        dt = t_s - self._time
        if not usable or dt <= 0:
            return self._value.copy()
        self._speed = self._speed + share(self.tuning.d_cutoff, dt) * ((value - self._raw) / dt - self._speed)
        cutoff = self.tuning.min_cutoff + self.tuning.beta * np.abs(self._speed)
        self._value = self._value + share(cutoff, dt) * (value - self._value)
        self._time, self._raw = t_s, value
        return self._value.copy()


class RotationOneEuro:
    """Filters a rotation matrix (3, 3) along the shortest way, by its speed [rad/s]."""

    def __init__(self, tuning: Tuning = Tuning()) -> None:
        self.tuning = tuning
        self.reset()

    def reset(self) -> None:
        """Forgets the past: the next rotation passes unchanged."""
        self._time: float | None = None
        self._value = self._raw = np.eye(3)
        self._speed = 0.0

    def step(self, t_s: float, rotation: Array) -> Array:
        """Returns the filtered rotation (3, 3) at time `t_s` [s]."""
        rotation = np.asarray(rotation, dtype=float)
        usable = np.isfinite(rotation).all() and math.isfinite(t_s)
        if self._time is None:
            if not usable:
                raise BadInput("one-Euro filter: want a finite rotation first, got NaN or infinity")
            self._time, self._value, self._raw = t_s, rotation, rotation
            return rotation.copy()
        dt = t_s - self._time
        if not usable or dt <= 0:
            return self._value.copy()
        speed = float(geometry.angle_between(self._raw, rotation)) / dt
        self._speed += float(share(self.tuning.d_cutoff, dt)) * (speed - self._speed)
        part = share(self.tuning.min_cutoff + self.tuning.beta * self._speed, dt)
        turn = geometry.rotvec_from_matrix(self._value.T @ rotation)
        # The product drifts off the rotations by rounding only, but it is fed back at every step.
        self._value = geometry.matrix_from_quat_wxyz(
            geometry.quat_wxyz_from_matrix(self._value @ geometry.matrix_from_rotvec(part * turn))
        )
        self._time, self._raw = t_s, rotation
        return self._value.copy()
