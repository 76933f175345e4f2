"""ReplayBuffers, the zarr format 2 layout of diffusion_policy and UMI: a folder or a .zarr.zip; read and written.

Not in such a file, and therefore asked for or left open: the control rate, the task, units, names, seeds.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from robolearn.core import ArraySpec, Spec
from robolearn.data.convert import _copy
from robolearn.data.convert._copy import Foreign, Options, Piece
from robolearn.data.images import is_image
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError, MissingDependency

_UMI_POSE = ("eef_pos", "eef_rot_axis_angle", "gripper_width")
_UMI_CODEC = "pose_axis_angle_abs"


def sniff(path: Path) -> bool:
    """Returns True for a zarr with data/ and meta/episode_ends, folder or zip."""
    try:
        _open(Path(path))
    except MissingDependency:
        return True
    except DatasetError:
        return False
    return True


def scan(src: Path, *, task: str = "", hz: float | None = None) -> Foreign:
    """Returns what the buffer holds; DatasetError where neither it nor the caller knows the control rate `hz` [1/s]."""
    source = _open(Path(src))
    rate = hz or source.hz
    if rate is None:
        raise DatasetError(f"{src}: a ReplayBuffer does not say its control rate; give --hz")
    if not source.n_episodes:
        raise DatasetError(f"{src}: want at least one episode, got none")
    _check_times(source)
    lost = list(source.notes)
    if source.spec is not None:
        spec, extra = replace(source.spec, hz=rate), _copy.extra_keys(source)
    else:
        keys = {key: ArraySpec(array.shape, "uint8") if is_image(array) else array for key, array in source.keys.items()}
        spec = Spec({k: v for k, v in keys.items() if k != "action"}, keys.get("action", ArraySpec((0,))), rate)
        extra = {}
        lost.append("units, names, frames, seeds: a ReplayBuffer has none")
    blocks = partial(_copy.row_blocks, source, [*spec.obs, "action", *extra])
    if "action" not in source.keys:
        lost.append("latencies and relative poses of UMI: its actions are made of the next row's poses")
        spec, actions = _umi_actions(source, spec)
        blocks = partial(_umi_blocks, source, spec, actions)
    return Foreign(
        spec=spec,
        task=task or source.task or "",
        ends=source.episode_ends,
        rows=partial(_rows, source.path, tuple(key for key in (*spec.obs, "action", *extra) if key in source.keys)),
        extra=extra,
        env=source.env,
        meta=_copy.own_attributes(source) or {"source": Path(src).name},
        facts=_copy.all_facts(source),
        lost=tuple(lost),
        blocks=blocks,
    )


def read(
    src: Path, dst: Path, *, task: str = "", hz: float | None = None, overwrite: bool = False, options: Options = Options()
) -> tuple[str, ...]:
    """Writes the buffer `src` as a robolearn set to `dst` and returns what it could not carry.

    hz: control rate [1/s], which only robolearn's own exports know. Float images become uint8. A buffer of UMI keeps no
    actions: they are made of the poses of the next row, position 3, axis-angle 3 and gripper width 1 for each arm.
    """
    return _copy.take_over(scan(src, task=task, hz=hz), dst, overwrite=overwrite, workers=options.workers)


def cannot_carry(source: EpisodeSet, options: Options = Options()) -> tuple[str, ...]:
    """Returns what `write` would not carry; DatasetError where the set cannot be written at all."""
    del options  # pictures are kept as they are
    _copy.own_spec(source)
    return source.notes


def write(source: EpisodeSet, dst: Path, *, overwrite: bool = False, options: Options = Options()) -> tuple[str, ...]:
    """Writes a set as a format 2 ReplayBuffer (a folder, or a zip where `dst` ends in .zip); returns what it could not carry."""
    spec, lost = _copy.own_spec(source), cannot_carry(source, options)
    with _copy.built_aside(dst, overwrite) as part:
        folder = part.with_suffix(".folder") if dst.suffix == ".zip" else part
        meta = _copy.own_attributes(source)
        _copy.copy_set(source, folder, spec, task=source.task or "", meta=meta, extra=_copy.extra_keys(source), zarr_format=2)
        if folder != part:
            _copy.zip_folder(folder, part)
            _copy.sync_file(part)
    return lost


def _open(path: Path) -> EpisodeSet:
    """Returns the buffer; MissingDependency where its pictures need codecs that are not installed."""
    if any(b'"imagecodecs_' in text for text in _array_headers(path)):
        try:
            from imagecodecs.numcodecs import register_codecs
        except ModuleNotFoundError as error:
            raise MissingDependency("imagecodecs", f"the pictures of {path.name}", "pip install robolearn[jxl]") from error
        register_codecs(verbose=False)
    try:
        return EpisodeSet.open(path)
    except DatasetError:
        raise
    except Exception as error:  # what zarr raises for a broken header has no common base
        raise DatasetError(f"{path}: want a ReplayBuffer, got a zarr that cannot be read ({_line(error)})") from error


def _array_headers(path: Path) -> Iterator[bytes]:
    """Yields the headers (.zarray) of all arrays of a format 2 zarr, folder or zip."""
    if path.is_dir():
        for file in path.glob("data/*/.zarray"):
            yield file.read_bytes()
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith("/.zarray"):
                    yield archive.read(name)


def _rows(path: Path, keys: tuple[str, ...], piece: Piece) -> dict[str, np.ndarray]:
    """Returns the rows of one piece as they are stored: what a dry run estimates from."""
    source = _open(path)
    first = source.span(piece.episode)[0]
    return {key: source.read(key, first + piece.start, first + piece.stop) for key in keys}


def _check_times(source: EpisodeSet) -> None:
    """Raises DatasetError where the buffer's own time stamps are not numbers."""
    if "timestamp" in source.keys and not source.keys["timestamp"].shape:
        times = source.read("timestamp")
        if not np.isfinite(times.astype(float)).all():
            raise DatasetError(f"{source.path}: timestamp: NaN in row {int(np.argmin(np.isfinite(times.astype(float))))}")


def _umi_arms(source: EpisodeSet) -> list[str]:
    """Returns the prefixes robot0, robot1, ... of a UMI buffer."""
    arms = sorted(key.removesuffix("_eef_pos") for key in source.keys if key.startswith("robot") and key.endswith("_eef_pos"))
    arms = [arm for arm in arms if all(f"{arm}_{part}" in source.keys for part in _UMI_POSE)]
    if not arms:
        raise DatasetError(
            f"{source.path}: want a key 'action', or the poses of UMI (robot0_eef_pos, ...), got {', '.join(source.keys)}"
        )
    return arms


def _umi_actions(source: EpisodeSet, spec: Spec) -> tuple[Spec, np.ndarray]:
    """Returns the spec with the action that UMI leaves out, and its rows: the poses of the next row."""
    arms = _umi_arms(source)
    names = tuple(f"{arm}_{name}" for arm in arms for name in ("x", "y", "z", "rx", "ry", "rz", "width"))
    spec = Spec(spec.obs, ArraySpec((len(names),), "float32", names, "m, rad"), spec.hz, codec=_UMI_CODEC)
    poses = np.concatenate([source.read(f"{arm}_{part}") for arm in arms for part in _UMI_POSE], axis=1)
    last = np.repeat(source.episode_ends, np.diff(source.episode_ends, prepend=0)) - 1
    return spec, poses[np.minimum(np.arange(len(poses)) + 1, last)]


def _umi_blocks(source: EpisodeSet, spec: Spec, actions: np.ndarray) -> Iterator[tuple[str, int, np.ndarray]]:
    yield from _copy.row_blocks(source, spec.obs)
    yield "action", 0, actions


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:140]
