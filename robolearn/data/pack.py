"""Packs the journal into the set: every saved episode that is not in it yet, in the order of their ids.

Pictures are decoded, streams at their own rates are brought onto the ticks. An append makes an episode exist in the instant
its end is renamed into place, so that a crash while packing leaves the set as it was, and packing goes on where it stopped.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.core import ArraySpec, Spec
from robolearn.data._codec import decode
from robolearn.data._files import read_lines
from robolearn.data.align import interpolate
from robolearn.data.journal import Episode, Journal
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError

CLOCKS = ("t_monotonic", "t_wall", "t_sim")


@dataclass
class Packed:
    """What was packed (ids), and what could not be, with the reason."""

    packed: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)


def pack(journal: Journal, path: Path, leave: Collection[int] = ()) -> Packed:
    """Appends every saved episode that the set at `path` has not yet, and makes the set where there is none.

    leave: ids that wait, because their person may still take them back. An episode that does not fit the set (other keys,
    shapes, rate) is refused by name and stays in the journal.
    """
    report = Packed()
    todo = [number for number in journal.ids() if number not in leave]
    if not todo:
        return report
    if not path.exists():
        first = journal.episode(todo[0])
        EpisodeSet.create(path, _spec(first), task=first.attrs.get("task", ""), env=first.attrs.get("env", {}), **_options(first))
    made = EpisodeSet.open(path, writable=True)
    ids = made.episode_field("id")
    there = set() if ids is None else set(ids.tolist())
    labels = {line["id"]: line for line in read_lines(journal.folder / "labels.jsonl") if "id" in line}
    for number in todo:
        if number in there:
            continue
        try:
            episode = journal.episode(number)
            episode.verify()
            fits(made, episode)
            facts = {name: [fact] for name, fact in facts_of(episode, labels.get(number)).items()}
            made.extend([episode.steps], row_blocks_of(episode, made), **facts)
            report.packed.append(number)
        except DatasetError as error:
            report.refused[number] = str(error)
    return report


def keys_of(episode: Episode) -> dict[str, ArraySpec]:
    """Returns the ArraySpec of every key that the rows of an episode have in a set, "action" and observations included."""
    spec = _spec(episode)
    keys: dict[str, ArraySpec] = {}
    for name in episode.names("rows"):
        if name.endswith("@frame"):
            continue
        values, facts = episode.array(f"rows/{name}"), episode.attributes(f"rows/{name}")
        known = spec.obs.get(name) or (spec.action if name.startswith("action") else None)
        same = known is not None and known.shape == values.shape[1:]
        keys[name] = ArraySpec(
            values.shape[1:],
            str(values.dtype),
            known.names if known and same else (),
            known.unit if known and same else facts.get("unit", ""),
            known.frame if known and same else "",
        )
    for key in spec.obs:
        if f"{key}@frame" in episode.names("rows"):
            keys[key] = spec.obs[key]
    if "states" in _top(episode):
        keys["sim_state"] = ArraySpec(episode.array("states").shape[1:], "float64")
    for name in episode.names("streams"):
        values = episode.array(f"streams/{name}/values")
        if values.dtype.kind in "fiub":
            keys[f"stream_{name.replace('/', '_')}"] = ArraySpec(values.shape[1:], str(values.dtype))
    return keys


def row_blocks_of(episode: Episode, made: EpisodeSet) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yields (key, first row, rows) of an episode, pictures a file of the set at a time: it may be longer than memory."""
    names = episode.names("rows")
    for key in made.keys:
        if key in names:
            yield key, 0, np.asarray(episode.array(f"rows/{key}"))
        elif key == "sim_state":
            yield key, 0, np.asarray(episode.array("states")[: episode.steps])
        elif key.startswith("stream_"):
            yield key, 0, _stream(episode, key)
        else:
            array, base = made.array(key), made.n_steps
            step = array.shards[0] if array.shards else max(array.chunks[0], 128)
            edges = [0, *range(step - base % step, episode.steps, step), episode.steps]
            for start, stop in pairwise(edges):
                yield key, start, frames_of(episode, key, start, stop)


def frames_of(episode: Episode, key: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Returns the pictures (n, height, width, 3) uint8 that observation `key` showed at ticks [start, stop), by default all."""
    which = np.asarray(episode.array(f"rows/{key}@frame")[start:stop])
    stored, ends = episode.array(f"cameras/{key}/bytes"), np.asarray(episode.array(f"cameras/{key}/ends"))
    facts = episode.attributes(f"cameras/{key}/bytes")
    starts = np.concatenate([[0], ends[:-1]])
    out = np.empty((len(which), *facts["shape"]), np.uint8)

    def fill(index: int) -> None:
        out[which == index] = decode(stored[starts[index] : ends[index]], facts["codec"])

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # OpenCV lets go of the interpreter while it decodes
        list(pool.map(fill, np.unique(which).tolist()))
    return out


def facts_of(episode: Episode, label: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the facts of an episode as a set keeps them; label: what a person said later."""
    attrs = episode.attrs
    said = label or (attrs.get("labels") or [{}])[-1]
    facts = {
        "id": episode.id,
        "uuid": attrs.get("uuid", ""),
        "seed": attrs.get("seed"),
        "success": attrs.get("success"),
        "label": said.get("label", ""),
        "label_by": said.get("by", ""),
        "label_time": said.get("time", ""),
        "operator": attrs.get("operator", ""),
        "reason": attrs.get("reason", ""),
        "journal_sha256": episode.sha256,
    }
    return {name: value for name, value in facts.items() if value is not None}


def is_packed(path: Path, episode: int) -> bool:
    """Returns whether the set at `path` holds the episode with this id."""
    ids = EpisodeSet.open(path).episode_field("id") if path.exists() else None
    return ids is not None and episode in ids


def fits(dataset: EpisodeSet, episode: Episode) -> None:
    """Raises DatasetError, naming what differs, unless the episode has the keys, the rate and the task of the set."""
    where = f"{episode.path.name}"
    spec = _spec(episode)
    if dataset.hz and not np.isclose(spec.hz, dataset.hz, rtol=1e-3):
        raise DatasetError(f"{where}: recorded at {spec.hz:g} Hz, the set {dataset.path} has {dataset.hz:g} Hz")
    if dataset.task and episode.attrs.get("task", "") not in ("", dataset.task):
        raise DatasetError(f"{where}: recorded for task {episode.attrs['task']}, the set {dataset.path} is of {dataset.task}")
    have = keys_of(episode)
    for key, want in dataset.keys.items():
        if key not in have:
            raise DatasetError(f"{where}: has no '{key}', which the set {dataset.path} holds")
        if have[key].shape != want.shape:
            raise DatasetError(f"{where}: {key} has shape {have[key].shape}, the set {dataset.path} holds {want.shape}")
    if more := sorted(set(have) - set(dataset.keys)):
        raise DatasetError(f"{where}: has '{more[0]}', which the set {dataset.path} does not hold")


def _top(episode: Episode) -> set[str]:
    return {p.name for p in episode.path.iterdir()}


def _spec(episode: Episode) -> Spec:
    return Spec.from_json(episode.attrs["spec"])


def _options(episode: Episode) -> dict[str, Any]:
    spec = _spec(episode)
    extra = {key: array for key, array in keys_of(episode).items() if key not in spec.obs and key != "action"}
    return {
        "extra": extra,
        "meta": {**episode.attrs.get("meta", {}), "recorded": True},
    }


def _stream(episode: Episode, key: str) -> np.ndarray:
    """Returns a stream of its own rate at the ticks of the episode."""
    name = next(n for n in episode.names("streams") if f"stream_{n.replace('/', '_')}" == key)
    times, values = episode.array(f"streams/{name}/t"), episode.array(f"streams/{name}/values")
    keep = np.diff(times, prepend=times[0] - 1) > 0
    latency_s = float(episode.attrs.get("latency_s", {}).get(name, 0.0))
    return interpolate(
        np.asarray(times)[keep], np.asarray(values)[keep], np.asarray(episode.array("rows/t_monotonic")), latency_s
    )
