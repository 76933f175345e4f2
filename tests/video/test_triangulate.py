"""Triangulation: exact pixels give exact points, what is not seen twice is nowhere, and one standpoint is refused."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from random_cameras import camera_at, camera_pairs

from robolearn.core import Camera
from robolearn.errors import BadInput
from robolearn.video import pinhole
from robolearn.video.triangulate import reprojection_errors, require_baseline, triangulate

some_points = arrays(float, (3, 5, 3), elements=st.floats(-0.2, 0.2, allow_subnormal=False))
PAIR = (camera_at(np.array([1.0, -0.5, 0.5])), camera_at(np.array([1.0, 0.5, 0.5])))


def seen_by(cameras: tuple[Camera, ...], points: np.ndarray) -> np.ndarray:
    return np.stack([pinhole.project(camera, points) for camera in cameras])


@settings(max_examples=30)
@given(camera_pairs(), some_points)
def test_exact_pixels_give_the_points_back(cameras: tuple[Camera, Camera], points: np.ndarray) -> None:
    """T2 of the specification: the round trip without noise errs by less than a micrometre."""
    found = triangulate(cameras, seen_by(cameras, points))
    assert np.abs(found - points).max() < 1e-6
    assert reprojection_errors(cameras, found, seen_by(cameras, points)).max() < 1e-4


@settings(max_examples=30)
@given(some_points)
def test_a_third_view_stands_in_for_one_that_sees_nothing(points: np.ndarray) -> None:
    three = (*PAIR, camera_at(np.array([0.2, 1.0, 0.4])))
    pixels = seen_by(three, points)
    pixels[0] = 7.0  # nonsense, and said to be
    valid = np.ones(pixels.shape[:-1], dtype=bool)
    valid[0] = False
    assert np.abs(triangulate(three, pixels, valid) - points).max() < 1e-6


def test_a_point_seen_once_is_nowhere_and_its_neighbours_stay() -> None:
    points = np.array([[0.1, 0.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 0.1]])
    pixels = seen_by(PAIR, points)
    pixels[0, 1], pixels[1, 2, 0] = np.nan, np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = triangulate(PAIR, pixels)
    assert np.allclose(found[0], points[0]) and np.isnan(found[1:]).all()


def test_more_noise_gives_proportionally_more_error() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.1, 0.1, (2000, 3))
    noise = rng.standard_normal((2, 2000, 2))
    small, large = (
        np.median(np.linalg.norm(triangulate(PAIR, seen_by(PAIR, points) + sigma * noise) - points, axis=-1))
        for sigma in (0.5, 2.0)
    )
    assert large / small == pytest.approx(4, rel=0.02)


def test_one_view_or_two_in_one_place_are_refused() -> None:
    with pytest.raises(BadInput, match="two calibrated views or more, got 1"):
        require_baseline(PAIR[:1])
    with pytest.raises(BadInput, match=r"at least 1 mm apart, got 0 mm; is one calibration given twice\?"):
        require_baseline((PAIR[0], replace(PAIR[0], hash="another")))
    require_baseline(PAIR)


def test_a_camera_without_a_pose_has_no_baseline() -> None:
    with pytest.raises(BadInput, match="want a pose"):
        require_baseline((PAIR[0], replace(PAIR[0], world_from_camera=())))
