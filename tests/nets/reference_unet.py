"""The U-Net of nets/unet1d.py built of the library's layers, (B, C, L), to compare with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from robolearn.nets.unet1d import ConvNormMish, Residual, UNet1d


def denoise(net: UNet1d, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
    """Returns what `net` must return, through F.conv1d, F.group_norm and F.mish."""
    film = net.film_cond(F.mish(cond.flatten(1))) + net.film_step(F.mish(net.step(t)))
    scales, biases = (part.split(net.widths, dim=-1) for part in film.chunk(2, dim=-1))
    films = iter(zip(scales, biases, strict=True))
    h, skips = x.transpose(1, 2), []
    for i, level in enumerate(net.down):
        for block in level:
            h = residual(block, h, *next(films))
        skips.append(h)
        if i < len(net.shrink):
            h = F.conv1d(h, net.shrink[i].weight.permute(2, 1, 0), net.shrink[i].bias, stride=2, padding=1)
    for block in net.middle:
        h = residual(block, h, *next(films))
    for level, grow in zip(net.up, net.grow, strict=True):
        h = torch.cat((h, skips.pop()), dim=1)
        for block in level:
            h = residual(block, h, *next(films))
        taps = grow.weight[[3, 1, 2, 0]]  # its own inverse
        h = F.conv_transpose1d(h, taps.permute(1, 2, 0), grow.bias, stride=2, padding=1)
    return net.leave(conv_norm_mish(net.final, h).transpose(1, 2))


def residual(block: Residual, h: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    inner = conv_norm_mish(block.first, h) * (1 + scale[..., None]) + bias[..., None]
    straight = block.straight(h.transpose(1, 2)).transpose(1, 2)
    return conv_norm_mish(block.second, inner) + straight


def conv_norm_mish(part: ConvNormMish, h: Tensor) -> Tensor:
    weight = part.conv.weight.permute(2, 1, 0)
    return F.mish(F.group_norm(F.conv1d(h, weight, part.bias, padding="same"), part.groups, part.weight, part.shift))
