"""From videos to a motion-track set: points where they were filmed, gaps that are known, one hand in all views, the grasp."""

from __future__ import annotations

import json
from pathlib import Path

import hand_videos
import numpy as np
import pytest
from hand_videos import FPS, extract, last_line

from robolearn import cli
from robolearn.data.store import EpisodeSet
from robolearn.video import pinhole
from robolearn.video.points import five_of_hand


def test_points_gripper_and_cameras_are_those_that_were_filmed(tmp_path: Path) -> None:
    filmed = hand_videos.film(tmp_path, "a")
    assert extract(tmp_path, "--smooth-s", "0", "--image-size", "128", "96", "--json", str(tmp_path / "f.json")) == 0
    made = EpisodeSet.open(tmp_path / "set.zarr")
    rows = made.episode(0)
    at = np.round(np.arange(len(rows["gripper_open"])) / made.hz * FPS).astype(int)
    for view, camera in filmed.cameras.items():
        small = pinhole.resized(camera, (128, 96))
        assert made.spec is not None and made.spec.cameras[f"{view}_image"].size == (128, 96)
        assert np.allclose(made.spec.cameras[f"{view}_image"].K, small.K)
        assert len(made.spec.cameras[f"{view}_image"].hash) == 16, "the calibration's hash travels with the cameras"
        want = pinhole.project(small, filmed.points[at])
        assert np.abs(rows[f"hand/{view}"] - want).max() < 0.01
        assert np.abs(rows[f"tracks/{view}"] - five_of_hand(want, right_hand=True)).max() < 0.01
        assert rows[f"valid/{view}"].all() and rows[f"{view}_image"].shape[1:] == (96, 128, 3)
    assert "action" not in made.keys
    tips = np.linalg.norm(filmed.points[at][:, 4] - filmed.points[at][:, 8], axis=-1)
    assert ((tips < 0.07) == (rows["gripper_open"][:, 0] == 0)).mean() > 0.95 and 0.2 < rows["gripper_open"].mean() < 0.9
    assert made.attrs["grasp"]["by"] == "distance"
    figures = json.loads((tmp_path / "f.json").read_text())
    assert [set(row) >= {"path", "frames", "detected", "fps"} for row in figures["videos"]] == [True, True]
    assert [row["frames"] for row in figures["videos"]] == [row["detected"] for row in figures["videos"]] == [135, 135]
    assert figures["rows"][0]["reprojection_px"] < 0.01


def test_a_gap_is_filled_and_said_to_be(tmp_path: Path) -> None:
    """Section 1b.4: dropped at the ends where no view sees the hand, filled in the middle, and `valid` says which."""
    hand_videos.film(tmp_path, "a", unseen={"left": slice(0, 30), "right": slice(60, 75)})
    assert extract(tmp_path) == 0
    made = EpisodeSet.open(tmp_path / "set.zarr").episode(0)
    left, right = (made[f"valid/{view}"][:, 0] for view in ("left", "right"))
    assert EpisodeSet.open(tmp_path / "set.zarr").episode_field("begins_s").tolist() == [0.0]  # type: ignore[union-attr]
    assert left[:10].sum() == 0 and left[11:].all(), "the other view sees it, so the rows stay"
    assert not right[20:25].any() and right[:20].all() and right[26:].all()
    assert all(np.isfinite(made[f"tracks/{view}"]).all() for view in ("left", "right"))
    steps = np.linalg.norm(np.diff(made["hand/right"].mean(1), axis=0), axis=-1)
    assert steps[19:26].std() < 0.1 * steps[19:26].mean() + 0.2, "a gap is crossed in even steps"


def test_a_row_is_found_again_in_its_video(tmp_path: Path) -> None:
    """Rows before any view sees the hand are left out: `begins_s` says when row 0 was filmed."""
    filmed = hand_videos.film(tmp_path, "a", unseen={"left": slice(0, 40), "right": slice(0, 31)})
    assert extract(tmp_path, "--smooth-s", "0") == 0
    made = EpisodeSet.open(tmp_path / "set.zarr")
    (begins_s,) = made.episode_field("begins_s").tolist()  # type: ignore[union-attr]
    assert begins_s == 1.1, "the first tick of 10 Hz with a hand, which is seen from picture 31 of 30 Hz on"
    frames = np.round((begins_s + np.arange(made.n_steps) / made.hz) * FPS).astype(int)  # type: ignore[operator]
    want = pinhole.project(filmed.cameras["right"], filmed.points[frames])
    assert np.abs(made.read("hand/right") - want).max() < 0.01


def test_contact_with_a_mask_tells_the_grasp(tmp_path: Path) -> None:
    """Section 1b.5: thumb and a finger near the mask for five frames; a mask that is far away leaves the gripper open."""
    filmed = hand_videos.film(tmp_path, "a")
    for view, camera in filmed.cameras.items():
        tip = pinhole.project(camera, filmed.points[:, 4])
        mask = np.zeros((135, 240, 320), np.uint8)
        for t in range(60, 135):
            u, v = np.clip(np.round(tip[t]).astype(int), 0, (319, 239))
            mask[t, max(0, v - 20) : v + 20, max(0, u - 20) : u + 20] = 1
        mask[:60, :4, :4] = 1
        np.savez_compressed(tmp_path / f"a_{view}_mask.npz", mask)
    for kind in ("left", "right"):  # beside VIDEO*.npz there would be two files
        (tmp_path / f"a_{kind}.npz").rename(tmp_path / f"a_{kind}_hand.npz")
    (tmp_path / "masks").mkdir()
    for path in tmp_path.glob("*_mask.npz"):
        path.rename(tmp_path / "masks" / path.name)
    masks = ["--masks", *(f"{view}={tmp_path}/masks/a_{view}_mask.npz" for view in filmed.videos)]
    assert extract(tmp_path, *masks) == 0
    made = EpisodeSet.open(tmp_path / "set.zarr")
    gripper = made.read("gripper_open")[:, 0]
    assert made.attrs["grasp"]["by"] == "mask"
    assert gripper[:14].all() and not gripper[20:].any()


def test_of_two_hands_all_views_keep_the_same_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The views find them in another order, and one picture in three calls a hand by the other's name."""
    filmed = hand_videos.film(tmp_path, "a")
    for view, path in filmed.videos.items():
        right = np.load(path.with_suffix(".npz"))["kpts"]
        both = np.stack([right, right[:, :, ::-1] * (0.4, 0.4)], axis=1)
        says = np.tile([1.0, 0.0], (len(both), 1))
        says[::3] = 1.0
        score = np.tile([0.9, 0.8], (len(both), 1))
        if view == "right":
            both, says, score = both[:, ::-1], says[:, ::-1], score[:, ::-1]
        np.savez(path.with_suffix(".npz"), kpts=both, right=says, score=score)
    for side in ("any", "left"):
        flags = ["--hands", "2", "--side", side, "--smooth-s", "0", "--allow-offset"]
        assert extract(tmp_path, *flags, out=f"{side}.zarr") == 0
    kept = EpisodeSet.open(tmp_path / "any.zarr")
    for view, camera in filmed.cameras.items():
        want = pinhole.project(camera, filmed.points[::3])
        assert np.abs(kept.read(f"hand/{view}") - want).max() < 0.01
    assert kept.episode_field("right_hand") == [1]
    assert EpisodeSet.open(tmp_path / "left.zarr").episode_field("right_hand") == [0]
    one = hand_videos.film(tmp_path / "one", "a")
    assert extract(tmp_path / "one", "--side", "left") == 2
    assert f"{one.videos['left']}: no left hand, only the other one in 135 pictures" in last_line(capsys)


def test_one_view_is_an_episode_a_video_and_its_grasp_is_told_by_the_picture(tmp_path: Path) -> None:
    filmed = hand_videos.film(tmp_path, "a")
    flags = ["--detector", "stored", "--out", str(tmp_path / "set.zarr")]
    assert cli.main(["tracks", "extract", str(filmed.videos["left"]), *flags]) == 0
    made = EpisodeSet.open(tmp_path / "set.zarr")
    assert {"front_image", "tracks/front", "valid/front", "hand/front", "gripper_open"} == set(made.keys)
    assert made.attrs["grasp"]["by"] == "pinch"


def test_an_extracted_set_can_be_packed_for_training(tmp_path: Path) -> None:
    hand_videos.film(tmp_path, "a")
    assert extract(tmp_path) == 0
    pack = ["tracks", "pack", str(tmp_path / "set.zarr"), "--out", str(tmp_path / "packed.zarr"), "--size", "32"]
    assert cli.main(pack) == 0
    packed = EpisodeSet.open(tmp_path / "packed.zarr")
    assert packed.n_episodes == 2 and packed.keys["action"].shape == (11,)
