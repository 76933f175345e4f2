"""Videos that cannot be used are left out with one line each: broken, out of step, without a partner, of another camera."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import hand_videos
import numpy as np
import pytest
from hand_videos import extract, last_line

from robolearn import geometry
from robolearn.data.store import EpisodeSet
from robolearn.video.calibration import formats


def test_views_that_are_out_of_step_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0.3 s apart; test_extract_sync asks how exactly that is told."""
    hand_videos.film(tmp_path, "a", seed=3, late=9)
    assert extract(tmp_path, calib=False) == 2
    said = last_line(capsys)
    assert "a_right.mp4: view 'right' is +3" in said and "want less than 200 ms; cut the videos to one start" in said
    assert not (tmp_path / "set.zarr").exists()
    assert extract(tmp_path, "--allow-offset", calib=False) == 0
    offset = EpisodeSet.open(tmp_path / "set.zarr").episode_field("offset_s")
    assert offset is not None and abs(offset[0] - 0.3) < 0.04


def test_what_cannot_be_used_is_left_out_with_a_line_and_the_rest_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "c", "d"):
        hand_videos.film(tmp_path, name)
    (tmp_path / "c_right.mp4").write_bytes(b"not a video")
    np.savez(tmp_path / "d_left.npz", kpts=np.full((135, 21, 2), np.nan))
    assert extract(tmp_path) == 1
    said = capsys.readouterr().err
    assert "c_right.mp4: want a video with at least one picture, got a file that OpenCV cannot read" in said
    assert "d_left.mp4: no hand in 135 pictures" in said
    assert "2 episodes of 3 left out" in said.strip().splitlines()[-1]
    made = EpisodeSet.open(tmp_path / "set.zarr")
    assert made.n_episodes == 1 and "a_left.mp4" in str(made.episode_field("source"))


def test_a_view_that_is_missing_and_a_calibration_of_another_shape_are_one_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        hand_videos.film(tmp_path, name)
    (tmp_path / "b_right.mp4").unlink()
    assert extract(tmp_path) == 2
    assert "b_left.mp4: view 'right' has no video for it" in last_line(capsys)
    (tmp_path / "b_left.mp4").unlink()
    hand_videos.calibration(tmp_path / "wide.json", size=(320, 180))
    assert extract(tmp_path, "--calib", str(tmp_path / "wide.json"), calib=False) == 2
    assert "want pictures of 320 x 180, as calibrated, or of the same shape, got 320 x 240" in last_line(capsys)
    assert extract(tmp_path, "--calib", str(tmp_path / "none.json"), calib=False) == 2
    assert "there is no such calibration" in last_line(capsys)
    assert not (tmp_path / "set.zarr").exists()


def test_a_calibration_of_larger_pictures_of_the_same_shape_is_scaled_and_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filmed = hand_videos.film(tmp_path, "a")
    hand_videos.calibration(tmp_path / "large.json", size=(640, 480))
    assert extract(tmp_path, "--calib", str(tmp_path / "large.json"), calib=False) == 0
    assert "calibrated at 640 x 480, scaled to 320 x 240" in capsys.readouterr().err
    spec = EpisodeSet.open(tmp_path / "set.zarr").spec
    assert spec is not None and np.allclose(spec.cameras["left_image"].K, filmed.cameras["left"].K)


def test_what_a_user_should_know_of_an_episode_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A camera that was moved after its calibration, a long gap, a view that ends early, a video slower than the rows."""
    filmed = hand_videos.film(tmp_path, "a", unseen={"left": slice(40, 75)})
    sunk = np.array(filmed.cameras["left"].world_from_camera) @ geometry.pose((0.0, 0.12, 0.0), np.eye(3))
    moved = dataclasses.replace(filmed.cameras["left"], world_from_camera=tuple(map(tuple, sunk.tolist())))
    formats.save_cameras(tmp_path / "moved.json", {**filmed.cameras, "left": moved})
    hand_videos.write_video(filmed.videos["right"], 90, (320, 240))
    assert extract(tmp_path, "--calib", str(tmp_path / "moved.json"), "--hz", "60", calib=False) == 0
    said = capsys.readouterr().err
    for words in (
        "the views disagree by",
        "1.2 s without a hand, filled in along a straight line",
        "the views last 4.5 s and 3.0 s; the rows end with the shortest",
        "30 pictures a second for 60 rows: some repeat",
    ):
        assert words in said, said
