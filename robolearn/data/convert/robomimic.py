"""robomimic's HDF5: demo_i with states, actions, rewards, dones, obs, next_obs; env_args; mask/<filter>. Read and written.

A mask is our filter of the same name. Attributes of a demonstration are facts of an episode, and the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robolearn.core import ArraySpec, Spec
from robolearn.data.convert import _copy
from robolearn.data.convert import _robomimic_write as writer
from robolearn.data.convert import robosuite_demo as suite
from robolearn.data.convert._copy import Foreign, Options, Piece, Rows
from robolearn.data.convert._hdf5 import demo_names, json_attribute
from robolearn.data.convert._robomimic_write import FILTER, OURS
from robolearn.data.images import is_image
from robolearn.errors import DatasetError, nearest

TASKS = suite.TASKS | {"PickPlaceCan": "can", "NutAssemblySquare": "square"}
_SCALE = [0.05, 0.05, 0.05, 0.5, 0.5, 0.5]  # [m, rad] of an action of 1 with robosuite's OSC_POSE as it comes

write = writer.write
cannot_carry = writer.cannot_carry


def sniff(path: Path) -> bool:
    """Returns True for an HDF5 file whose group data says env_args, or whose demonstrations say num_samples."""
    path = Path(path)
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path) as file:
            data = file.get("data")
            if not isinstance(data, h5py.Group):
                return False
            return "env_args" in data.attrs or any("num_samples" in group.attrs for group in data.values())
    except (OSError, RuntimeError):  # cut off
        return False


def read(
    src: Path, dst: Path, *, task: str = "", hz: float | None = None, overwrite: bool = False, options: Options = Options()
) -> tuple[str, ...]:
    """Writes a robomimic file as a robolearn set to `dst` and returns what it could not carry.

    Row k is obs k, the simulator's state before action k (`sim_state`) and action k; hz: instead of env_args' control_freq.
    """
    return _copy.take_over(scan(src, task=task, hz=hz), dst, overwrite=overwrite, workers=options.workers)


def scan(src: Path, *, task: str = "", hz: float | None = None) -> Foreign:
    """Returns what a robomimic file holds, before any row is read."""
    with _open(Path(src)) as file:
        return _scan(Path(src), file, task, hz)


def _scan(path: Path, file: h5py.File, task: str, hz: float | None) -> Foreign:
    data = file["data"]
    names = demo_names(data, path)
    ours = json_attribute(data.attrs, path, OURS)
    env_args = json_attribute(data.attrs, path, "env_args")
    keys = {key: _array(item) for key, item in _items(data[names[0]]).items() if not key.startswith("next_obs/")}
    lengths = [_length(data[name], keys, path) for name in names]
    lost = _derived(data[names[0]]) * (not ours) + [f"group '{name}'" for name in file if name not in ("data", "mask")]
    if ours and {*ours["arrays"].values()} <= set(keys):
        spec = Spec.from_json(ours["spec"])
        extra = {key: ArraySpec.from_json(array) for key, array in ours["extra"].items()}
        places = dict(ours["arrays"])
        described = {"task": ours["task"], "env": ours["env"], "meta": ours["meta"]}
    else:
        spec, extra, places = _described(path, data[names[0]], keys, env_args, hz)
        described, told = _body(env_args)
        lost += told
        lost.append("units, frames and names of keys, clocks: a robomimic file has none")
    return Foreign(
        spec=replace(spec, hz=hz) if hz else spec,
        task=task or described["task"],
        ends=np.cumsum(lengths, dtype=np.int64),
        rows=partial(_rows, path, tuple(names), places),
        extra=extra,
        env=described["env"],
        meta=described["meta"],
        facts={**_facts(data, names), **_filters(file, names, path)},
        lost=tuple(lost),
    )


def _described(
    path: Path, demo: h5py.Group, keys: Mapping[str, ArraySpec], env_args: Mapping[str, Any], hz: float | None
) -> tuple[Spec, dict[str, ArraySpec], dict[str, str]]:
    """Returns spec, extra arrays, and where each of our keys lies in a demonstration that robolearn did not write."""
    if "actions" not in keys:
        raise DatasetError(f"{path}: {demo.name}: want 'actions', got {', '.join(keys)}{nearest('actions', keys)}")
    kwargs = env_args.get("env_kwargs") or {}
    rate = hz or kwargs.get("control_freq") or (suite._rate(np.asarray(demo["states"])) if "states" in keys else None)
    if not rate:
        raise DatasetError(f"{path}: neither env_args nor a simulator's state says the control rate; give --hz")
    places = {key.removeprefix("obs/").replace("/", "."): key for key in keys if key.startswith("obs/")}
    obs = {key: keys[place] for key, place in places.items()}
    places["action"] = "actions"
    extra = {}
    for key, array in keys.items():
        if key.startswith("obs/") or key == "actions":
            continue
        name = "sim_state" if key == "states" else key.replace("/", ".")
        name = f"recorded_{name}" if name in places else name
        extra[name], places[name] = array, key
    return Spec(obs, keys["actions"], float(rate), codec=_codec(env_args)), extra, places


def _codec(env_args: Mapping[str, Any]) -> str:
    """Returns the name of the action space; "" for an environment that is not robosuite's."""
    kwargs = env_args.get("env_kwargs") or {}
    if env_args.get("type", 1) != 1 or "controller_configs" not in kwargs:
        return ""
    kind = suite.controller(kwargs)
    absolute = (kwargs["controller_configs"] or {}).get("control_delta") is False
    return "osc_abs" if absolute and kind == "OSC_POSE" else suite.CODECS.get(kind, kind.lower())


def _body(env_args: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns task, body and attributes that env_args describes, and what of it means something else here."""
    kwargs, name = env_args.get("env_kwargs") or {}, str(env_args.get("env_name", ""))
    robots = kwargs.get("robots", "")
    robot = robots if isinstance(robots, str) else "+".join(map(str, robots))
    task, lost = TASKS.get(name, ""), []
    if name and not task:
        lost.append(f"the environment '{name}': no task of ours{nearest(name, TASKS)}")
    scale = (kwargs.get("controller_configs") or {}).get("output_max")
    if scale is not None and not np.allclose(scale, _SCALE[: np.size(scale)]):
        lost.append(f"the scale of actions: an action of 1 is {scale} there, {_SCALE} in robosuite as it comes")
    codec = _codec(env_args)
    env = {"action": codec, **({"robot": robot} if robot else {})} if task and codec == "osc_delta" else {}
    meta = {"env_args": dict(env_args), "env_name": name, "robot": robot} if env_args else {"source": "robomimic"}
    return {"task": task, "env": env, "meta": meta}, lost


def _rows(path: Path, names: tuple[str, ...], places: Mapping[str, str], piece: Piece) -> Rows:
    """Returns every key of one piece."""
    name, made = names[piece.episode], {}
    with _open(path) as file:
        for key, place in places.items():
            try:
                made[key] = file["data"][name][place][piece.start : piece.stop]
            except (OSError, KeyError) as error:
                raise DatasetError(f"{path}: {name}/{place}: cannot be read ({_line(error)}); restore it from a copy") from error
    return made


def _length(demo: h5py.Group, keys: Mapping[str, ArraySpec], path: Path) -> int:
    """Returns the number of steps of a demonstration; DatasetError where its arrays are not those of the first one."""
    items = _items(demo)
    lost = [key for key in keys if key not in items]
    if lost:
        raise DatasetError(f"{path}: {demo.name}: '{lost[0]}' is missing (arrays: {', '.join(items)})")
    steps = int(demo.attrs.get("num_samples", len(items[next(iter(keys))])))
    for key, want in keys.items():
        got = items[key]
        if got.shape[:1] != (steps,) or got.shape[1:] != want.shape or got.dtype != np.dtype(want.dtype):
            raise DatasetError(
                f"{path}: {demo.name}: {key}: want {steps} rows of {want.dtype}{want.shape}, got {got.dtype}{got.shape}"
            )
    if not steps:
        raise DatasetError(f"{path}: {demo.name}: want at least one step, got none")
    return steps


def _items(group: h5py.Group) -> dict[str, h5py.Dataset]:
    """Returns every array with a time axis below a demonstration, by its path."""
    found: dict[str, h5py.Dataset] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim and item.dtype.kind in "biuf":
            found[name] = item

    group.visititems(visit)
    return found


def _array(item: h5py.Dataset) -> ArraySpec:
    array = ArraySpec(tuple(item.shape[1:]), str(item.dtype))
    return replace(array, dtype="uint8") if is_image(array) and item.dtype == np.uint8 else array


def _derived(demo: h5py.Group) -> list[str]:
    """Returns what is left behind of a demonstration although it is an array."""
    lost = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and (not item.ndim or item.dtype.kind not in "biuf"):
            lost.append(f"'{name}' of a demonstration: not numbers with a time axis")

    demo.visititems(visit)
    return lost + (["next_obs of each last step; the others are obs of the next row"] if "next_obs" in demo else [])


def _facts(data: h5py.Group, names: list[str]) -> dict[str, list[Any]]:
    """Returns the attributes of the demonstrations as facts; `model_file` is `model_xml`."""
    known = dict.fromkeys(key for name in names for key in data[name].attrs if key != "num_samples")
    made: dict[str, list[Any]] = {}
    for key in known:
        values = [data[name].attrs.get(key) for name in names]
        values = [value.decode() if isinstance(value, bytes) else value for value in values]
        made["model_xml" if key == "model_file" else key.replace("/", "_")] = values
    return made


def _filters(file: h5py.File, names: list[str], path: Path) -> dict[str, list[np.int8]]:
    """Returns mask/<name> as facts filter_<name>: 1 for the demonstrations it lists."""
    made = {}
    for mask, item in file.get("mask", {}).items():
        listed = {name.decode() if isinstance(name, bytes) else str(name) for name in item[:]}
        strange = sorted(listed - set(names))
        if strange:
            raise DatasetError(f"{path}: mask/{mask} lists '{strange[0]}', which is no demonstration{nearest(strange[0], names)}")
        made[FILTER + mask] = [np.int8(name in listed) for name in names]
    return made


def _open(path: Path) -> h5py.File:
    if not path.is_file():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        what = "a folder" if path.is_dir() else "no such file"
        raise DatasetError(f"{path}: want a robomimic HDF5 file, got {what}{nearest(path.name, beside)}")
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        raise DatasetError(f"{path}: want an HDF5 file, got one that is cut off or none ({_line(error)})") from error
    if not isinstance(file.get("data"), h5py.Group) or not len(file["data"]):
        groups = ", ".join(sorted(file)) or "nothing"
        file.close()
        raise DatasetError(f"{path}: want demonstrations data/demo_0, ..., got {groups}")
    return file


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:140]
