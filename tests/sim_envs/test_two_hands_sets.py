"""Motion-track sets of the bench: exact for robots, labelled and as noisy as a hand detector for humans."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from robolearn.apps import _two_hands_sets as sets
from robolearn.apps._two_hands_sets import VIEWS, Wanted
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput
from robolearn.video import pinhole
from robolearn.video.noise import HandNoise, hand_size
from robolearn.video.points import five_of_hand, gripper_points
from robolearn.video.triangulate import triangulate
from sim_envs import _base as tasks

SMALL = {"image_size": 32, "direction": "right"}


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> EpisodeSet:
    return sets.record_tracks(Wanted("drawer", 2, overrides=SMALL), tmp_path_factory.mktemp("robot") / "robot.zarr")


@pytest.fixture(scope="module")
def human(tmp_path_factory: pytest.TempPathFactory) -> EpisodeSet:
    wanted = Wanted("drawer", 2, embodiment="human", noise=HandNoise(), overrides={**SMALL, "hand": "left"})
    return sets.record_tracks(wanted, tmp_path_factory.mktemp("human") / "human.zarr")


def test_robot_tracks_triangulate_to_the_grippers_points(robot: EpisodeSet) -> None:
    assert robot.spec is not None
    cameras = [robot.spec.cameras[f"{view}_image"] for view in VIEWS]
    start, stop = robot.span(1)
    rows = {
        key: robot.read(key, start, stop) for key in ("eef_pos", "eef_quat_wxyz", "gripper_open", "tracks/left", "tracks/right")
    }
    points = triangulate(cameras, np.stack([rows["tracks/left"], rows["tracks/right"]]))
    np.testing.assert_allclose(points, gripper_points(sets.poses_of(rows), rows["gripper_open"][:, 0]), atol=5e-5)


def test_a_robots_episode_replays_from_its_set(robot: EpisodeSet) -> None:
    start, stop = robot.span(0)
    body = tasks.make("drawer", {**robot.env, "cameras": []})
    body.reset(int(robot.episode_field("seed")[0]))  # type: ignore[index]
    states, success = [], False
    for action in robot.read("action", start, stop):
        states.append(body.state())
        success = bool(body.step(action).success)
    body.close()
    assert success
    np.testing.assert_array_equal(states, robot.read("sim_state", start, stop))


def test_a_human_set_has_what_a_video_has_and_no_action(human: EpisodeSet) -> None:
    expected = {f"{kind}/{view}" for kind in ("tracks", "valid", "hand") for view in VIEWS}
    assert set(human.keys) == expected | {"left_image", "right_image", "gripper_open"}
    assert human.spec is not None and human.spec.action.shape == (0,) and set(human.spec.cameras) == {"left_image", "right_image"}
    assert list(human.episode_field("embodiment")) == ["human", "human"]  # type: ignore[arg-type]
    assert list(human.episode_field("right_hand")) == [0, 0]  # type: ignore[arg-type]


def test_human_tracks_are_the_hands_own_points_finite_everywhere_with_gaps_said(human: EpisodeSet) -> None:
    for view in VIEWS:
        hand = human.read(f"hand/{view}", 0, human.n_steps)
        np.testing.assert_array_equal(human.read(f"tracks/{view}", 0, human.n_steps), five_of_hand(hand, False, "wrist"))
        valid = human.read(f"valid/{view}", 0, human.n_steps)
        assert np.isfinite(hand).all() and 0.5 < valid.mean() < 1.0


def test_the_noise_is_the_share_of_the_hand_that_was_measured_for_mediapipe() -> None:
    """Spec 3b: 5 to 11 % of the hand's size per coordinate."""
    with closing(sets.open_bench("drawer", {"embodiment": "human"})) as body:
        episode, camera = sets.performed(body, 0), body.calibration("left")
    exact = pinhole.project(camera, episode.landmarks)
    shares = []
    for seed in range(20):
        noisy, valid = sets.seen_hand(camera, episode.landmarks, HandNoise(), np.random.default_rng(seed))
        shares.append(np.std(((noisy - exact) / hand_size(exact)[:, None, None])[valid]))
    assert 0.05 < np.median(shares) < 0.11


def test_both_embodiments_show_the_same_scene_and_differ_where_the_hand_is(robot: EpisodeSet, tmp_path: Path) -> None:
    same = sets.record_tracks(Wanted("drawer", 1, embodiment="human", overrides=SMALL), tmp_path / "same.zarr")
    ours, theirs = robot.read("left_image", 0, 1)[0].astype(int), same.read("left_image", 0, 1)[0].astype(int)
    differs = np.abs(ours - theirs).sum(axis=2) > 30
    assert 0.01 < differs.mean() < 0.4


def test_a_task_of_another_body_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match="hold: want a task of the two-embodiment bench"):
        sets.open_bench("hold", {})
