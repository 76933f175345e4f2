"""Flow matching: the network predicts the velocity of a straight path from noise to action; an ODE solver samples.

Lipman et al., "Flow Matching for Generative Modeling" (arXiv 2210.02747), eq. 23 with sigma_min = 0; Liu et al.,
"Flow Straight and Fast" (arXiv 2209.03003). x_t = (1 - t) noise + t action, target velocity action - noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from robolearn.core import Spec
from robolearn.nets.guide import Guide, guided, placed
from robolearn.policies._base import Batch, Draws, PolicyConfig, PolicyNet


@dataclass(frozen=True)
class Config(PolicyConfig):
    """Flow matching policy."""

    real_time: ClassVar[bool] = True
    name: str = "flow"
    sampler: Literal["euler", "midpoint", "heun"] = "euler"
    """ODE solver; midpoint and heun call the network twice a step."""
    steps: int = 10
    """Steps of the solver; may be changed when a checkpoint is loaded."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


class Net(PolicyNet):
    """Velocity network v(x_t, t, cond)."""

    config: Config

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        self.denoiser = self.make_denoiser()

    def loss(self, batch: Batch, state: Any, *, rng: Draws) -> tuple[Tensor, Any]:
        """Mean squared error of the velocity at a uniform time."""
        cond, state = self.training_context(batch, state, rng)
        noise = rng.normal(tuple(batch.action.shape))
        t = rng.uniform((len(batch),))
        given, cond = self.give(cond, rng)
        x = placed(given, batch.action, torch.lerp(noise, batch.action, t[:, None, None]))
        return self.squared_error(self.denoiser(x, t, cond), batch.action - noise, given, batch.valid), state

    def sample(self, context: Tensor, noise: Tensor, *, guidance: float = 1.0, unguided: Tensor | None = None) -> Tensor:
        """Integrates dx/dt = v from t = 0 (noise) to t = 1 (action)."""
        c = self.config
        context, unguided = self.told(context, unguided)
        velocity = guided(self.denoiser, context, evaluations(c.steps, c.sampler), guidance, unguided)
        return integrate(velocity, noise[0], c.steps, c.sampler)

    def sample_guided(
        self, context: Tensor, noise: Tensor, guide: Guide, *, guidance: float = 1.0, unguided: Tensor | None = None
    ) -> Tensor:
        """Integrates dx/dt = v' of the guide."""
        c = self.config
        told = self.told(context, unguided, guide.given)
        with guide.sampling(*told, noise[0]) as (context, unguided, x):
            free = guided(self.denoiser, context, evaluations(c.steps, c.sampler), guidance, unguided)
            return guide.pin(integrate(guide.held(free), x, c.steps, c.sampler))

    def why_no_prefix(self) -> str:
        """Takes one with every solver."""
        return ""


def evaluations(steps: int, sampler: str) -> list[float]:
    """Returns the times at which `integrate` asks for the velocity, in order."""
    asked: list[float] = []
    integrate(lambda x, t: asked.append(t) or x, torch.zeros(()), steps, sampler)  # type: ignore[func-returns-value]
    return asked


def integrate(velocity: Callable[[Tensor, float], Tensor], x: Tensor, steps: int, sampler: str) -> Tensor:
    """Returns x(1) of dx/dt = velocity(x, t) from x(0) = x, in equal steps."""
    dt = 1.0 / steps
    for k in range(steps):
        t = k * dt
        slope = velocity(x, t)
        if sampler == "midpoint":
            slope = velocity(x + 0.5 * dt * slope, t + 0.5 * dt)
        elif sampler == "heun":
            slope = 0.5 * (slope + velocity(x + dt * slope, t + dt))
        x = x + dt * slope
    return x
