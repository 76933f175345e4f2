"""What every task promises; a new file in sim_envs/tasks is tested by being there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from robolearn.core import Obs, Policy, SimEnv
from robolearn.errors import ConfigError, UnknownName
from sim_envs import _base as tasks

STEPS = 8


@pytest.fixture(scope="module", params=tasks.names())
def body(request: pytest.FixtureRequest) -> Iterator[SimEnv]:
    with closing(tasks.make(request.param)) as made:
        yield made


@pytest.fixture(scope="module")
def other(body: SimEnv) -> Iterator[SimEnv]:
    """Another body of the same task."""
    with closing(tasks.make(body.task)) as made:
        yield made


def actions(body: SimEnv, n: int = STEPS) -> np.ndarray:
    """Returns n different legal actions: those that the task's expert would take, from one plan after another."""
    policy = tasks.expert(body, 0)
    obs, chosen = body.reset(7), []
    policy.reset(7)
    policy.observe(obs, None)
    while len(chosen) < n:
        for action in policy.plan().actions[: policy.spec.execute][: n - len(chosen)]:
            step = body.step(action)
            policy.observe(step.obs, step.filtered)
            chosen.append(action)
    return np.stack(chosen)


@pytest.fixture(scope="module")
def played(body: SimEnv) -> np.ndarray:
    return actions(body)


def episode(body: SimEnv, seed: int, played: np.ndarray) -> list[Obs]:
    return [body.reset(seed), *(body.step(action).obs for action in played)]


def assert_equal(a: list[Obs], b: list[Obs]) -> None:
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for key in x:
            np.testing.assert_array_equal(x[key], y[key], err_msg=key)


def test_it_is_a_simenv_that_says_what_it_is(body: SimEnv) -> None:
    assert isinstance(body, SimEnv)
    assert body.task in tasks.names()
    assert body.config.max_steps > 0
    assert body.versions() and all(isinstance(version, str) for version in body.versions().values())


def test_what_it_shows_fits_its_spec(body: SimEnv, played: np.ndarray) -> None:
    for obs in episode(body, 3, played):
        assert list(obs) == list(body.spec.obs)
        for key, spec in body.spec.obs.items():
            spec.check(obs[key], key)
    step = body.step(played[-1].astype(body.spec.action.dtype))
    body.spec.action.check(step.filtered, "filtered")
    assert step.score is None or 0.0 <= step.score <= 1.0
    assert np.isfinite(step.sent).all()


def test_equal_seeds_give_bit_equal_episodes_whatever_happened_before(body: SimEnv, other: SimEnv, played: np.ndarray) -> None:
    first = episode(body, 11, played)
    episode(body, 12, played[:3])
    assert_equal(first, episode(body, 11, played))
    assert_equal(first, episode(other, 11, played))


def test_different_seeds_differ(body: SimEnv) -> None:
    a, b = body.reset(1), body.reset(2)
    assert any(not np.array_equal(a[key], b[key]) for key in a)


def test_restore_continues_bit_equal(body: SimEnv, other: SimEnv, played: np.ndarray) -> None:
    body.reset(5)
    for action in played[:4]:
        obs = body.step(action).obs
    state = body.state()
    assert state.dtype == np.float64 and state.ndim == 1 and np.isfinite(state).all()
    rest = [body.step(action).obs for action in played[4:]]
    body.reset(6)
    assert_equal([obs], [body.restore(state)])
    np.testing.assert_array_equal(body.state(), state)
    assert_equal(rest, [body.step(action).obs for action in played[4:]])
    other.reset(8)
    other.restore(state)
    assert_equal(rest, [other.step(action).obs for action in played[4:]])


def test_observations_share_no_memory_with_the_body(body: SimEnv, played: np.ndarray) -> None:
    obs = body.reset(4)
    before = {key: value.copy() for key, value in obs.items()}
    for action in played[:3]:
        body.step(action)
    assert_equal([before], [obs])


def test_it_can_be_looked_at(body: SimEnv) -> None:
    body.reset(0)
    picture = body.render()
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    assert min(picture.shape[:2]) >= 256
    assert picture.std() > 5, "a picture of one colour"


def test_the_expert_fits_and_plans_without_side_effects(body: SimEnv) -> None:
    policy = tasks.expert(body, 1)
    assert isinstance(policy, Policy)
    body.spec.require(policy.spec, who="expert")
    obs = body.reset(9)
    policy.reset(9)
    policy.observe(obs, None)
    state = body.state()
    one, two = policy.plan(), policy.plan()
    assert one.tick == two.tick == 0
    np.testing.assert_array_equal(one.actions, two.actions)
    np.testing.assert_array_equal(body.state(), state)
    for action in one.actions:
        body.spec.action.check(np.asarray(action, np.float32), "action")


def test_unknown_overrides_name_the_nearest_field(body: SimEnv) -> None:
    with pytest.raises(ConfigError, match="did you mean 'max_steps'"):
        tasks.make(body.task, {"max_step": 3})


def test_an_unknown_task_names_the_nearest_one() -> None:
    with pytest.raises(UnknownName, match="did you mean 'pusht'"):
        tasks.make("push_t")
