"""Whether the hand holds something: from an object's mask, or from the gap between thumb and index in space."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

Array = np.ndarray

THUMB = (3, 4)  # landmarks of which one must be near the object
TIPS = (8, 12, 16, 20)  # and one of these
NEAR_PX = 15.0  # in a picture 640 px wide
HOLD_FRAMES = 5
PINCH = 0.07  # [m] between the tips of thumb and index (Point Policy, arXiv 2502.20391)


def contact_from_mask(landmarks_px: Array, masks: Iterable[Array], near_px: float = NEAR_PX) -> Array:
    """Returns (T,) bool: thumb and one more finger of landmarks_px (T, 21, 2) within `near_px` of the object.

    masks: T masks (H, W), non-zero on the object, of the same picture; `near_px` is of a picture 640 px wide and scales with it.
    """
    pairs = zip(np.asarray(landmarks_px, dtype=float), masks, strict=True)
    return np.array([_touches(landmarks, np.asarray(mask) != 0, near_px) for landmarks, mask in pairs], dtype=bool)


def _touches(landmarks_px: Array, mask: Array, near_px: float) -> bool:
    """Returns whether one frame's landmarks (21, 2) touch the object of `mask` (H, W) bool."""
    if not mask.any() or not np.isfinite(landmarks_px).all():
        return False
    away_px = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    height, width = mask.shape
    u = np.clip(np.rint(landmarks_px[:, 0]), 0, width - 1).astype(int)
    v = np.clip(np.rint(landmarks_px[:, 1]), 0, height - 1).astype(int)
    near = away_px[v, u] <= near_px * width / 640
    return bool(near[list(THUMB)].any() and near[list(TIPS)].any())


def closed_from_contact(contact: Array, frames: int = HOLD_FRAMES) -> Array:
    """Returns (T,) bool: closed once `frames` frames in a row touch, and then also the `frames` frames before that one."""
    contact = np.asarray(contact, dtype=bool)
    closed = np.zeros(len(contact), dtype=bool)
    run = 0
    for t, touching in enumerate(contact):
        run = run + 1 if touching else 0
        if run >= frames:
            closed[max(t - frames, 0) : t + 1] = True
    return closed


def closed_from_distance(landmarks: Array, pinch: float = PINCH) -> Array:
    """Returns (T,) bool: the tips of thumb and index of landmarks (T, 21, 3) [m] are less than `pinch` [m] apart.

    A frame whose tips are not finite keeps the state of the last one known, or of the first one known.
    """
    landmarks = np.asarray(landmarks, dtype=float)
    apart = np.linalg.norm(landmarks[:, 4] - landmarks[:, 8], axis=-1)
    known = np.flatnonzero(np.isfinite(apart))
    if not len(known):
        return np.zeros(len(apart), dtype=bool)
    last = np.searchsorted(known, np.arange(len(apart)), side="right") - 1
    return apart[known[np.maximum(last, 0)]] < pinch
