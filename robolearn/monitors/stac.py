"""Temporal consistency of action chunks: do the draws of two successive plans agree about the ticks that both cover?

STAC of Sentinel (Agia et al., arXiv 2410.04640, CoRL 2024): squared maximum mean discrepancy between the overlapping parts,
with a Gaussian kernel whose width is the median distance. The published score is its running sum: a window over all plans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from robolearn.core import Needs
from robolearn.errors import BadInput
from robolearn.monitors._base import Episode, Layout, Plans, Score, ScoreConfig, checked, positions_of, scale_of


@dataclass(frozen=True)
class Config(ScoreConfig):
    """Discrepancy of successive plans."""

    name: str = "stac"
    draws: int = 32
    """Plans drawn at once; the first so many are looked at."""
    positions_only: bool = True
    """Compare end-effector positions; false: all numbers of an action, normalised."""

    def __post_init__(self) -> None:
        if self.draws < 2:
            raise ValueError(f"draws: want at least 2, got {self.draws}")


class Predictor(Score):
    """Scores a plan by its discrepancy from the one before; 0 at the first, and where two do not overlap."""

    reach = 1

    def __init__(self, config: Config, layout: Layout) -> None:
        self.config, self.layout = config, layout
        self._columns = layout.positions(config.name)[0] if config.positions_only else []
        self._scale = scale_of(layout, config.name)

    @property
    def needs(self) -> Needs:
        """Draws, and the names of the position's numbers where only they are compared."""
        return Needs(draws=self.config.draws, action_names=tuple(self.layout.action[i] for i in self._columns))

    def fit(self, episodes: Sequence[Episode], rng: np.random.Generator) -> None:
        """Learns nothing."""
        del episodes, rng  # Unused: two plans are compared with each other.

    def trace(self, plans: Plans) -> np.ndarray:
        """Returns squared discrepancies (T,), 0 to 2; BadInput where ticks do not grow."""
        samples = checked(plans, self.config.name, self.config.draws).samples[:, : self.config.draws]
        shifts = np.diff(np.asarray(plans.ticks, np.int64))
        if (shifts <= 0).any():
            raise BadInput(
                f"{self.config.name}: want plans of one episode at growing ticks, got {np.asarray(plans.ticks).tolist()}"
            )
        scores = np.zeros(len(plans))
        for t, shift in enumerate(shifts.tolist(), start=1):
            if shift < samples.shape[2]:
                scores[t] = mmd2(self._flat(samples[t - 1][:, shift:]), self._flat(samples[t][:, :-shift]))
        return scores

    def arrays(self) -> dict[str, np.ndarray]:
        """Nothing was fitted."""
        return {}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back nothing."""
        del arrays  # Unused.

    def _flat(self, part: np.ndarray) -> np.ndarray:
        # Displacements are summed from where the overlap begins: plans made at different ticks begin at different places.
        if self.config.positions_only:
            chosen = positions_of(part, self.layout, self.config.name)
        else:
            chosen = part.astype(np.float64) * self._scale
        return chosen.reshape(len(part), -1)


def mmd2(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the biased squared maximum mean discrepancy of two samples: 0 for equal ones, at most 2.

    x: (n, dims), y: (m, dims). Kernel exp(-d^2 / (2 s)), s the median of the non-zero squared distances in both together
    (Gretton et al., JMLR 13, 2012, eq. 5). BadInput where they are not of one width, empty or not finite.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or 0 in (*x.shape, *y.shape):
        raise BadInput(f"mmd2: want two samples (n, dims) of one width, got {x.shape} and {y.shape}")
    both = np.concatenate([x, y])
    if not np.isfinite(both).all():
        raise BadInput("mmd2: want finite samples, got NaN or infinity")
    squared = cdist(both, both, "sqeuclidean")
    apart = squared[squared > 0]  # every pair twice, which leaves the median where it is
    if not len(apart):
        return 0.0
    kernel = np.exp(-squared / (2 * np.median(apart)))
    n = len(x)
    value = kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()
    return max(float(value), 0.0)  # rounding alone can bring it below
