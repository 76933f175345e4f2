"""Weights of 8 bits, for networks whose score of one plan is the time it takes to read them.

A row of a layer is whole numbers from -127 to 127 times a scale of its own; what goes in and what comes out is rounded to
bfloat16, in between float32 is summed. Of a batch, every row is computed as if it were alone, to the last bit: what a
threshold was calibrated on and what is scored live are the same numbers. Another processor may sum in another order, which
shows in the last bit of a bfloat16 (0.4 %).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 32  # the kernel reads so many inputs at once, and past the end of a row that is no multiple of it


class Packed(nn.Module):
    """A linear layer of 8-bit weights: (B, inputs) float32 to (B, outputs) float32."""

    weight: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.fill = -inputs % BLOCK
        self.register_buffer("weight", torch.empty(outputs, inputs + self.fill, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(outputs))  # numbers that bfloat16 holds
        self.register_buffer("bias", torch.empty(outputs))

    @staticmethod
    def of(layer: nn.Linear) -> Packed:
        """Returns the layer with its weights rounded."""
        made = Packed(layer.in_features, layer.out_features)
        weight = layer.weight.detach()
        scale = (weight.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny).bfloat16().float()
        made.weight.copy_(F.pad((weight / scale[:, None]).round().clamp(-127, 127), (0, made.fill)))
        made.scale.copy_(scale)
        made.bias.copy_(layer.bias.detach())
        return made

    def forward(self, x: Tensor) -> Tensor:
        return product(F.pad(x.bfloat16(), (0, self.fill)), self.weight, self.scale.bfloat16()).float() + self.bias


def product(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Returns x (B, in) times weight (out, in) int8 times scale (out,), as (B, out); bfloat16 all but the weights."""
    kernel = getattr(torch.ops.aten, "_weight_int8pack_mm", None)  # torch makes no promise about it
    return plain(x, weight, scale) if kernel is None else kernel(x.contiguous(), weight, scale)


def plain(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Returns what `product` does, by float32 weights that are made on the way: slow, and no kernel needed."""
    return (x.float() @ weight.float().T * scale.float()).bfloat16()


def packed(net: nn.Module) -> nn.Sequential:
    """Returns a network with the weights of its linear layers rounded."""
    return nn.Sequential(*(Packed.of(part) if isinstance(part, nn.Linear) else part for part in net.children()))


def unfilled(net: nn.Module) -> nn.Sequential:
    """Returns a network of the layers that `packed` makes, their numbers not set."""
    return nn.Sequential(*(Packed(part.in_features, part.out_features) if isinstance(part, nn.Linear) else part for part in net.children()))
