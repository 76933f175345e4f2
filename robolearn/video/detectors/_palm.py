"""Where palms are: the anchors of the palm network, its outputs as boxes with seven points, and one box a palm.

Source: the palm detector of Zhang et al., "MediaPipe Hands" (arXiv 2006.10214), an SSD (Liu et al. 2016) with square anchors
of one size; the boxes of one palm are averaged by their scores (BlazeFace, Bazarevsky et al. 2019, section 4).
"""

from __future__ import annotations

from functools import cache

import numpy as np

SIDE = 192  # [px] of the picture that the network sees
N_VALUES = 18  # centre x, y, width, height and seven points x, y, all [px] of that picture
_GRIDS = ((8, 2), (16, 6))  # stride [px] and anchors a cell; the three layers of stride 16 have two each
_SAME_PALM = 0.3  # overlap above which two boxes are of one palm
_SCORE_LIMIT = 100.0  # keeps exp() from overflowing


@cache
def anchors() -> np.ndarray:
    """Returns the centres (2016, 2) of the anchors in shares of the picture's side."""
    rows = []
    for stride, each in _GRIDS:
        centres = (np.arange(SIDE // stride) + 0.5) * stride / SIDE
        y, x = np.meshgrid(centres, centres, indexing="ij")
        rows.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=-1), each, axis=0))
    return np.concatenate(rows)


def palms(values: np.ndarray, logits: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns palms (palm, 18) in shares of the picture's side and their scores (palm,), the surest first.

    values: (2016, 18) and logits: (2016,) as the network gives them. A palm: left, top, right, bottom and seven points x, y.
    """
    scores = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -_SCORE_LIMIT, _SCORE_LIMIT)))
    sure = np.flatnonzero(scores >= confidence)
    found, scores = values[sure].astype(np.float64) / SIDE, scores[sure]
    centres, half = found[:, :2] + anchors()[sure], found[:, 2:4] / 2
    points = found[:, 4:].reshape(-1, 7, 2) + anchors()[sure, None]
    boxes = np.concatenate([centres - half, centres + half, points.reshape(len(found), N_VALUES - 4)], axis=1)
    return _one_each(boxes, scores)


def _one_each(boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean by score of all boxes that overlap the surest, then of the rest, and so on; the score is the surest's."""
    left = np.argsort(-scores, kind="stable")
    merged, kept = [], []
    while len(left):
        near = overlap(boxes[left], boxes[left[0]]) > _SAME_PALM
        near[0] = True
        group = left[near]
        merged.append(np.average(boxes[group], axis=0, weights=scores[group]))
        kept.append(scores[left[0]])
        left = left[~near]
    return np.array(merged).reshape(-1, N_VALUES), np.array(kept)


def overlap(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Returns the intersection over union (n,) of boxes (n, 4 or more: left, top, right, bottom) with one box."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:4], box[2:4])
    common = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = np.prod(boxes[:, 2:4] - boxes[:, :2], axis=-1) + np.prod(box[2:4] - box[:2])
    share: np.ndarray = common / np.maximum(areas - common, 1e-12)
    return share
