"""Behaviour cloning: one forward pass regresses the whole chunk. The baseline that everything else must beat.

Pomerleau, "ALVINN" (1988); chunked regression as in Zhao et al. (arXiv 2304.13705) without the latent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from robolearn.core import Spec
from robolearn.policies._base import Batch, Draws, PolicyConfig, PolicyNet


@dataclass(frozen=True)
class Config(PolicyConfig):
    """Behaviour cloning by regression."""

    name: str = "bc"
    error: Literal["l2", "l1", "huber"] = "l2"
    """The regression loss."""


class Net(PolicyNet):
    """The denoiser network, given zeros to denoise."""

    config: Config

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        self.head = self.make_denoiser()

    def loss(self, batch: Batch, state: Any, *, rng: Draws) -> tuple[Tensor, Any]:
        """Mean regression error over all tokens that count."""
        cond, state = self.training_context(batch, state, rng)
        error = {"l2": nn.functional.mse_loss, "l1": nn.functional.l1_loss, "huber": nn.functional.smooth_l1_loss}
        return error[self.config.error](self.counted(self._predict(cond)), self.counted(batch.action)), state

    def sample(self, context: Tensor, noise: Tensor, *, guidance: float = 1.0, unguided: Tensor | None = None) -> Tensor:
        """Returns the regressed actions; there is no randomness and nothing to guide."""
        del noise, guidance, unguided  # Unused: regression has one answer.
        return self._predict(context)

    def noise_draws(self) -> int:
        """None is used."""
        return 0

    def _predict(self, cond: Tensor) -> Tensor:
        zeros = cond.new_zeros(cond.shape[0], self.config.horizon, self.action_dim)
        return self.head(zeros, cond.new_zeros(cond.shape[0]), cond)
