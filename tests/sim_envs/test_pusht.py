"""PushT is the benchmark's: physics, score, pictures and keypoints are those of the recorded demonstrations."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, ConfigError
from robolearn.rollout import rollout
from sim_envs import _base as tasks
from sim_envs import _tee


@pytest.fixture(scope="session")
def human(shared: Path) -> EpisodeSet:
    return EpisodeSet.open(shared / "data" / "pusht_zarr" / "pusht_cchi_v7_replay.zarr")


@pytest.mark.parametrize("episode", [0, 50, 128, 205])
def test_a_human_demonstration_replays_bit_by_bit(human: EpisodeSet, episode: int) -> None:
    start, stop = human.span(episode)
    want, actions = human.read("state", start, stop), human.read("action", start, stop)
    body = tasks.make("pusht")
    obs = body.reset(episode)
    for k, action in enumerate(actions):
        np.testing.assert_array_equal(obs["state"], want[k])
        obs = body.step(action).obs


def test_keypoints_are_the_recorded_ones(human: EpisodeSet) -> None:
    """They were recorded an instant apart from the state: exact where the tee rests, 0.04 px off in 99 of 100 rows."""
    state, keypoint = human.read("state").astype(float), human.read("keypoint")
    rows = range(0, len(state), 7)
    errors = np.array([np.abs(_tee.place(_tee.KEYPOINTS, *state[k, 2:]) - keypoint[k]).max() for k in rows])
    assert np.median(errors) < 1e-4 and np.quantile(errors, 0.99) < 0.05 and errors.max() < 2.2


def test_pictures_are_nearly_the_recorded_ones(human: EpisodeSet) -> None:
    state, recorded = human.read("state", 0, 161).astype(float), human.read("img", 0, 161)
    differences = [
        np.abs(_tee.draw_observation(s[:2], s[2:], 96).astype(float) - picture).mean()
        for s, picture in zip(state[::20], recorded[::20], strict=True)
    ]
    assert max(differences) < 0.4, "mean absolute difference of 0..255"
    white = np.abs(255.0 - recorded[::20]).mean()
    assert max(differences) < 0.05 * white, "far better than an empty table"


def test_the_goal_pose_covers_the_goal() -> None:
    assert _tee.coverage(*_tee.GOAL) == pytest.approx(1.0, abs=1e-12)
    assert _tee.coverage(256, 256, math.pi / 4 + math.pi) < 0.5
    assert _tee.coverage(20, 20, 0) == 0.0


@given(st.floats(190, 330), st.floats(190, 330), st.floats(-7, 7))
def test_coverage_is_the_share_of_points_inside(x: float, y: float, angle: float) -> None:
    u, v = np.meshgrid(np.arange(-59.5, 60), np.arange(0.5, 120))
    inside = ((v < 30) | (np.abs(u) < 15)).ravel()
    points = np.stack([u.ravel(), v.ravel()], axis=1)[inside]
    c, s = math.cos(angle), math.sin(angle)
    seen = (_tee.place(points, *_tee.GOAL) - (x, y)) @ np.array([[c, -s], [s, c]])
    bar = (np.abs(seen[:, 0]) <= 60) & (seen[:, 1] >= 0) & (seen[:, 1] <= 30)
    stem = (np.abs(seen[:, 0]) <= 15) & (seen[:, 1] >= 30) & (seen[:, 1] <= 120)
    assert _tee.coverage(x, y, angle) == pytest.approx(np.mean(bar | stem), abs=0.01)


def test_score_and_success_follow_coverage() -> None:
    body = tasks.make("pusht")
    rest = np.array([40.0, 40.0])
    for x, solved in ((256.0, True), (262.0, False)):
        body.restore(np.array([*rest, x, *_tee.GOAL[1:]]))
        step = body.step(rest)
        covered = body.coverage()
        assert step.score == min(1.0, covered / 0.95)
        assert step.success is step.terminated is solved
        assert (covered > 0.95) is solved


def test_an_episode_is_cut_off_after_max_steps() -> None:
    body = tasks.make("pusht", {"max_steps": 3})
    body.reset(0)
    assert [body.step(np.array([50.0, 50.0])).truncated for _ in range(3)] == [False, False, True]
    body.step(np.array([50.0, 50.0]))
    with pytest.raises(BadInput, match="holds 3 actions"):
        body.state()


def test_pictures_cost_nothing_unless_asked_for() -> None:
    assert "img" not in tasks.make("pusht").reset(0)
    obs = tasks.make("pusht", {"cameras": ["img"], "image_size": 64}).reset(0)
    assert obs["img"].shape == (64, 64, 3)
    with pytest.raises(ConfigError, match="unknown camera 'front'"):
        tasks.make("pusht", {"cameras": ["front"]})


def test_a_state_of_another_kind_is_refused() -> None:
    with pytest.raises(BadInput, match="want a state of 617 numbers or a pose of 5"):
        tasks.make("pusht").restore(np.zeros(7))


@pytest.mark.parametrize("seed", [100000, 100001])
def test_the_expert_solves_it(seed: int) -> None:
    body = tasks.make("pusht")
    outcome = rollout(body, tasks.expert(body, 0), max_steps=300, seed=seed)
    assert outcome.success and outcome.score == 1.0


def test_a_mirrored_demonstration_is_one_too(human: EpisodeSet) -> None:
    """Played from the mirrored start, mirrored actions go through the mirrored states and end at the same score."""
    body = tasks.make("pusht")
    for episode in (0, 60, 150):
        start, stop = human.span(episode)
        rows = {key: human.read(key, start, stop) for key in ("state", "keypoint", "action")}
        twin = tasks.module("pusht").mirror(rows)
        obs, score = body.restore(twin["state"][0]), 0.0
        for k, action in enumerate(twin["action"]):
            np.testing.assert_allclose(obs["state"][:4], twin["state"][k, :4], atol=1e-2)
            step = body.step(action)
            obs, score = step.obs, max(score, step.score or 0.0)
        body.reset(episode)
        assert score == pytest.approx(max(body.step(action).score or 0.0 for action in rows["action"]), abs=1e-3)


@given(st.floats(0, 512), st.floats(0, 512), st.floats(0, 6.28))
def test_the_mirror_is_its_own_inverse_and_keeps_the_score(x: float, y: float, angle: float) -> None:
    mirror = tasks.module("pusht").mirror
    state = np.array([[x, y, y, x, angle]])
    twin = mirror({"state": state})["state"]
    back = mirror({"state": twin})["state"]
    np.testing.assert_allclose(back[:, :4], state[:, :4], atol=1e-9)
    assert math.cos(back[0, 4] - angle) == pytest.approx(1.0, abs=1e-12)
    assert _tee.coverage(*twin[0, 2:]) == pytest.approx(_tee.coverage(*state[0, 2:]), abs=1e-9)


def test_keypoints_alone_cannot_be_mirrored() -> None:
    with pytest.raises(BadInput, match="want 'state' beside 'keypoint'"):
        tasks.module("pusht").mirror({"keypoint": np.zeros((1, 9, 2))})
