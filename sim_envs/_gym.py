"""Gymnasium both ways: a task of ours as a `gymnasium.Env`, and a `gymnasium.Env` as a body for `rollout`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from robolearn.core import ArraySpec, Obs, SimEnv, Spec, Step
from robolearn.errors import BadInput


class ToGym(gymnasium.Env):
    """A body of ours for other people's learners: Dict observations, Box actions, the step's score as reward."""

    def __init__(self, env: SimEnv, low: float = -np.inf, high: float = np.inf) -> None:
        """low, high: bounds of every action, which a Spec does not have."""
        self.env = env
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": env.spec.hz}
        self.render_mode = "rgb_array"
        self.observation_space = spaces.Dict({key: _space(spec) for key, spec in env.spec.obs.items()})
        self.action_space = spaces.Box(low, high, env.spec.action.shape, np.dtype(env.spec.action.dtype).type)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict[str, Any]]:
        """Returns the first observation of the episode of `seed`; without one, of the next seed of this environment."""
        super().reset(seed=seed)
        return self.env.reset(int(self.np_random.integers(2**32)) if seed is None else seed), {}

    def step(self, action: np.ndarray) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        """Returns observation, score, terminated, truncated and {"success"} after one tick."""
        step = self.env.step(action)
        info = {} if step.success is None else {"success": step.success}
        reward = step.score if step.score is not None else float(bool(step.success))
        return step.obs, reward, step.terminated, step.truncated, info

    def render(self) -> np.ndarray:  # type: ignore[override]
        """Returns the picture (height, width, 3) uint8 RGB for people."""
        return self.env.render()

    def close(self) -> None:
        """Closes the body."""
        self.env.close()


class FromGym:
    """A Gymnasium environment as a body: Box or Dict-of-Box observations, Box actions, reward as score.

    An observation that is no dictionary is called "observation"; actions are clipped to the action space (`filtered`).
    """

    def __init__(self, env: gymnasium.Env, hz: float | None = None) -> None:
        """hz: control rate [1/s], by default the environment's `render_fps`."""
        self.env = env
        rate = hz or env.metadata.get("render_fps")
        if not rate:
            raise BadInput("gymnasium: the environment says no render_fps; give hz")
        self._one = not isinstance(env.observation_space, spaces.Dict)
        named = {"observation": env.observation_space} if self._one else dict(env.observation_space.items())  # type: ignore[attr-defined]
        self._actions = env.action_space
        self.spec = Spec(
            obs={key: _array(space, f"observation '{key}'") for key, space in named.items()},
            action=_array(self._actions, "action"),
            hz=float(rate),
        )

    def reset(self, seed: int | None = None) -> Obs:
        """Returns the first observation of the episode of `seed`."""
        return self._obs(self.env.reset(seed=seed)[0])

    def step(self, action: np.ndarray) -> Step:
        """Executes `action` clipped to the action space; success is info's "success" or "is_success", if there is one."""
        wanted = np.asarray(action, dtype=self._actions.dtype)
        sent = np.clip(wanted, self._actions.low, self._actions.high)  # type: ignore[attr-defined]
        obs, reward, terminated, truncated, info = self.env.step(sent)
        success = info.get("success", info.get("is_success"))
        return Step(
            obs=self._obs(obs),
            filtered=sent,
            sent=sent,
            score=float(reward),
            success=None if success is None else bool(success),
            terminated=bool(terminated),
            truncated=bool(truncated),
        )

    def render(self, camera: str | None = None) -> np.ndarray:
        """Returns the environment's own picture, (height, width, 3) uint8 RGB."""
        picture = self.env.render()
        if not isinstance(picture, np.ndarray):
            raise BadInput('gymnasium: no picture to render; make the environment with render_mode="rgb_array"')
        return picture

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()

    def _obs(self, obs: Any) -> Obs:
        found = {"observation": obs} if self._one else obs
        return {key: np.array(found[key]) for key in self.spec.obs}


def _space(spec: ArraySpec) -> spaces.Box:
    if spec.dtype == "uint8":
        return spaces.Box(0, 255, spec.shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, spec.shape, np.dtype(spec.dtype).type)


def _array(space: spaces.Space | None, what: str) -> ArraySpec:
    if not isinstance(space, spaces.Box):
        raise BadInput(f"gymnasium: {what}: want a Box, got {space}")
    return ArraySpec(tuple(space.shape), str(space.dtype))
