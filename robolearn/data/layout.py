"""Which ticks a policy's tokens stand for: past-token prediction and long histories are properties of this layout.

Torne et al., "Learning Long-Context Diffusion Policies via Past-Token Prediction" (arXiv 2505.09561): observations and the
past and current action tokens are `stride` ticks apart, the future is dense. All numbers are ticks relative to now.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """n_obs observations, `stride` ticks apart (mixed: the newer half one tick apart), and n_past action tokens before now."""

    n_obs: int
    horizon: int
    n_past: int
    stride: int = 1
    mixed: bool = False

    @property
    def obs_ticks(self) -> tuple[int, ...]:
        """Ticks (n_obs,) of the observations, oldest first, the last one 0."""
        if not self.mixed:
            return tuple(-self.stride * k for k in reversed(range(self.n_obs)))
        dense = self.n_obs - self.n_obs // 2  # ceil(n_obs / 2) last frames one tick apart, the older ones `stride` apart
        older = range(self.n_obs // 2, 0, -1)
        return (*(-(dense - 1) - self.stride * k for k in older), *range(-(dense - 1), 1))

    @property
    def action_ticks(self) -> tuple[int, ...]:
        """Ticks (horizon,) of the action tokens: the past ones, now, the future."""
        return (*(-self.stride * k for k in range(self.n_past, 0, -1)), *range(self.n_future))

    @property
    def n_future(self) -> int:
        """How many tokens are now or later: the plan."""
        return self.horizon - self.n_past

    @property
    def span(self) -> int:
        """How many ticks before now the oldest token or observation lies."""
        return -min(self.obs_ticks[0], self.action_ticks[0])
