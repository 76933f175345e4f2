"""Where a hand is at joint angles, and which joint angles bring it to a pose: any arm of an MJCF model, with limits.

Forward by MuJoCo; inverse by Levenberg-Marquardt steps damped by the error itself (Sugihara 2011), from a start nearby, inside
the limits, and near the start in what a redundant arm leaves free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from robolearn import geometry
from robolearn.errors import ArrayMismatch, BadInput, nearest

_LENGTH = 0.3  # [m] that weighs as much as a radian
_DAMPING = 1e-4  # of the smallest step
_STAY = 1e-3  # weight of staying near the start, against an error of 1


@dataclass(frozen=True)
class Solution:
    """Joint angles q (n,) [rad], and how far the hand then is from the target: position [m], angle [rad]."""

    q: np.ndarray
    position: float
    angle: float

    @property
    def reached(self) -> bool:
        """True within 1 mm and 0.5 degrees."""
        return self.position < 1e-3 and self.angle < 0.0087


class Hand:
    """One arm of a model, from its root to a site or body, alone: nothing else in the model moves or matters."""

    def __init__(self, model: mujoco.MjModel, joints: Sequence[str], tip: str, lower: np.ndarray, upper: np.ndarray) -> None:
        """joints: names from the base on; tip: the site or body that counts as the hand; lower, upper: (n,) [rad]."""
        self._model, self._data = model, mujoco.MjData(model)
        known = [model.joint(j).name for j in range(model.njnt)]
        for name in joints:
            if name not in known:
                raise BadInput(f"hand: the model has no joint '{name}'{nearest(name, known)}")
        self._qpos = np.array([model.joint(name).qposadr[0] for name in joints])
        self._dof = np.array([model.joint(name).dofadr[0] for name in joints])
        self._site = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SITE, tip)
        self._body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, tip)
        if self._site < 0 and self._body < 0:
            sites = [model.site(i).name for i in range(model.nsite)]
            raise BadInput(f"hand: the model has no site or body '{tip}'{nearest(tip, sites)}")
        self.joints, self.lower, self.upper = tuple(joints), np.array(lower, dtype=float), np.array(upper, dtype=float)
        self._jacobian = np.zeros((6, model.nv))

    def pose(self, q: np.ndarray) -> np.ndarray:
        """Returns world_from_hand (4, 4) [m] at q (n,) [rad]; ArrayMismatch for another shape or what is not finite."""
        self._place(q)
        return geometry.pose(*self._tip())

    def jacobian(self, q: np.ndarray) -> np.ndarray:
        """Returns the hand's velocity (6, n) in world axes, [m/s] then [rad/s], by joint speed."""
        self._place(q)
        mujoco.mj_comPos(self._model, self._data)
        if self._site >= 0:
            mujoco.mj_jacSite(self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._site)
        else:
            mujoco.mj_jacBody(self._model, self._data, self._jacobian[:3], self._jacobian[3:], self._body)
        return self._jacobian[:, self._dof].copy()

    def solve(self, target: np.ndarray, start: np.ndarray, steps: int = 30) -> Solution:
        """Returns angles near `start` (n,), inside the limits, whose hand comes nearest to world_from_hand `target` (4, 4)."""
        target = np.asarray(target, dtype=float)
        if target.shape != (4, 4) or not np.isfinite(target).all():
            raise ArrayMismatch(f"hand: want a finite pose (4, 4), got {np.array2string(target, precision=3, threshold=8)}")
        start = np.clip(np.asarray(start, dtype=float), self.lower, self.upper)
        q, weights = start.copy(), np.repeat([1.0 / _LENGTH, 1.0], 3)
        best = (np.inf, q)
        for _ in range(steps):
            error = weights * self._error(target, q)
            size = float(error @ error)
            if size < best[0]:
                best = (size, q)
            if size < 1e-10:
                break
            jacobian = weights[:, None] * self.jacobian(q)
            q = np.clip(q + self._step(jacobian, error, start - q), self.lower, self.upper)
        error = self._error(target, best[1])
        return Solution(best[1], float(np.linalg.norm(error[:3])), float(np.linalg.norm(error[3:])))

    def _step(self, jacobian: np.ndarray, error: np.ndarray, home: np.ndarray) -> np.ndarray:
        """Returns one damped step, and in what it leaves free a little of the way home."""
        damping = 0.5 * float(error @ error) + _DAMPING
        inverse = np.linalg.solve(jacobian @ jacobian.T + damping * np.eye(6), np.eye(6))
        step = jacobian.T @ (inverse @ error)
        return step + _STAY * (home - jacobian.T @ (inverse @ (jacobian @ home)))

    def _error(self, target: np.ndarray, q: np.ndarray) -> np.ndarray:
        """Returns target minus hand (6,): [m], and the turn [rad] in world axes."""
        self._place(q)
        position, rotation = self._tip()
        turn = geometry.rotvec_from_matrix(target[:3, :3] @ rotation.T)
        return np.concatenate([target[:3, 3] - position, turn])

    def _place(self, q: np.ndarray) -> None:
        q = np.asarray(q, dtype=float)
        if q.shape != self._qpos.shape or not np.isfinite(q).all():
            raise ArrayMismatch(f"hand: want {len(self._qpos)} finite joint angles, got {np.array2string(q, threshold=8)}")
        self._data.qpos[self._qpos] = q
        mujoco.mj_kinematics(self._model, self._data)

    def _tip(self) -> tuple[np.ndarray, np.ndarray]:
        part, at = (self._data.site_xpos, self._site) if self._site >= 0 else (self._data.xpos, self._body)
        turned = self._data.site_xmat if self._site >= 0 else self._data.xmat
        return part[at].copy(), turned[at].reshape(3, 3).copy()
