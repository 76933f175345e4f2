"""Score other people's rollouts: detectors calibrated on a published set's calibration episodes, measured on its others."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from robolearn.apps import _failure as tables
from robolearn.apps._report import git_state, write_json
from robolearn.apps.study_failure import text
from robolearn.data.convert import _fiper_rollouts as fiper
from robolearn.errors import AlreadyExists, BadInput
from robolearn.monitors._base import Episode, Layout, Plans
from robolearn.monitors._recipe import SMALL, Recipe

_AXES = "xyz"


@dataclass(frozen=True)
class Config:
    """Which rollouts, in the format of FIPER (arXiv 2510.09459), and which scores."""

    rollouts: Annotated[Path, tyro.conf.Positional]
    """A task's folder of pickles (read by the restricted unpickler), or the .zarr that --out made of one."""
    out: Path | None = None
    """Convert the folder to this .zarr, without pictures, and score that."""
    scores: tuple[str, ...] = ("clock", "rnd", "ace", "stac", "logpzo", "pca_kmeans", "knn", "mahalanobis", "variance")
    """Failure scores to compare; rnd and ace together are fiper too."""
    recipe: Recipe = field(default_factory=lambda: Recipe(("clock",)))
    """What all detectors share: alpha, windows, bands; draws: at most those of the set."""
    seed: int = 0
    """Who learns, who shapes, who calibrates."""
    published: bool = False
    """Networks of published size: minutes on a CPU."""
    trust_metadata: bool = False
    """Where a file's name and its metadata disagree about success, take the metadata's word."""
    csv: Path | None = None
    """Write a row an episode and detector to this file."""
    json: Path | None = None
    """Write the table to this file."""


def run(cfg: Config) -> int:
    """Prints the table of `study failure` for these rollouts."""
    for path in (cfg.csv, cfg.out):
        if path is not None and path.exists():
            raise AlreadyExists(path, "file" if path is cfg.csv else "set")
    splits, layout = read(cfg)
    calibration, test = splits["calibration"], splits["test"]
    draws = min(cfg.recipe.draws, calibration[0].plans.samples.shape[1])
    sizes = {} if cfg.published else {name: size for name, size in SMALL.items() if name in cfg.scores}
    recipe = dataclasses.replace(cfg.recipe, scores=cfg.scores, draws=draws, agree=0, joint=True, options=sizes)
    task = cfg.rollouts.resolve().stem
    rows, episodes = [], []
    for trial in tables.trials(task, layout, calibration, test, recipe, cfg.seed):
        rows.append(tables.row(trial, calibration, test))
        episodes += list(tables.episode_rows(trial, test, {"weights_sha256": "", "commit": git_state()[0]}))
    print(text(rows))
    write_csv(cfg.csv, episodes)
    kinds = {name: [sum(e.success for e in some), len(some)] for name, some in splits.items()}
    write_json(cfg.json, {"rows": rows, "sets": kinds, "draws": draws, "alpha": recipe.alpha}, seed=cfg.seed)
    return 0


def read(cfg: Config) -> tuple[dict[str, list[Episode]], Layout]:
    """Returns calibration and test episodes, and the layout of their plans; BadInput where there is only one of the two."""
    source = cfg.rollouts
    believe: fiper.Believe = "metadata" if cfg.trust_metadata else "both"
    if cfg.out is not None:
        fiper.to_zarr(source, cfg.out, images=False, believe=believe)
        source = cfg.out
    found = fiper.read_zarr(source, images=False) if (source / "zarr.json").is_file() else fiper.read(source, believe)
    splits: dict[str, list[Episode]] = {name: [] for name in fiper.SPLITS}
    layouts = set()
    for number, rollout in enumerate(found):
        splits[rollout.split].append(episode(rollout, number))
        layouts.add(layout_of(rollout))
    lacking = [name for name, some in splits.items() if not some]
    if lacking or len(layouts) != 1:
        got = f"no {lacking[0]} episodes" if lacking else f"plans of {len(layouts)} layouts"
        raise BadInput(f"{cfg.rollouts}: want calibration and test episodes with plans of one layout, got {got}")
    return splits, layouts.pop()


def layout_of(rollout: fiper.Rollout) -> Layout:
    """Returns what a rollout says of its plans; velocities count as displacements, which they are up to the length of a tick."""
    names = [f"a{i}" for i in range(rollout.samples.shape[3])]
    for part, prefix in (("vel", "d"), ("pos", "")):
        for axis, i in zip(_AXES, rollout.parts.get(part, ()), strict=False):
            names[i] = prefix + axis
    stamps = rollout.timestamps
    seconds = float(np.median(np.diff(stamps))) if stamps is not None and len(stamps) > 1 else 0.0
    hz = round(rollout.execute / seconds, 3) if seconds > 0 else 10.0
    return Layout(tuple(names), rollout.horizon, rollout.execute, hz=hz)


def episode(rollout: fiper.Rollout, number: int) -> Episode:
    """Returns a rollout as monitors see it; its number stands for a seed. BadInput where several robots share it."""
    if rollout.robots > 1:
        raise BadInput(f"{rollout.name}: want the rollout of one robot, got {rollout.robots}; their scores are not averaged here")
    n, draws, _, width = rollout.samples.shape
    plans = Plans(
        np.arange(n) * rollout.execute,
        rollout.features.astype(np.float32),
        rollout.samples.astype(np.float32),
        np.zeros((n, draws, 0, width), np.float32),
        np.zeros((n, 0, width), np.float32),
    )
    kind = "" if rollout.in_distribution else rollout.kind or "shifted"
    return Episode(plans, rollout.success, n * rollout.execute, number, kind=kind, score=float(rollout.success))


def write_csv(path: Path | None, rows: Sequence[dict[str, Any]]) -> None:
    """Writes a row an episode and detector; nothing where no file is wanted."""
    if path is None:
        return
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, tables.COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
