"""Demonstrations of robosuite's own recorder (demo.hdf5, versions 0.3 to 1.5): simulator states, actions, the model's XML.

`read_demo` gives one demonstration as arrays. What such a file does not hold, and a set made of it therefore lacks:
observations and images (they follow from the states, in the simulator), seeds, and the success of the episode.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robolearn.core import ArraySpec, Spec
from robolearn.data.convert._copy import Foreign, Options, Piece, built_aside, sync_file, take_over
from robolearn.data.convert._hdf5 import demo_names, json_attribute
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError, nearest

ROBOTS = ("Panda", "Sawyer", "Baxter", "IIWA", "Jaco", "Kinova3", "UR5e")
TASKS = {
    "Lift": "lift",
    "Stack": "stack",
    "Door": "door",
    "NutAssembly": "nut_assembly",
    "NutAssemblySquare": "nut_assembly",
    "NutAssemblyRound": "nut_assembly",
    "PickPlace": "pick_place",
    "PickPlaceCan": "pick_place",
    "Wipe": "wipe",
    "TwoArmLift": "two_arm_lift",
}
# robosuite before 1.5 wrote the controller's type where the action space is meant.
CODECS = {
    "OSC_POSE": "osc_delta",
    "EE_POS_ORI": "osc_delta",
    "OSC_POSITION": "osc_position_delta",
    "JOINT_VELOCITY": "joint_velocity",
    "JOINT_POSITION": "joint_delta",
}
_OLD_ACTIONS = ("joint_velocities", "gripper_actuations")


@dataclass(frozen=True)
class Demo:
    """One recorded demonstration: row k holds the simulator's state before action k.

    task: the family of tasks (nut_assembly and pick_place hold several objects); robot: robosuite's name of the arm;
    states: (steps, 1 + nq + nv) float64, [time [s], qpos, qvel]; actions: (steps, n) float64, in the space `codec`;
    model_xml: the model it was recorded with (absolute asset paths of the recorder's computer); hz: control rate [1/s].
    """

    task: str
    robot: str
    states: np.ndarray
    actions: np.ndarray
    model_xml: str
    source_sha256: str
    env_name: str
    codec: str
    hz: float
    not_carried: tuple[str, ...] = ()


def sniff(path: Path) -> bool:
    """Returns True where `path` is a demo.hdf5, or a folder with one, as robosuite writes them."""
    path = _file_of(Path(path))
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    try:
        with h5py.File(path) as file:
            data = file.get("data", {})
            return "env_args" not in getattr(data, "attrs", {}) and any("states" in group for group in data.values())
    except (OSError, RuntimeError):  # cut off
        return False


def count_demos(path: Path) -> int:
    """Returns how many demonstrations a demo.hdf5 holds."""
    with _open(Path(path)) as file:
        return len(file["data"])


def read_demo(path: str | Path, index: int = 0) -> Demo:
    """Returns demonstration `index` of a demo.hdf5, or of a folder that holds one; DatasetError where it is none."""
    path = _file_of(Path(path))
    with _open(path) as file:
        data = file["data"]
        names = demo_names(data, path)
        if not 0 <= index < len(names):
            raise DatasetError(f"{path}: want demonstration {index}, the file holds {len(names)}")
        group = data[names[index]]
        actions, codec, not_carried = _actions(group, path, data.attrs)
        states = np.asarray(group["states"], dtype=np.float64)
        if len(states) != len(actions) or not len(states):
            raise DatasetError(f"{path}: {names[index]}: want as many states as actions, got {len(states)} and {len(actions)}")
        for what, rows in (("states", states), ("actions", actions)):
            if rows.ndim != 2:
                raise DatasetError(f"{path}: {names[index]}: want {what} of shape (steps, n), got {rows.shape}")
            if not np.isfinite(rows).all():
                row = int(np.argwhere(~np.isfinite(rows))[0][0])
                raise DatasetError(f"{path}: {names[index]}: {what}: NaN or infinity in row {row}")
        robot, env_name = _names(data.attrs, path)
        return Demo(
            task=_task(env_name, path),
            robot=robot,
            states=states,
            actions=actions,
            model_xml=_model(group, path),
            source_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            env_name=env_name,
            codec=codec,
            hz=_rate(states),
            not_carried=not_carried,
        )


def scan(src: Path, *, task: str = "", hz: float | None = None) -> Foreign:
    """Returns what a demo.hdf5 holds. task, hz: instead of the file's own."""
    demos = [read_demo(src, index) for index in range(count_demos(src))]
    first = demos[0]
    for index, demo in enumerate(demos):
        for what, got, want in (
            ("states", demo.states.shape[1:], first.states.shape[1:]),
            ("actions", demo.actions.shape[1:], first.actions.shape[1:]),
        ):
            if got != want:
                raise DatasetError(f"{src}: demonstration {index}: {what} of shape {got}, those of the first are {want}")
    rates = {demo.hz for demo in demos}
    spec = Spec({}, ArraySpec(first.actions.shape[1:], "float64"), hz or first.hz, codec=first.codec)
    lost = [f"array '{name}'" for name in first.not_carried]
    if len(rates) > 1:
        told = ", ".join(f"{rate:g}" for rate in sorted(rates))
        lost.append(f"different control rates ({told} Hz): the set says {spec.hz:g} Hz")
    lost.append("observations, seeds, success: such a file has none; they follow from sim_state in the simulator")
    return Foreign(
        spec=spec,
        task=task or first.task,
        ends=np.cumsum([len(demo.states) for demo in demos], dtype=np.int64),
        rows=partial(_rows, demos),
        extra={"sim_state": ArraySpec(first.states.shape[1:], "float64", frame="world", unit="s, then the model's own")},
        meta={"robot": first.robot, "env_name": first.env_name, "operator": "human"},
        facts={
            "source": [demo.source_sha256 for demo in demos],
            "demo": list(range(len(demos))),
            "model_sha256": [hashlib.sha256(demo.model_xml.encode()).hexdigest() for demo in demos],
            "model_xml": [demo.model_xml for demo in demos],
        },
        lost=tuple(lost),
    )


def _rows(demos: list[Demo], piece: Piece) -> dict[str, np.ndarray]:
    demo = demos[piece.episode]
    return {"sim_state": demo.states[piece.start : piece.stop], "action": demo.actions[piece.start : piece.stop]}


def read(
    src: Path, dst: Path, *, task: str = "", hz: float | None = None, overwrite: bool = False, options: Options = Options()
) -> tuple[str, ...]:
    """Writes all demonstrations of a demo.hdf5 as a set with `sim_state` and `action`; returns what it could not carry.

    Facts of each episode: source (sha256 of the file), demo, model_xml and its sha256. task, hz: instead of the file's own.
    """
    del options  # nothing to decode
    return take_over(scan(src, task=task, hz=hz), dst, overwrite=overwrite)


def cannot_carry(source: EpisodeSet, options: Options = Options()) -> tuple[str, ...]:
    """Returns what `write` would not carry; DatasetError where the set cannot be written at all."""
    del options
    if "sim_state" not in source.keys or source.episode_field("model_xml") is None or source.spec is None:
        raise DatasetError(f"{source.path}: a demo.hdf5 needs the key 'sim_state' and the fact 'model_xml', the set has not both")
    kept = ("source", "demo", "model_sha256", "model_xml")
    facts = [f"fact '{name}'" for name in source.facts() if name not in kept]
    return (*(f"array '{key}'" for key in source.keys if key not in ("sim_state", "action")), *facts, *source.notes)


def write(source: EpisodeSet, dst: Path, *, overwrite: bool = False, options: Options = Options()) -> tuple[str, ...]:
    """Writes a set that holds `sim_state` and the fact `model_xml` as a demo.hdf5; returns what it could not carry."""
    lost = cannot_carry(source, options)
    models = source.episode_field("model_xml")
    assert models is not None and source.spec is not None
    codec = next((name for name, ours in CODECS.items() if ours == source.spec.codec), source.spec.codec.upper())
    env_name = source.attrs.get("env_name") or next((env for env, task in TASKS.items() if task == source.task), "")
    info = {"env_name": env_name, "robots": source.attrs.get("robot", ""), "controller_configs": {"type": codec}}
    with built_aside(dst, overwrite) as part:
        with h5py.File(part, "w") as file:
            data = file.create_group("data")
            data.attrs["env"] = env_name
            data.attrs["env_info"] = json.dumps(info)
            for index in range(source.n_episodes):
                group = data.create_group(f"demo_{index + 1}")
                group.attrs["model_file"] = str(models[index])
                span = source.span(index)
                group["states"], group["actions"] = source.read("sim_state", *span), source.read("action", *span)
        sync_file(part)
    return lost


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(path.glob("**/demo.hdf5"))
    return found[0] if len(found) == 1 else path / "demo.hdf5"


def _open(path: Path) -> h5py.File:
    path = _file_of(path)
    if not path.is_file():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DatasetError(f"{path}: no such file{nearest(path.name, beside)}")
    try:
        file = h5py.File(path)
    except OSError as error:
        raise DatasetError(
            f"{path}: want an HDF5 file of robosuite's recorder, got one that cannot be opened ({error})"
        ) from error
    if "data" not in file or not len(file["data"]):
        raise DatasetError(f"{path}: want demonstrations data/demo_1, ..., got groups {sorted(file)}")
    return file


def _actions(group: h5py.Group, path: Path, attrs: Any) -> tuple[np.ndarray, str, tuple[str, ...]]:
    """Returns actions (steps, n), the name of their space, and the arrays that were left behind."""
    if "actions" in group:
        kind = controller(json_attribute(attrs, path, "env_info"))
        left = tuple(sorted(set(group) - {"actions", "states"}))
        return np.asarray(group["actions"], dtype=np.float64), CODECS.get(kind, kind.lower()), left
    missing = [name for name in (*_OLD_ACTIONS, "states") if name not in group]
    if missing:
        raise DatasetError(f"{path}: {group.name}: no '{missing[0]}' and no 'actions' (arrays: {', '.join(sorted(group))})")
    left = tuple(sorted(name for name in set(group) - {*_OLD_ACTIONS, "states"} if group[name].size))
    actions = np.concatenate([np.asarray(group[name], dtype=np.float64) for name in _OLD_ACTIONS], axis=1)
    return actions, "joint_velocity", left


def controller(info: Any) -> str:
    """Returns robosuite's name of the action space in an env_info, in the old form or in that of 1.5."""
    configs = info.get("controller_configs") or {}
    if configs.get("type") == "BASIC":
        parts: dict[str, Any] = configs.get("body_parts", {})
        arm: dict[str, Any] = parts.get("right") or next(iter(parts.values()), {})
        return str(arm.get("type", "OSC_POSE"))
    return str(configs.get("type", "OSC_POSE"))


def _names(attrs: Any, path: Path) -> tuple[str, str]:
    """Returns (robot, env), from env_info where there is one, else from names as "SawyerLift"."""
    info = json_attribute(attrs, path, "env_info")
    env = str(info.get("env_name", attrs.get("env", "")))
    for robot in ROBOTS:
        if env.startswith(robot):
            return robot, env.removeprefix(robot)
    robots = info.get("robots", "")
    robot = robots if isinstance(robots, str) else "+".join(robots)
    if not env or not robot:
        raise DatasetError(f"{path}: the file names no environment or no robot (attributes: {', '.join(sorted(attrs))})")
    return robot, env


def _task(env_name: str, path: Path) -> str:
    if env_name not in TASKS:
        raise DatasetError(f"{path}: unknown robosuite environment '{env_name}'{nearest(env_name, TASKS)}")
    return TASKS[env_name]


def _model(group: h5py.Group, path: Path) -> str:
    if "model_file" not in group.attrs:
        raise DatasetError(f"{path}: {group.name}: no attribute 'model_file', so its states cannot be restored")
    text = str(group.attrs["model_file"])
    if text.lstrip().startswith("<"):
        return text
    file = path.parent / "models" / text
    if not file.is_file():
        raise DatasetError(f"{path}: its model {file} is missing; copy the models/ folder along with demo.hdf5")
    return file.read_text()


def _rate(states: np.ndarray) -> float:
    """Returns the control rate [1/s] that the time column shows, whole numbers where it is nearly one."""
    period = float(np.median(np.diff(states[:, 0]))) if len(states) > 1 else 0.05
    rate = 1.0 / period
    return float(round(rate)) if abs(rate - round(rate)) < 0.02 * rate else rate
