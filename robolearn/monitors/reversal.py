"""Reversals: how often the executed motion turns back on itself, as that of a policy does that does not know where to go.

The "action direction-reversal rate" that a survey-like note (ActProbe) reports for three policies; no code of it is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robolearn.core import Needs
from robolearn.monitors._base import Episode, Layout, Plans, Score, ScoreConfig, checked


@dataclass(frozen=True)
class Config(ScoreConfig):
    """Rate of direction reversals."""

    name: str = "reversal"
    span: int = 4
    """Plans over which the rate is taken, the newest and those before it."""

    def __post_init__(self) -> None:
        if self.span < 1:
            raise ValueError(f"span: want at least 1, got {self.span}")


class Predictor(Score):
    """Scores a plan by the share of reversals in the motion that the last plans command.

    The motion is what each plan executes of its first draw, strung together by tick. Two successive displacements of the end
    effector reverse where their inner product is negative; pairs count that lie wholly in the last `span` plans, at ticks
    that follow each other.
    """

    def __init__(self, config: Config, layout: Layout) -> None:
        self.config, self.layout = config, layout
        self.reach = config.span - 1
        self._columns, self._moving = layout.positions(config.name)

    @property
    def needs(self) -> Needs:
        """The names of the position's numbers."""
        return Needs(action_names=tuple(self.layout.action[i] for i in self._columns))

    def fit(self, episodes: Sequence[Episode], rng: np.random.Generator) -> None:
        """Learns nothing."""
        del episodes, rng  # Unused: a rate of what was done.

    def trace(self, plans: Plans) -> np.ndarray:
        """Returns rates (T,), 0 to 1; 0 where there is no pair yet."""
        parts = checked(plans, self.config.name).samples[:, 0, : self.layout.execute][..., self._columns].astype(np.float64)
        n, ticks = parts.shape[1], np.asarray(plans.ticks, np.int64)
        follows = np.diff((ticks[:, None] + np.arange(n)).ravel()) == 1
        steps = parts.reshape(-1, len(self._columns))
        if not self._moving:  # of positions a pair of displacements takes three
            steps, follows = np.diff(steps, axis=0), follows[1:] & follows[:-1]
        reverses = follows & ((steps[1:] * steps[:-1]).sum(axis=1) < 0)
        t = np.arange(len(plans))
        begin = np.minimum(np.maximum(t - self.reach, 0) * n, len(follows))
        end = np.maximum((t + 1) * n - (1 if self._moving else 2), begin)
        many, pairs = (np.concatenate([[0], np.cumsum(which)]) for which in (reverses, follows))
        return np.asarray((many[end] - many[begin]) / np.maximum(pairs[end] - pairs[begin], 1))

    def arrays(self) -> dict[str, np.ndarray]:
        """Nothing was fitted."""
        return {}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back nothing."""
        del arrays  # Unused.
