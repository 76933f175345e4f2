"""Replays a denoiser as one CUDA graph: at batch 1 the launches of its few hundred kernels cost more than their work."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from robolearn.nets.denoiser import Denoiser

WARM = 3  # calls before the capture, in which libraries choose their kernels
LARGEST = 64  # rows; above, the work outweighs the launches
MOST = 8  # shapes; each capture keeps memory of its own


class Captured(NamedTuple):
    """One captured call: its graph, the tensors it reads, the tensor it writes."""

    graph: Any
    inputs: list[Tensor]
    output: Tensor


class Graphed(Denoiser):
    """A denoiser whose `denoise` is captured once for each shape; off CUDA and in training it is the denoiser itself."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner = inner
        self.captured: dict[torch.Size, Captured] = {}

    def condition(self, cond: Tensor) -> Any:
        """Returns the inner denoiser's context."""
        return self.inner.condition(cond)

    def modulate(self, t: Tensor | None, context: Any) -> Any:
        """Returns the inner denoiser's modulation."""
        return self.inner.modulate(t, context)

    def denoise(self, x: Tensor, modulation: Any) -> Tensor:
        """Returns the inner denoiser's output, by replay where that is possible."""
        if not x.is_cuda or torch.is_grad_enabled() or self.inner.training:
            return self.inner.denoise(x, modulation)
        if x.shape not in self.captured and (len(x) > LARGEST or len(self.captured) == MOST):
            return self.inner.denoise(x, modulation)
        leaves, tree = pytree.tree_flatten((x, modulation))
        if x.shape not in self.captured:
            self.captured[x.shape] = self._capture(leaves, tree)
        graph, inputs, output = self.captured[x.shape]
        for kept, leaf in zip(inputs, leaves, strict=True):
            kept.copy_(leaf)
        graph.replay()
        return output.clone()

    def _capture(self, leaves: list[Tensor], tree: Any) -> Captured:
        inputs = [leaf.clone() for leaf in leaves]
        arguments = pytree.tree_unflatten(inputs, tree)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM):
                self.inner.denoise(*arguments)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self.inner.denoise(*arguments)
        return Captured(graph, inputs, output)
