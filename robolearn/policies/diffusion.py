"""Diffusion policy: denoising diffusion over action sequences, with the schedulers of diffusers.

Chi et al., "Diffusion Policy" (arXiv 2303.04137); Ho et al., DDPM (arXiv 2006.11239); Song et al., DDIM (arXiv
2010.02502); Lu et al., DPM-Solver++ (arXiv 2211.01095); Salimans & Ho, v-prediction (arXiv 2202.00512). Squared-cosine
betas, sample clipped to [-1, 1]. The network sees time k / train_steps in [0, 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from robolearn.core import Spec
from robolearn.errors import BadInput
from robolearn.nets.guide import Guide, Output, guided, placed, strength
from robolearn.policies._base import Batch, Draws, PolicyConfig, PolicyNet


@dataclass(frozen=True)
class Config(PolicyConfig):
    """Diffusion policy."""

    real_time: ClassVar[bool] = True
    name: str = "diffusion"
    prediction: Literal["epsilon", "sample", "v_prediction"] = "epsilon"
    """What the network predicts; fixed at training."""
    train_steps: int = 100
    """Noise levels in training."""
    sampler: Literal["ddpm", "ddim", "dpm_solver"] = "ddim"
    """May be changed when a checkpoint is loaded."""
    steps: int = 10
    """Denoising steps of one plan; may be changed when a checkpoint is loaded."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.steps <= self.train_steps:
            raise ValueError(f"steps must be in 1..train_steps ({self.train_steps}), got {self.steps}")


class Net(PolicyNet):
    """Noise (or sample, or v) network over train_steps noise levels."""

    config: Config

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        self.denoiser = self.make_denoiser()
        noiser = DDPMScheduler(config.train_steps, beta_schedule="squaredcos_cap_v2")
        # Buffers, so that they follow the module to its device; derived, so not part of the weights.
        self.register_buffer("alpha", noiser.alphas_cumprod.sqrt(), persistent=False)
        self.register_buffer("sigma", (1 - noiser.alphas_cumprod).sqrt(), persistent=False)

    def loss(self, batch: Batch, state: Any, *, rng: Draws) -> tuple[Tensor, Any]:
        """Mean squared error of what the config says is predicted, at a uniform noise level."""
        cond, state = self.training_context(batch, state, rng)
        noise = rng.normal(tuple(batch.action.shape))
        level = rng.integers(self.config.train_steps, len(batch))
        alpha, sigma = self.alpha[level][:, None, None], self.sigma[level][:, None, None]
        given, cond = self.give(cond, rng)
        x = placed(given, batch.action, alpha * batch.action + sigma * noise)
        targets = {"epsilon": noise, "sample": batch.action, "v_prediction": alpha * noise - sigma * batch.action}
        predicted = self.denoiser(x, level / self.config.train_steps, cond)
        return self.squared_error(predicted, targets[self.config.prediction], given, batch.valid), state

    @cached_property
    def scheduler(self) -> DDIMScheduler | DPMSolverMultistepScheduler:
        """The sampler's scheduler; `set_timesteps` begins a new plan."""
        c = self.config
        common: dict[str, Any] = dict(beta_schedule="squaredcos_cap_v2", prediction_type=c.prediction)
        scheduler: DDIMScheduler | DPMSolverMultistepScheduler
        if c.sampler == "dpm_solver":
            # The cosine schedule ends at almost no signal, where the smallest error of the network becomes a huge action.
            scheduler = DPMSolverMultistepScheduler(c.train_steps, lambda_min_clipped=-5.1, **common)
        else:
            scheduler = DDIMScheduler(c.train_steps, clip_sample=True, set_alpha_to_one=True, **common)
        return scheduler

    def sample(self, context: Tensor, noise: Tensor, *, guidance: float = 1.0, unguided: Tensor | None = None) -> Tensor:
        """Denoises from pure noise with the configured scheduler."""
        context, unguided = self.told(context, unguided)
        scheduler = self.scheduler
        scheduler.set_timesteps(self.config.steps)
        times = [float(level) / self.config.train_steps for level in scheduler.timesteps]
        predict = guided(self.denoiser, context, times, guidance, unguided)
        x = noise[0]
        for k, (level, t) in enumerate(zip(scheduler.timesteps, times, strict=True)):
            x = self._step(scheduler, predict(x, t), level, x, noise, k)
        return x.clamp(-1, 1) if self.config.sampler == "dpm_solver" else x

    def sample_guided(
        self, context: Tensor, noise: Tensor, guide: Guide, *, guidance: float = 1.0, unguided: Tensor | None = None
    ) -> Tensor:
        """Denoises as the flow that the scheduler's steps are, its velocity corrected by the guide.

        x = alpha a + sigma e (alpha^2 the scheduler's alpha-bar) is the flow's z = tau a + (1 - tau) e where z = x / (alpha +
        sigma) and tau = alpha / (alpha + sigma). A1 is the predicted clean sample, clipped; it becomes

            A1 + (1 - tau) g(tau) J^T [(Y - A1) * W]        J = dA1/dz

        and the predicted noise what leaves z where it is. DDIM is Euler in tau.
        """
        if why := self.why_no_prefix():
            raise BadInput(why)
        scheduler = self.scheduler
        scheduler.set_timesteps(self.config.steps)
        times = [float(level) / self.config.train_steps for level in scheduler.timesteps]
        told = self.told(context, unguided, guide.given)
        with guide.sampling(*told, noise) as (context, unguided, noise):
            predict = guided(self.denoiser, context, times, guidance, unguided)
            x = noise[0]
            for k, (level, t) in enumerate(zip(scheduler.timesteps, times, strict=True)):
                x, signal = guide.pin(x), self._signal(int(level))
                predicted, pulled = self._pull(guide, predict, x, t, signal)
                x = self._step(scheduler, predicted, level, x, noise, k)
                if pulled is not None:
                    x = x + signal.gain * strength(signal.tau, guide.beta) * pulled
            return guide.pin(x.clamp(-1, 1))

    def _step(self, scheduler: Any, predicted: Tensor, level: Tensor, x: Tensor, noise: Tensor, k: int) -> Tensor:
        if self.config.sampler != "ddpm":
            return scheduler.step(predicted, level, x).prev_sample
        # DDIM at eta = 1 with the clipped sample is DDPM with the small variance, and takes its noise as an argument.
        return scheduler.step(
            predicted, level, x, eta=1.0, use_clipped_model_output=True, variance_noise=noise[k + 1]
        ).prev_sample

    def noise_draws(self) -> int:
        """DDPM needs fresh noise at every step."""
        return self.config.steps + 1 if self.config.sampler == "ddpm" else 1

    def why_no_prefix(self) -> str:
        """Takes one with the samplers that go step by step from a predicted clean sample."""
        if self.config.sampler == "dpm_solver":
            return (
                "policy 'diffusion': sampler 'dpm_solver' takes no prefix, as its steps remember earlier ones; ddim and ddpm do"
            )
        return ""

    def _pull(self, guide: Guide, predict: Output, x: Tensor, t: float, signal: _Signal) -> tuple[Tensor, Tensor | None]:
        """Returns the network's output for x and what the guide pulls the clean sample by (see `Guide.pull`)."""
        alpha, sigma = signal.alpha, signal.sigma

        def promise(z: Tensor) -> tuple[Tensor, Tensor]:
            x = z * (alpha + sigma)
            out = predict(x, t)
            if self.config.prediction == "epsilon":
                clean = (x - sigma * out) / alpha
            elif self.config.prediction == "v_prediction":
                clean = alpha * x - sigma * out
            else:
                clean = out
            return out, clean.clamp(-1, 1)

        return guide.pull(promise, x / (alpha + sigma))

    def _signal(self, level: int) -> _Signal:
        kept, after = self.scheduler.alphas_cumprod, level - self.config.train_steps // self.config.steps
        now, then = float(kept[level]), float(kept[after]) if after >= 0 else 1.0
        fresh = (1 - then) / (1 - now) * (1 - now / then) if self.config.sampler == "ddpm" else 0.0
        return _Signal(math.sqrt(now), math.sqrt(1 - now), math.sqrt(then), math.sqrt(max(0.0, 1 - then - fresh)))


@dataclass(frozen=True)
class _Signal:
    """How much action and noise x holds before a step, and after it how much of the predicted ones."""

    alpha: float
    sigma: float
    alpha_after: float
    sigma_after: float

    @property
    def tau(self) -> float:
        """The time of the flow, from 0 (noise) to 1 (action)."""
        return self.alpha / (self.alpha + self.sigma)

    @property
    def gain(self) -> float:
        """How far a step moves x for one unit of velocity: the clean sample by 1 - tau, the noise by what keeps z."""
        return (self.alpha_after * self.sigma - self.alpha * self.sigma_after) / (self.alpha + self.sigma)
