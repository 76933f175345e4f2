"""How a hand's target becomes an action of one body: a pose, joint angles through retargeting, a relative command, a point.

A drive knows one arm of one body. Poses are world_from_hand (4, 4) [m] of the body's own hand frame (the grip site of a
simulated arm); the operator's axes are x forward, y left, z up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from robolearn import geometry
from robolearn.core import Obs, Spec, TeleopSample
from robolearn.errors import SpecMismatch
from robolearn.teleop.clutch import Aligner
from robolearn.teleop.limits import Limiter

Array = np.ndarray
PX_PER_M = 1000.0  # of a planar table: 512 px are read as half a metre
TABLE_PX = 512.0
REACH = np.array([0.05, 0.05, 0.05, 0.5, 0.5, 0.5])  # [m, rad] of one relative command (robosuite's OSC_POSE)


class Drive(Protocol):
    """Turns where the hand should be into the block of an action that belongs to one arm."""

    @property
    def why(self) -> str:
        """What holds the arm still in spite of the hand, "" where nothing does."""

    def start(self, obs: Obs) -> None:
        """Begins an episode at this observation."""

    def measured(self, obs: Obs) -> Array:
        """Returns where the hand is: world_from_hand (4, 4) [m]."""

    def action(self, obs: Obs, target: Array, grip: float, sample: TeleopSample | None) -> Array:
        """Returns the action block (n,) that leads to `target` (4, 4); grip: 0 open .. 1 closed.

        sample: the newest one; None where it is old, or the hand not engaged.
        """


class Follower(Protocol):
    """Finds joint angles for a hand pose and the operator's limb directions, tick after tick; all in the arm's base frame."""

    def reset(self, q: Array) -> None: ...
    def step(self, position: Array, rotation: Array, upper: Array | None, lower: Array | None) -> Array: ...


def hand_pose(obs: Obs, suffix: str) -> Array:
    """Returns world_from_hand (4, 4) of the observations eef_pos and eef_rot6d."""
    rotation = geometry.matrix_from_rot6d(np.asarray(obs[f"eef_rot6d{suffix}"], float))
    return geometry.pose(np.asarray(obs[f"eef_pos{suffix}"], float), rotation)


@dataclass
class PoseDrive:
    """Of bodies that are told where the hand should be: position, two rows of its rotation, gripper (-1 open .. 1 closed)."""

    suffix: str = ""
    why: str = ""

    def start(self, obs: Obs) -> None:
        """Has nothing to remember."""

    def measured(self, obs: Obs) -> Array:
        """Returns world_from_hand (4, 4) [m]."""
        return hand_pose(obs, self.suffix)

    def action(self, obs: Obs, target: Array, grip: float, sample: TeleopSample | None) -> Array:
        """Returns (10,): the target itself."""
        return np.concatenate([target[:3, 3], geometry.rot6d_from_matrix(target[:3, :3]), [2 * grip - 1]])


@dataclass
class RelativeDrive:
    """Of bodies that are told how far to move from where the hand is, in shares of `reach`."""

    suffix: str = ""
    world_from_base: Array | None = None  # (3, 3), of the axes that the command means; None: the world's
    why: str = ""

    def start(self, obs: Obs) -> None:
        """Has nothing to remember."""

    def measured(self, obs: Obs) -> Array:
        """Returns world_from_hand (4, 4) [m]."""
        return hand_pose(obs, self.suffix)

    def action(self, obs: Obs, target: Array, grip: float, sample: TeleopSample | None) -> Array:
        """Returns (7,) in [-1, 1]: as much of the way as one command can go."""
        now = self.measured(obs)
        turn = geometry.rotvec_from_matrix(target[:3, :3] @ now[:3, :3].T)
        step = np.stack([target[:3, 3] - now[:3, 3], turn])
        if self.world_from_base is not None:
            step = step @ self.world_from_base
        return np.concatenate([np.clip(step.ravel() / REACH, -1.0, 1.0), [2 * grip - 1]])


@dataclass
class JointDrive:
    """Of bodies that are told joint angles: a `Follower` finds them; a leader arm's own angles pass through.

    world_from_base (4, 4): the arm's base; grip_from_hand (4, 4): the hand body seen from the grip site; base_from_torso (3, 3):
    turns the operator's torso frame into the arm's base frame.
    """

    follower: Follower
    world_from_base: Array
    grip_from_hand: Array
    base_from_torso: Array
    suffix: str = ""
    align: Aligner | None = None
    limiter: Limiter | None = None  # of a leader arm's angles; a follower has its own cap
    period_s: float = 0.05

    @property
    def why(self) -> str:
        """Why a leader arm is not followed yet."""
        return self.align.why if self.align is not None and self._led else ""

    def start(self, obs: Obs) -> None:
        """Begins at the joint angles of now."""
        self._command = np.asarray(obs[f"joint_pos{self.suffix}"], float)
        self._led = False
        self.follower.reset(self._command)
        self._release()

    def measured(self, obs: Obs) -> Array:
        """Returns world_from_hand (4, 4) [m] of the grip site."""
        return hand_pose(obs, self.suffix)

    def action(self, obs: Obs, target: Array, grip: float, sample: TeleopSample | None) -> Array:
        """Returns (8,): joint angles [rad] and gripper."""
        if sample is not None and sample.joints is not None:
            self._led = True
            self._lead(np.asarray(sample.joints, float))
        elif self._led:  # a leader that is silent or let go: the arm stays, and is aligned anew afterwards
            self._release()
        else:
            base_from_hand = geometry.inverse(self.world_from_base) @ target @ self.grip_from_hand
            upper, lower = self._limb(sample)
            self._command = self.follower.step(base_from_hand[:3, 3], base_from_hand[:3, :3], upper, lower)
        return np.concatenate([self._command, [2 * grip - 1]])

    def _lead(self, leader: Array) -> None:
        wanted = self.align(leader, self._command) if self.align is not None else leader
        self._command = self.limiter.step(wanted, self.period_s)[0] if self.limiter is not None else wanted

    def _release(self) -> None:
        if self.align is not None:
            self.align.aligned = False
        if self.limiter is not None:
            self.limiter.reset(self._command)

    def _limb(self, sample: TeleopSample | None) -> tuple[Array | None, Array | None]:
        if sample is None or sample.keypoints is None:
            return None, None
        shoulder, elbow, wrist = sample.keypoints @ self.base_from_torso.T
        return elbow - shoulder, wrist - elbow


@dataclass
class PlanarDrive:
    """Of a pusher on a table seen from above (PushT): forward is up in the picture, left is left; 1 mm is one pixel."""

    why: str = ""

    def start(self, obs: Obs) -> None:
        """Has nothing to remember."""

    def measured(self, obs: Obs) -> Array:
        """Returns world_from_hand (4, 4) [m] with the pusher's place in it."""
        x_px, y_px = np.asarray(obs["state"], float)[:2]
        return geometry.pose(np.array([TABLE_PX - y_px, TABLE_PX - x_px, 0.0]) / PX_PER_M, np.eye(3))

    def action(self, obs: Obs, target: Array, grip: float, sample: TeleopSample | None) -> Array:
        """Returns (2,) [px]: where the pusher should be, on the table."""
        forward, left = target[:2, 3] * PX_PER_M
        return np.clip(np.array([TABLE_PX - left, TABLE_PX - forward]), 0.0, TABLE_PX)


def simple_drives(spec: Spec) -> list[Drive]:
    """Returns one drive for each arm of a body that needs no model of the arm; SpecMismatch where it needs one."""
    if spec.action.shape == (2,) and spec.action.unit == "px":
        return [PlanarDrive()]
    suffixes = sorted(key.removeprefix("eef_pos") for key in spec.obs if key.startswith("eef_pos"))
    if spec.codec == "pose_abs":
        return [PoseDrive(suffix) for suffix in suffixes]
    if spec.codec == "osc_delta":
        return [RelativeDrive(suffix) for suffix in suffixes]
    space = spec.codec or spec.action.shape
    raise SpecMismatch(f"a hand cannot drive actions '{space}'; want pose_abs, osc_delta, joint_abs or a table seen from above")
