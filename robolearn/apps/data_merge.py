"""Merges datasets into one; sets that do not fit are refused with the key and the field in which they differ."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import tyro

from robolearn.apps._edit import counted, listed, say
from robolearn.apps._report import write_json
from robolearn.data.edit import Merged, MergeOptions, merge


@dataclass(frozen=True)
class Config:
    """Which sets, and how they become one."""

    sources: tyro.conf.Positional[tuple[Path, ...]]
    """Two datasets or more; their episodes follow each other in this order."""
    out: Path
    """Where to write."""
    keys: str = ""
    """Merge these keys only, such as state,img (action always comes along); all where nothing is said."""
    allow: str = ""
    """Fields in which the sets may differ, the first one's counts: rate, codec, task, env, robot, unit, frame, names, camera."""
    skip_duplicates: bool = False
    """Of episodes with the same uuid take the first only."""
    dry_run: bool = False
    """Say what would be written, write nothing."""
    json: Path | None = None
    """Where to write the figures."""
    overwrite: bool = False
    """Replace what is there."""


def run(cfg: Config) -> int:
    """Merges and says what came from where."""
    options = MergeOptions(_words(cfg.keys), _words(cfg.allow), cfg.skip_duplicates, cfg.overwrite, cfg.dry_run)
    merged = merge(cfg.sources, cfg.out, options)
    say(lines(cfg.out, merged), cfg.dry_run)
    write_json(cfg.json, {"out": cfg.out, "dry_run": cfg.dry_run, **dataclasses.asdict(merged)})
    return 0


def lines(out: Path, merged: Merged) -> list[str]:
    """Returns what a merge does as text."""
    said = [f"{out}: {counted(merged.episodes, 'episode')}, {merged.steps} steps, keys {', '.join(merged.keys)}"]
    for row in merged.sources:
        left = merged.skipped.get(row["name"], [])
        twice = f"; left out as duplicates: {listed(left)}" if left else ""
        said.append(f"  {row['name']}: {counted(row['episodes'], 'episode')}, {row['steps']} steps{twice}")
    ids = "new ids from 0 (the old ones are the fact origin_id)" if merged.renumbered else "ids kept"
    return [*said, f"  {ids}; the fact origin names the source of each episode"]


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
