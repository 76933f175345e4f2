"""Hand-eye: exact poses are solved exactly, noise costs what it may, and what cannot be solved is refused with what would."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from robolearn import geometry
from robolearn.core import Camera
from robolearn.errors import BadInput
from robolearn.video.calibration import handeye
from robolearn.video.calibration.boards import Board, Sighting
from robolearn.video.calibration.handeye import Mount
from robolearn.video.calibration.intrinsics import board_pose, pixels_of

BOARD = Board()
LENS = Camera((640, 480), ((605.0, 0.0, 319.5), (0.0, 605.0, 239.5), (0.0, 0.0, 1.0)))
MOUNTS = pytest.mark.parametrize("mount", ["hand", "world"])
SEEDS = pytest.mark.parametrize("seed", range(5))


def world(seed: int, mount: Mount, count: int = 15) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns base_from_gripper and camera_from_board (n, 4, 4), and mount_from_camera: rotations within +-0.6 rad."""
    rng = np.random.default_rng(seed)
    gripper = geometry.pose(rng.uniform(-0.15, 0.15, (count, 3)) + (0.5, 0, 0.4), turned(rng, 0.6, count))
    held = geometry.pose((0.02, -0.04, 0.1), turned(rng, 0.5, 1)[0])
    camera_from_first = geometry.pose((-0.1, -0.07, 0.8), turned(rng, 0.3, 1)[0])  # the board before the camera, at first
    place = gripper[0] @ held if mount == "world" else geometry.inverse(gripper[0]) @ held
    mount_from_camera = place @ geometry.inverse(camera_from_first)
    return gripper, handeye.board_seen(gripper, mount_from_camera, held, mount), mount_from_camera


def turned(rng: np.random.Generator, most: float, count: int) -> np.ndarray:
    """Returns rotations (count, 3, 3) by up to `most` [rad] about each axis."""
    return geometry.matrix_from_rotvec(rng.uniform(-most, most, (count, 3)))


def apart(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Returns distance [m] and angle [rad]."""
    turn = geometry.rotvec_from_matrix(one[:3, :3].T @ other[:3, :3])
    return float(np.linalg.norm(one[:3, 3] - other[:3, 3])), float(np.linalg.norm(turn))


@MOUNTS
@SEEDS
def test_exact_poses_give_the_exact_place(seed: int, mount: Mount) -> None:
    """K1: below 1e-6 m and 1e-6 rad with 15 poses."""
    gripper, board, truth = world(seed, mount)
    found = handeye.solve(gripper, board, mount)
    shift, turn = apart(found.mount_from_camera, truth)
    assert shift < 1e-9 and turn < 1e-9
    assert found.spread_mm < 1e-6 and found.check_mm < 1e-6 and not found.warnings


@SEEDS
@MOUNTS
def test_corners_that_are_a_tenth_of_a_pixel_off_cost_less_than_three_millimetres(seed: int, mount: Mount) -> None:
    """K2: 3 mm and 0.2 deg. Park alone came to 3.006 mm with one seed; refined, as it is written, to a fifth of that."""
    gripper, camera_from_board, truth = world(seed, mount)
    rng = np.random.default_rng(100 + seed)
    seen = [_noisy(pose, rng) for pose in camera_from_board]
    poses = np.stack([board_pose(LENS, BOARD, sighting)[0] for sighting in seen])
    park = handeye.solve(gripper, poses, mount)
    shift, turn = apart(park.mount_from_camera, truth)
    assert shift < 0.004 and np.degrees(turn) < 0.2
    refined = handeye.refined(park, gripper, LENS, BOARD, seen)
    shift, turn = apart(refined.mount_from_camera, truth)
    assert shift < 0.0006 and np.degrees(turn) < 0.04


@SEEDS
def test_noise_of_a_millimetre_spreads_the_board_by_about_as_much(seed: int) -> None:
    """Measured for the specification: 0.9 to 2.1 mm off, spread 1.1 to 1.2 mm per axis and 0.08 to 0.11 deg (allow x2)."""
    gripper, board, truth = world(seed, "world")
    rng = np.random.default_rng(seed)
    board = board @ geometry.pose(rng.normal(0, 0.001, (15, 3)), geometry.matrix_from_rotvec(rng.normal(0, 0.002, (15, 3))))
    found = handeye.solve(gripper, board, "world")
    shift, turn = apart(found.mount_from_camera, truth)
    assert shift < 0.0042 and np.degrees(turn) < 0.25
    assert 1.0 < found.spread_mm < 2.4 and 0.1 < found.spread_deg < 0.3


@SEEDS
@MOUNTS
def test_a_wrong_mount_is_refused_with_the_one_that_fits(seed: int, mount: Mount) -> None:
    """K3: forgetting the inversion of the gripper's poses moves the board by hundreds of mm."""
    gripper, board, _ = world(seed, mount)
    wrong: Mount = "hand" if mount == "world" else "world"
    with pytest.raises(BadInput, match=rf"the board seems to move by \d{{2,4}} mm .*--mount {mount}.*gripper_from_base"):
        handeye.solve(gripper, board, wrong)
    with pytest.raises(BadInput, match=rf"--mount {wrong}.*gripper_from_base"):
        handeye.solve(geometry.inverse(gripper), board, mount)


def test_poses_that_do_not_belong_to_the_pictures_are_refused() -> None:
    gripper, board, _ = world(0, "world")
    with pytest.raises(BadInput, match="do the poses belong to the pictures"):
        handeye.solve(gripper[::-1], board, "world")


@MOUNTS
def test_turns_about_one_axis_only_are_refused(mount: Mount) -> None:
    """K4: all rotation axes parallel."""
    gripper, _, truth = world(3, mount)
    rng = np.random.default_rng(0)
    axis = np.array([0.3, -0.5, 0.8]) / np.linalg.norm([0.3, -0.5, 0.8])
    gripper = geometry.pose(gripper[:, :3, 3], geometry.matrix_from_rotvec(rng.uniform(-1, 1, (15, 1)) * axis))
    board = handeye.board_seen(gripper, truth, geometry.pose((0.0, 0.0, 0.1), np.eye(3)), mount)
    with pytest.raises(BadInput, match=r"want turns about two axes that are not parallel, got 0\.0 deg about the second"):
        handeye.solve(gripper, board, mount)
    with pytest.raises(BadInput, match="want at least 4 poses, better 12 to 15, got 3"):
        handeye.solve(gripper[:3], board[:3], mount)


def test_few_poses_and_small_turns_are_warned_of() -> None:
    gripper, board, _ = world(1, "world", count=8)
    assert handeye.solve(gripper, board, "world").warnings == ("8 poses; 12 to 15 are better",)
    rng = np.random.default_rng(1)
    small = geometry.pose(gripper[:, :3, 3], turned(rng, 0.12, 8))
    held, place = geometry.pose((0.0, 0.0, 0.1), np.eye(3)), geometry.pose((1.0, 0.0, 0.5), np.eye(3))
    found = handeye.solve(small, handeye.board_seen(small, place, held, "world"), "world")
    assert any("about its second axis" in warning for warning in found.warnings)


def test_park_is_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth argument by position is an output array, and the method silently stays Tsai (opencv #27625, #28074)."""
    asked: list[tuple[int, dict[str, int]]] = []
    real: Callable[..., object] = cv2.calibrateHandEye

    def spy(*args: object, **words: int) -> object:
        asked.append((len(args), words))
        return real(*args, **words)

    monkeypatch.setattr(cv2, "calibrateHandEye", spy)
    gripper, board, _ = world(0, "world")
    handeye.solve(gripper, board, "world")
    assert asked == [(4, {"method": cv2.CALIB_HAND_EYE_PARK}), (4, {"method": cv2.CALIB_HAND_EYE_DANIILIDIS})]


def _noisy(camera_from_board: np.ndarray, rng: np.random.Generator) -> Sighting:
    pixels = pixels_of(LENS, camera_from_board, BOARD.corners)
    return Sighting(np.arange(len(pixels)), pixels + rng.normal(0, 0.1, pixels.shape))
