"""Nearest neighbours: how far an embedding lies from the nearest ones of successful episodes.

The k-NN baselines of SAFE (arXiv 2506.09937, table 1), within a few points of its networks. What is published subtracts the
distance to failures; without failures the score is lower than those tables say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial.distance import cdist

from robolearn.core import Needs
from robolearn.monitors._base import Episode, Layout, Plans, Score, ScoreConfig, checked
from robolearn.monitors._embeddings import classes, fitted, restored


@dataclass(frozen=True)
class Config(ScoreConfig):
    """Distance to the nearest embeddings."""

    name: str = "knn"
    k: int = 10
    """Neighbours over whose distances is averaged; all of them where there are fewer."""
    metric: Literal["euclid", "cosine"] = "euclid"
    """Straight distance, or 1 - the cosine of the angle, which does not see lengths."""
    supervised: bool = False
    """Subtract the distance to embeddings of failures, as published."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k: want at least 1, got {self.k}")


class Predictor(Score):
    """Scores a plan by the mean distance of its embedding to the k nearest ones of the fit split."""

    def __init__(self, config: Config, layout: Layout) -> None:
        self.config, self.layout, self.supervised = config, layout, config.supervised
        self._fitted: dict[str, np.ndarray] = {}  # good, and bad where supervised: (n, feature), of length 1 for cosine

    @property
    def needs(self) -> Needs:
        """Embeddings."""
        return Needs(features=True)

    def fit(self, episodes: Sequence[Episode], rng: np.random.Generator) -> None:
        """Keeps the embeddings of successes, and of failures where supervised; BadInput where there are none."""
        del rng  # Unused: all are kept.
        self._fitted = {
            name: self._turned(points) for name, points in classes(episodes, self.supervised, self.config.name).items()
        }

    def trace(self, plans: Plans) -> np.ndarray:
        """Returns distances (T,), or differences of two where supervised."""
        seen = fitted(self._fitted, self.config.name)
        rows = self._turned(checked(plans, self.config.name, features=seen["good"].shape[1]).features.astype(np.float64))
        score = self._distance(rows, seen["good"])
        return score - self._distance(rows, seen["bad"]) if self.supervised else score

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the embeddings kept."""
        return dict(self._fitted)

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back the embeddings; BadInput where a set is missing or of another shape."""
        shapes = {"good": ("good", "feature")} | ({"bad": ("bad", "feature")} if self.supervised else {})
        self._fitted = restored(arrays, shapes, self.config.name)

    def _turned(self, rows: np.ndarray) -> np.ndarray:
        """Returns rows of length 1 for cosine, rows of zeros left alone: those are 0.5 from all others."""
        if self.config.metric == "euclid":
            return rows
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(length > 0, length, 1.0)

    def _distance(self, rows: np.ndarray, seen: np.ndarray) -> np.ndarray:
        k = min(self.config.k, len(seen))
        if self.config.metric == "euclid":
            apart = cdist(rows, seen)
        else:  # half the squared chord is 1 - cosine, and exactly 0 for equal directions
            apart = cdist(rows, seen, "sqeuclidean") / 2
        return np.asarray(np.sort(np.partition(apart, k - 1, axis=1)[:, :k], axis=1).mean(axis=1))
