"""Statistics of the vectors of a set, streamed block by block; images are never touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robolearn.data.images import is_image
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError, nearest

_BLOCK_ROWS = 65536


@dataclass(frozen=True)
class Stats:
    """Minimum, maximum, mean and standard deviation of every element of a key over `count` rows, float64."""

    min: np.ndarray
    max: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    count: int


def compute_stats(
    dataset: EpisodeSet, keys: Sequence[str], episodes: Sequence[int] | np.ndarray | None = None
) -> dict[str, Stats]:
    """Returns the statistics of each key over all rows, or those of `episodes`; image keys are left out."""
    for key in keys:
        if key not in dataset.keys:
            raise DatasetError(f"{dataset.path}: no key '{key}'{nearest(key, dataset.keys)}")
    wanted = _rows(dataset, episodes)
    if not wanted.any():
        raise DatasetError(f"{dataset.path}: want statistics of at least one row, got none")
    return {key: _stream(dataset, key, wanted) for key in keys if not is_image(dataset.keys[key])}


def _rows(dataset: EpisodeSet, episodes: Sequence[int] | np.ndarray | None) -> np.ndarray:
    wanted = np.full(dataset.n_steps, episodes is None)
    for episode in () if episodes is None else episodes:
        start, stop = dataset.span(int(episode))
        wanted[start:stop] = True
    return wanted


def _stream(dataset: EpisodeSet, key: str, wanted: np.ndarray) -> Stats:
    """Returns the statistics of one key; blocks are merged by Chan's formula, which loses no digits on large offsets."""
    shape = dataset.keys[key].shape
    low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
    mean, squares, count = np.zeros(shape), np.zeros(shape), 0
    for start in range(0, dataset.n_steps, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, dataset.n_steps)
        if not wanted[start:stop].any():
            continue
        block = dataset.read(key, start, stop)[wanted[start:stop]].astype(np.float64)
        low, high = np.minimum(low, block.min(0)), np.maximum(high, block.max(0))
        block_mean, n = block.mean(0), len(block)
        delta = block_mean - mean
        total = count + n
        squares += ((block - block_mean) ** 2).sum(0) + delta**2 * (count * n / total)
        mean, count = mean + delta * (n / total), total
    return Stats(low, high, mean, np.sqrt(squares / count), count)
