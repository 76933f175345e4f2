"""Memories between the observation encoder and the denoiser: a state of fixed size that moves with the observations.

One agreement: `step(state, features, reset) -> (state, context)`. features (B, To, dim) are those of the newest frames,
context (B, To, context_dim) is what the denoiser sees instead, state a tensor (B, ...), and where reset (B,) is true an
episode begins and the incoming state counts for nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from robolearn.nets.sega import Gate, Keys, Sega


class Memory(nn.Module, ABC):
    """A memory of fixed size; `context_dim` is the width of what it gives for each observation token."""

    context_dim: int

    @abstractmethod
    def begin(self, rows: int) -> Tensor:
        """Returns states (rows, ...) to hand in where every reset flag is set; their values count for nothing."""

    @abstractmethod
    def step(self, state: Tensor, features: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the next state and the context (B, To, context_dim) of features (B, To, dim)."""

    def unroll(self, state: Tensor, features: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the state after a chain of K updates, and all contexts (B, K, To, context_dim).

        features: (B, K, To, dim); reset: (B, K). Gradients flow through all K; the caller detaches between chains.
        """
        contexts = []
        for k in range(features.shape[1]):
            state, context = self.step(state, features[:, k], reset[:, k])
            contexts.append(context)
        return state, torch.stack(contexts, dim=1)


class SegaMemory(Memory):
    """SEGA over one token per frame; features must be `width` wide. The last gate is kept in `gate` (B, slots) for plots."""

    def __init__(self, width: int, slots: int, layers: int, heads: int, gate: Gate, keys: Keys) -> None:
        super().__init__()
        self.sega, self.context_dim = Sega(width, slots, layers, heads, gate, keys), width
        self.gate: Tensor | None = None

    def begin(self, rows: int) -> Tensor:
        """Returns zeros (rows, slots, width)."""
        return self.sega.initial.new_zeros(rows, *self.sega.initial.shape)

    def step(self, state: Tensor, features: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        """One SEGA update."""
        state, context, gate = self.sega(state, features, reset)
        self.gate = gate[..., 0].detach()
        return state, context


class GruMemory(Memory):
    """A GRU over the newest frame's features (Cho et al., arXiv 1406.1078); the context is the features beside its output."""

    def __init__(self, dim: int, width: int, layers: int) -> None:
        super().__init__()
        self.cells = nn.ModuleList(nn.GRUCell(dim if k == 0 else width, width) for k in range(layers))
        self.width, self.context_dim = width, dim + width

    def begin(self, rows: int) -> Tensor:
        """Returns zeros (rows, layers, width)."""
        return next(self.cells.parameters()).new_zeros(rows, len(self.cells), self.width)

    def step(self, state: Tensor, features: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        """One GRU step; it begins from zero."""
        state, x, layers = state * ~reset[:, None, None], features[:, -1], []
        for k, cell in enumerate(self.cells):
            x = cell(x, state[:, k])
            layers.append(x)
        seen = x[:, None].expand(-1, features.shape[1], -1)
        return torch.stack(layers, dim=1), torch.cat((features, seen), dim=-1)
