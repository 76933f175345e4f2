"""SAFE-LSTM: how likely a failure is after all embeddings so far, learnt from successes and failures.

Gu et al., "SAFE: Multitask Failure Detection for Vision-Language-Action Models" (arXiv 2506.09937): s_t = sigmoid(w h_t) of one
LSTM over the embeddings, cross-entropy at every plan against the label of its episode.
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
    """SAFE with an LSTM; sizes and budget as published."""

    name: str = "safe_lstm"
    hidden: int = 256
    """Numbers of the LSTM's state."""
    early: bool = False
    """Weighs the loss of failures by 5 exp(-3 t / T) + 1, so that they look like failures soon; an option of SAFE's code."""
    epochs: int = 1000
    """Passes over the episodes, at most."""
    batch: int = 64
    """Episodes a step."""
    patience: int = 0
    """Epochs without a better held-out loss after which fitting ends; 0: never."""
    learning_rate: float = 3e-4
    """Of Adam; swept from 1e-4 to 1e-3 as published."""
    penalty: float = 1e-2
    """Times the sum of squared weights, added to the loss; swept from 1e-3 to 1 as published."""
    held_out: float = 0.0
    """Share of the episodes of either class that only choose the epoch; 0, as published: the last epoch it is."""

    def __post_init__(self) -> None:
        networks.positive(hidden=(self.hidden,))
        self.budget()

    def budget(self) -> networks.Budget:
        """Returns how the network is fitted."""
        sizes = self.epochs, self.batch, self.learning_rate, self.patience, self.held_out
        return networks.Budget(self.name, *sizes, ridge=self.penalty)


class Logits(nn.Module):
    """Embeddings (k, T, width) to the logits of a failure (k, T), each from the embeddings up to it."""

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        self.width = width
        self.lstm = nn.LSTM(width, config.hidden, batch_first=True)
        self.leave = nn.Linear(config.hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.lstm(x)[0])[..., 0]


def losses(logits: Tensor, real: Tensor, failed: Tensor, early: bool = False) -> Tensor:
    """Returns the loss of each episode (k,): the mean cross-entropy of its plans against its label.

    logits: (k, T) of a network; real: (k, T) false where an episode is over; failed: (k,); early: see `Config`.
    """
    wanted = failed[:, None].to(logits.dtype).expand_as(logits)
    each = nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    if early:
        each = torch.where(failed[:, None], each * networks.early_weight(real), each)
    return (each * real).sum(1) / real.sum(1)


def learn(config: Config, data: networks.Labelled, generator: torch.Generator) -> Logits:
    """Returns a network fitted to labelled episodes, of whichever classes."""
    return networks.learn_labelled(
        lambda width: Logits(config, width), partial(losses, early=config.early), data, config.budget(), generator
    )


class Predictor(Score):
    """The probability of a failure, between 0 and 1; it needs failures to fit to."""

    reach = -1
    supervised = True

    def __init__(self, config: Config, layout: Layout) -> None:
        self.config, self.layout = config, layout
        self.net: Logits | None = None

    @property
    def needs(self) -> Needs:
        """Embeddings."""
        return Needs(features=True)

    def fit(self, episodes: Sequence[Episode], rng: np.random.Generator) -> None:
        """Learns from successes and failures; BadInput says which is missing."""
        self.net = learn(self.config, networks.Labelled.of(episodes, self.config.name), networks.seeded(rng))

    @torch.no_grad()
    def trace(self, plans: Plans) -> np.ndarray:
        """Returns probabilities (T,)."""
        net = networks.fitted(self.net, self.config.name)
        x = networks.embeddings(plans, self.config.name, net.width)
        return networks.finite(net(x[None])[0].sigmoid(), ceiling=1.0)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the network's weights by name."""
        net = networks.fitted(self.net, self.config.name)
        return networks.to_arrays(net, net.width)

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back what `arrays` gave; BadInput names what does not fit."""
        self.net = networks.restored(lambda width: Logits(self.config, width), arrays, self.config.name)
