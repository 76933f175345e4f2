"""A cover over hand and gripper in a picture, drawn from the five points alone, so that both embodiments look more alike.

A network that sees whose body it is in can keep what people showed for people. EgoMimic (arXiv 2410.24221) and Phantom (arXiv
2503.00779) mask or paint over the bodies, which they segment. Here capsules between the points of `video/points.py`, and one
along the forearm, are filled with one colour: no segmenter is needed, neither in training nor on a robot. A cover has the shape
of its points, and these lie differently in a hand and in a gripper: it hides what a body looks like, not which of the two it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

COLOUR = (255, 0, 255)
REACH = 2.0  # hand sizes that the forearm goes on behind the base; the hand's size is the largest distance of two points
FOREARM, HAND, FINGERS = 0.28, 0.34, 0.20  # [hand sizes] radii
_BASE, _RIGHT1, _LEFT1, _RIGHT2, _LEFT2 = range(5)
_HAND = ((_BASE, _RIGHT1), (_BASE, _LEFT1))
_FINGERS = ((_RIGHT1, _RIGHT2), (_LEFT1, _LEFT2), (_RIGHT2, _LEFT2))


def covered(images: Tensor, points: Tensor) -> Tensor:
    """Returns images (..., H, W, 3) uint8 with hand and forearm filled, of which the five points (..., 5, 2) [px] are given."""
    points = points.to(torch.float32)
    size = (points[..., :, None, :] - points[..., None, :, :]).norm(dim=-1).amax((-2, -1))  # (...)
    base, tips = points[..., _BASE, :], points[..., _RIGHT2:, :].mean(-2)
    pixels = _grid(images.shape[-3], images.shape[-2], points)
    hidden = _near(pixels, base, base + REACH * (base - tips), FOREARM * size)
    for pairs, radius in ((_HAND, HAND), (_FINGERS, FINGERS)):
        for a, b in pairs:
            hidden |= _near(pixels, points[..., a, :], points[..., b, :], radius * size)
    return torch.where(hidden[..., None], torch.tensor(COLOUR, dtype=images.dtype, device=images.device), images)


def _grid(height: int, width: int, like: Tensor) -> Tensor:
    """Returns the pixels' places (H, W, 2), u then v; a pixel's middle is a whole number."""
    v, u = torch.meshgrid(torch.arange(height, device=like.device), torch.arange(width, device=like.device), indexing="ij")
    return torch.stack((u, v), dim=-1).to(like.dtype)


def _near(pixels: Tensor, a: Tensor, b: Tensor, radius: Tensor) -> Tensor:
    """Returns which pixels (..., H, W) are within `radius` (...) of the straight line from a to b (..., 2)."""
    a, way = a[..., None, None, :], (b - a)[..., None, None, :]
    from_a = pixels - a
    share = ((from_a * way).sum(-1) / way.square().sum(-1).clamp_min(1e-6)).clamp(0, 1)
    return (from_a - share[..., None] * way).square().sum(-1) <= radius[..., None, None].square()
