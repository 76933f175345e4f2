"""The clock: the time since the episode began. Failures time out, so whatever alarms late looks clever; beat this first.

The control that the published tables lack: where episodes end at success, their length alone tells failures apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robolearn.core import Needs
from robolearn.monitors._base import Episode, Layout, Plans, Score, ScoreConfig


@dataclass(frozen=True)
class Config(ScoreConfig):
    """The clock has nothing to set."""

    name: str = "clock"


class Predictor(Score):
    """Scores a plan by the seconds since the first one."""

    def __init__(self, config: Config, layout: Layout) -> None:
        self.config, self.layout = config, layout

    @property
    def needs(self) -> Needs:
        """Nothing."""
        return Needs()

    def fit(self, episodes: Sequence[Episode], rng: np.random.Generator) -> None:
        """Learns nothing."""
        del episodes, rng  # Unused: a clock only goes.

    def trace(self, plans: Plans) -> np.ndarray:
        """Returns seconds (T,)."""
        return np.asarray(plans.ticks, np.float64) / self.layout.hz

    def arrays(self) -> dict[str, np.ndarray]:
        """Nothing was fitted."""
        return {}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back nothing."""
        del arrays  # Unused.
