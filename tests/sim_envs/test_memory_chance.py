"""Without memory nobody beats chance on the planar memory tasks: every way of choosing is played."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest

from sim_envs import _base as tasks
from tests.sim_envs.memory_plays import (
    STILL,
    assert_same,
    at_random,
    body,
    decide,
    every_task,
    facts,
    places,
    to,
    to_the_wait,
)

AGAIN = 4 ** (-1 / 3)
BEST = {  # odds of the options of `places` with which a policy without memory does best
    "nearer": (1 / 2, 1 / 2),
    "shell": (1 / 3, 1 / 3, 1 / 3),
    "twice": (1 / 2, 1 / 2),
    "scoops": (AGAIN, 1 - AGAIN),
    "hold": (1 / 3, 1 / 3, 1 / 3),
}


def success_without_memory(name: str, weights: np.ndarray) -> np.ndarray:
    """Returns the exact success rates (n,) of n policies that take options with probabilities `weights` (n, options)."""
    env, options, total = body(name, memory_steps=1), len(places(name)), np.zeros(len(weights))
    again = name in ("twice", "scoops")  # the first option leads to another go
    scripts = [[0] * n + [1] for n in range(6)] if again else [[option] for option in range(options)]
    started = range(1) if name == "twice" else facts(name)
    for fact, script in product(started, scripts):
        env.reset(0)
        left = iter(script)
        play = decide(env, env.with_fact(fact), lambda left=left: next(left))  # type: ignore[misc]
        total += bool(play[1][-1].success) * weights[:, script].prod(axis=1) / len(started)
    return total


@every_task
def test_equal_decisions_are_followed_by_equal_observations_whatever_the_fact(name: str) -> None:
    """Until one of the episodes ends: so a policy that saw no cue acts the same under every fact."""
    env = body(name, memory_steps=16)
    weights = [1 / len(places(name))] * len(places(name))
    for seed in range(20):
        plays = []
        for fact in facts(name):
            to_the_wait(env, seed)
            plays.append(decide(env, env.with_fact(fact), at_random(np.random.default_rng(seed), weights))[0])
        shortest = min(len(play) for play in plays)
        for play in plays[1:]:
            assert_same(plays[0][: shortest - 1], play[: shortest - 1])


@every_task
def test_no_fixed_odds_of_choosing_beat_chance(name: str) -> None:
    """Exact, by playing every sequence of choices under every fact; the odds on a grid, and the best ones."""
    n = len(places(name))
    grid = np.array([odds for odds in product(np.linspace(0, 1, 21), repeat=n) if abs(sum(odds) - 1) < 1e-9])
    rates = success_without_memory(name, np.concatenate([grid, [BEST[name]]]))
    assert rates.max() == pytest.approx(tasks.module(name).CHANCE, abs=1e-12)
    assert rates[-1] == pytest.approx(tasks.module(name).CHANCE, abs=1e-12)


@every_task
def test_choosing_at_random_reaches_chance(name: str) -> None:
    """Facts as drawn, choices as drawn. At 95 % one of five right tasks would fail in one run of four: hence 99.9 %."""
    env, n, rng = body(name, memory_steps=1), 300, np.random.default_rng(0)
    plays = [decide(env, env.reset(1000 + k), at_random(rng, BEST[name]))[1] for k in range(n)]
    assert all(steps[-1].terminated for steps in plays), "every choice is carried out"
    solved = sum(bool(steps[-1].success) for steps in plays)
    assert binomtest(solved, n, tasks.module(name).CHANCE).pvalue > 0.001


def test_chance_is_the_maximum_of_its_formula() -> None:
    q = np.linspace(0, 1, 100_001)
    assert (q * (1 - q)).max() == pytest.approx(tasks.module("twice").CHANCE, abs=1e-9)
    wanted = np.mean([q**k * (1 - q) for k in (1, 2, 3)], axis=0)
    assert wanted.max() == pytest.approx(tasks.module("scoops").CHANCE, abs=1e-9)


def test_no_time_of_pressing_fits_two_facts() -> None:
    hold = tasks.module("hold")
    assert all(sum(abs(ticks - lit) <= hold.TOLERANCE for lit in hold.LIT) <= 1 for ticks in range(100))
    env = body("hold", memory_steps=1)
    for ticks in range(1, 31):
        for fact, lit in enumerate(hold.LIT):
            env.reset(0)
            env.with_fact(fact)
            while not env.free:
                env.step(STILL)
            while env.now.count < ticks and env.free:
                env.step(to(env, np.array(hold.BUTTON)))
            step = env.step(to(env, np.array(hold.BUTTON) - 0.5))
            assert step.terminated and step.success == (abs(ticks - lit) <= 3)


def test_a_pressed_button_does_not_say_for_how_long() -> None:
    env, rng = body("hold", memory_steps=1), np.random.default_rng(0)
    to_the_wait(env, 0)
    env.with_fact(2)
    while env.now.count == 0:
        obs = env.step(to(env, np.array(places("hold")[0]))).obs
    for _ in range(20):
        np.testing.assert_array_equal(
            env.step(to(env, np.array(places("hold")[0]) + rng.uniform(-0.08, 0.08, 2))).obs["state"], obs["state"]
        )
