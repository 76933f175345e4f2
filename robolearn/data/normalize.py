"""Affine normalisation per element, fitted on statistics, kept as numbers in JSON.

An element that does not vary in the data says nothing about its scale. Dividing by its tiny range would turn the
smallest deviation at test time into a huge input, so it is only centred, and scaled by what its key shows elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np

from robolearn.data.stats import Stats
from robolearn.errors import DatasetError, nearest

Mode = Literal["minmax", "gaussian", "identity"]
# A ten-thousandth of the value, or of one unit: below the repeatability of arms (0.1 mm, 0.1 mrad) and of pixels, and a
# thousand times the rounding of float32.
CONSTANT = 1e-4
_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Normalizer:
    """normalised = x * scale + offset, element by element, per key; both float32 of the key's shape."""

    modes: Mapping[str, str]
    scale: Mapping[str, np.ndarray]
    offset: Mapping[str, np.ndarray]

    @classmethod
    def fit(cls, stats: Mapping[str, Stats], modes: Mapping[str, Mode] = _NONE) -> Normalizer:
        """Returns the normaliser of every key in `stats`: minmax (to [-1, 1], the default), gaussian or identity."""
        for key in modes:
            if key not in stats:
                raise DatasetError(f"normalise: no statistics of key '{key}'{nearest(key, stats)}")
        chosen = {key: modes.get(key, "minmax") for key in stats}
        pairs = {key: _affine(stats[key], mode, key) for key, mode in chosen.items()}
        return cls(chosen, {key: pair[0] for key, pair in pairs.items()}, {key: pair[1] for key, pair in pairs.items()})

    def normalize(self, key: str, x: np.ndarray) -> np.ndarray:
        """Returns `x` (batch axes lead) normalised, float32."""
        return (np.asarray(x, np.float32) * self.scale[key] + self.offset[key]).astype(np.float32)

    def denormalize(self, key: str, x: np.ndarray) -> np.ndarray:
        """Returns the array of which `x` is the normalised form, float32."""
        return ((np.asarray(x, np.float32) - self.offset[key]) / self.scale[key]).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values; `from_json` reads them back bit for bit."""
        return {
            key: {"mode": mode, "scale": self.scale[key].tolist(), "offset": self.offset[key].tolist()}
            for key, mode in self.modes.items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Normalizer:
        """Returns the normaliser written by `to_json`."""
        return cls(
            {key: entry["mode"] for key, entry in values.items()},
            {key: np.asarray(entry["scale"], np.float32) for key, entry in values.items()},
            {key: np.asarray(entry["offset"], np.float32) for key, entry in values.items()},
        )


def _affine(stats: Stats, mode: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns (scale, offset) of one key."""
    if mode == "identity":
        return np.ones(stats.mean.shape, np.float32), np.zeros(stats.mean.shape, np.float32)
    if mode == "minmax":
        centre, spread = (stats.max + stats.min) / 2, (stats.max - stats.min) / 2
    elif mode == "gaussian":
        centre, spread = stats.mean, stats.std
    else:
        raise DatasetError(f"normalise: unknown mode '{mode}' of key '{key}'{nearest(mode, get_args(Mode))}")
    spread = np.where(_constant(stats, spread), _natural_spread(centre, spread), spread)
    scale = (1.0 / spread).astype(np.float32)
    return scale, (-centre * scale.astype(np.float64)).astype(np.float32)


def _constant(stats: Stats, spread: np.ndarray) -> np.ndarray:
    """Returns where an element does not vary: 2 x spread within CONSTANT of its size (or of 1)."""
    size = np.maximum(1.0, np.maximum(np.abs(stats.min), np.abs(stats.max)))
    return 2 * spread < CONSTANT * size


def _natural_spread(centre: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Returns the unit for a constant element's deviations: the largest of 1, its own value and the key's widest element."""
    return np.maximum(np.maximum(1.0, np.abs(centre)), spread.max(initial=0.0))
