"""What an error of the tracks [px] costs in the pose that is decoded from them: two cameras, one random step, many draws.

The cameras stand on a circle of 1 m around the workspace and 0.5 m above it (1.12 m away) and look at its middle; 640x480,
f = 605 px. The hand points down, its opening axis across the views. The start of a step is exact, its end is noisy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from robolearn import geometry
from robolearn.core import Camera
from robolearn.video import pinhole, points, rigid
from robolearn.video.triangulate import triangulate

Array = np.ndarray

FOCAL_PX, SIZE = 605.0, (640, 480)
RADIUS, HEIGHT = 1.0, 0.5  # [m] of the cameras
WORKSPACE = 0.1  # [m] to each side of the middle, where a step starts; its length along each axis is of the same range
TILT = 0.3  # [rad] by which the hand leans at most about each axis at the start
TURN = 0.12  # [rad], standard deviation of the step's rotation about each axis
_FIVE = points.gripper_points(np.eye(4), 1.0)
_NINE_DEPTHS = np.array([0.0, 0.16, 0.16, 0.08, 0.08, 0.08, 0.04, 0.04, 0.04]) - 0.127
_NINE_WIDTHS = np.array([0.0, 0.04, -0.04, 0.0, 0.05, -0.05, 0.0, 0.05, -0.05])
LAYOUTS = {  # points in the hand's frame [m]
    "three": _FIVE[[0, 3, 4]],  # the base and the two tips
    "five": _FIVE,
    "nine": np.stack([np.zeros(9), _NINE_WIDTHS, _NINE_DEPTHS], axis=-1),  # Point Policy, arXiv 2502.20391
}
QUANTISED: dict[str, Callable[[Array], Array]] = {"": lambda pixels: pixels, "truncate": np.trunc, "round": np.rint}


@dataclass(frozen=True)
class Case:
    """One way to err: the azimuth between the views [deg]; noise of the end, standard deviation along u and v [px]; pixels
    "truncate"d or "round"ed at both ends; one view shifted along u [px] at both ends or, `future_only`, at the end.
    """

    angle_deg: float = 60.0
    sigma_px: tuple[float, float] = (0.0, 0.0)
    quantised: str = ""
    shift_px: float = 0.0
    future_only: bool = False
    layout: str = "five"


def errors(case: Case, draws: int = 2000, seed: int = 0) -> tuple[Array, Array, Array]:
    """Returns, each (draws,), the error of the decoded position [m] and rotation [rad], and of its points, their mean [m]."""
    rng = np.random.default_rng(seed)
    cameras, layout = two_cameras(case.angle_deg), LAYOUTS[case.layout]
    tilt = geometry.matrix_from_rotvec(rng.uniform(-TILT, TILT, (draws, 3)))
    start = geometry.pose(rng.uniform(-WORKSPACE, WORKSPACE, (draws, 3)), np.diag([1.0, -1.0, -1.0]) @ tilt)
    turn = geometry.matrix_from_rotvec(rng.normal(0.0, TURN, (draws, 3)))
    end = geometry.pose(start[:, :3, 3] + rng.uniform(-WORKSPACE, WORKSPACE, (draws, 3)), turn @ start[:, :3, :3])
    points_start, points_end = _placed(start, layout), _placed(end, layout)
    pixels_start = np.stack([pinhole.project(camera, points_start) for camera in cameras])
    pixels_end = np.stack([pinhole.project(camera, points_end) for camera in cameras])
    pixels_end += rng.standard_normal(pixels_end.shape) * case.sigma_px
    pixels_start, pixels_end = QUANTISED[case.quantised](pixels_start), QUANTISED[case.quantised](pixels_end)
    pixels_end[1, ..., 0] += case.shift_px
    pixels_start[1, ..., 0] += 0.0 if case.future_only else case.shift_px
    found_start, found_end = triangulate(cameras, pixels_start), triangulate(cameras, pixels_end)
    decoded = rigid.kabsch(found_start, found_end) @ start
    position = np.linalg.norm(decoded[:, :3, 3] - end[:, :3, 3], axis=-1)
    rotation = geometry.angle_between(decoded[:, :3, :3], end[:, :3, :3])
    return position, rotation, np.linalg.norm(found_end - points_end, axis=-1).mean(-1)


def row(case: Case, draws: int = 2000, seed: int = 0) -> dict[str, object]:
    """Returns a row of the table: the case, then medians and 95th percentiles in mm and degrees."""
    position, rotation, point = errors(case, draws, seed)
    return asdict(case) | {
        "position_mm": float(1e3 * np.median(position)),
        "position_p95_mm": float(1e3 * np.quantile(position, 0.95)),
        "rotation_deg": float(np.degrees(np.median(rotation))),
        "rotation_p95_deg": float(np.degrees(np.quantile(rotation, 0.95))),
        "point_mm": float(1e3 * np.median(point)),
    }


def rows(draws: int = 2000, seed: int = 0) -> list[dict[str, object]]:
    """Returns the whole table: angles, noise, whole pixels, one view shifted, layouts, and noise in pixels of 128x128."""
    cases = [Case(angle, (sigma, sigma)) for angle, sigma in ((15, 1), (30, 1), (60, 0.5), (60, 1), (60, 2), (60, 4), (90, 1))]
    cases += [Case(quantised="truncate"), Case(quantised="round")]
    cases += [Case(shift_px=px, future_only=future) for px in (1.0, 4.0) for future in (False, True)]
    cases += [Case(sigma_px=(1.0, 1.0), layout=layout) for layout in LAYOUTS]
    cases += [Case(sigma_px=small_pixels(sigma)) for sigma in (0.25, 0.5, 1.0, 2.0)]
    return [row(case, draws, seed) for case in cases]


def small_pixels(sigma: float, side: int = 128) -> tuple[float, float]:
    """Returns along u and v [px of 640x480] what `sigma` [px] is in a picture squeezed to side x side."""
    return sigma * SIZE[0] / side, sigma * SIZE[1] / side


def two_cameras(angle_deg: float) -> tuple[Camera, Camera]:
    """Returns the two cameras, `angle_deg` of azimuth apart."""
    half = np.radians(angle_deg) / 2
    left, right = (np.array([RADIUS * np.cos(side), RADIUS * np.sin(side), HEIGHT]) for side in (-half, half))
    return _looking_at_the_middle(left), _looking_at_the_middle(right)


def _looking_at_the_middle(eye: Array) -> Camera:
    """Returns the camera at `eye` (3,) [m] that looks at the origin, upright."""
    z = -eye / np.linalg.norm(eye)
    x = np.cross(z, (0.0, 0.0, 1.0))
    x = x / np.linalg.norm(x)
    world_from_camera = geometry.pose(eye, np.stack([x, np.cross(z, x), z], axis=-1))
    width, height = SIZE
    matrix = ((FOCAL_PX, 0.0, (width - 1) / 2), (0.0, FOCAL_PX, (height - 1) / 2), (0.0, 0.0, 1.0))
    return Camera(SIZE, matrix, world_from_camera=tuple(tuple(line) for line in world_from_camera.tolist()))


def _placed(world_from_hand: Array, layout: Array) -> Array:
    """Returns the world points (draws, n, 3) of hands (draws, 4, 4) with points `layout` (n, 3) in their frame [m]."""
    return layout @ np.swapaxes(world_from_hand[:, :3, :3], -1, -2) + world_from_hand[:, None, :3, 3]
