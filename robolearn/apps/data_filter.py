"""Makes, shows, lists and removes filters: named lists of episodes, kept in the dataset; `train --dataset.filter` uses them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from robolearn.apps._edit import counted, listed, say
from robolearn.apps._report import write_json
from robolearn.data.edit import FILTER, Selection, filter_episodes, filters, remove_filter, set_filter
from robolearn.data.store import EpisodeSet
from robolearn.errors import AlreadyExists, BadInput


@dataclass(frozen=True, kw_only=True)
class Config(Selection):
    """Without a name: lists them. With a name alone: shows it. With a selection: makes it."""

    path: tyro.conf.Positional[Path]
    """A dataset."""
    name: tyro.conf.Positional[str] = ""
    """What the list is called."""
    remove: bool = False
    """Remove the list; its episodes stay."""
    dry_run: bool = False
    """Say what would be written, write nothing."""
    json: Path | None = None
    """Where to write the figures."""
    overwrite: bool = False
    """Replace a list of that name."""


def run(cfg: Config) -> int:
    """Does the one thing that was asked for, and says which lists there are."""
    writes = (cfg.remove or cfg.given) and not cfg.dry_run
    dataset = EpisodeSet.open(cfg.path, writable=writes)
    if (cfg.remove or cfg.given) and not cfg.name:
        raise BadInput("filter: want a name for the list, got none")
    if cfg.remove and cfg.given:
        raise BadInput("filter: --remove takes the whole list away; give it without a selection")
    if cfg.remove:
        said, chosen = _remove(cfg, dataset)
    elif cfg.given:
        said, chosen = _make(cfg, dataset)
    else:
        chosen = filter_episodes(dataset, cfg.name) if cfg.name else np.zeros(0, np.int64)
        said = [_line(dataset, cfg.name, chosen)] if cfg.name else _all(dataset)
    say(said, cfg.dry_run and (cfg.remove or cfg.given))
    counts = filters(dataset if cfg.dry_run else EpisodeSet.open(cfg.path))
    write_json(cfg.json, {"path": cfg.path, "name": cfg.name, "episodes": chosen, "filters": counts, "dry_run": cfg.dry_run})
    return 0


def _make(cfg: Config, dataset: EpisodeSet) -> tuple[list[str], np.ndarray]:
    if FILTER + cfg.name in dataset.facts() and not cfg.overwrite:
        raise AlreadyExists(f"{cfg.path}: filter '{cfg.name}'", "filter")
    chosen = cfg.indices(dataset)
    set_filter(dataset, cfg.name, chosen, dry_run=cfg.dry_run)
    return [_line(dataset, cfg.name, chosen)], chosen


def _remove(cfg: Config, dataset: EpisodeSet) -> tuple[list[str], np.ndarray]:
    chosen = filter_episodes(dataset, cfg.name)
    if not cfg.dry_run:
        remove_filter(dataset, cfg.name)
    return [f"{cfg.path}: filter '{cfg.name}' ({counted(len(chosen), 'episode')}: {listed(chosen)}) is removed"], chosen


def _line(dataset: EpisodeSet, name: str, chosen: np.ndarray) -> str:
    steps = int(np.diff(dataset.episode_ends, prepend=0)[chosen].sum())
    return f"{dataset.path}: filter '{name}': {counted(len(chosen), 'episode')}, {steps} steps: {listed(chosen)}"


def _all(dataset: EpisodeSet) -> list[str]:
    found = filters(dataset)
    return [_line(dataset, name, filter_episodes(dataset, name)) for name in found] or [f"{dataset.path}: no filters"]
