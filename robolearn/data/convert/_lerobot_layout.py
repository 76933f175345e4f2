"""Where a LeRobot dataset keeps what: info.json, features, episodes and tasks of v3.0 and v2.x, checked when it is opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.core import ArraySpec
from robolearn.errors import DatasetError, MissingDependency, nearest

INFO = Path("meta/info.json")
OURS = Path("meta/robolearn.json")
FACT = "fact/"  # columns of meta/episodes that hold what robolearn knows of an episode
INDICES = ("frame_index", "episode_index", "index", "task_index")  # follow from the rows' places
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_CHUNK = 1000  # episodes a folder in v2.x


@dataclass(frozen=True)
class Episode:
    """Where the rows and pictures of one episode lie. videos: feature -> (file, its first picture [s])."""

    index: int
    length: int
    file: Path
    first_row: int  # within the file
    videos: Mapping[str, tuple[Path, float]]
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """A LeRobot dataset that was opened. features: as in info.json; facts: by name, one value an episode."""

    root: Path
    version: str
    fps: float
    robot: str
    features: Mapping[str, Mapping[str, Any]]
    episodes: tuple[Episode, ...]
    tasks: tuple[str, ...]
    facts: Mapping[str, Any]
    ours: Mapping[str, Any]  # what robolearn noted when it wrote the dataset; empty where another program did


def parquet() -> Any:
    """Returns pyarrow.parquet; MissingDependency says how to install it."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingDependency("pyarrow", "LeRobot's format", "pip install robolearn[lerobot]") from error
    return pyarrow.parquet


def read_table(path: Path, columns: list[str] | None = None) -> Any:
    """Returns a whole parquet file as a table; DatasetError where it is missing, cut off or lacks a column."""
    file = open_parquet(path)
    if columns is not None:
        lost = [name for name in columns if name not in file.schema_arrow.names]
        if lost:
            raise DatasetError(
                f"{path}: column '{lost[0]}' is missing (columns: {', '.join(file.schema_arrow.names[:12])})"
                f"{nearest(lost[0], file.schema_arrow.names)}"
            )
    try:
        return file.read(columns)
    except Exception as error:
        raise DatasetError(f"{path}: cannot be read ({_line(error)}); restore it from a copy") from error


def open_parquet(path: Path) -> Any:
    """Returns an open parquet file; DatasetError where it is missing or cut off."""
    if not path.is_file():
        raise DatasetError(f"{path}: this file of the LeRobot dataset is missing")
    try:
        return parquet().ParquetFile(path)
    except MissingDependency:
        raise
    except Exception as error:
        raise DatasetError(f"{path}: want a parquet file, got one that is cut off or broken ({_line(error)})") from error


def open_layout(root: Path) -> Layout:
    """Returns the layout of the dataset in a folder; DatasetError says what does not fit together."""
    info = _json(root / INFO)
    for key in ("codebase_version", "fps", "features", "total_episodes"):
        if key not in info:
            raise DatasetError(f"{root / INFO}: want '{key}' in a LeRobot dataset, got {', '.join(sorted(info)) or 'nothing'}")
    version = str(info["codebase_version"])
    if not version.startswith(("v3.", "v2.")):
        raise DatasetError(f"{root}: is LeRobot {version}, robolearn reads v2.0, v2.1 and v3.0")
    if "action" not in info["features"]:
        raise DatasetError(f"{root / INFO}: want a feature 'action', got {', '.join(info['features'])}")
    tasks = _tasks_v3(root) if version.startswith("v3.") else _tasks_v2(root)
    episodes, facts = _episodes_v3(root, info) if version.startswith("v3.") else (_episodes_v2(root, info), {})
    _agree(root, info, episodes)
    return Layout(
        root=root,
        version=version,
        fps=float(info["fps"]),
        robot=str(info.get("robot_type") or ""),
        features=info["features"],
        episodes=episodes,
        tasks=tasks,
        facts=facts,
        ours=_json(root / OURS) if (root / OURS).is_file() else {},
    )


def spec_of(feature: Mapping[str, Any], key: str) -> ArraySpec:
    """Returns the array that a feature describes; pictures are (height, width, 3) uint8 however their axes are named."""
    shape = tuple(int(n) for n in feature["shape"])
    if feature["dtype"] in ("image", "video"):
        axes = [str(name) for name in feature.get("names") or ()]
        if axes[:1] and axes[0].startswith("channel"):
            shape = (*shape[1:], shape[0])
        return ArraySpec(shape, "uint8")
    if shape == (1,) and not key.startswith(("observation", "action")):
        shape = ()
    names = feature.get("names")
    if isinstance(names, Mapping):
        names = [name for group in names.values() for name in (group if isinstance(group, list) else [group])]
    fits = isinstance(names, list) and shape and len(names) == shape[-1]
    return ArraySpec(shape, str(feature["dtype"]), tuple(str(n) for n in names) if fits and names else ())


def _episodes_v3(root: Path, info: Mapping[str, Any]) -> tuple[tuple[Episode, ...], dict[str, Any]]:
    files = sorted((root / "meta/episodes").glob("*/*.parquet"))
    if not files:
        raise DatasetError(f"{root}: want meta/episodes/chunk-000/file-000.parquet, got none")
    videos = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    wanted = ["episode_index", "length", "data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index"]
    rows: list[dict[str, Any]] = []
    facts: dict[str, list[np.ndarray]] = {}
    for file in files:
        names = open_parquet(file).schema_arrow.names
        table = read_table(file, wanted + [name for name in names if name not in wanted and not name.startswith("stats/")])
        facts_here = [name for name in names if name.startswith(FACT)]
        for name in facts_here:
            facts.setdefault(name.removeprefix(FACT), []).append(np.array(table[name].to_pylist(), _fact_dtype(table[name])))
        rows += table.drop_columns(facts_here).to_pylist()
    first_of_file: dict[tuple[int, int], int] = {}
    for row in rows:
        place = (row["data/chunk_index"], row["data/file_index"])
        first_of_file[place] = min(row["dataset_from_index"], first_of_file.get(place, row["dataset_from_index"]))
    data_path, video_path = info.get("data_path") or DATA_PATH, info.get("video_path") or VIDEO_PATH
    found = []
    for row in rows:
        chunk, file = row["data/chunk_index"], row["data/file_index"]
        if row["dataset_to_index"] - row["dataset_from_index"] != row["length"]:
            raise DatasetError(
                f"{root}: episode {row['episode_index']} is {row['length']} long but holds rows {row['dataset_from_index']} to "
                f"{row['dataset_to_index'] - 1}"
            )
        places = {
            key: (
                root
                / video_path.format(
                    video_key=key, chunk_index=row[f"videos/{key}/chunk_index"], file_index=row[f"videos/{key}/file_index"]
                ),
                float(row[f"videos/{key}/from_timestamp"]),
            )
            for key in videos
            if row.get(f"videos/{key}/file_index") is not None
        }
        path = root / data_path.format(chunk_index=chunk, file_index=file)
        first = row["dataset_from_index"] - first_of_file[chunk, file]
        found.append(Episode(row["episode_index"], row["length"], path, first, places, tuple(row.get("tasks") or ())))
    return tuple(found), {name: np.concatenate(parts) for name, parts in facts.items()}


def _episodes_v2(root: Path, info: Mapping[str, Any]) -> tuple[Episode, ...]:
    data_path = info.get("data_path") or "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    video_path = info.get("video_path") or "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    videos = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    found = []
    for row in _json_lines(root / "meta/episodes.jsonl", ("episode_index", "length")):
        index = int(row["episode_index"])
        place = {"episode_chunk": index // int(info.get("chunks_size", _CHUNK)), "episode_index": index}
        clips = {key: (root / video_path.format(video_key=key, **place), 0.0) for key in videos}
        found.append(
            Episode(index, int(row["length"]), root / data_path.format(**place), 0, clips, tuple(row.get("tasks") or ()))
        )
    return tuple(found)


def _agree(root: Path, info: Mapping[str, Any], episodes: tuple[Episode, ...]) -> None:
    """Raises DatasetError unless info.json counts the episodes that are there, numbered from 0 without a gap."""
    if [episode.index for episode in episodes] != list(range(len(episodes))):
        odd = next(i for i, episode in enumerate(episodes) if episode.index != i)
        raise DatasetError(
            f"{root}: want episodes numbered 0, 1, ... without a gap, got number {episodes[odd].index} in place {odd}"
        )
    if len(episodes) != info["total_episodes"]:
        raise DatasetError(f"{root}: {INFO} counts {info['total_episodes']} episodes, the list of episodes holds {len(episodes)}")
    steps = sum(episode.length for episode in episodes)
    if info.get("total_frames", steps) != steps:
        raise DatasetError(f"{root}: {INFO} counts {info['total_frames']} frames, the list of episodes {steps}")


def _tasks_v3(root: Path) -> tuple[str, ...]:
    path = root / "meta/tasks.parquet"
    if not path.is_file():
        return ()
    table = read_table(path)
    texts = next((name for name in table.column_names if name != "task_index"), None)
    if texts is None or "task_index" not in table.column_names:
        raise DatasetError(f"{path}: want a text and its 'task_index', got {', '.join(table.column_names)}")
    return _in_order(path, zip(table["task_index"].to_pylist(), table[texts].to_pylist(), strict=True))


def _tasks_v2(root: Path) -> tuple[str, ...]:
    path = root / "meta/tasks.jsonl"
    if not path.is_file():
        return ()
    return _in_order(path, ((row["task_index"], row["task"]) for row in _json_lines(path, ("task_index", "task"))))


def _in_order(path: Path, pairs: Any) -> tuple[str, ...]:
    by_index = dict(pairs)
    if sorted(by_index) != list(range(len(by_index))):
        raise DatasetError(f"{path}: want tasks numbered 0, 1, ..., got {sorted(by_index)[:5]}")
    return tuple(str(by_index[i]) for i in range(len(by_index)))


def _fact_dtype(column: Any) -> Any:
    """Returns the dtype of a fact: as stored for numbers, None (numpy decides) for text and lists."""
    import pyarrow

    number = pyarrow.types.is_integer(column.type) or pyarrow.types.is_floating(column.type)
    return column.type.to_pandas_dtype() if number else None


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise DatasetError(f"{path.parent.parent}: want a LeRobot dataset with meta/{path.name}, got none") from error
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: want JSON, got something else ({_line(error)})") from error


def _json_lines(path: Path, wanted: tuple[str, ...]) -> list[dict[str, Any]]:
    if not path.is_file():
        raise DatasetError(f"{path}: this file of the LeRobot dataset is missing")
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DatasetError(f"{path}:{number}: want one JSON object a line, got {line[:40]!r}") from error
        lost = [name for name in wanted if name not in row]
        if lost:
            raise DatasetError(f"{path}:{number}: '{lost[0]}' is missing (there: {', '.join(row)})")
        rows.append(row)
    return rows


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:140]
