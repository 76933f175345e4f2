"""Past-token disagreement: a policy that also predicts what it did is asked, and told apart from what was done.

The past tokens of Torne et al. (arXiv 2505.09561), there used to pick among draws, here as a failure score: whoever cannot say
what was just executed does not read the observations as those it learned from. No publication has measured it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robolearn.core import Needs
from robolearn.errors import BadInput, SpecMismatch
from robolearn.monitors._base import Episode, Layout, Plans, Score, ScoreConfig, checked, scale_of


@dataclass(frozen=True)
class Config(ScoreConfig):
    """Disagreement of the predicted past with the executed one."""

    name: str = "past_disagreement"
    draws: int = 32
    """Plans drawn at once; the first so many are looked at."""
    first_only: bool = False
    """Look at the executed draw alone."""

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"draws: want at least 1, got {self.draws}")


class Predictor(Score):
    """Scores a plan by the mean squared difference of its draws' pasts from what was executed, in normalised units."""

    def __init__(self, config: Config, layout: Layout) -> None:
        if layout.n_past < 1:
            raise SpecMismatch(
                f"{config.name}: needs a policy that predicts its past (n_past of 1 or more), got n_past {layout.n_past}"
            )
        self.config, self.layout = config, layout
        self._scale = scale_of(layout, config.name)
        self._draws = 1 if config.first_only else config.draws

    @property
    def needs(self) -> Needs:
        """Draws."""
        return Needs(draws=self._draws)

    def fit(self, episodes: Sequence[Episode], rng: np.random.Generator) -> None:
        """Learns nothing."""
        del episodes, rng  # Unused: a plan is compared with what was executed.

    def trace(self, plans: Plans) -> np.ndarray:
        """Returns mean squared differences (T,) over draws, numbers and executed positions; 0 where nothing was executed yet.

        BadInput where pasts are of another length than the layout's, or hold NaN or infinity.
        """
        past = checked(plans, self.config.name, self._draws).past_samples
        want = (len(plans), self.layout.n_past, len(self.layout.action))
        if past.shape[:1] + past.shape[2:] != want or past.shape[1] < self._draws or plans.executed.shape != want:
            raise BadInput(
                f"{self.config.name}: want pasts of {want[1]} x {want[2]} numbers in {self._draws} draws or more, "
                f"got past_samples {past.shape} and executed {plans.executed.shape}"
            )
        past, executed = past[:, : self._draws].astype(np.float64), plans.executed.astype(np.float64)
        there = ~np.isnan(executed).any(axis=2)  # (T, n_past)
        if not np.isfinite(past).all() or np.isinf(executed).any():
            raise BadInput(f"{self.config.name}: past_samples hold NaN or infinity, or executed holds infinity")
        apart = np.square((past - executed[:, None]) * self._scale).mean(axis=(1, 3))  # (T, n_past), NaN where nothing was
        total = np.where(there, apart, 0.0).sum(axis=1)
        return np.asarray(total / np.maximum(there.sum(axis=1), 1))

    def arrays(self) -> dict[str, np.ndarray]:
        """Nothing was fitted."""
        return {}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back nothing."""
        del arrays  # Unused.
