"""SAFE-MLP: a running sum of how much each embedding looks like a failure, learnt from successes and failures.

Gu et al., "SAFE: Multitask Failure Detection for Vision-Language-Action Models" (arXiv 2506.09937): s_t is the sum over plans
1 .. t of sigmoid(g(e)), so 0 < s_t < t and it never falls; an episode that failed is to reach t, one that succeeded to stay 0.
Only the episode is labelled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.core import Needs
from robolearn.monitors import _networks as networks
from robolearn.monitors._base import Episode, Layout, Plans, Score, ScoreConfig


@dataclass(frozen=True)
class Config(ScoreConfig):
    """SAFE with an MLP; sizes and budget as published."""

    name: str = "safe_mlp"
    hidden: tuple[int, ...] = (256,)
    """Hidden layers."""
    early: bool = False
    """Weighs the loss of failures by 5 exp(-3 t / T) + 1, so that they look like failures soon; an option of SAFE's code."""
    epochs: int = 1000
    """Passes over the episodes, at most."""
    batch: int = 64
    """Episodes a step."""
    patience: int = 0
    """Epochs without a better held-out loss after which fitting ends; 0: never."""
    learning_rate: float = 1e-3
    """Of Adam; swept from 1e-4 to 1e-3 as published."""
    penalty: float = 1e-2
    """Times the sum of squared weights, added to the loss; swept from 1e-3 to 1 as published."""
    held_out: float = 0.0
    """Share of the episodes of either class that only choose the epoch; 0, as published: the last epoch it is."""

    def __post_init__(self) -> None:
        networks.positive(hidden=self.hidden)
        self.budget()

    def budget(self) -> networks.Budget:
        """Returns how the network is fitted."""
        sizes = self.epochs, self.batch, self.learning_rate, self.patience, self.held_out
        return networks.Budget(self.name, *sizes, ridge=self.penalty)


class Rates(nn.Module):
    """Embeddings (..., T, width) to what each adds to the score (..., T), between 0 and 1."""

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        self.width = width
        sizes = (width, *config.hidden)
        self.g = nn.Sequential(*networks.layers(sizes, nn.ReLU), nn.Linear(sizes[-1], 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.g(x)[..., 0].sigmoid()


def losses(rates: Tensor, real: Tensor, failed: Tensor, early: bool = False) -> Tensor:
    """Returns the loss of each episode (k,): the sum over its plans of t - s_t if it failed, of s_t if not.

    rates: (k, T) of a network; real: (k, T) false where an episode is over; failed: (k,); early: see `Config`.
    """
    s = (rates * real).cumsum(1)
    t = torch.arange(1, s.shape[1] + 1)
    of_failure = (t - s) * networks.early_weight(real) if early else t - s
    return (torch.where(failed[:, None], of_failure, s) * real).sum(1)


def learn(config: Config, data: networks.Labelled, generator: torch.Generator) -> Rates:
    """Returns a network fitted to labelled episodes, of whichever classes."""
    return networks.learn_labelled(
        lambda width: Rates(config, width), partial(losses, early=config.early), data, config.budget(), generator
    )


class Predictor(Score):
    """The running sum, which never falls; it needs failures to fit to."""

    reach = -1
    supervised = True

    def __init__(self, config: Config, layout: Layout) -> None:
        self.config, self.layout = config, layout
        self.net: Rates | None = None

    @property
    def needs(self) -> Needs:
        """Embeddings."""
        return Needs(features=True)

    def fit(self, episodes: Sequence[Episode], rng: np.random.Generator) -> None:
        """Learns from successes and failures; BadInput says which is missing."""
        self.net = learn(self.config, networks.Labelled.of(episodes, self.config.name), networks.seeded(rng))

    @torch.no_grad()
    def trace(self, plans: Plans) -> np.ndarray:
        """Returns sums (T,), each between 0 and the number of plans so far."""
        net = networks.fitted(self.net, self.config.name)
        return networks.finite(net(networks.embeddings(plans, self.config.name, net.width)), ceiling=1.0).cumsum()

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the network's weights by name."""
        net = networks.fitted(self.net, self.config.name)
        return networks.to_arrays(net, net.width)

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back what `arrays` gave; BadInput names what does not fit."""
        self.net = networks.restored(lambda width: Rates(self.config, width), arrays, self.config.name)
