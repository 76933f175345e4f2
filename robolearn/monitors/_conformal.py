"""Thresholds that hold: split conformal prediction for the highest score of an episode. numpy and scipy only.

Vovk et al., "Algorithmic Learning in a Random World" (2005); functional band after Diquigiovanni et al. (arXiv 2102.06746);
weights for known shift after Tibshirani et al. (arXiv 1904.06019); online after Gibbs and Candes (arXiv 2106.00170). The
published code of FIPER takes np.quantile, turns the band's sign around and extends it by its mean: `compat="official"`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from robolearn.errors import BadInput

Compat = Literal["corrected", "official"]


def conformal_threshold(scores: Sequence[float] | np.ndarray, alpha: float) -> float:
    """Returns the score that a new exchangeable one exceeds with probability at most `alpha`.

    scores: (n,), one an episode (the highest of each). The ceil((n + 1)(1 - alpha))-th smallest; infinity where n is too small
    for any finite one to hold.
    """
    values = finite(scores, "conformal_threshold")
    k = rank(len(values), alpha)
    return float(np.sort(values)[k - 1]) if k <= len(values) else math.inf


def rank(n: int, alpha: float) -> int:
    """Returns which of n sorted scores the threshold is, counted from 1; n + 1 says that none is high enough."""
    check_alpha(alpha)
    return max(1, math.ceil(round((n + 1) * (1 - alpha), 9)))


def check_alpha(alpha: float) -> None:
    """Raises BadInput unless `alpha` is a share between 0 and 1."""
    if not 0 < alpha < 1:
        raise BadInput(f"alpha: want a share between 0 and 1, got {alpha}")


def promised(n: int, alpha: float) -> float:
    """Returns the false-alarm rate that the threshold of n scores promises, over calibrations and new episodes: 1 - k/(n+1)."""
    return 1 - min(rank(n, alpha), n + 1) / (n + 1)


def smallest_sample(alpha: float) -> int:
    """Returns how many calibration scores the first finite threshold takes."""
    return next(n for n in range(1, math.ceil(2 / alpha) + 1) if rank(n, alpha) <= n)


def alarms_interval(n: int, m: int, alpha: float, level: float = 0.95) -> tuple[float, float]:
    """Returns where the false-alarm rate over m new episodes will lie, calibrated on n: Beta-Binomial(m, n+1-k, k)."""
    k = rank(n, alpha)
    if m < 1:
        raise BadInput(f"alarms_interval: want at least one new episode, got {m}")
    if k > n:
        return 0.0, 0.0
    from scipy import stats  # a second to import, which nothing that only alarms needs

    law = stats.betabinom(m, n + 1 - k, k)
    low, high = law.ppf((1 - level) / 2), law.ppf((1 + level) / 2)
    return float(low) / m, float(high) / m


def rate_interval(n: int, alpha: float, level: float = 0.95) -> tuple[float, float]:
    """Returns where the true false-alarm rate of one calibration lies: Beta(n+1-k, k)."""
    k = rank(n, alpha)
    if k > n:
        return 0.0, 0.0
    from scipy import stats

    low, high = stats.beta(n + 1 - k, k).ppf([(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def weighted_threshold(scores: np.ndarray, weights: np.ndarray, new_weight: float, alpha: float) -> float:
    """Returns the threshold where calibration and deployment differ by known likelihood ratios.

    weights: (n,) of the calibration episodes, new_weight: of the new one; the new one stands at infinity.
    """
    check_alpha(alpha)
    values, shares = finite(scores, "scores"), finite(weights, "weights")
    if values.shape != shares.shape or (shares < 0).any() or new_weight < 0 or shares.sum() + new_weight <= 0:
        raise BadInput(f"weights: want {values.shape} of numbers not below 0, got {shares.shape}")
    order = np.argsort(values, kind="stable")
    mass = np.cumsum(shares[order]) / (shares.sum() + new_weight)
    reached = np.flatnonzero(mass >= 1 - alpha - 1e-12)
    return float(values[order][reached[0]]) if len(reached) else math.inf


def mondrian_thresholds(scores: np.ndarray, groups: Sequence[Hashable], alpha: float) -> dict[Hashable, float]:
    """Returns one threshold a group (a task), each from its own scores: the promise then holds within every group."""
    values = finite(scores, "scores")
    if len(values) != len(groups):
        raise BadInput(f"groups: want {len(values)}, got {len(groups)}")
    return {g: conformal_threshold(values[[h == g for h in groups]], alpha) for g in dict.fromkeys(groups)}


@dataclass
class Adaptive:
    """A threshold that follows the world: after every episode known to be good, the level moves by what happened.

    Over any sequence the share of false alarms tends to alpha: |share - alpha| <= (max(level_1, 1 - level_1) + step) / (step T).
    scores: (n,) of the calibration, which grows by those of the deployment; step: how fast it follows.
    """

    scores: list[float]
    alpha: float
    step: float = 0.02

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        self.scores = list(finite(self.scores, "scores"))
        self.level = self.alpha

    @property
    def threshold(self) -> float:
        """The threshold for the next episode."""
        if self.level <= 0:
            return math.inf
        return -math.inf if self.level >= 1 else conformal_threshold(self.scores, self.level)

    def update(self, score: float) -> bool:
        """Books the highest score of an episode that turned out good; returns whether it had alarmed."""
        finite([score], "score")
        alarmed = score > self.threshold
        self.level += self.step * (self.alpha - float(alarmed))
        self.scores.append(float(score))
        return alarmed


@dataclass(frozen=True)
class Band:
    """An upper band over plans: mean (T,) and spread (T,) from one half of the episodes, height from the other half.

    upper(t) = mean + height x spread; beyond T the last value goes on (`official`: the mean of the band).
    """

    mean: np.ndarray
    spread: np.ndarray
    height: float
    compat: Compat = "corrected"

    def upper(self, length: int) -> np.ndarray:
        """Returns the band over plans 0 .. length - 1."""
        band = self.mean + self.height * self.spread if math.isfinite(self.height) else np.full(len(self.mean), math.inf)
        if length <= len(band):
            return band[:length]
        beyond = band.mean() if self.compat == "official" else band[-1]
        return np.concatenate([band, np.full(length - len(band), beyond)])


def modulation(curves: Sequence[np.ndarray], alpha: float, compat: Compat = "corrected") -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and spread (T,) of curves of unequal lengths: how high a score is where, and how far it strays.

    The spread is the largest deviation among the share 1 - alpha of curves that stray least.
    """
    if not curves or not all(len(curve) for curve in curves):
        raise BadInput("band: want at least one curve and none that is empty")
    length = max(len(curve) for curve in curves)
    table = np.full((len(curves), length), np.nan)
    for row, curve in zip(table, curves, strict=True):
        row[: len(curve)] = finite(curve, "band")
    mean = np.nanmean(table, axis=0)
    strays = np.nanmax(np.abs(table - mean), axis=1)
    n = len(curves)
    keep = np.ones(n, bool)
    if (n + 1) * (1 - alpha) <= n:
        limit = np.quantile(strays, 1 - alpha) if compat == "official" else np.sort(strays)[rank(n, alpha) - 1]
        keep = strays <= limit
    kept = np.abs(table[keep] - mean)
    alive = ~np.isnan(kept).all(axis=0)
    spread = np.where(alive, np.nanmax(np.where(np.isnan(kept), -np.inf, kept), axis=0), 1 / np.arange(1, length + 1))
    return mean, np.where(spread < 1e-7, 1 / length, spread)


def band(first: Sequence[np.ndarray], second: Sequence[np.ndarray], alpha: float, compat: Compat = "corrected") -> Band:
    """Returns the one-sided functional band: shape from the `first` curves, height from the `second`, which must be others.

    A new exchangeable curve leaves the band anywhere with probability at most alpha.
    """
    if not all(len(curve) for curve in second):
        raise BadInput("band: want at least one curve and none that is empty")
    mean, spread = modulation(first, alpha, compat)
    shape = Band(mean, spread, 1.0, compat)
    lengths = [len(curve) for curve in second]
    means = [Band(mean, spread, 0.0, compat).upper(n) for n in lengths]
    spreads = [shape.upper(n) - m for n, m in zip(lengths, means, strict=True)]
    signs = -1.0 if compat == "official" else 1.0  # the published code measures how far a curve lies *below* the mean
    heights = [float(np.max(signs * (c - m) / s)) for c, m, s in zip(second, means, spreads, strict=True)]
    if compat == "official":
        return Band(mean, spread, float(np.quantile(heights, 1 - alpha)), compat)
    return Band(mean, spread, conformal_threshold(heights, alpha), compat)


def split(n: int, shares: Mapping[str, float], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns disjoint sorted indices of n episodes by name, in these shares (the last takes the rest), drawn by chance alone.

    The published code puts the longest episode into the first part, which depends on the data; this does not.
    """
    if not all(share > 0 for share in shares.values()) or not abs(sum(shares.values()) - 1) <= 1e-9:
        raise BadInput(f"split: want positive shares that add up to 1, got {dict(shares)}")
    order, parts, begin = rng.permutation(n), {}, 0
    ends = np.round(np.cumsum(list(shares.values())) * n).astype(int)
    for name, end in zip(shares, ends, strict=True):
        parts[name] = np.sort(order[begin:end])
        begin = end
    return parts


def refuse_overlap(fit: Iterable[Hashable], calibrate: Iterable[Hashable]) -> None:
    """Raises BadInput where an episode would be fitted to and calibrated on: its score would be too low, the alarms too many."""
    both = set(fit) & set(calibrate)
    if both:
        some = ", ".join(str(one) for one in sorted(both, key=str)[:5])
        raise BadInput(f"calibration: {len(both)} episodes are in the fit split too ({some}); want disjoint splits")


def finite(values: Sequence[float] | np.ndarray, who: str) -> np.ndarray:
    """Returns `values` as float64 (n,); BadInput where one is NaN or infinite, or they are no row."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise BadInput(f"{who}: want finite numbers in one row, got {array.dtype}{array.shape} with NaN or infinity or more axes")
    return array
