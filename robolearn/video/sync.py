"""Whether two views of one hand were filmed at the same time: the hand's speed over time must rise and fall in both alike."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from robolearn.video.hand_tracks import smoothed

Array = np.ndarray
OUT_OF_STEP_S = 0.2  # from here on two views are not of one time
SURE = 0.6  # correlation below which the speeds say nothing
_LONGEST_S = 2.0
_SMOOTH_S = 0.07
_SHORTEST_S = 1.0  # that both views must share at any shift


class Offset(NamedTuple):
    """By how much [s] the second view lags behind the first, and how well the speeds then agree (correlation, -1 to 1)."""

    lag_s: float
    correlation: float

    @property
    def out_of_step(self) -> bool:
        """Returns whether the views are surely not of one time."""
        return abs(self.lag_s) >= OUT_OF_STEP_S - 1e-9 and self.correlation >= SURE


def offset(first: Array, second: Array, hz: float) -> Offset:
    """Returns the lag between the paths of one hand in two views, (T, 2) [px] each at `hz` pictures a second, gaps filled.

    The lag, up to 2 s, with the highest correlation of the speeds, which counts less the less of them is left to compare: a
    short piece of one motion is like a short piece of any other.
    """
    speeds = [_speed(path, hz) for path in (first, second)]
    n = min(map(len, speeds))
    shortest = max(int(_SHORTEST_S * hz), 4)
    best, most = Offset(0.0, -1.0), -1.0
    for lag in sorted(range(-int(_LONGEST_S * hz), int(_LONGEST_S * hz) + 1), key=abs):
        if n - abs(lag) < shortest:
            continue
        a = speeds[0][max(0, -lag) : n - max(0, lag)]
        b = speeds[1][max(0, lag) : n - max(0, -lag)]
        alike = _correlation(a, b)
        worth = alike * np.sqrt(1 - abs(lag) / n)
        if worth > most + 1e-9:
            best, most = Offset(lag / hz, alike), worth
    return best


def _speed(path: Array, hz: float) -> Array:
    speed: Array = np.linalg.norm(np.gradient(smoothed(path, hz, _SMOOTH_S), axis=0), axis=-1)
    return speed


def _correlation(a: Array, b: Array) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / scale) if scale > 0 else 0.0
