"""What a recorder that was cut off leaves behind: how many of its rows are whole, and how they become an episode."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.data._codec import decode
from robolearn.data._files import read_lines
from robolearn.data._stage import LAYOUT, Stage
from robolearn.errors import DatasetError


def _raw(folder: Path, line: Mapping[str, Any]) -> np.ndarray:
    """Returns the whole rows in the raw file of one staged array, (rows, *shape)."""
    shape = tuple(line["shape"])
    file = folder / line["array"] / ".".join(["c", *["0"] * (1 + len(shape))])
    size = max(1, int(np.prod(shape))) * np.dtype(line["dtype"]).itemsize
    rows = file.stat().st_size // size if file.is_file() else 0
    return np.memmap(file, line["dtype"], "r", shape=(rows, *shape)) if rows else np.zeros((0, *shape), line["dtype"])


def complete_rows(folder: Path) -> int:
    """Returns how many rows of a staged episode are complete: in every array, with their pictures, their clock rising."""
    layout = {line["array"]: line for line in read_lines(folder / LAYOUT)}
    arrays = {name: _raw(folder, line) for name, line in layout.items() if name.startswith("rows/")}
    rows = min((len(values) for values in arrays.values()), default=0)
    clock = arrays.get("rows/t_monotonic")
    if clock is not None and rows:  # a power cut can leave zeros where data was promised
        good = (np.diff(clock[:rows], prepend=0) > 0) & (clock[:rows] > 0)
        rows = rows if good.all() else int(np.argmin(good))
    for name, values in arrays.items():
        if name.endswith("@frame"):
            camera = name.removeprefix("rows/").removesuffix("@frame")
            frames = _complete_frames(folder, layout, camera)
            late = np.flatnonzero(values[:rows] >= frames)
            rows = int(late[0]) if len(late) else rows
    return rows


def _complete_frames(folder: Path, layout: Mapping[str, Any], camera: str) -> int:
    """Returns how many pictures of a camera lie whole in a staged episode."""
    needed = [f"cameras/{camera}/{part}" for part in ("bytes", "ends", "t")]
    if not all(name in layout for name in needed):
        return 0
    stored, ends, times = (_raw(folder, layout[name]) for name in needed)
    count = min(int(np.searchsorted(ends, len(stored), side="right")), len(times))
    codec = layout[needed[0]]["attributes"]["codec"]
    while count:  # only the last ones can be damaged
        start = int(ends[count - 2]) if count > 1 else 0
        try:
            decode(stored[start : int(ends[count - 1])], codec)
            return count
        except DatasetError:
            count -= 1
    return 0


def copy_rows(source: Path, stage: Stage, layout: Mapping[str, Any], rows: int) -> None:
    """Copies the first `rows` rows of a staged episode, and everything that belongs to them, into a new stage."""
    for name, line in layout.items():
        values = _raw(source, line)
        if name.startswith("cameras/"):
            continue
        count = min(len(values), rows + (name == "states")) if name.startswith(("rows/", "states")) else len(values)
        for value in values[:count]:
            stage.append(name, value, line["attributes"])
    for camera in {name.split("/")[1] for name in layout if name.startswith("cameras/")}:
        frames = _complete_frames(source, layout, camera)
        stored, ends, times = (_raw(source, layout[f"cameras/{camera}/{part}"]) for part in ("bytes", "ends", "t"))
        facts = layout[f"cameras/{camera}/bytes"]["attributes"]
        for index in range(frames):
            start = int(ends[index - 1]) if index else 0
            stage.encoded(camera, int(times[index]), stored[start : int(ends[index])].tobytes(), facts)
    for extra in source.iterdir():
        if extra.is_file() and extra.name not in (LAYOUT, "zarr.json"):
            shutil.copy2(extra, stage.folder / extra.name)
