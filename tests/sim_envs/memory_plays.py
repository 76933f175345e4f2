"""Planar memory tasks played with perfect motor skill: what their tests are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from robolearn.core import Obs, Step
from sim_envs import _base as tasks
from sim_envs import _planar

NAMES = ("nearer", "shell", "twice", "scoops", "hold")
DRAWN = tuple(name for name in NAMES if name != "twice")  # their fact is drawn; that of twice is counted
HOME = np.array(_planar.HOME, np.float32)
STILL = np.zeros(2)

Play = tuple[list[Obs], list[Step]]
Choice = Callable[[], int]  # asked at every go
every_task = pytest.mark.parametrize("name", NAMES)


def body(name: str, **overrides: Any) -> Any:
    return tasks.make(name, overrides)


def facts(name: str) -> range:
    """Returns the facts that a wait can have; that of twice begins after an entry."""
    return range(1 if name == "twice" else 0, tasks.module(name).N_FACTS)


def places(name: str) -> Sequence[tuple[float, float]]:
    """Returns what a hand can choose between at a go; of hold, where the choice is how long, the button thrice."""
    module = tasks.module(name)
    if name in ("nearer", "shell"):
        return module.PADS if name == "nearer" else module.CUPS
    if name == "hold":
        return [module.BUTTON] * 3
    return [module.HOLE, module.PARK] if name == "twice" else [module.BOWL, module.DONE]


def to(env: Any, place: np.ndarray) -> np.ndarray:
    """Returns the action that leads straight to `place`, no further."""
    gap = (place - [env.now.x, env.now.y]) / _planar.SPEED
    return gap / max(1.0, np.linalg.norm(gap))


def is_free(obs: Obs) -> bool:
    return bool(obs["state"][-1])


def to_the_wait(env: Any, seed: int) -> Obs:
    """Returns the first observation of the wait (of twice: the first one)."""
    obs = env.reset(seed)
    if env.task != "twice":
        for _ in range(env.config.cue_steps):
            obs = env.step(STILL).obs
        return obs
    while is_free(obs):
        obs = env.step(to(env, np.array(places("twice")[0]))).obs
    while not np.array_equal(obs["state"][:2], HOME):
        obs = env.step(STILL).obs
    return obs


def wait_of(env: Any, seed: int, fact: int) -> list[Obs]:
    """Returns all observations of the wait of episode `seed` had its fact been `fact`, the go included."""
    to_the_wait(env, seed)
    seen = [env.with_fact(fact)]
    while not is_free(seen[-1]):
        seen.append(env.step(STILL).obs)
    return seen


def decide(env: Any, obs: Obs, choose: Choice) -> Play:
    """Plays on from `obs` with perfect motor skill, going where `choose` says at every go; sees no hidden thing."""
    options, seen = places(env.task), [obs]
    steps: list[Step] = []
    choice: int | None = None
    pressed = 0
    while not steps or not (steps[-1].terminated or steps[-1].truncated):
        hand = seen[-1]["state"][:2]
        if not is_free(seen[-1]):
            choice = None
        elif choice is None:
            choice = choose() if np.array_equal(hand, HOME) else 0  # the start of twice can be told from the rest
        goal = np.array(options[choice or 0])
        if env.task == "hold":
            pressed += bool(np.array_equal(hand, goal.astype(np.float32)))
            goal = STILL if choice is not None and pressed >= tasks.module("hold").LIT[choice] else goal
        steps.append(env.step(to(env, goal)))
        seen.append(steps[-1].obs)
    return seen, steps


def at_random(rng: np.random.Generator, weights: Sequence[float]) -> Choice:
    return lambda: int(rng.choice(len(weights), p=weights))


def always_the_first() -> int:
    return 0


def assert_same(a: Sequence[Obs], b: Sequence[Obs]) -> None:
    assert len(a) == len(b)
    for k, (x, y) in enumerate(zip(a, b, strict=True)):
        for key in x:
            np.testing.assert_array_equal(x[key], y[key], err_msg=f"observation {k}, {key}")
