"""The turned square around a hand that the landmark network looks at: from a palm, from the hand's last points, and cut out.

Source: Zhang et al., "MediaPipe Hands" (arXiv 2006.10214), section 2: the palm detector starts a square, after that the points
of one picture give the square of the next. The numbers are those of the published graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from robolearn.video.detectors._palm import overlap

SIDE = 224  # [px] of the picture that the landmark network sees
_PALM_SCALE, _PALM_SHIFT = 2.6, -0.5  # a palm's square is so much larger, and moved so far towards the fingers
_HAND_SCALE, _HAND_SHIFT = 2.0, -0.1
_STEADY = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)  # without fingertips, which come and go
_WRIST, _INDEX, _MIDDLE, _RING = 0, 5, 9, 13  # the knuckles
_SAME_HAND = 0.5  # overlap above which two squares are of one hand


@dataclass(frozen=True)
class Roi:
    """A square in a picture: centre (2,) [px], side [px], angle [rad] from the picture's up to the hand's, clockwise."""

    centre: np.ndarray
    side: float
    angle: float

    @property
    def box(self) -> np.ndarray:
        """Returns left, top, right, bottom [px] of the square before it is turned."""
        return np.concatenate([self.centre - self.side / 2, self.centre + self.side / 2])


def whole(size: tuple[int, int]) -> Roi:
    """Returns the square around a whole picture of (width, height) [px]."""
    return Roi(np.array(size) / 2, float(max(size)), 0.0)


def of_palm(palm: np.ndarray, picture: Roi) -> Roi:
    """Returns the square of a hand from its palm (18,), which is in shares of the square `picture`."""
    points = (palm.reshape(-1, 2) - 0.5) * picture.side + picture.centre  # two corners, then wrist, knuckles, ...
    low, high = points[0], points[1]
    angle = _upright(points[2], points[4])
    return _grown((low + high) / 2, high - low, angle, _PALM_SCALE, _PALM_SHIFT)


def of_hand(landmarks_px: np.ndarray) -> Roi:
    """Returns the square of a hand from its points (21, 2)."""
    ends = (landmarks_px[_INDEX] + landmarks_px[_RING]) / 2
    angle = _upright(landmarks_px[_WRIST], (ends + landmarks_px[_MIDDLE]) / 2)
    points = landmarks_px[list(_STEADY)]
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    along = (points - middle) @ _turn(angle)  # the hand's own axes
    low, high = along.min(axis=0), along.max(axis=0)
    return _grown(_turn(angle) @ ((low + high) / 2) + middle, high - low, angle, _HAND_SCALE, _HAND_SHIFT)


def cut(picture: np.ndarray, roi: Roi, side: int, border: int) -> np.ndarray:
    """Returns the square `roi` of a uint8 picture, upright, as float32 (side, side, 3) in [0, 1]; border: OpenCV's, outside."""
    scale = roi.side / side
    crop_to_picture = np.empty((2, 3))
    crop_to_picture[:, :2] = _turn(roi.angle) * scale
    crop_to_picture[:, 2] = roi.centre - crop_to_picture[:, :2] @ (np.ones(2) * side / 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(picture, crop_to_picture, (side, side), flags=flags, borderMode=border)
    return crop.astype(np.float32) / 255.0


def placed(points: np.ndarray, roi: Roi) -> np.ndarray:
    """Returns points (n, 2), in shares of the upright square `roi`, as pixels of the picture."""
    pixels: np.ndarray = ((points - 0.5) * roi.side) @ _turn(roi.angle).T + roi.centre
    return pixels


def turned(world: np.ndarray, roi: Roi) -> np.ndarray:
    """Returns points (n, 3), seen upright in `roi`, as they lie in the picture: turned around the line of sight."""
    seen = world.copy()
    seen[:, :2] = world[:, :2] @ _turn(roi.angle).T
    return seen


def one_each(rois: Sequence[Roi]) -> list[Roi]:
    """Returns the squares without those that a later one overlaps: of a hand's two squares the later stays."""
    kept: list[Roi] = []
    for roi in rois:
        boxes = np.array([other.box for other in kept]).reshape(-1, 4)
        same = overlap(boxes, roi.box) > _SAME_HAND
        kept = [other for other, double in zip(kept, same, strict=True) if not double] + [roi]
    return kept


def _upright(start: np.ndarray, end: np.ndarray) -> float:
    """Returns the angle (-pi, pi] by which the direction from `start` to `end` is turned from straight up, clockwise."""
    right, down = end - start
    return float(np.arctan2(right, -down))


def _grown(centre: np.ndarray, extent: np.ndarray, angle: float, scale: float, shift: float) -> Roi:
    """Returns the square over the longer side of a box, moved by `shift` of its height along the hand and `scale` as large."""
    moved = centre + _turn(angle) @ np.array([0.0, shift * extent[1]])
    return Roi(moved, scale * float(extent.max()), angle)


def _turn(angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])
