"""Variance of the draws: how much the plans drawn from one observation differ, in all numbers of an action together.

"Action total variance" among the baselines of SAFE (arXiv 2506.09937, table 1), "output variance" in Sentinel (arXiv 2410.04640).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robolearn.core import Needs
from robolearn.monitors._base import Episode, Layout, Plans, Score, ScoreConfig, checked, scale_of


@dataclass(frozen=True)
class Config(ScoreConfig):
    """Total variance of the draws."""

    name: str = "variance"
    draws: int = 32
    """Plans drawn at once; the first so many are looked at."""

    def __post_init__(self) -> None:
        if self.draws < 2:
            raise ValueError(f"draws: want at least 2, got {self.draws}")


class Predictor(Score):
    """Scores a plan by the trace of its draws' covariance, averaged over the chunk."""

    def __init__(self, config: Config, layout: Layout) -> None:
        self.config, self.layout = config, layout
        self._scale = scale_of(layout, config.name)

    @property
    def needs(self) -> Needs:
        """Draws."""
        return Needs(draws=self.config.draws)

    def fit(self, episodes: Sequence[Episode], rng: np.random.Generator) -> None:
        """Learns nothing."""
        del episodes, rng  # Unused: the draws of a plan are compared with each other.

    def trace(self, plans: Plans) -> np.ndarray:
        """Returns variances (T,), of normalised actions where the layout brings a scale."""
        samples = checked(plans, self.config.name, self.config.draws).samples[:, : self.config.draws].astype(np.float64)
        # From the first draw, which changes no variance: equal draws then give 0 and not a rounding.
        apart = (samples - samples[:, :1]) * self._scale
        return np.asarray(apart.var(axis=1, ddof=1).sum(axis=-1).mean(axis=-1))

    def arrays(self) -> dict[str, np.ndarray]:
        """Nothing was fitted."""
        return {}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back nothing."""
        del arrays  # Unused.
