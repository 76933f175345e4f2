"""Failure scores without a network, and plans to score."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from robolearn.monitors import ace, knn, mahalanobis, past_disagreement, pca_kmeans, reversal, stac, variance
from robolearn.monitors._base import ARRAYS, Episode, Layout, Plans, Score

NAMES = ("x", "y", "z", "gripper")
LAYOUT = Layout(NAMES, horizon=8, execute=4, n_past=3, scale=(1.0, 2.0, 3.0, 0.5))
MOVING = Layout(("dx", "dy", "dz", "gripper"), horizon=8, execute=4, n_past=3)
JOINTS = Layout(("q0", "q1", "q2", "gripper"), horizon=8, execute=4, n_past=3)
CASES: dict[str, tuple[ModuleType, dict[str, Any]]] = {
    "ace": (ace, {"draws": 6}),
    "ace cubes": (ace, {"draws": 6, "single_cellsize": True}),
    "stac": (stac, {"draws": 6}),
    "stac all": (stac, {"draws": 6, "positions_only": False}),
    "knn": (knn, {}),
    "knn cosine": (knn, {"metric": "cosine"}),
    "knn supervised": (knn, {"supervised": True}),
    "mahalanobis": (mahalanobis, {}),
    "mahalanobis supervised": (mahalanobis, {"supervised": True}),
    "pca_kmeans": (pca_kmeans, {"components": 3, "clusters": 8}),
    "variance": (variance, {"draws": 6}),
    "reversal": (reversal, {}),
    "past_disagreement": (past_disagreement, {"draws": 6}),
    "past_disagreement first": (past_disagreement, {"draws": 6, "first_only": True}),
}
EMBEDDED = [name for name in CASES if name.startswith(("knn", "mahalanobis", "pca"))]
FITTED = [*EMBEDDED, "ace", "ace cubes"]
DRAWN = {"ace": 6, "stac": 6, "variance": 6, "past_disagreement": 6}


def plans(length: int, seed: int, shift: float = 0.0) -> Plans:
    """Returns random plans of 7 draws and embeddings of 5 numbers around `shift`, at ticks that are not all `execute` apart."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    executed = normal(length, 3, 4)
    executed[:1] = np.nan
    executed[1:2, :2] = np.nan
    ticks = np.cumsum(rng.choice([4, 4, 4, 3, 9], length)) - 3
    return Plans(ticks, shift + normal(length, 5), normal(length, 7, 8, 4), normal(length, 7, 3, 4), executed)


EPISODES = [Episode(plans(12, i, 0.0 if i % 3 else 2.0), success=bool(i % 3), steps=48, seed=i) for i in range(9)]


def make(case: str, layout: Layout = LAYOUT, fit: bool = True, **options: Any) -> Any:
    module, given_ = CASES[case]
    score = module.Predictor(module.Config(**(given_ | options)), layout)
    assert isinstance(score, Score)
    if fit:
        score.fit(EPISODES, np.random.default_rng(0))
    return score


def still(length: int, **changed: np.ndarray) -> Plans:
    """Returns plans of 7 draws that all stay at 0, with some arrays in their place."""
    zeros = np.zeros
    arrays = [
        np.arange(length) * 4,
        zeros((length, 5)),
        zeros((length, 7, 8, 4)),
        zeros((length, 7, 3, 4)),
        zeros((length, 3, 4)),
    ]
    return Plans(**(dict(zip(ARRAYS, arrays, strict=True)) | changed))
