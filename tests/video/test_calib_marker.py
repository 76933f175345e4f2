"""A marker on the gripper at a known place: the camera is found, wrong poses are left out, too few are refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from board_pictures import LENS

from robolearn import geometry
from robolearn.errors import BadInput
from robolearn.video.calibration import marker
from robolearn.video.calibration.boards import dictionary
from robolearn.video.calibration.intrinsics import pixels_of

OFFSET = np.array([0.03, -0.01, 0.05])
BASE_FROM_CAMERA = geometry.pose((1.1, 0.2, 0.5), geometry.matrix_from_rotvec((1.6, 1.5, -0.9)))


def seen(rng: np.random.Generator, box: tuple[float, float, float], noise_px: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Returns base_from_gripper (24, 4, 4) and the marker's pixels (24, 2), its centres in a box [m] before the camera."""
    at_camera = rng.uniform(-0.5, 0.5, (24, 3)) * box + (0.0, 0.0, 0.8)
    turns = geometry.matrix_from_rotvec(rng.uniform(-0.7, 0.7, (24, 3)))
    centres = at_camera @ BASE_FROM_CAMERA[:3, :3].T + BASE_FROM_CAMERA[:3, 3]
    gripper = geometry.pose(centres - turns @ OFFSET, turns)
    pixels = pixels_of(LENS, geometry.inverse(BASE_FROM_CAMERA), centres)
    return gripper, pixels + rng.normal(0, noise_px, pixels.shape)


@pytest.mark.parametrize("seed", range(5))
def test_the_camera_is_found_from_one_marker(seed: int) -> None:
    """Point Policy's way: solvePnP with the marker's centres in the robot's frame."""
    gripper, pixels = seen(np.random.default_rng(seed), (0.4, 0.3, 0.3), noise_px=0.0)
    exact = marker.solve(LENS, gripper, OFFSET, pixels)
    assert np.abs(exact.base_from_camera - BASE_FROM_CAMERA).max() < 1e-5
    gripper, pixels = seen(np.random.default_rng(seed), (0.4, 0.3, 0.3))
    found = marker.solve(LENS, gripper, OFFSET, pixels)
    assert np.linalg.norm(found.base_from_camera[:3, 3] - BASE_FROM_CAMERA[:3, 3]) < 0.003
    assert 0.1 < found.rms_px < 0.5 and found.used.all() and not found.warnings


def test_a_mistaken_picture_and_a_missing_one_change_nothing() -> None:
    gripper, pixels = seen(np.random.default_rng(7), (0.4, 0.3, 0.3))
    clean = marker.solve(LENS, gripper, OFFSET, pixels)
    pixels[3] += (60.0, -40.0)
    pixels[5] = np.nan
    found = marker.solve(LENS, gripper, OFFSET, pixels)
    assert not found.used[3] and not found.used[5] and found.used.sum() == 22
    assert np.linalg.norm(found.base_from_camera[:3, 3] - clean.base_from_camera[:3, 3]) < 0.001


def test_what_cannot_tell_the_camera_is_refused() -> None:
    rng = np.random.default_rng(1)
    gripper, pixels = seen(rng, (0.4, 0.001, 0.001))
    with pytest.raises(BadInput, match=r"want points that fill a volume, got a line of \d+ x 0 mm"):
        marker.solve(LENS, gripper, OFFSET, pixels)
    gripper, pixels = seen(rng, (0.4, 0.3, 0.3))
    pixels[4:] = np.nan
    with pytest.raises(BadInput, match="want it in at least 6 pictures, better 20, got 4 of 24"):
        marker.solve(LENS, gripper, OFFSET, pixels)
    gripper, pixels = seen(rng, (0.4, 0.3, 0.3))
    with pytest.raises(BadInput, match=r"pictures fit one place of the camera to 8 px; are the poses those of the base"):
        marker.solve(LENS, gripper[::-1], OFFSET, pixels)
    flat = marker.solve(LENS, *_flat(rng))
    assert "lie in a slab of" in flat.warnings[0]


def test_the_centre_of_a_marker_seen_askew_is_where_its_diagonals_cross() -> None:
    side, number = 0.04, 7
    camera_from_marker = geometry.pose((0.05, 0.02, 0.25), geometry.matrix_from_rotvec((0.0, 0.9, 0.3)))
    cells = cv2.aruco.generateImageMarker(dictionary("4X4_50"), number, 600)
    cells = cv2.copyMakeBorder(cells, 150, 150, 150, 150, cv2.BORDER_CONSTANT, value=255)
    marker_from_cell = np.array([[side / 600, 0, -side * 449.5 / 600], [0, side / 600, -side * 449.5 / 600], [0, 0, 1]])
    flat = np.array(LENS.K) @ camera_from_marker[:3][:, [0, 1, 3]] @ marker_from_cell
    large = np.diag([4.0, 4.0, 1.0])
    large[:2, 2] = 1.5
    picture = cv2.warpPerspective(cells, large @ flat, (2560, 1920), borderValue=150)
    picture = cv2.resize(picture, (640, 480), interpolation=cv2.INTER_AREA)
    truth = pixels_of(LENS, camera_from_marker, np.zeros((1, 3)))[0]
    assert np.linalg.norm(marker.marker_centre(picture, "4X4_50", number) - truth) < 0.3
    assert np.isnan(marker.marker_centre(picture, "4X4_50", 8)).all()


def _flat(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    gripper, pixels = seen(rng, (0.4, 0.3, 0.02))
    return gripper, OFFSET, pixels
