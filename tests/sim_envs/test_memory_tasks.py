"""The planar memory tasks are exact: nothing but memory solves them, and `memory_steps` is how long it must last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby, pairwise, product
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from robolearn.core import Obs, Step
from robolearn.errors import BadInput, ConfigError
from robolearn.rollout import rollout
from sim_envs import _base as tasks
from sim_envs import _planar

NAMES = ("nearer", "shell", "twice", "scoops", "hold")
DRAWN = tuple(name for name in NAMES if name != "twice")  # their fact is drawn; that of twice is counted
HOME = np.array(_planar.HOME, np.float32)
STILL = np.zeros(2)

Play = tuple[list[Obs], list[Step]]
Choice = Callable[[], int]  # asked at every go
every_task = pytest.mark.parametrize("name", NAMES)


AGAIN = 4 ** (-1 / 3)
BEST = {  # odds of the options of `places` with which a policy without memory does best
    "nearer": (1 / 2, 1 / 2),
    "shell": (1 / 3, 1 / 3, 1 / 3),
    "twice": (1 / 2, 1 / 2),
    "scoops": (AGAIN, 1 - AGAIN),
    "hold": (1 / 3, 1 / 3, 1 / 3),
}


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


def assert_same(a: Sequence[Obs], b: Sequence[Obs]) -> None:
    assert len(a) == len(b)
    for k, (x, y) in enumerate(zip(a, b, strict=True)):
        for key in x:
            np.testing.assert_array_equal(x[key], y[key], err_msg=f"observation {k}, {key}")


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
