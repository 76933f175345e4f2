"""Photometric augmentation of MT-pi (arXiv 2501.06994): brightness, noise, dropout, blur, gamma; points stay where they are."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ADD, NOISE, DROPPED, BLUR, GAMMA = 10.0, 7.65, 0.15, 5, (0.95, 1.05)  # of values 0..255; share of pixels; pixels; exponents


def augmented(images: Tensor) -> Tensor:
    """Returns images (N, To, H, W, C) uint8, each row changed by a random subset of five changes in a random order.

    What is drawn for a row holds for all its To pictures. Uses torch's global generator, as random crops do.
    """
    x = images.to(torch.float32)
    for k in torch.randperm(len(_CHANGES)).tolist():
        chosen = torch.rand(len(x), device=x.device) < 0.5
        if chosen.any():
            x[chosen] = _CHANGES[k](x[chosen])
    return x.clamp_(0, 255).round_().to(torch.uint8)


def _add(x: Tensor) -> Tensor:
    return x + (2 * torch.rand(len(x), 1, 1, 1, x.shape[-1], device=x.device) - 1) * ADD


def _noise(x: Tensor) -> Tensor:
    sigma = torch.rand(len(x), 1, 1, 1, 1, device=x.device) * NOISE
    return x + torch.randn(len(x), 1, *x.shape[2:], device=x.device) * sigma


def _drop(x: Tensor) -> Tensor:
    share = torch.rand(len(x), 1, 1, 1, 1, device=x.device) * DROPPED
    return x * (torch.rand(len(x), 1, *x.shape[2:4], 1, device=x.device) >= share)


def _blur(x: Tensor) -> Tensor:
    """Smears along the rows or along the columns of the pictures, as a fast motion does."""
    flat = x.flatten(0, 1).permute(0, 3, 1, 2)
    window = (1, BLUR) if torch.rand(()) < 0.5 else (BLUR, 1)
    padded = F.pad(flat, (window[1] // 2, window[1] // 2, window[0] // 2, window[0] // 2), mode="replicate")
    return F.avg_pool2d(padded, window, stride=1).permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


def _gamma(x: Tensor) -> Tensor:
    low, high = GAMMA
    exponent = low + (high - low) * torch.rand(len(x), 1, 1, 1, 1, device=x.device)
    return 255 * (x.clamp(0, 255) / 255) ** exponent


_CHANGES: tuple[Callable[[Tensor], Tensor], ...] = (_add, _noise, _drop, _blur, _gamma)
