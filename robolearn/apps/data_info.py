"""Says what a dataset holds: episodes, steps, rate, keys with shapes and units, facts, labels, filters, journal, bytes."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from robolearn.apps._report import write_json
from robolearn.data.edit import FILTER, filters, trashed
from robolearn.data.images import image_keys
from robolearn.data.journal import CRASHED, TRASH, folder_of
from robolearn.data.stats import compute_stats
from robolearn.data.store import EpisodeSet

_EPISODE = re.compile(r"ep_\d+")
_SHOWN_APART = ("spec", "keys", "task", "env", "hz", "schema", "generation", "trash")


@dataclass(frozen=True)
class Config:
    """Which set to describe."""

    path: tyro.conf.Positional[Path]
    """A dataset: NAME.zarr, or a ReplayBuffer of another program (folder or .zarr.zip)."""
    ranges: bool = False
    """Say the range of every key too; this reads all vectors (images are not decoded)."""
    json: Path | None = None
    """Where to write the figures."""


def run(cfg: Config) -> int:
    """Prints the description; without --ranges no rows are read, so that the size of the set does not matter."""
    figures = describe(EpisodeSet.open(cfg.path), cfg.ranges)
    print(table(figures))
    write_json(cfg.json, figures)
    return 0


def describe(dataset: EpisodeSet, ranges: bool = False) -> dict[str, Any]:
    """Returns what is known of a set as plain figures."""
    stats = compute_stats(dataset, list(dataset.keys)) if ranges and dataset.n_steps else {}
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
        "generation": dataset.attrs.get("generation", 0),
        "zarr_format": dataset.zarr_format,
        "bytes": size_on_disk(dataset.path),
        "keys": keys,
        "facts": [name for name in dataset.facts() if not name.startswith(FILTER)],
        "filters": filters(dataset),
        "labels": _labels(dataset),
        "journal": _journal(dataset.path),
        "trash": sum(len(batch.places) for batch in trashed(dataset)),
        "env": dataset.env,
        "notes": dataset.notes,
        "attributes": {k: v for k, v in dataset.attrs.items() if k not in _SHOWN_APART},
    }


def _labels(dataset: EpisodeSet) -> dict[str, int]:
    """Returns how many episodes have each label; none: {} where the set has no labels."""
    labels = dataset.episode_field("label")
    return {} if labels is None else dict(Counter(label or "unknown" for label in labels.tolist()))


def _journal(path: Path) -> dict[str, Any] | None:
    """Returns the journal beside a set: its episodes, those in its trash, and those a crash left; None where there is none."""
    folder = folder_of(path)
    if not folder.is_dir():
        return None
    parts = {"episodes": folder, "trash": folder / TRASH, "crashed": folder / CRASHED}
    counts = {name: sum(bool(_EPISODE.match(n)) for n in os.listdir(p)) if p.is_dir() else 0 for name, p in parts.items()}
    return {"path": folder, **counts}


def size_on_disk(path: Path) -> int:
    """Returns the bytes of a file or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(os.stat(os.path.join(root, name)).st_size for root, _, names in os.walk(path) for name in names)


def table(figures: dict[str, Any]) -> str:
    """Returns the description as text."""
    rate = f"{figures['hz']:g} Hz" if figures["hz"] else "rate unknown"
    lines = [f"{figures['path']}: {figures['episodes']} episodes, {figures['steps']} steps, {rate}"]
    if figures["episode_length"]:
        length = figures["episode_length"]
        lines[0] += f" (an episode: {length['min']} to {length['max']} steps, mean {length['mean']:.1f})"
    schema = f"robolearn set, schema {figures['schema']}" if figures["schema"] else "set of another program, no attributes"
    size = f"{figures['bytes'] / 1e6:.1f} MB" if figures["bytes"] else "size unknown"
    lines.append(f"{schema}, zarr format {figures['zarr_format']}, {size}; task: {figures['task'] or 'unknown'}")
    width = max(len(key) for key in figures["keys"])
    for key, row in figures["keys"].items():
        shape = f"{row['dtype']}{tuple(row['shape'])}"
        span = f"{row['min']:.4g} to {row['max']:.4g}" if "min" in row else "images" if row["image"] else ""
        lines.append(
            f"  {key:<{width}}  {shape:<22} {span:<24} {row['unit']}{'  ' + ', '.join(row['names']) if row['names'] else ''}"
        )
    return "\n".join(lines + _about_episodes(figures) + [f"note: {note}" for note in figures["notes"]])


def _about_episodes(figures: dict[str, Any]) -> list[str]:
    """Returns what is known of single episodes, and what lies beside the set."""
    lines = []
    if figures["facts"]:
        lines.append(f"facts of each episode: {', '.join(figures['facts'])}")
    counted = {what: ", ".join(f"{name} ({n})" for name, n in sorted(figures[what].items())) for what in ("labels", "filters")}
    lines += [f"{what}: {text}" for what, text in counted.items() if text]
    if figures["generation"]:
        deleted = f"; {figures['trash']} deleted episodes can be brought back" if figures["trash"] else ""
        lines.append(f"generation {figures['generation']}{deleted}")
    if (journal := figures["journal"]) is not None:
        crashed = f", {journal['crashed']} left by crashes" if journal["crashed"] else ""
        lines.append(f"journal {journal['path']}: {journal['episodes']} episodes, {journal['trash']} in its trash{crashed}")
    return lines
