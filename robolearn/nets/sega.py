"""Self-evolving gated attention: a memory of fixed size that reads observations, is read by them, and gates its own update.

Gui et al., "SeedPolicy" (arXiv 2603.05117). Per update: layers let a state of `slots` tokens and the observation tokens
attend to themselves and to each other; the mean of the state's own cross-attention logits is the gate. Where paper and
released code differ, the code is the default and the paper an option (`keys="after"`).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Gate = Literal["attention", "none", "mlp"]
Keys = Literal["before", "after"]


class Sega(nn.Module):
    """Maps a state (B, slots, width) and observation tokens (B, To, width) to the next state and the context (B, To, width).

    gate: "attention" is the method; "none" always overwrites; "mlp" is a learned gate per slot (the paper's ablation).
    keys: the other stream's tokens are read "before" (released code) or "after" (paper) their own self-attention.
    """

    region = True  # torch.compile works on a whole update: many small operations, twice as fast on a CPU

    def __init__(
        self,
        width: int = 256,
        slots: int = 60,
        layers: int = 6,
        heads: int = 8,
        gate: Gate = "attention",
        keys: Keys = "before",
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"sega: width must be a multiple of heads, got {width} and {heads}")
        self.gate_kind, self.keys = gate, keys
        self.initial = nn.Parameter(0.02 * torch.randn(slots, width))  # S_0
        self.position = nn.Parameter(torch.zeros(slots, width))  # P
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.state_norm, self.obs_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        if gate == "mlp":
            self.gate_mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))

    def forward(self, state: Tensor, obs: Tensor, reset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the next state, the context, and the gate (B, slots, 1) in (0, 1).

        reset: (B,) bool, where a chain begins: the incoming state is replaced by S_0 and overwritten whole (gate 1).
        """
        begins = reset[:, None, None]
        state = torch.where(begins, self.initial.to(state.dtype), state)
        inter, context, logits = state + self.position, obs, []
        for layer in self.layers:
            inter, context, seen = layer(inter, context, self.keys)
            logits.append(seen.mean(dim=(1, 3)))
        inter, context = self.state_norm(inter), self.obs_norm(context)
        gate = self._gate(inter, logits).masked_fill(begins, 1.0)
        # G Inter + (1 - G) (S + P) - P, in the form that is exact at both ends of the gate; the state keeps its precision
        return torch.lerp(state, (inter - self.position).to(state.dtype), gate.to(state.dtype)), context, gate

    def _gate(self, inter: Tensor, logits: list[Tensor]) -> Tensor:
        """Returns the gate (B, slots, 1); logits: of every layer, the mean over heads and observation tokens (B, slots)."""
        if self.gate_kind == "none":
            return torch.ones_like(inter[..., :1])
        if self.gate_kind == "mlp":
            return torch.sigmoid(self.gate_mlp(inter))
        return torch.sigmoid(torch.stack(logits).mean(dim=0))[..., None]


class Layer(nn.Module):
    """One two-stream layer; both streams read the values that the other one had before this layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.state, self.obs = Stream(width, heads), Stream(width, heads)

    def forward(self, state: Tensor, obs: Tensor, keys: Keys) -> tuple[Tensor, Tensor, Tensor]:
        """Returns both streams and the state's cross-attention logits (B, heads, slots, To)."""
        state_bar, obs_bar = self.state.attend_self(state), self.obs.attend_self(obs)
        seen_obs, seen_state = (obs, state) if keys == "before" else (obs_bar, state_bar)
        state_seen, logits = self.state.cross(self.state.norm_query(state_bar), self.state.norm_other(seen_obs))
        obs_seen, _ = self.obs.cross(self.obs.norm_query(obs_bar), self.obs.norm_other(seen_state))
        return self.state.feed(state_bar + state_seen), self.obs.feed(obs_bar + obs_seen), logits


class Stream(nn.Module):
    """Pre-norm residual block: self-attention, cross-attention to the other stream, feed-forward (ratio 4, GELU)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_self, self.norm_query = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm_other, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.own, self.cross = Attention(width, heads), Attention(width, heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def attend_self(self, x: Tensor) -> Tensor:
        """Returns x + MSA(LN(x))."""
        inner = self.norm_self(x)
        return x + self.own(inner, inner)[0]

    def feed(self, x: Tensor) -> Tensor:
        """Returns x + MLP(LN(x))."""
        return x + self.down(F.gelu(self.up(self.norm_mlp(x))))


class Attention(nn.Module):
    """Multi-head attention of tokens x (B, n, width) to tokens `other` (B, m, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (B, n, width) and the scaled logits (B, heads, n, m) before the softmax."""
        query = self._split(self.query(x))
        key, value = (self._split(part) for part in self.key_value(other).chunk(2, dim=-1))
        logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        return self.out((logits.softmax(-1) @ value).transpose(1, 2).flatten(2)), logits

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)
