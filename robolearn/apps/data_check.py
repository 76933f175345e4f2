"""Checks a dataset for what spoils training; exit code 1 where something makes it unfit (NaN, lengths, broken chunks)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import tyro

from robolearn.apps._report import write_json
from robolearn.data.check import ERRORS, Findings, check
from robolearn.data.store import EpisodeSet

_SHOWN = 20


@dataclass(frozen=True)
class Config:
    """Which set to check."""

    path: tyro.conf.Positional[Path]
    """A dataset: NAME.zarr, or a ReplayBuffer of another program."""
    min_steps: int = 10
    """Shorter episodes are flagged."""
    all: bool = False
    """Print every flagged episode, not only the first 20."""
    json: Path | None = None
    """Where to write the findings."""


def run(cfg: Config) -> int:
    """Prints what was found; warnings alone leave the exit code 0."""
    dataset = EpisodeSet.open(cfg.path)
    found = check(dataset, cfg.min_steps)
    print(table(dataset, found, None if cfg.all else _SHOWN))
    episodes = [{"episode": index, "flags": found.episodes.get(index, [])} for index in range(dataset.n_episodes)]
    counts = Counter(found.codes())
    write_json(cfg.json, {"episodes": episodes, "set_flags": found.whole, "counts": counts, "errors": found.n_errors})
    return 1 if found.n_errors else 0


def table(dataset: EpisodeSet, found: Findings, limit: int | None) -> str:
    """Returns the findings as text: flags of the set, then flagged episodes, then counts."""
    lines = [f"{dataset.path}: {dataset.n_episodes} episodes, {dataset.n_steps} steps"]
    lines += [f"  set          {flag}" for flag in found.whole]
    flagged = [(index, flag) for index in sorted(found.episodes) for flag in found.episodes[index]]
    lines += [f"  episode {index:<4} {flag}" for index, flag in flagged[:limit]]
    if limit is not None and len(flagged) > limit:
        lines.append(f"  ... and {len(flagged) - limit} more (--all)")
    counts = Counter(found.codes())
    if not counts:
        return "\n".join([*lines, "nothing found"])
    named = [f"{count} {code}{' (error)' if code in ERRORS else ''}" for code, count in sorted(counts.items())]
    return "\n".join([*lines, ", ".join(named) + ("" if found.n_errors else ": warnings only, fit for training")])
