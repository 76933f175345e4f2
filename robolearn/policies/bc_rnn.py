"""BC-RNN-GMM: an LSTM reads the observations, unrolls over the chunk, and a Gaussian mixture gives the actions.

Mandlekar et al., "What Matters in Learning from Offline Human Demonstrations" (arXiv 2108.03298), who emit one action a
step. Here the mixture is over whole chunks (one component a chunk), so that a chunk never mixes two ways of doing the
task; with n_obs_steps = horizon = execute = 1 both are the same. As there, the LSTM starts from zero at the window's
first observation, means pass through tanh, and sampling takes a component and its mean (their low-noise evaluation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robolearn.core import Spec
from robolearn.policies._base import Batch, Draws, PolicyConfig, PolicyNet


@dataclass(frozen=True)
class Config(PolicyConfig):
    """LSTM with a mixture head; width and depth are the LSTM's, the denoiser fields are unused."""

    name: str = "bc_rnn"
    width: int = 400
    depth: int = 2
    modes: int = 5
    """Components of the mixture."""
    min_std: float = 0.0001
    """Added to each standard deviation (normalised action units)."""


class Net(PolicyNet):
    """LSTM over observations, then over action tokens."""

    config: Config

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        self.read = nn.LSTM(self.cond_dim, config.width, config.depth, batch_first=True, dropout=config.dropout)
        self.write = nn.LSTM(config.width, config.width, config.depth, batch_first=True, dropout=config.dropout)
        self.token = nn.Parameter(0.02 * torch.randn(config.horizon, config.width))
        self.mean = nn.Linear(config.width, config.modes * self.action_dim)
        self.log_std = nn.Linear(config.width, config.modes * self.action_dim)
        self.logits = nn.Linear(config.width, config.modes)

    def _mixture(self, cond: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns log weights (batch, mode), means and stds (batch, mode, horizon, action)."""
        seen, memory = self.read(cond)
        hidden, _ = self.write(self.token.expand(cond.shape[0], -1, -1) + seen[:, -1:], memory)
        split = (self.config.modes, self.action_dim)
        mean = torch.tanh(self.mean(hidden)).unflatten(-1, split).transpose(1, 2)
        std = nn.functional.softplus(self.log_std(hidden)).unflatten(-1, split).transpose(1, 2) + self.config.min_std
        return self.logits(seen[:, -1]).log_softmax(-1), mean, std

    def loss(self, batch: Batch, state: Any, *, rng: Draws) -> tuple[Tensor, Any]:
        """Negative log-likelihood of the chunk per action number [nats]."""
        cond, state = self.training_context(batch, state, rng)
        weight, mean, std = self._mixture(cond)
        z = (batch.action[:, None] - mean) / std
        first, numbers = self.config.first_counted, self.counted(batch.action)[0].numel()
        density = -(0.5 * z.square() + std.log() + 0.5 * math.log(2 * math.pi))[:, :, first:].sum(dim=(-2, -1))  # (batch, mode)
        return -torch.logsumexp(weight + density, dim=-1).mean() / numbers, state

    def sample(self, context: Tensor, noise: Tensor, *, guidance: float = 1.0, unguided: Tensor | None = None) -> Tensor:
        """Draws a component and returns its mean."""
        del guidance, unguided  # Unused: a mixture has no score to guide.
        weight, mean, _ = self._mixture(context)
        u = 0.5 * (1 + torch.erf(noise[0, :, 0, 0] / math.sqrt(2.0)))  # a uniform number from the given normal one
        mode = (weight.exp().cumsum(-1) < u[:, None]).sum(-1).clamp(max=self.config.modes - 1)
        return mean[torch.arange(len(mode), device=mode.device), mode]
