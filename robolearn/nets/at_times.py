"""A denoiser under one condition at many times: what does not depend on the noisy chunk is computed for all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

ROWS = 256  # times x batch that are prepared together; above, one time fills the products by itself


class AtTimes:
    """f(x, t) for x (B, H, Da) and a number t in [0, 1] under cond (B, To, Dc); `times` are those it will be asked for."""

    def __init__(self, denoiser: nn.Module, cond: Tensor, times: Sequence[float]) -> None:
        self.denoiser, self.context, self.rows = denoiser, denoiser.condition(cond), cond.shape[0]
        self.empty = cond.new_empty(0)
        self.prepared: dict[float, Any] = self._prepare(sorted(set(times))) if len(times) * self.rows <= ROWS else {}

    def __call__(self, x: Tensor, t: float) -> Tensor:
        """Returns the denoiser's output (B, H, Da) for x at time t."""
        ready = self.prepared.get(t)
        return self.denoiser.denoise(x, self._prepare([t])[t] if ready is None else ready)

    def _prepare(self, times: list[float]) -> dict[float, Any]:
        """Returns the modulation at each time, from one pass over (time, batch)."""
        n = len(times)
        spread = pytree.tree_map(lambda part: part.expand(n, *part.shape).flatten(0, 1), self.context)
        modulation = self.denoiser.modulate(self.empty.new_tensor(times).repeat_interleave(self.rows), spread)
        parts, tree = pytree.tree_flatten(modulation)
        split = [part.unflatten(0, (n, self.rows)) for part in parts]
        return {t: pytree.tree_unflatten([part[k] for part in split], tree) for k, t in enumerate(times)}
