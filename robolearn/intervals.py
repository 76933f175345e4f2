"""How sure a figure is: intervals for a rate and for a mean, and tests for two policies on the same seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_Z95 = 1.959963984540054
_RESAMPLES = 10_000
_SEED = 0  # of the bootstrap: the same episodes give the same interval


def wilson95(successes: int, n: int) -> tuple[float, float]:
    """Returns the 95 % score interval of a success rate (Wilson, 1927); (0, 1) where n is 0."""
    if n == 0:
        return 0.0, 1.0
    rate, z2 = successes / n, _Z95**2
    middle = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    return (0.0 if successes == 0 else middle - half), (1.0 if successes == n else middle + half)


def mean95(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Returns the 95 % interval of the mean of `values` by percentile bootstrap (10,000 resamples, fixed seed)."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return (-math.inf, math.inf) if len(values) == 0 else (float(values[0]), float(values[0]))
    low, high = np.quantile(_resampled_means(values), (0.025, 0.975))
    return float(low), float(high)


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Returns the two-sided p of the exact McNemar test: `only_a` pairs that a alone solved, `only_b` that b alone solved."""
    n = only_a + only_b
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / 2**n)


def paired95(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """Returns mean(b - a) and its 95 % interval by bootstrap over pairs, as (mean, low, high)."""
    difference = np.asarray(b, dtype=float) - np.asarray(a, dtype=float)
    return float(difference.mean()), *mean95(difference)


def _resampled_means(values: np.ndarray) -> np.ndarray:
    random = np.random.default_rng(_SEED)
    # Counts of a multinomial draw are the resample: (resamples, n) at once would be large for long tables.
    blocks = [
        random.multinomial(len(values), np.full(len(values), 1 / len(values)), size=500) @ values
        for _ in range(_RESAMPLES // 500)
    ]
    return np.concatenate(blocks) / len(values)
