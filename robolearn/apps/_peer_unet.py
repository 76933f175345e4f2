"""The U-Net of Diffusion Policy as its peers build it, of the library's layers on (batch, channel, time), for comparison.

Chi et al. (arXiv 2303.04137), appendix; the sizes are those of robolearn/nets/unet1d.py, FiLM by one linear layer a block.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robolearn.nets.denoiser import Denoiser
from robolearn.nets.embeddings import Sinusoidal, times


class PeerUNet(Denoiser):
    """Maps x (B, H, Da), t (B,) in [0, 1] and cond (B, To, Dc) to (B, H, Da)."""

    def __init__(
        self, action_dim: int, horizon: int, n_obs: int, cond_dim: int, dims: Sequence[int] = (64, 128, 256), step_dim: int = 128
    ) -> None:
        super().__init__()
        self.step = nn.Sequential(
            Sinusoidal(step_dim), nn.Linear(step_dim, 4 * step_dim), nn.Mish(), nn.Linear(4 * step_dim, step_dim)
        )
        width = step_dim + n_obs * cond_dim
        wide, deep = (action_dim, *dims), len(dims) - 1
        self.down = nn.ModuleList(_Pair(wide[i], wide[i + 1], width) for i in range(len(dims)))
        self.shrink = nn.ModuleList(nn.Conv1d(d, d, 3, stride=2, padding=1) for d in dims[:-1])
        self.middle = _Pair(dims[-1], dims[-1], width)
        self.up = nn.ModuleList(_Pair(2 * dims[i], dims[i - 1], width) for i in range(deep, 0, -1))
        self.grow = nn.ModuleList(nn.ConvTranspose1d(d, d, 4, stride=2, padding=1) for d in dims[-2::-1])
        self.leave = nn.Sequential(_conv_norm_mish(dims[0], dims[0]), nn.Conv1d(dims[0], action_dim, 1))

    def condition(self, cond: Tensor) -> Tensor:
        """Returns the condition (B, To * Dc)."""
        return cond.flatten(1)

    def modulate(self, t: Tensor | None, context: Tensor) -> tuple[Tensor, Tensor]:
        """Returns time and condition as they are: peers embed the time at every step."""
        return times(t, context), context

    def denoise(self, x: Tensor, modulation: tuple[Tensor, Tensor]) -> Tensor:
        """Returns the output (B, H, Da) for x."""
        film = torch.cat((self.step(modulation[0]), modulation[1]), dim=-1)
        h, skips = x.transpose(1, 2), []
        for i, level in enumerate(self.down):
            h = level(h, film)
            skips.append(h)
            h = self.shrink[i](h) if i < len(self.shrink) else h
        h = self.middle(h, film)
        for level, grow in zip(self.up, self.grow, strict=True):
            h = torch.cat((h, skips.pop()), dim=1)
            h = grow(level(h, film))
        return self.leave(h).transpose(1, 2)


class _Residual(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv_norm_mish(channels_in, channels_out), _conv_norm_mish(channels_out, channels_out)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(width, 2 * channels_out))
        self.straight = nn.Conv1d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, h: Tensor, film: Tensor) -> Tensor:
        scale, bias = self.film(film)[..., None].chunk(2, dim=1)
        return self.second(self.first(h) * (1 + scale) + bias) + self.straight(h)


class _Pair(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, width: int) -> None:
        super().__init__()
        self.first, self.second = _Residual(channels_in, channels_out, width), _Residual(channels_out, channels_out, width)

    def forward(self, h: Tensor, film: Tensor) -> Tensor:
        return self.second(self.first(h, film), film)


def _conv_norm_mish(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(channels_in, channels_out, 5, padding=2), nn.GroupNorm(8, channels_out), nn.Mish())
