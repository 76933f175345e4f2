"""From tracks in two or more views to a trajectory of the hand, and when not to trust it (Motion Tracks, arXiv 2501.06994).

The authors send one pose of a plan; here the motion from row 0 to every row is solved, which gives the whole trajectory. Row 0
is where the hand is now, triangulated like the rest, so that an error of calibration is in both ends and mostly cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robolearn.core import Camera
from robolearn.errors import ArrayMismatch
from robolearn.video import pinhole, rigid
from robolearn.video.triangulate import reprojection_errors, require_baseline, triangulate

Array = np.ndarray
GATE_WIDTH = 640  # [px] of the picture that the gates' pixels are of; they scale with the width
_NOWHERE = 1e6  # [px]: a track beyond this, infinite or NaN is no track
MIN_KEPT = 3  # points of a row and view that are no outliers: fewer fix no pose, and the rest is made up
MIN_SPREAD = 2e-3  # [m]: points nearer to a line than this give no rotation


@dataclass(frozen=True)
class Gates:
    """When a plan is repaired or not trusted [px of a picture 640 px wide].

    outlier_px: a point farther than this from where it is now is an outlier; reprojection_px: views that disagree by more,
    root mean square over views and points, are not trusted. Two views cannot disagree along their epipolar lines: an error
    there is a wrong depth, and no gate sees it.
    """

    outlier_px: float = 100.0
    reprojection_px: float = 5.0


@dataclass(frozen=True)
class Decoded:
    """A trajectory: poses (H, 4, 4) = world_from_hand [m], finite always; gripper_open (H,) is 0 or 1.

    reprojection_px: (H,) of a picture 640 px wide, infinite where it cannot be told; trusted: (H,) bool, False where a gate
    fell, and there the pose before is repeated where there is none; repaired: how many points were outliers.
    """

    poses: Array
    gripper_open: Array
    reprojection_px: Array
    trusted: Array
    repaired: int


def decode(
    cameras: Sequence[Camera],
    tracks: Array,
    gripper_open: Array,
    world_from_hand: Array,
    closed_now: bool,
    gates: Gates = Gates(),
) -> Decoded:
    """Returns the trajectory that `tracks` (view, H, n, 2) [px], row 0 being now, mean for a hand at world_from_hand (4, 4).

    gripper_open: (view, H); a view says closed below 0.5. Two views or more, not in one place.
    """
    tracks, votes = np.asarray(tracks, dtype=float), np.asarray(gripper_open, dtype=float)
    require_baseline(cameras)
    tracks = np.where(np.abs(tracks) < _NOWHERE, tracks, np.nan)
    if tracks.ndim != 4 or len(tracks) != len(cameras) or votes.shape != tracks.shape[:2]:
        raise ArrayMismatch(
            f"decode: want tracks (view, H, n, 2) and gripper_open (view, H) for {len(cameras)} cameras, "
            f"got {tracks.shape} and {votes.shape}"
        )
    px = np.array([camera.size[0] / GATE_WIDTH for camera in cameras])
    limits = gates.outlier_px * px
    mended = [repair_outliers(view, view[0], limit) for view, limit in zip(tracks, limits, strict=True)]
    kept = np.stack([(view == raw).all(-1) for (view, _), raw in zip(mended, tracks, strict=True)])  # (view, H, n)
    tracks = np.stack([view for view, _ in mended])
    points = triangulate(cameras, tracks)  # (H, n, 3)
    errors = reprojection_errors(cameras, points, tracks) / px[:, None, None]
    apart = np.sqrt(np.mean(errors**2, axis=(0, 2)))
    apart = np.where(np.isfinite(apart), apart, np.inf)
    away = np.linalg.norm(tracks - tracks[:, :1], axis=-1)  # what had too few neighbours to be repaired is still far
    near = (away <= limits[:, None, None]).all((0, 2))
    in_front = np.all([pinhole.depth(camera, points) > 0 for camera in cameras], axis=(0, 2))
    moved = rigid.kabsch(points[0], points)
    solved = np.isfinite(moved).all((-1, -2)) & _spans(points)
    poses = _held(moved @ world_from_hand, solved, np.asarray(world_from_hand, dtype=float))
    seen = (kept.sum(-1) >= MIN_KEPT).all(0)
    trusted = seen & solved & near & in_front & (apart <= gates.reprojection_px) & (apart[0] <= gates.reprojection_px)
    return Decoded(poses, _gripper(votes, closed_now), apart, trusted, sum(count for _, count in mended))


def repair_outliers(tracks: Array, now: Array, limit_px: float = 100.0) -> tuple[Array, int]:
    """Returns tracks (H, n, 2) [px] with every point farther than limit_px from its `now` (n, 2) replaced, and how many were.

    Replaced by interpolation in time between the point's valid rows, the nearest one at the ends; a point with fewer than two
    valid rows is left as it is. What is not finite is an outlier.
    """
    tracks = np.array(tracks, dtype=float)
    away = np.linalg.norm(tracks - now, axis=-1)
    valid = np.isfinite(away) & (away <= limit_px)
    time, count = np.arange(len(tracks)), 0
    for point in range(tracks.shape[1]):
        known = np.flatnonzero(valid[:, point])
        if len(known) in (len(tracks), 0, 1):
            continue
        count += len(tracks) - len(known)
        for axis in range(2):
            tracks[:, point, axis] = np.interp(time, known, tracks[known, point, axis])
    return tracks, count


def both_views(closed_now: bool, votes: Sequence[bool] | Array) -> bool:
    """Returns whether the gripper is closed next: it changes only where every view's vote (True = closed) says so."""
    return not closed_now if all(bool(vote) != closed_now for vote in votes) else closed_now


def _gripper(votes: Array, closed_now: bool) -> Array:
    """Returns gripper_open (H,), 0 or 1, from votes (view, H); a vote that is not finite is for no change."""
    out = np.empty(votes.shape[1])
    for t, row in enumerate(votes.T):
        closed_now = both_views(closed_now, [vote < 0.5 if np.isfinite(vote) else closed_now for vote in row])
        out[t] = 0.0 if closed_now else 1.0
    return out


def _spans(points: Array) -> Array:
    """Returns (H,) bool: the points (H, n, 3) of the row, and of row 0, are finite and do not lie on a line."""
    known = np.isfinite(points).all((-1, -2))
    wide = rigid.spread(np.where(known[:, None, None], points, 0.0)) > MIN_SPREAD
    return known & wide & wide[0]


def _held(poses: Array, solved: Array, now: Array) -> Array:
    """Returns poses (H, 4, 4) with each that was not solved (H,) replaced by the one before, the first by `now` (4, 4)."""
    last = np.maximum.accumulate(np.where(solved, np.arange(len(poses)), -1))
    return np.where((last >= 0)[:, None, None], poses[np.maximum(last, 0)], now)
