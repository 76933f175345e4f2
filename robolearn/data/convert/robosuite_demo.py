"""Demonstrations of robosuite's own recorder (demo.hdf5, versions 0.3 to 1.5): simulator states, actions, the model's XML.

`read_demo` gives one demonstration as arrays. What such a file does not hold, and a set made of it therefore lacks:
observations and images (they follow from the states, in the simulator), seeds, and the success of the episode.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robolearn.core import ArraySpec, Spec
from robolearn.data.convert._copy import built_aside
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
    with h5py.File(path) as file:
        return any("states" in group for group in file.get("data", {}).values())


def count_demos(path: Path) -> int:
    """Returns how many demonstrations a demo.hdf5 holds."""
    with _open(Path(path)) as file:
        return len(file["data"])


def read_demo(path: str | Path, index: int = 0) -> Demo:
    """Returns demonstration `index` of a demo.hdf5, or of a folder that holds one; DatasetError where it is none."""
    path = _file_of(Path(path))
    with _open(path) as file:
        data = file["data"]
        names = sorted(data, key=lambda name: int(name.rsplit("_", 1)[-1]))
        if not 0 <= index < len(names):
            raise DatasetError(f"{path}: want demonstration {index}, the file holds {len(names)}")
        group = data[names[index]]
        actions, codec, not_carried = _actions(group, path, data.attrs)
        states = np.asarray(group["states"], dtype=np.float64)
        if len(states) != len(actions):
            raise DatasetError(f"{path}: {names[index]}: {len(states)} states but {len(actions)} actions")
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


def read(src: Path, dst: Path, *, task: str = "", hz: float | None = None, overwrite: bool = False) -> tuple[str, ...]:
    """Writes all demonstrations of a demo.hdf5 as a set with `sim_state` and `action`; returns what it could not carry.

    Facts of each episode: source (sha256 of the file), demo, model_xml and its sha256. task, hz: instead of the file's own.
    """
    demos = [read_demo(src, index) for index in range(count_demos(src))]
    first = demos[0]
    spec = Spec({}, ArraySpec(first.actions.shape[1:], "float64"), hz or first.hz, codec=first.codec)
    extra = {"sim_state": ArraySpec(first.states.shape[1:], "float64", frame="world", unit="s, then the model's own")}
    meta = {"robot": first.robot, "env_name": first.env_name, "operator": "human"}
    with built_aside(dst, overwrite) as part:
        made = EpisodeSet.create(part, spec, task=task or first.task, env={}, meta=meta, extra=extra, durable=False)
        for index, demo in enumerate(demos):
            model = hashlib.sha256(demo.model_xml.encode()).hexdigest()
            facts = {"source": demo.source_sha256, "demo": index, "model_sha256": model, "model_xml": demo.model_xml}
            made.append({"sim_state": demo.states, "action": demo.actions}, **facts)
    lost = [f"array '{name}'" for name in first.not_carried]
    rates = {demo.hz for demo in demos}
    if len(rates) > 1:
        lost.append(
            f"different control rates ({', '.join(f'{rate:g}' for rate in sorted(rates))} Hz): the set says {spec.hz:g} Hz"
        )
    return (*lost, "observations, seeds, success: such a file has none; they follow from sim_state in the simulator")


def write(source: EpisodeSet, dst: Path, *, overwrite: bool = False) -> tuple[str, ...]:
    """Writes a set that holds `sim_state` and the fact `model_xml` as a demo.hdf5; returns what it could not carry."""
    models = source.episode_field("model_xml")
    if "sim_state" not in source.keys or models is None or source.spec is None:
        raise DatasetError(f"{source.path}: a demo.hdf5 needs the key 'sim_state' and the fact 'model_xml', the set has not both")
    codec = next((name for name, ours in CODECS.items() if ours == source.spec.codec), source.spec.codec.upper())
    env_name = source.attrs.get("env_name") or next((env for env, task in TASKS.items() if task == source.task), "")
    info = {"env_name": env_name, "robots": source.attrs.get("robot", ""), "controller_configs": {"type": codec}}
    with built_aside(dst, overwrite) as part, h5py.File(part, "w") as file:
        data = file.create_group("data")
        data.attrs["env"] = env_name
        data.attrs["env_info"] = json.dumps(info)
        for index in range(source.n_episodes):
            group = data.create_group(f"demo_{index + 1}")
            group.attrs["model_file"] = str(models[index])
            span = source.span(index)
            group["states"], group["actions"] = source.read("sim_state", *span), source.read("action", *span)
    return (*(f"array '{key}'" for key in source.keys if key not in ("sim_state", "action")), *source.notes)


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
        info = json.loads(attrs.get("env_info", "{}"))
        kind = info.get("controller_configs", {}).get("type", "OSC_POSE")
        if kind == "BASIC":
            kind = info["controller_configs"]["body_parts"]["right"]["type"]
        left = tuple(sorted(set(group) - {"actions", "states"}))
        return np.asarray(group["actions"], dtype=np.float64), CODECS.get(kind, kind.lower()), left
    missing = [name for name in (*_OLD_ACTIONS, "states") if name not in group]
    if missing:
        raise DatasetError(f"{path}: {group.name}: no '{missing[0]}' and no 'actions' (arrays: {', '.join(sorted(group))})")
    left = tuple(sorted(name for name in set(group) - {*_OLD_ACTIONS, "states"} if group[name].size))
    actions = np.concatenate([np.asarray(group[name], dtype=np.float64) for name in _OLD_ACTIONS], axis=1)
    return actions, "joint_velocity", left


def _names(attrs: Any, path: Path) -> tuple[str, str]:
    """Returns (robot, env), from env_info where there is one, else from names as "SawyerLift"."""
    info = json.loads(attrs.get("env_info", "{}"))
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
