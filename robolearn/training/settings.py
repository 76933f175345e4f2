"""What `robolearn train` can be told: one flat dataclass, filled by configs/train/NAME.yaml and flags."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from robolearn import config, registry
from robolearn.data.images import CacheMode
from robolearn.errors import ConfigError
from robolearn.policies._base import PolicyConfig


@dataclass(frozen=True)
class DatasetConfig:
    """Which demonstrations, and how they are split and scaled."""

    path: str = ""
    """A dataset folder (.zarr)."""
    filter: str = ""
    """Use only the episodes of this named list (`robolearn data filter`); empty: all."""
    val_filter: str = ""
    """Hold out the episodes of this named list, instead of a share of them."""
    val_ratio: float = 0.02
    """Share of the episodes held out for validation; at least one episode, unless 0."""
    max_episodes: int = 0
    """Train on this many episodes, drawn by the seed; 0: all."""
    workers: int = 0
    """Threads that make batches ahead; only images need them."""
    cache: CacheMode = "auto"
    """Where decoded images lie: mmap (a file beside the dataset), ram, or auto (the file where it can be made, else ram)."""
    balance: str = ""
    """A fact of each episode, such as embodiment: every batch holds equally many windows of each of its values; empty: as is."""
    mirror: bool = False
    """Train on the mirror image of every training episode too, where the task has one (pusht)."""
    normalize: dict[str, Literal["minmax", "gaussian", "identity"]] = field(default_factory=dict)
    """Per key; minmax to [-1, 1] where nothing is said."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run, complete: this file and the dataset reproduce it."""

    dataset: DatasetConfig = DatasetConfig()
    policy: PolicyConfig = PolicyConfig()
    out: str = ""
    """The run folder; data/runs/<name of the config> where nothing is said."""
    task: str = ""
    """The task to evaluate on; the dataset's own where nothing is said."""
    env: dict[str, Any] = field(default_factory=dict)
    """What rebuilds the body of the dataset; the dataset's own where nothing is said."""
    seed: int = 0
    steps: int = 8000
    """Optimiser steps."""
    batch_size: int = 256
    """Windows an optimiser step, over all processes and accumulated parts."""
    accumulate: int = 1
    """Parts a batch is split into, to save memory."""
    lr: float = 5e-4
    betas: tuple[float, float] = (0.95, 0.999)
    weight_decay: float = 1e-6
    """Of the matrices of layers; biases, norms, learned positions and other learned tokens do not decay."""
    encoder_weight_decay: float = -1.0
    """Of the observation encoder's matrices; negative: as weight_decay."""
    warmup: int = 200
    """Steps of linear warm-up before the cosine decay to zero."""
    clip: float = 1.0
    """Largest gradient norm; 0: no clipping."""
    chain: int = 1
    """With a memory: windows of an episode through which gradients flow before the state is cut off; divides batch_size."""
    reset_every: tuple[int, int] = (0, 0)
    """With a memory: also reset it after so many updates, drawn from least..most (released: 40, 40); 0, 0: never."""
    whole_chains: bool = False
    """With a memory: begin episodes anew in every batch, so that a `chain` as long as an episode is never cut."""
    encoder: str = ""
    """A run whose frozen observation encoder and normalizer are used; its embeddings are cached beside the dataset."""
    encoder_config: str = ""
    """Where `encoder` is not trained yet: the config to train it with first (a shipped name or a file)."""
    cache_crops: int = 0
    """Random crops of every frame in the cache, one of them drawn for each window; 0: the centre crop."""
    rebuild_cache: bool = False
    """Encode the dataset anew where its cache is stale."""
    ema: bool = True
    """Evaluate and deploy an exponential moving average of the weights."""
    ema_power: float = 0.75
    ema_max: float = 0.9999
    precision: Literal["auto", "fp32", "bf16", "compile", "bf16+compile"] = "auto"
    """auto: the fastest of these, measured on this machine at the start."""
    device: str = "auto"
    """cpu, cuda, cuda:1; auto: cuda where there is one."""
    threads: int = 0
    """Threads of torch on the CPU; 0: all cores."""
    log_every: int = 50
    val_every: int = 500
    save_every: int = 1000
    keep_best: int = 2
    """How many checkpoints with the lowest validation action error are kept beside the last."""
    tensorboard: bool = True
    wandb: str = ""
    """A wandb project to log to; empty: none."""


def load(path: Path) -> TrainConfig:
    """Returns the config in a YAML file; the policy's own fields are those of robolearn/policies/<policy.name>.py."""
    values = config.read_yaml(path)
    policy = values.get("policy", {})
    name = policy.get("name", "") if isinstance(policy, dict) else ""
    if not name:
        raise ConfigError(f"{path}: policy.name is required (known: {', '.join(registry.names('robolearn.policies'))})")
    loaded = config.from_mapping(TrainConfig, values, str(path), choose={"policy": policy_config(name)})
    return loaded if loaded.out else dataclasses.replace(loaded, out=f"data/runs/{path.stem}")


def policy_config(name: str) -> type[PolicyConfig]:
    """Returns the Config class of a policy; UnknownName with the nearest one."""
    return registry.load("robolearn.policies", name, what="policy").Config
