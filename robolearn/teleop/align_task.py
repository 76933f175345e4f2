"""The task that mink 1.2 lacks: bring a direction fixed in a body onto a direction of the world."""

from __future__ import annotations

import mink
import mujoco
import numpy as np

Array = np.ndarray


class AxisAlign(mink.Task):
    """e = R a - u (3,), de/dq = -[R a]x J_turn (3, nv); `target` is u."""

    def __init__(self, body: int, axis_in_body: Array, cost: float = 1.0) -> None:
        super().__init__(cost=np.full(3, cost), gain=1.0, lm_damping=0.0)
        self.body, self.axis, self.target = body, axis_in_body, np.array([0.0, 0.0, 1.0])

    def direction(self, configuration: mink.Configuration) -> Array:
        """Returns the direction now (3,), in the world."""
        return configuration.data.xmat[self.body].reshape(3, 3) @ self.axis

    def compute_error(self, configuration: mink.Configuration) -> Array:
        """Returns the error (3,)."""
        return self.direction(configuration) - self.target

    def compute_jacobian(self, configuration: mink.Configuration) -> Array:
        """Returns the Jacobian (3, nv)."""
        turn = np.zeros((3, configuration.model.nv))
        mujoco.mj_jacBody(configuration.model, configuration.data, None, turn, self.body)
        return np.cross(turn.T, self.direction(configuration)).T
