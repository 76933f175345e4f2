"""What a policy is made of: an observation encoder, a denoiser, an objective; a policy file adds `loss` and `sample`.

Everything here is batched and normalised; histories, normalizers and streams belong to `_learned.py`. Token h of an
action sequence is absolute time t-(n_obs_steps-1)+h: tokens before n_obs_steps-1 are the past, the rest is the plan.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robolearn.core import Spec
from robolearn.nets.denoiser import AtTimes, Denoiser
from robolearn.nets.mlp import MLP
from robolearn.nets.obs import ObsEncoder
from robolearn.nets.transformer import Transformer
from robolearn.nets.unet1d import UNet1d


@dataclass(frozen=True)
class PolicyConfig:
    """The choices every policy shares. Field names are the field's standard terms."""

    name: str = ""
    """Which policy: a file of robolearn/policies."""
    obs: tuple[str, ...] = ()
    """Observation keys to read; empty: all that the dataset holds and are no images."""
    n_obs_steps: int = 2
    """How many observations the policy sees, the newest included."""
    horizon: int = 16
    """How many action tokens are predicted, the n_obs_steps - 1 past ones included."""
    execute: int = 8
    """How many actions of a plan are run before the next plan."""
    denoiser: Literal["mlp", "unet1d", "transformer"] = "mlp"
    width: int = 384
    """Width of mlp and transformer."""
    depth: int = 6
    """Blocks of the mlp, layers of the transformer."""
    heads: int = 4
    """Attention heads of the transformer."""
    dims: tuple[int, ...] = (64, 128, 256)
    """Channels of the unet1d's levels."""
    dropout: float = 0.0
    """Of mlp and transformer."""
    crop: int = 0
    """Side [px] of the random (training) or centre (evaluation) crop of images; 0: none."""
    image_features: int = 64
    """Features an image is encoded to."""
    goal_dropout: float = 0.1
    """How often the goal is hidden in training, so that classifier-free guidance works; without goal keys unused."""

    def __post_init__(self) -> None:
        if self.n_obs_steps < 1 or self.execute < 1:
            raise ValueError(f"n_obs_steps and execute must be at least 1, got {self.n_obs_steps} and {self.execute}")
        if self.horizon < self.n_obs_steps - 1 + self.execute:
            raise ValueError(
                f"horizon {self.horizon} is too short: {self.n_obs_steps - 1} past and {self.execute} executed tokens "
                f"need at least {self.n_obs_steps - 1 + self.execute}"
            )


@dataclass(frozen=True)
class Batch:
    """One training batch, normalised. obs: (batch, n_obs, ...); action: (batch, horizon, action); goal: (batch, ...)."""

    obs: Mapping[str, Tensor]
    action: Tensor
    goal: Mapping[str, Tensor]

    def __len__(self) -> int:
        return self.action.shape[0]


class Draws:
    """Random numbers for a loss. In rank r of n processes each draw is rows r*B..(r+1)*B of the draw for the global batch,
    so that n processes compute what one process computes on the whole batch.
    """

    def __init__(self, generator: torch.Generator, rank: int = 0, world: int = 1) -> None:
        self.generator, self.rank, self.world = generator, rank, world

    def _mine(self, whole: Tensor, rows: int) -> Tensor:
        return whole[self.rank * rows : (self.rank + 1) * rows]

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Returns standard normal numbers of `shape` (batch first)."""
        whole = (shape[0] * self.world, *shape[1:])
        return self._mine(torch.randn(whole, generator=self.generator, device=self.generator.device), shape[0])

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Returns uniform numbers in [0, 1) of `shape` (batch first)."""
        whole = (shape[0] * self.world, *shape[1:])
        return self._mine(torch.rand(whole, generator=self.generator, device=self.generator.device), shape[0])

    def integers(self, high: int, rows: int) -> Tensor:
        """Returns integers in [0, high) of shape (rows,)."""
        whole = torch.randint(high, (rows * self.world,), generator=self.generator, device=self.generator.device)
        return self._mine(whole, rows)


class PolicyNet(nn.Module, ABC):
    """A policy's network: encode, remember, loss, sample. Batched, normalised; knows no robot and no file."""

    def __init__(self, config: PolicyConfig, spec: Spec) -> None:
        super().__init__()
        self.config = config
        self.action_dim = math.prod(spec.action.shape)
        self.goal_keys = tuple(spec.goal)
        self.encoder = ObsEncoder(
            {key: array.shape for key, array in spec.obs.items()},
            crop=(config.crop, config.crop) if config.crop else None,
            features=config.image_features,
        )
        goal_dim = sum(math.prod(array.shape) for array in spec.goal.values())
        self.cond_dim = self.encoder.dim + (goal_dim + 1 if goal_dim else 0)

    def encode(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Returns features (batch, n_obs, feature) of observations (batch, n_obs, ...)."""
        return self.encoder(obs)

    def remember(self, state: Any, features: Tensor, reset: Tensor) -> tuple[Any, Tensor]:
        """Returns (state, context); without a memory the state is kept and the context is the features."""
        del reset  # Unused: there is nothing to forget.
        return state, features

    def with_goal(self, features: Tensor, goal: Mapping[str, Tensor], shown: Tensor) -> Tensor:
        """Appends the goal, zeroed where `shown` (batch,) is 0, and `shown` itself to features (batch, n_obs, feature)."""
        if not self.goal_keys:
            return features
        flat = torch.cat([goal[key].flatten(1) for key in self.goal_keys], dim=-1) * shown[:, None]
        flat = torch.cat([flat, shown[:, None]], dim=-1)
        return torch.cat([features, flat[:, None].expand(-1, features.shape[1], -1)], dim=-1)

    def training_context(self, batch: Batch, state: Any, rng: Draws) -> tuple[Tensor, Any]:
        """Returns the condition (batch, n_obs, cond) of a batch, its goals hidden at the rate of the config, and the state."""
        reset = torch.zeros(len(batch), dtype=torch.bool, device=batch.action.device)
        state, context = self.remember(state, self.encode(batch.obs), reset)
        if self.goal_keys:
            shown = (rng.uniform((len(batch),)) >= self.config.goal_dropout).to(context.dtype)
            context = self.with_goal(context, batch.goal, shown)
        return context, state

    def make_denoiser(self) -> Denoiser:
        """Returns the denoiser that the config names: (x, t, cond) -> (batch, horizon, action)."""
        c = self.config
        shape = dict(action_dim=self.action_dim, horizon=c.horizon, n_obs=c.n_obs_steps, cond_dim=self.cond_dim)
        if c.denoiser == "unet1d":
            return UNet1d(**shape, dims=c.dims)
        if c.denoiser == "transformer":
            return Transformer(**shape, width=c.width, layers=c.depth, heads=c.heads, dropout=c.dropout)
        return MLP(**shape, width=c.width, blocks=c.depth, dropout=c.dropout)

    def forward(self, batch: Batch, state: Any, rng: Draws) -> tuple[Tensor, Any]:
        """The loss, under the name that DistributedDataParallel and torch.compile wrap."""
        return self.loss(batch, state, rng=rng)

    @abstractmethod
    def loss(self, batch: Batch, state: Any, *, rng: Draws) -> tuple[Tensor, Any]:
        """Returns the mean training loss of a batch and the memory after it."""

    @abstractmethod
    def sample(self, context: Tensor, noise: Tensor, *, guidance: float = 1.0, unguided: Tensor | None = None) -> Tensor:
        """Returns actions (batch, horizon, action) for a condition (batch, n_obs, cond).

        noise: (noise_draws, batch, horizon, action), all the randomness there is. guidance, with `unguided` the
        condition without its goal: classifier-free guidance (Ho & Salimans 2022), 1 = plain conditional.
        """

    def noise_draws(self) -> int:
        """Returns how many noise tensors `sample` uses."""
        return 1


def guided(
    denoiser: Denoiser, context: Tensor, times: Sequence[float], guidance: float, unguided: Tensor | None
) -> Callable[[Tensor, float], Tensor]:
    """Returns f(x, t), the denoiser's output under `context`: without + guidance * (with - without) where `unguided` is given.

    times: those at which f will be asked; they are prepared together.
    """
    conditional = AtTimes(denoiser, context, times)
    if unguided is None:
        return conditional
    without = AtTimes(denoiser, unguided, times)

    def output(x: Tensor, t: float) -> Tensor:
        free = without(x, t)
        return free + guidance * (conditional(x, t) - free)

    return output
