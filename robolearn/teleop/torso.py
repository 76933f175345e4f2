"""Two arms on one torso, for bimanual use: robosuite's Pandas or IIWAs, mounted like a person's, bases pointing sideways.

The torso frame is the world's: x forward, y left, z up. Right is 0, left is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import mujoco
import numpy as np

from robolearn import geometry
from robolearn.errors import UnknownName
from robolearn.teleop import robots
from robolearn.teleop.arm import Arm

Array = np.ndarray
SIDES = ("right_", "left_")
ARMS = ("panda", "iiwa")
APART_M = 0.20  # from the middle to each base
TORSO_RADIUS_M, TORSO_LOW_M, TORSO_HIGH_M = 0.13, -0.55, 0.05


@dataclass(frozen=True, eq=False)
class Torso:
    """The model, its two arms (in their own base frames), and torso_from_base (4, 4) of each."""

    model: mujoco.MjModel
    arms: tuple[Arm, Arm]
    torso_from_base: tuple[Array, Array]

    def qpos_of(self, side: int) -> Array:
        """Returns the addresses (7,) of an arm's joints in qpos."""
        return np.array([self.model.joint(name).qposadr[0] for name in self.arms[side].joint_names])

    def keypoints(self, q: Array) -> Array:
        """Returns shoulder, elbow, wrist and hand of both arms (2, 4, 3) [m] in the torso frame at q (2, 7)."""
        out = np.empty((2, 4, 3))
        for side in range(2):
            base = self.torso_from_base[side]
            out[side] = self.arms[side].keypoints(q[side]) @ base[:3, :3].T + base[:3, 3]
        return out


@cache
def torso(name: str) -> Torso:
    """Returns two arms `name` on one torso; UnknownName with the nearest one."""
    if name not in ARMS:
        raise UnknownName("bimanual arm", name, ARMS)
    entry, spec = robots.entry(name), mujoco.MjSpec()
    body = spec.worldbody.add_body(name="torso")
    middle = (TORSO_LOW_M + TORSO_HIGH_M) / 2
    half = (TORSO_HIGH_M - TORSO_LOW_M) / 2
    body.add_geom(name="torso", type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=[TORSO_RADIUS_M, half, 0], pos=[0, 0, middle])
    for side, prefix in enumerate(SIDES):
        child = mujoco.MjSpec.from_file(str(robots.path_of(name)))
        for actuator in list(child.actuators):
            child.delete(actuator)
        place = world_from_mount(side)
        frame = body.add_frame(pos=place[:3, 3], quat=geometry.quat_wxyz_from_matrix(place[:3, :3]))
        frame.attach_body(child.body("base"), prefix, "")
    model = spec.compile()
    joints = [[prefix + joint for joint in entry.joints] for prefix in SIDES]
    arms = [
        Arm.from_mjcf(model, prefix + entry.base, names, prefix + entry.hand, f"{prefix}{name}")
        for prefix, names in zip(SIDES, joints, strict=True)
    ]
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    bases = [model.body(prefix + entry.base).id for prefix in SIDES]
    places = [geometry.pose(data.xpos[base], data.xmat[base].reshape(3, 3)) for base in bases]
    return Torso(model, (arms[0], arms[1]), (places[0], places[1]))


def world_from_mount(side: int) -> Array:
    """Returns where a base stands (4, 4) [m]: its z points outwards, its x down, so that a hanging arm is far from the pole."""
    out = -1.0 if side == 0 else 1.0
    z, x = np.array([0.0, out, 0.0]), np.array([0.0, 0.0, -1.0])
    return geometry.pose(np.array([0.0, out * APART_M, 0.0]), np.stack([x, np.cross(z, x), z], axis=1))
