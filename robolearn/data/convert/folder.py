"""Plain folders: one a episode, with one CSV of numbers and, for each camera, one video or one folder of pictures.

SRC/dataset.json                      where robolearn wrote it: hz, task, units, facts
SRC/episode_000000/data.csv           timestamp,state.x,state.y,action.0,...   columns of one key share what is before the dot
SRC/episode_000000/<camera>.mp4       or <camera>/000000.png, ...
SRC/episode_000000/<camera>_timestamps.csv    when each picture was taken; without it picture i belongs to row i
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from robolearn.core import ArraySpec, Spec
from robolearn.data.convert import _copy, _folder_csv, _pictures
from robolearn.data.convert import _folder_write as writer
from robolearn.data.convert._copy import Foreign, Options, Piece, Rows
from robolearn.data.convert._folder_csv import STAMPS, Table
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError

VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm")
PICTURES = (".png", ".jpg", ".jpeg")
_EXTRA = ("timestamp", "reward", "rewards", "done", "dones", "success")

CHOOSES_IMAGES = True  # --images png, jpeg or video
cannot_carry = writer.cannot_carry


@dataclass(frozen=True)
class Reel:
    """The pictures of one camera in one episode: a video or picture files, and which of them each row shows."""

    files: tuple[Path, ...]
    times: np.ndarray  # presentation times [s] of a video's pictures; empty for picture files
    of_row: np.ndarray  # (rows,) int


def sniff(path: Path) -> bool:
    """Returns True for a folder whose sub-folders hold CSV files."""
    path = Path(path)
    if not path.is_dir() or (path / "meta").exists():
        return False
    return (path / writer.DATASET).is_file() or any(_csv_files(folder) for folder in _folders(path))


def read(
    src: Path, dst: Path, *, task: str = "", hz: float | None = None, overwrite: bool = False, options: Options = Options()
) -> tuple[str, ...]:
    """Writes folders of videos and CSV files as a robolearn set to `dst` and returns what it could not carry.

    hz: control rate [1/s]; by default that of dataset.json, or of the column `timestamp` [s].
    """
    return _copy.take_over(scan(src, task=task, hz=hz), dst, overwrite=overwrite, workers=options.workers)


def write(source: EpisodeSet, dst: Path, *, overwrite: bool = False, options: Options = Options()) -> tuple[str, ...]:
    """Writes a set as one folder an episode, reads it back and returns what it could not carry, with the PSNR of pictures."""
    cannot_carry(source, options)
    with _copy.built_aside(dst, overwrite) as part:
        writer.write_folders(source, part, options)
        lossy = _copy.verified(source, scan(part), options.workers)
    return (*source.notes, *lossy)


def scan(src: Path, *, task: str = "", hz: float | None = None) -> Foreign:
    """Returns what the folders hold: their numbers are read, their pictures counted."""
    src = Path(src)
    folders = _folders(src) if src.is_dir() else []
    folders = [folder for folder in folders if _csv_files(folder)]
    if not folders:
        raise DatasetError(f"{src}: want one folder an episode with a CSV file in it, got none")
    ours = writer.read_dataset(src)
    tables = [_folder_csv.read_table(_one_csv(folder)) for folder in folders]
    for table in tables[1:]:
        if table.header != tables[0].header:
            odd = sorted(set(table.header) ^ set(tables[0].header)) or ["their order"]
            raise DatasetError(f"{table.path}: want the columns of the first folder, they differ in {odd[0]}")
    columns = {key: tuple(names) for key, names in ours["columns"].items()} if ours else _folder_csv.groups(tables[0])
    arrays = _arrays(tables, columns, ours)
    reels = [_reels(folder, table) for folder, table in zip(folders, tables, strict=True)]
    for folder, reel in zip(folders, reels, strict=True):
        if set(reel) != set(reels[0]):
            raise DatasetError(f"{folder}: want the cameras {', '.join(reels[0]) or 'none'}, got {', '.join(reel) or 'none'}")
    cameras = {name: ArraySpec(_picture(reel).shape, "uint8") for name, reel in reels[0].items()}
    if ours and len(ours["lengths"]) == len(tables):
        for table, want in zip(tables, ours["lengths"], strict=True):
            if table.rows != want:
                raise DatasetError(f"{table.path}: want {want} rows as {writer.DATASET} says, got {table.rows}; was it cut off?")
    spec, extra, described, lost = _described(src, tables, {**arrays, **cameras}, ours, hz)
    if ours and len(ours["lengths"]) != len(tables):
        lost.append(f"facts of the episodes: {writer.DATASET} speaks of {len(ours['lengths'])} episodes, there are {len(tables)}")
    lost += _late(tables, reels)
    return Foreign(
        spec=replace(spec, hz=hz) if hz else spec,
        task=task or described["task"],
        ends=np.cumsum([table.rows for table in tables], dtype=np.int64),
        rows=partial(_rows, tuple(table.path for table in tables), columns, {**spec.obs, "action": spec.action, **extra}, reels),
        extra=extra,
        env=described["env"],
        meta=described["meta"],
        facts=writer.facts_of(ours, len(tables)) or {"source": np.array([folder.name for folder in folders])},
        lost=tuple(lost),
    )


def _described(
    src: Path, tables: list[Table], keys: Mapping[str, ArraySpec], ours: Mapping, hz: float | None
) -> tuple[Spec, dict[str, ArraySpec], dict, list[str]]:
    """Returns spec, extra arrays, what is known of the whole, and what is not carried."""
    if ours:
        spec = Spec.from_json(ours["spec"])
        extra = {key: ArraySpec.from_json(array) for key, array in ours["extra"].items()}
        lost = [key for key in {**spec.obs, **extra} if key not in keys]
        if lost:
            raise DatasetError(f"{src}: {writer.DATASET} speaks of '{lost[0]}', the folders have {', '.join(keys)}")
        return spec, extra, {"task": ours["task"], "env": ours["env"], "meta": ours["meta"]}, []
    if "action" not in keys:
        raise DatasetError(f"{tables[0].path}: want columns action.0, action.1, ..., got {', '.join(tables[0].header[:12])}")
    rate = hz or _rate(tables)
    if not rate:
        raise DatasetError(f"{src}: no column 'timestamp' [s] says the control rate; give --hz")
    extra = {key: keys[key] for key in keys if key in _EXTRA or key.startswith("t_")}
    if "timestamp" in extra:
        extra["timestamp"] = replace(extra["timestamp"], unit="s")
    obs = {key: array for key, array in keys.items() if key not in extra and key != "action"}
    about = {"task": "", "env": {}, "meta": {"source": src.name}}
    return Spec(obs, keys["action"], rate), extra, about, ["units and frames of keys, seeds: plain folders have none"]


def _arrays(tables: list[Table], columns: Mapping[str, tuple[str, ...]], ours: Mapping) -> dict[str, ArraySpec]:
    """Returns the arrays that the columns make: as dataset.json has them, else the narrowest type that keeps every digit."""
    if ours:
        spec = Spec.from_json(ours["spec"])
        known = {**spec.obs, "action": spec.action}
        known |= {key: ArraySpec.from_json(array) for key, array in ours["extra"].items()}
        lost = [name for names in columns.values() for name in names if name not in tables[0].header]
        if lost:
            raise DatasetError(f"{tables[0].path}: column '{lost[0]}' is missing")
        return {key: known[key] for key in columns}
    made = {}
    for key, names in columns.items():
        kinds = {_folder_csv.kind_of(table, name) for table in tables for name in names}
        dtype = next(kind for kind in ("float64", "float32", "int64") if kind in kinds)
        parts = tuple(name.removeprefix(f"{key}.") for name in names)
        scalar = names == (key,)
        made[key] = ArraySpec(() if scalar else (len(names),), dtype, () if scalar or all(map(str.isdigit, parts)) else parts)
    return made


def _rows(
    paths: tuple[Path, ...],
    columns: Mapping[str, tuple[str, ...]],
    keys: Mapping[str, ArraySpec],
    reels: list[dict[str, Reel]],
    piece: Piece,
) -> Rows:
    table = _folder_csv.cached_table(paths[piece.episode])
    made: Rows = {}
    for key, array in keys.items():
        if key in columns:
            values = _folder_csv.values(table, columns[key], array.dtype)[piece.start : piece.stop]
            made[key] = values.reshape(len(values), *array.shape)
        else:
            reel = reels[piece.episode][key]
            made[key] = _pictures_of(reel, reel.of_row[piece.start : piece.stop])
    return made


def _pictures_of(reel: Reel, numbers: np.ndarray) -> np.ndarray:
    """Returns the pictures with these numbers, which do not fall."""
    chosen, places = np.unique(numbers, return_inverse=True)
    if not len(reel.times):
        return np.stack([_pictures.decode_image(reel.files[i].read_bytes(), str(reel.files[i])) for i in chosen])[places]
    gap = np.min(np.diff(reel.times), initial=1.0)
    return _pictures.frames_at(reel.files[0], reel.times[chosen], 0.4 * float(gap))[places]


def _reels(folder: Path, table: Table) -> dict[str, Reel]:
    """Returns the cameras of one episode; DatasetError where pictures and rows cannot be brought together."""
    made = {}
    for item in sorted(folder.iterdir()):
        if item.is_dir():
            files = tuple(sorted((f for f in item.iterdir() if f.suffix.lower() in PICTURES), key=_natural))
            times = np.zeros(0)
            count = len(files)
        elif item.suffix.lower() in VIDEOS:
            files, times = (item,), _pictures.all_times(item)
            count = len(times)
        else:
            continue
        if count:
            name = item.name if item.is_dir() else item.stem
            made[name] = Reel(files, times, _of_row(folder, name, count, table))
    return made


def _of_row(folder: Path, camera: str, count: int, table: Table) -> np.ndarray:
    """Returns which of `count` pictures each row shows: the nearest in time, or picture i for row i."""
    stamps = folder / f"{camera}{STAMPS}"
    if not stamps.is_file():
        if count != table.rows:
            raise DatasetError(
                f"{folder}: {camera} has {count} pictures, {table.path.name} {table.rows} rows; "
                f"add {stamps.name} with the time of each picture, or cut one of them"
            )
        return np.arange(count)
    taken = _folder_csv.times_of(_folder_csv.read_table(stamps))
    if len(taken) != count:
        raise DatasetError(f"{stamps}: want {count} times, one a picture, got {len(taken)}")
    if "timestamp" not in table.header:
        raise DatasetError(f"{table.path}: {stamps.name} needs a column 'timestamp' here to be compared with")
    rows = _folder_csv.times_of(table)
    after = np.clip(np.searchsorted(taken, rows), 1, max(1, count - 1))
    before_is_nearer = np.abs(rows - taken[after - 1]) <= np.abs(taken[np.minimum(after, count - 1)] - rows)
    return np.where(before_is_nearer, after - 1, np.minimum(after, count - 1))


def _late(tables: Iterable[Table], reels: list[dict[str, Reel]]) -> list[str]:
    """Returns, for cameras with times of their own, how far their pictures lie from the rows that show them."""
    worst: dict[str, float] = {}
    for table, cameras in zip(tables, reels, strict=True):
        for name, reel in cameras.items():
            stamps = table.path.parent / f"{name}{STAMPS}"
            if stamps.is_file():
                taken = _folder_csv.times_of(_folder_csv.read_table(stamps))
                off = np.abs(taken[reel.of_row] - _folder_csv.times_of(table)).max()
                worst[name] = max(worst.get(name, 0.0), float(off))
    return [f"the times of '{name}': its pictures lie up to {1e3 * off:.3g} ms from their rows" for name, off in worst.items()]


def _rate(tables: list[Table]) -> float | None:
    """Returns the rate [1/s] that the column `timestamp` shows; DatasetError where it is not a time."""
    if "timestamp" not in tables[0].header:
        return None
    steps = np.concatenate([np.diff(_folder_csv.times_of(table)) for table in tables])
    if not len(steps):
        return None
    rate = 1.0 / float(np.median(steps))
    return float(round(rate)) if abs(rate - round(rate)) < 0.02 * rate else rate


def _picture(reel: Reel) -> np.ndarray:
    return _pictures_of(reel, np.zeros(1, int))[0]


def _folders(path: Path) -> list[Path]:
    return sorted((item for item in path.iterdir() if item.is_dir() and not item.name.startswith(".")), key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts 2 before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _csv_files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.glob("*.csv") if not f.name.endswith(STAMPS))


def _one_csv(folder: Path) -> Path:
    files = _csv_files(folder)
    if len(files) != 1:
        raise DatasetError(f"{folder}: want one CSV of numbers, got {', '.join(file.name for file in files)}")
    return files[0]
