"""Whether cameras still are where a calibration says: the board in new pictures, by the old lenses and places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolearn import geometry
from robolearn.core import Camera
from robolearn.video import pinhole
from robolearn.video.calibration import handeye, stereo
from robolearn.video.calibration.boards import Board, Sighting
from robolearn.video.calibration.handeye import Mount
from robolearn.video.calibration.intrinsics import board_pose, pixels_of, rms
from robolearn.video.rigid import kabsch
from robolearn.video.triangulate import reprojection_errors, triangulate

_FLOOR_PX = 0.5  # under which no residual is a finding
_TIMES = 3.0  # of the residual at calibration
_CEILING_PX = 2.0  # over which every residual is one, however bad the calibration was


@dataclass(frozen=True)
class Judged:
    """One finding. what: "lens left", "left and right", "left on the robot"; px: its residual, RMS; limit_px: what it may be.

    moved_mm, moved_deg: by how much the camera seems to have moved, NaN where that is not known; limit_mm: what that may be;
    pictures: how many were used.
    """

    what: str
    px: float
    limit_px: float
    pictures: int
    moved_mm: float = float("nan")
    moved_deg: float = float("nan")
    limit_mm: float = float("inf")

    @property
    def good(self) -> bool:
        """True where the calibration still holds."""
        return self.px <= self.limit_px and not self.moved_mm > self.limit_mm


def limit(calibrated_px: float | None) -> float:
    """Returns the residual [px] that new pictures may have, from that of the calibration."""
    return float(np.clip(_TIMES * (calibrated_px or 0.0), _FLOOR_PX, _CEILING_PX))


def lens(name: str, camera: Camera, board: Board, sightings: Sequence[Sighting], limit_px: float) -> Judged:
    """Returns how well the lens explains the board wherever it is: RMS of the median picture."""
    found = [board_pose(camera, board, seen)[1] for seen in sightings]
    found = [px for px in found if np.isfinite(px)]
    return Judged(f"lens {name}", float(np.median(found)) if found else float("nan"), limit_px, len(found))


def two_views(
    names: tuple[str, str], cameras: tuple[Camera, Camera], board: Board, pairs: Sequence[stereo.Pair], limit_px: float
) -> Judged:
    """Returns how well the board, placed where both cameras together see it, fits both pictures: RMS of all corners [px].

    It tells little of a camera that slid towards or from the other one and was turned back to the board: see `moved_between`.
    """
    errors = []
    for pair in pairs:
        pixels = np.stack([pinhole.undistort(cameras[0], pair.first), pinhole.undistort(cameras[1], pair.second)])
        corners = board.corners[pair.ids]
        world_from_board = kabsch(corners, triangulate(cameras, pixels))
        points = corners @ world_from_board[:3, :3].T + world_from_board[:3, 3]
        errors.append(np.ravel(reprojection_errors(cameras, points, pixels)))
    px = float(np.sqrt(np.mean(np.concatenate(errors) ** 2))) if errors else float("nan")
    return Judged(f"{names[0]} and {names[1]}", px, limit_px, len(pairs))


def moved_between(board: Board, cameras: tuple[Camera, Camera], pairs: Sequence[stereo.Pair]) -> tuple[float, float]:
    """Returns how far [mm, deg] the second camera is from where the first one, by these pictures, says that it was."""
    was = geometry.inverse(np.array(cameras[1].world_from_camera)) @ np.array(cameras[0].world_from_camera)
    now = stereo.calibrate(board, cameras[0], cameras[1], pairs).second_from_first
    return apart(geometry.inverse(was), geometry.inverse(now))


def on_robot(
    name: str,
    camera: Camera,
    board: Board,
    seen: tuple[np.ndarray, Sequence[Sighting]],
    found: Mapping[str, Any],
    limit_px: float,
) -> Judged:
    """Returns how far, RMS [px], corners lie from where robot and calibration put them.

    seen: base_from_gripper (n, 4, 4) and the n pictures; found: of the calibration, with mount, mount_from_camera and held.
    """
    mount: Mount = found["mount"]
    place, held = np.array(found["mount_from_camera"]), np.array(found["held"])
    errors, boards, grippers = [], [], []
    for gripper, sighting in zip(*seen, strict=True):
        camera_from_board, _ = board_pose(camera, board, sighting)
        if np.isfinite(camera_from_board).all():
            expected = handeye.board_seen(gripper, place, held, mount)
            errors.append(pixels_of(camera, expected, board.corners[sighting.ids]) - sighting.pixels)
            boards.append(camera_from_board)
            grippers.append(gripper)
    if not errors:
        return Judged(f"{name} on the robot", float("nan"), limit_px, 0)
    gripper, board_now = np.stack(grippers), np.stack(boards)
    mount_from_board = gripper @ held if mount == "world" else geometry.inverse(gripper) @ held
    now = handeye.mean_pose(mount_from_board @ geometry.inverse(board_now))
    return Judged(f"{name} on the robot", rms(np.concatenate(errors)), limit_px, len(errors), *apart(place, now))


def apart(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Returns distance [mm] and angle [deg] of two poses (4, 4)."""
    turned = geometry.angle_between(one[:3, :3], other[:3, :3])
    return 1000 * float(np.linalg.norm(one[:3, 3] - other[:3, 3])), float(np.degrees(turned))
