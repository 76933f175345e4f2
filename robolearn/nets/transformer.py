"""The decoder transformer of Diffusion Policy with the causal masks that past-token prediction relies on (arXiv 2505.09561)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.nets.denoiser import Denoiser
from robolearn.nets.dropout import Dropout
from robolearn.nets.embeddings import Sinusoidal, times


class Context(NamedTuple):
    """Keys and values (B, heads, tokens, width/heads) of the condition tokens in every layer's cross-attention."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


class Transformer(Denoiser):
    """Maps x (B, H, Da), t (B,) in [0, 1] and cond (B, To, Dc) to (B, H, Da).

    Condition tokens: 0 is the time, 1+k is observation k. Action token h sees action tokens h' <= h, the time, and
    observation k only where it is not later: action_ticks[h] >= obs_ticks[k] (without ticks: h >= k). With `causal=False`
    everything sees everything, with `cross_causal=False` every action token sees every observation.
    """

    self_mask: Tensor | None
    cross_mask: Tensor | None

    def __init__(
        self,
        action_dim: int,
        horizon: int,
        n_obs: int,
        cond_dim: int,
        width: int = 256,
        layers: int = 8,
        heads: int = 4,
        dropout: float = 0.3,
        causal: bool = True,
        cross_causal: bool = True,
        obs_ticks: Sequence[int] = (),
        action_ticks: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.step = Sinusoidal(width)
        self.cond = nn.Linear(cond_dim, width)
        self.cond_positions = nn.Parameter(torch.empty(1 + n_obs, width))
        self.cond_mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        self.enter = nn.Linear(action_dim, width)
        self.positions = nn.Parameter(torch.empty(horizon, width))
        self.layers = nn.ModuleList(Layer(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, action_dim)
        tokens = torch.arange(horizon)
        seen = torch.tensor(obs_ticks or range(n_obs)) <= torch.tensor(action_ticks or range(horizon))[:, None]
        seen = torch.cat((torch.ones(horizon, 1, dtype=torch.bool), seen), dim=1)  # the time is always seen
        self.register_buffer("self_mask", tokens[:, None] >= tokens if causal else None, persistent=False)
        self.register_buffer("cross_mask", seen if causal and cross_causal else None, persistent=False)
        self.apply(_initialise)
        nn.init.normal_(self.positions, std=0.02)
        nn.init.normal_(self.cond_positions, std=0.02)

    def condition(self, cond: Tensor) -> Context:
        """Returns what all steps of one plan share: every layer's keys and values of the observation tokens."""
        return self._seen(self.cond_mlp(self.cond(cond) + self.cond_positions[1:]))

    def modulate(self, t: Tensor | None, context: Context) -> Context:
        """Returns every layer's keys and values of all condition tokens: the time t, then those of a context from `condition`."""
        now = self._seen(self.cond_mlp(self.step(times(t, context.keys[0])) + self.cond_positions[0])[:, None])
        keys, values = zip(now.keys, context.keys, strict=True), zip(now.values, context.values, strict=True)
        return Context(tuple(torch.cat(pair, dim=2) for pair in keys), tuple(torch.cat(pair, dim=2) for pair in values))

    def denoise(self, x: Tensor, modulation: Context) -> Tensor:
        """Returns the output (B, H, Da) for x under a modulation from `modulate`."""
        h = self.enter(x) + self.positions
        for layer, keys, values in zip(self.layers, modulation.keys, modulation.values, strict=True):
            h = layer(h, keys, values, self.self_mask, self.cross_mask)
        return self.leave(self.norm(h))

    def _seen(self, tokens: Tensor) -> Context:
        pairs = [layer.cross.keys_values(tokens) for layer in self.layers]
        return Context(tuple(key for key, _ in pairs), tuple(value for _, value in pairs))


class Layer(nn.Module):
    """One pre-norm decoder layer: self-attention, cross-attention to time and observations, feed-forward."""

    region = True  # torch.compile works on this block, once for all copies of one shape

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend = Attention(width, heads, dropout)
        self.cross = Attention(width, heads, dropout)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = Dropout(dropout)

    def forward(self, h: Tensor, keys: Tensor, values: Tensor, self_mask: Tensor | None, cross_mask: Tensor | None) -> Tensor:
        inner = self.norm1(h)
        h = h + self.dropout(self.attend(inner, *self.attend.keys_values(inner), self_mask))
        h = h + self.dropout(self.cross(self.norm2(h), keys, values, cross_mask))
        return h + self.dropout(self.down(self.dropout(F.gelu(self.up(self.norm3(h))))))


class Attention(nn.Module):
    """Multi-head attention whose keys and values can be computed apart from its queries."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, Dropout(dropout)
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)

    def keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Returns keys and values (B, heads, S, width/heads) of tokens (B, S, width)."""
        key, value = self.key_value(tokens).chunk(2, dim=-1)
        return self._split(key), self._split(value)

    def forward(self, h: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        query = self._split(self.query(h))
        if self.training and self.dropout.rate:
            scores = query * query.shape[-1] ** -0.5 @ keys.transpose(-1, -2)
            scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
            seen = self.dropout(scores.softmax(dim=-1)) @ values
        else:
            seen = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        return self.out(seen.transpose(1, 2).flatten(2))

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
