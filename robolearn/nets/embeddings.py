"""Sinusoidal embedding of the time of a diffusion or flow, and of positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Sinusoidal(nn.Module):
    """Embeds t (B,) in [0, 1] as (B, dim) sines and cosines; t = k / 100 is the usual embedding of diffusion step k."""

    frequencies: Tensor

    def __init__(self, dim: int, scale: float = 100.0) -> None:
        super().__init__()
        half = dim // 2
        frequencies = scale * torch.exp(torch.arange(half) * (-math.log(10000.0) / (half - 1)))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        angles = t[:, None].to(self.frequencies.dtype) * self.frequencies
        return torch.cat((angles.sin(), angles.cos()), dim=-1)


def times(t: Tensor | None, beside: Tensor) -> Tensor:
    """Returns t as (B,), B and device those of `beside`; None (a regression, which knows no time) and one number are spread."""
    if t is None:
        return torch.zeros(beside.shape[0], device=beside.device)
    return t.reshape(-1).expand(beside.shape[0])
