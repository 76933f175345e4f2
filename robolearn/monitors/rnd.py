"""RND-OE: how far the policy's embedding of the observation lies from those of successful episodes.

Random network distillation on observation embeddings, as in FIPER (Roemer et al., arXiv 2510.09459): a frozen random network
and one that learnt to give the same outputs where it was fitted. They differ where it was not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.core import Needs
from robolearn.monitors import _networks as networks
from robolearn.monitors import _packed
from robolearn.monitors._base import Episode, Layout, Plans, Score, ScoreConfig


@dataclass(frozen=True)
class Config(ScoreConfig):
    """Random network distillation on embeddings; sizes and budget as published."""

    name: str = "rnd"
    hidden: tuple[int, ...] = (1024, 2048, 4096)
    """Hidden layers of the random network, and the first ones of the network that learns it."""
    extra: tuple[int, ...] = (2048, 1024)
    """Further hidden layers of the network that learns."""
    out: int = 512
    """Numbers of which the distance is taken."""
    standardise: bool = False
    """Scales every number of the embedding to mean 0 and variance 1 over the fit split; the published score takes it raw."""
    bits: Literal[32, 8] = 32
    """Of a weight; with 8 the networks of published size score a plan in 0.6 of the time, and a folder is a quarter as large."""
    epochs: int = 250
    """Passes over the plans, at most."""
    batch: int = 256
    """Plans a step."""
    patience: int = 7
    """Epochs without a better held-out loss after which fitting ends; 0: never."""
    learning_rate: float = 1e-4
    """Of AdamW at first; a cosine takes it to a hundredth."""
    held_out: float = 0.1
    """Share of the episodes that only choose the epoch."""

    def __post_init__(self) -> None:
        networks.positive(hidden=self.hidden, extra=self.extra, out=(self.out,))
        self.budget()

    def budget(self) -> networks.Budget:
        """Returns how the network is fitted; the rest is FIPER's code."""
        return distillation(self.name, self.epochs, self.batch, self.learning_rate, self.patience, self.held_out, overfit=5.0)


def distillation(
    who: str, epochs: int, batch: int, rate: float, patience: int, held_out: float, overfit: float
) -> networks.Budget:
    """Returns a budget with what both distillations of FIPER's code share: cosine to rate / 100, weight decay 1e-5."""
    return networks.Budget(who, epochs, batch, rate, patience, held_out, floor=rate / 100, decay=1e-5, overfit=overfit)


class Distilled(nn.Module):
    """A frozen random network and one that learns its outputs; maps (B, ...) to how far they are apart, float64 (B,).

    Burda et al., "Exploration by Random Network Distillation" (arXiv 1810.12894).
    """

    def __init__(self, target: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.target, self.predictor = target.requires_grad_(False), predictor

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(self.predictor(x).double() - self.target(x).double(), dim=-1)

    def fit(self, x: Tensor, fit: Tensor, held: Tensor, budget: networks.Budget, rng: torch.Generator) -> None:
        """Fits the predictor to the target on rows of x (rows, ...) by their mean distance; fit, held: numbers of rows."""
        with torch.no_grad():
            wanted = torch.cat([self.target(some) for some in x.split(budget.batch)])

        def loss(which: Tensor, rng: torch.Generator) -> Tensor:
            del rng  # Unused: nothing is drawn.
            return torch.linalg.vector_norm(self.predictor(x[which]) - wanted[which], dim=-1).mean()

        networks.train(self.predictor, loss, fit, held, budget, rng)


class Novelty(nn.Module):
    """Embeddings (B, width), scaled, to their distance (B,)."""

    mean: Tensor
    spread: Tensor

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        sizes = (width, *config.hidden)
        target = nn.Sequential(*networks.layers(sizes, nn.LeakyReLU), nn.Linear(sizes[-1], config.out))
        further = (sizes[-1], *config.extra)
        predictor = nn.Sequential(
            *networks.layers(sizes, nn.LeakyReLU), *networks.layers(further, nn.ReLU), nn.Linear(further[-1], config.out)
        )
        self.pair = Distilled(target, predictor)
        self.register_buffer("mean", torch.empty(width))
        self.register_buffer("spread", torch.empty(width))

    @staticmethod
    def unfilled(config: Config, width: int) -> Novelty:
        """Returns the network as it is after fitting, its numbers not set."""
        net = Novelty(config, width)
        if config.bits == 8:
            net.pair.target, net.pair.predictor = map(_packed.unfilled, (net.pair.target, net.pair.predictor))
        return net

    def scaled(self, x: Tensor) -> Tensor:
        """Returns embeddings as the networks see them."""
        return (x - self.mean) / self.spread

    def forward(self, x: Tensor) -> Tensor:
        return self.pair(self.scaled(x))


class Predictor(Score):
    """Distance of two networks' outputs for the embedding, at least 0.

    `standardise` is there for encoders whose numbers differ in scale: the score is nearly proportional to the embedding's
    length (the networks are almost homogeneous), so that a few large numbers drown the others, and an embedding with a
    large common offset looks novel or not by that offset alone.
    """

    def __init__(self, config: Config, layout: Layout) -> None:
        self.config, self.layout = config, layout
        self.net: Novelty | None = None

    @property
    def needs(self) -> Needs:
        """Embeddings."""
        return Needs(features=True)

    def fit(self, episodes: Sequence[Episode], rng: np.random.Generator) -> None:
        """Learns the embeddings of the episodes that succeeded; BadInput where they are fewer than 2."""
        config, generator = self.config, networks.seeded(rng)
        x, fit, held = networks.rows(networks.embedded(episodes, config.name), config.held_out, generator)
        net = networks.empty(lambda: Novelty(config, x.shape[1]))
        networks.draw(net, generator, orthogonal=True)
        net.mean.zero_()
        net.spread.fill_(1)
        if config.standardise:
            spread = x.double().std(0, correction=0).float()
            net.mean.copy_(x.double().mean(0))
            net.spread.copy_(torch.where(spread > 0, spread, 1))  # a number that never varies is only centred
        if config.bits == 8:  # the frozen network first: what is learned is what it will be
            net.pair.target = _packed.packed(net.pair.target)
        net.pair.fit(net.scaled(x), fit, held, config.budget(), generator)
        if config.bits == 8:
            net.pair.predictor = _packed.packed(net.pair.predictor)
        self.net = net

    @torch.no_grad()
    def trace(self, plans: Plans) -> np.ndarray:
        """Returns distances (T,)."""
        net = networks.fitted(self.net, self.config.name)
        return networks.finite(net(networks.embeddings(plans, self.config.name, len(net.mean))))

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns weights and scales of both networks by name."""
        net = networks.fitted(self.net, self.config.name)
        return networks.to_arrays(net, len(net.mean))

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back what `arrays` gave; BadInput names what does not fit."""
        self.net = networks.restored(lambda width: Novelty.unfilled(self.config, width), arrays, self.config.name)
