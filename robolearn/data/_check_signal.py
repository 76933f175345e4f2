"""Numbers of a motion: stretches, spectral arc length, jerk, lag between a command and what followed it."""

from __future__ import annotations

import numpy as np

_PADDING = 4  # the spectrum is sampled 2^4 times finer than the movement is long
_MOST_SAMPLES = 2**18  # but a very long one, whose spectrum is fine by itself, only so finely: memory stays bounded


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Returns (start, stop) of every run of True in a 1-D array."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def sparc(speed: np.ndarray, hz: float, highest_hz: float = 10.0, threshold: float = 0.05) -> np.ndarray:
    """Returns the spectral arc length (n,) of speed profiles (steps, n), negative; 0 would be perfectly smooth, NaN: no motion.

    Balasubramanian et al. 2015: the length of the magnitude spectrum, divided by its value at 0, from 0 to the last
    frequency at which it reaches `threshold`, but at most `highest_hz` (or half the sampling rate); frequency in units of
    that last one. Free of the amplitude and, for one movement, of its duration.
    """
    whole = 2 ** int(np.ceil(np.log2(max(2, len(speed)))))
    size = max(whole, min(whole * 2**_PADDING, _MOST_SAMPLES))
    spectrum = np.abs(np.fft.rfft(speed, size, axis=0))
    kept = int(min(highest_hz, hz / 2) * size / hz + 1e-9) + 1
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = spectrum[:kept] / spectrum[0]
    above = relative >= threshold  # (frequency, n); False where NaN
    last = kept - 1 - np.argmax(above[::-1], axis=0)
    inside = np.arange(kept - 1)[:, None] < last
    rise = np.where(inside, np.diff(relative, axis=0), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        arc = np.sqrt((1.0 / last) ** 2 + rise**2)
    length = np.where(inside, arc, 0.0).sum(0)
    return np.where(above.any(0) & (last > 0), -length, np.nan)


def rms_jerk(position: np.ndarray, hz: float) -> np.ndarray:
    """Returns the root mean square (n,) of the third derivative of positions (steps, n) [unit/s^3]; NaN below 4 steps."""
    if len(position) < 4:
        return np.full(position.shape[1], np.nan)
    return np.sqrt(np.mean(np.square(np.diff(position, 3, axis=0)), axis=0)) * hz**3


def unwrapped(values: np.ndarray, angular: np.ndarray) -> np.ndarray:
    """Returns values (steps, n) float64 in which the columns marked `angular` (n,) do not jump by a whole turn."""
    values = values.astype(np.float64)
    if angular.any():
        values[:, angular] = np.unwrap(values[:, angular], axis=0)
    return values


def lag_of(command: np.ndarray, answer: np.ndarray, most: int) -> tuple[float, float]:
    """Returns (lag [steps], correlation) at which the motion of `answer` follows that of `command`, both (steps, n).

    Cross-correlation of the steps of both, normalised over what overlaps at each lag from -most to most, refined between
    steps by a parabola. NaN where nothing moves or the series is too short; the columns must have comparable scales.
    """
    a, b = np.diff(command, axis=0), np.diff(answer, axis=0)
    n = len(a)
    most = min(most, n // 3)
    if most < 1:
        return np.nan, 0.0
    size = 2 ** int(np.ceil(np.log2(2 * n)))
    spectrum = np.zeros(size // 2 + 1, np.complex128)
    for x, y in zip(a.T, b.T, strict=True):  # one after the other: an episode may be long
        spectrum += np.fft.rfft(y, size) * np.conj(np.fft.rfft(x, size))
    product = np.fft.irfft(spectrum, size)
    lags = np.arange(-most, most + 1)
    energy_a = np.concatenate([[0.0], np.cumsum(np.square(a).sum(1))])
    energy_b = np.concatenate([[0.0], np.cumsum(np.square(b).sum(1))])
    first, last = np.maximum(0, -lags), n - np.maximum(0, lags)  # rows of a that have a partner in b at this lag
    energy = (energy_a[last] - energy_a[first]) * (energy_b[last + lags] - energy_b[first + lags])
    floor = 1e-6 * energy_a[-1] * energy_b[-1]
    if floor <= 0:
        return np.nan, 0.0
    score = np.where(energy > floor, product[lags] / np.sqrt(np.maximum(energy, floor)), 0.0)
    peak = int(np.argmax(score))
    if peak in (0, len(lags) - 1):
        return float(lags[peak]), float(score[peak])
    before, at, after = score[peak - 1 : peak + 2]
    bend = before - 2 * at + after
    return float(lags[peak] + (0.5 * (before - after) / bend if bend < 0 else 0.0)), float(at)


def robust_z(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns (z-scores (n,), median): distance from the median in units of the scaled median absolute deviation."""
    middle = float(np.nanmedian(values)) if np.isfinite(values).any() else np.nan
    spread = 1.4826 * float(np.nanmedian(np.abs(values - middle))) if np.isfinite(middle) else np.nan
    return (values - middle) / max(spread, 1e-12) if np.isfinite(middle) else np.full(len(values), np.nan), middle
