"""The statistics that LeRobot keeps of every episode and of the whole: min, max, mean, std, count and five quantiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_PICTURES = 32  # of an episode, evenly spread
_SIDE = 100  # of a picture [px], by leaving out pixels


def of_numbers(values: np.ndarray) -> dict[str, Any]:
    """Returns the statistics of rows (steps, ...), one for each element; plain JSON values."""
    rows = values.reshape(len(values), 1) if values.ndim == 1 else values
    return _of(rows.astype(np.float64), len(values), 0)


def of_pictures(images: np.ndarray) -> dict[str, Any]:
    """Returns the statistics of each channel of pictures (n, height, width, 3) uint8, in 0..1, (3, 1, 1); from a sample."""
    chosen = np.unique(np.linspace(0, len(images) - 1, min(_PICTURES, len(images))).astype(int))
    step_y, step_x = (max(1, size // _SIDE) for size in images.shape[1:3])
    pixels = images[chosen, ::step_y, ::step_x].reshape(-1, 3) / 255.0
    found = _of(pixels, len(chosen), 0)
    return {name: value if name == "count" else [[[number]] for number in value] for name, value in found.items()}


def together(episodes: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns the statistics of all episodes from those of each; a quantile is the mean of theirs, as LeRobot takes it."""
    made = {}
    for name in episodes[0]:
        parts = {part: np.array([episode[name][part] for episode in episodes], float) for part in episodes[0][name]}
        count = parts["count"].reshape(-1, *[1] * (parts["mean"].ndim - 1))
        mean = (parts["mean"] * count).sum(axis=0) / count.sum()
        variance = ((parts["std"] ** 2 + (parts["mean"] - mean) ** 2) * count).sum(axis=0) / count.sum()
        whole = {"min": parts["min"].min(axis=0), "max": parts["max"].max(axis=0), "mean": mean, "std": np.sqrt(variance)}
        whole |= {part: (parts[part] * count).sum(axis=0) / count.sum() for part in QUANTILES}
        made[name] = {part: value.tolist() for part, value in whole.items()} | {"count": [int(parts["count"].sum())]}
    return made


def _of(rows: np.ndarray, count: int, axis: int) -> dict[str, Any]:
    whole = {"min": rows.min(axis), "max": rows.max(axis), "mean": rows.mean(axis), "std": rows.std(axis)}
    whole |= dict(zip(QUANTILES, np.quantile(rows, list(QUANTILES.values()), axis=axis), strict=True))
    return {name: value.tolist() for name, value in whole.items()} | {"count": [count]}
