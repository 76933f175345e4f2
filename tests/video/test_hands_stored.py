"""Hands that another program found: plain arrays, MT-pi's names, HaMeR's boxes, and files that hold something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robolearn.errors import BadInput, DatasetError
from robolearn.video.detectors import stored
from robolearn.video.hands import Settings, make_detector

BLANK = np.zeros((48, 64, 3), np.uint8)
POINTS = np.random.default_rng(0).uniform(0, 48, (5, 21, 2))


def test_stored_hands_come_by_frame_and_nan_is_none(tmp_path: Path) -> None:
    """C3: the pipeline runs on stored keypoints."""
    points = POINTS.copy()
    points[2] = np.nan
    np.savez(tmp_path / "clip_hands.npz", kpts=points, right=[1, 1, 1, 0, 0], score=[0.9, 0.9, 0.9, 0.2, 0.9])
    detector = make_detector("stored", Settings(), tmp_path / "clip.mp4")
    seen = [detector.detect(BLANK, i / 30) for i in range(5)]
    assert [len(hands) for hands in seen] == [1, 1, 0, 0, 1], "frame 3 is below the confidence"
    assert np.array_equal(seen[1][0].landmarks_px, points[1]) and seen[0][0].right and not seen[4][0].right
    with pytest.raises(DatasetError, match="want a row for every frame of the video, got 5 rows"):
        detector.detect(BLANK, 0.2)
    detector.reset()
    assert np.array_equal(detector.detect(BLANK, 0.0)[0].landmarks_px, points[0])


def test_the_surest_of_several_stored_hands_come_first(tmp_path: Path) -> None:
    two = np.stack([POINTS, POINTS + 1], axis=1)
    np.savez(tmp_path / "hands.npz", track=two, is_right=np.tile([1, 0], (5, 1)), score=np.tile([0.6, 0.8], (5, 1)))
    frames = [
        [make_detector("stored", Settings(max_hands=n, keypoints=tmp_path / "hands.npz")).detect(BLANK, 0.0)][0] for n in (1, 2)
    ]
    assert [hand.right for hand in frames[1]] == [False, True] and len(frames[0]) == 1 and not frames[0][0].right


def test_hamers_boxes_become_pixels_and_left_hands_are_flipped_back(tmp_path: Path) -> None:
    """HaMeR looks at a left hand in a flipped picture: its shares of the box run the other way."""
    shares = np.random.default_rng(1).uniform(-0.5, 0.5, (3, 21, 2))
    metres = np.random.default_rng(2).normal(size=(3, 21, 3))
    np.savez(
        tmp_path / "hamer.npz",
        frame=[0, 0, 2],
        pred_keypoints_2d=shares,
        pred_keypoints_3d=metres,
        box_center=[[100, 80], [200, 90], [110, 85]],
        box_size=[120, 60, 120],
        right=[1, 0, 1],
    )
    frames = stored.read(tmp_path / "hamer.npz")
    assert [len(hands) for hands in frames] == [2, 0, 1]
    right, left = frames[0]
    assert np.allclose(right.landmarks_px, shares[0] * 120 + (100, 80)) and right.right
    assert np.allclose(left.landmarks_px, shares[1] * (-60, 60) + (200, 90)) and not left.right
    assert left.world_m is not None and np.allclose(left.world_m, metres[1] * (-1, 1, 1))


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"points": np.zeros(3)}, r"want kpts \(T, 21, 2\), or pred_keypoints_2d and the boxes of HaMeR, got points"),
        ({"kpts": np.zeros((4, 20, 2))}, r"kpts: want numbers \(T, 21, 2\), got float64\(4, 20, 2\)"),
        ({"kpts": np.zeros((4, 21, 2)), "right": np.zeros(3)}, r"right: want \(4, 1\) first, as kpts, got \(3, 1\)"),
        ({"pred_keypoints_2d": np.zeros((4, 21, 2)), "frame": np.zeros(4)}, "want box_center beside pred_keypoints_2d"),
    ],
)
def test_a_file_of_something_else_is_one_line(tmp_path: Path, arrays: dict[str, np.ndarray], says: str) -> None:
    np.savez(tmp_path / "hands.npz", **arrays)
    with pytest.raises(DatasetError, match=says):
        stored.read(tmp_path / "hands.npz")


def test_which_file_belongs_to_a_video_is_said_when_it_is_not_clear(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="got neither; give --keypoints FILE"):
        make_detector("stored")
    with pytest.raises(DatasetError, match=r"want one .*clip\*\.npz with its hands, got 0"):
        make_detector("stored", Settings(), tmp_path / "clip.mp4")
    for name in ("clip_a", "clip_b"):
        np.savez(tmp_path / f"{name}.npz", kpts=POINTS)
    with pytest.raises(DatasetError, match="got 2; give --keypoints"):
        make_detector("stored", Settings(), tmp_path / "clip.mp4")
    (tmp_path / "clip.npz").write_bytes(b"no zip")
    with pytest.raises(DatasetError, match=r"clip\.npz: want a \.npz with the hands of a video, got another file"):
        make_detector("stored", Settings(), tmp_path / "clip.mp4")
