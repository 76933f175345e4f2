"""Cuts a demonstration into parts by rule: where contact begins or ends, and where the hand nearly stops.

What a language model does in Super-Mimic (arXiv 2509.22205) is replaced by these two rules; its second half, a video generator
that imagines each part, has no stand-in here: a part is a span of the recording, nothing is generated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolearn.errors import BadInput

Array = np.ndarray


@dataclass(frozen=True)
class SegmentRule:
    """When a part ends. slow: share of the episode's usual (90th percentile) speed below which a minimum of speed counts as a
    stop; least_s: the shortest part [s]; smooth_s: over which the speed is averaged [s].
    """

    slow: float = 0.25
    least_s: float = 0.3
    smooth_s: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.slow < 1 or self.least_s < 0 or self.smooth_s < 0:
            raise BadInput(
                "segments: want slow in [0, 1), least_s and smooth_s at least 0, "
                f"got {self.slow:g}, {self.least_s:g}, {self.smooth_s:g}"
            )


@dataclass(frozen=True)
class Segment:
    """Rows [first, stop) of an episode; why: what ends it (contact, release, stop, end); closed: whether the hand is closed."""

    first: int
    stop: int
    why: str
    closed: bool


def segments(position: Array, closed: Array, hz: float, rule: SegmentRule = SegmentRule()) -> list[Segment]:
    """Returns the parts of an episode in order, each row in exactly one; position (T, 3) [m] of the hand, closed (T,) bool."""
    position, closed = np.asarray(position, dtype=float), np.asarray(closed, dtype=bool)
    if position.ndim != 2 or len(position) != len(closed) or len(closed) == 0 or not hz > 0:
        raise BadInput(
            f"segments: want positions (T, 3), closed (T,) and hz above 0, got {position.shape}, {closed.shape}, {hz:g}"
        )
    changes = {int(k) + 1: "release" if closed[k] else "contact" for k in np.flatnonzero(np.diff(closed.astype(int)))}
    least = max(1, round(rule.least_s * hz))
    cuts = dict(changes)  # what the hand does to things is never dropped for being short
    for k in _stops(position, hz, rule):
        if all(abs(k - other) >= least for other in (*cuts, 0, len(closed))):
            cuts[k] = "stop"
    edges = [*sorted(cuts), len(closed)]
    return [
        Segment(first, stop, cuts.get(stop, "end"), bool(closed[first]))
        for first, stop in zip([0, *edges[:-1]], edges, strict=True)
    ]


def speed_of(position: Array, hz: float, smooth_s: float) -> Array:
    """Returns the speed (T,) [m/s] of positions (T, 3), averaged over a Gaussian of `smooth_s` [s]."""
    if len(position) < 2:
        return np.zeros(len(position))
    speed = np.linalg.norm(np.gradient(position, axis=0), axis=1) * hz
    sigma = smooth_s * hz
    if sigma == 0:
        return speed
    reach = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(speed, reach, mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")


def _stops(position: Array, hz: float, rule: SegmentRule) -> list[int]:
    """Returns the rows where the speed has a minimum below the rule's share of the usual speed, the slowest first."""
    speed = speed_of(position, hz, rule.smooth_s)
    usual = float(np.percentile(speed, 90))
    if usual <= 0:
        return []
    low = speed < rule.slow * usual
    edges = np.flatnonzero(np.diff(low.astype(int), prepend=0, append=0))
    runs = [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    inner = [(a, b) for a, b in runs if a > 0 and b < len(speed)]  # before the first and after the last motion nothing is cut
    found = [a + int(np.argmin(speed[a:b])) for a, b in inner]
    return sorted(found, key=lambda k: float(speed[k]))
