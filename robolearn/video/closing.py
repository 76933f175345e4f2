"""Whether the hand of an episode is closed at every row, by the best that is known of it: a mask, two views, or one view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.ndimage import median_filter

from robolearn.errors import BadInput
from robolearn.video.grasp import HOLD_FRAMES, PINCH, closed_from_contact, closed_from_distance

Array = np.ndarray
Evidence = Literal["mask", "distance", "pinch"]
WORDS = {
    "mask": "thumb and one more finger within 15 px (at 640 px) of the object's mask, in every view (MT-pi)",
    "distance": "tips of thumb and index, triangulated, nearer than close_m (Point Policy)",
    "pinch": "tips of thumb and index in the picture nearer than half the palm's length, in every view",
}
PINCH_SHARE = 0.5  # of the palm's length, about 0.045 m; measured: around a cup or a handle below 0.37, open hands above 0.66
_RATE_HZ = 10.0  # of the authors' data, in which five rows are half a second
_BLINK = 3  # rows: a single row cannot be another state than both its neighbours


def evidence(masks: bool, placed_views: int) -> Evidence:
    """Returns what a hand's state will be told by; placed_views: views whose camera's lens and place are known."""
    return "mask" if masks else "distance" if placed_views >= 2 else "pinch"


@dataclass(frozen=True)
class Rule:
    """By what a hand counts as closed. close_m: distance of the tips for `distance` [m]; hz: rows a second."""

    by: Evidence = "pinch"
    close_m: float = PINCH
    hz: float = 10.0


def closed(rule: Rule, hands_px: Sequence[Array], points: Array | None, touches: Sequence[Array]) -> Array:
    """Returns (T,) bool: the hand is closed.

    hands_px: landmarks (T, 21, 2) of every view; points: (T, 21, 3) [m], NaN where unknown; touches: (T,) bool of every view.
    """
    if rule.by == "mask":
        return closed_from_contact(np.all(touches, axis=0), max(1, round(HOLD_FRAMES * rule.hz / _RATE_HZ)))
    if rule.by == "distance":
        if points is None:
            raise BadInput("gripper: want two views whose cameras' places are known, got fewer; calibrate both")
        state = closed_from_distance(points, rule.close_m)
    else:
        state = np.max([pinch_share(landmarks) for landmarks in hands_px], axis=0) < PINCH_SHARE
    steady: Array = median_filter(state.astype(np.uint8), _BLINK, mode="nearest").astype(bool)
    return steady


def pinch_share(landmarks_px: Array) -> Array:
    """Returns the distance of thumb and index tip in shares of the palm's length (T,), for landmarks (T, 21, 2).

    The palm is seen from any side, so its length is the largest of four that are alike in a hand seen from the front.
    """

    def apart(a: int, b: int) -> Array:
        way: Array = np.linalg.norm(landmarks_px[:, a] - landmarks_px[:, b], axis=-1)
        return way

    palm = np.max([apart(0, 9), apart(0, 5), apart(0, 17), 1.3 * apart(5, 17)], axis=0)
    share: Array = apart(4, 8) / np.maximum(palm, 1e-6)
    return share
