"""Everything that changes while a policy is trained, and how it is kept so that a resumed run goes on bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor

from robolearn.core import Spec
from robolearn.data.windows import Windows
from robolearn.errors import CheckpointError, ConfigError
from robolearn.policies._base import PolicyNet
from robolearn.training import checkpoint
from robolearn.training.chains import ChainOrder, Chains
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
    """Network, optimiser, learning rate, moving average (None: none), the loss's random numbers, the place in the data.

    memory: what the net's memory holds for the slots of each part of a batch, by the part's number.
    """

    net: PolicyNet
    optimizer: torch.optim.AdamW
    schedule: torch.optim.lr_scheduler.LambdaLR
    ema: Average | None
    generator: torch.Generator
    loader: Loader
    memory: dict[int, Tensor | None] = field(default_factory=dict)

    @classmethod
    def begin(
        cls,
        cfg: TrainConfig,
        spec: Spec,
        windows: Windows,
        device: torch.device,
        prepare: Callable[[PolicyNet], object] | None = None,
    ) -> State:
        """Returns the state before the first step; all of it follows from the config's seed.

        prepare: told of the new net before its optimiser is made (a frozen encoder is put in).
        """
        torch.manual_seed(cfg.seed)
        net = checkpoint.make_net(cfg, spec).to(device)
        if prepare is not None:
            prepare(net)
        decays = groups(net, cfg.weight_decay, cfg.encoder_weight_decay)
        optimizer = torch.optim.AdamW(decays, lr=cfg.lr, betas=cfg.betas, fused=True)
        ema = Average(net.parameters(), decay=cfg.ema_max, use_ema_warmup=True, power=cfg.ema_power) if cfg.ema else None
        return cls(
            net=net,
            optimizer=optimizer,
            schedule=get_cosine_schedule_with_warmup(optimizer, cfg.warmup, cfg.steps),
            ema=ema,
            generator=torch.Generator(device).manual_seed(cfg.seed),
            loader=Loader(
                windows,
                cfg.batch_size,
                cfg.seed,
                cfg.dataset.workers,
                chains=make_chains(cfg, windows),
                groups=balanced(cfg, windows),
            ),
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
        for name, p in self.net.named_parameters():
            kept |= {f"moments.{name}:{what}": torch.as_tensor(value) for what, value in self.optimizer.state.get(p, {}).items()}
        kept |= {"rng.torch": torch.get_rng_state(), "rng.loss": self.generator.get_state()}
        if self.generator.device.type == "cuda":
            kept["rng.cuda"] = torch.cuda.get_rng_state(self.generator.device)
        if self.ema is not None:
            kept |= {f"ema.{i}": shadow for i, shadow in enumerate(self.ema.shadow_params)}
        kept |= {f"memory.{part}": value for part, value in self.memory.items() if value is not None}
        progress = {"step": step, "loader": self.loader.state(), "schedule": self.schedule.last_epoch}
        return kept, progress | {"ema_steps": self.ema.optimization_step if self.ema else 0}

    def _by_name(self, by_number: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns moments as they are kept now, of a checkpoint that numbers them: all matrices first, then all vectors."""
        named = [(name, p) for name, p in self.net.named_parameters() if p.requires_grad]
        order = [name for name, p in named if p.ndim >= 2] + [name for name, p in named if p.ndim < 2]
        parts = {key: key.split(".", 1) for key in by_number}
        return {f"{order[int(i)]}:{what}": by_number[key] for key, (i, what) in parts.items()}

    def _put_moments(self, kept: Mapping[str, Tensor], folder: Path) -> None:
        parameters, state = dict(self.net.named_parameters()), self.optimizer.state
        for key, value in kept.items():
            name, what = key.rsplit(":", 1)
            if name not in parameters or (value.ndim and value.shape != parameters[name].shape):
                raise CheckpointError(f"{folder}: the optimiser's '{key}' is {tuple(value.shape)}, which no weight here has")
            state[parameters[name]][what] = value.to(parameters[name].device) if value.ndim else value

    def restore(self, folder: Path) -> int:
        """Puts everything of `snapshot` back from a checkpoint folder and returns the step."""
        kept: dict[str, dict[str, Tensor]] = {"net": {}, "moments": {}, "optimizer": {}, "rng": {}, "ema": {}, "memory": {}}
        for key, value in checkpoint.read_tensors(folder / "state.safetensors").items():
            kind, name = key.split(".", 1)
            kept[kind][name] = value
        progress = json.loads((folder / "state.json").read_text())
        checkpoint.load_weights(self.net, kept["net"], folder)
        schedule = self.schedule
        schedule.last_epoch = progress["schedule"]
        for group, base, factor in zip(self.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
            group["lr"] = base * factor(progress["schedule"])
        schedule._last_lr = [group["lr"] for group in self.optimizer.param_groups]
        self._put_moments(kept["moments"] or self._by_name(kept["optimizer"]), folder)
        if self.ema is not None:
            self.ema.shadow_params = [kept["ema"][str(i)].to(p.device) for i, p in enumerate(self.net.parameters())]
            self.ema.optimization_step = progress["ema_steps"]
        torch.set_rng_state(kept["rng"]["torch"])
        self.generator.set_state(kept["rng"]["loss"])
        if "cuda" in kept["rng"]:
            torch.cuda.set_rng_state(kept["rng"]["cuda"], self.generator.device)
        self.memory = {int(part): value.to(self.generator.device) for part, value in kept["memory"].items()}
        self.loader.restore(progress["loader"])
        return int(progress["step"])


def make_chains(cfg: TrainConfig, windows: Windows) -> Chains | None:
    """Returns the walk along episodes that the config's memory is trained on; None without a memory."""
    if cfg.policy.memory == "none":
        return None
    order = ChainOrder(cfg.batch_size // cfg.chain, cfg.chain, cfg.policy.update_every, cfg.reset_every, cfg.whole_chains)
    return Chains(windows.chains(), order, cfg.seed)


def balanced(cfg: TrainConfig, windows: Windows) -> np.ndarray | None:
    """Returns which value of the fact `dataset.balance`, counted in their order, each window has; None: nothing to balance."""
    if not cfg.dataset.balance:
        return None
    if cfg.policy.memory != "none":
        raise ConfigError("dataset.balance: a memory walks along whole episodes, which cannot be balanced; leave it empty")
    values, groups = np.unique(windows.fact(cfg.dataset.balance), return_inverse=True)
    if values.dtype.kind != "U" or "" in values:
        got = ", ".join(map(repr, values[:3].tolist()))
        raise ConfigError(f"dataset.balance: want a fact that is text in every episode, '{cfg.dataset.balance}' is {got}")
    return groups if len(values) > 1 else None


def groups(net: PolicyNet, weight_decay: float, encoder_weight_decay: float = -1.0) -> list[dict[str, Any]]:
    """Returns optimiser groups in which every parameter that learns is exactly once: matrices of layers decay, the rest does not.

    encoder_weight_decay: of the observation encoder's matrices, negative: as the others.
    """
    tokens = ("initial", "position", "positions", "cond_positions", "style_position", "obs_position", "query", "summary", "token")
    named = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    decays = [(name, p) for name, p in named if p.ndim >= 2 and name.rsplit(".", 1)[-1] not in tokens]
    rest = [p for name, p in named if p.ndim < 2 or name.rsplit(".", 1)[-1] in tokens]
    apart = encoder_weight_decay >= 0
    out = [
        {"params": [p for name, p in decays if not (apart and name.startswith("encoder."))], "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    encoder = [p for name, p in decays if name.startswith("encoder.")]
    return [*out, {"params": encoder, "weight_decay": encoder_weight_decay}] if apart and encoder else out
