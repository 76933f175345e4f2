"""The observation encoder: low-dim keys as they are (normalised), images through a ResNet, end to end in one vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn

from robolearn.nets.vision import Backbone, Head, VisionEncoder


class ObsEncoder(nn.Module):
    """Maps obs {key: (B, To, *shape)} to (B, To, dim): flattened low-dim keys in the order of `keys`, then the cameras' features.

    `shapes` holds each key's shape without batch and time; (H, W, 3) is an image. `shared=True` gives all cameras of one
    size the same weights. width_out: an MLP over each frame's features, Linear, GELU, dropout, Linear, LayerNorm, to that
    width (SeedPolicy, arXiv 2603.05117: 526 to 512 to 256); 0: the features as they are.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        keys: Sequence[str] = (),
        crop: tuple[int, int] | None = None,
        features: int = 64,
        width: int = 64,
        shared: bool = False,
        backbone: Backbone = "resnet18",
        head: Head = "spatial_softmax",
        width_out: int = 0,
    ) -> None:
        super().__init__()
        keys = tuple(keys) or tuple(shapes)
        self.image_keys = tuple(k for k in keys if is_image(shapes[k]))
        self.low_keys = tuple(k for k in keys if not is_image(shapes[k]))
        self.vision = nn.ModuleDict()
        self.camera = {}
        for key in self.image_keys:
            size = (shapes[key][0], shapes[key][1])
            name = f"{size[0]}x{size[1]}" if shared else key
            self.camera[key] = name
            if name not in self.vision:
                self.vision[name] = VisionEncoder(size, crop, features, width, backbone, head)
        self.dim = sum(prod(shapes[k]) for k in self.low_keys) + features * len(self.image_keys)
        self.fuse: nn.Module = nn.Identity()
        if width_out:
            d, self.dim = self.dim, width_out
            layers = nn.Linear(d, 2 * width_out), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * width_out, width_out)
            self.fuse = nn.Sequential(*layers, nn.LayerNorm(width_out))

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        parts = [obs[key].flatten(2) for key in self.low_keys]
        for key in self.image_keys:
            images = obs[key]
            parts.append(self.vision[self.camera[key]](images.flatten(0, 1)).unflatten(0, images.shape[:2]))
        return self.fuse(parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1))


def is_image(shape: Sequence[int]) -> bool:
    """Tells whether an observation of this shape is a colour image (H, W, 3)."""
    return len(shape) == 3 and shape[-1] == 3
