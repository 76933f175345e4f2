"""One arm under control: robosuite's operational-space and joint-position laws, computed directly on MuJoCo's arrays.

The laws, gains and clipping are robosuite's (Khatib 1987; forces and torques decoupled, rest pose held in the null
space); a test runs both side by side. What is left out is the bookkeeping around them, most of a step's time. The one
difference: robosuite measures the IIWA's commands and speeds from its turning first link, we from its base.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from scipy.linalg.lapack import dposv

from robolearn import geometry

REST_STIFFNESS = 10.0  # [1/s^2], of the null space
JOINT_STIFFNESS = 150.0  # [1/s^2], of joint_abs: as stiff as the pose controllers


class Arm:
    """Where one arm lies in the simulator's arrays, what it is commanded, and the control law that gets it there."""

    def __init__(self, robot: Any, model: mujoco.MjModel, codec: str) -> None:
        self.codec, self.gripper = codec, robot.gripper["right"]
        self.home = np.array(robot.init_qpos)
        self.qpos = np.array(robot._ref_arm_joint_pos_indexes)
        first, last = robot._ref_arm_joint_vel_indexes[0], robot._ref_arm_joint_vel_indexes[-1]
        self.dofs = slice(first, last + 1)
        self.site = robot.eef_site_id["right"]
        self.base = model.body(robot.robot_model.root_body).id
        self.actuators = np.array(robot._ref_actuators_indexes_dict["right"])
        self.fingers = np.array(robot._ref_joint_gripper_actuator_indexes["right"])
        low, high = model.actuator_ctrlrange[self.fingers].T
        self.finger_middle, self.finger_half = (high + low) / 2, (high - low) / 2
        self.pads = [model.geom(self.gripper.important_geoms[f"{side}_fingerpad"][0]).id for side in ("left", "right")]
        self.low, self.high = model.actuator_ctrlrange[self.actuators].T
        law = robot.part_controllers["right"]
        self.stiffness, self.damping = np.array(law.kp), np.array(law.kd)  # [1/s^2], [1/s], of the pose laws
        self.reach = np.array(law.output_max)  # of one relative command: [m, rad]
        self.rest = self.home  # joint angles [rad] that the null space tends to
        self.command = 0.0  # the last gripper command: negative opens, positive closes, 0 before the first
        self.goal_position, self.goal_rotation, self.goal_joints = np.zeros(3), np.eye(3), self.home
        self._jacobian, self._mass = np.zeros((6, model.nv)), np.zeros((model.nv, model.nv))

    def reset(self, data: mujoco.MjData) -> None:
        """Takes the joint angles of now as the rest pose."""
        self.remember(np.concatenate([np.zeros(len(self.fingers) + 1), data.qpos[self.qpos]]))

    def set_goal(self, data: mujoco.MjData, action: np.ndarray) -> None:
        """Takes this arm's block of an action; relative ones start from the pose reached, and turn about the base's axes."""
        if self.codec == "pose_abs":
            self.goal_position = action[:3].astype(float)
            self.goal_rotation = geometry.matrix_from_rot6d(action[3:9])
        elif self.codec == "joint_abs":
            self.goal_joints = action[:-1].astype(float)
        else:
            step = action[:6] * self.reach
            world_from_base = data.xmat[self.base].reshape(3, 3)
            turn = world_from_base @ geometry.matrix_from_rotvec(step[3:]) @ world_from_base.T
            self.goal_position = data.site_xpos[self.site] + world_from_base @ step[:3]
            self.goal_rotation = turn @ data.site_xmat[self.site].reshape(3, 3)
        self.command = float(np.sign(action[-1]))
        self.gripper.format_action(np.array([self.command]))

    def relative(self, data: mujoco.MjData, goal: np.ndarray) -> np.ndarray:
        """Returns the relative command (6,) in [-1, 1] that leads towards the pose `goal` (4, 4), as far as it reaches."""
        world_from_base = data.xmat[self.base].reshape(3, 3)
        turn = goal[:3, :3] @ data.site_xmat[self.site].reshape(3, 3).T
        step = np.concatenate([goal[:3, 3] - data.site_xpos[self.site], geometry.rotvec_from_matrix(turn)])
        return np.clip((step.reshape(2, 3) @ world_from_base).ravel() / self.reach, -1.0, 1.0)

    def actuate(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Writes the controls of this physics step."""
        mujoco.mj_fullM(model, self._mass, data.qM)
        mass = self._mass[self.dofs, self.dofs]
        joints, speeds = data.qpos[self.qpos], data.qvel[self.dofs]
        if self.codec == "joint_abs":
            wanted = JOINT_STIFFNESS * (self.goal_joints - joints) - 2 * np.sqrt(JOINT_STIFFNESS) * speeds
            torques = mass @ wanted + data.qfrc_bias[self.dofs]
        else:
            torques = self._pose_torques(model, data, mass, joints, speeds)
        data.ctrl[self.actuators] = np.minimum(np.maximum(torques, self.low), self.high)
        data.ctrl[self.fingers] = self.finger_middle + self.finger_half * self.gripper.current_action

    def _pose_torques(
        self, model: mujoco.MjModel, data: mujoco.MjData, mass: np.ndarray, joints: np.ndarray, speeds: np.ndarray
    ) -> np.ndarray:
        mujoco.mj_jacSite(model, data, self._jacobian[:3], self._jacobian[3:], self.site)
        jacobian = self._jacobian[:, self.dofs]
        turn = self.goal_rotation @ data.site_xmat[self.site].reshape(3, 3).T
        error = np.empty(6)
        error[:3] = self.goal_position - data.site_xpos[self.site]
        error[3:] = 0.5 * (turn[2, 1] - turn[1, 2]), 0.5 * (turn[0, 2] - turn[2, 0]), 0.5 * (turn[1, 0] - turn[0, 1])
        wanted = self.stiffness * error - self.damping * (jacobian @ speeds)
        inverse_inertia = jacobian @ _solve(mass, jacobian.T)  # (6, 6), of the hand
        wrench = np.concatenate([_solve(inverse_inertia[:3, :3], wanted[:3]), _solve(inverse_inertia[3:, 3:], wanted[3:])])
        settle = REST_STIFFNESS * (self.rest - joints) - 2 * np.sqrt(REST_STIFFNESS) * speeds
        wrench -= _solve(inverse_inertia, jacobian @ settle)  # what settling would do to the hand
        return jacobian.T @ wrench + mass @ settle + data.qfrc_bias[self.dofs]

    def memory(self) -> np.ndarray:
        """Returns what the arm remembers between ticks beside the physics: fingers, gripper command, rest pose."""
        return np.concatenate([np.broadcast_to(self.gripper.current_action, self.fingers.shape), [self.command], self.rest])

    def remember(self, memory: np.ndarray) -> None:
        """Puts the vector of `memory` back."""
        n = len(self.fingers)
        self.gripper.current_action = memory[:n].copy()
        self.command = float(memory[n])
        self.rest = memory[n + 1 :].copy()


def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Returns x of matrix @ x = right for a positive definite matrix, the shortest least-squares one at a singular pose."""
    _, solution, info = dposv(matrix, right)
    return np.linalg.pinv(matrix) @ right if info else solution
