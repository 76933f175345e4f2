"""Draws motion tracks over their pictures: the hand's bones, the five points, and whether the gripper is open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np

from robolearn.apps._tracks_set import views_of
from robolearn.data.store import EpisodeSet
from robolearn.video import clips, pinhole
from robolearn.video.hands import BONES
from robolearn.video.points import LAYOUT

Array = np.ndarray
COLOURS = {  # RGB, told apart by people who do not see red and green as well (Okabe and Ito 2008)
    "base": (255, 255, 255),
    "right1": (230, 159, 0),
    "right2": (230, 159, 0),
    "left1": (86, 180, 233),
    "left2": (86, 180, 233),
}
_BONE, _DARK, _FILLED = (240, 228, 66), (25, 25, 25), (213, 94, 0)
_FINGERS = ((0, 1), (1, 3), (0, 2), (2, 4))  # of LAYOUT: base, near point, far point
_STRIP = 22  # [px] below the picture
_SHARP = 16  # parts of a pixel that a line may begin at
_BITS = 4


def frames(dataset: EpisodeSet, episode: int, height: int) -> Iterator[Array]:
    """Yields the pictures of one episode (height + strip, width, 3) uint8 RGB, views side by side, `height` px each."""
    start, stop = dataset.span(episode)
    views = views_of(dataset)
    gripper = dataset.read("gripper_open", start, stop)[:, 0]
    shown = [_View(dataset, view, (start, stop), height) for view in views]
    for row in range(stop - start):
        picture = np.concatenate([view.draw(row) for view in shown], axis=1)
        words = [f"row {row}", "closed" if gripper[row] < 0.5 else "open"]
        missing = [view.name for view in shown if not view.seen[row]]
        words += [f"filled in: {', '.join(missing)}"] if missing else []
        yield _with_strip(picture, "   ".join(words), _FILLED if missing else None)


class _View:
    """One view's pictures and points of an episode, at the size they are drawn."""

    def __init__(self, dataset: EpisodeSet, name: str, span: tuple[int, int], height: int) -> None:
        self.name = name
        self._pictures = dataset.read(f"{name}_image", *span)
        was = (self._pictures.shape[2], self._pictures.shape[1])
        self._size = (2 * round(was[0] * height / was[1] / 2), height)
        self._points = pinhole.resized_pixels(dataset.read(f"tracks/{name}", *span), was, self._size)
        hand = f"hand/{name}"
        self._hand = pinhole.resized_pixels(dataset.read(hand, *span), was, self._size) if hand in dataset.keys else None
        valid = f"valid/{name}"
        self.seen = dataset.read(valid, *span)[:, 0] > 0 if valid in dataset.keys else np.ones(span[1] - span[0], bool)

    def draw(self, row: int) -> Array:
        """Returns one picture with what is known of the hand."""
        picture = np.ascontiguousarray(clips.scaled(self._pictures[row], self._size))
        if self._hand is not None:
            _lines(picture, self._hand[row], BONES, _BONE, 1)
        _lines(picture, self._points[row], _FINGERS, _DARK, 4)
        for name, pair in zip(LAYOUT[1:], ((0, 1), (0, 2), (1, 3), (2, 4)), strict=True):
            _lines(picture, self._points[row], [pair], COLOURS[name], 2)
        for name, point in zip(LAYOUT, self._points[row], strict=True):
            _dot(picture, point, COLOURS[name], self.seen[row], name.endswith("2"))
        return picture


def _lines(picture: Array, points: Array, pairs: Sequence[tuple[int, int]], colour: tuple[int, int, int], width: int) -> None:
    for a, b in pairs:
        cv2.line(picture, _at(points[a]), _at(points[b]), colour, width, cv2.LINE_AA, _BITS)


def _dot(picture: Array, point: Array, colour: tuple[int, int, int], seen: bool, tip: bool) -> None:
    """Draws a point: filled where it was seen, a ring where it was filled in; fingertips are larger."""
    radius = (6 if tip else 4) * _SHARP
    cv2.circle(picture, _at(point), radius + _SHARP, _DARK, -1 if seen else 4, cv2.LINE_AA, _BITS)
    cv2.circle(picture, _at(point), radius, colour, -1 if seen else 2, cv2.LINE_AA, _BITS)


def _at(point: Array) -> tuple[int, int]:
    far = np.clip(point, -1e4, 1e4)  # a point may lie outside the picture, but not outside OpenCV's numbers
    return round(far[0] * _SHARP), round(far[1] * _SHARP)


def _with_strip(picture: Array, words: str, mark: tuple[int, int, int] | None) -> Array:
    strip = np.full((_STRIP, picture.shape[1], 3), 250, np.uint8)
    if mark is not None:
        strip[:, :6] = mark
    cv2.putText(strip, words, (10, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _DARK, 1, cv2.LINE_AA)
    return np.concatenate([picture, strip])


def unseen_spans(seen: Mapping[str, Array]) -> list[tuple[float, float, str]]:
    """Returns (from, to, view) in shares of an episode for every run of rows in which a view did not see the hand."""
    spans = []
    for view, rows in seen.items():
        edges = np.flatnonzero(np.diff(np.concatenate([[True], rows, [True]]).astype(int)))
        spans += [(a / len(rows), b / len(rows), f"{view}: filled in") for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return spans
