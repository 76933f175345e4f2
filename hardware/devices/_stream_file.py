"""Files of device streams, CSV or npz, written and read back as the same samples.

    write(path, samples)      one row a sample; times count from the first one
    samples = read(path)

CSV columns: t [s] (when it was received); of these what there is: arm, age [s] (how long it had been on its way), pose_x, pose_y,
pose_z [m] with pose_qw, pose_qx, pose_qy, pose_qz; delta_0 .. delta_5; keypoints_0 .. keypoints_8 (shoulder, elbow, wrist [m]);
joints_0 .. [rad]; deadman (1, 0), grip, confidence, events (joined by |). An empty cell: the sample has none.
npz: t_ns, arm, age_ns, pose (n, 4, 4), delta (n, 6), keypoints (n, 3, 3), joints (n, m), deadman, grip, confidence, events;
NaN stands for "has none".
"""

from __future__ import annotations

import csv
import itertools
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from robolearn import geometry
from robolearn.core import TeleopSample
from robolearn.errors import BadInput, nearest

Array = np.ndarray
_SHAPES = {"pose": (4, 4), "delta": (6,), "keypoints": (3, 3)}
_POSE = tuple(f"pose_{name}" for name in ("x", "y", "z", "qw", "qx", "qy", "qz"))
_KEYS = ("pose", "delta", "keypoints", "joints")
_PLAIN = ("t", "arm", "age", "deadman", "grip", "confidence", "events")


def write(path: Path, samples: Sequence[TeleopSample]) -> None:
    """Writes the samples to `path`, .csv or .npz by its ending; BadInput on another ending or on none to write."""
    if path.suffix not in (".csv", ".npz"):
        raise BadInput(f"{path}: want a file ending in .csv or .npz")
    if not samples:
        raise BadInput(f"{path}: the device gave no samples, nothing to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".part")
    if path.suffix == ".csv":
        _write_csv(half, samples)
    else:
        with half.open("wb") as file:
            np.savez_compressed(file, **_arrays(samples))  # type: ignore[arg-type]  # names are keywords here
    half.replace(path)  # a file that is there is a whole one


def read(path: Path) -> list[TeleopSample]:
    """Returns the samples of `path`, times [ns] from 0 on; BadInput names the column, row or array that does not fit."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file; want a stream of a device, .csv or .npz")
    if path.suffix == ".csv":
        samples = _read_csv(path)
    elif path.suffix == ".npz":
        samples = _read_npz(path)
    else:
        raise BadInput(f"{path}: want a file ending in .csv or .npz")
    if not samples:
        raise BadInput(f"{path}: holds no samples")
    for row, (before, after) in enumerate(itertools.pairwise(samples), start=1):
        if after.t_recv_ns < before.t_recv_ns:
            raise BadInput(f"{path}: sample {row} was received before sample {row - 1}; times must not fall")
    return samples


def _arrays(samples: Sequence[TeleopSample]) -> dict[str, Array]:
    start = samples[0].t_recv_ns
    out: dict[str, Array] = {
        "t_ns": np.array([s.t_recv_ns - start for s in samples], np.int64),
        "age_ns": np.array([s.t_recv_ns - s.t_dev_ns for s in samples], np.int64),
        "arm": np.array([s.arm for s in samples], np.int64),
        "deadman": np.array([np.nan if s.deadman is None else float(s.deadman) for s in samples]),
        "grip": np.array([np.nan if s.grip is None else s.grip for s in samples]),
        "confidence": np.array([s.confidence for s in samples]),
        "events": np.array(["|".join(s.events) for s in samples], dtype=np.str_),
    }
    for key in _KEYS:
        given = [getattr(s, key) for s in samples]
        shapes = {np.shape(value) for value in given if value is not None}
        if len(shapes) > 1:
            raise BadInput(f"stream: {key} of several shapes, {sorted(shapes)}; want one")
        for shape in shapes:
            out[key] = np.array([np.full(shape, np.nan) if value is None else value for value in given], float)
    return out


def _read_npz(path: Path) -> list[TeleopSample]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path}: not a stream of a device ({error})") from None
    if "t_ns" not in arrays:
        raise BadInput(f"{path}: no array 't_ns'{nearest('t_ns', arrays)}")
    count = len(arrays["t_ns"])
    for key, array in arrays.items():
        want = (count, *_SHAPES.get(key, array.shape[1:]))
        if array.shape != want:
            raise BadInput(f"{path}: {key}: want shape {want}, got {array.shape}")
    return [_sample(arrays, k) for k in range(count)]


def _sample(arrays: Mapping[str, Array], k: int) -> TeleopSample:
    def number(key: str) -> float | None:
        return float(arrays[key][k]) if key in arrays and np.isfinite(arrays[key][k]) else None

    def array(key: str) -> Array | None:
        return np.array(arrays[key][k], float) if key in arrays and not np.isnan(arrays[key][k]).all() else None

    t_ns, held = int(arrays["t_ns"][k]), number("deadman")
    confidence = number("confidence")
    events = str(arrays["events"][k]) if "events" in arrays else ""
    return TeleopSample(
        t_ns - (int(arrays["age_ns"][k]) if "age_ns" in arrays else 0),
        t_ns,
        int(arrays["arm"][k]) if "arm" in arrays else 0,
        pose=array("pose"),
        delta=array("delta"),
        keypoints=array("keypoints"),
        joints=array("joints"),
        deadman=None if held is None else bool(held),
        grip=number("grip"),
        events=tuple(event for event in events.split("|") if event),
        confidence=1.0 if confidence is None else confidence,
    )


def _write_csv(path: Path, samples: Sequence[TeleopSample]) -> None:
    arrays = _arrays(samples)
    columns: dict[str, list[str]] = {
        "t": [f"{t / 1e9:.9f}" for t in arrays["t_ns"]],
        "age": [f"{age / 1e9:.9f}" for age in arrays["age_ns"]],
        "arm": [str(arm) for arm in arrays["arm"]],
    }
    for key in _KEYS:
        if key not in arrays:
            continue
        flat = arrays[key].reshape(len(samples), -1)
        if key == "pose":
            have = ~np.isnan(flat).all(axis=1)
            flat = np.full((len(samples), 7), np.nan)
            flat[have, :3] = arrays["pose"][have, :3, 3]
            flat[have, 3:] = geometry.quat_wxyz_from_matrix(arrays["pose"][have, :3, :3])
        names = _POSE if key == "pose" else tuple(f"{key}_{i}" for i in range(flat.shape[1]))
        columns |= {name: _cells(flat[:, i]) for i, name in enumerate(names)}
    columns |= {key: _cells(arrays[key]) for key in ("deadman", "grip", "confidence")}
    columns["events"] = [str(events) for events in arrays["events"]]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _cells(values: Array) -> list[str]:
    return ["" if np.isnan(value) else repr(float(value)) for value in values]


def _read_csv(path: Path) -> list[TeleopSample]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        names, rows = list(reader.fieldnames or ()), list(reader)
    if "t" not in names:
        raise BadInput(f"{path}: no column 't' [s]{nearest('t', names)}")
    known = [*_PLAIN, *_POSE, *(f"delta_{i}" for i in range(6)), *(f"keypoints_{i}" for i in range(9))]
    for name in names:
        if name not in known and not (name.startswith("joints_") and name[7:].isdigit()):
            raise BadInput(f"{path}: unknown column '{name}'{nearest(name, [*known, 'joints_0'])}")

    def numbers(columns: Sequence[str]) -> Array:
        out = np.full((len(rows), len(columns)), np.nan)
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                try:
                    out[i, j] = float(row[column]) if row[column] else np.nan
                except (TypeError, ValueError):
                    raise BadInput(f"{path}: line {i + 2}: {column}: want a number, got {row[column]!r}") from None
        return out

    t_s = numbers(("t",))[:, 0]
    if not np.isfinite(t_s).all():
        raise BadInput(f"{path}: line {int(np.flatnonzero(~np.isfinite(t_s))[0]) + 2}: t: want a time [s], got none")
    arrays: dict[str, Array] = {"t_ns": np.round((t_s - t_s[:1]) * 1e9).astype(np.int64)}
    if "age" in names:
        arrays["age_ns"] = np.round(np.nan_to_num(numbers(("age",))[:, 0]) * 1e9).astype(np.int64)
    if "arm" in names:
        arrays["arm"] = np.nan_to_num(numbers(("arm",))[:, 0]).astype(np.int64)
    arrays |= {key: numbers((key,))[:, 0] for key in ("deadman", "grip", "confidence") if key in names}
    if "events" in names:
        arrays["events"] = np.array([row["events"] or "" for row in rows], dtype=np.str_)
    return _finish_csv(path, names, numbers, arrays)


def _finish_csv(path: Path, names: list[str], numbers: object, arrays: dict[str, Array]) -> list[TeleopSample]:
    assert callable(numbers)
    joints = sum(name.startswith("joints_") for name in names)
    groups = {
        "pose": _POSE,
        "delta": tuple(f"delta_{i}" for i in range(6)),
        "keypoints": tuple(f"keypoints_{i}" for i in range(9)),
        "joints": tuple(f"joints_{i}" for i in range(joints)),
    }
    for key, columns in groups.items():
        present = [name for name in columns if name in names]
        if not present:
            continue
        if missing := [name for name in columns if name not in names]:
            raise BadInput(f"{path}: {key}: no column '{missing[0]}'; want all of {', '.join(columns)}")
        flat = numbers(columns)
        holes = np.isnan(flat)
        if (broken := np.flatnonzero(holes.any(axis=1) & ~holes.all(axis=1))).size:
            raise BadInput(f"{path}: line {int(broken[0]) + 2}: {key}: want all its numbers or none")
        if key == "pose":
            poses = np.full((len(flat), 4, 4), np.nan)
            have = ~holes.any(axis=1)
            if (zero := np.flatnonzero(have & (np.linalg.norm(flat[:, 3:], axis=1) < 1e-6))).size:
                raise BadInput(f"{path}: line {int(zero[0]) + 2}: pose: want a quaternion, got four zeros")
            if have.any():
                poses[have] = geometry.pose(flat[have, :3], geometry.matrix_from_quat_wxyz(flat[have, 3:]))
            arrays[key] = poses
        else:
            arrays[key] = flat.reshape(len(flat), *_SHAPES.get(key, (flat.shape[1],)))
    return [_sample(arrays, k) for k in range(len(arrays["t_ns"]))]
