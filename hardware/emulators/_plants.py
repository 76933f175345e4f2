"""What an emulator moves: joints of first order, or the arm of a MuJoCo model. Both are `core.Plant`s, in SI units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mujoco
import numpy as np

from robolearn.errors import ArrayMismatch, BadInput

ROTOR = 0.05  # [kg m^2] of a geared motor, seen at the joint; models leave it out, and friction then holds light wrists still


class FirstOrder:
    """Joints that go to their targets with a time constant and a speed limit; without torque they stay where they are."""

    def __init__(self, q: Sequence[float], time_constant_s: float = 0.05, speed: float = 6.0) -> None:
        """q: (n,) where the joints begin [rad]; speed: of every joint at most [rad/s]."""
        self._q = np.array(q, dtype=float)
        self._qd, self._target = np.zeros_like(self._q), self._q.copy()
        self._constant, self._speed = time_constant_s, speed
        self.torque = np.ones(len(self._q), dtype=bool)

    def command(self, target: np.ndarray) -> None:
        """Takes a target (n,) [rad]; ArrayMismatch for another shape or what is not finite."""
        self._target = _checked(target, len(self._q))

    def advance(self, seconds: float) -> None:
        """Moves on; exact for the first-order part, however long the step."""
        share = 1.0 - np.exp(-seconds / self._constant)
        step = np.where(
            self.torque, np.clip((self._target - self._q) * share, -self._speed * seconds, self._speed * seconds), 0.0
        )
        self._q = self._q + step
        self._qd = step / seconds if seconds > 0 else self._qd

    def measure(self) -> Mapping[str, np.ndarray]:
        """Returns q [rad], qd [rad/s] and effort [N m], each (n,)."""
        return {"q": self._q.copy(), "qd": self._qd.copy(), "effort": np.where(self.torque, self._target - self._q, 0.0)}


class MujocoPlant:
    """The named joints of a MuJoCo model, held by a stiff spring and damper at each; without torque they fall.

    torque: (n,) bool, which joints are held. Everything else in the model (table, cube) moves by its physics.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        joints: Sequence[str],
        q: Sequence[float] | np.ndarray | None = None,
        stiffness: float = 900.0,
        damping: float = 60.0,
    ) -> None:
        """joints: hinges or slides by name; q: where they begin, the model's own pose if None.

        stiffness [1/s^2], damping [1/s]: of the error in each joint, times the inertia that the joint feels.
        """
        self.model, self.data = model, mujoco.MjData(model)
        ids = [mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name) for name in joints]
        if -1 in ids:
            raise BadInput(f"plant: the model has no joint '{list(joints)[ids.index(-1)]}'")
        self._qpos, self._dof = model.jnt_qposadr[ids], model.jnt_dofadr[ids]
        self._stiffness, self._damping = stiffness, damping
        model.dof_armature[self._dof] = np.maximum(model.dof_armature[self._dof], ROTOR)
        if q is not None:
            self.data.qpos[self._qpos] = _checked(np.asarray(q, dtype=float), len(ids))
        mujoco.mj_forward(model, self.data)
        self._target = self.data.qpos[self._qpos].copy()
        self.torque = np.ones(len(ids), dtype=bool)
        self._rest_s = 0.0

    def command(self, target: np.ndarray) -> None:
        """Takes a target (n,) [rad]; ArrayMismatch for another shape or what is not finite."""
        self._target = _checked(target, len(self._dof))

    def advance(self, seconds: float) -> None:
        """Runs the physics on by whole time steps; what is left over is kept for the next call."""
        self._rest_s += seconds
        while self._rest_s >= self.model.opt.timestep:
            self._rest_s -= self.model.opt.timestep
            self.data.qfrc_applied[self._dof] = np.where(self.torque, self._effort(), 0.0)
            mujoco.mj_step(self.model, self.data)

    def measure(self) -> Mapping[str, np.ndarray]:
        """Returns q [rad], qd [rad/s] and effort [N m], each (n,)."""
        effort = np.where(self.torque, self.data.qfrc_applied[self._dof], 0.0)
        return {"q": self.data.qpos[self._qpos].copy(), "qd": self.data.qvel[self._dof].copy(), "effort": effort}

    def _effort(self) -> np.ndarray:
        """Returns the computed torque (n,): the arm's own weight and inertia are what a servo's controller takes care of."""
        pull = self._stiffness * (self._target - self.data.qpos[self._qpos]) - self._damping * self.data.qvel[self._dof]
        inertia = np.zeros((self.model.nv, self.model.nv))
        mujoco.mj_fullM(self.model, inertia, self.data.qM)
        own = inertia[np.ix_(self._dof, self._dof)]
        return own @ pull + self.data.qfrc_bias[self._dof] - self.data.qfrc_passive[self._dof]


class Replay:
    """Joints that repeat a recorded motion whatever they are told; what is asked of them is kept in `commands`."""

    def __init__(self, q: np.ndarray, hz: float) -> None:
        """q: (steps, n) [rad], `hz` rows a second; the last row stays."""
        self._q, self._hz, self._t = np.asarray(q, dtype=float), hz, 0.0
        self.commands: list[np.ndarray] = []
        self.torque = np.zeros(self._q.shape[1], dtype=bool)

    def command(self, target: np.ndarray) -> None:
        """Keeps the target (n,) [rad]."""
        self.commands.append(_checked(target, self._q.shape[1]))

    def advance(self, seconds: float) -> None:
        """Moves on in the recording."""
        self._t += seconds

    def measure(self) -> Mapping[str, np.ndarray]:
        """Returns q [rad] by linear interpolation, qd [rad/s] and effort 0, each (n,)."""
        at = min(self._t * self._hz, len(self._q) - 1.0)
        below = min(int(at), max(len(self._q) - 2, 0))
        above = min(below + 1, len(self._q) - 1)
        moving = self._q[above] - self._q[below]
        qd = moving * self._hz if self._t * self._hz < len(self._q) - 1 else np.zeros_like(moving)
        return {"q": self._q[below] + (at - below) * moving, "qd": qd, "effort": np.zeros_like(qd)}


def _checked(target: np.ndarray, n: int) -> np.ndarray:
    target = np.asarray(target, dtype=float)
    if target.shape != (n,) or not np.isfinite(target).all():
        raise ArrayMismatch(f"plant: want {n} finite numbers, got {np.array2string(target, threshold=8)}")
    return target.copy()
