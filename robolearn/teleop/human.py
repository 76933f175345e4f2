"""A person's arm as SEW retargeting reads it: shoulder, elbow, wrist and hand in the torso frame, checked, held and calmed.

    limb = landmarks.limb(points, "right")          # torso frame: x forward, y left, z up [m]
    limb, why = Tracker().step(t_s, limb)           # filtered; the last one, and why, where the input is bad
    solve(arm, base_from_torso @ limb.upper, base_from_torso @ limb.lower, base_from_torso @ limb.hand)

The hand frame is geometry.hand_frame: x where the fingers point, z to the thumb's side. (SEW-Mimic, arXiv 2602.01632.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from robolearn.errors import BadInput
from robolearn.teleop.one_euro import OneEuro, RotationOneEuro, Tuning

Array = np.ndarray
MIRROR = np.diag([1.0, -1.0, 1.0])
SHORTEST_M = 0.01
"""A limb shorter than this [m] has no direction."""
SEEN = 0.5
"""Confidence above which a limb is believed."""
_ROTATION_ERROR = 1e-3


@dataclass(frozen=True)
class Limb:
    """One arm in the torso frame: shoulder, elbow, wrist (3,) [m], hand rotation (3, 3), confidence 0 .. 1."""

    shoulder: Array
    elbow: Array
    wrist: Array
    hand: Array
    confidence: float = 1.0

    @property
    def upper(self) -> Array:
        """The unit direction (3,) from shoulder to elbow."""
        return _direction(self.shoulder, self.elbow)

    @property
    def lower(self) -> Array:
        """The unit direction (3,) from elbow to wrist."""
        return _direction(self.elbow, self.wrist)

    @property
    def keypoints(self) -> Array:
        """Shoulder, elbow, wrist (3, 3) [m], as in `TeleopSample.keypoints`."""
        return np.stack([self.shoulder, self.elbow, self.wrist])


def _direction(start: Array, end: Array) -> Array:
    along = np.asarray(end, dtype=float) - start
    return along / np.linalg.norm(along)


def nearest_rotation(matrix: Array) -> Array:
    """Returns the rotation (3, 3), determinant +1, nearest to `matrix` in the Frobenius norm (SVD)."""
    left, _, right = np.linalg.svd(np.asarray(matrix, dtype=float))
    return left @ np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))]) @ right


def fault(limb: Limb) -> str:
    """Returns what is wrong with a limb in a few words, "" where it can be used."""
    if not (np.isfinite(limb.keypoints).all() and np.isfinite(limb.hand).all()):
        return "keypoints or hand are not finite"
    lengths = np.linalg.norm(np.diff(limb.keypoints, axis=0), axis=1)
    if lengths.min() < SHORTEST_M:
        return f"a limb is {lengths.min() * 1000:.1f} mm short, want at least {SHORTEST_M * 1000:g} mm"
    if np.linalg.det(limb.hand) <= 0:
        return "the hand's rotation has determinant -1 or 0, want +1"
    if not limb.confidence > SEEN:
        return f"confidence is {limb.confidence:.2f}, want above {SEEN:g}"
    return ""


def repaired(limb: Limb) -> Limb:
    """Returns the limb with its hand projected on the rotations, where it is not within 1e-3 of one."""
    if np.abs(limb.hand @ limb.hand.T - np.eye(3)).max() <= _ROTATION_ERROR:
        return limb
    return replace(limb, hand=nearest_rotation(limb.hand))


def mirrored(limb: Limb) -> Limb:
    """Returns the other side's limb: v' = M v, H' = M H M, M = diag(1, -1, 1)."""
    shoulder, elbow, wrist = limb.keypoints @ MIRROR
    return replace(limb, shoulder=shoulder, elbow=elbow, wrist=wrist, hand=MIRROR @ limb.hand @ MIRROR)


def level(hand: Array, heading: float = 0.0) -> Array:
    """Returns the level hand (3, 3) with the same heading: x horizontal, z up; `heading` [rad] where x is nearly vertical."""
    x = hand[:2, 0]
    if np.linalg.norm(x) > 0.05:
        heading = float(np.arctan2(x[1], x[0]))
    cos, sin = np.cos(heading), np.sin(heading)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


class Tracker:
    """Calms one arm's stream. Bad input changes nothing: the last limb is given again, with the reason.

    `keep_level` ignores all of the hand's rotation but its heading: for cameras, whose fingers are noisy.
    """

    def __init__(self, tuning: Tuning = Tuning(), keep_level: bool = False) -> None:
        self._points, self._hand, self._level = OneEuro(tuning), RotationOneEuro(tuning), keep_level
        self._last: Limb | None = None
        self._heading = 0.0

    def reset(self) -> None:
        """Forgets the past: the next good limb passes unchanged."""
        self._points.reset()
        self._hand.reset()
        self._last, self._heading = None, 0.0

    def step(self, t_s: float, limb: Limb | None) -> tuple[Limb, str]:
        """Returns the limb to follow at time `t_s` [s] and why it is an old one ("" if new); BadInput before a first."""
        why = "no limb was seen" if limb is None else fault(limb)
        if limb is None or why:
            if self._last is None:
                raise BadInput(f"human arm: want a good first limb to start from; {why}")
            return self._last, why
        limb = repaired(limb)
        hand = limb.hand
        if self._level:
            hand = level(hand, self._heading)
            self._heading = float(np.arctan2(hand[1, 0], hand[0, 0]))
        shoulder, elbow, wrist = self._points.step(t_s, limb.keypoints)
        calmed = replace(limb, shoulder=shoulder, elbow=elbow, wrist=wrist, hand=self._hand.step(t_s, hand))
        why = fault(calmed)  # a filtered limb may fold through zero length
        if why and self._last is not None:
            return self._last, why
        self._last = calmed
        return calmed, ""
