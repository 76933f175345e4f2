"""`tracks to-demos`: what a hand did before two cameras, an arm does again inside its limits, and `replay` plays it (spec 1g)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from robolearn import cli, geometry
from robolearn.apps import _to_demos
from robolearn.core import ArraySpec, Spec
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, DatasetError
from robolearn.video import playback
from robolearn.video.noise import HandNoise
from robolearn.video.playback import Pace
from tests.video import human_sets

TABLE = (0.0, 0.0, 0.85)  # [m] the middle of robosuite's table, a little above it


@pytest.fixture(scope="module")
def lifted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a human set of two people lifting the cube of seeds 0 and 1, seen with an error of 1 % of the hand's size."""
    path = tmp_path_factory.mktemp("lifted") / "human.zarr"
    clips, hz = human_sets.expert_motions("lift", range(2))
    human_sets.write(path, clips, hz, human_sets.cameras_at(TABLE), HandNoise(sigma_share=(0.01, 0.01), gap_share=(0.0, 0.0)))
    return path


def test_a_panda_lifts_the_cube_that_a_hand_lifted_and_replay_repeats_it(lifted: Path, tmp_path: Path) -> None:
    """Human tracks alone: no robot demonstration is used. The cube lies where it lay for the person (fact seed)."""
    out, told = tmp_path / "demos.zarr", tmp_path / "told.json"
    assert cli.main(["tracks", "to-demos", str(lifted), "--task", "lift", "--out", str(out), "--json", str(told)]) == 0
    figures = json.loads(told.read_text())
    assert figures["episodes"] == figures["successes"] == 2
    assert all(row["miss_max_mm"] < 10 for row in figures["rows"])  # the arm could follow all of it
    made = EpisodeSet.open(out)
    assert made.spec is not None and made.spec.codec == "pose_abs" and made.keys["action"].shape == (10,)
    assert {"eef_pos", "eef_rot6d"} <= set(made.keys)
    assert cli.main(["replay", str(out), "--max-error", "1e-6", "--json", str(told)]) == 0
    assert json.loads(told.read_text())["success_rate"] == 1.0


def test_the_same_hand_drives_joints(lifted: Path, tmp_path: Path) -> None:
    """joint_abs: the angles are SEW's own, so they lie inside the arm's limits and move no faster than its cap."""
    out = tmp_path / "joints.zarr"
    words = ["tracks", "to-demos", str(lifted), "--task", "lift", "--action", "joint_abs", "--out", str(out)]
    assert cli.main([*words, "--episodes", "1", "--only-success"]) == 0
    made = EpisodeSet.open(out)
    assert made.n_episodes == 1 and made.keys["action"].shape == (8,)
    joints = made.read("action")[:, :7]
    assert np.abs(np.diff(joints, axis=0)).max() <= 2.0 / 20.0 + 1e-6


def test_a_path_out_of_the_arms_reach_gives_no_demonstration(
    lifted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "far.zarr"
    words = ["tracks", "to-demos", str(lifted), "--task", "lift", "--out", str(out), "--episodes", "1"]
    assert cli.main([*words, "--shift", "0.9", "0", "0", "--pace.max-speed", "3", "--pace.max-turn", "20"]) == 1
    said = capsys.readouterr()
    assert "arm: misses the path by" in said.out and "nothing was written" in said.err
    assert not out.exists()


def test_an_existing_set_is_refused_and_a_set_without_two_calibrated_views_too(
    lifted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["tracks", "to-demos", str(lifted), "--task", "lift", "--out", str(lifted)]) == 2
    assert "exists already" in capsys.readouterr().err
    with pytest.raises(DatasetError, match=r"no landmarks of view 'lift'; did you mean 'left'\?"):
        _to_demos.open_human(EpisodeSet.open(lifted), ("lift", "right"))
    with pytest.raises(DatasetError, match="two views or more, got left"):
        _to_demos.open_human(EpisodeSet.open(lifted), ("left",))
    hand = {f"hand/{view}": ArraySpec((21, 2)) for view in human_sets.VIEWS}
    bare = EpisodeSet.create(tmp_path / "bare.zarr", Spec(hand, ArraySpec((0,)), 10.0), task="", env={})
    with pytest.raises(DatasetError, match="camera 'left' has no calibrated place"):
        _to_demos.open_human(bare)


def test_a_body_without_an_arm_takes_the_path_as_it_is(tmp_path: Path) -> None:
    """The bench's gripper flies; its flange is 0.15 m behind the fingertips."""
    [(poses, closed, _)], hz = human_sets.expert_motions("drawer", [3])
    tips = poses @ geometry.pose([0.0, 0.0, 0.15], np.eye(3))
    human = tmp_path / "human.zarr"
    human_sets.write(human, [(tips, closed, 3)], hz, human_sets.cameras_at((0.0, 0.0, 0.1)))
    out, told = tmp_path / "demos.zarr", tmp_path / "told.json"
    words = ["tracks", "to-demos", str(human), "--task", "drawer", "--tip", "0.15", "--out", str(out), "--json", str(told)]
    assert cli.main(words) == 0
    row = json.loads(told.read_text())["rows"][0]
    assert row["success"] and row["miss_max_mm"] is None
    assert cli.main(["replay", str(out), "--max-error", "1e-6"]) == 0


def test_fingers_are_exchanged_where_that_saves_a_turn() -> None:
    now = geometry.pose(np.zeros(3), geometry.rotation_z(0.2))
    played = playback.playback(now[None] @ _to_demos.HALF_TURN, np.array([False]), 10.0, 10.0)
    np.testing.assert_allclose(_to_demos.half_turned(played, now).world_from_hand[0], now, atol=1e-12)
    kept = playback.playback(now[None], np.array([False]), 10.0, 10.0)
    np.testing.assert_allclose(_to_demos.half_turned(kept, now).world_from_hand[0], now, atol=1e-12)


def test_nothing_is_asked_faster_than_the_pace_and_slow_motion_keeps_its_time() -> None:
    t = np.arange(31) / 30.0
    path = geometry.pose(np.stack([2.0 * t, 0 * t, 0 * t], axis=1), geometry.rotation_z(4.0 * t))  # 2 m/s, 4 rad/s, for 1 s
    pace = Pace(max_speed=0.5, max_turn=10.0, dwell_s=0.0)
    played = playback.playback(path, np.zeros(31, bool), 30.0, 20.0, pace)
    speed = np.linalg.norm(np.diff(played.world_from_hand[:, :3, 3], axis=0), axis=1) * 20.0
    assert speed.max() < 0.5 + 1e-9 and abs(len(played.row) / 20.0 - 4.0) < 0.1
    slow = path.copy()
    slow[:, :3, 3] *= 0.1
    assert abs(len(playback.playback(slow, np.zeros(31, bool), 30.0, 20.0, pace).row) / 20.0 - 1.0) < 0.1
    np.testing.assert_allclose(played.world_from_hand[-1], path[-1], atol=1e-9)


def test_the_gripper_stands_still_while_its_fingers_move() -> None:
    t = np.arange(21) / 10.0
    path = geometry.pose(np.stack([0.1 * t, 0 * t, 0 * t], axis=1), np.eye(3))
    played = playback.playback(path, t >= 1.0, 10.0, 10.0, Pace(dwell_s=0.5))
    still = np.flatnonzero(np.diff(played.world_from_hand[:, 0, 3]) == 0)
    assert len(still) == 5 and played.closed[still].all() and not played.closed[still[0] - 1]


def test_the_way_in_is_straight_even_and_no_faster_than_the_pace() -> None:
    path = playback.playback(geometry.pose([[0.5, 0, 0]], np.eye(3)), np.array([True]), 10.0, 10.0)
    whole = playback.lead_in(geometry.pose([0.0, 0, 0], geometry.rotation_z(1.0)), path, 10.0, Pace(max_speed=0.25))
    steps = np.diff(np.concatenate([[0.0], whole.world_from_hand[:, 0, 3]]))
    np.testing.assert_allclose(steps, 0.025, atol=1e-9)
    assert (whole.row[:-1] == -1).all() and whole.row[-1] == 0 and whole.closed.all()


def test_a_pace_or_a_scene_that_is_none_is_refused() -> None:
    with pytest.raises(BadInput, match="want slower, max_speed"):
        Pace(slower=0.0)
    with pytest.raises(BadInput, match="scene: want finite numbers"):
        _to_demos.scene_pose((0.0, np.nan, 0.0), 0.0)
