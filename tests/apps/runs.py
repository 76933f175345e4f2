"""Run folders with networks that were never trained, for the tests of commands that load them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robolearn.core import Spec
from robolearn.data.normalize import Normalizer
from robolearn.data.stats import Stats
from robolearn.policies.flow import Config as FlowConfig
from robolearn.training import checkpoint
from robolearn.training.settings import TrainConfig
from sim_envs import _base as tasks


def untrained(folder: Path, seed: int = 0, obs: tuple[str, ...] = ("state",), task: str = "pusht") -> Path:
    """Returns a run folder of a small flow policy for `task` whose weights are drawn from `seed`."""
    body = tasks.make(task, tasks.with_cameras({}, [key for key in obs if key == "img"]))
    stats = {key: _stats(body.spec.obs[key].shape) for key in obs if key != "img"} | {"action": _stats((2,))}
    return untrained_for(folder, body.spec.select(obs), stats, seed, task)


def untrained_for(folder: Path, spec: Spec, stats: Mapping[str, Stats], seed: int = 0, task: str = "lift", **more: Any) -> Path:
    """Returns a run folder of a small flow policy for a body with `spec`.

    stats: of its numbers and its actions; more: fields of its config.
    """
    policy = FlowConfig(obs=tuple(spec.obs), width=32, depth=1, steps=2, image_net="small")
    cfg = TrainConfig(policy=policy, task=task, out=str(folder), **more)
    spec = dataclasses.replace(spec, execute=policy.execute)
    torch.manual_seed(seed)
    net = checkpoint.make_net(cfg, spec)
    normalizer = Normalizer.fit(stats)
    step = folder / "checkpoints" / "step_000001"
    weights = {key: value + 0.1 * torch.randn_like(value) for key, value in net.state_dict().items()}
    checkpoint.save(step, weights=weights, cfg=cfg, spec=spec, normalizer=normalizer, state={}, progress={"step": 1})
    checkpoint.point(folder, "last", step)
    rows = [{"step": k, "loss": 1.0 / k, "val_loss": 1.2 / k if k % 2 else None} for k in range(1, 30)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def _stats(shape: tuple[int, ...]) -> Stats:
    zero = np.zeros(shape)
    return Stats(min=zero, max=zero + 512.0, mean=zero + 256.0, std=zero + 100.0, count=100)
