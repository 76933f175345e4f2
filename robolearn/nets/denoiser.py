"""What a denoiser is: a network in three parts, so that a sampler computes nothing twice."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

ROWS = 256  # times x batch that are prepared together; above, one time fills the products by itself


class Denoiser(nn.Module, ABC):
    """Maps x (B, H, Da), t (B,) in [0, 1] (None: a regression, which knows no time) and cond (B, To, Dc) to (B, H, Da)."""

    @abstractmethod
    def condition(self, cond: Tensor) -> Any:
        """Returns what all steps of one plan share, a tree of tensors (B, ...)."""

    @abstractmethod
    def modulate(self, t: Tensor | None, context: Any) -> Any:
        """Returns what depends on time and condition but not on x, a tree of tensors (B, ...); context: of `condition`."""

    @abstractmethod
    def denoise(self, x: Tensor, modulation: Any) -> Tensor:
        """Returns the output (B, H, Da) for x; modulation: of `modulate`."""

    def forward(self, x: Tensor, t: Tensor | None, cond: Tensor) -> Tensor:
        return self.denoise(x, self.modulate(t, self.condition(cond)))


class AtTimes:
    """f(x, t) for x (B, H, Da) and a number t in [0, 1] under cond (B, To, Dc).

    times: those it will be asked for; what does not depend on x is computed for all of them in one pass.
    """

    def __init__(self, denoiser: Denoiser, cond: Tensor, times: Sequence[float]) -> None:
        self.denoiser, self.cond, self.context = denoiser, cond, denoiser.condition(cond)
        self.prepared: dict[float, Any] = self._prepare(sorted(set(times))) if len(times) * len(cond) <= ROWS else {}

    def __call__(self, x: Tensor, t: float) -> Tensor:
        """Returns the denoiser's output (B, H, Da) for x at time t."""
        ready = self.prepared.get(t)
        return self.denoiser.denoise(x, self._prepare([t])[t] if ready is None else ready)

    def _prepare(self, times: list[float]) -> dict[float, Any]:
        """Returns the modulation at each time, from one pass over (time, batch)."""
        shape = len(times), len(self.cond)
        context = pytree.tree_map(lambda part: part.expand(len(times), *part.shape).flatten(0, 1), self.context)
        modulation = self.denoiser.modulate(self.cond.new_tensor(times).repeat_interleave(len(self.cond)), context)
        parts, tree = pytree.tree_flatten(modulation)
        split = [part.unflatten(0, shape) for part in parts]
        return {t: pytree.tree_unflatten([part[k] for part in split], tree) for k, t in enumerate(times)}
