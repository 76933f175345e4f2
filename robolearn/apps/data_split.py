"""Splits a dataset by episodes: into two named filters of the set itself (train and val), or with --out into two sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from robolearn.apps._edit import counted, listed, say
from robolearn.apps._report import write_json
from robolearn.data.edit import FILTER, Selection, Split, random_split, set_filter, take
from robolearn.data.store import EpisodeSet
from robolearn.errors import AlreadyExists, BadInput, DatasetError


@dataclass(frozen=True, kw_only=True)
class Config(Selection):
    """How to split. A selection without --ratio is the first part, all other episodes the second; with --ratio it is the pool."""

    path: tyro.conf.Positional[Path]
    """A dataset."""
    ratio: float | None = None
    """Share of the episodes in the first part, drawn by --seed; 0.9 where nothing is selected."""
    seed: int = 0
    by: str = ""
    """A fact, such as label: each of its values is split in that share."""
    together: str = ""
    """A fact, such as source: episodes in which it is the same stay in one part."""
    names: tuple[str, str] = ("train", "val")
    """What the two filters are called."""
    out: tuple[Path, Path] | None = None
    """Write two sets instead."""
    dry_run: bool = False
    """Say what would be written, write nothing."""
    json: Path | None = None
    """Where to write the figures."""
    overwrite: bool = False
    """Replace filters (or sets) that are there."""


def run(cfg: Config) -> int:
    """Splits and says which episodes went where."""
    dataset = EpisodeSet.open(cfg.path, writable=cfg.out is None and not cfg.dry_run)
    parts = parts_of(cfg, dataset)
    _refuse_existing(cfg, dataset)
    for part, name, out in zip(parts, cfg.names, cfg.out or (None, None), strict=True):
        if out is None:
            set_filter(dataset, name, part, dry_run=cfg.dry_run)
        elif not cfg.dry_run:
            take(dataset, part, out, cfg.overwrite)
    lengths = np.diff(dataset.episode_ends, prepend=0)
    said, rows = [], []
    for part, name, out in zip(parts, cfg.names, cfg.out or (None, None), strict=True):
        steps = int(lengths[part].sum())
        where = f"{out}" if out else f"{cfg.path}: filter '{name}'"
        said.append(f"{where}: {counted(len(part), 'episode')}, {steps} steps: {listed(part)}")
        rows.append({"name": name, "out": out, "episodes": part, "steps": steps})
    if not cfg.out:
        said.append(f"train on it: robolearn train CONFIG --dataset.path {cfg.path} --dataset.filter {cfg.names[0]} ...")
    say(said, cfg.dry_run)
    write_json(cfg.json, {"path": cfg.path, "dry_run": cfg.dry_run, "rows": rows}, seed=cfg.seed)
    return 0


def parts_of(cfg: Config, dataset: EpisodeSet) -> tuple[np.ndarray, np.ndarray]:
    """Returns the episodes of both parts."""
    chosen = cfg.indices(dataset)
    if cfg.given and cfg.ratio is None:
        rest = np.setdiff1d(np.arange(dataset.n_episodes), chosen)
        if cfg.by or cfg.together:
            raise BadInput("split: --by and --together belong to a random split; give --ratio too")
        if not len(chosen) or not len(rest):
            raise DatasetError(f"{dataset.path}: split: the selection takes {len(chosen)} of {dataset.n_episodes} episodes")
        return chosen, rest
    return random_split(dataset, chosen, Split(0.9 if cfg.ratio is None else cfg.ratio, cfg.seed, cfg.by, cfg.together))


def _refuse_existing(cfg: Config, dataset: EpisodeSet) -> None:
    if cfg.names[0] == cfg.names[1] or (cfg.out and cfg.out[0] == cfg.out[1]):
        raise BadInput("split: want two different names, got one twice")
    for name, out in zip(cfg.names, cfg.out or (None, None), strict=True):
        if cfg.overwrite:
            continue
        if out is not None and out.exists():
            raise AlreadyExists(out, "dataset")
        if out is None and FILTER + name in dataset.facts():
            raise AlreadyExists(f"{cfg.path}: filter '{name}'", "filter")
