"""Joint angles for a pose of the hand, for bodies that are told joints: damped least squares on a copy of the simulator."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from robolearn import geometry

ITERATIONS = 8
DAMPING = 0.02
COMFORT = 0.2  # share of the way to the home joints that the null space goes in one iteration


class HandSolver:
    """Finds joint angles (n,) [rad] of a simulated arm whose hand is at a pose, near the present ones; home settles the elbow."""

    def __init__(self, env: Any, home: np.ndarray) -> None:
        self.model, self.arm, self.home = env.model, env.arms[0], home
        self.scratch = mujoco.MjData(self.model)
        self.columns = [int(self.model.dof_jntid.tolist().index(j)) for j in self._joint_ids()]

    def _joint_ids(self) -> list[int]:
        addresses = self.model.jnt_qposadr.tolist()
        return [addresses.index(int(address)) for address in self.arm.qpos]

    def solve(self, qpos: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Returns joints (n,) that bring the hand to `target` (4, 4), starting from the model's positions `qpos`."""
        self.scratch.qpos[:] = qpos
        jacobian = np.zeros((6, self.model.nv))
        for _ in range(ITERATIONS):
            mujoco.mj_kinematics(self.model, self.scratch)
            mujoco.mj_comPos(self.model, self.scratch)
            mujoco.mj_jacSite(self.model, self.scratch, jacobian[:3], jacobian[3:], self.arm.site)
            J = jacobian[:, self.columns]  # (6, n)
            rotation = self.scratch.site_xmat[self.arm.site].reshape(3, 3)
            turn = geometry.rotvec_from_matrix(target[:3, :3] @ rotation.T)
            error = np.concatenate([target[:3, 3] - self.scratch.site_xpos[self.arm.site], turn])
            inverse = J.T @ np.linalg.inv(J @ J.T + DAMPING**2 * np.eye(6))
            joints = self.scratch.qpos[self.arm.qpos]
            rest = COMFORT * (self.home - joints)
            self.scratch.qpos[self.arm.qpos] = joints + inverse @ error + rest - inverse @ (J @ rest)
        return self._within_range(self.scratch.qpos[self.arm.qpos])

    def _within_range(self, joints: np.ndarray) -> np.ndarray:
        low, high = self.model.jnt_range[self._joint_ids()].T
        return np.clip(joints, low, high)
