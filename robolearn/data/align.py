"""Streams with clocks of their own, brought onto the ticks of a controller; delays between two of them.

Interpolation follows UMI (Chi et al., "Universal Manipulation Interface", 2024): vectors linearly, turns along the great
circle, pictures the nearest; times outside a stream take its nearest end.
"""

from __future__ import annotations

import numpy as np

from robolearn.errors import ArrayMismatch


def interpolate(t_ns: np.ndarray, values: np.ndarray, at_ns: np.ndarray, latency_s: float = 0.0) -> np.ndarray:
    """Returns values (n, ...) of a stream, received at t_ns (n,), at the times at_ns (m,): (m, ...), in the dtype of values.

    latency_s: how much later than it was true a value was received; it is taken off first. Integers take the nearest.
    """
    times = _rising(t_ns) - round(latency_s * 1e9)
    if values.dtype.kind in "iub":
        return values[nearest(times, at_ns)]
    right = np.clip(np.searchsorted(times, at_ns, side="right"), 1, max(1, len(times) - 1))
    if len(times) == 1:
        return np.repeat(values, len(at_ns), axis=0)
    left = right - 1
    share = np.clip((at_ns - times[left]) / (times[right] - times[left]), 0.0, 1.0)
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    return ((1 - share) * values[left] + share * values[right]).astype(values.dtype)


def interpolate_quat_wxyz(t_ns: np.ndarray, quats: np.ndarray, at_ns: np.ndarray, latency_s: float = 0.0) -> np.ndarray:
    """Returns unit quaternions (m, 4) wxyz at at_ns (m,), on the shorter great circle between those (n, 4) at t_ns."""
    times = _rising(t_ns) - round(latency_s * 1e9)
    if len(times) == 1:
        return np.repeat(quats, len(at_ns), axis=0)
    right = np.clip(np.searchsorted(times, at_ns, side="right"), 1, len(times) - 1)
    left = right - 1
    share = np.clip((at_ns - times[left]) / (times[right] - times[left]), 0.0, 1.0)[:, None]
    a, b = quats[left].astype(np.float64), quats[right].astype(np.float64)
    cosine = np.sum(a * b, axis=1, keepdims=True)
    b, cosine = np.where(cosine < 0, -b, b), np.abs(cosine)
    angle = np.arccos(np.clip(cosine, -1, 1))
    small = angle < 1e-6
    sine = np.where(small, 1.0, np.sin(angle))
    weight_a = np.where(small, 1 - share, np.sin((1 - share) * angle) / sine)
    weight_b = np.where(small, share, np.sin(share * angle) / sine)
    out = weight_a * a + weight_b * b
    return (out / np.linalg.norm(out, axis=1, keepdims=True)).astype(quats.dtype)


def nearest(t_ns: np.ndarray, at_ns: np.ndarray) -> np.ndarray:
    """Returns for each of at_ns (m,) the index of the nearest of the rising times t_ns (n,)."""
    right = np.clip(np.searchsorted(t_ns, at_ns), 0, len(t_ns) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(np.abs(at_ns - t_ns[left]) <= np.abs(t_ns[right] - at_ns), left, right)


def slots(t_s: np.ndarray, start_s: float, period_s: float, count: int) -> np.ndarray:
    """Returns for each of `count` slots of a grid the index of the first sample in it, the one before where a slot has none.

    Slot k holds start + k period <= t < start + (k+1) period, with 1e-5 of a period to spare, so that a sample that is meant
    to lie on the grid lies in its slot. The first slots take the first sample where none came in time.
    """
    slot = np.floor((np.asarray(t_s) - start_s) / period_s + 1e-5).astype(np.int64)
    found = np.searchsorted(slot, np.arange(count), side="left")
    empty = (found >= len(slot)) | (slot[np.minimum(found, len(slot) - 1)] != np.arange(count))
    return np.where(empty, np.maximum(found - 1, 0), found)


Signal = tuple[np.ndarray, np.ndarray]  # times [ns] (n,), values (n,)


def latency(asked: Signal, measured: Signal, most_s: float = 0.5, rate_hz: float = 1000.0) -> tuple[float, float]:
    """Returns (delay [s], correlation) by which `measured` follows `asked`: the peak of their cross-correlation.

    Both are brought onto one grid of `rate_hz` over the time they share and scaled by the joint range; delays from 0 to
    most_s are tried, the peak is refined by a parabola.
    """
    start, stop = max(asked[0][0], measured[0][0]), min(asked[0][-1], measured[0][-1])
    steps = int((stop - start) * 1e-9 * rate_hz)
    most = int(most_s * rate_hz)
    if steps <= 2 * most:
        raise ArrayMismatch(f"latency: want signals that overlap for more than {2 * most_s:g} s, got {steps / rate_hz:g} s")
    grid = start + (np.arange(steps) * (1e9 / rate_hz)).astype(np.int64)
    a = interpolate(asked[0], np.asarray(asked[1], np.float64), grid)
    b = interpolate(measured[0], np.asarray(measured[1], np.float64), grid)
    a, b = a - a.mean(), b - b.mean()
    scores = np.array([_correlation(a[: steps - lag], b[lag:]) for lag in range(most + 1)])
    best = int(np.argmax(scores))
    shift = 0.0
    if 0 < best < most:
        before, at, after = scores[best - 1 : best + 2]
        bend = before - 2 * at + after
        shift = 0.5 * (before - after) / bend if bend else 0.0
    return (best + shift) / rate_hz, float(scores[best])


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else 0.0


def _rising(t_ns: np.ndarray) -> np.ndarray:
    times = np.asarray(t_ns, np.int64)
    if not len(times) or (np.diff(times) <= 0).any():
        raise ArrayMismatch("a stream needs times that rise, and at least one")
    return times
