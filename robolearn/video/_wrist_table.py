"""How far the wrist's path recovered from noisy landmarks is from the true one: the table behind the choices of `wrist.ROBUST`.

A right hand of 21 points reaches, turns, closes and lifts before two cameras (640x480, f 605 px, 1.12 m away, 60 degrees
apart), its landmarks get a detector's noise (`noise.HandNoise`), and what comes out is compared with what went in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from robolearn import geometry
from robolearn.core import Camera
from robolearn.video import pinhole, wrist
from robolearn.video.noise import HandNoise
from robolearn.video.wrist import POINT_POLICY, ROBUST, WristRule

Array = np.ndarray
# An adult's right hand [m] ready to pinch: z where the fingers point, y from thumb to index finger, origin between the tips.
HAND = np.array(
    [
        [-0.015, 0.012, -0.170],
        [0.005, -0.018, -0.138], [0.010, -0.040, -0.102], [0.006, -0.050, -0.058], [0.000, -0.046, 0.000],
        [0.000, 0.036, -0.086], [0.006, 0.052, -0.050], [0.004, 0.054, -0.022], [0.000, 0.046, 0.000],
        [-0.022, 0.038, -0.084], [-0.018, 0.058, -0.046], [-0.020, 0.058, -0.018], [-0.024, 0.050, 0.004],
        [-0.042, 0.034, -0.086], [-0.042, 0.052, -0.052], [-0.044, 0.052, -0.026], [-0.048, 0.046, -0.004],
        [-0.060, 0.026, -0.092], [-0.062, 0.042, -0.066], [-0.066, 0.042, -0.046], [-0.070, 0.038, -0.028],
    ]
)  # fmt: skip
FINGERS = (3, 4, 6, 7, 8)  # what closing moves
CLOSED_Y = 0.32  # share of their distance from the middle that is left when closed
RULES = {
    "point_policy": POINT_POLICY,
    "all_points": replace(POINT_POLICY, points="all"),
    "robust_unsmoothed": replace(ROBUST, smooth_s=0.0),
    "robust_pair": replace(ROBUST, place="pair"),
    "robust": ROBUST,
    "robust_palm": replace(ROBUST, points="palm"),
    "robust_hand": replace(ROBUST, base="hand"),
}


def hand(world_from_hand: Array, opening: Array) -> Array:
    """Returns the landmarks (T, 21, 3) [m] of right hands at poses (T, 4, 4), opening (T,) from 0 closed to 1 open."""
    points = np.repeat(HAND[None], len(world_from_hand), axis=0)
    share = CLOSED_Y + (1 - CLOSED_Y) * np.asarray(opening, dtype=float)
    points[:, FINGERS, 1] *= share[:, None]
    return points @ np.swapaxes(world_from_hand[:, :3, :3], 1, 2) + world_from_hand[:, None, :3, 3]


def cameras(angle_deg: float = 60.0, distance: float = 1.12) -> list[Camera]:
    """Returns two cameras (640x480) that look at the origin from `distance` [m], 35 degrees down, so far apart."""
    K = ((605.0, 0.0, 319.5), (0.0, 605.0, 239.5), (0.0, 0.0, 1.0))
    found = []
    for yaw in np.deg2rad([-angle_deg / 2, angle_deg / 2]):
        down = np.deg2rad(35.0)
        axis = np.array([-np.cos(yaw) * np.cos(down), -np.sin(yaw) * np.cos(down), -np.sin(down)])
        right = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
        matrix = np.stack([right, np.cross(axis, right), axis], axis=1)
        pose = geometry.pose(-distance * axis, matrix)
        found.append(Camera((640, 480), K, world_from_camera=tuple(map(tuple, pose.tolist()))))
    return found


def motion(hz: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Returns poses (T, 4, 4) and openings (T,) of a reach down, a grasp and a lift of 4.5 s, slow at each end."""
    corners = np.stack([[-0.10, -0.12, 0.18], [0.0, 0.0, 0.02], [0.0, 0.0, 0.02], [0.08, 0.1, 0.2]]) + 0.03 * rng.normal(
        size=(4, 3)
    )
    corners[2] = corners[1]
    turns = np.deg2rad(25.0) * rng.normal(size=(4, 3))
    turns[0], turns[2] = 0.0, turns[1]
    at = np.arange(0.0, 4.5, 1.0 / hz)
    times = (0.0, 2.0, 2.8, 4.5)
    leg = np.searchsorted(times, at, side="right") - 1
    share = (at - np.take(times, leg)) / np.diff(times)[leg]
    ease = (10 * share**3 - 15 * share**4 + 6 * share**5)[:, None]  # least jerk (Flash and Hogan, 1985)
    position = corners[leg] + ease * (corners[leg + 1] - corners[leg])
    turn = turns[leg] + ease * (turns[leg + 1] - turns[leg])
    opening = np.interp(at, (2.0, 2.6), (1.0, 0.0))
    return geometry.pose(position, geometry.matrix_from_rotvec(turn) @ wrist.DOWN), opening


def errors(found: wrist.WristPath, world_from_hand: Array) -> tuple[Array, Array]:
    """Returns the distances (T,) [m] and angles (T,) [rad] between a recovered path and the true one (all rows)."""
    truth = world_from_hand[found.first : found.stop]
    away = np.linalg.norm(found.world_from_hand[:, :3, 3] - truth[:, :3, 3], axis=1)
    return away, geometry.angle_between(found.world_from_hand[:, :3, :3], truth[:, :3, :3])


def rows(
    share: float, rule: WristRule, clips: int = 20, hz: float = 30.0, noise: HandNoise = HandNoise(), seed: int = 0
) -> dict[str, Any]:
    """Returns the errors over `clips` at a noise of `share` of the hand's size: medians and 95th percentiles, mm and degrees."""
    level = replace(noise, sigma_share=(share, share))
    views = cameras()
    away, turned = [], []
    for clip in range(clips):
        rng = np.random.default_rng([seed, clip])
        truth, opening = motion(hz, rng)
        exact = [pinhole.project(camera, hand(truth, opening)) for camera in views]
        seen = [level.apply(track, rng) for track in exact]
        found = wrist.wrist_path(
            views, np.nan_to_num([track for track, _ in seen]), np.array([valid for _, valid in seen]), hz, True, rule
        )
        far, angle = errors(found, truth)
        away.append(1e3 * far)
        turned.append(np.rad2deg(angle))
    mm, deg = np.concatenate(away), np.concatenate(turned)
    return {
        "noise_share": share,
        "position_median_mm": float(np.median(mm)),
        "position_p95_mm": float(np.percentile(mm, 95)),
        "rotation_median_deg": float(np.median(deg)),
        "rotation_p95_deg": float(np.percentile(deg, 95)),
    }
