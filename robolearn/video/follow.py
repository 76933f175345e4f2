"""Points followed through a video by pyramidal Lucas-Kanade, kept while the way back ends where it began.

Good for objects, poor on skin, blur and behind occluders: which points live on is part of the answer.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

Array = np.ndarray

_WINDOW = (21, 21)  # [px]
_LEVELS = 3  # of the pyramid above the picture
_SETTLED = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-3)


def follow_points(frames: Iterable[Array], points: Array, back_px: float = 1.0) -> tuple[Array, Array]:
    """Returns tracks (T, n, 2) [px] and alive (T, n) bool of `points` (n, 2) [px] of the first frame.

    frames: T pictures uint8 (H, W, 3) RGB or (H, W). A point dies where it is lost, leaves the picture, or the way back misses
    it by more than `back_px`; it stays dead, and its track stays where it was last seen.
    """
    here = np.asarray(points, dtype=np.float32).reshape(-1, 2)
    tracks, alive = [], []
    before: Array | None = None
    living = np.ones(len(here), dtype=bool)
    for frame in frames:
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) if frame.ndim == 3 else frame
        if before is not None and living.any():
            there, found = _step(before, grey, here[living], back_px)
            here, living = here.copy(), living.copy()
            was = np.flatnonzero(living)
            here[was[found]] = there[found]
            living[was[~found]] = False
        tracks.append(here.astype(float))
        alive.append(living)
        before = grey
    shape = (len(tracks), len(here))
    return np.array(tracks).reshape(*shape, 2), np.array(alive, dtype=bool).reshape(shape)


def _step(before: Array, after: Array, points: Array, back_px: float) -> tuple[Array, Array]:
    """Returns where `points` (n, 2) of the picture `before` are in `after`, and which were found (n,) bool."""
    there, ok, _ = _flow(before, after, points)
    back, ok_back, _ = _flow(after, before, there)
    height, width = after.shape[:2]
    inside = ((there >= 0) & (there <= (width - 1, height - 1))).all(-1)
    returned = np.linalg.norm(back - points, axis=-1) <= back_px
    return there, ok.astype(bool)[:, 0] & ok_back.astype(bool)[:, 0] & inside & returned


def _flow(before: Array, after: Array, points: Array) -> tuple[Array, Array, Array]:
    """Returns OpenCV's answer: pixels (n, 2), status (n, 1), error (n, 1)."""
    start = np.ascontiguousarray(points, dtype=np.float32)
    there, ok, error = cv2.calcOpticalFlowPyrLK(
        before, after, start, start.copy(), winSize=_WINDOW, maxLevel=_LEVELS, criteria=_SETTLED
    )
    return np.asarray(there), np.asarray(ok), np.asarray(error)
