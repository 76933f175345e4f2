"""The U-Net over time of Diffusion Policy: two FiLM residual blocks a level, Mish, GroupNorm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.errors import ConfigError
from robolearn.nets.conv import Conv, Grow, Shrink, initial, norm_mish
from robolearn.nets.denoiser import Denoiser
from robolearn.nets.embeddings import Sinusoidal, times


class UNet1d(Denoiser):
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
        if horizon % (least := 2 ** (len(dims) - 1)):
            raise ConfigError(f"unet1d of {len(dims)} levels: horizon must be a multiple of {least}, got {horizon}")
        self.step = nn.Sequential(
            Sinusoidal(step_dim), nn.Linear(step_dim, 4 * step_dim), nn.Mish(), nn.Linear(4 * step_dim, step_dim)
        )
        made: list[Residual] = []

        def pair(channels_in: int, channels_out: int, level: int) -> nn.ModuleList:
            size = (kernel, groups, horizon // 2**level)
            made.extend((Residual(channels_in, channels_out, *size), Residual(channels_out, channels_out, *size)))
            return nn.ModuleList(made[-2:])

        deep = len(dims) - 1
        wide = (action_dim, *dims)
        self.down = nn.ModuleList(pair(wide[i], wide[i + 1], i) for i in range(len(dims)))
        self.shrink = nn.ModuleList(Shrink(d) for d in dims[:-1])
        self.middle = pair(dims[-1], dims[-1], deep)
        self.up = nn.ModuleList(pair(2 * dims[i], dims[i - 1], i) for i in range(deep, 0, -1))
        self.grow = nn.ModuleList(Grow(d) for d in dims[-2::-1])
        self.final = ConvNormMish(dims[0], dims[0], kernel, groups, horizon)
        self.leave = nn.Linear(dims[0], action_dim)
        self.widths = [block.channels for block in made]
        self.film_step = nn.Linear(step_dim, 2 * sum(self.widths))
        self.film_cond = nn.Linear(n_obs * cond_dim, 2 * sum(self.widths), bias=False)

    def condition(self, cond: Tensor) -> Tensor:
        """Returns what all steps of one plan share: the condition's part of every FiLM (B, 2 * sum of channels)."""
        return self.film_cond(F.mish(cond.flatten(1)))

    def modulate(self, t: Tensor | None, context: Tensor) -> Tensor:
        """Returns every FiLM (B, 2 * sum of channels) at time t under a context from `condition`."""
        return context + self.film_step(F.mish(self.step(times(t, context))))

    def denoise(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Returns the output (B, H, Da) for x under a modulation from `modulate`."""
        film = self._films(modulation)
        h = x.transpose(0, 1).contiguous()
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
            h = torch.cat((h, skips.pop()), dim=-1)
            for block in level:
                h = block(h, *next(film))
            h = grow(h)
        return self.leave(self.final(h)).transpose(0, 1)

    def _films(self, film: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        scale, bias = film.chunk(2, dim=-1)
        return iter(zip((1 + scale).split(self.widths, dim=-1), bias.split(self.widths, dim=-1), strict=True))


class ConvNormMish(nn.Module):
    """Convolution of odd kernel that keeps the length, GroupNorm, Mish: (L, B, C) to (L, B, C')."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, groups: int, length: int) -> None:
        super().__init__()
        self.groups = groups
        self.conv = Conv(channels_in, channels_out, kernel, length)
        self.bias = initial(kernel, channels_in, channels_out)[1]
        self.weight = nn.Parameter(torch.ones(channels_out))
        self.shift = nn.Parameter(torch.zeros(channels_out))

    def forward(self, h: Tensor) -> Tensor:
        return norm_mish(self.conv(h), self.bias, self.weight, self.shift, self.groups)


class Residual(nn.Module):
    """Two convolutions with FiLM (B, C') between them, beside a straight path: (L, B, C) to (L, B, C')."""

    region = True  # torch.compile works on this block, once for all copies of one shape

    def __init__(self, channels_in: int, channels_out: int, kernel: int, groups: int, length: int) -> None:
        super().__init__()
        self.channels = channels_out
        self.first = ConvNormMish(channels_in, channels_out, kernel, groups, length)
        self.second = ConvNormMish(channels_out, channels_out, kernel, groups, length)
        self.straight = nn.Linear(channels_in, channels_out) if channels_in != channels_out else nn.Identity()

    def forward(self, h: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return self.second(torch.addcmul(bias, self.first(h), scale)) + self.straight(h)
