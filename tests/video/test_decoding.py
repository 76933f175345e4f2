"""Tracks to a trajectory: exact tracks give exact poses, and what cannot be trusted is said and held."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from random_cameras import camera_at, camera_pairs

from robolearn import geometry as g
from robolearn.core import Camera
from robolearn.errors import ArrayMismatch, BadInput
from robolearn.video import pinhole
from robolearn.video.decoding import Decoded, Gates, both_views, decode, repair_outliers
from robolearn.video.points import gripper_points

H = 16
NOW = g.pose([0.02, -0.03, 0.15], g.matrix_from_rotvec([3.0, 0.1, -0.1]))
PAIR = (camera_at(np.array([1.0, -0.5, 0.5])), camera_at(np.array([1.0, 0.5, 0.5])))
vector = arrays(float, 3, elements=st.floats(-1, 1, allow_subnormal=False))


def path(shift: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Returns poses (H, 4, 4) that move by `shift` [m] and turn by `turn` [rad] about the hand in even steps."""
    share = np.linspace(0, 1, H)[:, None]
    return g.pose(NOW[:3, 3] + share * shift, g.matrix_from_rotvec(share * turn) @ NOW[:3, :3])


PATH = path(np.array([0.05, 0.04, -0.03]), np.array([0.1, -0.2, 0.4]))


def tracks_of(cameras: tuple[Camera, ...], poses: np.ndarray) -> np.ndarray:
    return np.stack([pinhole.project(camera, gripper_points(poses, 1.0)) for camera in cameras])


def plan(tracks: np.ndarray, cameras: tuple[Camera, ...] = PAIR, opening: np.ndarray | None = None) -> Decoded:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return decode(cameras, tracks, np.ones((len(cameras), H)) if opening is None else opening, NOW, closed_now=False)


@settings(max_examples=40)
@given(camera_pairs(), vector, vector)
def test_exact_tracks_give_the_whole_trajectory(cameras: tuple[Camera, Camera], shift: np.ndarray, turn: np.ndarray) -> None:
    poses = path(0.05 * shift, 0.2 * turn)
    wide = Gates(outlier_px=1000)
    found = decode(cameras, tracks_of(cameras, poses), np.ones((2, H)), NOW, False, wide)
    assert np.abs(found.poses - poses).max() < 1e-6 and found.trusted.all() and found.repaired == 0
    assert found.reprojection_px.max() < 1e-3


def test_three_views_and_pictures_of_any_size_give_the_same_poses() -> None:
    three = (*PAIR, pinhole.resized(camera_at(np.array([0.3, 1.0, 0.6])), (96, 96)))
    found = plan(tracks_of(three, PATH), three)
    assert np.abs(found.poses - PATH).max() < 1e-6 and found.trusted.all()


def test_a_shift_at_both_ends_cancels_and_one_of_the_future_does_not() -> None:
    """T11 of the specification: a wrong calibration hits both ends."""
    tracks = tracks_of(PAIR, PATH)
    both, future = tracks.copy(), tracks.copy()
    both[1, ..., 0] += 4.0
    future[1, 1:, :, 0] += 4.0
    off = [np.linalg.norm(plan(case).poses[1:, :3, 3] - PATH[1:, :3, 3], axis=-1).mean() for case in (both, future)]
    assert off[0] < 2.5e-3 and off[1] > 4 * off[0]


def test_views_that_disagree_are_not_trusted() -> None:
    """T11: across the epipolar lines, the gate of 5 px falls at about twice that shift of one view."""
    tracks = tracks_of(PAIR, PATH)
    for shift_px, trusted in ((4.0, True), (15.0, False)):
        bent = tracks.copy()
        bent[0, 8:, :, 1] += shift_px
        found = plan(bent)
        assert found.trusted[:8].all() and (found.trusted[8:] == trusted).all()
        assert np.allclose(found.reprojection_px[8:], shift_px / 2, rtol=0.25)


def test_the_gates_mean_pixels_of_a_picture_640_wide() -> None:
    small = tuple(pinhole.resized(camera, (128, 96)) for camera in PAIR)
    bent = tracks_of(small, PATH)
    bent[0, 8:, :, 1] += 3.0
    assert not plan(bent, small).trusted[8:].any(), "3 px of 128 are 15 of 640"
    jumped = tracks_of(small, PATH)
    jumped[0, 5, 2] += 25.0
    assert plan(jumped, small).repaired == 1


def test_an_outlier_is_replaced_from_its_neighbours_in_time() -> None:
    tracks = tracks_of(PAIR, PATH)
    wild = tracks.copy()
    wild[0, 5, 2], wild[1, 9, 0], wild[1, 15, 4] = (900.0, -50.0), np.nan, np.inf
    found = plan(wild)
    assert found.repaired == 3 and found.trusted.all()
    assert np.abs(found.poses - PATH).max() < 0.02
    mended, count = repair_outliers(wild[0], wild[0, 0])
    assert count == 1 and np.allclose(mended[5, 2], (tracks[0, 4, 2] + tracks[0, 6, 2]) / 2)


def test_a_point_without_two_good_rows_stays_and_is_not_trusted() -> None:
    wild = tracks_of(PAIR, PATH)
    wild[:, 1:] += 150.0
    found = plan(wild)
    assert found.repaired == 0 and not found.trusted[1:].any()


@pytest.mark.parametrize("lost", [np.nan, np.inf, 1e300])
def test_a_view_without_tracks_holds_the_hand(lost: float) -> None:
    tracks = tracks_of(PAIR, PATH)
    tracks[1] = lost
    found = plan(tracks)
    assert not found.trusted.any() and np.isinf(found.reprojection_px).all()
    assert np.array_equal(found.poses, np.broadcast_to(NOW, (H, 4, 4)))


def test_rows_made_up_from_their_neighbours_are_not_trusted() -> None:
    wild = tracks_of(PAIR, PATH)
    wild[0, 10:] = np.nan  # repaired by repeating row 9, while the other view moves on
    found = plan(wild)
    assert found.repaired == 6 * 5 and found.trusted.tolist() == [True] * 10 + [False] * 6


def test_a_point_unknown_now_leaves_the_whole_plan_untrusted() -> None:
    tracks = tracks_of(PAIR, PATH)
    tracks[0, 0, 3] = np.nan
    assert not plan(tracks).trusted.any()


@settings(max_examples=30)
@given(arrays(float, (2, H, 5, 2), elements=st.floats(allow_nan=True, allow_infinity=True)), arrays(float, (2, H)))
def test_any_numbers_give_finite_poses(tracks: np.ndarray, opening: np.ndarray) -> None:
    found = plan(tracks, opening=opening)
    assert np.isfinite(found.poses).all() and np.isin(found.gripper_open, (0, 1)).all()


def test_points_fallen_together_are_not_trusted() -> None:
    tracks = np.broadcast_to(tracks_of(PAIR, PATH)[:, :, :1], (2, H, 5, 2))
    assert not plan(tracks).trusted.any()


def test_one_camera_twice_or_tracks_of_another_shape_are_refused() -> None:
    tracks = tracks_of(PAIR, PATH)
    with pytest.raises(BadInput, match="is one calibration given twice"):
        plan(tracks, (PAIR[0], replace(PAIR[0], hash="b")))
    with pytest.raises(BadInput, match="two calibrated views or more, got 1"):
        plan(tracks[:1], PAIR[:1])
    with pytest.raises(ArrayMismatch, match=r"want tracks \(view, H, n, 2\).* for 2 cameras, got \(1, 16, 5, 2\)"):
        plan(tracks[:1])


@pytest.mark.parametrize(("closed", "left", "right"), list(itertools.product([False, True], repeat=3)))
def test_the_gripper_changes_only_where_both_views_say_so(closed: bool, left: bool, right: bool) -> None:
    """T14 of the specification, all 8 rows."""
    expected = {(False, True, True): True, (True, False, False): False}.get((closed, left, right), closed)
    assert both_views(closed, [left, right]) == expected


def test_the_gripper_follows_the_votes_through_the_plan() -> None:
    opening = np.ones((2, H))
    opening[0, 4:], opening[1, 6:10], opening[1, 12] = 0.2, 0.4, np.nan
    found = plan(tracks_of(PAIR, PATH), opening=opening)
    assert found.gripper_open.tolist() == [1] * 6 + [0] * 10, "one view alone neither closes nor opens"
