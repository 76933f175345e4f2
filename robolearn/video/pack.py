"""Motion-track sets of people and robots as one set to train on: one view an episode, or both views side by side.

MT-pi (arXiv 2501.06994) learns from each view by itself; `joint` gives both views to one network, so that it cannot make them
disagree. A set's key `action` is where the points are at that row, in pixels, and whether the gripper is open: what the future
of a track is made of. Views keep their own length: what lies before the first detection and after the last is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from robolearn.core import ArraySpec, Camera, Spec
from robolearn.data._files import built_aside
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, DatasetError, SpecMismatch, nearest
from robolearn.video import pinhole
from robolearn.video.points import LAYOUT

Array = np.ndarray
CODEC = "tracks"  # of actions that are pixels: they need cameras to become a pose
SHORTEST = 2  # rows
NAMES = tuple(f"{point}_{axis}" for point in LAYOUT for axis in "uv")


@dataclass(frozen=True)
class Packing:
    """How sets are packed.

    views: which, in this order; none: those that all sets show; joint: both views in one row; size: side of the pictures [px],
    0: as stored; max_filled: views in which a larger share of the rows was filled in between detections are left out.
    """

    views: tuple[str, ...] = ()
    joint: bool = False
    size: int = 96
    max_filled: float = 0.5
    overwrite: bool = False


@dataclass(frozen=True)
class Packed:
    """What was packed; sources: one row a set, with `left_out`: how many episodes (of a view) were, by the reason."""

    episodes: int
    steps: int
    views: tuple[str, ...]
    sources: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...] = field(default=())


def pack(sources: Sequence[Path], out: Path, how: Packing = Packing()) -> Packed:
    """Writes the training set of several motion-track sets and returns what it holds.

    Single: keys image (S, S, 3), track (10,) px, action (11,), valid (1,), facts embodiment and view. Joint: image and valid of
    two views, track (20,), action (21,). The spec's codec is "tracks", its cameras are those of the stored picture size.
    """
    if not sources:
        raise BadInput("tracks pack: want one motion-track set or more, got none")
    datasets = [EpisodeSet.open(path) for path in sources]
    views = _views(datasets, how)
    spec = _spec(datasets, views, how)
    about, notes = _about(datasets), _moved(datasets, views)
    with built_aside(out, how.overwrite) as part:
        made = EpisodeSet.create(part, spec, extra=_extra(views, how), durable=False, **about)
        rows = [_add(made, dataset, views, how) for dataset in datasets]
        if not made.n_episodes:
            why = "; ".join(f"{row['name']}: {row['left_out'] or 'no episode'}" for row in rows)
            raise DatasetError(f"{out}: no episode is left to train on ({why})")
        held = (made.n_episodes, made.n_steps)
    return Packed(*held, views, tuple(rows), notes)


def _views(datasets: Sequence[EpisodeSet], how: Packing) -> tuple[str, ...]:
    shown = [[key.removeprefix("tracks/") for key in dataset.keys if key.startswith("tracks/")] for dataset in datasets]
    for dataset, names in zip(datasets, shown, strict=True):
        if not names:
            raise DatasetError(f"{dataset.path}: want keys tracks/VIEW of a motion-track set, got {', '.join(dataset.keys)}")
        for view in how.views:
            if view not in names:
                raise DatasetError(f"{dataset.path}: no view '{view}'{nearest(view, names)}")
        for key in (*(f"{name}_image" for name in names), "gripper_open"):
            if key not in dataset.keys:
                raise DatasetError(f"{dataset.path}: want key '{key}' beside its tracks, got {', '.join(dataset.keys)}")
    views = how.views or tuple(name for name in shown[0] if all(name in names for names in shown))
    if not views:
        raise SpecMismatch(f"tracks pack: the sets show no common view ({'; '.join(', '.join(names) for names in shown)})")
    if how.joint and len(views) != 2:
        raise SpecMismatch(f"tracks pack --joint: want two views, got {', '.join(views)}; name them with --views")
    return views


def _spec(datasets: Sequence[EpisodeSet], views: tuple[str, ...], how: Packing) -> Spec:
    first = datasets[0]
    if first.hz is None or any(dataset.hz is None or not np.isclose(dataset.hz, first.hz, rtol=1e-3) for dataset in datasets):
        rates = ", ".join(f"{dataset.path}: {dataset.hz} Hz" for dataset in datasets)
        raise SpecMismatch(f"tracks pack: want sets of one rate, got {rates}; extract the videos anew at the robot's rate")
    sizes = {dataset.keys[f"{view}_image"].shape for dataset in datasets for view in views}
    if not how.size and len(sizes) > 1:
        raise SpecMismatch(f"tracks pack: the pictures differ in size ({', '.join(map(str, sorted(sizes)))}); give --size")
    shape = (how.size, how.size, 3) if how.size else next(iter(sizes))
    pictures = [f"{view}_image" for view in views] if how.joint else ["image"]
    names = [f"{view}_{name}" for view in views for name in NAMES] if how.joint else list(NAMES)
    obs = {key: ArraySpec(shape, "uint8") for key in pictures}
    obs["track"] = ArraySpec((len(names),), names=tuple(names), unit="px")
    cameras = _cameras(datasets, views, (shape[1], shape[0]))
    return Spec(obs, ArraySpec((len(names) + 1,), names=(*names, "gripper_open")), float(first.hz), cameras, codec=CODEC)


def _cameras(datasets: Sequence[EpisodeSet], views: tuple[str, ...], size: tuple[int, int]) -> dict[str, Camera]:
    """Returns the views' cameras for pictures of `size`, of a robot's set where one has them."""
    found: dict[str, Camera] = {}
    for dataset in sorted(datasets, key=lambda dataset: "robot" not in _embodiments(dataset)):
        for view in views:
            key = f"{view}_image"
            if key not in found and dataset.spec is not None and key in dataset.spec.cameras:
                found[key] = pinhole.resized(dataset.spec.cameras[key], size)
    return found


def _moved(datasets: Sequence[EpisodeSet], views: tuple[str, ...]) -> tuple[str, ...]:
    """Returns a line for every view whose calibration is not the same in all sets that have one."""
    notes = []
    for view in views:
        cameras = [d.spec.cameras[f"{view}_image"] for d in datasets if d.spec is not None and f"{view}_image" in d.spec.cameras]
        unit = [replace(pinhole.resized(camera, (1, 1)), hash="") for camera in cameras]
        if any(camera != unit[0] for camera in unit[1:]):
            notes.append(f"view '{view}' was not calibrated alike in all sets: the network learns from cameras in several places")
    return tuple(notes)


def _extra(views: tuple[str, ...], how: Packing) -> dict[str, ArraySpec]:
    return {"valid": ArraySpec((len(views) if how.joint else 1,), "uint8")}


def _about(datasets: Sequence[EpisodeSet]) -> dict[str, Any]:
    """Returns task and env of the first robot's set, which rebuild the body that a policy will drive."""
    robots = [dataset for dataset in datasets if "robot" in _embodiments(dataset)]
    of = (robots or [dataset for dataset in datasets if dataset.task] or list(datasets))[0]
    return {"task": of.task or "", "env": of.env, "meta": {"packed": [str(dataset.path.name) for dataset in datasets]}}


def _embodiments(dataset: EpisodeSet) -> list[str]:
    values = dataset.episode_field("embodiment")
    if values is None:
        raise DatasetError(f"{dataset.path}: want the fact 'embodiment' (human or robot) of every episode, got none")
    return [str(value) for value in values]


def _add(made: EpisodeSet, dataset: EpisodeSet, views: tuple[str, ...], how: Packing) -> dict[str, Any]:
    """Appends the episodes of one set and returns its row of the report."""
    left: dict[str, int] = {}
    before = made.n_episodes, made.n_steps
    kinds, right = _embodiments(dataset), dataset.episode_field("right_hand")
    name = dataset.path.name.removesuffix(".zarr")
    for index in tqdm(range(dataset.n_episodes), desc=name, unit="episode", leave=False, disable=not sys.stderr.isatty()):
        facts = {"embodiment": kinds[index], "source": name, "source_episode": index}
        facts |= {} if right is None else {"right_hand": int(right[index])}
        for group in [views] if how.joint else [(view,) for view in views]:
            rows, why = _rows(dataset, index, group, made.spec, how)  # type: ignore[arg-type]
            if why:
                left[why] = left.get(why, 0) + 1
            else:
                made.append(rows, view="+".join(group), **facts)
    episodes, steps = made.n_episodes - before[0], made.n_steps - before[1]
    return {"name": name, "embodiment": sorted(set(kinds)), "episodes": episodes, "steps": steps, "left_out": left}


def _rows(dataset: EpisodeSet, index: int, views: tuple[str, ...], spec: Spec, how: Packing) -> tuple[dict[str, Array], str]:
    """Returns the rows of one episode in one view (or in both), or nothing and why there are none."""
    start, stop = dataset.span(index)
    valid = np.stack([_valid(dataset, view, start, stop) for view in views], axis=-1)  # (rows, view)
    seen = np.flatnonzero(np.logical_or.accumulate(valid).all(1) & np.logical_or.accumulate(valid[::-1])[::-1].all(1))
    if len(seen) < SHORTEST:
        return {}, "never seen" if not valid.any(0).all() else "too short"
    valid = valid[seen]
    if (~valid).mean(0).max() > how.max_filled:
        return {}, "mostly filled in"
    start, stop = start + int(seen[0]), start + int(seen[-1]) + 1
    size = next((array.shape[1], array.shape[0]) for array in spec.obs.values() if array.is_image)
    rows: dict[str, Array] = {"valid": valid.astype(np.uint8)}
    tracks = []
    for view in views:
        pictures = dataset.read(f"{view}_image", start, stop)
        shown = (pictures.shape[2], pictures.shape[1])
        rows[f"{view}_image" if how.joint else "image"] = np.stack(list(_resized(pictures, size)))
        points = pinhole.resized_pixels(dataset.read(f"tracks/{view}", start, stop), shown, size)
        tracks.append(points.reshape(len(points), -1))
    rows["track"] = np.concatenate(tracks, axis=1).astype(np.float32)
    rows["action"] = np.concatenate([rows["track"], dataset.read("gripper_open", start, stop)], axis=1).astype(np.float32)
    return rows, ""


def _valid(dataset: EpisodeSet, view: str, start: int, stop: int) -> Array:
    """Returns (rows,) bool: where the view's points were seen, everywhere where the set does not say."""
    if f"valid/{view}" not in dataset.keys:
        return np.ones(stop - start, bool)
    return dataset.read(f"valid/{view}", start, stop)[:, 0].astype(bool)


def _resized(pictures: Array, size: tuple[int, int]) -> Iterator[Array]:
    """Yields pictures (H, W, 3) at `size` (width, height), which need not keep their shape."""
    for picture in pictures:
        smaller = size[0] < picture.shape[1]
        same = (picture.shape[1], picture.shape[0]) == size
        yield picture if same else cv2.resize(picture, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
