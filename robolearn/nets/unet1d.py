"""The U-Net over time of Diffusion Policy: two FiLM residual blocks a level, Mish, GroupNorm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.nets.embeddings import Sinusoidal, times


class UNet1d(nn.Module):
    """Maps x (B, H, Da), t (B,) in [0, 1] and cond (B, To, Dc) to (B, H, Da); H must divide by 2 ** (levels - 1)."""

    def __init__(
        self,
        action_dim: int,
        horizon: int,
        n_obs: int,
        cond_dim: int,
        dims: Sequence[int] = (64, 128, 256),
        kernel: int = 5,
        groups: int = 8,
        step_dim: int = 128,
    ) -> None:
        super().__init__()
        if horizon % 2 ** (len(dims) - 1):
            raise ValueError(
                f"horizon {horizon} does not divide by {2 ** (len(dims) - 1)}, as a U-Net of {len(dims)} levels needs"
            )
        self.step = nn.Sequential(
            Sinusoidal(step_dim), nn.Linear(step_dim, 4 * step_dim), nn.Mish(), nn.Linear(4 * step_dim, step_dim)
        )
        made: list[Residual] = []

        def pair(channels_in: int, channels_out: int) -> nn.ModuleList:
            made.extend(
                (Residual(channels_in, channels_out, kernel, groups), Residual(channels_out, channels_out, kernel, groups))
            )
            return nn.ModuleList(made[-2:])

        wide = (action_dim, *dims)
        self.down = nn.ModuleList(pair(a, b) for a, b in zip(wide, dims, strict=False))
        self.shrink = nn.ModuleList(nn.Conv1d(d, d, 3, stride=2, padding=1) for d in dims[:-1])
        self.middle = pair(dims[-1], dims[-1])
        self.up = nn.ModuleList(pair(2 * a, b) for a, b in zip(dims[:0:-1], dims[-2::-1], strict=True))
        self.grow = nn.ModuleList(nn.ConvTranspose1d(d, d, 4, stride=2, padding=1) for d in dims[-2::-1])
        self.final = ConvNormMish(dims[0], dims[0], kernel, groups)
        self.leave = nn.Conv1d(dims[0], action_dim, 1)
        self.widths = [block.channels for block in made]
        self.film_step = nn.Linear(step_dim, 2 * sum(self.widths))
        self.film_cond = nn.Linear(n_obs * cond_dim, 2 * sum(self.widths), bias=False)

    def condition(self, cond: Tensor) -> Tensor:
        """Returns what all steps of one plan share: the condition's part of every FiLM (B, 2 * sum of channels)."""
        return self.film_cond(F.mish(cond.flatten(1)))

    def denoise(self, x: Tensor, t: Tensor | None, context: Tensor) -> Tensor:
        """Returns the output (B, H, Da) for x at time t under a context from `condition`."""
        film = self._films(context + self.film_step(F.mish(self.step(times(t, x)))))
        h = x.transpose(1, 2)
        skips = []
        for i, level in enumerate(self.down):
            for block in level:
                h = block(h, *next(film))
            skips.append(h)
            if i < len(self.shrink):
                h = self.shrink[i](h)
        for block in self.middle:
            h = block(h, *next(film))
        for level, grow in zip(self.up, self.grow, strict=True):
            h = torch.cat((h, skips.pop()), dim=1)
            for block in level:
                h = block(h, *next(film))
            h = grow(h)
        return self.leave(self.final(h)).transpose(1, 2)

    def forward(self, x: Tensor, t: Tensor | None, cond: Tensor) -> Tensor:
        return self.denoise(x, t, self.condition(cond))

    def _films(self, film: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        parts = film.split([w for width in self.widths for w in (width, width)], dim=-1)
        return iter(zip(parts[::2], parts[1::2], strict=True))


class ConvNormMish(nn.Module):
    """Convolution of odd kernel that keeps the length, GroupNorm, Mish: (B, C, L) to (B, C', L)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels_in, channels_out, kernel, padding=kernel // 2)
        self.norm = nn.GroupNorm(groups, channels_out)

    def forward(self, h: Tensor) -> Tensor:
        return F.mish(self.norm(self.conv(h)))


class Residual(nn.Module):
    """Two convolutions with FiLM between them, beside a straight path: (B, C, L) to (B, C', L)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.channels = channels_out
        self.first = ConvNormMish(channels_in, channels_out, kernel, groups)
        self.second = ConvNormMish(channels_out, channels_out, kernel, groups)
        self.straight = nn.Conv1d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, h: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        inner = self.first(h) * (1 + scale[..., None]) + bias[..., None]
        return self.second(inner) + self.straight(h)
