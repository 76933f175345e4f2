"""The scene of the two-handed bench as MJCF: a table, a floating parallel gripper, two cameras, and what a task lays down.

The gripper is a free body whose origin is the flange; z is the approach, y the way the fingers open. The middles of the inner
sides of its fingertips lie FINGER_LENGTH from the flange and OPEN_HALF to either side when open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TIMESTEP = 0.004  # [s]
FINGER_LENGTH = 0.15  # [m] from the flange to the fingertips' points
OPEN_HALF, CLOSED_HALF = 0.05, 0.025  # [m] from the middle to either fingertip, at gripper_open 1 and 0
TIGHTEST_HALF = 0.018  # [m]: the fingers can go on beyond closed, to press on what they hold
MASS, INERTIA = 1.0, 0.004  # [kg], [kg m^2], of the gripper; weight is taken off it
PAD_WIDTH = 0.011  # [m] half width of a finger across the opening
CAMERAS = ("left", "right")
LOOK_AT = (0.0, 0.0, 0.16)  # [m], of both cameras
FOVY = 40.0  # [deg]


@dataclass(frozen=True)
class Bone:
    """A capsule of the drawn hand between two landmarks, `radius` [m] thick."""

    start: int
    end: int
    radius: float


def scene_xml(objects: str, bones: tuple[Bone, ...], episode_facts: int) -> str:
    """Returns the MJCF of a scene; `objects`: bodies of the task; `bones`: the drawn hand, empty for the drawn gripper.

    episode_facts: how many numbers of an episode stand in `userdata`, beside the physics.
    """
    return f"""
<mujoco model="two_hands">
  <compiler angle="degree"/>
  <option timestep="{TIMESTEP}" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <size nuserdata="{episode_facts}"/>
  <visual><headlight ambient="0.45 0.45 0.45" diffuse="0.35 0.35 0.35" specular="0 0 0"/><map znear="0.05"/></visual>
  <asset><texture type="skybox" builtin="gradient" rgb1="0.80 0.85 0.90" rgb2="0.45 0.50 0.56" width="64" height="384"/></asset>
  <default>
    <geom group="1" friction="1 0.02 0.0005" condim="4"/>
    <default class="pad"><geom friction="1.6 0.05 0.001" priority="1"/></default>
    <default class="drawn"><geom contype="0" conaffinity="0" mass="0"/></default>
  </default>
  <worldbody>
    <light pos="-0.4 -0.7 1.4" dir="0.3 0.5 -1" diffuse="0.45 0.45 0.45" specular="0.1 0.1 0.1" castshadow="false"/>
    <geom name="table" type="box" size="0.55 0.45 0.02" pos="0 0 -0.02" rgba="0.72 0.66 0.58 1"/>
    <geom name="floor" class="drawn" type="box" size="3 3 0.01" pos="0 0 -0.6" rgba="0.35 0.38 0.42 1"/>
    {_camera("left", (-0.56, -0.70, 0.60))}
    {_camera("right", (0.56, -0.70, 0.60))}
    <body name="goal" mocap="true" pos="0 0 0.4"/>
    <body name="gripper" pos="0 0 0.4" gravcomp="1">
      <freejoint name="gripper"/>
      <inertial pos="0 0 0" mass="{MASS}" diaginertia="{INERTIA} {INERTIA} {INERTIA}"/>
      {_palm(bool(bones))}
      {_finger("left", 1, bool(bones))}
      {_finger("right", -1, bool(bones))}
    </body>
    {_hand(bones)}
    {objects}
  </worldbody>
  <equality><joint joint1="finger_left" joint2="finger_right" polycoef="0 1 0 0 0" solref="0.008 1"/></equality>
  <contact><exclude body1="left_finger" body2="right_finger"/></contact>
  <actuator>
    <position joint="finger_left" kp="500" kv="16" forcerange="-12 12" ctrlrange="{TIGHTEST_HALF} {OPEN_HALF}"/>
    <position joint="finger_right" kp="500" kv="16" forcerange="-12 12" ctrlrange="{TIGHTEST_HALF} {OPEN_HALF}"/>
  </actuator>
</mujoco>"""


def _palm(hidden: bool) -> str:
    """Returns the palm across the fingers' roots, and a wrist above it."""
    group = 5 if hidden else 1
    return (
        f'<geom group="{group}" type="box" size="0.022 0.068 0.02" pos="0 0 0.035" mass="0" rgba="0.22 0.23 0.26 1"/>'
        f'<geom class="drawn" group="{group}" type="cylinder" size="0.03 0.04" pos="0 0 -0.025" rgba="0.85 0.86 0.88 1"/>'
        f'<geom class="drawn" group="{group}" type="cylinder" size="0.038 0.06" pos="0 0 -0.12" rgba="0.85 0.86 0.88 1"/>'
    )


def _finger(name: str, side: int, hidden: bool) -> str:
    """Returns one finger, on the side +1 or -1 of the gripper's y; its joint is the distance [m] from the middle."""
    group = 5 if hidden else 1
    return f"""
      <body name="{name}_finger" pos="0 0 0" gravcomp="1">
        <joint name="finger_{name}" type="slide" axis="0 {side} 0" range="{TIGHTEST_HALF} {OPEN_HALF}" damping="2"/>
        <inertial pos="0 {side * 0.008} 0.1" mass="0.03" diaginertia="1e-4 1e-4 1e-4"/>
        <geom name="{name}_pad" class="pad" group="{group}" type="box" size="{PAD_WIDTH} 0.006 0.055"
              pos="0 {side * 0.006} 0.108" rgba="0.16 0.40 0.70 1"/>
      </body>"""


def _hand(bones: tuple[Bone, ...]) -> str:
    """Returns the capsules of the drawn hand, below the table until `_two_hands_hand.place` puts them between landmarks."""
    return "\n".join(
        f'<geom name="bone_{k}" class="drawn" type="capsule" size="{bone.radius} 0.02" pos="0 0 -0.3" rgba="0.85 0.64 0.52 1"/>'
        for k, bone in enumerate(bones)
    )


def _camera(name: str, position: tuple[float, float, float]) -> str:
    """Returns an upright camera at `position` [m] that looks at LOOK_AT."""
    back = np.subtract(position, LOOK_AT)
    back /= np.linalg.norm(back)
    right = np.cross((0.0, 0.0, 1.0), back)
    right /= np.linalg.norm(right)
    axes = " ".join(f"{value:.9f}" for value in (*right, *np.cross(back, right)))
    return f'<camera name="{name}" pos="{position[0]} {position[1]} {position[2]}" xyaxes="{axes}" fovy="{FOVY}"/>'


def lying(position: Sequence[float], yaw: float) -> np.ndarray:
    """Returns the free joint's numbers (7,) of a thing at `position` [m], upright, its heading `yaw` [rad]."""
    return np.array([*position, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])
