"""A closer look at the numbers of a set, streamed: quantiles, and how much a single episode does to the spread. No images.

Quantiles are exact for up to 2^23 values a key. Beyond, each is found in a histogram of 4096 bins over the range, then in one
of 4096 bins within the bin that holds it: off by at most range / 2^24.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from robolearn.core import ArraySpec
from robolearn.data._compose import Piece, require_whole, rows_of
from robolearn.data.normalize import CONSTANT

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
MOST_ELEMENTS = 4096  # a key with more is a picture of some kind
_EXACT_VALUES = 2**23
_BINS = 4096
_INFLATED, _OF_EPISODES = 2.0, 5  # an episode that makes the std this many times larger is named, of five and more
_NARROW = 1e-3  # share of the range in which 98 % of the values lie


@dataclass(frozen=True)
class Summary:
    """What is known of the finite values of one key, element by element (flat).

    quantiles: (5, elements) at QUANTILES, exactly or `within` that share of the range; not_finite: NaN and infinities;
    extreme: the episode that adds most to the variance, -1 for none; std_without: the std of all the others; episodes: how many.
    """

    min: np.ndarray
    max: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    count: np.ndarray
    not_finite: np.ndarray
    quantiles: np.ndarray
    within: float
    extreme: np.ndarray
    std_without: np.ndarray
    episodes: int


def summarise(piece: Piece, key: str, exact_values: int = _EXACT_VALUES) -> Summary:
    """Returns the summary of one key over some episodes, of which there is at least one."""
    require_whole(piece.dataset, [key])
    moments, held = _Moments(piece), list[np.ndarray]()
    elements = max(1, int(np.prod(piece.dataset.keys[key].shape)))
    exact = elements * int(piece.lengths.sum()) <= exact_values
    for block in _blocks(piece, key):
        moments.add(block)
        if exact:
            held.append(block)
    low, high = moments.low, moments.high
    quantiles = _exact(np.concatenate(held)) if exact else _from_histogram(piece, key, low, high, moments.total)
    mean, std, extreme, without = moments.result()
    count = moments.total
    rows = int(piece.lengths.sum())
    within = 0.0 if exact else 1 / _BINS**2
    return Summary(low, high, mean, std, count, rows - count, quantiles, within, extreme, without, len(piece.episodes))


def _blocks(piece: Piece, key: str) -> Iterator[np.ndarray]:
    """Yields the rows of a key (n, elements) in float64."""
    for block in rows_of([piece], key):
        yield block.reshape(len(block), -1).astype(np.float64)


@dataclass
class _Moments:
    """Count, mean and sum of squared deviations of every episode and element; low, high, total: of all together."""

    piece: Piece
    _row: int = 0
    low: np.ndarray = field(init=False)
    high: np.ndarray = field(init=False)

    def add(self, block: np.ndarray) -> None:
        """Takes the next rows."""
        if not self._row:
            shape = (len(self.piece.episodes), block.shape[1])
            self._n, self._mean, self._square = np.zeros(shape), np.zeros(shape), np.zeros(shape)
            self._ends = np.cumsum(self.piece.lengths)
            self.low, self.high = np.full(shape[1], np.inf), np.full(shape[1], -np.inf)
        good = np.isfinite(block)
        self.low = np.minimum(self.low, np.where(good, block, np.inf).min(0))
        self.high = np.maximum(self.high, np.where(good, block, -np.inf).max(0))
        owner = np.searchsorted(self._ends, np.arange(self._row, self._row + len(block)), side="right")
        self._row += len(block)
        episodes, starts = np.unique(owner, return_index=True)
        values = np.where(good, block, 0.0)
        n = np.add.reduceat(good, starts, axis=0, dtype=np.float64)
        mean = np.add.reduceat(values, starts, axis=0) / np.maximum(n, 1)
        away = np.where(good, values - mean[owner - episodes[0]], 0.0)
        square = np.add.reduceat(away**2, starts, axis=0)
        had, total = self._n[episodes], self._n[episodes] + n
        delta = mean - self._mean[episodes]
        share = n / np.maximum(total, 1)
        self._square[episodes] += square + delta**2 * had * share
        self._mean[episodes] += delta * share
        self._n[episodes] = total

    @property
    def total(self) -> np.ndarray:
        """Number of finite values of every element."""
        return self._n.sum(0).astype(np.int64)

    def result(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Returns mean, std, the episode that adds most to the variance, and the std without it."""
        mean, std = self._spread(self._n)
        added = self._square + self._n * (self._mean - mean) ** 2
        worst = added.argmax(0)
        rest = self._n.copy()
        rest[worst, np.arange(rest.shape[1])] = 0
        without = self._spread(rest)[1]
        several = (self._n > 0).sum(0) > 1
        return mean, std, np.where(several, self.piece.episodes[worst], -1), np.where(several, without, std)

    def _spread(self, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (mean, std) of the episodes whose count in `n` is not 0."""
        total = np.maximum(n.sum(0), 1)
        mean = (n * self._mean).sum(0) / total
        squares = np.where(n > 0, self._square + n * (self._mean - mean) ** 2, 0.0)
        return mean, np.sqrt(squares.sum(0) / total)


def _exact(rows: np.ndarray) -> np.ndarray:
    """Returns (5, elements)."""
    columns = [column[np.isfinite(column)] for column in rows.T]
    return np.stack([np.quantile(c, QUANTILES) if len(c) else np.full(len(QUANTILES), np.nan) for c in columns], axis=1)


def _from_histogram(piece: Piece, key: str, low: np.ndarray, high: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Returns (5, elements), found in two passes: which bin of the whole range, then where in it."""
    ranks = np.array(QUANTILES)[:, None] * np.maximum(count - 1, 0)  # (5, elements), from 0
    lows, highs = np.tile(low, (len(QUANTILES), 1)), np.tile(high, (len(QUANTILES), 1))
    for _ in range(2):
        counts, below = np.zeros((*lows.shape, _BINS), np.int64), np.zeros(lows.shape, np.int64)
        width = np.where(highs > lows, (highs - lows) / _BINS, 1.0)
        for block in _blocks(piece, key):
            for row, (start, step) in enumerate(zip(lows, width, strict=True)):
                place = np.floor((block - start) / step)
                below[row] += (block < start).sum(0)
                place = np.where(block == highs[row], np.minimum(place, _BINS - 1), place)
                inside = np.isfinite(place) & (place >= 0) & (place < _BINS)
                flat = place + np.arange(block.shape[1]) * _BINS
                found = np.bincount(flat[inside].astype(np.int64), minlength=counts[row].size)
                counts[row] += found.reshape(counts[row].shape)
        reached = below[..., None] + counts.cumsum(-1)
        bins = np.minimum((reached <= ranks[..., None]).sum(-1), _BINS - 1)
        lows, highs = lows + bins * width, lows + (bins + 1) * width
    return np.minimum((lows + highs) / 2, high)


def warnings(key: str, spec: ArraySpec, found: Summary) -> list[str]:
    """Returns what would spoil the scaling of a key, element by element."""
    said = [
        f"{element_name(key, spec, i)}: {n} values are NaN or infinite and left out" for i, n in enumerate(found.not_finite) if n
    ]
    if np.dtype(spec.dtype).kind != "f":
        return said
    for i, (low, high) in enumerate(zip(found.min, found.max, strict=True)):
        name, span = element_name(key, spec, i), high - low
        middle = found.quantiles[-1, i] - found.quantiles[0, i]
        if span < CONSTANT * max(1.0, abs(low), abs(high)):
            said.append(f"{name}: hardly varies (by {span:.3g}); training centres it and does not blow it up")
        elif middle <= _NARROW * span:
            said.append(f"{name}: 98 % of the values lie within {middle:.3g} of a range of {span:.3g}")
        if found.episodes >= _OF_EPISODES and found.std[i] > _INFLATED * found.std_without[i]:
            times = f"{found.std[i] / found.std_without[i]:.3g} times" if found.std_without[i] else "from 0"
            said.append(
                f"{name}: episode {found.extreme[i]} inflates the std {times}: {found.std[i]:.4g} with it, "
                f"{found.std_without[i]:.4g} without"
            )
    return said


def element_name(key: str, spec: ArraySpec, index: int) -> str:
    """Returns key[name] of one element, key[row,column] where it has no name, the key alone where it is the only one."""
    if spec.names and len(spec.shape) == 1 and len(spec.names) == spec.shape[0]:
        return f"{key}[{spec.names[index]}]"
    if int(np.prod(spec.shape)) <= 1:
        return key
    return f"{key}[{','.join(str(int(i)) for i in np.unravel_index(index, spec.shape))}]"
