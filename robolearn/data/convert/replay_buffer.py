"""ReplayBuffers, the zarr format 2 layout of diffusion_policy and UMI: a folder or a .zarr.zip; read and written.

Not in such a file, and therefore asked for or left open: the control rate, the task, units, names, seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from robolearn.core import ArraySpec, Spec
from robolearn.data.convert import _copy
from robolearn.data.images import is_image
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError

_UMI_POSE = ("eef_pos", "eef_rot_axis_angle", "gripper_width")
_UMI_CODEC = "pose_axis_angle_abs"


def sniff(path: Path) -> bool:
    """Returns True for a zarr with data/ and meta/episode_ends, folder or zip."""
    try:
        EpisodeSet.open(path)
    except DatasetError:
        return False
    return True


def read(src: Path, dst: Path, *, task: str = "", hz: float | None = None, overwrite: bool = False) -> tuple[str, ...]:
    """Writes the buffer `src` as a robolearn set to `dst` and returns what it could not carry.

    hz: control rate [1/s], which only robolearn's own exports know. Float images become uint8. A buffer of UMI keeps no
    actions: they are made of the poses of the next row, position 3, axis-angle 3 and gripper width 1 for each arm.
    """
    source = EpisodeSet.open(src)
    rate = hz or source.hz
    if rate is None:
        raise DatasetError(f"{src}: a ReplayBuffer does not say its control rate; give --hz")
    left_out = list(source.notes)
    if source.spec is not None:
        spec, extra = source.spec, {k: v for k, v in source.keys.items() if k not in source.spec.obs and k != "action"}
    else:
        keys = {key: ArraySpec(array.shape, "uint8") if is_image(array) else array for key, array in source.keys.items()}
        spec = Spec({k: v for k, v in keys.items() if k != "action"}, keys.get("action", ArraySpec((0,))), rate)
        extra = {}
        left_out.append("units, names, frames, seeds: a ReplayBuffer has none")
    with _copy.built_aside(dst, overwrite) as part:
        if "action" in source.keys:
            meta = _copy.own_attributes(source) or {"source": str(src.name)}
            _copy.copy_set(source, part, spec, task=task or source.task or "", meta=meta, extra=extra)
        else:
            arms = _umi_arms(source)
            left_out.append("latencies and relative poses of UMI: its actions are made of the next row's poses")
            _copy_umi(source, part, spec, arms, task)
    return tuple(left_out)


def write(source: EpisodeSet, dst: Path, *, overwrite: bool = False) -> tuple[str, ...]:
    """Writes a set as a format 2 ReplayBuffer (a folder, or a zip where `dst` ends in .zip); returns what it could not carry."""
    if source.spec is None:
        raise DatasetError(f"{source.path}: is a set of another program; convert it to a robolearn set first")
    extra = {key: array for key, array in source.keys.items() if key not in source.spec.obs and key != "action"}
    with _copy.built_aside(dst, overwrite) as part:
        folder = part.with_suffix(".folder") if dst.suffix == ".zip" else part
        meta = _copy.own_attributes(source)
        _copy.copy_set(source, folder, source.spec, task=source.task or "", meta=meta, extra=extra, zarr_format=2)
        if folder != part:
            _copy.zip_folder(folder, part)
    return source.notes


def _umi_arms(source: EpisodeSet) -> list[str]:
    """Returns the prefixes robot0, robot1, ... of a UMI buffer."""
    arms = sorted(key.removesuffix("_eef_pos") for key in source.keys if key.startswith("robot") and key.endswith("_eef_pos"))
    arms = [arm for arm in arms if all(f"{arm}_{part}" in source.keys for part in _UMI_POSE)]
    if not arms:
        raise DatasetError(
            f"{source.path}: want a key 'action', or the poses of UMI (robot0_eef_pos, ...), got {', '.join(source.keys)}"
        )
    return arms


def _copy_umi(source: EpisodeSet, out: Path, spec: Spec, arms: list[str], task: str) -> None:
    names = tuple(f"{arm}_{name}" for arm in arms for name in ("x", "y", "z", "rx", "ry", "rz", "width"))
    action = ArraySpec((len(names),), "float32", names, "m, rad")
    spec = Spec(spec.obs, action, spec.hz, codec=_UMI_CODEC)
    made = EpisodeSet.create(out, spec, task=task, env={}, meta={"source": source.path.name}, durable=False)
    poses = np.concatenate([source.read(f"{arm}_{part}") for arm in arms for part in _UMI_POSE], axis=1)
    following = np.minimum(np.arange(len(poses)) + 1, np.repeat(source.episode_ends, np.diff(source.episode_ends, prepend=0)) - 1)

    def blocks() -> Iterator[tuple[str, int, np.ndarray]]:
        yield from _copy.row_blocks(source, spec.obs)
        yield "action", 0, poses[following]

    made.extend(source.episode_ends, blocks())
