"""Says what a dataset holds: episodes, steps, rate, keys with shapes and units, facts of the episodes, bytes on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from robolearn.apps._report import write_json
from robolearn.data.images import image_keys
from robolearn.data.stats import compute_stats
from robolearn.data.store import EpisodeSet


@dataclass(frozen=True)
class Config:
    """Which set to describe."""

    path: tyro.conf.Positional[Path]
    """A dataset: NAME.zarr, or a ReplayBuffer of another program (folder or .zarr.zip)."""
    json: Path | None = None
    """Where to write the figures."""


def run(cfg: Config) -> int:
    """Prints the description; vectors are read for their ranges, images are not decoded."""
    figures = describe(EpisodeSet.open(cfg.path))
    print(table(figures))
    write_json(cfg.json, figures)
    return 0


def describe(dataset: EpisodeSet) -> dict[str, Any]:
    """Returns what is known of a set as plain figures."""
    stats = compute_stats(dataset, list(dataset.keys)) if dataset.n_steps else {}
    lengths = np.diff(dataset.episode_ends, prepend=0)
    keys: dict[str, Any] = {}
    for key, spec in dataset.keys.items():
        keys[key] = {**spec.to_json(), "image": key in image_keys(dataset)}
        if key in stats:
            keys[key] |= {"min": float(stats[key].min.min()), "max": float(stats[key].max.max())}
    return {
        "path": dataset.path,
        "task": dataset.task,
        "episodes": dataset.n_episodes,
        "steps": dataset.n_steps,
        "episode_length": {"min": lengths.min(), "mean": lengths.mean(), "max": lengths.max()} if len(lengths) else None,
        "hz": dataset.hz,
        "schema": dataset.attrs.get("schema"),
        "zarr_format": dataset.zarr_format,
        "bytes": size_on_disk(dataset.path),
        "keys": keys,
        "facts": dataset.facts(),
        "env": dataset.env,
        "notes": dataset.notes,
        "attributes": {k: v for k, v in dataset.attrs.items() if k not in ("spec", "keys", "task", "env", "hz", "schema")},
    }


def size_on_disk(path: Path) -> int:
    """Returns the bytes of a file or of all files in a folder."""
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def table(figures: dict[str, Any]) -> str:
    """Returns the description as text."""
    rate = f"{figures['hz']:g} Hz" if figures["hz"] else "rate unknown"
    lines = [f"{figures['path']}: {figures['episodes']} episodes, {figures['steps']} steps, {rate}"]
    if figures["episode_length"]:
        length = figures["episode_length"]
        lines[0] += f" (an episode: {length['min']} to {length['max']} steps, mean {length['mean']:.1f})"
    schema = f"robolearn set, schema {figures['schema']}" if figures["schema"] else "set of another program, no attributes"
    lines.append(
        f"{schema}, zarr format {figures['zarr_format']}, {figures['bytes'] / 1e6:.1f} MB; task: {figures['task'] or 'unknown'}"
    )
    width = max(len(key) for key in figures["keys"])
    for key, row in figures["keys"].items():
        shape = f"{row['dtype']}{tuple(row['shape'])}"
        span = f"{row['min']:.4g} to {row['max']:.4g}" if "min" in row else "images" if row["image"] else ""
        lines.append(
            f"  {key:<{width}}  {shape:<22} {span:<24} {row['unit']}{'  ' + ', '.join(row['names']) if row['names'] else ''}"
        )
    if figures["facts"]:
        lines.append(f"facts of each episode: {', '.join(figures['facts'])}")
    return "\n".join(lines + [f"note: {note}" for note in figures["notes"]])
