"""ACT: a conditional VAE with a transformer that decodes a whole chunk of actions at once.

Zhao et al., "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware" (arXiv 2304.13705), Algorithms 1-2:
L1 reconstruction plus beta * KL, latent 0 (the prior's mean) at test time. Observation tokens replace the paper's image
patches where observations are low-dimensional.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robolearn.core import Spec
from robolearn.policies._base import Batch, Draws, PolicyConfig, PolicyNet


@dataclass(frozen=True)
class Config(PolicyConfig):
    """ACT; width, depth and heads are the transformer's, the denoiser field is unused."""

    name: str = "act"
    width: int = 256
    depth: int = 4
    """Encoder layers (of the latent's encoder and of the observation encoder)."""
    decoder_layers: int = 1
    """The official code's effective number: its further layers receive no gradient."""
    latent: int = 32
    kl_weight: float = 10.0
    dropout: float = 0.1


class Net(PolicyNet):
    """Latent encoder (training only), observation encoder, chunk decoder."""

    config: Config

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        w = config.width
        layer = dict(d_model=w, nhead=config.heads, dim_feedforward=4 * w, dropout=config.dropout, batch_first=True)
        self.obs_in = nn.Linear(self.cond_dim, w)
        self.action_in = nn.Linear(self.action_dim, w)
        self.latent_in = nn.Linear(config.latent, w)
        self.summary = nn.Parameter(0.02 * torch.randn(1, 1, w))
        self.style_position = nn.Parameter(0.02 * torch.randn(1 + config.n_obs_steps + config.horizon, w))
        self.obs_position = nn.Parameter(0.02 * torch.randn(1 + config.n_obs_steps, w))
        self.query = nn.Parameter(0.02 * torch.randn(config.horizon, w))
        self.style = nn.TransformerEncoder(nn.TransformerEncoderLayer(**layer), config.depth, enable_nested_tensor=False)
        self.scene = nn.TransformerEncoder(nn.TransformerEncoderLayer(**layer), config.depth, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**layer), config.decoder_layers)
        self.to_latent = nn.Linear(w, 2 * config.latent)
        self.out = nn.Linear(w, self.action_dim)

    def loss(self, batch: Batch, state: Any, *, rng: Draws) -> tuple[Tensor, Any]:
        """L1 error of the chunk plus kl_weight times the KL divergence to N(0, 1) (Algorithm 1)."""
        cond, state = self.training_context(batch, state, rng)
        tokens = [self.summary.expand(len(batch), -1, -1), self.obs_in(cond), self.action_in(batch.action)]
        summary = self.style(torch.cat(tokens, dim=1) + self.style_position)[:, 0]
        mean, log_var = self.to_latent(summary).chunk(2, dim=-1)
        latent = mean + (0.5 * log_var).exp() * rng.normal(tuple(mean.shape))
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(-1).mean()
        error = nn.functional.l1_loss(self.counted(self._decode(cond, latent)), self.counted(batch.action))
        return error + self.config.kl_weight * kl, state

    def sample(self, context: Tensor, noise: Tensor, *, guidance: float = 1.0, unguided: Tensor | None = None) -> Tensor:
        """Decodes the prior's mean (Algorithm 2)."""
        del noise, guidance, unguided  # Unused: the latent is zero and there is no score.
        return self._decode(context, context.new_zeros(context.shape[0], self.config.latent))

    def noise_draws(self) -> int:
        """None is used."""
        return 0

    def _decode(self, cond: Tensor, latent: Tensor) -> Tensor:
        tokens = torch.cat([self.latent_in(latent)[:, None], self.obs_in(cond)], dim=1) + self.obs_position
        return self.out(self.decoder(self.query.expand(cond.shape[0], -1, -1), self.scene(tokens)))
