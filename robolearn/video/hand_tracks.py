"""From the hands in every picture to hands over time: which is which, what is believed, and how the points are smoothed.

A detector says for every picture which hand is a left one, and is wrong now and then; over time a hand stays where it was. So
hands are told apart by their places, and left or right is what most pictures say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import linear_sum_assignment

from robolearn.video.hands import N_LANDMARKS, PALM, Hand
from robolearn.video.noise import hand_size

Array = np.ndarray
Side = Literal["any", "left", "right"]
_REACH = 1.5  # hand sizes that a hand may be from where it was in the last picture
_REACH_A_FRAME = 0.25  # and more for every picture without it, up to
_REACH_MOST = 4.0
_GONE = 10  # pictures after which a hand may come back anywhere, if it is of the same side
_OTHER_SIDE = 0.5  # hand sizes that another word on left or right counts as
_JUMP = 1.0  # hand sizes from the line between its neighbours: a picture in which something else was taken for the hand


@dataclass(frozen=True)
class HandTrack:
    """One hand over T pictures: landmarks_px (T, 21, 2) and world_m (T, 21, 3), NaN where it was not seen; score (T,), 0 there.

    right: a person's right hand, by most pictures; right_share: of the pictures that say so, weighted by their score.
    """

    landmarks_px: Array
    world_m: Array
    score: Array
    right_share: float

    @property
    def seen(self) -> Array:
        """Returns (T,) bool: the pictures with this hand."""
        whole: Array = np.isfinite(self.landmarks_px).all(axis=(1, 2))
        return whole

    @property
    def right(self) -> bool:
        """Returns whether it is a right hand."""
        return self.right_share >= 0.5


def associate(frames: Sequence[Sequence[Hand]], max_hands: int = 2) -> list[HandTrack]:
    """Returns the hands over all pictures, at most `max_hands` of them, the most often seen first."""
    rows: list[list[tuple[int, Hand]]] = []
    for t, hands in enumerate(frames):
        for track, hand in _assigned(rows, t, hands, max_hands):
            rows[track].append((t, hand))
        taken = {id(row[-1][1]) for row in rows}
        for hand in hands:
            if id(hand) not in taken and len(rows) < max_hands:
                rows.append([(t, hand)])
    tracks = [_track(row, len(frames)) for row in rows]
    return sorted(tracks, key=lambda track: -track.score.sum())


def _assigned(rows: list[list[tuple[int, Hand]]], t: int, hands: Sequence[Hand], max_hands: int) -> list[tuple[int, Hand]]:
    """Returns (track, hand) pairs of one picture with the least way in hand sizes; a hand too far off belongs to none."""
    if not rows or not hands:
        return []
    cost = np.array([[_away(row, hand) for hand in hands] for row in rows])
    gap = np.array([t - row[-1][0] - 1 for row in rows])[:, None]
    back = (gap > _GONE) & np.array([[_says_right(row) == hand.right for hand in hands] for row in rows])
    reach = np.where(back, np.inf, np.minimum(_REACH + _REACH_A_FRAME * gap, _REACH_MOST))
    if len(rows) == max_hands == 1:
        reach[:] = np.inf  # the detector was asked for one hand, so it is that one
    allowed = cost <= reach
    pairs = zip(*linear_sum_assignment(np.where(allowed, cost, 1e6)), strict=True)
    return [(int(i), hands[j]) for i, j in pairs if allowed[i, j]]


def _away(row: list[tuple[int, Hand]], hand: Hand) -> float:
    """Returns how far [hand sizes] a hand is from where a track was last, more where left and right differ."""
    last = row[-1][1]
    size = max(float(hand_size(last.landmarks_px)), float(hand_size(hand.landmarks_px)), 1.0)
    way = np.linalg.norm(last.landmarks_px[list(PALM)].mean(0) - hand.landmarks_px[list(PALM)].mean(0)) / size
    return float(way) + _OTHER_SIDE * (_says_right(row) != hand.right)


def _says_right(row: list[tuple[int, Hand]]) -> bool:
    return sum(hand.score if hand.right else -hand.score for _, hand in row) >= 0


def _track(row: list[tuple[int, Hand]], n: int) -> HandTrack:
    points, world, score = np.full((n, N_LANDMARKS, 2), np.nan), np.full((n, N_LANDMARKS, 3), np.nan), np.zeros(n)
    for t, hand in row:
        points[t], score[t] = hand.landmarks_px, hand.score
        world[t] = np.nan if hand.world_m is None else hand.world_m
    right = sum(hand.score for _, hand in row if hand.right) / max(score.sum(), 1e-12)
    return HandTrack(points, world, score, float(right))


def chosen(tracks: Sequence[HandTrack], side: Side = "any") -> HandTrack | None:
    """Returns the hand on this side that was seen most, None where there is none."""
    fit = [track for track in tracks if side == "any" or track.right == (side == "right")]
    return max(fit, key=lambda track: float(track.score.sum()), default=None)


def without_jumps(track: HandTrack) -> HandTrack:
    """Returns the hand without the single pictures in which it is more than a hand's size off the line between its neighbours."""
    rows = np.flatnonzero(track.seen)
    if len(rows) < 3:
        return track
    palm = track.landmarks_px[rows][:, list(PALM)].mean(axis=1)
    before, after = palm[:-2], palm[2:]
    share = ((rows[1:-1] - rows[:-2]) / (rows[2:] - rows[:-2]))[:, None]
    off = np.linalg.norm(palm[1:-1] - (before + share * (after - before)), axis=-1)
    size = np.median(hand_size(track.landmarks_px[rows]))
    # A jump pulls the lines of both its neighbours along by half, so it must also be the worst of the three.
    around = np.concatenate([[0.0], off, [0.0]])
    worst = (around[1:-1] > around[:-2]) & (around[1:-1] >= around[2:])
    drop = rows[1:-1][(off > _JUMP * size) & worst]
    points, world, score = track.landmarks_px.copy(), track.world_m.copy(), track.score.copy()
    points[drop], world[drop], score[drop] = np.nan, np.nan, 0.0
    return replace(track, landmarks_px=points, world_m=world, score=score)


def smoothed(values: Array, hz: float, sigma_s: float) -> Array:
    """Returns values (T, ...), finite everywhere, after a Gaussian of `sigma_s` [s] over time, which moves nothing in time."""
    if sigma_s <= 0 or len(values) < 2:
        return values
    return gaussian_filter1d(values, sigma_s * hz, axis=0, mode="nearest")
