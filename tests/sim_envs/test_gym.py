"""Gymnasium's own checker accepts our tasks, and its environments drive like our bodies."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from robolearn.errors import BadInput
from robolearn.rollout import rollout
from sim_envs import _base as tasks
from sim_envs._gym import FromGym, ToGym

sys.path.insert(0, str(Path(__file__).parent))
from toys import Walk, Wanderer


def test_gymnasiums_checker_accepts_pusht() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(infinity|symmetric and normalized|alternative render modes).*")
        check_env(ToGym(tasks.make("pusht", {"cameras": ["img"]}), low=0.0, high=512.0))


def test_a_task_behaves_in_gymnasium_as_it_does_here() -> None:
    ours, theirs = tasks.make("pusht"), ToGym(tasks.make("pusht"), 0.0, 512.0)
    np.testing.assert_array_equal(ours.reset(3)["state"], theirs.reset(seed=3)[0]["state"])
    action = np.array([200.0, 100.0], np.float32)
    step, (obs, reward, terminated, truncated, info) = ours.step(action), theirs.step(action)
    np.testing.assert_array_equal(step.obs["state"], obs["state"])
    assert (reward, terminated, truncated, info) == (step.score, False, False, {"success": False})
    assert theirs.render().shape == (512, 512, 3)


def test_resets_without_a_seed_follow_from_the_last_seed() -> None:
    env = ToGym(tasks.make("pusht"))
    episodes = []
    for _ in range(2):
        env.reset(seed=1)
        episodes.append([env.reset()[0]["state"] for _ in range(2)])
    np.testing.assert_array_equal(episodes[0], episodes[1])
    assert not np.array_equal(episodes[0][0], episodes[0][1])


def test_a_gymnasium_environment_drives_like_a_body() -> None:
    body = FromGym(gymnasium.make("Pendulum-v1"), hz=20)
    assert body.spec.obs["observation"].shape == (3,) and body.spec.action.shape == (1,)
    np.testing.assert_array_equal(body.reset(1)["observation"], body.reset(1)["observation"])
    step = body.step(np.array([99.0]))
    assert step.sent == pytest.approx([2.0]), "clipped to the action space"
    assert step.success is None and step.score is not None
    body.close()


def test_there_and_back_is_the_same_episode() -> None:
    back = FromGym(ToGym(Walk()))
    for seed in (1, 2, 3):
        assert rollout(back, Wanderer(), max_steps=20, seed=seed) == rollout(Walk(), Wanderer(), max_steps=20, seed=seed)


def test_what_is_no_box_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match="action: want a Box, got Discrete"):
        FromGym(gymnasium.make("CartPole-v1"), hz=50)
