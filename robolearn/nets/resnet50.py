"""The four stages of ResNet-50 with GroupNorm: what MT-pi (arXiv 2501.06994) looks at its pictures with."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS = (3, 4, 6, 3)


class ResNet50(nn.Module):
    """Maps (N, 3, H, W) to (N, 32 * width, H / 32, W / 32); sixteen channels a group, random weights at the start."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.channels = 32 * width
        self.enter = nn.Sequential(
            nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False), _norm(width), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)
        )
        stages, before = [], width
        for i, depth in enumerate(DEPTHS):
            inner = width * 2**i
            first = Bottleneck(before, inner, 1 if i == 0 else 2)
            before = 4 * inner
            stages.append(nn.Sequential(first, *(Bottleneck(before, inner) for _ in range(depth - 1))))
        self.stages = nn.Sequential(*stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(self.enter(images))


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution beside a straight path; the output has four times the inner channels."""

    region = True  # torch.compile works on this block, once for all copies of one shape

    def __init__(self, channels_in: int, inner: int, stride: int = 1) -> None:
        super().__init__()
        out = 4 * inner
        self.reduce, self.norm1 = nn.Conv2d(channels_in, inner, 1, bias=False), _norm(inner)
        self.look, self.norm2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False), _norm(inner)
        self.grow, self.norm3 = nn.Conv2d(inner, out, 1, bias=False), _norm(out)
        self.straight: nn.Module = nn.Identity()
        if stride != 1 or channels_in != out:
            self.straight = nn.Sequential(nn.Conv2d(channels_in, out, 1, stride=stride, bias=False), _norm(out))

    def forward(self, h: Tensor) -> Tensor:
        inner = F.relu(self.norm2(self.look(F.relu(self.norm1(self.reduce(h))))))
        return F.relu(self.norm3(self.grow(inner)) + self.straight(h))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, channels // 16), channels)
