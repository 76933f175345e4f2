"""FIPER's published rollouts (arXiv 2510.09459): read as plain numpy episodes, converted once to zarr, read back from there.

    <task>/rollouts/{calibration,test}/episode_{s|f}_XXXX.pkl (pretzel: episode_N.pkl)

A file is a pickle of {metadata, rollout}, an older one of a list that begins with the metadata; it is read by the restricted
unpickler only. A step holds the arrays of KEYS. What belongs to one robot may be wrapped in a list with one entry a robot;
where it is not and there are several, steps of the robots take turns. Either way rows come out interleaved: robot r has the
rows r, r + robots, r + 2 robots, ... The zarr group holds data/<array>, meta/episode_ends and the facts of each episode as
its attribute `episodes`. Numbers keep the precision they were published in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from robolearn.data._files import built_aside
from robolearn.data._zarr import create_ends, create_rows, open_group, read_rows
from robolearn.data.convert._restricted_unpickle import load
from robolearn.errors import BadInput, DatasetError, nearest

SPLITS = ("calibration", "test")
IN_DISTRIBUTION = frozenset(["ca", "id", "calibration", "na"])  # subtypes; every other one is a shift
KEYS = {  # of a Rollout, and what a step calls it
    "features": "obs_embedding",
    "samples": "action_pred",
    "actions": "action",
    "images": "rgb",
    "agent_pos": "agent_pos",
    "states": "state_embedding",
    "timestamps": "timestamp",
}
_AXES = {"features": 2, "samples": 4, "actions": 3, "timestamps": 1}  # with time
_NUMBERS = (np.ndarray, np.generic, int, float)
_FORMAT = {"format": "fiper_rollouts", "version": 1}

Believe = Literal["both", "metadata"]


@dataclass(frozen=True)
class Rollout:
    """One episode of T plans of a policy (of `robots` robots: T rows, interleaved).

    features: (T, d) embeddings; samples: (T, B, H, A), chunks sampled at each plan; actions: (T, H, A), the chunk chosen;
    images: (T, ...) as published (pretzel's with channels first); agent_pos: (T, D); states: (T, S); timestamps: (T,);
    the last five are None where the file has none. horizon, execute: plans' length H, and how much of it is executed;
    kind: the published subtype, "" for none; parts: which numbers of an action are its pos, vel, rpy, gripper, ...
    """

    name: str
    task: str
    split: str
    success: bool
    kind: str
    in_distribution: bool
    horizon: int
    execute: int
    robots: int
    features: np.ndarray
    samples: np.ndarray
    actions: np.ndarray | None = None
    images: np.ndarray | None = None
    agent_pos: np.ndarray | None = None
    states: np.ndarray | None = None
    timestamps: np.ndarray | None = None
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.features)

    def robot(self, which: int) -> Rollout:
        """Returns the rows of one robot, as an episode of its own."""
        if not 0 <= which < self.robots:
            raise BadInput(f"{self.name}: want a robot from 0 to {self.robots - 1}, got {which}")
        rows: dict[str, Any] = {key: array[which :: self.robots] for key, array in self.arrays().items()}
        return replace(self, robots=1, **rows)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the arrays that are there, by name."""
        return {key: getattr(self, key) for key in KEYS if getattr(self, key) is not None}

    def facts(self) -> dict[str, Any]:
        """Returns all the rest, as JSON takes it."""
        held = {part.name: getattr(self, part.name) for part in fields(self) if part.name not in KEYS}
        return held | {"parts": {name: list(which) for name, which in self.parts.items()}}


def find(folder: Path) -> list[tuple[str, Path]]:
    """Returns (split, file) of every episode below a task's folder or its `rollouts`, calibration first, in order of numbers."""
    folder = Path(folder)
    root = folder / "rollouts" if (folder / "rollouts").is_dir() else folder
    found = [(split, path) for split in SPLITS for path in sorted((root / split).glob("episode_*.pkl"), key=_order)]
    if not found:
        beside = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        raise DatasetError(
            f"{folder}: want calibration/ or test/ with episode_*.pkl, got {', '.join(sorted(beside)[:5]) or 'nothing'}"
        )
    return found


def read(folder: Path, believe: Believe = "both") -> Iterator[Rollout]:
    """Yields every episode of a task's folder, one in memory at a time; DatasetError names the file that does not fit."""
    for split, path in find(folder):
        yield read_episode(path, split, believe)


def read_episode(path: Path, split: str, believe: Believe = "both") -> Rollout:
    """Returns the episode in one file.

    success is that of the metadata, or of the name where they have none; a disagreement is refused, unless `believe` is
    "metadata". BadInput for a file that is no harmless pickle, DatasetError for one that lacks or contradicts something.
    """
    path = Path(path)
    meta, steps = _parts(load(path), path)
    robots = _whole(meta, "num_robots", path, 1, most=16)
    alternate = robots > 1 and not isinstance(steps[0].get(KEYS["samples"]), list)
    if alternate and len(steps) % robots:
        raise DatasetError(f"{path}: want the steps of {robots} robots in turns, got {len(steps)} steps")
    arrays: dict[str, Any] = {name: _column(steps, name, 1 if alternate else robots, path) for name in KEYS}
    features, samples = arrays.pop("features"), arrays.pop("samples")
    if features is None or samples is None:
        lacks = KEYS["samples" if samples is None else "features"]
        raise DatasetError(
            f"{path}: step 0: '{lacks}' is missing{nearest(lacks, [key for key in steps[0] if isinstance(key, str)])}"
        )
    horizon = _whole(meta, "action_prediction_horizon", path, samples.shape[2])
    execute = _whole(meta, "action_execution_horizon", path)
    if horizon != samples.shape[2] or execute > horizon:
        raise DatasetError(f"{path}: want {execute} of {horizon} steps of a plan to be executed, got plans of {samples.shape[2]}")
    kind = _text(meta, "rollout_subtype", path)
    return Rollout(
        name=path.stem,
        task=_text(meta, "task", path) or path.resolve().parents[2].name,
        split=split,
        success=_success(meta, path, believe),
        kind=kind,
        in_distribution=kind in IN_DISTRIBUTION or (not kind and split == "calibration"),
        horizon=horizon,
        execute=execute,
        robots=robots,
        features=features,
        samples=samples,
        parts=_mappings(meta, samples.shape[3], path),
        **arrays,
    )


def to_zarr(folder: Path, out: Path, *, images: bool = True, believe: Believe = "both", overwrite: bool = False) -> int:
    """Writes every episode of a task's folder to a new zarr group `out` and returns how many; nothing is left of a failure.

    images: False leaves the pictures out, which are nearly all of the bytes.
    """
    facts: list[dict[str, Any]] = []
    with built_aside(Path(out), overwrite) as part:
        group = zarr.open_group(str(part), mode="w", zarr_format=3)
        data, ends = group.create_group("data"), create_ends(group)
        for rollout in read(folder, believe):
            held = {key: array for key, array in rollout.arrays().items() if images or key != "images"}
            where = f"{folder}: {rollout.split}/{rollout.name}"
            for key, array in held.items():
                if not facts:
                    create_rows(data, key, array.shape[1:], str(array.dtype))
                if key not in data or data[key].shape[1:] != array.shape[1:] or data[key].dtype != array.dtype:
                    want = f"{data[key].dtype}{data[key].shape[1:]}" if key in data else f"none, as in {facts[0]['name']}"
                    raise DatasetError(f"{where}: {key}: want {want}, got {array.dtype}{array.shape[1:]}")
                data[key].append(array)
            if set(held) != set(data):
                raise DatasetError(f"{where}: want {', '.join(sorted(data))}, got {', '.join(sorted(held))}")
            ends.append(np.array([data["features"].shape[0]]))
            facts.append(rollout.facts())
        group.attrs.update(_FORMAT | {"episodes": facts})
    return len(facts)


def read_zarr(path: Path, images: bool = True) -> Iterator[Rollout]:
    """Yields the episodes that `to_zarr` wrote, one in memory at a time; DatasetError where the group is another or damaged."""
    group = open_group(Path(path))
    told = {key: group.attrs.get(key) for key in _FORMAT}
    if told != _FORMAT:
        raise DatasetError(f"{path}: want a zarr group of {_FORMAT}, got {told}")
    data, facts = group["data"], list(group.attrs["episodes"])
    ends = read_rows(group["meta/episode_ends"], 0, None, f"{path}: meta/episode_ends")
    rows = {key: data[key].shape[0] for key in data}
    if len(ends) != len(facts) or (np.diff(ends, prepend=0) < 1).any() or set(rows.values()) != {int(ends[-1])}:
        raise DatasetError(f"{path}: want {len(facts)} episodes that end in {ends[-3:].tolist()}, got rows {rows}")
    for fact, start, end in zip(facts, [0, *ends[:-1]], ends, strict=True):
        chosen = [key for key in rows if images or key != "images"]
        arrays: dict[str, Any] = {key: read_rows(data[key], int(start), int(end), f"{path}: data/{key}") for key in chosen}
        yield Rollout(**fact | {"parts": {name: tuple(which) for name, which in fact["parts"].items()}}, **arrays)


def _order(path: Path) -> tuple[str, int]:
    number = re.search(r"(\d+)$", path.stem)
    return path.stem[: number.start()] if number else path.stem, int(number[1]) if number else -1


def _parts(content: object, path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns metadata and steps of either form of file."""
    meta: Any = None
    steps: Any = None
    if isinstance(content, dict):
        meta, steps = content.get("metadata"), content.get("rollout")
    elif isinstance(content, list) and content and isinstance(content[0], dict) and "metadata" in content[0]:
        inner = content[0]["metadata"]  # newer files say True there, and the metadata beside it
        meta, steps = inner if isinstance(inner, dict) else content[0], content[1:]
    if not isinstance(meta, dict) or not isinstance(steps, list):
        held = f"keys {', '.join(_told(key) for key in [*content][:5])}" if isinstance(content, dict) else _told(content)
        raise DatasetError(f"{path}: want a dict of metadata and rollout, or a list that begins with metadata, got {held}")
    if not steps or not all(isinstance(step, dict) for step in steps):
        raise DatasetError(f"{path}: want steps that are dicts, at least one, got {len(steps)}")
    return meta, steps


def _told(value: object) -> str:
    """Returns a value for a message, or its type where it may be of any size."""
    short = isinstance(value, (str, bool, float, np.generic, type(None))) or (isinstance(value, int) and abs(value) < 10**12)
    return repr(value)[:40] if short else type(value).__name__


def _column(steps: list[dict[str, Any]], name: str, robots: int, path: Path) -> np.ndarray | None:
    """Returns one key of every step as rows, a row a robot; None where no step has it."""
    key = KEYS[name]
    rows: list[Any] = []
    for number, step in enumerate(steps):
        value = step.get(key)
        entries = value if isinstance(value, list) else [value] * robots
        if len(entries) != robots:
            raise DatasetError(f"{path}: step {number}: {key}: want one entry a robot ({robots}), got {len(entries)}")
        rows += entries
    if all(row is None for row in rows):
        return None
    first = np.asarray(rows[0]) if isinstance(rows[0], _NUMBERS) else np.zeros(0)
    for number, row in enumerate(rows):
        if row is None:
            raise DatasetError(f"{path}: step {number // robots}: '{key}' is missing, which other steps have")
        array = np.asarray(row) if isinstance(row, _NUMBERS) else None
        if array is None or (array.shape, array.dtype) != (first.shape, first.dtype) or array.dtype.kind not in "biuf":
            got = _told(row) if array is None else f"{array.dtype}{array.shape}"
            raise DatasetError(f"{path}: step {number // robots}: {key}: want numbers {first.dtype}{first.shape}, got {got}")
    stacked = np.stack(rows)
    if stacked.ndim != _AXES.get(name, stacked.ndim) or not all(stacked.shape):
        raise DatasetError(f"{path}: {key}: want {_AXES.get(name)} axes with the steps, none empty, got {stacked.shape}")
    if name in ("features", "samples", "actions") and not np.isfinite(stacked).all():
        raise DatasetError(f"{path}: {key}: holds NaN or infinity")
    return stacked


def _success(meta: Mapping[str, Any], path: Path, believe: Believe) -> bool:
    letter = re.search(r"episode_([sf])_", path.name)
    named = None if letter is None else letter[1] == "s"
    told = meta.get("successful")
    if told is not None and (not isinstance(told, (bool, np.bool_, int, np.integer)) or int(told) not in (0, 1)):
        raise DatasetError(f"{path}: metadata: successful: want True or False, got {_told(told)}")
    if told is None and named is None:
        raise DatasetError(f"{path}: neither the metadata nor the name says whether it was a success")
    if told is not None and named is not None and bool(told) != named and believe == "both":
        raise DatasetError(
            f"{path}: the metadata say {'success' if told else 'failure'}, the name says {'success' if named else 'failure'}; "
            "correct one, or read with believe='metadata'"
        )
    return bool(named if told is None else told)


def _text(meta: Mapping[str, Any], key: str, path: Path) -> str:
    value = meta.get(key)
    if not isinstance(value, (str, type(None))):
        raise DatasetError(f"{path}: metadata: {key}: want text, got {_told(value)}")
    return value or ""


def _whole(meta: Mapping[str, Any], key: str, path: Path, default: int | None = None, most: int = 10_000) -> int:
    value = default if meta.get(key) is None else meta[key]
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= most:
        raise DatasetError(f"{path}: metadata: {key}: want a whole number from 1 to {most}, got {_told(value)}")
    return int(value)


def _mappings(meta: Mapping[str, Any], width: int, path: Path) -> dict[str, tuple[int, ...]]:
    """Returns which numbers of an action are what, those left out that are not used."""
    told = {} if meta.get("action_mappings") is None else meta["action_mappings"]
    try:
        made = {str(name): tuple(int(i) for i in which) for name, which in told.items() if which is not None}
    except (AttributeError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: metadata: action_mappings: want lists of indices by name, got {_told(told)}") from error
    if not all(0 <= i < width for which in made.values() for i in which):
        raise DatasetError(f"{path}: metadata: action_mappings: want indices from 0 to {width - 1}")
    return made
