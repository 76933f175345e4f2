"""Capsules around two arms and a torso: seven, fifteen pairs that may touch, their clearances and where they are nearest."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import mujoco
import numpy as np

from robolearn.teleop.torso import SIDES, TORSO_HIGH_M, TORSO_LOW_M, TORSO_RADIUS_M, Torso

Array = np.ndarray
# 0 torso; 1, 2, 3 right upper arm, forearm, hand; 4, 5, 6 left. Not: neighbours on one arm, torso and upper arms.
PAIRS = tuple((i, j) for i in range(7) for j in range(i + 1, 7) if (i, j) not in {(1, 2), (2, 3), (4, 5), (5, 6), (0, 1), (0, 4)})
SAMPLES = 40  # poses over which the radii enclose the real shapes
VERTICES = 400  # of a mesh looked at, at most


class Near(NamedTuple):
    """clearance (pairs,) [m]; s, t (pairs,): where on the axes they are nearest, 0 .. 1; normal (pairs, 3) from one to two."""

    clearance: Array
    s: Array
    t: Array
    normal: Array


def segments(points: Array) -> tuple[Array, Array]:
    """Returns the ends (7, 3) and (7, 3) of the capsules' axes for keypoints (2, 4, 3) in the torso frame."""
    low, high = np.array([0.0, 0.0, TORSO_LOW_M]), np.array([0.0, 0.0, TORSO_HIGH_M])
    starts = np.concatenate([[low], points[0, :3], points[1, :3]])
    return starts, np.concatenate([[high], points[0, 1:], points[1, 1:]])


def near(points: Array, radii: Array) -> Near:
    """Returns how near the fifteen pairs are for keypoints (2, 4, 3) [m] and radii (7,) [m]."""
    starts, ends = segments(points)
    i, j = np.array(PAIRS).T
    s, t = closest(starts[i], ends[i], starts[j], ends[j])
    one = starts[i] + s[:, None] * (ends[i] - starts[i])
    two = starts[j] + t[:, None] * (ends[j] - starts[j])
    gap = two - one
    distance = np.linalg.norm(gap, axis=1)
    normal = np.where(distance[:, None] > 1e-9, gap / np.maximum(distance, 1e-9)[:, None], np.array([0.0, 0.0, 1.0]))
    return Near(distance - radii[i] - radii[j], s, t, normal)


def closest(a0: Array, a1: Array, b0: Array, b1: Array) -> tuple[Array, Array]:
    """Returns (s, t) (n,) in [0, 1] where segments a and b (n, 3) are nearest (Ericson, Real-Time Collision Detection, 5.1.9)."""
    u, v, w = a1 - a0, b1 - b0, a0 - b0
    a, b, c = np.sum(u * u, 1), np.sum(u * v, 1), np.sum(v * v, 1)
    d, e = np.sum(u * w, 1), np.sum(v * w, 1)
    a, c = np.maximum(a, 1e-12), np.maximum(c, 1e-12)
    denominator = a * c - b * b
    s = np.where(denominator > 1e-12 * a * c, np.clip((b * e - c * d) / np.maximum(denominator, 1e-18), 0, 1), 0.0)
    t = (b * s + e) / c
    s = np.where(t < 0, np.clip(-d / a, 0, 1), np.where(t > 1, np.clip((b - d) / a, 0, 1), s))
    return s, np.clip(t, 0, 1)


@lru_cache(maxsize=8)
def radii(torso: Torso) -> Array:
    """Returns the radii (7,) [m] that enclose the collision shapes of both arms in random poses, 2 % added."""
    rng, data = np.random.default_rng(0), mujoco.MjData(torso.model)
    out = np.zeros(7)
    out[0] = TORSO_RADIUS_M
    shapes = [_shapes(torso, side) for side in range(2)]
    for _ in range(SAMPLES):
        q = np.stack([rng.uniform(arm.low, arm.high) for arm in torso.arms])
        for side in range(2):
            data.qpos[torso.qpos_of(side)] = q[side]
        mujoco.mj_kinematics(torso.model, data)
        starts, ends = segments(torso.keypoints(q))
        for side in range(2):
            for capsule, geom, vertices in shapes[side]:
                points = vertices @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
                k = 3 * side + capsule
                out[k] = max(out[k], float(_from_segment(points, starts[k], ends[k]).max()))
    out[1:] *= 1.02
    return out


def _from_segment(points: Array, start: Array, end: Array) -> Array:
    along = end - start
    t = np.clip((points - start) @ along / max(float(along @ along), 1e-12), 0, 1)
    return np.linalg.norm(points - start - t[:, None] * along, axis=1)


def _shapes(torso: Torso, side: int) -> list[tuple[int, int, Array]]:
    """Returns (capsule 1 .. 3, geom, vertices (n, 3) in its frame) of an arm's collision shapes behind the second joint."""
    model, arm = torso.model, torso.arms[side]
    joint_body = [int(model.jnt_bodyid[model.joint(name).id]) for name in arm.joint_names]
    found = []
    for geom in range(model.ngeom):
        if not (model.geom_contype[geom] or model.geom_conaffinity[geom]):
            continue
        depth = _depth(model, int(model.geom_bodyid[geom]), joint_body)
        if depth < 2 or not model.body(int(model.geom_bodyid[geom])).name.startswith(SIDES[side]):
            continue
        capsule = 1 if depth <= 3 else 2 if depth <= 5 else 3
        found.append((capsule, geom, _vertices(model, geom)))
    return found


def _depth(model: mujoco.MjModel, body: int, joint_body: list[int]) -> int:
    """Returns how many of the arm's joints carry a body."""
    while body and body not in joint_body:
        body = int(model.body_parentid[body])
    return joint_body.index(body) + 1 if body else 0


def _vertices(model: mujoco.MjModel, geom: int) -> Array:
    if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = int(model.geom_dataid[geom])
        start, n = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
        vertices: Array = model.mesh_vert[start : start + n]
        return vertices[:: max(1, n // VERTICES)].astype(float)
    half = model.geom_aabb[geom][3:]
    corners = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), -1).reshape(-1, 3)
    return model.geom_aabb[geom][:3] + corners * half
