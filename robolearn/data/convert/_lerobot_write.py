"""Writes a set as a LeRobotDataset v3.0, episode by episode: rows and pictures to parquet, or pictures to mp4 files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.data._fan import Workers, fan_out
from robolearn.data.convert import _lerobot_columns as columns_of
from robolearn.data.convert import _lerobot_layout as layout
from robolearn.data.convert import _lerobot_stats as statistics
from robolearn.data.convert import _pictures
from robolearn.data.convert._copy import all_facts, extra_keys, own_attributes, row_bytes
from robolearn.data.convert._lerobot_plan import STATE, Plan, features_of, instructions, opened
from robolearn.data.store import EpisodeSet

_FILE_BYTES = 100 * 2**20  # of a data file
_VIDEO_BYTES = 256 * 2**20  # of the pictures of one video file, before encoding
_FILES_A_FOLDER = 1000

# LeRobot reads tasks.parquet with pandas and wants the texts to be its index.
_PANDAS_INDEX = {
    "index_columns": ["__index_level_0__"],
    "column_indexes": [],
    "columns": [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64", "metadata": None},
        {"name": None, "field_name": "__index_level_0__", "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
    ],
}


@dataclass(frozen=True)
class Clip:
    """One video file to be made: a camera and the episodes [first, last) that it shows one after the other."""

    key: str
    number: int
    first: int
    last: int
    file: Path


def write_rows(plan: Plan, source: EpisodeSet, out: Path, workers: Workers, tick: Any) -> tuple[list[dict[str, Any]], list[Any]]:
    """Writes data/ and returns, for each episode, its row of meta/episodes and its statistics."""
    arrow, parquet = columns_of.pyarrow(), layout.parquet()
    schema = columns_of.schema(features_of(plan))
    facts, tasks = all_facts(source), instructions(source)
    known = list(dict.fromkeys(tasks))
    episodes, stats = [], []
    place, writer, used = -1, None, _FILE_BYTES
    try:
        for index, (columns, found) in enumerate(fan_out(partial(encode_episode, plan), range(source.n_episodes), workers)):
            if used >= _FILE_BYTES:
                if writer is not None:
                    writer.close()
                place, used = place + 1, 0
                file = out / layout.DATA_PATH.format(**_numbers(place))
                file.parent.mkdir(parents=True, exist_ok=True)
                writer = parquet.ParquetWriter(file, schema)
            first, last = source.span(index)
            columns["task_index"] = np.full(last - first, known.index(tasks[index]), np.int64)
            table = arrow.table([columns_of.column(columns[f.name], f.type) for f in schema], schema=schema)
            assert writer is not None
            writer.write_table(table)
            used += table.nbytes
            found["task_index"] = statistics.of_numbers(columns["task_index"])
            episodes.append(
                {
                    "episode_index": index,
                    "data/chunk_index": place // _FILES_A_FOLDER,
                    "data/file_index": place % _FILES_A_FOLDER,
                    "dataset_from_index": first,
                    "dataset_to_index": last,
                    "tasks": [tasks[index]],
                    "length": last - first,
                    **{layout.FACT + name: values[index] for name, values in facts.items()},
                }
            )
            stats.append(found)
            tick(last - first)
    finally:
        if writer is not None:
            writer.close()
    return episodes, stats


def encode_episode(plan: Plan, index: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the columns of one episode (pictures as bytes) and their statistics."""
    ahead = opened(plan.path, plan.token)
    first, last = ahead.source.span(index)
    steps = np.arange(last - first)
    columns: dict[str, Any] = {
        "timestamp": (steps / plan.fps).astype(np.float32),
        "frame_index": steps,
        "episode_index": np.full(len(steps), index),
        "index": steps + first,
    }
    vectors: dict[str, np.ndarray] = {}
    found: dict[str, Any] = {}
    for key, name in plan.features.items():
        if key in plan.cameras and plan.images == "video":
            continue
        rows = ahead.read(key, first, last)
        if key in plan.cameras:
            columns[name] = [_pictures.encode_image(image, plan.images) for image in rows]
            found[name] = statistics.of_pictures(rows)
        else:
            columns[name] = vectors[key] = rows
    if plan.joined:
        columns[STATE] = np.concatenate([vectors[key].reshape(len(steps), -1) for key in plan.joined], axis=1).astype(np.float32)
    found |= {name: statistics.of_numbers(values) for name, values in columns.items() if name not in found}
    return columns, found


def clips_of(plan: Plan, source: EpisodeSet, out: Path) -> Iterator[Clip]:
    """Yields the video files to make: whole episodes, up to a size, in the order of the episodes."""
    for key in plan.cameras if plan.images == "video" else ():
        most = max(1, _VIDEO_BYTES // row_bytes(plan.keys[key]))
        first, number = 0, 0
        for index in range(source.n_episodes):
            begin = source.span(first)[0]
            follows = index + 1 == source.n_episodes or source.span(index + 1)[1] - begin > most
            if follows:
                path = layout.VIDEO_PATH.format(video_key=plan.features[key], **_numbers(number))
                yield Clip(key, number, first, index + 1, out / path)
                first, number = index + 1, number + 1


def encode_clip(plan: Plan, clip: Clip) -> list[tuple[int, dict[str, Any], dict[str, Any]]]:
    """Writes one video file; returns (episode, its columns of meta/episodes, statistics of its pictures)."""
    source, name = opened(plan.path, plan.token).source, plan.features[clip.key]
    made: list[tuple[int, dict[str, Any], dict[str, Any]]] = []

    def pictures() -> Iterator[np.ndarray]:
        shown = 0
        for index in range(clip.first, clip.last):
            rows = source.read(clip.key, *source.span(index))
            facts = {
                f"videos/{name}/chunk_index": clip.number // _FILES_A_FOLDER,
                f"videos/{name}/file_index": clip.number % _FILES_A_FOLDER,
                f"videos/{name}/from_timestamp": shown / plan.fps,
                f"videos/{name}/to_timestamp": (shown + len(rows)) / plan.fps,
            }
            shown += len(rows)
            made.append((index, facts, statistics.of_pictures(rows)))
            yield from rows

    _pictures.write_video(clip.file, pictures(), plan.fps)
    return made


def write_meta(plan: Plan, source: EpisodeSet, out: Path, episodes: list[dict[str, Any]], stats: list[dict[str, Any]]) -> None:
    """Writes info.json, stats.json, tasks.parquet, meta/episodes and what robolearn needs to read the set back as it was."""
    arrow, parquet = columns_of.pyarrow(), layout.parquet()
    for row, found in zip(episodes, stats, strict=True):
        row |= {f"stats/{name}/{part}": value for name, parts in found.items() for part, value in parts.items()}
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
    file = out / layout.EPISODES_PATH.format(chunk_index=0, file_index=0)
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.table({name: columns_of.plain([row[name] for row in episodes]) for name in episodes[0]}), file)
    tasks = list(dict.fromkeys(instructions(source)))
    table = arrow.table({"task_index": np.arange(len(tasks)), "__index_level_0__": tasks})
    parquet.write_table(table.replace_schema_metadata({"pandas": json.dumps(_PANDAS_INDEX)}), out / "meta/tasks.parquet")
    features = features_of(plan)
    for key in plan.cameras if plan.images == "video" else ():
        features[plan.features[key]]["info"] = _video_info(out, plan.features[key])
    fps = int(plan.fps) if float(plan.fps).is_integer() else plan.fps
    info = {
        "codebase_version": "v3.0",
        "robot_type": str(source.attrs.get("robot") or "unknown"),
        "total_episodes": len(episodes),
        "total_frames": source.n_steps,
        "total_tasks": len(tasks),
        "chunks_size": _FILES_A_FOLDER,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": fps,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": layout.DATA_PATH,
        "video_path": layout.VIDEO_PATH if plan.images == "video" and plan.cameras else None,
        "features": features,
    }
    _dump(out / layout.INFO, info)
    _dump(out / "meta/stats.json", statistics.together(stats))
    assert source.spec is not None
    ours = {
        "features": {name: key for key, name in plan.features.items()},
        "hz": plan.fps,
        "spec": source.spec.to_json(),
        "extra": {key: array.to_json() for key, array in extra_keys(source).items()},
        "task": source.task or "",
        "env": source.env,
        "meta": own_attributes(source),
    }
    _dump(out / layout.OURS, ours)


def _numbers(place: int) -> dict[str, int]:
    return {"chunk_index": place // _FILES_A_FOLDER, "file_index": place % _FILES_A_FOLDER}


def _video_info(out: Path, name: str) -> dict[str, Any]:
    facts = _pictures.video_facts(out / layout.VIDEO_PATH.format(video_key=name, chunk_index=0, file_index=0))
    made = {f"video.{part}": facts[part] for part in ("height", "width", "codec", "pix_fmt", "fps")}
    return {**made, "video.channels": 3, "video.is_depth_map": False, "has_audio": False}


def _dump(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1) + "\n")
