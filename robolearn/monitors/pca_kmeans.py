"""PCA and k-means: how far an embedding lies from the nearest of the clusters that successes fall into.

A baseline of FAIL-Detect (arXiv 2503.08558), whose code forgets to subtract the mean before it projects; not so here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.spatial.distance import cdist

from robolearn.core import Needs
from robolearn.errors import BadInput
from robolearn.monitors._base import Episode, Layout, Plans, Score, ScoreConfig, checked
from robolearn.monitors._embeddings import classes, fitted, restored


@dataclass(frozen=True)
class Config(ScoreConfig):
    """Distance to the nearest cluster."""

    name: str = "pca_kmeans"
    components: int = 10
    """Principal components that are kept; all where there are fewer numbers or embeddings."""
    clusters: int = 64
    """Clusters; one an embedding where there are fewer."""

    def __post_init__(self) -> None:
        if min(self.components, self.clusters) < 1:
            raise ValueError(f"components and clusters: want at least 1, got {self.components} and {self.clusters}")


class Predictor(Score):
    """Scores a plan by the distance of its projected embedding to the nearest centroid."""

    def __init__(self, config: Config, layout: Layout) -> None:
        self.config, self.layout = config, layout
        self._fitted: dict[str, np.ndarray] = {}

    @property
    def needs(self) -> Needs:
        """Embeddings."""
        return Needs(features=True)

    def fit(self, episodes: Sequence[Episode], rng: np.random.Generator) -> None:
        """Finds components and centroids of the embeddings of successes; BadInput where there are none."""
        points = classes(episodes, supervised=False, who=self.config.name)["good"]
        mean, width = points.mean(axis=0), points.shape[1]
        kept = min(self.config.components, *points.shape)
        _, vectors = linalg.eigh((points - mean).T @ (points - mean), subset_by_index=[width - kept, width - 1])
        components = np.ascontiguousarray(vectors.T)
        centroids = kmeans(_projected(points, mean, components), self.config.clusters, rng)
        self._fitted = {"mean": mean, "components": components, "centroids": centroids}

    def trace(self, plans: Plans) -> np.ndarray:
        """Returns distances (T,)."""
        seen = fitted(self._fitted, self.config.name)
        rows = checked(plans, self.config.name, features=len(seen["mean"])).features.astype(np.float64)
        return np.asarray(cdist(_projected(rows, seen["mean"], seen["components"]), seen["centroids"]).min(axis=1))

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns mean, components and centroids."""
        return dict(self._fitted)

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back mean, components and centroids; BadInput where one is missing or of another shape."""
        shapes = {"mean": ("feature",), "components": ("kept", "feature"), "centroids": ("cluster", "kept")}
        self._fitted = restored(arrays, shapes, self.config.name)


def kmeans(points: np.ndarray, k: int, rng: np.random.Generator, rounds: int = 100) -> np.ndarray:
    """Returns at most k centroids (k, d) of points (n, d): fewer where fewer points differ.

    Lloyd's rounds until no point changes its cluster, from the seeds of k-means++ (Arthur and Vassilvitskii, 2007). BadInput
    where there is no point.
    """
    if points.ndim != 2 or not len(points) or k < 1:
        raise BadInput(f"kmeans: want points (n, d) and k of at least 1, got {points.shape} and {k}")
    seeds = [points[rng.integers(len(points))]]
    nearest = cdist(points, seeds, "sqeuclidean")[:, 0]
    while len(seeds) < k and nearest.max() > 0:
        seeds.append(points[rng.choice(len(points), p=nearest / nearest.sum())])
        nearest = np.minimum(nearest, cdist(points, seeds[-1:], "sqeuclidean")[:, 0])
    centroids = np.stack(seeds)
    owner = np.full(len(points), -1)
    for _ in range(rounds):
        moved = cdist(points, centroids, "sqeuclidean").argmin(axis=1)
        if (moved == owner).all():
            break
        owner = moved
        for i in np.unique(owner):  # a cluster that lost its last point stays where it was
            centroids[i] = points[owner == i].mean(axis=0)
    return centroids


def _projected(rows: np.ndarray, mean: np.ndarray, components: np.ndarray) -> np.ndarray:
    # One product a row, not one for all: its rounding then does not depend on how many rows there are.
    return np.asarray((components @ (rows - mean)[:, :, None])[:, :, 0])
