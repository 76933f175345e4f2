"""Writes a set as plain folders: data.csv, and an mp4 or numbered pictures for each camera."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from robolearn.core import ArraySpec
from robolearn.data._fan import fan_out
from robolearn.data.convert import _copy, _folder_csv, _pictures
from robolearn.data.convert._copy import Ahead, Options
from robolearn.data.images import is_image
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError

DATASET = "dataset.json"
_FORMAT = "robolearn folders 1"


@dataclass(frozen=True)
class Plan:
    """How a set is written. columns: key -> the names of its columns; cameras: key -> the name of its file."""

    path: Path
    out: Path
    images: str
    columns: Mapping[str, tuple[str, ...]]
    cameras: tuple[str, ...]


def cannot_carry(source: EpisodeSet, options: Options = Options()) -> tuple[str, ...]:
    """Returns what writing would not carry; DatasetError where the set cannot be written at all."""
    _plan(source, Path(), options)
    return (*source.notes, *_copy.lossy_pictures(source, _copy.images_of(source.keys, source.n_steps, options)))


def write_folders(source: EpisodeSet, part: Path, options: Options) -> None:
    """Writes a set as one folder an episode below `part`."""
    plan = _plan(source, part, options)
    part.mkdir()
    todo = range(source.n_episodes)
    done = fan_out(partial(_write_episode, plan), todo, options.workers)
    for _ in tqdm(done, total=len(todo), desc="to folders", unit="ep", disable=not sys.stderr.isatty()):
        pass
    (part / DATASET).write_text(json.dumps(_dataset(source, plan), indent=1) + "\n")


def read_dataset(src: Path) -> dict[str, Any]:
    """Returns dataset.json where robolearn wrote one, {} where there is none."""
    file = src / DATASET
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file}: want JSON, got something else ({error})") from error
    return values if isinstance(values, dict) and values.get("format") == _FORMAT else {}


def facts_of(ours: Mapping[str, Any], episodes: int) -> dict[str, np.ndarray]:
    """Returns the facts in dataset.json; none where the folders are not those it speaks of."""
    if not ours or len(ours["lengths"]) != episodes:
        return {}
    return {name: np.array(fact["values"], dtype=fact["dtype"]) for name, fact in ours["facts"].items()}


def _plan(source: EpisodeSet, out: Path, options: Options) -> Plan:
    _copy.own_spec(source)
    columns, cameras = {}, []
    for key, array in source.keys.items():
        if is_image(array):
            cameras.append(key)
        else:
            columns[key] = _column_names(key, array)
    taken = [name for names in columns.values() for name in names]
    odd = next((name for name in taken if taken.count(name) > 1), None)
    odd = odd or next((key for key in source.keys if "/" in key or key.startswith(".")), None)
    if odd:
        raise DatasetError(f"{source.path}: '{odd}' cannot be the name of a column or file; rename the key")
    return Plan(source.path, out, _copy.images_of(source.keys, source.n_steps, options), columns, tuple(cameras))


def _column_names(key: str, array: ArraySpec) -> tuple[str, ...]:
    if not array.shape:
        return (key,)
    if len(array.shape) == 1 and array.names and len(set(array.names)) == array.shape[0]:
        return tuple(f"{key}.{name}" for name in array.names)
    return tuple(f"{key}." + "_".join(map(str, place)) for place in np.ndindex(array.shape))


@lru_cache(maxsize=2)
def _opened(path: Path, out: str) -> Ahead:
    del out  # another conversion opens the set anew
    return Ahead(EpisodeSet.open(path))


def _write_episode(plan: Plan, index: int) -> None:
    """Writes one folder."""
    ahead = _opened(plan.path, str(plan.out))
    source = ahead.source
    hz, (first, last) = source.hz or 1.0, source.span(index)
    folder = plan.out / f"episode_{index:06d}"
    folder.mkdir()
    columns: dict[str, np.ndarray] = {}
    if "timestamp" not in source.keys:
        columns["timestamp"] = np.arange(last - first) / hz
    for key, names in plan.columns.items():
        rows = ahead.read(key, first, last).reshape(last - first, -1)
        columns |= {name: rows[:, column] for column, name in enumerate(names)}
    _folder_csv.write_table(folder / "data.csv", columns)
    for key in plan.cameras:
        _write_camera(plan, folder, key, source.read(key, first, last), hz)


def _write_camera(plan: Plan, folder: Path, key: str, images: np.ndarray, hz: float) -> None:
    if plan.images == "video":
        _pictures.write_video(folder / f"{key}.mp4", images, hz)
        return
    (folder / key).mkdir()
    for number, image in enumerate(images):
        name = f"{number:06d}.{'jpg' if plan.images == 'jpeg' else 'png'}"
        (folder / key / name).write_bytes(_pictures.encode_image(image, plan.images))


def _dataset(source: EpisodeSet, plan: Plan) -> dict[str, Any]:
    assert source.spec is not None
    facts = _copy.all_facts(source)
    return {
        "format": _FORMAT,
        "hz": source.hz,
        "task": source.task or "",
        "env": source.env,
        "units": {key: array.unit for key, array in source.keys.items() if array.unit},
        "lengths": np.diff(source.episode_ends, prepend=0).tolist(),
        "spec": source.spec.to_json(),
        "extra": {key: array.to_json() for key, array in _copy.extra_keys(source).items()},
        "columns": {key: list(names) for key, names in plan.columns.items()},
        "facts": {
            name: {"dtype": "str" if v.dtype.kind == "U" else str(v.dtype), "values": v.tolist()} for name, v in facts.items()
        },
        "meta": _copy.own_attributes(source),
    }
