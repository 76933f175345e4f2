"""RND-A: how far the chunk about to be executed lies from those of successful episodes.

Random network distillation on actions, as in the code of FIPER (Roemer et al., arXiv 2510.09459): convolutions over the time
of the first draw, all numbers of the action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.core import Needs
from robolearn.errors import BadInput
from robolearn.monitors import _networks as networks
from robolearn.monitors._base import Episode, Layout, Plans, Score, ScoreConfig, checked, scale_of
from robolearn.monitors.rnd import Distilled, distillation

STRIDE = 2  # of the first convolution


@dataclass(frozen=True)
class Config(ScoreConfig):
    """Random network distillation on executed chunks; sizes and budget as published."""

    name: str = "rnd_actions"
    channels: tuple[int, ...] = (64, 128, 256)
    """Outputs of the convolutions, the same in both networks."""
    pooled: int = 4
    """Times that are left of the horizon after them."""
    extra: tuple[int, ...] = (512, 128)
    """Further hidden layers of the network that learns."""
    out: int = 128
    """Numbers of which the distance is taken."""
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
        networks.positive(channels=self.channels, pooled=(self.pooled,), extra=self.extra, out=(self.out,))
        self.budget()

    def budget(self) -> networks.Budget:
        """Returns how the network is fitted; the rest is FIPER's code."""
        return distillation(self.name, self.epochs, self.batch, self.learning_rate, self.patience, self.held_out, overfit=10.0)


def kernels(width: int, horizon: int, count: int) -> list[int]:
    """Returns kernel sizes of `count` convolutions over a chunk (horizon, width).

    min(width, 4), then one less and two less, at most 2, as published; at least 1 and at most what is left of the horizon,
    where the published sizes fail (actions of 1 or 2 numbers, short chunks).
    """
    first = min(width, 4)
    found, left = [], horizon
    for i in range(count):
        size = max(1, min(first if i == 0 else min(first - i, 2), left))
        found.append(size)
        left = (left - size) // (STRIDE if i == 0 else 1) + 1
    return found


def convolutions(config: Config, width: int, horizon: int) -> nn.Sequential:
    """Returns what both networks begin with: chunks (B, width, horizon) to (B, channels[-1] * pooled)."""
    parts: list[nn.Module] = []
    before = width
    for i, (after, kernel) in enumerate(zip(config.channels, kernels(width, horizon, len(config.channels)), strict=True)):
        parts += [nn.Conv1d(before, after, kernel, stride=1 if i else STRIDE), nn.LeakyReLU()]
        before = after
    return nn.Sequential(*parts, nn.AdaptiveAvgPool1d(config.pooled), nn.Flatten())


def pair(config: Config, width: int, horizon: int) -> Distilled:
    """Returns both networks for chunks (B, width, horizon)."""
    flat = config.channels[-1] * config.pooled
    sizes = (flat, *config.extra)
    return Distilled(
        nn.Sequential(convolutions(config, width, horizon), nn.Linear(flat, config.out)),
        nn.Sequential(convolutions(config, width, horizon), *networks.layers(sizes, nn.ReLU), nn.Linear(sizes[-1], config.out)),
    )


class Predictor(Score):
    """Distance of two networks' outputs for the chunk that is executed, at least 0."""

    def __init__(self, config: Config, layout: Layout) -> None:
        self.config, self.layout = config, layout
        self.scale = scale_of(layout, config.name)
        self.net: Distilled | None = None

    @property
    def needs(self) -> Needs:
        """The plan alone."""
        return Needs()

    def chunks(self, plans: Plans) -> Tensor:
        """Returns the first draw of every plan (T, action, horizon), times `layout.scale` where there is one."""
        who, layout = self.config.name, self.layout
        chosen = checked(plans, who).samples[:, 0]
        want = (layout.horizon, len(layout.action))
        if chosen.shape[1:] != want:
            raise BadInput(f"{who}: wants chunks of {want[0]} ticks of {want[1]} numbers, got {chosen.shape[1:]}")
        return networks.single((chosen * self.scale).swapaxes(1, 2))

    def fit(self, episodes: Sequence[Episode], rng: np.random.Generator) -> None:
        """Learns the chunks of the episodes that succeeded; BadInput where they are fewer than 2."""
        generator = networks.seeded(rng)
        tables = networks.successes(episodes, self.config.name, self.chunks)
        x, fit, held = networks.rows(tables, self.config.held_out, generator)
        net = self._empty()
        networks.draw(net, generator, orthogonal=True)
        net.fit(x, fit, held, self.config.budget(), generator)
        self.net = net

    @torch.no_grad()
    def trace(self, plans: Plans) -> np.ndarray:
        """Returns distances (T,)."""
        net = networks.fitted(self.net, self.config.name)
        return networks.finite(net(self.chunks(plans)))

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns weights of both networks by name."""
        return networks.to_arrays(networks.fitted(self.net, self.config.name))

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back what `arrays` gave; BadInput names what does not fit."""
        net = self._empty()
        networks.from_arrays(net, arrays, self.config.name)
        self.net = net

    def _empty(self) -> Distilled:
        return networks.empty(lambda: pair(self.config, len(self.layout.action), self.layout.horizon))
