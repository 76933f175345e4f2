"""LeRobot's own diffusion policy at the sizes of our benches, where `lerobot` is installed: timed in the same run.

Its U-Net (huggingface/lerobot, policies/diffusion) with its loss, its optimiser settings and its sampler, on PushT's shapes.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

STATE = 5  # of the numbers of an observation, those that LeRobot calls the state; the rest is its environment state


class Sizes(NamedTuple):
    """What both networks are given: action tokens, observations, numbers of each, numbers of an action."""

    horizon: int
    n_obs: int
    cond_dim: int
    action_dim: int


def why_not() -> str:
    """Returns why LeRobot's policy cannot be timed here, in one line; empty where it can."""
    try:
        importlib.metadata.version("lerobot")
        import lerobot.policies.diffusion.modeling_diffusion  # noqa: F401
    except Exception as error:  # whatever fails inside another program
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def version() -> str:
    """Returns the version that is timed."""
    return f"lerobot {importlib.metadata.version('lerobot')}"


def training_step(sizes: Sizes, batch: int, device: torch.device) -> Callable[[], Any]:
    """Returns a function that takes one training step: forward, backward, clipping at 10, Adam."""
    net = model(sizes).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6)
    data = _observation(sizes, batch, device)
    data["action"] = torch.randn(batch, sizes.horizon, sizes.action_dim, device=device)
    data["action_is_pad"] = torch.zeros(batch, sizes.horizon, dtype=torch.bool, device=device)

    def step() -> None:
        net.compute_loss(data).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def plan(sizes: Sizes, sampler: str, steps: int, device: str) -> Callable[[], Any]:
    """Returns a function that plans once at batch 1 from an observation that is normalised already."""
    net = model(sizes, noise_scheduler_type=sampler.upper(), num_inference_steps=steps).to(device).eval()
    seen = _observation(sizes, 1, torch.device(device))

    def once() -> Any:
        with torch.inference_mode():
            return net.generate_actions(seen).cpu()

    return once


def model(sizes: Sizes, **fields: Any) -> Any:
    """Returns LeRobot's DiffusionModel for these sizes, with levels of 64, 128 and 256 channels."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionModel

    seen = {
        "observation.state": PolicyFeature(FeatureType.STATE, (STATE,)),
        "observation.environment_state": PolicyFeature(FeatureType.ENV, (sizes.cond_dim - STATE,)),
    }
    given = {"action": PolicyFeature(FeatureType.ACTION, (sizes.action_dim,))}
    shape = dict(n_obs_steps=sizes.n_obs, horizon=sizes.horizon, down_dims=(64, 128, 256), device="cpu")
    return DiffusionModel(DiffusionConfig(input_features=seen, output_features=given, **shape, **fields))


def _observation(sizes: Sizes, batch: int, device: torch.device) -> dict[str, Any]:
    whole = torch.randn(batch, sizes.n_obs, sizes.cond_dim, device=device)
    return {"observation.state": whole[..., :STATE], "observation.environment_state": whole[..., STATE:]}
