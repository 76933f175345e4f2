"""From hand landmarks in two or more calibrated views to where a gripper would have been: a path of poses in the world.

Point Policy's rule (arXiv 2502.20391) with the author's numbers is `POINT_POLICY`: the place is the middle of the closest pair
of an index joint (DIP, tip) and a thumb joint (IP, tip), the turn is Kabsch from the first frame's nine points to the current
ones, on a base orientation that looks down, closed below 0.07 m. `ROBUST` differs in five choices, each of them a field:
all 21 landmarks, compared with the mean hand instead of the first frame, the place of the two tips, no outliers, smoothing.

A hand frame here is a gripper's: z approach, y from a right hand's thumb to its index finger (from a left one's index finger to
its thumb), origin between the fingertips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from robolearn import geometry
from robolearn.core import Camera
from robolearn.errors import BadInput, DatasetError
from robolearn.video import pinhole, smooth_path
from robolearn.video.points import five_of_hand, gripper_points
from robolearn.video.rigid import kabsch
from robolearn.video.triangulate import reprojection_errors, triangulate

Array = np.ndarray
NINE = (0, 5, 6, 7, 8, 1, 2, 3, 4)  # wrist, index finger, thumb: Point Policy's
PALM = (0, 1, 5, 9, 13, 17)  # what no finger moves
ALL = tuple(range(21))
POINTS = {"nine": NINE, "palm": PALM, "all": ALL}
INDEX_JOINTS, THUMB_JOINTS, TIPS = (7, 8), (3, 4), (8, 4)
DOWN = np.diag([1.0, -1.0, -1.0])  # Point Policy's base orientation: the gripper looks at the table
SPREAD = 4.0  # robust standard deviations beyond which a frame is an outlier
MAD = 1.4826  # standard deviations of a normal distribution in its median absolute deviation
WINDOW_S = 0.2  # half the span that a place is compared with


@dataclass(frozen=True)
class WristRule:
    """How landmarks become poses.

    points: which landmarks turn the hand; reference: what they are compared with, the first frame or the mean hand; base:
    start: at the first frame the gripper is turned as the caller says; hand: the hand's own five points say how it is; place: the
    middle of the closest pair, or of the two tips, carried by all four joints; close_m: pair distance below which
    the hand is closed; smooth_s: of the Gaussian in time, 0: none; reject: leave outliers out; most_gap_s: longest gap filled.
    """

    points: Literal["nine", "palm", "all"] = "all"
    reference: Literal["first", "mean"] = "mean"
    base: Literal["start", "hand"] = "start"
    place: Literal["pair", "tips"] = "tips"
    close_m: float = 0.07
    smooth_s: float = 0.1
    reject: bool = True
    most_gap_s: float = 1.0
    reprojection_px: float = 5.0  # at 640 px of width: below this no frame is an outlier

    def __post_init__(self) -> None:
        if self.close_m <= 0 or self.smooth_s < 0 or self.most_gap_s < 0 or self.reprojection_px <= 0:
            raise BadInput(
                f"wrist rule: want close_m and reprojection_px above 0, smooth_s and most_gap_s at least 0, got "
                f"{self.close_m:g}, {self.reprojection_px:g}, {self.smooth_s:g}, {self.most_gap_s:g}"
            )


ROBUST = WristRule()
POINT_POLICY = WristRule(points="nine", reference="first", place="pair", smooth_s=0.0, reject=False)


@dataclass(frozen=True)
class WristPath:
    """A hand's way: rows [first, stop) of the recording, one pose each.

    world_from_hand (T, 4, 4) [m]; closed (T,) bool by the pair's distance; pair_m (T,) that distance; landmarks (T, 21, 3) [m] of
    the world, gaps filled; filled (T,) bool: no frame was seen or trusted there; outliers: frames seen but left out.
    """

    world_from_hand: Array
    closed: Array
    pair_m: Array
    landmarks: Array
    filled: Array
    first: int
    stop: int
    outliers: int


def wrist_path(
    cameras: Sequence[Camera],
    hands: Array,
    valid: Array,
    hz: float,
    right: bool = True,
    rule: WristRule = ROBUST,
    start: Array = DOWN,
) -> WristPath:
    """Returns the way of a hand from its landmarks (view, T, 21, 2) [px]; valid (view, T): where a view saw the hand.

    start (3, 3): world_from_hand at the first frame, for rules whose base it is; Point Policy's looks down. DatasetError where
    fewer than two frames are seen by two views, or a gap is longer than the rule fills.
    """
    points, error_px = located(cameras, hands, valid)
    seen = np.isfinite(points).all(axis=(1, 2))
    good = seen & ~outliers(points, error_px, cameras, hz, rule) if rule.reject else seen
    rows = np.flatnonzero(good)
    if len(rows) < 2:
        raise DatasetError(
            f"hand: want at least two frames that two views see and agree on, got {len(rows)} of {len(good)} "
            f"({int(seen.sum())} seen by two views)"
        )
    first, stop = int(rows[0]), int(rows[-1]) + 1
    gap = int(np.max(np.diff(rows), initial=1)) - 1
    if gap > rule.most_gap_s * hz:
        at = first + int(np.argmax(np.diff(rows)))
        raise DatasetError(
            f"hand: {gap / hz:.2f} s without a hand from frame {rows[rows <= at][-1]} on, want at most {rule.most_gap_s:g} s"
        )
    inside, whole = good[first:stop], rows - first
    turned, base = _turned(points[rows], right, rule)
    path = smooth_path.resampled(turned, whole / hz, np.arange(stop - first) / hz)
    path = smooth_path.smoothed(path, hz, rule.smooth_s, np.where(inside, 1.0, smooth_path.GUESS))
    path[:, :3, :3] = path[:, :3, :3] @ (path[0, :3, :3].T @ start if base is None else base)
    landmarks = _interpolated(points[rows], whole, stop - first)
    _, pair_m = pinch(landmarks)
    return WristPath(path, pair_m < rule.close_m, pair_m, landmarks, ~inside, first, stop, int((seen & ~good)[first:stop].sum()))


def located(cameras: Sequence[Camera], hands: Array, valid: Array) -> tuple[Array, Array]:
    """Returns landmarks (T, 21, 3) [m] of the world, NaN where fewer than two views see them, and how far [px] the worst view
    is from agreeing (T,), the median over its landmarks.
    """
    hands, valid = np.asarray(hands, dtype=float), np.asarray(valid, dtype=bool)
    if hands.ndim != 4 or hands.shape[0] != len(cameras) or hands.shape[2:] != (21, 2) or valid.shape != hands.shape[:2]:
        raise BadInput(
            f"hand: want landmarks ({len(cameras)} views, T, 21, 2) and valid ({len(cameras)}, T), "
            f"got {hands.shape} and {valid.shape}"
        )
    ideal = np.stack([pinhole.undistort(camera, pixels) for camera, pixels in zip(cameras, hands, strict=True)])
    sees = np.broadcast_to(valid[..., None], hands.shape[:3])
    points = triangulate(cameras, ideal, sees)
    error = np.where(sees, reprojection_errors(cameras, points, ideal), np.nan)
    error = np.where(np.isfinite(error), error, 0.0)  # what is not located counts as not seen, not as an outlier
    return points, np.median(error, axis=2).max(axis=0)


def pinch(points: Array) -> tuple[Array, Array]:
    """Returns the middle (T, 3) [m] of the closest pair of index joint and thumb joint, and its distance (T,) [m]."""
    a, b = (points[:, list(ids)] for ids in (INDEX_JOINTS, THUMB_JOINTS))  # (T, 2, 3)
    apart = np.linalg.norm(a[:, :, None] - b[:, None], axis=-1).reshape(len(points), -1)  # (T, 4)
    middle = ((a[:, :, None] + b[:, None]) / 2).reshape(len(points), -1, 3)
    nearest = np.argmin(apart, axis=1)
    rows = np.arange(len(points))
    return middle[rows, nearest], apart[rows, nearest]


def hand_rotation(points: Array, right: bool) -> Array:
    """Returns world_from_hand (3, 3) of one frame's landmarks (21, 3): what lays a gripper's five points on the hand's."""
    return kabsch(gripper_points(np.eye(4), 1.0), five_of_hand(points, right))[:3, :3]


def mean_shape(points: Array, rounds: int = 5) -> Array:
    """Returns the mean shape (n, 3) of points (T, n, 3) that move as a body (generalised Procrustes, Gower 1975), as turned
    and placed in the first frame.
    """
    shape = points[0]
    for _ in range(rounds):
        fit = geometry.inverse(kabsch(np.broadcast_to(shape, points.shape), points))
        shape = np.mean(points @ np.swapaxes(fit[:, :3, :3], 1, 2) + fit[:, None, :3, 3], axis=0)
    fit = kabsch(shape, points[0])
    return shape @ fit[:3, :3].T + fit[:3, 3]


def _turned(points: Array, right: bool, rule: WristRule) -> tuple[Array, Array | None]:
    """Returns where the hand is and how it has turned since the first frame (T, 4, 4), of landmarks (T, 21, 3), and its
    orientation (3, 3) in the first frame where its points say it, None where the rule's base does.
    """
    ids = list(POINTS[rule.points])
    whole = points[0] if rule.reference == "first" else mean_shape(points)
    turn = kabsch(np.broadcast_to(whole[ids], (len(points), len(ids), 3)), points[:, ids])[:, :3, :3]
    place, _ = pinch(points)
    if rule.place == "tips":
        middle, tips = (points[:, list(ids)].mean(axis=1) for ids in (INDEX_JOINTS + THUMB_JOINTS, TIPS))
        offset = np.mean(np.einsum("tji,tj->ti", turn, tips - middle), axis=0)  # as the hand of the first frame sees it
        place = middle + turn @ offset
    return geometry.pose(place, turn), hand_rotation(whole, right) if rule.base == "hand" else None


def outliers(points: Array, error_px: Array, cameras: Sequence[Camera], hz: float, rule: WristRule) -> Array:
    """Returns which frames (T,) are not to be trusted: the views disagree, the hand is out of shape, or its place jumps."""
    seen = np.isfinite(points).all(axis=(1, 2))
    bad = np.zeros(len(points), bool)
    if seen.sum() < 5:
        return bad
    allowed = rule.reprojection_px * max(camera.size[0] for camera in cameras) / 640
    bad[seen] = _far_out(error_px[seen], allowed)
    palm = points[seen][:, list(PALM)]
    fit = kabsch(np.broadcast_to(mean_shape(palm), palm.shape), palm)
    left = palm - (mean_shape(palm) @ np.swapaxes(fit[:, :3, :3], 1, 2) + fit[:, None, :3, 3])
    bad[seen] |= _far_out(np.sqrt(np.mean(np.sum(left**2, axis=2), axis=1)), 0.01)
    middle = points[seen][:, [*INDEX_JOINTS, *THUMB_JOINTS]].mean(axis=1)
    bad[seen] |= _far_out(_jump(middle, np.flatnonzero(seen), round(WINDOW_S * hz)), 0.03)
    return bad


def _far_out(values: Array, allowed: float) -> Array:
    """Returns which values (n,) lie beyond both what is allowed anyway and SPREAD robust deviations above the median."""
    middle = np.median(values)
    return values > max(allowed, middle + SPREAD * MAD * float(np.median(np.abs(values - middle))))


def _jump(place: Array, rows: Array, reach: int) -> Array:
    """Returns how far (k,) [m] each place (k, 3), on frame rows (k,), is from the median of those within `reach` frames of it,
    after the neighbours have been moved along the median velocity: steady motion is no jump.
    """
    out = np.zeros(len(place))
    for k, row in enumerate(rows):
        near = np.flatnonzero(np.abs(rows - row) <= reach)
        if len(near) < 3:
            continue
        velocity = np.median(np.diff(place[near], axis=0) / np.diff(rows[near])[:, None], axis=0)
        out[k] = np.linalg.norm(place[k] - np.median(place[near] - (rows[near] - row)[:, None] * velocity, axis=0))
    return out


def _interpolated(points: Array, rows: Array, n: int) -> Array:
    """Returns points (n, 21, 3) on every row, straight between the rows (k,) that are known (k, 21, 3)."""
    flat = points.reshape(len(points), -1)
    return np.stack([np.interp(np.arange(n), rows, column) for column in flat.T], axis=-1).reshape(n, *points.shape[1:])
