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
    """Returns the statistics of one key, block by block."""
    found: Stats | None = None
    for start in range(0, dataset.n_steps, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, dataset.n_steps)
        if wanted[start:stop].any():
            block = array_stats(dataset.read(key, start, stop)[wanted[start:stop]])
            found = block if found is None else merged(found, block)
    assert found is not None
    return found


def array_stats(rows: np.ndarray) -> Stats:
    """Returns the statistics of rows (n, ...) in memory, n >= 1."""
    rows = rows.astype(np.float64)
    return Stats(rows.min(0), rows.max(0), rows.mean(0), rows.std(0), len(rows))


def merged(a: Stats, b: Stats) -> Stats:
    """Returns the statistics of both together, by Chan's formula, which loses no digits on large offsets."""
    count = a.count + b.count
    delta = b.mean - a.mean
    squares = a.std**2 * a.count + b.std**2 * b.count + delta**2 * (a.count * b.count / count)
    mean = a.mean + delta * (b.count / count)
    return Stats(np.minimum(a.min, b.min), np.maximum(a.max, b.max), mean, np.sqrt(squares / count), count)
