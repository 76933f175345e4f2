"""ZeroMimic's relative poses and Point Policy's points (spec 1g, 2): exact both ways, in the camera of now, and trainable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from robolearn import cli, geometry
from robolearn.core import ArraySpec
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput
from robolearn.video import _wrist_table, points3d, relative
from tests.video import human_sets


def poses(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Returns random poses (*shape, 4, 4)."""
    return geometry.pose(rng.normal(size=(*shape, 3)), geometry.matrix_from_rotvec(2.0 * rng.normal(size=(*shape, 3))))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_relative_poses_come_back_exactly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    now, then = poses(rng, 3), poses(rng, 3, 10)
    numbers = relative.encode(then, now)
    assert numbers.shape == (3, 10, relative.NUMBERS)
    np.testing.assert_allclose(relative.decode(numbers, now), then, atol=1e-9)


def test_staying_still_is_the_same_number_everywhere() -> None:
    now = poses(np.random.default_rng(0), 5)
    still = relative.encode(now[:, None], now)[:, 0]
    np.testing.assert_allclose(still, np.tile([0, 0, 0, 1, 0, 0, 0, 1, 0], (5, 1)), atol=1e-12)


def test_a_small_turn_is_a_small_number_where_subtracted_euler_angles_jump() -> None:
    """The published subtraction differs by a whole turn across +-180 degrees and is wrong where the hand is pitched."""
    before = geometry.rotation_z(np.deg2rad(179.0))
    after = geometry.rotation_z(np.deg2rad(-179.0))
    published = Rotation.from_matrix(after).as_euler("xyz") - Rotation.from_matrix(before).as_euler("xyz")
    ours = relative.encode(geometry.pose(np.zeros(3), after)[None], geometry.pose(np.zeros(3), before))[0]
    assert np.abs(published).max() > 6.0
    assert np.abs(ours - [0, 0, 0, 1, 0, 0, 0, 1, 0]).max() < 0.04


def test_a_camera_that_moves_does_not_make_a_hand_at_rest_move() -> None:
    """Each frame's future is expressed in that frame's own camera (spec 2)."""
    rng = np.random.default_rng(1)
    hand = np.repeat(poses(rng, 1), 20, axis=0)
    now, then = relative.futures(hand, poses(rng, 20), horizon=4)
    np.testing.assert_allclose(relative.encode(then, now)[..., :3], 0.0, atol=1e-9)
    with pytest.raises(BadInput, match="as many cameras as hands"):
        relative.futures(hand, poses(rng, 3), 4)


def test_the_future_is_the_following_frames_and_the_last_one_is_repeated() -> None:
    hand, camera = poses(np.random.default_rng(2), 6), np.repeat(poses(np.random.default_rng(3), 1), 6, axis=0)
    now, then = relative.futures(hand, camera, horizon=3)
    np.testing.assert_allclose(camera[0] @ now, hand, atol=1e-12)
    np.testing.assert_allclose(camera[0] @ then[1], hand[2:5], atol=1e-12)
    np.testing.assert_allclose(camera[0] @ then[5], hand[[5, 5, 5]], atol=1e-12)


def test_every_place_in_the_chunk_has_its_own_scale() -> None:
    rng = np.random.default_rng(4)
    grows = np.arange(1, 6)[:, None] * np.ones(relative.NUMBERS)
    chunks = rng.normal(size=(4000, 5, relative.NUMBERS)) * grows + 3.0
    chunks[..., 8] = 1.0  # what never varies is only centred
    scale = relative.ChunkScale.fit(chunks)
    flat = scale.normalize(chunks)
    np.testing.assert_allclose(flat.mean(0), 0.0, atol=1e-9)
    np.testing.assert_allclose(flat[..., :8].std(0), 1.0, atol=1e-9)
    np.testing.assert_allclose(scale.denormalize(flat), chunks, atol=1e-9)
    assert scale.spread[4, 0] > 4 * scale.spread[0, 0] and np.isfinite(flat).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_nine_points_give_their_hand_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hand, closed = poses(rng, 6), rng.random(6) < 0.5
    points = points3d.nine_points(hand, closed)
    found, shut = points3d.hand_of(points)
    np.testing.assert_allclose(found, hand, atol=1e-9)
    np.testing.assert_array_equal(shut, closed)
    noisy, _ = points3d.hand_of(points + 0.002 * rng.normal(size=points.shape))
    assert np.linalg.norm(noisy[:, :3, 3] - hand[:, :3, 3], axis=1).max() < 0.02


def test_the_base_point_lies_behind_the_fingertips_and_the_tips_beyond() -> None:
    """Point Policy's figures: base at z = -0.127, tips 0.16 in front of it, 0.04 to either side, closed 0.015."""
    points = points3d.nine_points(np.eye(4), np.array(False))
    np.testing.assert_allclose(points[:3], [[0, 0, -0.127], [0, 0.04, 0.033], [0, -0.04, 0.033]])
    np.testing.assert_allclose(points3d.nine_points(np.eye(4), np.array(True))[1:3, 1], [0.015, -0.015])


def test_clicked_points_of_a_thing_that_moves_are_followed_in_space() -> None:
    cameras = human_sets.cameras_at((0.0, 0.0, 0.0))
    rng = np.random.default_rng(5)
    texture = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    frames = [np.stack([np.roll(texture, (2 * k, 3 * k), (0, 1)) for k in range(4)]) for _ in cameras]
    seeds = np.array([[[300.0, 220.0], [340.0, 260.0]], [[300.0, 220.0], [340.0, 260.0]]])
    points, alive = points3d.object_points(cameras, frames, seeds)
    assert points.shape == (4, 2, 3) and alive.all()
    assert np.linalg.norm(points[3] - points[0], axis=1).min() > 0.005


@pytest.fixture(scope="module")
def human(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a human set of four clips with small pictures and an object's place."""
    path = tmp_path_factory.mktemp("human") / "human.zarr"
    clips = []
    for seed in range(4):
        truth, opening = _wrist_table.motion(10.0, np.random.default_rng(seed))
        clips.append((truth, opening < 0.5, seed))
    human_sets.write(path, clips, 10.0, human_sets.cameras_at((0, 0, 0)), pictures=16, extra={"object": ArraySpec((3,))})
    return path


def test_point_policy_trains_on_human_video_alone(human: Path, tmp_path: Path) -> None:
    out = tmp_path / "points.zarr"
    assert cli.main(["tracks", "points", str(human), "--out", str(out), "--keep", "object"]) == 0
    made = EpisodeSet.open(out)
    assert made.n_episodes == 4 and made.keys["points"].shape == (27,) and made.keys["action"].shape == (28,)
    rows = made.episode(0)
    hand, closed = points3d.hand_of(rows["points"].reshape(-1, 9, 3))
    truth, opening = _wrist_table.motion(10.0, np.random.default_rng(0))
    assert np.linalg.norm(hand[:, :3, 3] - truth[:, :3, 3], axis=1).max() < 0.02
    np.testing.assert_array_equal(closed, opening < 0.5)
    np.testing.assert_array_equal(rows["action"][:-1, :27], rows["points"][1:])
    assert trains("point_policy", out, tmp_path)


def test_a_key_that_a_video_does_not_give_is_refused_with_what_would_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, opening = _wrist_table.motion(10.0, np.random.default_rng(0))
    human_sets.write(tmp_path / "human.zarr", [(truth, opening < 0.5, 0)], 10.0, human_sets.cameras_at((0, 0, 0)))
    words = ["tracks", "points", str(tmp_path / "human.zarr"), "--out", str(tmp_path / "points.zarr")]
    assert cli.main([*words, "--keep", "object"]) == 2
    said = capsys.readouterr().err
    assert "--keep object: no such key" in said and "leave --keep out, or add the key" in said and said.count("\n") == 1
    assert not (tmp_path / "points.zarr").exists()
    assert cli.main(words) == 0


def test_zeromimic_trains_on_a_goal_picture_and_relative_wrist_poses(human: Path, tmp_path: Path) -> None:
    out = tmp_path / "wrist.zarr"
    assert cli.main(["tracks", "points", str(human), "--out", str(out), "--recipe", "zeromimic", "--size", "16"]) == 0
    made = EpisodeSet.open(out)
    assert made.n_episodes == 8 and set(made.episode_field("view")) == {"left", "right"}
    rows = made.episode(1)
    assert (rows["goal_image"] == rows["image"][-1]).all() and rows["action"].shape[1] == 90
    now = geometry.pose(rows["wrist"][:, :3], geometry.matrix_from_rot6d(rows["wrist"][:, 3:]))
    then = relative.decode(rows["action"].reshape(-1, 10, 9).astype(float), now)
    np.testing.assert_allclose(then[:-10, 2, :3, 3], now[3:-7, :3, 3], atol=1e-5)
    assert trains("zeromimic", out, tmp_path)


def trains(config: str, dataset: Path, folder: Path) -> bool:
    """Returns whether a shipped config trains on a set for two steps."""
    run = folder / "run"
    words = ["train", config, "--dataset.path", str(dataset), "--out", str(run), "--steps", "2", "--device", "cpu"]
    words += ["--precision", "fp32", "--no-tensorboard", "--batch-size", "8", "--val-every", "2", "--save-every", "2"]
    return cli.main(words) == 0 and (run / "checkpoints" / "last").exists()
