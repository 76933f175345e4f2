"""Where a camera is on a robot: AX = XB (Park and Martin 1994, by OpenCV), its conditions and its quality without ground truth.

On the hand (eye-in-hand): base_from_gripper gripper_from_camera camera_from_board = base_from_board, the board stands still.
In the world (eye-to-hand): base_from_camera camera_from_board = base_from_gripper gripper_from_board, the board is held.
Where the board stands still is called "held"; how far it seems to move over the poses is the quality.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from scipy.optimize import least_squares

from robolearn import geometry
from robolearn.core import Camera
from robolearn.errors import BadInput
from robolearn.video import pinhole
from robolearn.video.calibration.boards import Board, Sighting

Mount = Literal["hand", "world"]
GOOD_POSES = 12
GOOD_TURN_DEG = 15.0  # about the second axis: below it the result is weak
_LEAST_POSES = 4
_LEAST_TURN_DEG = 4.0  # below it the result is not determined
_WORST_SPREAD = (0.02, 3.0)  # [m], [deg] of what is held: above it the input is wrong
_DOUBT_M = 0.005  # by which two methods may differ


@dataclass(frozen=True)
class HandEye:
    """Where the camera is. mount_from_camera: (4, 4) [m], mount = gripper or base; held: (4, 4) of the board on the other one.

    spread_mm, spread_deg: RMS by which the board seems to move; by_pose: (n, 2) the same of each pose [mm, deg];
    check_mm: how far the second method (Daniilidis 1999) puts the camera from here; turn_deg: RMS rotation about the axis that
    turned second most; warnings: what makes the result weak.
    """

    mount: Mount
    mount_from_camera: np.ndarray
    held: np.ndarray
    spread_mm: float
    spread_deg: float
    by_pose: np.ndarray
    check_mm: float
    turn_deg: float
    warnings: tuple[str, ...] = ()


def solve(base_from_gripper: np.ndarray, camera_from_board: np.ndarray, mount: Mount) -> HandEye:
    """Returns where the camera is, from poses (n, 4, 4) [m] of the gripper and of the board at the same n times.

    BadInput where the poses cannot tell it, and where no place of the camera fits them: a wrong mount, or inverted poses.
    """
    gripper, board = np.asarray(base_from_gripper, float), np.asarray(camera_from_board, float)
    turned = _second_turn(gripper)
    _refuse_weak(gripper, turned)
    mount_from_camera = _by(cv2.CALIB_HAND_EYE_PARK, gripper, board, mount)
    held = held_at(gripper, board, mount_from_camera, mount)
    by_pose, spread = _spread(held)
    if np.linalg.det(mount_from_camera[:3, :3]) < 0 or not _fits(spread):
        raise BadInput(_why(gripper, board, mount, spread))
    second = _by(cv2.CALIB_HAND_EYE_DANIILIDIS, gripper, board, mount)
    check_m = float(np.linalg.norm(second[:3, 3] - mount_from_camera[:3, 3]))
    warnings = []
    if len(gripper) < GOOD_POSES:
        warnings.append(f"{len(gripper)} poses; {GOOD_POSES} to 15 are better")
    if turned < GOOD_TURN_DEG:
        warnings.append(f"the gripper turned by {turned:.0f} deg about its second axis; tilt it by 20 to 30 about two")
    if check_m > _DOUBT_M:
        warnings.append(f"a second method (Daniilidis) puts the camera {1000 * check_m:.1f} mm away; take more and larger turns")
    return HandEye(
        mount, mount_from_camera, mean_pose(held), spread[0], spread[1], by_pose, 1000 * check_m, turned, tuple(warnings)
    )


def refined(found: HandEye, base_from_gripper: np.ndarray, camera: Camera, board: Board, seen: Sequence[Sighting]) -> HandEye:
    """Returns `found` moved to where all corners of the n pictures fit best, in pixels: a corner counts by how well it is seen.

    The camera's and the held board's places, 12 numbers, by least squares with a Huber loss of 1 px, from Park's answer.
    """
    sizes = [len(sighting) for sighting in seen]
    corners = np.concatenate([board.corners[sighting.ids] for sighting in seen])
    pixels = pinhole.undistort(camera, np.concatenate([sighting.pixels for sighting in seen]))
    lens = np.array(camera.K)

    def errors(numbers: np.ndarray) -> np.ndarray:
        place, held = _pose(numbers[:6]), _pose(numbers[6:])
        camera_from_board = np.repeat(board_seen(base_from_gripper, place, held, found.mount), sizes, axis=0)
        points = (camera_from_board[:, :3, :3] @ corners[..., None])[..., 0] + camera_from_board[:, :3, 3]
        rays = points @ lens.T
        return np.ravel(rays[:, :2] / rays[:, 2:] - pixels)

    start = np.concatenate([_numbers(found.mount_from_camera), _numbers(found.held)])
    best = least_squares(errors, start, loss="huber", f_scale=1.0, x_scale="jac").x
    return replace(found, mount_from_camera=_pose(best[:6]), held=_pose(best[6:]))


def held_at(gripper: np.ndarray, board: np.ndarray, mount_from_camera: np.ndarray, mount: Mount) -> np.ndarray:
    """Returns the pose (n, 4, 4) of what is held at each time: base_from_board on the hand, gripper_from_board in the world."""
    if mount == "hand":
        return np.asarray(gripper @ mount_from_camera @ board)
    return np.asarray(geometry.inverse(gripper) @ mount_from_camera @ board)


def board_seen(gripper: np.ndarray, mount_from_camera: np.ndarray, held: np.ndarray, mount: Mount) -> np.ndarray:
    """Returns camera_from_board (..., 4, 4) as it should be seen at poses base_from_gripper (..., 4, 4)."""
    if mount == "hand":
        return np.asarray(geometry.inverse(gripper @ mount_from_camera) @ held)
    return np.asarray(geometry.inverse(mount_from_camera) @ gripper @ held)


def mean_pose(poses: np.ndarray) -> np.ndarray:
    """Returns the mean (4, 4) of poses (n, 4, 4): of the positions, and the rotation nearest to the mean matrix."""
    u, _, vt = np.linalg.svd(poses[:, :3, :3].mean(0))
    turn = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    return geometry.pose(poses[:, :3, 3].mean(0), turn)


def _by(method: int, gripper: np.ndarray, board: np.ndarray, mount: Mount) -> np.ndarray:
    # In the world the gripper's poses go in inverted. The method by keyword: a fifth argument by position is an output.
    moving = gripper if mount == "hand" else geometry.inverse(gripper)
    turn, shift = cv2.calibrateHandEye(
        list(moving[:, :3, :3]), list(moving[:, :3, 3]), list(board[:, :3, :3]), list(board[:, :3, 3]), method=method
    )
    return geometry.pose(np.ravel(shift), turn)


def _numbers(pose: np.ndarray) -> np.ndarray:
    return np.concatenate([pose[:3, 3], geometry.rotvec_from_matrix(pose[:3, :3])])


def _pose(numbers: np.ndarray) -> np.ndarray:
    return geometry.pose(numbers[:3], geometry.matrix_from_rotvec(numbers[3:]))


def _second_turn(gripper: np.ndarray) -> float:
    """Returns the RMS rotation [deg] between poses about the axis that is second in this respect: 0 if all axes are parallel."""
    turns = gripper[:, None, :3, :3].swapaxes(-1, -2) @ gripper[None, :, :3, :3]
    vectors = geometry.rotvec_from_matrix(turns[np.triu_indices(len(gripper), 1)])
    second = np.linalg.eigvalsh(vectors.T @ vectors / len(vectors))[1]
    return float(np.degrees(np.sqrt(max(second, 0.0))))  # of parallel axes rounding makes it a little less than 0


def _refuse_weak(gripper: np.ndarray, turned: float) -> None:
    if len(gripper) < _LEAST_POSES:
        raise BadInput(f"hand-eye: want at least {_LEAST_POSES} poses, better {GOOD_POSES} to 15, got {len(gripper)}")
    if turned < _LEAST_TURN_DEG:
        raise BadInput(
            f"hand-eye: want turns about two axes that are not parallel, got {turned:.1f} deg about the second one; "
            "tilt the gripper by 20 to 30 deg about two axes"
        )


def _spread(held: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Returns how far (n, 2) [mm, deg] each pose lies from the mean, and the RMS of both."""
    mean = mean_pose(held)
    far_mm = 1000 * np.linalg.norm(held[:, :3, 3] - mean[:3, 3], axis=-1)
    far_deg = np.degrees(geometry.angle_between(held[:, :3, :3], np.broadcast_to(mean[:3, :3], held[:, :3, :3].shape)))
    by_pose = np.stack([far_mm, far_deg], axis=-1)
    rms = np.sqrt(np.mean(by_pose**2, axis=0))
    return by_pose, (float(rms[0]), float(rms[1]))


def _fits(spread: Sequence[float]) -> bool:
    return spread[0] <= 1000 * _WORST_SPREAD[0] and spread[1] <= _WORST_SPREAD[1]


def _why(gripper: np.ndarray, board: np.ndarray, mount: Mount, spread: tuple[float, float]) -> str:
    """Returns the message for poses that do not fit, with what would."""
    head = (
        f"hand-eye: with the camera {_place(mount)} the board seems to move by {spread[0]:.0f} mm and {spread[1]:.1f} deg, "
        f"want at most {1000 * _WORST_SPREAD[0]:.0f} mm and {_WORST_SPREAD[1]:.0f} deg"
    )
    # Inverted poses with the right mount are the same equation as these poses with the other mount.
    other = _OTHER[mount]
    solved = _by(cv2.CALIB_HAND_EYE_PARK, gripper, board, other)
    if np.linalg.det(solved[:3, :3]) > 0 and _fits(_spread(held_at(gripper, board, solved, other))[1]):
        return f"{head}; they fit with the camera {_place(other)} (--mount {other}), or if the poses are gripper_from_base"
    return f"{head}; do the poses belong to the pictures, and is the board firmly held?"


_OTHER: dict[Mount, Mount] = {"hand": "world", "world": "hand"}


def _place(mount: Mount) -> str:
    return "on the hand" if mount == "hand" else "in the world"
