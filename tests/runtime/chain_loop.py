"""A chain that is called once a period, for two joints that are two links of half a metre."""

from __future__ import annotations

from typing import Any

import numpy as np

from robolearn.runtime.filters import Chain, Filtered
from robolearn.runtime.limits import Limits, defaults

DT = 0.01
OFF = ("workspace", "effort", "temperature", "collision")


def arm(**changes: Any) -> Limits:
    given: dict[str, Any] = {"without": OFF, **changes}
    return defaults(("shoulder", "elbow"), (-2.0, -1.5), (2.0, 1.5), (2.0, 1.0), **given)


class Loop:
    """A chain that is called once a period."""

    def __init__(self, limits: Limits, start: Any = (0.0, 0.0), aperture: float | None = None, **callables: Any) -> None:
        self.chain, self.now_s = Chain(limits, DT, **callables), 10.0
        self.chain.reset(np.array(start), self.now_s, aperture)
        self.q = [np.array(start, float)]

    def send(self, q: Any, aperture: Any = None, age_s: float = 0.0, **rest: Any) -> Filtered:
        self.now_s += DT
        done = self.chain.filter(q, aperture, self.now_s - age_s, self.now_s, **rest)
        self.q.append(done.q)
        return done

    def rates(self) -> tuple[Any, Any, Any]:
        path = np.array(self.q)
        return path, np.diff(path, axis=0) / DT, np.diff(path, 2, axis=0) / DT**2


def planar(q: np.ndarray) -> np.ndarray:
    """Returns elbow and tip (2, 3) [m] of two links of 0.5 m in the x-z plane."""
    one, two = q[0], q[0] + q[1]
    elbow = 0.5 * np.array([np.cos(one), 0.0, np.sin(one)])
    return np.stack([elbow, elbow + 0.5 * np.array([np.cos(two), 0.0, np.sin(two)])])
