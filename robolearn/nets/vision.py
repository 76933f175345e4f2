"""Image encoders: ResNet-18 with GroupNorm or a small one for CPUs, then spatial softmax or the average over the picture."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.errors import ConfigError
from robolearn.nets.resnet50 import ResNet50

Backbone = Literal["resnet18", "resnet50", "small"]
Head = Literal["spatial_softmax", "average"]


class VisionEncoder(nn.Module):
    """Maps images (N, H, W, 3), uint8 or float in [0, 1], to (N, features).

    Crops `crop` (height, width) at random in training and in the centre otherwise; None keeps the whole image.
    Published crops: 76 of 84 pixels, 84 of 96, 216 of 240. head "average" is SeedPolicy's encoder (512 features of resnet18).
    """

    def __init__(
        self,
        size: tuple[int, int],
        crop: tuple[int, int] | None = None,
        features: int = 64,
        width: int = 64,
        backbone: Backbone = "resnet18",
        head: Head = "spatial_softmax",
    ) -> None:
        """width: channels of the first stage (small: a quarter of them)."""
        super().__init__()
        self.size = size
        self.crop = crop or size
        if self.crop[0] > size[0] or self.crop[1] > size[1]:
            raise ConfigError(f"crop {self.crop} is larger than the image {size}; give a smaller one")
        self.trunk = trunk_of(backbone, width)
        channels = self.trunk.channels
        self.pool: nn.Module
        self.leave: nn.Module
        if head == "spatial_softmax":
            self.pool, self.leave = SpatialSoftmax(channels, points=features // 2), nn.Linear(features // 2 * 2, features)
        else:
            self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.leave = nn.Linear(channels, features) if features != channels else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        images = random_crop(images, self.crop) if self.training else centre_crop(images, self.crop)
        scaled = images.permute(0, 3, 1, 2).to(next(self.parameters()).dtype)
        scaled = scaled * (2 / 255) - 1 if images.dtype == torch.uint8 else scaled * 2 - 1
        return self.leave(self.pool(self.trunk(scaled)))


def trunk_of(backbone: Backbone, width: int) -> ResNet18 | ResNet50 | SmallTrunk:
    """Returns the convolutions that a config names; width: channels of the first stage."""
    if backbone == "small":
        return SmallTrunk(width // 4)
    return ResNet18(width) if backbone == "resnet18" else ResNet50(width)


class ResNet18(nn.Module):
    """The four stages of ResNet-18 with GroupNorm(channels / 16): (N, 3, H, W) to (N, 8 * width, H / 32, W / 32)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.channels = 8 * width
        self.enter = nn.Sequential(
            nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False), norm(width), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)
        )
        wide = (width, width, 2 * width, 4 * width, 8 * width)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(BasicBlock(a, b, stride=1 if i == 0 else 2), BasicBlock(b, b))
                for i, (a, b) in enumerate(itertools.pairwise(wide))
            )
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(self.enter(images))


class SmallTrunk(nn.Module):
    """Four convolutions for CPUs: (N, 3, H, W) to (N, 8 * width, H / 8, W / 8); 0.24 M parameters at width 16."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.channels = 8 * width
        wide = ((3, 2 * width, 5, 2), (2 * width, 4 * width, 3, 2), (4 * width, 8 * width, 3, 2), (8 * width, 8 * width, 3, 1))
        blocks = [
            nn.Sequential(nn.Conv2d(a, b, kernel, stride, kernel // 2, bias=False), norm(b), nn.ReLU())
            for a, b, kernel, stride in wide
        ]
        self.stages = nn.Sequential(*blocks)

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(images)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a straight path."""

    region = True  # torch.compile works on this block, once for all copies of one shape

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = norm(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = norm(channels_out)
        self.straight: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.straight = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False), norm(channels_out))

    def forward(self, h: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(h)))
        return F.relu(self.norm2(self.conv2(inner)) + self.straight(h))


class SpatialSoftmax(nn.Module):
    """Where `points` feature maps look, as x and y in [-1, 1]: (N, C, H, W) to (N, 2 * points)."""

    def __init__(self, channels: int, points: int = 32) -> None:
        super().__init__()
        self.maps = nn.Conv2d(channels, points, 1)

    def forward(self, h: Tensor) -> Tensor:
        maps = self.maps(h)
        weight = maps.flatten(2).softmax(dim=-1).view_as(maps)
        x = torch.linspace(-1, 1, maps.shape[3], device=h.device, dtype=weight.dtype)
        y = torch.linspace(-1, 1, maps.shape[2], device=h.device, dtype=weight.dtype)
        return torch.stack((weight.sum(2) @ x, weight.sum(3) @ y), dim=-1).flatten(1)


def norm(channels: int) -> nn.GroupNorm:
    """Returns the GroupNorm that stands where ResNet-18 has BatchNorm: sixteen channels a group."""
    return nn.GroupNorm(max(1, channels // 16), channels)


def centre_crop(images: Tensor, crop: tuple[int, int]) -> Tensor:
    """Returns the middle `crop` (height, width) of images (N, H, W, C)."""
    top, left = (images.shape[1] - crop[0]) // 2, (images.shape[2] - crop[1]) // 2
    return images[:, top : top + crop[0], left : left + crop[1]]


def random_crop(images: Tensor, crop: tuple[int, int]) -> Tensor:
    """Returns `crop` (height, width) of images (N, H, W, C), cut at a place of its own for each image."""
    n, height, width, _ = images.shape
    if (height, width) == crop:
        return images
    top = torch.randint(height - crop[0] + 1, (n, 1), device=images.device)
    left = torch.randint(width - crop[1] + 1, (n, 1), device=images.device)
    rows = top + torch.arange(crop[0], device=images.device)
    columns = left + torch.arange(crop[1], device=images.device)
    return images[torch.arange(n, device=images.device)[:, None, None], rows[:, :, None], columns[:, None, :]]
