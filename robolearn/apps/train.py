"""Train a policy on a dataset: `robolearn train pusht_flow --dataset.path data/demos/pusht.zarr --out data/runs/x`."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from robolearn import config
from robolearn.core import Spec
from robolearn.data.store import EpisodeSet
from robolearn.data.windows import Mirror
from robolearn.errors import BadInput, ConfigError, SpecMismatch
from robolearn.policies import _driven
from robolearn.policies._tracked import CODEC
from robolearn.training import settings
from robolearn.training.settings import TrainConfig
from sim_envs import _base as bodies

CONFIGS = "train"


@dataclass(frozen=True)
class Config(TrainConfig):
    """What to train (a shipped config or a YAML file), and any of its fields as a flag."""

    resume: bool = False
    """Go on with the run in --out where it stopped."""
    overwrite: bool = False
    """Delete the run in --out first."""


def load(path: Path) -> Config:
    """Returns the config of a YAML file."""
    values = settings.load(path)
    return Config(**{f.name: getattr(values, f.name) for f in dataclasses.fields(values)})


def run(cfg: Config) -> int:
    """Trains; prints the run folder."""
    from robolearn.training.trainer import train

    plain = TrainConfig(**{f.name: getattr(cfg, f.name) for f in dataclasses.fields(TrainConfig)})
    if not cfg.dataset.path:
        raise BadInput("train: no dataset; give --dataset.path")
    dataset = EpisodeSet.open(cfg.dataset.path)
    plain, spec = fit_task(plain, dataset)
    if plain.encoder_config:
        train_encoder(plain, dataset, spec)
    folder = train(plain, dataset, spec, mirror=mirror_of(plain), resume=cfg.resume, overwrite=cfg.overwrite)
    print(f"{folder}: trained {cfg.steps} steps; evaluate with: robolearn eval {folder}", file=sys.stderr)
    return 0


def train_encoder(cfg: TrainConfig, dataset: EpisodeSet, spec: Spec) -> None:
    """Trains the run that the config's encoder comes from, on the same data with the same seed, unless that is done.

    Half of such a training is resumed. Raises ConfigError where the config names no run to put it.
    """
    from robolearn.training import checkpoint
    from robolearn.training.trainer import train

    if not cfg.encoder:
        raise ConfigError("encoder_config: want `encoder` too, the run folder to train the encoder in")
    run = Path(cfg.encoder)
    first = settings.load(config.find(CONFIGS, cfg.encoder_config))
    started = (run / "checkpoints" / "last").exists()
    if started and json.loads((checkpoint.resolve(run) / "state.json").read_text())["step"] >= first.steps:
        return
    same = ("path", "filter", "val_filter", "val_ratio", "max_episodes")
    data = dataclasses.replace(first.dataset, **{name: getattr(cfg.dataset, name) for name in same})
    where = dict(out=str(run), dataset=data, task=cfg.task, env=cfg.env, seed=cfg.seed, device=cfg.device, threads=cfg.threads)
    print(f"{run}: the encoder first ({cfg.encoder_config}, {first.steps} steps)", file=sys.stderr)
    train(dataclasses.replace(first, **where), dataset, spec, resume=run.exists())  # type: ignore[arg-type]


def fit_task(cfg: TrainConfig, dataset: EpisodeSet) -> tuple[TrainConfig, Spec]:
    """Returns the config with task and env filled from the dataset, and the spec to train for.

    Where a task is known, its body is made once, so that a dataset that does not fit it is refused before the training.
    """
    task, env = cfg.task or dataset.task or "", cfg.env or dict(dataset.env or {})
    cfg = dataclasses.replace(cfg, task=task, env=env)
    if not task:
        if dataset.spec is None:
            raise BadInput(f"{dataset.path}: says neither spec nor task; give --task")
        return cfg, dataset.spec
    if dataset.spec is not None and dataset.spec.codec in _driven.CODECS:
        check_driven(cfg, dataset)
        return cfg, dataset.spec
    images = [key for key in cfg.policy.obs if key in dataset.keys and len(dataset.keys[key].shape) == 3]
    body = bodies.make(task, bodies.with_cameras(env, images))
    try:
        spec = body.spec
    finally:
        body.close()
    check_fit(spec, dataset, cfg)
    return cfg, spec


def check_driven(cfg: TrainConfig, dataset: EpisodeSet) -> None:
    """Raises SpecMismatch where the task's body is not driven by what a policy makes of the dataset's tracks or points."""
    assert dataset.spec is not None
    policy = config.to_mapping(cfg.policy)
    if dataset.spec.codec == CODEC and "views" not in policy:
        raise ConfigError(
            f"{dataset.path}: its actions are tracks, and policy '{cfg.policy.name}' has no way from them to poses; want mt_pi"
        )
    drives = _driven.body_spec(dataset.spec, policy)
    body = bodies.make(cfg.task, bodies.with_cameras(cfg.env, [key for key, array in drives.obs.items() if array.is_image]))
    try:
        body.spec.require(drives, who=f"{dataset.path} (task {cfg.task})")
    finally:
        body.close()


def mirror_of(cfg: TrainConfig) -> Mirror | None:
    """Returns the task's mirror where the config asks for it; ConfigError where the task has none."""
    if not cfg.dataset.mirror:
        return None
    mirror: Mirror | None = getattr(bodies.module(cfg.task), "mirror", None) if cfg.task else None
    if mirror is None:
        raise ConfigError(f"dataset.mirror: task '{cfg.task}' is not its own mirror image; leave it false")
    return mirror


def check_fit(spec: Spec, dataset: EpisodeSet, cfg: TrainConfig) -> None:
    """Raises SpecMismatch where the dataset's arrays are not those of the task's body."""
    who = f"{dataset.path} (task {cfg.task})"
    have = dataset.keys
    if "action" not in have or have["action"].shape != spec.action.shape:
        got = have["action"].shape if "action" in have else "none"
        raise SpecMismatch(f"{who}: action has shape {got}, the task takes {spec.action.shape}")
    for key in cfg.policy.obs:
        spec.select((key,))
        if key not in have:
            raise SpecMismatch(f"{who}: holds no observation '{key}' (holds: {', '.join(have)})")
        if have[key].shape != spec.obs[key].shape:
            raise SpecMismatch(f"{who}: observation '{key}' has shape {have[key].shape}, the task shows {spec.obs[key].shape}")
