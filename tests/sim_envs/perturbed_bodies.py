"""A body that shows what it is told, and how disturbed episodes are played and compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from robolearn.core import ArraySpec, Obs, Spec, Step
from sim_envs.perturb import Disturbance, Perturbed

TICKS = 8
BODIES = {"shell": {"cameras": ["img"]}, "pusht": {"cameras": ["img"]}, "lift": {}}
SOME = {"goal": 1.0, "delay": 2.0, "freeze": 3.0, "distractor": 0.2, "camera": 5.0, "offset": 0.05, "push": 0.1}
LIMIT = {"max_steps": 6}


class Echo:
    """A body that shows and keeps the actions that it is told."""

    task = "echo"

    def __init__(self, names: tuple[str, ...], most: float = 100.0) -> None:
        self.spec = Spec({"told": ArraySpec((len(names),))}, ArraySpec((len(names),), names=names), 10.0)
        self.most, self.told = most, [np.zeros(len(names), np.float32)]

    def reset(self, seed: int | None = None) -> Obs:
        self.told = []
        return {"told": np.zeros(self.spec.action.shape, np.float32)}

    def step(self, action: np.ndarray) -> Step:
        self.told.append(np.clip(action, -self.most, self.most))
        return Step({"told": self.told[-1].copy()}, self.told[-1].astype(np.float32), self.told[-1].astype(np.float32))

    def close(self) -> None:
        pass


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def now(kind: str, strength: float = 0.5) -> Disturbance:
    """Returns a disturbance of every episode, from its start."""
    return Disturbance(kind, SOME.get(kind, strength), at=0.0)


def actions(body: Any, n: int = TICKS) -> np.ndarray:
    rng = np.random.default_rng(5)
    if body.task == "pusht":
        return rng.uniform(100, 400, (n, 2)).astype(np.float32)
    if body.task == "shell":
        return rng.uniform(-0.6, 0.6, (n, 2)).astype(np.float32)
    obs = body.reset(0)
    return np.tile(np.concatenate([obs["eef_pos"], obs["eef_rot6d"], [-1.0]]), (n, 1)).astype(np.float32)


def play(env: Any, seed: int, played: np.ndarray) -> list[Any]:
    """Returns the first observation, and what came of every action until the episode was over."""
    seen: list[Any] = [env.reset(seed)]
    for action in played:
        seen.append(env.step(action))
        if seen[-1].terminated or seen[-1].truncated:
            break
    return seen


def looks(seen: list[Any]) -> list[Obs]:
    return [seen[0], *(step.obs for step in seen[1:])]


def assert_equal(a: list[Any], b: list[Any]) -> None:
    for x, y in zip(looks(a), looks(b), strict=True):
        assert x.keys() == y.keys()
        for key in x:
            np.testing.assert_array_equal(x[key], y[key], err_msg=key)
    for x, y in zip(a[1:], b[1:], strict=True):
        np.testing.assert_array_equal(x.filtered, y.filtered)
        np.testing.assert_array_equal(x.sent, y.sent)
        assert (x.score, x.success, x.terminated, x.truncated) == (y.score, y.success, y.terminated, y.truncated)
        assert x.t_ns.get("sim") == y.t_ns.get("sim")


def told(names: tuple[str, ...], disturbance: Disturbance, asked: list[list[float]]) -> np.ndarray:
    env = Echo(names)
    play(Perturbed(env, disturbance), 0, np.array(asked, np.float32))
    return np.array(env.told)
