"""The smallest denoiser: residual blocks on the flattened chunk, modulated by condition and time."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.nets.denoiser import Denoiser
from robolearn.nets.dropout import Dropout
from robolearn.nets.embeddings import Sinusoidal, times


class MLP(Denoiser):
    """Maps x (B, H, Da), t (B,) in [0, 1] and cond (B, To, Dc) to (B, H, Da) through `blocks` residual blocks."""

    def __init__(
        self,
        action_dim: int,
        horizon: int,
        n_obs: int,
        cond_dim: int,
        width: int = 384,
        blocks: int = 6,
        expansion: int = 2,
        step_dim: int = 128,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.shape = (horizon, action_dim)
        self.enter = nn.Linear(horizon * action_dim, width)
        self.cond = nn.Linear(n_obs * cond_dim, width)
        self.step = nn.Sequential(Sinusoidal(step_dim), nn.Linear(step_dim, width))
        self.film = nn.Linear(width, blocks * 2 * width)  # scale and bias of all blocks in one product
        self.blocks = nn.ModuleList(Block(width, expansion, dropout) for _ in range(blocks))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, horizon * action_dim))
        nn.init.zeros_(self.leave[1].weight)
        nn.init.zeros_(self.leave[1].bias)

    def condition(self, cond: Tensor) -> Tensor:
        """Returns what all steps of one plan share: the embedded condition (B, width)."""
        return self.cond(cond.flatten(1))

    def modulate(self, t: Tensor | None, context: Tensor) -> Tensor:
        """Returns scale and bias of all blocks (B, blocks * 2 * width) at time t under a context from `condition`."""
        return self.film(F.silu(context + self.step(times(t, context))))

    def denoise(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Returns the output (B, H, Da) for x under a modulation from `modulate`."""
        film = modulation.chunk(2 * len(self.blocks), dim=-1)
        h = self.enter(x.flatten(1))
        for i, block in enumerate(self.blocks):
            h = block(h, film[2 * i], film[2 * i + 1])
        return self.leave(h).view(-1, *self.shape)


class Block(nn.Module):
    """h + W2 gelu(W1 (norm(h) (1 + scale) + bias)), as a transformer's feed-forward part with FiLM."""

    region = True  # torch.compile works on this block, once for all copies of one shape

    def __init__(self, width: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, expansion * width)
        self.down = nn.Linear(expansion * width, width)
        self.dropout = Dropout(dropout)

    def forward(self, h: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        inner = self.norm(h) * (1 + scale) + bias
        return h + self.down(self.dropout(F.gelu(self.up(inner))))
