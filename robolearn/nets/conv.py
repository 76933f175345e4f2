"""Convolutions over a few time steps as matrix products, on activations laid out (time, batch, channel).

A library's conv1d pays for every tap at every step and spends longer on the layout than on the sums when the time axis
is 4 to 32 long. With time first, a convolution is one product over (tap, channel), and in training on a CPU it is the
minimal-filtering form of Cook and Toom (Winograd's): y = gather [(filters w) * (spread x)], 8 products per 4 outputs of
a kernel of 5 instead of 20, 7 where the whole axis is 4 long. Both equal nn.Conv1d up to rounding (about 1e-6).
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

TILE = 4  # outputs computed together; at 8 the rounding error grows five times
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)  # where the polynomials are evaluated, with infinity as the last
FEW = 32  # below this batch the filters' transform costs more than it saves


class Conv(nn.Module):
    """The sums of a convolution of odd kernel that keeps the length, without its bias: (L, B, C) to (L, B, C').

    `weight` is (kernel, C, C'), nn.Conv1d's permuted by (2, 1, 0).
    """

    edge: Tensor  # (kernel // 2, 1, C) zeros
    spread: Tensor  # (points * tiles, L)
    filters: Tensor  # (points, kernel)
    gather: Tensor  # (L, points * tiles)

    def __init__(self, channels_in: int, channels_out: int, kernel: int, length: int) -> None:
        super().__init__()
        self.kernel, self.length = kernel, length
        self.weight, _ = initial(kernel, channels_in, channels_out)
        self.has_tiles = length % TILE == 0 and kernel in (3, 5)
        self.register_buffer("edge", torch.zeros(kernel // 2, 1, channels_in), persistent=False)
        for name, matrix in zip(("spread", "filters", "gather"), tiles(length, kernel) if self.has_tiles else (), strict=False):
            self.register_buffer(name, torch.from_numpy(matrix), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.has_tiles and x.shape[1] >= FEW and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            return self.tiled(x)
        return self.unfolded(x)

    def tiled(self, x: Tensor) -> Tensor:
        """Returns the sums as one product for each point, over the whole batch and all tiles."""
        _, batch, channels = x.shape
        points = len(self.filters)
        filters = (self.filters @ self.weight.flatten(1)).view(points, channels, -1)
        products = torch.bmm((self.spread @ x.reshape(self.length, -1)).view(points, -1, channels), filters)
        return (self.gather @ products.view(self.gather.shape[1], -1)).view(self.length, batch, -1)

    def unfolded(self, x: Tensor) -> Tensor:
        """Returns the sums as one product over (tap, channel)."""
        length, batch, channels = x.shape
        if batch == 1:  # the taps of a step lie side by side already
            padded = torch.cat((self.edge, x, self.edge))
            taps = padded.as_strided((length, 1, self.kernel * channels), (channels, channels, 1))
        else:
            edge = self.edge.expand(-1, batch, -1)
            taps = torch.cat((edge, x, edge)).unfold(0, self.kernel, 1).transpose(2, 3).flatten(2)  # (L, B, kernel * C)
        return taps @ self.weight.flatten(0, 1)


class Shrink(nn.Module):
    """Halves an even length as nn.Conv1d(C, C, 3, stride=2, padding=1) does: (L, B, C) to (L / 2, B, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = initial(3, channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        even, odd = x[::2], x[1::2]
        before = torch.cat((torch.zeros_like(odd[:1]), odd[:-1]))
        return torch.cat((before, even, odd), dim=-1) @ self.weight.flatten(0, 1) + self.bias


class Grow(nn.Module):
    """Doubles the length as nn.ConvTranspose1d(C, C, 4, stride=2, padding=1) does: (L, B, C) to (2 L, B, C).

    `weight` is (4, C, C'), nn.ConvTranspose1d's permuted by (2, 0, 1) and its taps in the order 3, 1, 2, 0: the first
    two make the even steps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = initial(4, channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        edge = torch.zeros_like(x[:1])
        even = torch.cat((torch.cat((edge, x[:-1])), x), dim=-1) @ self.weight[:2].flatten(0, 1)
        odd = torch.cat((x, torch.cat((x[1:], edge))), dim=-1) @ self.weight[2:].flatten(0, 1)
        return torch.stack((even, odd), dim=1).flatten(0, 1) + self.bias


def norm_mish(x: Tensor, bias: Tensor, weight: Tensor, shift: Tensor, groups: int) -> Tensor:
    """Returns mish(groupnorm(x + bias) * weight + shift) for x (L, B, C)."""
    if torch.is_grad_enabled() or x.shape[1] >= FEW:
        return NormMish.apply(x, bias, weight, shift, groups)
    return F.mish(F.group_norm((x + bias).permute(1, 2, 0), groups, weight, shift)).permute(2, 0, 1)


class NormMish(torch.autograd.Function):
    """mish(groupnorm(x + bias)) for x (L, B, C), with a backward pass that keeps two arrays and no transcendental."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, weight: Tensor, shift: Tensor, groups: int, eps: float = 1e-5) -> Tensor:
        length, batch, channels = x.shape
        count = length * channels // groups

        def share(per_channel: Tensor) -> Tensor:
            grouped = per_channel.view(batch, groups, -1)
            return (grouped.sum(-1, keepdim=True) / count).expand_as(grouped).reshape(batch, channels)

        centred = x + (bias - share(x.sum(0) + length * bias))
        scale = (share((centred * centred).sum(0)) + eps).rsqrt()
        ctx.save_for_backward(centred, scale, weight, shift)
        ctx.share = share
        z = torch.addcmul(shift, centred, scale * weight)
        # with q = sigmoid(-z): tanh(softplus(z)) = 2 / (1 + q^2) - 1, one exponential instead of three functions
        ratio = torch.sigmoid(-z).square_().add_(1).reciprocal_()
        return torch.addcmul(-z, z, ratio, value=2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        centred, scale, weight, shift = ctx.saved_tensors
        normed = centred * scale
        z = torch.addcmul(shift, normed, weight)
        q = torch.sigmoid(-z)
        ratio = (q * q).add_(1).reciprocal_()
        slope = z.mul_(1 - q).mul_(ratio).mul_(1 - ratio).mul_(4).add_(ratio, alpha=2).sub_(1).mul_(grad)
        along = slope.sum(0)  # (B, C), as `across`
        across = (slope * normed).sum(0)
        back = slope.mul_(weight * scale).sub_(ctx.share(along * weight) * scale)
        back = back.addcmul_(normed, ctx.share(across * weight) * scale, value=-1)
        return back, back.sum((0, 1)), across.sum(0), along.sum(0), None, None


def initial(kernel: int, channels_in: int, channels_out: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Returns weight (kernel, C, C') and bias (C',) drawn as nn.Conv1d draws them."""
    bound = 1 / math.sqrt(channels_in * kernel)
    weight = torch.empty(kernel, channels_in, channels_out).uniform_(-bound, bound)
    return nn.Parameter(weight), nn.Parameter(torch.empty(channels_out).uniform_(-bound, bound))


@cache
def tiles(length: int, kernel: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns `spread` (points * tiles, length), `filters` (points, kernel) and `gather` (length, points * tiles), float32."""
    half = kernel // 2
    if length == TILE:  # the chunk plays the filter's part: 2 * 4 - 1 points instead of 4 + kernel - 1
        outer, inner, short = cook_toom(TILE, TILE)
        tap = TILE - 1 + half - np.arange(2 * TILE - 1)  # which tap of the kernel stands at which place of the long side
        filters = np.zeros((2 * TILE - 1, kernel))
        filters[:, tap[(tap >= 0) & (tap < kernel)]] = short[:, (tap >= 0) & (tap < kernel)]
        spread, gather = inner[:, ::-1], outer
    else:
        outer, filters, wide = cook_toom(TILE, kernel)
        points, count = len(wide), length // TILE
        spread, gather = np.zeros((points, count, length + 2 * half)), np.zeros((length, points, count))
        for i in range(count):
            spread[:, i, i * TILE : i * TILE + points] = wide
            gather[i * TILE : (i + 1) * TILE, :, i] = outer
        spread = spread[:, :, half : half + length].reshape(points * count, length)
        gather = gather.reshape(length, points * count)
    return tuple(np.ascontiguousarray(m, dtype=np.float32) for m in (spread, filters, gather))  # type: ignore[return-value]


def cook_toom(outputs: int, taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (A^T, G, B^T) such that y_i = sum_j f_j x_{i+j} is A^T [(G f) * (B^T x)], with outputs + taps - 1 products."""
    n = outputs + taps - 1
    places = np.array(POINTS[: n - 1])

    def evaluate(terms: int) -> np.ndarray:
        return np.vstack((np.vander(places, terms, increasing=True), np.eye(terms)[-1]))

    parts = (evaluate(outputs).T.copy(), evaluate(taps), np.linalg.inv(evaluate(n)).T.copy())
    sizes = (np.abs(parts[0]).sum(0), np.abs(parts[1]).sum(1), np.abs(parts[2]).sum(1))
    even = np.cbrt(sizes[0] * sizes[1] * sizes[2])  # equal sizes on all three sides lose the fewest digits
    return parts[0] * (even / sizes[0]), parts[1] * (even / sizes[1])[:, None], parts[2] * (even / sizes[2])[:, None]
