"""mink as the peer: the same objective as SEW retargeting, which mink 1.2 has no task for, and the hand's pose alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mink
import mujoco
import numpy as np

from robolearn import geometry
from robolearn.apps._teleop_streams import Target
from robolearn.teleop import robots
from robolearn.teleop.align_task import AxisAlign
from robolearn.teleop.arm import Arm

Array = np.ndarray
MOST_STEPS = 50
DAMPING = 1e-6
CLOSE = 1e-3  # [rad] and [m]: what counts as converged


class Mink:
    """One arm under mink: solver daqp, gain 1, damping 1e-6, joint limits on, at most 50 steps."""

    def __init__(self, arm: Arm) -> None:
        self.arm, self.model = arm, alone(arm.name)
        entry = robots.entry(arm.name)
        self.configuration = mink.Configuration(self.model)
        self.qpos = [int(self.model.joint(name).qposadr[0]) for name in arm.joint_names]
        self.put(np.zeros(7))
        base = self.configuration.data.xmat[self.model.body(entry.base).id].reshape(3, 3)
        self.world_from_base = geometry.pose(self.configuration.data.xpos[self.model.body(entry.base).id], base)
        self.aligned = [self._align(joint, base @ axis) for joint, axis in ((2, arm.upper_axis), (4, arm.lower_axis))]
        self.turn = mink.FrameTask(entry.hand, "body", position_cost=0.0, orientation_cost=1.0, gain=1.0)
        self.hand = mink.FrameTask(entry.hand, "body", position_cost=1.0, orientation_cost=1.0, gain=1.0)
        self.limits: list[Any] = [mink.ConfigurationLimit(self.model)]

    def same_objective(self, target: Target, start: Array) -> tuple[Array, bool, int]:
        """Returns (q (7,), converged, steps) for both limb directions and the hand's rotation."""
        self.aim(target)
        return self._solve([*self.aligned, self.turn], start)

    def aim(self, target: Target) -> None:
        """Sets the target of both limb directions and of the hand's rotation."""
        rotation = self.world_from_base[:3, :3]
        self.aligned[0].target, self.aligned[1].target = rotation @ target.upper, rotation @ target.lower
        self.turn.set_target(mink.SE3.from_matrix(geometry.pose(np.zeros(3), rotation @ target.hand)))

    def hand_pose(self, target: Target, start: Array) -> tuple[Array, bool, int]:
        """Returns (q (7,), converged, steps) for the hand's pose alone."""
        self.hand.set_target(mink.SE3.from_matrix(self.world_from_base @ geometry.pose(target.position, target.hand)))
        return self._solve([self.hand], start)

    def put(self, q: Array) -> None:
        """Puts the arm at q (7,)."""
        full = self.model.qpos0.copy()
        full[self.qpos] = q
        self.configuration.update(full)

    def step(self, tasks: Sequence[Any], limits: Sequence[Any]) -> None:
        """Moves the arm one step."""
        v = mink.solve_ik(self.configuration, list(tasks), 1.0, "daqp", damping=DAMPING, limits=list(limits))
        self.configuration.integrate_inplace(v, 1.0)

    def converged(self, tasks: Sequence[Any]) -> bool:
        """Returns whether every error is below 1e-3 rad and m."""
        for task in tasks:
            error = task.compute_error(self.configuration)
            if task is self.turn:
                error = error[3:]
            if np.linalg.norm(error) >= CLOSE:
                return False
        return True

    def _align(self, joint: int, axis: Array) -> AxisAlign:
        body = int(self.model.jnt_bodyid[self.model.joint(self.arm.joint_names[joint]).id])
        return AxisAlign(body, self.configuration.data.xmat[body].reshape(3, 3).T @ axis)

    def _solve(self, tasks: Sequence[Any], start: Array) -> tuple[Array, bool, int]:
        self.put(start)
        for k in range(MOST_STEPS):
            if self.converged(tasks):
                return self.configuration.q[self.qpos].copy(), True, k
            try:
                self.step(tasks, self.limits)
            except mink.MinkError:
                return self.configuration.q[self.qpos].copy(), False, k
        return self.configuration.q[self.qpos].copy(), self.converged(tasks), MOST_STEPS


def alone(name: str) -> mujoco.MjModel:
    """Returns an arm's model with its own seven joints only, so that mink has no other joint to think about."""
    keep = set(robots.entry(name).joints)
    model = robots.model(name)
    if {model.joint(j).name for j in range(model.njnt)} == keep:
        return model
    spec = mujoco.MjSpec.from_file(str(robots.path_of(name)))
    for actuator in list(spec.actuators):
        spec.delete(actuator)
    if not robots.entry(name).meshes:
        for geom in list(spec.geoms):
            spec.delete(geom)
        for mesh in list(spec.meshes):
            spec.delete(mesh)
    for joint in list(spec.joints):
        if joint.name not in keep:
            spec.delete(joint)
    return spec.compile()
