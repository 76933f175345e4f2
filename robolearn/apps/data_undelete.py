"""Brings deleted episodes of a dataset back to where they were; without --last, --all or --id it lists the trash."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import tyro

from robolearn.apps._edit import counted, listed, say
from robolearn.apps._report import write_json
from robolearn.data.edit import Batch, Change, trashed, undelete
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, DatasetError


@dataclass(frozen=True)
class Config:
    """Which of the deleted episodes."""

    path: tyro.conf.Positional[Path]
    """A dataset."""
    last: bool = False
    """Those of the last delete."""
    all: bool = False
    """Every one."""
    id: tuple[int, ...] = ()
    """Those with these ids."""
    dry_run: bool = False
    """Say what would come back, write nothing."""
    json: Path | None = None
    """Where to write the figures."""


def run(cfg: Config) -> int:
    """Brings back what was asked for and says where it is now."""
    if cfg.last + cfg.all + bool(cfg.id) > 1:
        raise BadInput("undelete: want one of --last, --all and --id, got several")
    batches = trashed(EpisodeSet.open(cfg.path))
    if not (cfg.last or cfg.all or cfg.id):
        print("\n".join(trash_lines(cfg.path, batches)))
        write_json(cfg.json, {"path": cfg.path, "rows": [batch.to_json() for batch in batches]})
        return 0
    if not batches:
        raise DatasetError(f"{cfg.path}: its trash is empty")
    batches = batches[-1:] if cfg.last else batches
    change = undelete(cfg.path, batches, cfg.id or None, dry_run=True)
    missing = sorted(set(cfg.id) - set(change.ids))
    if missing:
        raise DatasetError(f"{cfg.path}: no episode with id {missing[0]} in the trash")
    if not cfg.dry_run:
        change = undelete(cfg.path, batches, cfg.id or None)
    say(lines(cfg.path, change), cfg.dry_run)
    write_json(cfg.json, {"path": cfg.path, "dry_run": cfg.dry_run, **dataclasses.asdict(change)})
    return 0


def trash_lines(path: Path, batches: list[Batch]) -> list[str]:
    """Returns what the trash of a set holds as text."""
    said = [f"{path}: its trash holds {counted(sum(len(b.places) for b in batches), 'episode')}"]
    for batch in batches:
        dataset, places = batch.open()
        ids = dataset.episode_field("id")
        known = [] if ids is None else [int(i) for i, p in zip(ids, places, strict=True) if p in batch.places and i >= 0]
        named = f", ids {listed(known)}" if known else ""
        said.append(f"  deleted {batch.time or 'at an unknown time'}: {counted(len(batch.places), 'episode')}{named}")
    return said


def lines(path: Path, change: Change) -> list[str]:
    """Returns what an undelete does as text."""
    ids = f" (ids {listed(change.ids)})" if change.ids else ""
    return [
        f"{path}: {counted(len(change.episodes), 'episode')} ({change.steps} steps) back as {listed(change.episodes)}{ids}",
        f"  {counted(change.left, 'episode')} in all, generation {change.generation}",
        f"  journal folders back: {len(change.journals)}",
    ]
