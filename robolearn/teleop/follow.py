"""What turns a hand pose into joint angles, tick after tick: SEW retargeting (`Sew`) or inverse kinematics of the hand alone
(`HandPose`, mink). Both start where the arm is, move no joint faster than `max_speed`, and never raise on a bad target.

An operator's arm is not where the robot's is (a table-top arm has its elbow up, a person's hangs down): `Sew` therefore takes
from the person how far the elbow has swung about the line shoulder-wrist since the start, and adds it to the robot's own swing.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from robolearn import geometry
from robolearn.errors import MissingDependency
from robolearn.teleop.arm import Arm
from robolearn.teleop.sew import Result, Stream

Array = np.ndarray
UP = np.array([0.0, 0.0, 1.0])
POSTURE = 1e-2  # cost of leaving the posture, beside 1 of the hand's place
ITERATIONS = 20
CLOSE_M, CLOSE_RAD = 1e-5, 1e-4  # where the iteration ends


class Sew:
    """Follows by SEW retargeting, mode C: the hand's pose exactly, the elbow's swing from the person. `result`: the last one."""

    def __init__(self, arm: Arm, hz: float, max_speed: float = 2.0, most_swing: float = 0.6) -> None:
        self.arm, self.most_swing = arm, most_swing
        self.stream = Stream(arm, hz, max_speed, mode="pose")
        self.result: Result | None = None

    def reset(self, q: Array) -> None:
        """Begins at joint angles q (7,) [rad]; the person's elbow is latched at the next step."""
        self.stream.reset(q)
        shoulder, elbow, wrist, _ = self.arm.keypoints(np.asarray(q, float))
        self._robot_0 = swing(elbow - shoulder, wrist - elbow)
        self._person_0: float | None = None
        self._swing = 0.0

    def step(self, position: Array, rotation: Array, upper: Array | None, lower: Array | None) -> Array:
        """Returns joint angles (7,) [rad] for the hand at `position` (3,) [m], `rotation` (3, 3); base frame throughout."""
        if upper is not None and lower is not None and np.isfinite([upper, lower]).all():
            now = swing(upper, lower)
            self._person_0 = now if self._person_0 is None else self._person_0
            self._swing = float(np.clip(geometry.wrap(now - self._person_0), -self.most_swing, self.most_swing))
        shoulder, _, wrist, _ = self.arm.keypoints(self.stream.q)
        up, fore = limbs(wrist - shoulder, self._robot_0 + self._swing)
        self.result = self.stream.step(up, fore, rotation, position)
        return self.result.q


class HandPose:
    """Follows by differential inverse kinematics of the hand's pose alone, the posture of the start settling the elbow (mink)."""

    def __init__(self, arm: Arm, model: mujoco.MjModel, hand: str, hz: float, max_speed: float = 2.0) -> None:
        try:
            import mink
        except ImportError as error:
            raise MissingDependency("mink", "inverse kinematics of the hand's pose", "pip install mink daqp") from error
        self.mink, self.arm, self.most = mink, arm, max_speed / hz
        self.qpos = [int(model.jnt_qposadr[model.joint(joint).id]) for joint in arm.joint_names]
        self.configuration = mink.Configuration(model)
        self.hand_task = mink.FrameTask(hand, "body", position_cost=1.0, orientation_cost=0.3, gain=1.0, lm_damping=1e-6)
        self.posture_task = mink.PostureTask(model, cost=POSTURE)
        self.limits = [mink.ConfigurationLimit(model)]
        zero = arm.middle()
        self._configure(zero)
        body = model.body(hand).id
        world_from_hand = geometry.pose(self.configuration.data.xpos[body], self.configuration.data.xmat[body].reshape(3, 3))
        self.world_from_base = world_from_hand @ geometry.inverse(arm.pose(zero))

    def reset(self, q: Array) -> None:
        """Begins at joint angles q (7,) [rad], which are the posture kept from then on."""
        self.q = np.clip(np.asarray(q, float), self.arm.low, self.arm.high)
        self._configure(self.q)
        self.posture_task.set_target(self.configuration.q)

    def step(self, position: Array, rotation: Array, upper: Array | None, lower: Array | None) -> Array:
        """Returns joint angles (7,) [rad] for the hand at `position` (3,) [m], `rotation` (3, 3), base frame; no elbow asked."""
        del upper, lower
        target = self.world_from_base @ geometry.pose(np.asarray(position, float), np.asarray(rotation, float))
        if not np.isfinite(target).all():
            return self.q.copy()
        self.hand_task.set_target(self.mink.SE3.from_matrix(target))
        self._configure(self.q)
        for _ in range(ITERATIONS):
            if not self._iterate():
                break
        found = np.clip(self.configuration.q[self.qpos], self.arm.low, self.arm.high)
        self.q = self.q + np.clip(found - self.q, -self.most, self.most)
        return self.q.copy()

    def _iterate(self) -> bool:
        """Moves the configuration one step nearer; False where there is nothing left to do."""
        error = self.hand_task.compute_error(self.configuration)
        if np.linalg.norm(error[:3]) < CLOSE_M and np.linalg.norm(error[3:]) < CLOSE_RAD:
            return False
        tasks: list[Any] = [self.hand_task, self.posture_task]
        try:
            velocity = self.mink.solve_ik(self.configuration, tasks, 1.0, "daqp", damping=1e-6, limits=self.limits)
        except self.mink.MinkError:
            return False  # no solution of the programme: what has been reached so far is kept
        self.configuration.integrate_inplace(velocity, 1.0)
        return bool(np.linalg.norm(velocity) > 1e-7)

    def _configure(self, q: Array) -> None:
        full = np.array(self.configuration.q)
        full[self.qpos] = q
        self.configuration.update(full)


def swing(upper: Array, lower: Array) -> float:
    """Returns the angle [rad] of the elbow about the line shoulder to wrist, from the upward direction, right-handed."""
    reach = np.asarray(upper, float) + lower
    e, level, above = _frame(reach)
    out = np.asarray(upper, float) - (upper @ e) * e
    return float(np.arctan2(out @ level, out @ above))


def limbs(reach: Array, angle: float) -> tuple[Array, Array]:
    """Returns unit directions (3,) of an upper arm and a forearm along `reach` (3,) whose elbow has the swing `angle` [rad]."""
    e, level, above = _frame(np.asarray(reach, float))
    out = np.cos(angle) * above + np.sin(angle) * level
    return (e + out) / np.sqrt(2.0), (e - out) / np.sqrt(2.0)


def _frame(reach: Array) -> tuple[Array, Array, Array]:
    e = reach / max(float(np.linalg.norm(reach)), 1e-9)
    level = np.cross(UP, e)
    size = float(np.linalg.norm(level))
    level = level / size if size > 1e-6 else np.array([0.0, 1.0, 0.0])
    return e, level, np.cross(e, level)
