"""Moves episodes of a dataset into its trash, with their journal folders; `robolearn data undelete` brings them back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import tyro

from robolearn.apps._edit import counted, listed, now, say
from robolearn.apps._report import write_json
from robolearn.data.edit import Change, Selection, delete


@dataclass(frozen=True, kw_only=True)
class Config(Selection):
    """Which episodes of which set."""

    path: tyro.conf.Positional[Path]
    """A dataset."""
    dry_run: bool = False
    """Say what would be deleted, write nothing."""
    json: Path | None = None
    """Where to write the figures."""


def run(cfg: Config) -> int:
    """Deletes, and says how to bring it back."""
    change = delete(cfg.path, cfg, time=now(), dry_run=cfg.dry_run)
    say(lines(cfg.path, change), cfg.dry_run)
    write_json(cfg.json, {"path": cfg.path, "dry_run": cfg.dry_run, **dataclasses.asdict(change)})
    return 0


def lines(path: Path, change: Change) -> list[str]:
    """Returns what a delete does as text."""
    if not change.episodes:
        return [f"{path}: the selection takes no episode; nothing to delete"]
    said = [f"{path}: {counted(len(change.episodes), 'episode')} ({change.steps} steps) to the trash: {listed(change.episodes)}"]
    if change.ids:
        said.append(f"  ids {listed(change.ids)}; journal folders moved: {len(change.journals)}")
    said.append(f"  {counted(change.left, 'episode')} left, generation {change.generation}")
    return [*said, f"  bring back: robolearn data undelete {path} --last"]
