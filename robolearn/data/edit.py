"""Editing sets: merge, split, named lists, labels, renaming, deleting and bringing back.

Whatever is written is built aside and renamed into place, block by block, so that a set may be larger than memory and a
crash leaves what was there.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.data import _remote
from robolearn.data._compose import Piece, build, travelling, united_facts
from robolearn.data._files import append_durably, built_aside, locked, read_lines
from robolearn.data._merge import Merged, MergeOptions, merge
from robolearn.data._rename import rename_key, rename_set, rename_task
from robolearn.data._select import FILTER, Selection, filter_episodes, filters, format_ranges
from robolearn.data._trash import Batch, Change, delete, trashed, undelete
from robolearn.data.journal import folder_of
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, DatasetError, UnknownName, nearest

__all__ = [
    "FILTER",
    "Batch",
    "Change",
    "MergeOptions",
    "Merged",
    "Selection",
    "Split",
    "apply_labels",
    "delete",
    "filter_episodes",
    "filters",
    "format_ranges",
    "merge",
    "random_split",
    "remove_filter",
    "rename_key",
    "rename_set",
    "rename_task",
    "set_filter",
    "set_label",
    "take",
    "trashed",
    "undelete",
]
LABELS = ("success", "failure", "partial", "")
_NAME = re.compile(r"[A-Za-z0-9_]+")


def take(dataset: EpisodeSet, episodes: np.ndarray, out: Path, overwrite: bool = False) -> None:
    """Writes some episodes of a set, with their facts, as a new set."""
    _remote.refuse_writing(_remote.locate(out))
    piece = Piece(dataset, np.asarray(episodes, np.int64))
    with built_aside(out, overwrite) as part:
        build(part, [piece], united_facts([piece]), travelling(dataset.attrs))


@dataclass(frozen=True)
class Split:
    """How episodes are drawn.

    ratio: share of the first part; by: a fact whose every value is split in that share; together: a fact whose equal values
    stay in one part (what was made from one demonstration, say).
    """

    ratio: float = 0.9
    seed: int = 0
    by: str = ""
    together: str = ""


def random_split(dataset: EpisodeSet, pool: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Returns (first, second) parts of the episodes `pool`, each rising; neither is empty."""
    if not 0.0 < split.ratio < 1.0:
        raise BadInput(f"--ratio: want a share between 0 and 1, got {split.ratio:g}")
    labels = _groups(dataset, split.by, pool) if split.by else np.zeros(len(pool), np.int64)
    units = _groups(dataset, split.together, pool, alone=True) if split.together else np.arange(len(pool))
    unit_ids, heads = np.unique(units, return_index=True)
    if len(unit_ids) < 2:
        what = f"episodes that differ in '{split.together}'" if split.together else "episodes"
        raise DatasetError(f"{dataset.path}: split: want at least 2 {what}, got {len(unit_ids)}")
    first = np.isin(units, unit_ids[_draw(labels[heads], split.ratio, np.random.default_rng(split.seed))])
    return pool[first], pool[~first]


def _draw(labels: np.ndarray, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Returns (n,) bool, True for the share `ratio` of every label, as nearly as whole numbers allow."""
    first = np.zeros(len(labels), bool)
    owed = 0.0  # what rounding left out so far, so that the share holds over all labels together
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(round(len(members) * ratio + owed), 0), len(members))
        owed += len(members) * ratio - count
        first[members[:count]] = True
    if first.all() or not first.any():
        first[rng.integers(len(first))] ^= True
    return first


def _groups(dataset: EpisodeSet, fact: str, pool: np.ndarray, alone: bool = False) -> np.ndarray:
    """Returns a number an episode of the pool, the same for equal values of a fact; alone: unknown ones are their own group."""
    values = dataset.episode_field(fact)
    if values is None or values.ndim != 1:
        raise DatasetError(f"{dataset.path}: no single-valued fact '{fact}'{nearest(fact, dataset.facts())}")
    groups = np.unique(values[pool], return_inverse=True)[1]
    if alone:
        unknown = values[pool] == ("" if values.dtype.kind == "U" else -1)
        groups[unknown] = len(pool) + np.flatnonzero(unknown)
    return groups


def set_filter(dataset: EpisodeSet, name: str, episodes: np.ndarray, dry_run: bool = False) -> None:
    """Makes `episodes` the named list `name`, in the set itself (open for writing)."""
    if not _NAME.fullmatch(name):
        raise BadInput(f"filter: want a name of letters, digits and _, got '{name}'")
    if not len(episodes):
        raise DatasetError(f"{dataset.path}: filter '{name}': want at least one of the {dataset.n_episodes} episodes, got none")
    inside = np.isin(np.arange(dataset.n_episodes), episodes).astype(np.int8)
    if not dry_run:
        dataset.set_fact(FILTER + name, dict(enumerate(inside)))


def remove_filter(dataset: EpisodeSet, name: str) -> None:
    """Removes the named list; its episodes stay."""
    filter_episodes(dataset, name)
    with locked(dataset.path, "dataset"):
        array = dataset.path / "meta" / f"episode_{FILTER}{name}"
        aside = dataset.path.with_name(f".{dataset.path.name}.filter_{name}.removed")
        array.replace(aside)  # gone at once: a half-removed array would be a broken one
        shutil.rmtree(aside)


def set_label(dataset: EpisodeSet, episodes: Sequence[int] | np.ndarray, label: str, by: str, time: str, note: str = "") -> None:
    """Says of some episodes (places) how they went: "success", "failure", "partial" or "" (take a label back).

    by: who says so, such as reviewer:anna; time: when, ISO 8601 UTC. Written to NAME.episodes/labels.jsonl first, from
    where `apply_labels` brings them into a set that was packed again.
    """
    if label not in LABELS:
        raise UnknownName("label", label, [name for name in LABELS if name])
    if label and not by:
        raise BadInput("label: by whom? give --by NAME")
    places = [int(index) for index in episodes]
    for index in places:
        dataset.span(index)
    if not places:
        return
    ids, uuids = dataset.episode_field("id"), dataset.episode_field("uuid")
    lines = []
    for index in places:
        who = {"id": None if ids is None else int(ids[index]), "uuid": "" if uuids is None else str(uuids[index])}
        lines.append(json.dumps({**who, "episode": index, "label": label, "by": by, "time": time, "note": note}))
    file = folder_of(dataset.path) / "labels.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    append_durably(file, "\n".join(lines))
    _write_labels(dataset, {index: (label, by, time) for index in places})


def apply_labels(dataset: EpisodeSet) -> int:
    """Brings the labels of labels.jsonl, the last one of each episode, into the set; returns of how many episodes.

    Episodes are found by uuid, or by id where a label has none; a label of an episode that is not in the set waits.
    """
    keyed: dict[tuple[str, Any], int] = {}
    for name in ("id", "uuid"):
        values = dataset.episode_field(name)
        keyed |= {(name, v): index for index, v in enumerate([] if values is None else values.tolist()) if v not in ("", -1)}
    found: dict[int, tuple[str, str, str]] = {}
    for line in read_lines(folder_of(dataset.path) / "labels.jsonl"):
        index = keyed.get(("uuid", line.get("uuid"))) if line.get("uuid") else keyed.get(("id", line.get("id")))
        if index is not None and line.get("label") in LABELS:
            found[index] = (line["label"], str(line.get("by", "")), str(line.get("time", "")))
    _write_labels(dataset, found)
    return len(found)


def _write_labels(dataset: EpisodeSet, labels: Mapping[int, tuple[str, str, str]]) -> None:
    for place, name in enumerate(("label", "label_by", "label_time")):
        dataset.set_fact(name, {index: values[place] for index, values in labels.items()})
