"""The tee of PushT: outline, keypoints, how much of the goal it covers, pictures. Lengths in px of the 512 px table."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np

TABLE = 512  # [px], side of the square table
BAR = ((-60.0, 30.0), (60.0, 30.0), (60.0, 0.0), (-60.0, 0.0))
STEM = ((-15.0, 30.0), (-15.0, 120.0), (15.0, 120.0), (15.0, 30.0))
OUTLINE = ((-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30))
GOAL = (256.0, 256.0, math.pi / 4)  # x, y [px], angle [rad] of the tee's frame: the middle of the bar's free edge
AGENT_RADIUS = 15.0
WALLS = ((5, 506), (5, 5)), ((5, 5), (506, 5)), ((506, 5), (506, 506)), ((5, 506), (506, 506))
WALL_RADIUS = 2.0

# Points in the tee's frame that reproduce `keypoint` of the human demonstrations, averaged over all their steps.
KEYPOINTS = np.array(
    [
        [9.26977, 90.04100],
        [-60.98345, -1.18673],
        [60.91278, -1.39331],
        [-0.27049, 25.54365],
        [-14.06496, 122.81587],
        [39.00275, 32.85745],
        [-39.96641, 32.72967],
        [-16.82435, 62.86320],
        [23.54148, -1.70025],
    ]
)
_AREA = 120.0 * 30.0 + 30.0 * 90.0
_REACH = 2 * math.hypot(60.0, 120.0)  # [px]: two tees whose frames are further apart than this do not touch


def place(points: np.ndarray, x: float, y: float, angle: float) -> np.ndarray:
    """Returns `points` (n, 2) of the tee's frame in the table's frame [px], for a tee at x, y [px], angle [rad]."""
    c, s = math.cos(angle), math.sin(angle)
    return np.asarray(points, dtype=float) @ np.array([[c, s], [-s, c]]) + (x, y)


def coverage(x: float, y: float, angle: float) -> float:
    """Returns the share in [0, 1] of the goal's area that a tee at x, y [px], angle [rad] covers; exact up to rounding."""
    dx, dy = x - GOAL[0], y - GOAL[1]
    if dx * dx + dy * dy > _REACH * _REACH:
        return 0.0
    c, s = math.cos(GOAL[2]), math.sin(GOAL[2])
    u, v = c * dx + s * dy, -s * dx + c * dy
    c, s = math.cos(angle - GOAL[2]), math.sin(angle - GOAL[2])
    area = 0.0
    for part in (BAR, STEM):
        corners = [(u + c * px - s * py, v + s * px + c * py) for px, py in part]
        area += _area_within(corners, -60.0, 60.0, 0.0, 30.0) + _area_within(corners, -15.0, 15.0, 30.0, 120.0)
    return min(1.0, area / _AREA)


def _area_within(corners: list[tuple[float, float]], left: float, right: float, low: float, high: float) -> float:
    """Returns the area of a convex polygon inside an upright rectangle (Sutherland and Hodgman, 1974)."""
    xs, ys = [p[0] for p in corners], [p[1] for p in corners]
    if max(xs) <= left or min(xs) >= right or max(ys) <= low or min(ys) >= high:
        return 0.0
    for axis, bound, sign in ((0, left, 1.0), (0, right, -1.0), (1, low, 1.0), (1, high, -1.0)):
        kept: list[tuple[float, float]] = []
        for a, b in zip(corners, corners[1:] + corners[:1], strict=True):
            inside_a, inside_b = sign * (a[axis] - bound), sign * (b[axis] - bound)
            if inside_a >= 0.0:
                kept.append(a)
            if (inside_a > 0.0 > inside_b) or (inside_a < 0.0 < inside_b):
                t = inside_a / (inside_a - inside_b)
                kept.append((a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])))
        if len(kept) < 3:
            return 0.0
        corners = kept
    twice = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(corners, corners[1:] + corners[:1], strict=True))
    return abs(twice) / 2.0


def draw_observation(agent: np.ndarray, block: np.ndarray, size: int) -> np.ndarray:
    """Returns the picture (size, size, 3) uint8 RGB that a policy sees: the colours and edges of the recorded demonstrations.

    agent: x, y [px]; block: x, y [px], angle [rad].
    """
    image = _backdrop().copy()
    for part in (BAR, STEM):
        corners = np.rint(place(np.array(part), *block)).astype(np.int32)
        cv2.fillConvexPoly(image, corners, (143, 163, 184))
        cv2.polylines(image, [corners], True, (119, 136, 153), 3)
    middle = (round(float(agent[0])), round(float(agent[1])))
    cv2.circle(image, middle, round(AGENT_RADIUS), (65, 105, 225), -1)
    cv2.circle(image, middle, round(AGENT_RADIUS) - 4, (78, 126, 255), -1)
    return cv2.resize(image, (size, size))


@lru_cache(maxsize=1)
def _backdrop() -> np.ndarray:
    image = np.full((TABLE, TABLE, 3), 255, np.uint8)
    for part in (BAR, STEM):
        cv2.fillConvexPoly(image, np.rint(place(np.array(part), *GOAL)).astype(np.int32), (144, 238, 144))
    for a, b in WALLS:
        cv2.line(image, a, b, (211, 211, 211), 4)
    return image


def draw_picture(agent: np.ndarray, block: np.ndarray, target: np.ndarray | None, covered: float) -> np.ndarray:
    """Returns the picture (512, 512, 3) uint8 RGB for people: goal, tee, finger, where it is told to go, and the coverage.

    agent, target: x, y [px]; block: x, y [px], angle [rad].
    """
    image: np.ndarray = np.full((2 * TABLE, 2 * TABLE, 3), (250, 249, 246), np.uint8)  # twice the size: smooth edges
    outline = np.array(OUTLINE, dtype=float)
    goal, tee = place(outline, *GOAL), place(outline, *block)
    _fill(image, goal, (214, 238, 219))
    cv2.polylines(image, [_fixed(goal)], True, (120, 190, 140), 4, cv2.LINE_AA, 4)
    _fill(image, tee + (3, 5), (226, 224, 219))
    _fill(image, tee, (94, 116, 141))
    cv2.polylines(image, [_fixed(tee)], True, (63, 80, 102), 5, cv2.LINE_AA, 4)
    cv2.polylines(image, [_fixed(goal)], True, (120, 190, 140), 2, cv2.LINE_AA, 4)
    cv2.rectangle(image, (10, 10), (2 * 506, 2 * 506), (200, 197, 190), 8, cv2.LINE_AA)
    if target is not None:
        line = _fixed(np.stack([agent, target]))
        cv2.line(image, tuple(line[0]), tuple(line[1]), (236, 170, 120), 4, cv2.LINE_AA, 4)
        cv2.circle(image, tuple(line[1]), 7 * 32, (226, 110, 60), 4, cv2.LINE_AA, 4)
    middle = tuple(_fixed(np.asarray(agent)[None])[0])
    cv2.circle(image, middle, round(AGENT_RADIUS * 32), (226, 110, 60), -1, cv2.LINE_AA, 4)
    cv2.circle(image, middle, round((AGENT_RADIUS - 4) * 32), (244, 148, 98), -1, cv2.LINE_AA, 4)
    image = cv2.resize(image, (TABLE, TABLE), interpolation=cv2.INTER_AREA)
    colour = (66, 150, 90) if covered > 0.95 else (120, 118, 112)
    cv2.rectangle(image, (20, 488), (20 + round(120 * covered), 493), colour, -1)
    cv2.rectangle(image, (20, 488), (140, 493), (200, 197, 190), 1)
    cv2.putText(image, f"{100 * covered:.0f} % covered", (150, 495), cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
    return image


def _fixed(points: np.ndarray) -> np.ndarray:
    """Returns table points [px] as OpenCV's fixed-point numbers (4 fractional bits) of the double-size picture."""
    return np.rint(np.asarray(points) * 32).astype(np.int32)


def _fill(image: np.ndarray, points: np.ndarray, colour: tuple[int, int, int]) -> None:
    cv2.fillPoly(image, [_fixed(points)], colour, cv2.LINE_AA, 4)
