"""The memory tasks on an arm are exact: after a hold begins nothing tells the fact, and what is hidden survives a restore."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from robolearn import geometry
from robolearn.core import Obs, Step
from robolearn.errors import ArrayMismatch, ConfigError
from robolearn.rollout import rollout
from sim_envs import _base as tasks
from sim_envs import _memory_arm
from sim_envs.tasks import cube_return, relay, square_twice

NAMES = ("cube_return", "relay", "shell_arm", "square_twice")
SECOND = "relay, the second hold"
MEMORY = 8
every_task = pytest.mark.parametrize("name", NAMES)
every_hold = pytest.mark.parametrize("name", (*NAMES, SECOND))
every_cue = pytest.mark.parametrize("name", ("relay", "shell_arm"))


@pytest.fixture(scope="module")
def bodies() -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        made = {name: stack.enter_context(closing(tasks.make(name, {"memory_steps": MEMORY}))) for name in NAMES}
        yield {**made, SECOND: made["relay"]}


class Episode:
    """An episode under its expert: every action asked and every step that came of it, so far."""

    def __init__(self, env: Any, seed: int) -> None:
        self.env, self.policy = env, tasks.expert(env, 0)
        self.seen: list[Obs] = [env.reset(seed)]
        self.asked: list[np.ndarray] = []
        self.steps: list[Step] = []
        self.policy.reset(seed)

    def tick(self) -> Step:
        self.policy.observe(self.seen[-1], self.steps[-1].filtered if self.steps else None)
        self.asked.append(self.policy.plan().actions[0])
        self.steps.append(self.env.step(self.asked[-1]))
        self.seen.append(self.steps[-1].obs)
        assert len(self.steps) < 500, "the expert waits for something that does not come"
        return self.steps[-1]

    def to(self, go: bool) -> Episode:
        """Goes on until the go lamp is on or off."""
        while bool(self.seen[-1]["go"][0]) != go:
            self.tick()
        return self

    def to_hold(self) -> Episode:
        """Goes on to the first observation of the next hold; the first one after a cue begins as the cue goes out."""
        cue_steps = getattr(tasks.module(self.env.task), "CUE_STEPS", 0)
        if self.env.now.tick >= cue_steps:
            return self.to(True).to(False)
        while self.env.now.tick < cue_steps:
            self.tick()
        return self

    def rest(self) -> np.ndarray:
        """Plays to the end; returns the actions asked from here on."""
        start = len(self.steps)
        while not self.tick().terminated:
            pass
        return np.stack(self.asked[start:])


def of_fact(env: Any, fact: int) -> int:
    """Returns a seed whose episode has that fact."""
    for seed in range(100):
        env.reset(seed)
        if tasks.module(env.task).fact(env) == fact:
            return seed
    raise AssertionError(f"no seed below 100 has fact {fact}")


def at_hold(env: Any, name: str, fact: int) -> Episode:
    """Returns an episode of that fact at the first observation of the hold that is meant by `name`."""
    episode = Episode(env, of_fact(env, fact)).to_hold()
    return episode.to_hold() if name == SECOND else episode


def wild(env: Any, n: int, seed: int = 0) -> np.ndarray:
    """Returns actions that move all hands and their fingers about."""
    rng = np.random.default_rng(seed)
    hands = [env.eef_pose(k) for k in range(len(env.arms))]
    still = np.concatenate([[*hand[:3, 3], *hand[0, :3], *hand[1, :3], 0.0] for hand in hands])
    return (still + rng.uniform(-0.1, 0.1, (n, len(still)))).astype(np.float32)


def positions(obs: Obs) -> np.ndarray:
    """Returns where every hand is seen (arms, 3) [m]."""
    return np.stack([obs[key] for key in obs if key.startswith("eef_pos")])


def assert_equal(a: list[Obs], b: list[Obs]) -> None:
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for key in x:
            np.testing.assert_array_equal(x[key], y[key], err_msg=key)


@every_task
def test_the_expert_solves_it(bodies: dict[str, Any], name: str) -> None:
    env = bodies[name]
    outcome = rollout(env, tasks.expert(env, 0), max_steps=env.config.max_steps, seed=8)
    assert outcome.success and outcome.score == 1.0 and outcome.reason == "success"


@dataclass(frozen=True)
class Known:
    """A fact at the first observation of a hold. state: the body's; actions: what the expert asks for from there on."""

    fact: int
    state: np.ndarray
    actions: np.ndarray


Held = dict[str, list[Known]]


def holds(env: Any, name: str) -> list[Known]:
    """Returns one hold of every fact, the first two holds of one square twice."""
    if env.task == "square_twice":
        episode = Episode(env, 3).to_hold()
        first, lifting = env.state(), len(episode.steps)
        episode.to_hold()
        second, until_then = env.state(), np.stack(episode.asked[lifting:])
        return [Known(1, first, until_then), Known(2, second, episode.rest())]
    known = []
    for fact in range(tasks.module(env.task).N_FACTS):
        episode = at_hold(env, name, fact)
        known.append(Known(fact, env.state(), episode.rest()))
    return known


@pytest.fixture(scope="module")
def held(bodies: dict[str, Any]) -> Held:
    return {name: holds(env, name) for name, env in bodies.items()}


@every_hold
def test_from_the_hold_on_nothing_seen_or_applied_tells_the_fact(bodies: dict[str, Any], held: Held, name: str) -> None:
    env, plays = bodies[name], []
    for known in held[name]:
        seen = [env.restore(known.state)]
        assert tasks.module(env.task).fact(env) == known.fact
        steps = [env.step(action) for action in wild(env, MEMORY + 12)]
        plays.append((seen + [step.obs for step in steps], steps))
    (first, first_steps), *others = plays
    moved = np.ptp([positions(obs) for obs in first[MEMORY:]], axis=0).max(axis=1)
    assert (moved > 0.01).all(), "a hand did not move after the go"
    for seen, steps in others:
        assert_equal(first, seen)
        for a, b in zip(first_steps, steps, strict=True):
            np.testing.assert_array_equal(a.filtered, b.filtered)
            np.testing.assert_array_equal(a.sent, b.sent)


@every_hold
def test_while_the_scene_holds_commands_move_nothing_and_the_pose_held_is_what_was_applied(
    bodies: dict[str, Any], held: Held, name: str
) -> None:
    env = bodies[name]
    first = env.restore(held[name][0].state)
    for action in wild(env, MEMORY - 1):
        step = env.step(action)
        assert_equal([first], [step.obs])
        applied = step.filtered.reshape(len(env.arms), -1)[:, :3]
        np.testing.assert_allclose(applied, positions(first), atol=1e-6)
        assert not step.terminated


@every_hold
def test_the_go_comes_memory_steps_observations_after_the_hold_began(name: str, bodies: dict[str, Any], held: Held) -> None:
    env = bodies[name]
    for known in held[name]:
        dark = [env.restore(known.state)["go"]] + [env.step(action).obs["go"] for action in wild(env, MEMORY)]
        assert [float(go[0]) for go in dark] == [0.0] * MEMORY + [1.0]


@every_hold
def test_a_restore_in_the_middle_of_a_hold_continues_bit_equal_in_a_fresh_body(
    bodies: dict[str, Any], held: Held, name: str
) -> None:
    env = bodies[name]
    with closing(tasks.make(env.task, {"memory_steps": MEMORY})) as fresh:
        for known in held[name]:
            env.restore(known.state)
            actions = wild(env, MEMORY + 8)
            for action in actions[:5]:
                obs = env.step(action).obs
            middle = env.state()
            rest = [env.step(action).obs for action in actions[5:]]
            end = env.state()
            assert_equal([obs], [fresh.restore(middle)])
            assert tasks.module(env.task).fact(fresh) == known.fact
            assert_equal(rest, [fresh.step(action).obs for action in actions[5:]])
            np.testing.assert_array_equal(fresh.state(), end)


@every_hold
def test_the_same_actions_are_right_for_one_fact_and_wrong_for_all_others(bodies: dict[str, Any], held: Held, name: str) -> None:
    """That is what chance is: a mind that cannot tell the facts apart does the same in all of them."""
    env, wrong = bodies[name], 0
    for known in held[name]:
        for other in held[name]:
            env.restore(known.state)
            last = env.step(other.actions[0])
            for action in other.actions[1:]:
                if last.terminated:
                    break
                last = env.step(action)
            if other.fact == known.fact:
                assert last.success or (name, known.fact) == ("square_twice", 1)
            else:
                assert last.terminated and not last.success and last.score == 0.0
                wrong += 1
    assert wrong == len(held[name]) * (len(held[name]) - 1)


@every_cue
def test_the_cue_is_seen_for_eight_observations_and_no_longer(bodies: dict[str, Any], name: str) -> None:
    env, cues = bodies[name], []
    for fact in range(3):
        seen = [env.reset(of_fact(env, fact)), *(env.step(action).obs for action in wild(env, 12))]
        cues.append(np.array([obs["cue"] for obs in seen]))
        assert (cues[-1][:8] == np.eye(3)[fact]).all()
        assert not cues[-1][8:].any()
    assert len({cue.tobytes() for cue in cues}) == 3


@every_cue
def test_pictures_show_the_cue_and_the_go_and_nothing_else_of_the_fact(name: str) -> None:
    with ExitStack() as stack:
        env: Any = stack.enter_context(closing(tasks.make(name, {"memory_steps": 1, "cameras": ["agentview"]})))
        cue_steps = tasks.module(name).CUE_STEPS
        lit, still = [], wild(env, 1)[0]
        for fact in range(3):
            env.reset(0)
            lit.append([env.with_fact(fact)["agentview_image"]])
            for _ in range(cue_steps + 1):
                lit[-1].append(env.step(still).obs["agentview_image"])
            np.testing.assert_array_equal(lit[-1][0], lit[-1][cue_steps - 1])
    first, *others = lit
    for pictures in others:
        assert np.abs(first[0].astype(int) - pictures[0]).max() > 50, "the cue cannot be seen"
        np.testing.assert_array_equal(first[cue_steps:], pictures[cue_steps:])
    dark, go = first[-2:]
    assert np.abs(dark.astype(int) - go).max() > 50, "the go cannot be seen"


def test_the_relay_goes_from_the_first_arm_to_the_second_and_in_no_other_order(bodies: dict[str, Any], held: Held) -> None:
    env = bodies["relay"]
    episode = at_hold(env, SECOND, 0)
    touched = [bool(obs["handed"][0]) for obs in episode.seen].index(True)
    assert np.linalg.norm(episode.seen[touched]["eef_pos_0"] - relay.HANDING) < relay.HANDED
    assert all(obs["handed"][0] for obs in episode.seen[touched:])
    for first, second in zip(held["relay"], held[SECOND], strict=True):  # the second arm's way to a disc, nothing handed over
        env.restore(first.state)
        steps = [env.step(action) for action in second.actions]
        assert np.linalg.norm(steps[-1].obs["eef_pos_1"] - relay.PLACES[second.fact]) < 2 * relay.TOUCH
        assert not any(step.terminated or step.obs["handed"][0] for step in steps)


def test_a_cube_laid_on_its_disc_counts_after_the_go_only(bodies: dict[str, Any], held: Held) -> None:
    env = bodies["cube_return"]
    for known in held["cube_return"]:
        place = geometry.pose(np.array(cube_return.PLACES[known.fact]), np.eye(3))
        action = wild(env, 1)[0]
        action[-1] = -1.0
        env.reset(of_fact(env, known.fact))
        _memory_arm.thing_to(env.inner, "cube_main", place)
        assert not env.step(action).terminated
        env.restore(known.state)
        for _ in range(MEMORY):
            assert not env.step(action).terminated
        _memory_arm.thing_to(env.inner, "cube_main", place)
        assert env.step(action).success


def test_facts_are_drawn_evenly_and_lie_on_their_side(bodies: dict[str, Any]) -> None:
    env = bodies["cube_return"]
    facts = []
    for seed in range(60):
        y = env.reset(seed)["object"][1]
        facts.append(tasks.module("cube_return").fact(env))
        assert (y > 0.03) == (facts[-1] == 0) and (y < -0.03) == (facts[-1] == 1)
    assert 18 <= sum(facts) <= 42  # a fair coin leaves this range once in 900


def test_square_twice_counts_as_published(bodies: dict[str, Any]) -> None:
    env = bodies["square_twice"]
    episode, counted = Episode(env, 3), [0]
    while not episode.steps or not episode.steps[-1].terminated:
        episode.tick()
        if env.counter != counted[-1]:
            counted.append(env.counter)
            hand, on_peg = env.eef_pose()[:3, 3], env.inner.suite.on_peg(env.object_poses()["nut"][:3, 3], 0)
            near_lift = np.linalg.norm(hand - square_twice.LIFT) < 0.09
            assert on_peg != near_lift and near_lift == (env.counter == 2)
    assert counted == [0, 1, 2, 3]
    assert np.linalg.norm(env.eef_pose()[:3, 3] - (0.0, 0.0, 0.89)) < 0.03


def test_a_memory_of_no_ticks_is_refused() -> None:
    with pytest.raises(ConfigError, match="memory_steps: want at least 1, got 0"):
        tasks.configure("shell_arm", {"memory_steps": 0})
    with pytest.raises(ConfigError, match="max_steps: want at least 0, got -1"):
        tasks.configure("cube_return", {"max_steps": -1})


@every_task
def test_max_steps_grows_with_the_memory(name: str) -> None:
    short, long = (tasks.configure(name, {"memory_steps": n}).max_steps for n in (16, 512))
    assert long - short == 496 * (2 if name in ("relay", "square_twice") else 1)
    assert tasks.configure(name, {"max_steps": 7}).max_steps == 7


def test_a_state_of_another_body_is_refused(bodies: dict[str, Any]) -> None:
    with pytest.raises(ArrayMismatch, match="another robot's or task's"):
        bodies["shell_arm"].restore(np.zeros(3))
