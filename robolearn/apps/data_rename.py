"""Renames a dataset (with its journal and its cache), one of its keys, or its task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from robolearn.apps._edit import say
from robolearn.apps._report import write_json
from robolearn.data.edit import rename_key, rename_set, rename_task
from robolearn.errors import BadInput


@dataclass(frozen=True)
class Config:
    """What gets which name: one of --to, --key and --task."""

    path: tyro.conf.Positional[Path]
    """A dataset."""
    to: str = ""
    """The set's new name (beside it), or a whole path."""
    key: str = ""
    """old=new: a key's new name, in its array, in the spec and for its camera."""
    task: str = ""
    """The task's new name."""
    dry_run: bool = False
    """Say what would be renamed, write nothing."""
    json: Path | None = None
    """Where to write the figures."""


def run(cfg: Config) -> int:
    """Renames, and says what."""
    if bool(cfg.to) + bool(cfg.key) + bool(cfg.task) != 1:
        raise BadInput("rename: want one of --to NEW, --key old=new and --task NEW")
    if cfg.to:
        renamed = [(str(old), str(new)) for old, new in rename_set(cfg.path, cfg.to, cfg.dry_run)]
        said = [f"{old} is now {new}" for old, new in renamed]
    elif cfg.key:
        old, equals, new = cfg.key.partition("=")
        if not (old and equals and new):
            raise BadInput(f"rename: --key: want old=new, got '{cfg.key}'")
        rename_key(cfg.path, old, new, cfg.dry_run)
        renamed, said = [(old, new)], [f"{cfg.path}: key '{old}' is now '{new}'"]
    else:
        before = rename_task(cfg.path, cfg.task, cfg.dry_run) or "unknown"
        renamed, said = [(before, cfg.task)], [f"{cfg.path}: task {before} is now {cfg.task}"]
    say(said, cfg.dry_run)
    write_json(cfg.json, {"path": cfg.path, "dry_run": cfg.dry_run, "rows": [{"old": old, "new": new} for old, new in renamed]})
    return 0
