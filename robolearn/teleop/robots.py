"""The arms out of the box, read from robosuite's models without importing robosuite.

Sawyer and Baxter are for kinematics only: their meshes do not compile on MuJoCo 3.6 to 3.9, so they are loaded without
geometry (MjSpec). In a simulator they want repaired meshes.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import NamedTuple

import mujoco

from robolearn.errors import MissingDependency, UnknownName
from robolearn.teleop.arm import Arm


class Entry(NamedTuple):
    """Where an arm is in robosuite's models. meshes: False where MuJoCo does not compile them."""

    folder: str
    base: str
    joints: tuple[str, ...]
    hand: str
    meshes: bool = True


def _gr1(side: str) -> tuple[str, ...]:
    parts = ("shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow_pitch", "wrist_yaw", "wrist_roll", "wrist_pitch")
    return tuple(f"{side[0]}_{part}" for part in parts)


def _baxter(side: str) -> tuple[str, ...]:
    return tuple(f"{side}_{part}" for part in ("s0", "s1", "e0", "e1", "w0", "w1", "w2"))


_ARMS = {
    "panda": Entry("panda", "link0", tuple(f"joint{i}" for i in range(1, 8)), "right_hand"),
    "iiwa": Entry("iiwa", "base", tuple(f"joint_{i}" for i in range(1, 8)), "right_hand"),
    "kinova3": Entry("kinova3", "base", tuple(f"Actuator{i}" for i in range(1, 8)), "right_hand"),
    "gr1_right": Entry("gr1", "right_arm_mount", _gr1("right"), "right_eef"),
    "gr1_left": Entry("gr1", "left_arm_mount", _gr1("left"), "left_eef"),
    "sawyer": Entry("sawyer", "base", tuple(f"right_j{i}" for i in range(7)), "right_hand", meshes=False),
    "baxter_right": Entry("baxter", "base", _baxter("right"), "right_hand", meshes=False),
    "baxter_left": Entry("baxter", "base", _baxter("left"), "left_hand", meshes=False),
}


def names() -> tuple[str, ...]:
    """Returns the names of all arms."""
    return tuple(sorted(_ARMS))


def entry(name: str) -> Entry:
    """Returns where an arm is in its model; UnknownName with the nearest one."""
    if name not in _ARMS:
        raise UnknownName("arm", name, _ARMS)
    return _ARMS[name]


@cache
def arm(name: str) -> Arm:
    """Returns one arm; UnknownName with the nearest one."""
    part = entry(name)
    return Arm.from_mjcf(model(name), part.base, part.joints, part.hand, name)


@cache
def model(name: str) -> mujoco.MjModel:
    """Returns the compiled model that an arm is read from."""
    path = path_of(name)
    return mujoco.MjModel.from_xml_path(str(path)) if entry(name).meshes else _bare(path)


def path_of(name: str) -> Path:
    """Returns the model file of an arm, in the installed robosuite."""
    found = importlib.util.find_spec("robosuite")
    if found is None or found.origin is None:
        raise MissingDependency("robosuite", f"the model of {name}", "pip install robosuite==1.5.1")
    return Path(found.origin).parent / "models" / "assets" / "robots" / entry(name).folder / "robot.xml"


def _bare(path: Path) -> mujoco.MjModel:
    """Returns a model's kinematics: all geoms and meshes left out, each body given a mass so that it compiles."""
    spec = mujoco.MjSpec.from_file(str(path))
    for geom in list(spec.geoms):
        spec.delete(geom)
    for mesh in list(spec.meshes):
        spec.delete(mesh)
    return spec.compile()
