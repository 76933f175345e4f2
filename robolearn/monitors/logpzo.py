"""logpZO: the noise that a flow makes of the policy's embedding, and how long it is.

Xu et al., "Can We Detect Failures Without Failure Data?" (FAIL-Detect, arXiv 2503.08558): flow matching from embeddings (time
0) to normal noise (time 1), x_t = (1 - t) x + t e, velocity e - x; the score is the square of the noise an embedding goes to.
As published one Euler step makes it. As e is independent of x, the best velocity at time 0 is -x and the score of a perfect
network is 0: one step measures how wrong the regression is there, as an autoencoder would. Only many steps tend to the
chi-square law of the published argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.core import Needs
from robolearn.monitors import _networks as networks
from robolearn.monitors._base import Episode, Layout, Plans, Score, ScoreConfig
from robolearn.nets.embeddings import Sinusoidal

REPEATS = 8  # times and noises drawn for every held-out plan, so that the epoch is chosen by more than luck


@dataclass(frozen=True)
class Config(ScoreConfig):
    """Flow matching from embeddings to noise; sizes and budget as in FIPER's code."""

    name: str = "logpzo"
    widths: tuple[int, ...] = (256, 512, 1024)
    """Layers of the U-Net on its way down; back up in reverse."""
    time: int = 256
    """Numbers that embed the time, an even number from 4."""
    euler_steps: int = 1
    """Steps from embedding to noise; 1 as published, many for a density."""
    epochs: int = 1000
    """Passes over the plans, at most."""
    batch: int = 256
    """Plans a step."""
    patience: int = 0
    """Epochs without a better held-out loss after which fitting ends; 0: never."""
    learning_rate: float = 1e-4
    """Of Adam."""
    held_out: float = 0.1
    """Share of the episodes that only choose the epoch."""

    def __post_init__(self) -> None:
        networks.positive(widths=self.widths, euler_steps=(self.euler_steps,))
        if self.time < 4 or self.time % 2:
            raise ValueError(f"time: want an even number of at least 4, got {self.time}")
        self.budget()

    def budget(self) -> networks.Budget:
        """Returns how the network is fitted."""
        return networks.Budget(self.name, self.epochs, self.batch, self.learning_rate, self.patience, self.held_out)


def integrate(field: Callable[[Tensor, float], Tensor], x: Tensor, steps: int) -> Tensor:
    """Returns x(1) of dx/dt = field(x, t) from x(0) = x (B, d), in equal Euler steps."""
    for k in range(steps):
        x = x + field(x, k / steps) / steps
    return x


class Level(nn.Module):
    """A linear layer to which the embedded time adds."""

    def __init__(self, before: int, after: int, time: int) -> None:
        super().__init__()
        self.of_x, self.of_time = nn.Linear(before, after), nn.Linear(time, after)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return nn.functional.mish(self.of_x(x) + self.of_time(time))


class Flow(nn.Module):
    """Velocity (B, d) of x (B, d) at times t (B,) in [0, 1]: a U-Net of linear layers, each level beside its mirror image."""

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        time, widths = config.time, config.widths
        self.time = time
        self.embed = nn.Sequential(nn.Linear(time, 4 * time), nn.Mish(), nn.Linear(4 * time, time))
        self.down = nn.ModuleList(Level(a, b, time) for a, b in pairwise((width, *widths)))
        self.up = nn.ModuleList(Level(a + b, b, time) for a, b in pairwise(widths[::-1]))
        self.leave = nn.Linear(widths[0], width)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = self.embed(Sinusoidal(self.time)(t))  # made here: an empty network has no buffers
        passed = []
        for level in self.down:
            x = level(x, time)
            passed.append(x)
        for level, beside in zip(self.up, passed[-2::-1], strict=True):
            x = level(torch.cat((x, beside), dim=-1), time)
        return self.leave(x)

    def at(self, x: Tensor, t: float) -> Tensor:
        """Returns the velocity (B, d) at one time."""
        return self(x, torch.full((len(x),), t))


def flow_loss(flow: Flow, x: Tensor, rng: torch.Generator) -> Tensor:
    """Returns the mean squared error of the velocity at uniform times between x (B, d) and normal noise."""
    noise = torch.randn(x.shape, generator=rng)
    t = torch.rand(len(x), generator=rng)
    return nn.functional.mse_loss(flow(torch.lerp(x, noise, t[:, None]), t), noise - x)


class Predictor(Score):
    """Square of the noise that the embedding goes to, at least 0."""

    def __init__(self, config: Config, layout: Layout) -> None:
        self.config, self.layout = config, layout
        self.net: Flow | None = None

    @property
    def needs(self) -> Needs:
        """Embeddings."""
        return Needs(features=True)

    def fit(self, episodes: Sequence[Episode], rng: np.random.Generator) -> None:
        """Learns the flow of the episodes that succeeded, and keeps its best epoch; BadInput where they are fewer than 2."""
        config, generator = self.config, networks.seeded(rng)
        x, fit, held = networks.rows(networks.embedded(episodes, config.name), config.held_out, generator)
        flow = networks.empty(lambda: Flow(config, x.shape[1]))
        networks.draw(flow, generator)
        networks.train(
            flow, lambda which, rng: flow_loss(flow, x[which], rng), fit, held.repeat(REPEATS), config.budget(), generator
        )
        self.net = flow

    @torch.no_grad()
    def trace(self, plans: Plans) -> np.ndarray:
        """Returns squared lengths (T,)."""
        flow = networks.fitted(self.net, self.config.name)
        x = networks.embeddings(plans, self.config.name, flow.leave.out_features)
        return networks.finite(integrate(flow.at, x, self.config.euler_steps).double().square().sum(-1))

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the network's weights by name."""
        flow = networks.fitted(self.net, self.config.name)
        return networks.to_arrays(flow, flow.leave.out_features)

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back what `arrays` gave; BadInput names what does not fit."""
        self.net = networks.restored(lambda width: Flow(self.config, width), arrays, self.config.name)
