"""Diffusion policy: denoising diffusion over action sequences, with the schedulers of diffusers.

Chi et al., "Diffusion Policy" (arXiv 2303.04137); Ho et al., DDPM (arXiv 2006.11239); Song et al., DDIM (arXiv
2010.02502); Lu et al., DPM-Solver++ (arXiv 2211.01095); Salimans & Ho, v-prediction (arXiv 2202.00512). Squared-cosine
betas, sample clipped to [-1, 1]. The network sees time k / train_steps in [0, 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor, nn

from robolearn.core import Spec
from robolearn.policies._base import Batch, Draws, PolicyConfig, PolicyNet, guided


@dataclass(frozen=True)
class Config(PolicyConfig):
    """Diffusion policy."""

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
        x = alpha * batch.action + sigma * noise
        targets = {"epsilon": noise, "sample": batch.action, "v_prediction": alpha * noise - sigma * batch.action}
        predicted = self.denoiser(x, level / self.config.train_steps, cond)
        return nn.functional.mse_loss(self.counted(predicted), self.counted(targets[self.config.prediction])), state

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
        scheduler = self.scheduler
        scheduler.set_timesteps(self.config.steps)
        times = [float(level) / self.config.train_steps for level in scheduler.timesteps]
        predict = guided(self.denoiser, context, times, guidance, unguided)
        x = noise[0]
        for k, (level, t) in enumerate(zip(scheduler.timesteps, times, strict=True)):
            x = self._step(scheduler, predict(x, t), level, x, noise, k)
        return x.clamp(-1, 1) if self.config.sampler == "dpm_solver" else x

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
