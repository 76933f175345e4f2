"""Which pairs of shapes of a model an arm's joints can bring together, and how fast: read once from its kinematic tree."""

from __future__ import annotations

from typing import NamedTuple

import mujoco
import numpy as np

from robolearn.errors import BadInput, nearest

Array = np.ndarray
_TYPES = ("PLANE", "SPHERE", "CAPSULE", "ELLIPSOID", "CYLINDER", "BOX", "MESH")


class Watched(NamedTuple):
    """qpos: (n,) where the joints are in qpos; geoms: (pairs, 2); own: (pairs,) both are the arm's.

    reach: (pairs, n) [m/rad], [m/m]: how much a distance can change at most for each unit that a joint moves.
    """

    qpos: Array
    geoms: Array
    own: Array
    reach: Array


def watched(model: mujoco.MjModel, joints: tuple[str, ...], ignore: tuple[str, ...]) -> Watched:
    """Returns the pairs that can collide and whose distance the joints change; neighbours on the arm are left out.

    BadInput for unknown names, joints that are no hinges or slides, shapes without a distance, and where there is no pair.
    """
    ids = [_index(model, mujoco.mjtObj.mjOBJ_JOINT, "joint", name) for name in joints]
    for name, joint in zip(joints, ids, strict=True):
        if model.jnt_type[joint] not in (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE):
            raise BadInput(f"collision: joint '{name}' is neither hinge nor slide")
    ignored = {_index(model, mujoco.mjtObj.mjOBJ_BODY, "body", name) for name in ignore}
    chains = [_ancestors(model, body) for body in range(model.nbody)]
    arm = {body for joint in ids for body in chains[model.jnt_bodyid[joint]]}
    geoms = [
        geom
        for geom in range(model.ngeom)
        if (model.geom_contype[geom] or model.geom_conaffinity[geom]) and not ignored & set(chains[model.geom_bodyid[geom]])
    ]
    moved = {geom: np.array([_reach(model, joint, geom, chains) for joint in ids]) for geom in geoms}
    found, own, reach = [], [], []
    for place, first in enumerate(geoms):
        for second in geoms[place + 1 :]:
            # A joint that carries both shapes changes nothing between them.
            change = np.where((moved[first] > 0) & (moved[second] > 0), 0.0, moved[first] + moved[second])
            if change.any() and _may_collide(model, first, second):
                found.append((first, second))
                own.append(all(model.geom_bodyid[g] in arm or moved[g].any() for g in (first, second)))
                reach.append(change)
    if not found:
        raise BadInput("collision: the arm's joints change the distance of no two shapes that can collide")
    for geom in {geom for pair in found for geom in pair}:
        kind = mujoco.mjtGeom(int(model.geom_type[geom])).name.removeprefix("mjGEOM_")
        if kind not in _TYPES:
            raise BadInput(
                f"collision: no distance to a shape of kind {kind.lower()} (known: {', '.join(_TYPES).lower()}); ignore its body"
            )
    return Watched(model.jnt_qposadr[ids], np.array(found), np.array(own), np.array(reach))


def _ancestors(model: mujoco.MjModel, body: int) -> list[int]:
    """Returns a body and all that carry it, without the world."""
    chain = []
    while body:
        chain.append(int(body))
        body = int(model.body_parentid[body])
    return chain


def _reach(model: mujoco.MjModel, joint: int, geom: int, chains: list[list[int]]) -> float:
    """Returns how far [m] any point of a geom can be from the axis of a joint that carries it; 0 where none, 1 for a slide.

    That is the sum of all lengths on the way, so it holds wherever the joints between are.
    """
    carrier = int(model.jnt_bodyid[joint])
    chain = chains[model.geom_bodyid[geom]]
    if carrier not in chain:
        return 0.0
    if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_SLIDE:
        return 1.0
    far = float(np.linalg.norm(model.jnt_pos[joint]) + np.linalg.norm(model.geom_pos[geom]) + model.geom_rbound[geom])
    for body in chain[: chain.index(carrier) + 1]:
        far += float(np.linalg.norm(model.body_pos[body])) if body != carrier else 0.0
        first = int(model.body_jntadr[body])
        far += sum(_play(model, other) for other in range(first, first + int(model.body_jntnum[body])) if other != joint)
    return far


def _play(model: mujoco.MjModel, joint: int) -> float:
    """Returns how far [m] a joint can move the origin of its own body."""
    if model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_SLIDE:
        return 2 * float(np.linalg.norm(model.jnt_pos[joint]))
    if not model.jnt_limited[joint]:
        raise BadInput(f"collision: joint '{model.joint(joint).name}' slides without limits; give it a range")
    return float(np.abs(model.jnt_range[joint] - model.qpos0[model.jnt_qposadr[joint]]).max())


def _may_collide(model: mujoco.MjModel, first: int, second: int) -> bool:
    masks = model.geom_contype, model.geom_conaffinity
    if not (masks[0][first] & masks[1][second] or masks[0][second] & masks[1][first]):
        return False
    one, two = (int(model.geom_bodyid[geom]) for geom in (first, second))
    excluded = {int(signature) for signature in model.exclude_signature}
    if {(one << 16) + two, (two << 16) + one} & excluded:
        return False
    return not (_neighbours(model, one, two) or _neighbours(model, two, one))


def _neighbours(model: mujoco.MjModel, body: int, parent: int) -> bool:
    """Returns whether a body is carried by `parent` directly; of what stands, only the very body that carries it."""
    welded = int(model.body_weldid[body])
    carrier = int(model.body_parentid[welded])
    if welded == model.body_weldid[parent]:
        return True
    return bool(welded) and bool(parent) and (carrier == parent or model.body_weldid[carrier] == model.body_weldid[parent] != 0)


def _index(model: mujoco.MjModel, kind: mujoco.mjtObj, what: str, name: str) -> int:
    index = mujoco.mj_name2id(model, kind, name)
    if index < 0:
        count = model.njnt if what == "joint" else model.nbody
        known = [mujoco.mj_id2name(model, kind, i) or "" for i in range(count)]
        raise BadInput(f"collision: the model has no {what} '{name}'{nearest(name, [n for n in known if n])}")
    return int(index)
