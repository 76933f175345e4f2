"""The planar memory tasks are exact: nothing but memory solves them, and `memory_steps` is how long it must last."""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from robolearn.errors import BadInput, ConfigError
from robolearn.rollout import rollout
from sim_envs import _base as tasks
from sim_envs import _planar
from tests.sim_envs.memory_plays import (
    DRAWN,
    HOME,
    STILL,
    always_the_first,
    assert_same,
    body,
    decide,
    every_task,
    facts,
    is_free,
    places,
    to,
    to_the_wait,
    wait_of,
)


@every_task
@pytest.mark.parametrize("memory_steps", [16, 64])
def test_the_expert_solves_it(name: str, memory_steps: int) -> None:
    env = body(name, memory_steps=memory_steps)
    expert = tasks.expert(env, 0)
    solved = sum(bool(rollout(env, expert, max_steps=env.config.max_steps, seed=seed).success) for seed in range(40))
    assert solved > 38


@every_task
def test_the_wait_is_the_same_bit_for_bit_whatever_the_fact(name: str) -> None:
    env = body(name, memory_steps=16, cameras=("img",))
    for seed in range(6):
        waits = [wait_of(env, seed, fact) for fact in facts(name)]
        assert len(waits[0]) >= 17
        for other in waits[1:]:
            assert_same(waits[0], other)
        for obs in waits[0]:
            np.testing.assert_array_equal(obs["state"][:2], HOME)


@pytest.mark.parametrize("name", ["twice", "scoops"])
def test_nothing_says_how_often_the_hand_came_back(name: str) -> None:
    env = body(name, memory_steps=16)
    env.reset(3)
    seen, _ = decide(env, env.with_fact(facts(name)[-1] if name == "scoops" else 0), always_the_first)
    goes = [now["state"] for before, now in pairwise(seen) if is_free(now) and not is_free(before)]
    dark = [list(run) for free, run in groupby(seen, is_free) if not free]
    returns = dark if name == "twice" else dark[1:]  # the first one of scoops is its cue
    ways = [[obs["state"].tobytes() for obs in run if not np.array_equal(obs["state"][:2], HOME)] for run in returns]
    waits = {obs["state"].tobytes() for run in returns for obs in run if np.array_equal(obs["state"][:2], HOME)}
    assert len(returns) >= 2 and len(ways[0]) > 4
    assert all(way == ways[0] for way in ways) and len(waits) == 1
    assert len({go.tobytes() for go in goes}) == 1


@every_task
def test_no_command_moves_the_hand_before_the_go_and_none_is_remembered(name: str) -> None:
    env, rng = body(name, memory_steps=16), np.random.default_rng(1)
    calm = wait_of(env, 5, 1)
    to_the_wait(env, 5)
    restless = [env.with_fact(1)]
    while not is_free(restless[-1]):
        step = env.step(rng.uniform(-1, 1, 2))
        np.testing.assert_array_equal(step.filtered, np.zeros(2))
        restless.append(step.obs)
    assert_same(calm, restless)
    if name != "twice":
        env.reset(5)
        for _ in range(env.config.cue_steps):
            step = env.step(rng.uniform(-1, 1, 2))
            np.testing.assert_array_equal(step.filtered, np.zeros(2))
        np.testing.assert_array_equal(step.obs["state"], calm[0]["state"])


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize(("memory_steps", "seeds"), [(16, 32), (64, 16), (512, 3)])
def test_memory_steps_is_the_least_wait_between_the_last_sight_of_the_fact_and_the_go(
    name: str, memory_steps: int, seeds: int
) -> None:
    env, extra = body(name, memory_steps=memory_steps), []
    for seed in range(seeds):
        plays = []
        for fact in facts(name):
            env.reset(seed)
            plays.append([env.with_fact(fact)])
            while not is_free(plays[-1][-1]):
                plays[-1].append(env.step(STILL).obs)
        states = np.array([[obs["state"] for obs in play] for play in plays])  # (facts, ticks, state)
        last_sight = np.flatnonzero((states != states[0]).any(axis=(0, 2)))[-1]
        extra.append(states.shape[1] - 1 - last_sight - 1 - memory_steps)
    assert set(extra) <= set(range(_planar.JITTER + 1))
    assert memory_steps != 16 or (min(extra), max(extra)) == (0, _planar.JITTER)


@pytest.mark.parametrize(("memory_steps", "seeds"), [(16, 32), (64, 16), (512, 3)])
def test_memory_steps_is_the_least_wait_after_each_entry_of_twice(memory_steps: int, seeds: int) -> None:
    env, extra = body("twice", memory_steps=memory_steps), []
    for seed in range(seeds):
        seen, _ = decide(env, env.reset(seed), always_the_first)
        at_home = [not is_free(obs) and np.array_equal(obs["state"][:2], HOME) for obs in seen]
        runs = [len(run) for run in "".join("h" if here else " " for here in at_home).split()]
        assert len(runs) == 2
        extra += [run - memory_steps for run in runs]
    assert set(extra) <= set(range(_planar.JITTER + 1))
    assert memory_steps != 16 or (min(extra), max(extra)) == (0, _planar.JITTER)


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("key", ["state", "img"])
def test_the_cue_shows_the_fact(name: str, key: str) -> None:
    env, cues = body(name, memory_steps=4, cameras=("img",)), set()
    for fact in facts(name):
        env.reset(2)
        seen = [env.with_fact(fact), *(env.step(STILL).obs for _ in range(env.config.cue_steps))]
        cues.add(b"".join(obs[key].tobytes() for obs in seen))
    assert len(cues) == len(facts(name))


@every_task
def test_equal_states_give_equal_pictures(name: str) -> None:
    env = body(name, memory_steps=4, cameras=("img",))
    pictures: dict[bytes, bytes] = {}
    met_again = 0
    for seed in range(4):
        for fact in range(tasks.module(name).N_FACTS):
            env.reset(seed)
            seen, _ = decide(env, env.with_fact(fact), always_the_first)
            for obs in seen:
                met_again += obs["state"].tobytes() in pictures
                assert pictures.setdefault(obs["state"].tobytes(), obs["img"].tobytes()) == obs["img"].tobytes()
    assert met_again > 20
    assert len(set(pictures.values())) > 20


@every_task
def test_the_state_is_small_and_within_one(name: str) -> None:
    env = body(name, memory_steps=4)
    expert = tasks.expert(env, 0)
    assert env.spec.obs["state"].shape[0] <= 12
    for seed in range(5):
        obs = env.reset(seed)
        expert.reset(seed)
        expert.observe(obs, None)
        done = False
        while not done:
            assert np.abs(obs["state"]).max() <= 1.0
            step = env.step(expert.plan().actions[0])
            obs, done = step.obs, step.terminated
            expert.observe(obs, step.filtered)


@every_task
def test_the_experts_commands_before_the_go_do_not_depend_on_the_fact(name: str) -> None:
    env = body(name, memory_steps=16)
    commands: list[list[np.ndarray]] = []
    for fact in range(tasks.module(name).N_FACTS if name != "twice" else 1):
        expert = tasks.expert(env, 4)
        env.reset(4)
        obs = env.with_fact(fact)
        expert.reset(4)
        expert.observe(obs, None)
        commands.append([])
        while not is_free(obs):
            commands[-1].append(expert.plan().actions[0])
            obs = env.step(commands[-1][-1]).obs
            expert.observe(obs, None)
    for other in commands[1:]:
        np.testing.assert_array_equal(commands[0], other)
    assert name == "twice" or np.std(commands[0], axis=0).min() > 0.003, "an unsteady hand"


@pytest.mark.parametrize("name", DRAWN)
def test_facts_are_uniform(name: str) -> None:
    env, module = body(name), tasks.module(name)
    drawn = []
    for seed in range(300):
        env.reset(seed)
        drawn.append(module.fact(env))
    assert chisquare(np.bincount(drawn, minlength=module.N_FACTS)).pvalue > 0.01


def test_twice_counts_its_entries() -> None:
    env, fact = body("twice", memory_steps=1), tasks.module("twice").fact
    obs, counts = env.reset(0), []
    for _ in range(2):
        counts.append(fact(env))
        while is_free(obs):
            obs = env.step(to(env, np.array(places("twice")[0]))).obs
        while not is_free(obs):
            obs = env.step(STILL).obs
    counts.append(fact(env))
    assert counts == [0, 1, 2]
    while env.free:
        step = env.step(to(env, np.array(places("twice")[1])))
    assert step.success and step.terminated


def test_the_cube_lies_nearer_to_the_pad_it_belongs_to_and_anywhere_there() -> None:
    nearer, env = tasks.module("nearer"), body("nearer")
    found = []
    for seed in range(200):
        cube = env.reset(seed)["state"][2:4]
        gaps = [np.linalg.norm(cube - pad) for pad in nearer.PADS]
        assert gaps[nearer.fact(env)] < gaps[1 - nearer.fact(env)] - 0.2
        found.append(cube)
    assert np.ptp(np.abs(found), axis=0).min() > 0.3, "spread along and across the line"


@every_task
def test_max_steps_is_as_long_as_the_task_needs_and_can_be_set(name: str) -> None:
    short, long = body(name, memory_steps=16).config, body(name, memory_steps=116).config
    assert long.max_steps - short.max_steps == (200 if name == "twice" else 100)
    env = body(name, max_steps=3)
    env.reset(0)
    assert [env.step(STILL).truncated for _ in range(3)] == [False, False, True]


@every_task
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"memory_steps": 0}, "memory_steps: want at least 1, got 0"),
        ({"cue_steps": 3}, "cue_steps: want at least"),
        ({"cameras": ("top",)}, "unknown camera 'top'"),
        ({"image_size": 8}, "image_size >= 16"),
    ],
)
def test_a_config_that_cannot_be_is_refused(name: str, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        body(name, **wrong)


def test_a_state_of_another_length_and_an_unknown_camera_are_refused() -> None:
    env = body("shell")
    env.reset(0)
    with pytest.raises(BadInput, match="want a state of 12 numbers"):
        env.restore(np.zeros(5))
    with pytest.raises(BadInput, match="unknown camera 'top'"):
        env.render("top")
