"""Reads the seven axes of an arm out of a MuJoCo model: everything in the arm's base frame, at joint angles zero."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np

from robolearn.errors import BadInput, nearest

Array = np.ndarray


class Chain(NamedTuple):
    """What a model says of one arm. All (3,) and (3, 3) in the base frame at q = 0, lengths [m], angles [rad]."""

    axes: Array  # (7, 3)
    anchors: Array  # (7, 3)
    hand_rotation: Array  # (3, 3)
    hand_position: Array  # (3,)
    low: Array  # (7,)
    high: Array  # (7,)


def load(model: mujoco.MjModel | str | os.PathLike[str]) -> mujoco.MjModel:
    """Returns a compiled model from a model, a path of an MJCF or URDF file, or MJCF text; BadInput in one line otherwise."""
    if isinstance(model, mujoco.MjModel):
        return model
    text = os.fspath(model)
    try:
        if text.lstrip().startswith("<"):
            spec = mujoco.MjSpec.from_string(text)
        elif Path(text).is_file():
            spec = mujoco.MjSpec.from_file(text)
        else:
            raise BadInput(f"{text}: no such model file")
        spec.compiler.fusestatic = False  # a URDF's base and hand are bodies that no joint moves: they must stay
        return spec.compile()
    except ValueError as error:
        raise BadInput(f"{text[:80]}: MuJoCo cannot compile this model: {' '.join(str(error).split())}") from error


def chain(model: mujoco.MjModel, base: str, joints: Sequence[str], hand: str) -> Chain:
    """Returns the arm between the bodies `base` and `hand`; BadInput names what the model does not have."""
    if len(joints) != 7:
        raise BadInput(f"arm: want seven joints, got {len(joints)}; a six-joint arm has no elbow to place")
    base_id, hand_id = (_named(model, mujoco.mjtObj.mjOBJ_BODY, "body", name) for name in (base, hand))
    ids = [_named(model, mujoco.mjtObj.mjOBJ_JOINT, "joint", name) for name in joints]
    for name, j in zip(joints, ids, strict=True):
        if model.jnt_type[j] != mujoco.mjtJoint.mjJNT_HINGE:
            raise BadInput(f"arm: joint '{name}' does not turn; want seven hinges")
    data = mujoco.MjData(model)
    data.qpos[:] = model.qpos0
    data.qpos[[model.jnt_qposadr[j] for j in ids]] = 0.0
    mujoco.mj_kinematics(model, data)
    world_from_base, origin = data.xmat[base_id].reshape(3, 3), data.xpos[base_id]
    limited = np.array([bool(model.jnt_limited[j]) for j in ids])
    ranges = model.jnt_range[ids]
    return Chain(
        axes=data.xaxis[ids] @ world_from_base,
        anchors=(data.xanchor[ids] - origin) @ world_from_base,
        hand_rotation=world_from_base.T @ data.xmat[hand_id].reshape(3, 3),
        hand_position=(data.xpos[hand_id] - origin) @ world_from_base,
        low=np.where(limited, ranges[:, 0], -np.inf),
        high=np.where(limited, ranges[:, 1], np.inf),
    )


def _named(model: mujoco.MjModel, kind: mujoco.mjtObj, what: str, name: str) -> int:
    """Returns the id of a body or joint; BadInput with the nearest name."""
    found = mujoco.mj_name2id(model, kind, name)
    if found < 0:
        count = model.nbody if kind == mujoco.mjtObj.mjOBJ_BODY else model.njnt
        known = [mujoco.mj_id2name(model, kind, i) or "" for i in range(count)]
        raise BadInput(f"arm: the model has no {what} '{name}'{nearest(name, known)}")
    return found
