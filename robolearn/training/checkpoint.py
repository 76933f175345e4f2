"""A checkpoint is a folder of plain files; loading one never executes code.

    weights.safetensors   what is evaluated: the moving average where there is one
    config.yaml           the complete TrainConfig       spec.json      what the policy reads and gives
    stats.json            the normalizer                 versions.json  software that wrote it
    state.safetensors, state.json   for resuming: raw weights, optimiser, average, RNG, sampler position, step

Written beside its final name and renamed, so that an interrupted save leaves the older checkpoint whole.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from robolearn import __version__, config, registry
from robolearn.core import Spec
from robolearn.data.normalize import Normalizer
from robolearn.errors import BadInput, CheckpointError, ConfigError, nearest
from robolearn.policies import _driven
from robolearn.policies._base import PolicyNet
from robolearn.policies._learned import Learned
from robolearn.policies._pointed import Pointed
from robolearn.policies._tracked import Tracked
from robolearn.training.settings import TrainConfig, policy_config

_FILES = ("weights.safetensors", "config.yaml", "spec.json", "stats.json", "versions.json")


def save(
    folder: Path,
    *,
    weights: Mapping[str, Tensor],
    cfg: TrainConfig,
    spec: Spec,
    normalizer: Normalizer,
    state: Mapping[str, Tensor],
    progress: Mapping[str, Any],
) -> None:
    """Writes a checkpoint folder atomically, replacing one of the same name."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in weights.items()}, part / "weights.safetensors")
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in state.items()}, part / "state.safetensors")
    (part / "config.yaml").write_text(config.to_yaml(cfg))
    (part / "spec.json").write_text(json.dumps(spec.to_json(), indent=1))
    (part / "stats.json").write_text(json.dumps(normalizer.to_json(), indent=1))
    (part / "versions.json").write_text(json.dumps(_versions(), indent=1))
    (part / "state.json").write_text(json.dumps(dict(progress)))
    _sync(part)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(part, folder)


def _sync(folder: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def _versions() -> dict[str, str]:
    names = ("torch", "diffusers", "numpy", "safetensors")
    return {"robolearn": __version__, "python": platform.python_version()} | {n: importlib.metadata.version(n) for n in names}


def point(run: Path, name: str, target: Path) -> None:
    """Makes RUN/checkpoints/<name> the checkpoint `target`, as a small text file that survives copying between systems."""
    part = run / "checkpoints" / f".{name}.part"
    part.write_text(target.name)
    os.replace(part, run / "checkpoints" / name)


def resolve(run: str | Path, which: str = "last") -> Path:
    """Returns the checkpoint folder of a run folder (`which`: last, best or step_...), or `run` itself if it is one."""
    run = Path(run)
    if run.suffix in (".pt", ".pth", ".ckpt", ".pkl"):
        raise CheckpointError(f"{run}: a pickle can run code when it is loaded; want a robolearn run folder (safetensors)")
    if not run.exists():
        siblings = [p.name for p in run.parent.iterdir() if p.is_dir()] if run.parent.is_dir() else []
        raise CheckpointError(f"{run}: no such run folder{nearest(run.name, sorted(siblings))}")
    if (run / "weights.safetensors").is_file():
        return run
    pointer = run / "checkpoints" / which
    if pointer.is_file():
        pointer = run / "checkpoints" / pointer.read_text().strip()
    if not pointer.is_dir():
        found = sorted(p.name for p in (run / "checkpoints").glob("step_*")) if (run / "checkpoints").is_dir() else []
        raise CheckpointError(f"{run}: holds no checkpoint '{which}'{nearest(which, found)}")
    return pointer


def read_config(checkpoint: Path) -> TrainConfig:
    """Returns the complete config of a run or checkpoint folder."""
    try:
        values = config.read_yaml(checkpoint / "config.yaml")
        kind = policy_config(values.get("policy", {}).get("name", ""))
        return config.from_mapping(TrainConfig, values, str(checkpoint / "config.yaml"), choose={"policy": kind})
    except (OSError, ConfigError) as error:
        raise CheckpointError(f"{checkpoint}: cannot read config.yaml: {error}") from error


def make_net(cfg: TrainConfig, spec: Spec) -> PolicyNet:
    """Returns the untrained network of a config for a spec."""
    return registry.load("robolearn.policies", cfg.policy.name, what="policy").Net(cfg.policy, spec)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file; CheckpointError where it is broken or something else."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors: {error}") from error


def load_policy(run: str | Path, device: str = "cpu", streams: int = 1, sampling: Mapping[str, Any] | None = None) -> Learned:
    """Returns the trained policy of a run or checkpoint folder, ready for `rollout`.

    sampling: policy fields that may change after training (sampler, steps, execute).
    """
    folder = resolve(run)
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder}: '{missing[0]}' is missing; want {', '.join(_FILES)}")
    cfg = read_config(folder)
    cfg = dataclasses.replace(cfg, policy=_resampled(cfg, dict(sampling or {}), folder))
    try:
        spec = Spec.from_json(json.loads((folder / "spec.json").read_text()))
        normalizer = Normalizer.from_json(json.loads((folder / "stats.json").read_text()))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: spec.json or stats.json is broken: {error!r}") from error
    spec = dataclasses.replace(spec, execute=cfg.policy.execute)
    net = make_net(cfg, spec)
    load_weights(net, read_tensors(folder / "weights.safetensors"), folder)
    return Learned(net, spec, normalizer, device, streams)


def load_driver(
    run: str | Path, device: str = "cpu", streams: int = 1, sampling: Mapping[str, Any] | None = None
) -> Learned | Tracked | Pointed:
    """Returns what drives a body: the policy of `load_policy`, one of tracks or 3-D points with the way to poses around it."""
    folder = resolve(run)
    policy = config.to_mapping(read_config(folder).policy)
    inner = load_policy(folder, device, streams * _driven.streams_each(policy), sampling)
    return _driven.driver(inner, policy, streams)


def load_weights(net: torch.nn.Module, weights: Mapping[str, Tensor], where: Path) -> None:
    """Fills `net`; CheckpointError names the first weight that is missing, unknown or of another shape."""
    own = net.state_dict()
    for key in own.keys() | weights.keys():
        if key not in weights or key not in own:
            raise CheckpointError(f"{where}: weight '{key}' is {'missing' if key in own else 'unknown to this policy'}")
        if own[key].shape != weights[key].shape:
            raise CheckpointError(f"{where}: weight '{key}' is {tuple(weights[key].shape)}, want {tuple(own[key].shape)}")
    net.load_state_dict(dict(weights))


def _resampled(cfg: TrainConfig, sampling: dict[str, Any], folder: Path) -> Any:
    allowed = [name for name in ("sampler", "steps", "execute") if hasattr(cfg.policy, name)]
    for key in sampling:
        if key not in allowed:
            raise BadInput(f"{folder}: '{key}' cannot be changed after training{nearest(key, allowed)}")
    values = {**config.to_mapping(cfg.policy), **sampling}
    return config.from_mapping(type(cfg.policy), values, f"{folder}: policy")
