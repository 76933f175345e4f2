"""Writes a set as a robomimic HDF5 file: what its SequenceDataset and its playback read."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tqdm import tqdm

from robolearn.core import ArraySpec
from robolearn.data.convert import _copy
from robolearn.data.convert import robosuite_demo as suite
from robolearn.data.convert._copy import Ahead, Options
from robolearn.data.images import is_image
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError

FILTER = "filter_"
OURS = "robolearn"  # the attribute of data/ that holds what robolearn needs to read the file back as it was
_TAKEN = ("num_samples", "model_file", "obs", "next_obs")
_NAMES = {"lift": "Lift", "can": "PickPlaceCan", "square": "NutAssemblySquare", "stack": "Stack", "door": "Door"}
_NAMES |= {"two_arm_lift": "TwoArmLift"}
_REWARDS = ("next.reward", "reward", "step_score")  # numbers a step that may stand for rewards
_TYPES = {"robosuite": 1, "gym": 2}


def cannot_carry(source: EpisodeSet, options: Options = Options()) -> tuple[str, ...]:
    """Returns what `write` would not carry or has to make up; DatasetError where the set cannot be written at all."""
    del options  # pictures are kept bit for bit
    spec = _copy.own_spec(source)
    places_of(source)
    lost = list(source.notes)
    if "sim_state" not in source.keys:
        lost.append("states: the set has no 'sim_state', so robomimic can play back observations and actions only")
    elif spec.codec != "osc_delta" or "env_args" not in source.attrs:
        lost.append("states in robosuite's own form: they are this simulator's; play back with robolearn replay, or by actions")
    if "env_args" not in source.attrs and source.task in _NAMES and spec.codec not in suite.CODECS.values():
        lost.append(f"the action space '{spec.codec}': robosuite has none like it, so env_args cannot rebuild the environment")
    if "rewards" not in source.keys:
        lost.append("rewards: made of " + _reward_source(source))
    if spec.obs:
        lost.append("next_obs of each last step: the set has none, the last observation is repeated")
    if any(np.abs(rows).max() > 1 for _, _, rows in _copy.row_blocks(source, ["action"])):
        lost.append(f"actions within [-1, 1], which robomimic expects ({spec.codec or 'no codec'}): normalise them there")
    return tuple(lost)


def write(source: EpisodeSet, dst: Path, *, overwrite: bool = False, options: Options = Options()) -> tuple[str, ...]:
    """Writes a set as a robomimic file and returns what it could not carry; a crash leaves `dst` as it was."""
    lost, spec = cannot_carry(source, options), _copy.own_spec(source)
    places, facts, ahead = places_of(source), _copy.all_facts(source), Ahead(source)
    ours = {
        "spec": spec.to_json(),
        "extra": {key: array.to_json() for key, array in _copy.extra_keys(source).items()},
        "arrays": places,
        "task": source.task or "",
        "env": source.env,
        "meta": _copy.own_attributes(source),
    }
    with _copy.built_aside(dst, overwrite) as part:
        with h5py.File(part, "w") as file:
            data = file.create_group("data")
            data.attrs["total"] = source.n_steps
            data.attrs["env_args"] = json.dumps(env_args(source))
            data.attrs[OURS] = json.dumps(ours)
            for index in tqdm(range(source.n_episodes), desc="to robomimic", unit="ep", disable=not sys.stderr.isatty()):
                _write_demo(data.create_group(f"demo_{index}"), ahead, index, places, facts)
            for name, values in facts.items():
                if name.startswith(FILTER):
                    listed = [f"demo_{i}".encode() for i in np.flatnonzero(values == 1)]
                    file[f"mask/{name.removeprefix(FILTER)}"] = np.array(listed, dtype="S")
            file.flush()
        _copy.sync_file(part)
    return lost


def places_of(source: EpisodeSet) -> dict[str, str]:
    """Returns where each key lies in a demonstration; DatasetError where a name is taken."""
    assert source.spec is not None
    places = {key: f"obs/{key}" for key in source.spec.obs} | {"action": "actions"}
    for key in _copy.extra_keys(source):
        places[key] = "states" if key == "sim_state" else key
        if key in (*_TAKEN, "states", "actions"):
            raise DatasetError(f"{source.path}: key '{key}': robomimic has another array of that name; rename it")
    return places


def env_args(source: EpisodeSet) -> dict[str, Any]:
    """Returns what robomimic keeps of the environment: as it came, else made of task, body and rate."""
    if "env_args" in source.attrs:
        return dict(source.attrs["env_args"])
    assert source.spec is not None
    env_name = _NAMES.get(source.task or "", source.attrs.get("env_name") or source.task or "unknown")
    kwargs: dict[str, Any] = {"control_freq": source.spec.hz}
    if env_name in suite.TASKS:
        kind = next((name for name, ours in suite.CODECS.items() if ours == source.spec.codec), source.spec.codec)
        robot = source.env.get("robot") or source.attrs.get("robot") or "Panda"
        kwargs |= {"robots": [robot], "controller_configs": {"type": kind}}
    return {
        "env_name": env_name,
        "env_version": str(source.attrs.get("simulator", {}).get("robosuite", "")),
        "type": _TYPES["robosuite" if env_name in suite.TASKS else "gym"],
        "env_kwargs": kwargs,
    }


def _write_demo(group: h5py.Group, ahead: Ahead, index: int, places: Mapping[str, str], facts: Mapping[str, np.ndarray]) -> None:
    source = ahead.source
    first, last = source.span(index)
    group.attrs["num_samples"] = last - first
    for name, values in facts.items():
        if name == "model_xml":
            group.attrs["model_file"] = str(values[index])
        elif not name.startswith(FILTER):
            group.attrs[name] = str(values[index]) if values.dtype.kind == "U" else values[index]
    for key, place in places.items():
        rows = ahead.read(key, first, last)
        _put(group, place, rows, source.keys[key])
        if place.startswith("obs/"):
            _put_next(group, place, rows, source.keys[key])
    if "rewards" not in places.values():
        group["rewards"] = _rewards(source, index)
    if "dones" not in places.values():
        group["dones"] = (np.arange(last - first) == last - first - 1).astype(np.int64)


def _put(group: h5py.Group, place: str, rows: np.ndarray, array: ArraySpec) -> None:
    if is_image(array):
        group.create_dataset(place, data=rows, chunks=(1, *rows.shape[1:]), compression="gzip", compression_opts=1)
    else:
        group[place] = rows


def _put_next(group: h5py.Group, place: str, rows: np.ndarray, array: ArraySpec) -> None:
    """Writes next_obs; of pictures only a view on obs, which costs no bytes."""
    name, steps = f"next_{place}", len(rows)
    if not is_image(array):
        group[name] = rows[np.minimum(np.arange(steps) + 1, steps - 1)]
        return
    seen = h5py.VirtualSource(group[place])
    layout = h5py.VirtualLayout(rows.shape, rows.dtype)
    if steps > 1:
        layout[: steps - 1] = seen[1:]
    layout[steps - 1 :] = seen[steps - 1 :]
    group.create_virtual_dataset(name, layout)


def _reward_source(source: EpisodeSet) -> str:
    if "step_success" in source.keys:
        return "'step_success'"
    for key in _REWARDS:
        if key in source.keys and not source.keys[key].shape:
            return f"'{key}'"
    return "the fact success, at the last step" if source.episode_field("success") is not None else "nothing (all 0)"


def _rewards(source: EpisodeSet, index: int) -> np.ndarray:
    """Returns rewards (steps,) float64: 1 where the set says success, else what it has of the kind."""
    first, last = source.span(index)
    if "step_success" in source.keys:
        return (source.read("step_success", first, last) > 0).astype(np.float64)
    for key in _REWARDS:
        if key in source.keys and not source.keys[key].shape:
            return source.read(key, first, last).astype(np.float64)
    made, success = np.zeros(last - first), source.episode_field("success")
    made[-1] = float(success is not None and success[index] > 0)
    return made
