"""Reads the rows of a LeRobot dataset piece by piece: columns of parquet files, pictures in them, videos beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.core import ArraySpec, Spec
from robolearn.data.convert import _lerobot_layout as layout
from robolearn.data.convert import _pictures
from robolearn.data.convert._copy import Foreign, Piece, Rows, stamp
from robolearn.errors import DatasetError


@dataclass(frozen=True)
class Column:
    """One key and where it comes from: the feature's name, and how it is kept ("image", "video" or "")."""

    feature: str
    array: ArraySpec
    pictures: str = ""


@dataclass(frozen=True)
class Source:
    """What `rows` needs of the dataset; small and picklable."""

    root: Path
    fps: float
    episodes: tuple[layout.Episode, ...]
    columns: Mapping[str, Column]
    check_times: bool


def scan(src: Path, task: str, hz: float | None) -> Foreign:
    """Returns what a LeRobot dataset holds, before any picture is decoded."""
    found = layout.open_layout(src)
    columns, lost = _columns(found)
    ours = found.ours
    if ours and not _still_ours(ours, found, columns):
        ours = {}
    if ours:
        spec = Spec.from_json(ours["spec"])
        extra = {key: ArraySpec.from_json(array) for key, array in ours["extra"].items()}
        columns = {ours["features"][feature]: column for feature, column in columns.items() if feature in ours["features"]}
        keys = {**spec.obs, "action": spec.action, **extra}
        columns = {key: replace(columns[key], array=keys[key]) for key in keys}
        facts = dict(found.facts)
    else:
        obs = {key: column.array for key, column in columns.items() if key.startswith("observation")}
        extra = {key: column.array for key, column in columns.items() if key not in obs and key != "action"}
        if "timestamp" in extra:
            extra["timestamp"] = replace(extra["timestamp"], unit="s")
        spec = Spec(obs, columns["action"].array, found.fps)
        facts = {**found.facts, **_instructions(found)}
        lost += ["units and frames of keys, seeds: a LeRobot dataset has none"]
        lost += (
            [f"the real times of the rows: LeRobot's timestamp is frame_index / {found.fps:g}"] if "timestamp" in extra else []
        )
    spec = replace(spec, hz=hz) if hz else spec
    source = Source(src, found.fps, found.episodes, columns, "timestamp" in found.features)
    return Foreign(
        spec=spec,
        task=task or ours.get("task", ""),
        ends=np.cumsum([episode.length for episode in found.episodes], dtype=np.int64),
        rows=partial(rows, source),
        extra=extra,
        env=ours.get("env", {}),
        meta=ours.get("meta") or {"source": f"LeRobot {found.version}", **({"robot": found.robot} if found.robot else {})},
        facts=facts,
        lost=tuple(lost),
    )


def rows(source: Source, piece: Piece) -> Rows:
    """Returns every key of one piece; DatasetError names file and column of what is missing, torn or out of place."""
    episode = source.episodes[piece.episode]
    names = [column.feature for column in source.columns.values() if column.pictures != "video"]
    also = [name for name in ("episode_index", *(["timestamp"] if source.check_times else [])) if name not in names]
    table = _slice(episode, piece, names + also)
    if (numbers := _numbers(table["episode_index"], "episode_index", (), episode.file)).min() != episode.index or (
        numbers.max() != episode.index
    ):
        raise DatasetError(f"{episode.file}: rows of episode {episode.index} belong to episode {int(numbers[0])} instead")
    if source.check_times:
        _check_times(_numbers(table["timestamp"], "timestamp", (), episode.file), episode)
    made: Rows = {}
    for key, column in source.columns.items():
        where = f"{episode.file}: {column.feature}"
        if column.pictures == "video":
            path, first = episode.videos[column.feature]
            times = first + np.arange(piece.start, piece.stop) / source.fps
            made[key] = _pictures.frames_at(path, times, 0.5 / source.fps)
        elif column.pictures == "image":
            made[key] = np.stack([_image(value, source.root, where) for value in table[column.feature].to_pylist()])
        else:
            made[key] = _numbers(table[column.feature], column.feature, column.array.shape, episode.file)
            if made[key].dtype != np.dtype(column.array.dtype):
                raise DatasetError(f"{where}: want {column.array.dtype}, got {made[key].dtype}")
    return made


def _columns(found: layout.Layout) -> tuple[dict[str, Column], list[str]]:
    """Returns the columns that can be carried, by feature, and what cannot."""
    columns, lost = {}, []
    for key, feature in found.features.items():
        kind = feature["dtype"]
        if key in layout.INDICES:
            continue
        if kind in ("image", "video"):
            videos = [episode.videos.get(key, (None, 0.0))[0] for episode in found.episodes]
            absent = sum(path is None or not path.is_file() for path in videos) if kind == "video" else 0
            if absent == len(videos):
                lost.append(f"pictures of '{key}': its videos are not in the dataset")
                continue
            if absent:
                raise DatasetError(
                    f"{found.root}: {absent} of {len(videos)} episodes have no video of '{key}'; fetch all or none"
                )
            columns[key] = Column(key, layout.spec_of(feature, key), kind)
        elif kind in ("string", "language") or not _is_dtype(kind):
            lost.append(f"'{key}': {kind} per step")
        else:
            columns[key] = Column(key, layout.spec_of(feature, key))
    if len(found.tasks) > 1 and any(len(episode.tasks) > 1 for episode in found.episodes):
        columns["task_index"] = Column("task_index", ArraySpec((), "int64"))
    return columns, lost


def _still_ours(ours: Mapping[str, Any], found: layout.Layout, columns: Mapping[str, Column]) -> bool:
    """Returns True where the features are still those that robolearn wrote: another program may have edited the dataset."""
    return set(ours.get("features", {})) <= set(columns) and ours.get("hz") == found.fps


def _instructions(found: layout.Layout) -> dict[str, list[str]]:
    """Returns the fact `instruction`, what each episode was told to do, where any says so."""
    texts = [episode.tasks[0] if episode.tasks else "" for episode in found.episodes]
    return {"instruction": texts} if any(texts) else {}


def _is_dtype(name: str) -> bool:
    try:
        return np.dtype(name).kind in "biuf"
    except TypeError:
        return False


def _file(path: Path) -> tuple[Any, np.ndarray]:
    """Returns an open parquet file and the first row of each of its row groups, and one more."""
    if not path.is_file():
        layout.open_parquet(path)
    return _cached(path, stamp(path))


@lru_cache(maxsize=4)
def _cached(path: Path, state: tuple[int, int, int]) -> tuple[Any, np.ndarray]:
    del state
    file = layout.open_parquet(path)
    counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    return file, np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _slice(episode: layout.Episode, piece: Piece, names: list[str]) -> Any:
    """Returns the rows of a piece, reading no more of the file than the row groups they lie in."""
    file, starts = _file(episode.file)
    lost = [name for name in names if name not in file.schema_arrow.names]
    if lost:
        raise DatasetError(f"{episode.file}: column '{lost[0]}' is missing (columns: {', '.join(file.schema_arrow.names)})")
    first, last = episode.first_row + piece.start, episode.first_row + piece.stop
    if last > starts[-1]:
        raise DatasetError(f"{episode.file}: episode {episode.index} wants rows up to {last - 1}, the file has {int(starts[-1])}")
    groups = range(int(np.searchsorted(starts, first, "right")) - 1, int(np.searchsorted(starts, last, "left")))
    try:
        table = file.read_row_groups(list(groups), columns=names)
    except Exception as error:
        raise DatasetError(f"{episode.file}: rows {first} to {last - 1} cannot be read ({layout._line(error)})") from error
    return table.slice(first - int(starts[groups[0]]), last - first)


def _numbers(column: Any, name: str, shape: tuple[int, ...], path: Path) -> np.ndarray:
    """Returns a column of numbers, or of lists of numbers, as an array (rows, *shape)."""
    values, count = column.combine_chunks(), len(column)
    while hasattr(values, "flatten") and _is_list(values.type):
        if values.null_count:
            raise DatasetError(f"{path}: {name}: {values.null_count} rows are empty")
        values = values.flatten()
    values = values.storage if hasattr(values, "storage") else values
    while _is_list(values.type):
        values = values.flatten()
    if values.null_count:
        raise DatasetError(f"{path}: {name}: {values.null_count} values are missing")
    flat = values.to_numpy(zero_copy_only=False)
    if len(flat) != count * int(np.prod(shape)):
        raise DatasetError(f"{path}: {name}: want rows of shape {shape}, got {len(flat)} values in {count} rows")
    return flat.reshape(count, *shape)


def _is_list(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _image(value: Mapping[str, Any] | bytes | None, root: Path, where: str) -> np.ndarray:
    """Returns the picture of one row: its bytes, or the file it names."""
    raw = value if isinstance(value, bytes) else (value or {}).get("bytes")
    if raw is None:
        path = (value or {}).get("path") if not isinstance(value, bytes) else None
        file = root / str(path or "")
        if not path or not file.is_file():
            raise DatasetError(f"{where}: a row holds no picture and names no file ({path})")
        raw = file.read_bytes()
    return _pictures.decode_image(raw, where)


def _check_times(times: np.ndarray, episode: layout.Episode) -> None:
    if not np.isfinite(times).all():
        raise DatasetError(
            f"{episode.file}: timestamp: NaN in row {int(np.argmin(np.isfinite(times)))} of episode {episode.index}"
        )
    if len(times) > 1 and not (np.diff(times) > 0).all():
        raise DatasetError(
            f"{episode.file}: timestamp: does not rise after row {int(np.argmin(np.diff(times) > 0))} of episode {episode.index}"
        )
