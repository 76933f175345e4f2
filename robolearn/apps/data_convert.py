"""Converts a dataset of another program into a robolearn set, or (with --to FORMAT) a robolearn set into another format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from robolearn import registry
from robolearn.apps._report import write_json
from robolearn.data.store import EpisodeSet
from robolearn.errors import AlreadyExists, DatasetError, UnknownName

FORMATS = "robolearn.data.convert"


@dataclass(frozen=True)
class Config:
    """From where to where."""

    src: tyro.conf.Positional[Path]
    """What to convert; its format is recognised."""
    dst: tyro.conf.Positional[Path]
    """Where to write."""
    to: str = ""
    """The format to write (replay_buffer); a robolearn set where nothing is said."""
    hz: float | None = None
    """The control rate [1/s], where the source does not know it."""
    task: str = ""
    """The task, where the source does not know it."""
    json: Path | None = None
    """Where to write the figures."""
    overwrite: bool = False
    """Replace what is there."""


def run(cfg: Config) -> int:
    """Converts, and says what was written and what could not be carried."""
    if cfg.dst.exists() and not cfg.overwrite:
        raise AlreadyExists(cfg.dst, "dataset")
    if cfg.to:
        writers = [name for name in registry.names(FORMATS) if hasattr(registry.load(FORMATS, name), "write")]
        if cfg.to not in writers:
            raise UnknownName("format to write", cfg.to, writers)
        name, lost = cfg.to, registry.load(FORMATS, cfg.to).write(EpisodeSet.open(cfg.src), cfg.dst, overwrite=cfg.overwrite)
    else:
        name = recognise(cfg.src)
        lost = registry.load(FORMATS, name).read(cfg.src, cfg.dst, task=cfg.task, hz=cfg.hz, overwrite=cfg.overwrite)
    made = EpisodeSet.open(cfg.dst)
    way = f"as {name}" if cfg.to else f"from {name}"
    print(f"{cfg.dst}: {made.n_episodes} episodes, {made.n_steps} steps, keys {', '.join(made.keys)} ({way})")
    for what in lost:
        print(f"not carried: {what}")
    figures = {"format": name, "episodes": made.n_episodes, "steps": made.n_steps, "keys": list(made.keys), "not_carried": lost}
    write_json(cfg.json, figures)
    return 0


def recognise(path: Path) -> str:
    """Returns the name of the format that `path` has; DatasetError lists the known ones."""
    names = registry.names(FORMATS)
    for name in names:
        if path.exists() and registry.load(FORMATS, name).sniff(path):
            return name
    if not path.exists() or (path / "meta").exists():
        EpisodeSet.open(path)
    raise DatasetError(f"{path}: want one of the known formats ({', '.join(names)}), got none of them")
