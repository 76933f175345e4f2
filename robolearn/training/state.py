"""Everything that changes while a policy is trained, and how it is kept so that a resumed run goes on bit for bit."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor

from robolearn.core import Spec
from robolearn.data.windows import Windows
from robolearn.policies._base import PolicyNet
from robolearn.training import checkpoint
from robolearn.training.loader import Loader
from robolearn.training.settings import TrainConfig


class Average(EMAModel):
    """The moving average of diffusers, in one pass over the weights: its own way makes three and took a tenth of a step."""

    @torch.no_grad()
    def step(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Moves the average towards the weights by 1 - decay of this step."""
        self.optimization_step += 1
        share = 1 - self.get_decay(self.optimization_step)
        for average, parameter in zip(self.shadow_params, parameters, strict=True):
            average.lerp_(parameter, share)


@dataclass
class State:
    """Network, optimiser, learning rate, moving average (None: none), the loss's random numbers, the place in the data."""

    net: PolicyNet
    optimizer: torch.optim.AdamW
    schedule: torch.optim.lr_scheduler.LambdaLR
    ema: Average | None
    generator: torch.Generator
    loader: Loader

    @classmethod
    def begin(cls, cfg: TrainConfig, spec: Spec, windows: Windows, device: torch.device) -> State:
        """Returns the state before the first step; all of it follows from the config's seed."""
        torch.manual_seed(cfg.seed)
        net = checkpoint.make_net(cfg, spec).to(device)
        optimizer = torch.optim.AdamW(groups(net, cfg.weight_decay), lr=cfg.lr, betas=cfg.betas, fused=True)
        ema = Average(net.parameters(), decay=cfg.ema_max, use_ema_warmup=True, power=cfg.ema_power) if cfg.ema else None
        return cls(
            net=net,
            optimizer=optimizer,
            schedule=get_cosine_schedule_with_warmup(optimizer, cfg.warmup, cfg.steps),
            ema=ema,
            generator=torch.Generator(device).manual_seed(cfg.seed),
            loader=Loader(windows, cfg.batch_size, cfg.seed, workers=cfg.dataset.workers),
        )

    def step(self, clip: float) -> tuple[Tensor, float]:
        """Applies the gradients; returns their norm before clipping and the learning rate that was used."""
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), clip or float("inf"))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        rate = float(self.schedule.get_last_lr()[0])
        self.schedule.step()
        if self.ema is not None:
            self.ema.step(self.net.parameters())
        return norm, rate

    def averaged(self) -> dict[str, Tensor]:
        """Returns the weights to evaluate: the moving average where there is one, buffers as they are."""
        weights = dict(self.net.state_dict())
        if self.ema is not None:
            named = zip(self.net.named_parameters(), self.ema.shadow_params, strict=True)
            weights |= {name: shadow for (name, _), shadow in named}
        return weights

    def snapshot(self, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Returns everything that a resumed run needs, as tensors and plain values."""
        kept = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            kept |= {f"optimizer.{i}.{name}": torch.as_tensor(value) for name, value in moments.items()}
        kept |= {"rng.torch": torch.get_rng_state(), "rng.loss": self.generator.get_state()}
        if self.generator.device.type == "cuda":
            kept["rng.cuda"] = torch.cuda.get_rng_state(self.generator.device)
        if self.ema is not None:
            kept |= {f"ema.{i}": shadow for i, shadow in enumerate(self.ema.shadow_params)}
        progress = {"step": step, "loader": self.loader.state(), "schedule": self.schedule.last_epoch}
        return kept, progress | {"ema_steps": self.ema.optimization_step if self.ema else 0}

    def restore(self, folder: Path) -> int:
        """Puts everything of `snapshot` back from a checkpoint folder and returns the step."""
        kept: dict[str, dict[str, Tensor]] = {"net": {}, "optimizer": {}, "rng": {}, "ema": {}}
        for key, value in checkpoint.read_tensors(folder / "state.safetensors").items():
            kind, name = key.split(".", 1)
            kept[kind][name] = value
        progress = json.loads((folder / "state.json").read_text())
        checkpoint.load_weights(self.net, kept["net"], folder)
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in kept["optimizer"].items():
            i, name = key.split(".", 1)
            moments.setdefault(int(i), {})[name] = value
        schedule = self.schedule
        schedule.last_epoch = progress["schedule"]
        for group, base, factor in zip(self.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
            group["lr"] = base * factor(progress["schedule"])
        schedule._last_lr = [group["lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})
        if self.ema is not None:
            self.ema.shadow_params = [kept["ema"][str(i)].to(p.device) for i, p in enumerate(self.net.parameters())]
            self.ema.optimization_step = progress["ema_steps"]
        torch.set_rng_state(kept["rng"]["torch"])
        self.generator.set_state(kept["rng"]["loss"])
        if "cuda" in kept["rng"]:
            torch.cuda.set_rng_state(kept["rng"]["cuda"], self.generator.device)
        self.loader.restore(progress["loader"])
        return int(progress["step"])


def groups(net: PolicyNet, weight_decay: float) -> list[dict[str, Any]]:
    """Returns optimiser groups: matrices decay, vectors (biases, norms) do not; every parameter is in one."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
