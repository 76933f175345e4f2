"""Wires a device to a body: which drive its arms need, from which model the retargeting reads the arm, who may drive what."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import mujoco
import numpy as np

from hardware._base import Device
from robolearn import geometry
from robolearn.core import Env, SimEnv
from robolearn.errors import SpecMismatch
from robolearn.teleop.arm import Arm
from robolearn.teleop.clutch import Aligner, Clutch, Feel
from robolearn.teleop.drives import Drive, Follower, JointDrive, simple_drives
from robolearn.teleop.follow import Sew
from robolearn.teleop.human import Tracker
from robolearn.teleop.limits import Limiter
from robolearn.teleop.pilot import Pilot, Seat

TABLE = np.eye(3)  # base_from_torso of an arm on a table before the person: both look the same way
LEADER_SPEED, LEADER_ACCELERATION = 2.0, 20.0  # [rad/s], [rad/s^2] of an arm that follows a leader


def may_drive(device: Device, name: str, body: Env) -> None:
    """Raises SpecMismatch where a device without a dead-man switch would move something real."""
    if not device.deadman and not isinstance(body, SimEnv):
        raise SpecMismatch(f"device {name} has no dead-man switch, so it may drive simulations only; use one that has")


def pilot(
    body: Any, device: Device, feel: Feel = Feel(), clock: Callable[[], float] = time.monotonic, noisy: bool = False
) -> Pilot:
    """Returns the person at `device` as the mind of `body`; noisy: its keypoints want filtering (a camera's)."""
    drives = drives_of(body, device.kind)
    if device.arms < len(drives):
        raise SpecMismatch(f"the body has {len(drives)} arms, the device {device.arms}; use one with a hand for each")
    trackers = [Tracker(keep_level=True) if noisy else None for _ in drives]
    seats = [Seat(drive, Clutch(feel), hand, tracker=trackers[hand]) for hand, drive in enumerate(drives)]
    silent = device.kind == "delta" and not device.deadman  # a keyboard says nothing between presses
    return Pilot(body.spec, device.read, seats, clock, live=not silent)


def drives_of(body: Any, kind: str) -> Sequence[Drive]:
    """Returns one drive for each arm of a body."""
    if body.spec.codec != "joint_abs":
        if kind == "joints":
            raise SpecMismatch(
                f"a leader arm gives joint angles, the body takes '{body.spec.codec}'; record with --action joint_abs"
            )
        return simple_drives(body.spec)
    return [joint_drive(body, k) for k in range(len(body.arms))]


def joint_drive(body: Any, k: int) -> JointDrive:
    """Returns the drive of arm `k` of a robosuite body that is told joint angles; the arm is read from the body's own model."""
    arm = arm_of(body, k)
    return seated(body, k, Sew(arm, body.spec.hz), arm, hand_of(body, k))


def seated(body: Any, k: int, follower: Follower, arm: Arm, hand: str) -> JointDrive:
    """Returns the drive of arm `k` whose joints `follower` finds; arm: as it is known down to the body `hand`."""
    part, data = body.arms[k], body.data
    mujoco.mj_kinematics(body.model, data)
    world_from_hand = geometry.pose(data.body(hand).xpos, data.body(hand).xmat.reshape(3, 3))
    world_from_base = world_from_hand @ geometry.inverse(arm.pose(data.qpos[part.qpos]))
    grip_from_hand = geometry.inverse(body.eef_pose(k)) @ world_from_hand
    align, limiter = Aligner(len(part.qpos)), Limiter(LEADER_SPEED, LEADER_ACCELERATION, arm.low, arm.high)
    period_s = 1.0 / body.spec.hz
    return JointDrive(follower, world_from_base, grip_from_hand, TABLE, body.suffixes[k], align, limiter, period_s)


def arm_of(body: Any, k: int = 0) -> Arm:
    """Returns arm `k` of a robosuite body as the retargeting knows it, down to the body that carries the grip site."""
    part, model = body.arms[k], body.model
    by_address = {int(model.jnt_qposadr[j]): model.joint(j).name for j in range(model.njnt)}
    joints = [by_address[int(address)] for address in part.qpos]
    return Arm.from_mjcf(model, model.body(part.base).name, joints, hand_of(body, k))


def hand_of(body: Any, k: int = 0) -> str:
    """Returns the name of the body that carries the grip site of arm `k`."""
    name: str = body.model.body(int(body.model.site_bodyid[body.arms[k].site])).name
    return name
