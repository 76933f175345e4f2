"""Mahalanobis distance: how far an embedding lies from the mean of those of successes, in units of how they scatter.

The Mahalanobis baseline of SAFE (arXiv 2506.09937, table 1); what is published subtracts the distance to failures. The
covariance is shrunk towards a multiple of the identity: embeddings of one episode are much alike, so that the sample is
smaller than it looks, and numbers that never change in the fit split still have a scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robolearn.core import Needs
from robolearn.errors import BadInput
from robolearn.monitors._base import Episode, Layout, Plans, Score, ScoreConfig, checked
from robolearn.monitors._embeddings import classes, fitted, restored


@dataclass(frozen=True)
class Config(ScoreConfig):
    """Mahalanobis distance."""

    name: str = "mahalanobis"
    shrinkage: float = 0.1
    """Share of the mean variance times the identity in the covariance; 1 is the straight distance, scaled."""
    supervised: bool = False
    """Subtract the distance to the mean of failures, by their covariance, as published."""

    def __post_init__(self) -> None:
        if not 0 < self.shrinkage <= 1:
            raise ValueError(f"shrinkage: want a share above 0 and up to 1, got {self.shrinkage}")


class Predictor(Score):
    """Scores a plan by the Mahalanobis distance of its embedding from those of the fit split."""

    def __init__(self, config: Config, layout: Layout) -> None:
        self.config, self.layout, self.supervised = config, layout, config.supervised
        self._fitted: dict[str, np.ndarray] = {}

    @property
    def needs(self) -> Needs:
        """Embeddings."""
        return Needs(features=True)

    def fit(self, episodes: Sequence[Episode], rng: np.random.Generator) -> None:
        """Takes mean and covariance of successes, and of failures where supervised; BadInput where none are, or all equal."""
        del rng  # Unused: nothing is drawn.
        found = classes(episodes, self.supervised, self.config.name)
        made = {}
        for name, points in found.items():
            made[f"{name}_mean"], made[f"{name}_factor"] = whitening(points, self.config.shrinkage)
        self._fitted = made

    def trace(self, plans: Plans) -> np.ndarray:
        """Returns distances (T,), or differences of two where supervised."""
        seen = fitted(self._fitted, self.config.name)
        rows = checked(plans, self.config.name, features=len(seen["good_mean"])).features.astype(np.float64)
        score = _distance(rows, seen["good_mean"], seen["good_factor"])
        return score - _distance(rows, seen["bad_mean"], seen["bad_factor"]) if self.supervised else score

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns means and whitening factors."""
        return dict(self._fitted)

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back means and factors; BadInput where one is missing or of another shape."""
        shapes: dict[str, tuple[str, ...]] = {}
        for name in ("good", "bad")[: 1 + self.supervised]:
            shapes |= {f"{name}_mean": ("feature",), f"{name}_factor": ("feature", "feature")}
        self._fitted = restored(arrays, shapes, self.config.name)


def whitening(points: np.ndarray, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean (d,) of points (n, d) and a factor (d, d) that makes their shrunk covariance the identity.

    covariance: (1 - shrinkage) that of the points + shrinkage x its mean variance x identity. BadInput where all are equal.
    """
    if (points == points[0]).all():
        raise BadInput(f"mahalanobis: wants embeddings that differ, got {len(points)} equal ones")
    mean = points.mean(axis=0)
    covariance = np.cov(points, rowvar=False, bias=True).reshape(len(mean), len(mean))
    level = shrinkage * np.trace(covariance) / len(mean)
    values, vectors = np.linalg.eigh((1 - shrinkage) * covariance + level * np.eye(len(mean)))
    # No eigenvalue is below the level but by rounding; C order is what a file gives back, and products round by the order.
    return mean, np.ascontiguousarray((vectors / np.sqrt(np.maximum(values, level))).T)


def _distance(rows: np.ndarray, mean: np.ndarray, factor: np.ndarray) -> np.ndarray:
    # One product a row, not one for all: its rounding then does not depend on how many rows there are.
    whitened = (factor @ (rows - mean)[:, :, None])[:, :, 0]
    return np.asarray(np.sqrt(np.square(whitened).sum(axis=1)))
