"""The poses that a recorded demonstration went through, by forward kinematics on the model it was recorded with.

Only the joints and frames of that model are used: its meshes, whose paths belong to the recorder's computer, are not needed,
and neither is the simulator that recorded it.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from robolearn import geometry
from robolearn.data.convert.robosuite_demo import Demo
from robolearn.errors import DatasetError, nearest

HAND_SITES = ("gripper0_grip_site", "gripper0_right_grip_site", "grip_site")
_NOT_KINEMATIC = ("asset", "actuator", "sensor", "equality", "contact", "tendon", "keyframe", "visual", "custom")
_STEP_M = 0.05  # what a delta action of 1 asks of robosuite's OSC_POSE


@dataclass(frozen=True)
class Source:
    """One demonstration as geometry, row k before action k; all poses are world_from_... (steps, 4, 4) [m].

    hand: of the grip site; asked: where the person's action wanted the hand (differs from `hand` where it pushes); closing:
    (steps,) bool, whether the action closes the gripper; things: of the named objects; sha256: of the file.
    """

    hand: np.ndarray
    asked: np.ndarray
    closing: np.ndarray
    things: Mapping[str, np.ndarray]
    sha256: str
    hz: float


def read_source(demo: Demo, bodies: Mapping[str, Sequence[str]]) -> Source:
    """Returns the poses of a demonstration; bodies: by the name to give it, the names an object (body or site) may have."""
    model = kinematic_model(demo.model_xml)
    data = mujoco.MjData(model)
    if demo.states.shape[1] != 1 + model.nq + model.nv:
        raise DatasetError(f"states: want 1 + {model.nq} + {model.nv} numbers as its model has, got {demo.states.shape[1]}")
    sites = [model.site(i).name for i in range(model.nsite)]
    known = [model.body(i).name for i in range(model.nbody)]
    site = _find("site", HAND_SITES, sites)
    found = {name: _find(f"object {name}", options, known + sites) for name, options in bodies.items()}
    hand = np.empty((len(demo.states), 4, 4))
    things = {name: np.empty_like(hand) for name in found}
    for k, state in enumerate(demo.states):
        data.qpos[:] = state[1 : 1 + model.nq]
        mujoco.mj_kinematics(model, data)
        hand[k] = geometry.pose(data.site(site).xpos, data.site(site).xmat.reshape(3, 3))
        for name, part in found.items():
            at = data.body(part) if part in known else data.site(part)
            things[name][k] = geometry.pose(at.xpos, at.xmat.reshape(3, 3))
    closing = demo.actions[:, -1] > 0
    return Source(hand, asked_poses(hand, demo.actions, demo.codec), closing, things, demo.source_sha256, demo.hz)


def asked_poses(hand: np.ndarray, actions: np.ndarray, codec: str) -> np.ndarray:
    """Returns where OSC_POSE delta actions (steps, 7) wanted the hand (steps, 4, 4); `hand` itself for another action space.

    The turn is the hand's own: its sign changed between versions of robosuite.
    """
    asked = hand.copy()
    if codec == "osc_delta":
        asked[:, :3, 3] += _STEP_M * actions[:, :3]
    return asked


def kinematic_model(xml: str) -> mujoco.MjModel:
    """Returns the model of a recording without meshes, textures, actuators and sensors: its frames and joints are all there."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise DatasetError(f"the recorded model is not XML ({error})") from error
    for part in [part for part in root if part.tag in _NOT_KINEMATIC]:
        root.remove(part)
    for parent in list(root.iter()):
        for part in list(parent):
            if part.tag == "geom":
                parent.remove(part)
            elif part.tag == "site":
                part.attrib = {key: part.attrib[key] for key in ("name", "pos", "quat") if key in part.attrib}
                part.set("pos", " ".join(part.get("pos", "0 0 0").translate(str.maketrans("[],", "   ")).split()))
    compiler = root.find("compiler")
    if compiler is not None:
        compiler.attrib = {key: value for key, value in compiler.attrib.items() if key in ("angle", "coordinate", "autolimits")}
        compiler.set("boundmass", "0.001")
        compiler.set("boundinertia", "0.000001")
    try:
        return mujoco.MjModel.from_xml_string(ElementTree.tostring(root, encoding="unicode"))
    except ValueError as error:
        raise DatasetError(f"the recorded model does not compile: {' '.join(str(error).split())}") from error


def _find(what: str, options: Sequence[str], known: Sequence[str]) -> str:
    for name in options:
        if name in known:
            return name
    raise DatasetError(f"the recorded model has no {what} (looked for {', '.join(options)}){nearest(options[0], known)}")
