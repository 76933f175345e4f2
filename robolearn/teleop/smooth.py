"""The smooth alternative to a collision filter: both arms in one quadratic programme whose limits keep them apart (mink).

The objective is the retargeting's own (both limb directions, hand rotation); the limits are the joints', a speed cap, and
mink's CollisionAvoidanceLimit between the arms and the torso, on MuJoCo's own shapes.
"""

from __future__ import annotations

from typing import Any

import mink
import mujoco
import numpy as np

from robolearn import geometry
from robolearn.teleop.align_task import AxisAlign
from robolearn.teleop.bimanual import Filtered, Goal, Verdict
from robolearn.teleop.torso import SIDES, Torso

Array = np.ndarray
MARGIN_M = 0.02  # the limit is linear in a step, the distance is not: twice what the filters keep
SEEN_M = 0.15  # from where on a pair limits the approach


class Smooth:
    """Moves both arms of a torso one step a frame; `step` holds them where the programme has no solution."""

    def __init__(self, torso: Torso, q: Array, hz: float, max_speed: float, margin: float = MARGIN_M) -> None:
        self.torso, self.configuration = torso, mink.Configuration(torso.model)
        model = torso.model
        self.addresses = [torso.qpos_of(side) for side in range(2)]
        self.aligned, self.turns = [], []
        self._put(np.zeros((2, 7)))
        for side, arm in enumerate(torso.arms):
            base = torso.torso_from_base[side][:3, :3]
            for joint, axis in ((2, arm.upper_axis), (4, arm.lower_axis)):
                body = int(model.jnt_bodyid[model.joint(arm.joint_names[joint]).id])
                at_zero = self.configuration.data.xmat[body].reshape(3, 3)
                self.aligned.append(AxisAlign(body, at_zero.T @ base @ axis))
            self.turns.append(mink.FrameTask(SIDES[side] + "right_hand", "body", position_cost=0.0, orientation_cost=0.5))
        speeds = {name: np.array([max_speed / hz]) for arm in torso.arms for name in arm.joint_names}
        groups = [_shapes(model, prefix) for prefix in SIDES]
        torso_shape = [int(model.geom("torso").id)]
        moving = [_shapes(model, prefix, 3) for prefix in SIDES]
        pairs = [(groups[0], groups[1]), (moving[0], torso_shape), (moving[1], torso_shape)]
        self.limits: list[Any] = [
            mink.ConfigurationLimit(model),
            mink.VelocityLimit(model, speeds),
            mink.CollisionAvoidanceLimit(
                model, pairs, gain=0.3, minimum_distance_from_collisions=margin, collision_detection_distance=SEEN_M
            ),
        ]
        self.q = np.array(q, float)
        self._put(self.q)

    def step(self, goal: Goal) -> Filtered:
        """Returns the next pose; its clearance is not measured here (NaN)."""
        for side in range(2):
            self.aligned[2 * side].target = goal.upper[side]
            self.aligned[2 * side + 1].target = goal.lower[side]
            self.turns[side].set_target(mink.SE3.from_matrix(geometry.pose(np.zeros(3), goal.hand[side])))
        try:
            v = mink.solve_ik(self.configuration, [*self.aligned, *self.turns], 1.0, "daqp", damping=1e-4, limits=self.limits)
        except mink.MinkError:
            return Filtered(self.q, Verdict.IK_FAILED, float("nan"))
        self.configuration.integrate_inplace(v, 1.0)
        self.q = np.stack([self.configuration.q[address] for address in self.addresses])
        return Filtered(self.q, Verdict.ACCEPTED, float("nan"))

    def _put(self, q: Array) -> None:
        full = self.torso.model.qpos0.copy()
        for side in range(2):
            full[self.addresses[side]] = q[side]
        self.configuration.update(full)


def _shapes(model: mujoco.MjModel, prefix: str, below: int = 1) -> list[int]:
    """Returns the collision shapes of one arm that at least `below` of its joints move."""
    found = []
    for geom in range(model.ngeom):
        body = int(model.geom_bodyid[geom])
        if not model.body(body).name.startswith(prefix) or not (model.geom_contype[geom] or model.geom_conaffinity[geom]):
            continue
        joints = 0
        while body:
            joints += int(model.body_jntnum[body])
            body = int(model.body_parentid[body])
        if joints >= below:
            found.append(geom)
    return found
