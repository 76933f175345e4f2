"""The pinhole camera: OpenCV agrees, resizing moves points with pixel centres, distortion is undone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from random_cameras import LENS, camera_at, camera_pairs

from robolearn.core import Camera
from robolearn.errors import BadInput
from robolearn.video import pinhole

points_in_view = arrays(float, (4, 3), elements=st.floats(-0.2, 0.2, allow_subnormal=False))


@settings(max_examples=30)
@given(camera_pairs(), points_in_view)
def test_opencv_projects_to_the_same_pixels(cameras: tuple[Camera, Camera], points: np.ndarray) -> None:
    camera = cameras[0]
    turned = pinhole.camera_from_world(camera)
    theirs, _ = cv2.projectPoints(points, turned[:3, :3], turned[:3, 3], np.array(camera.K), None)
    assert np.allclose(pinhole.project(camera, points), theirs[:, 0], atol=1e-6)


@settings(max_examples=30)
@given(camera_pairs(), points_in_view, st.integers(16, 2000), st.integers(16, 2000))
def test_a_resized_camera_shows_a_point_where_resizing_the_picture_puts_it(
    cameras: tuple[Camera, Camera], points: np.ndarray, width: int, height: int
) -> None:
    camera = cameras[0]
    small = pinhole.resized(camera, (width, height))
    moved = pinhole.resized_pixels(pinhole.project(camera, points), camera.size, (width, height))
    assert small.size == (width, height)
    assert np.allclose(pinhole.project(small, points), moved, atol=1e-6)


def test_resizing_by_area_puts_a_bright_pixel_where_the_points_go() -> None:
    picture = np.zeros((48, 64), np.float32)
    picture[20:24, 40:44] = 1.0  # its centre is (41.5, 21.5)
    small = cv2.resize(picture, (16, 12), interpolation=cv2.INTER_AREA)
    v, u = np.unravel_index(np.argmax(small), small.shape)
    assert small.sum() == 1 and np.allclose(pinhole.resized_pixels(np.array([41.5, 21.5]), (64, 48), (16, 12)), [u, v])


def test_a_point_on_the_axis_is_in_the_middle_and_one_behind_is_nowhere() -> None:
    camera = camera_at(np.array([1.0, 0.0, 0.5]))
    assert np.allclose(pinhole.project(camera, np.zeros(3)), [319.5, 239.5])
    assert np.isclose(pinhole.depth(camera, np.zeros(3)), np.hypot(1.0, 0.5))
    behind = np.array([2.0, 0.0, 1.0])
    assert pinhole.depth(camera, behind) < 0 and np.isnan(pinhole.project(camera, behind)).all()


@settings(max_examples=30)
@given(points_in_view)
def test_undistorting_gives_the_pixels_of_the_ideal_camera(points: np.ndarray) -> None:
    camera = camera_at(np.array([1.0, 0.3, 0.5]), dist=LENS)
    turned = pinhole.camera_from_world(camera)
    seen, _ = cv2.projectPoints(points, turned[:3, :3], turned[:3, 3], np.array(camera.K), np.array(camera.dist))
    assert np.allclose(pinhole.undistort(camera, seen[:, 0]), pinhole.project(camera, points), atol=1e-5)


def test_undistorting_leaves_the_pixels_of_a_straight_lens_alone() -> None:
    pixels = np.array([[3.0, 4.0], [np.nan, 1.0]])
    assert np.array_equal(pinhole.undistort(camera_at(np.array([1.0, 0, 0])), pixels), pixels, equal_nan=True)


def test_a_camera_without_a_pose_is_refused() -> None:
    with pytest.raises(BadInput, match="want a pose"):
        pinhole.project(Camera((640, 480), ((1, 0, 0), (0, 1, 0), (0, 0, 1))), np.zeros(3))
