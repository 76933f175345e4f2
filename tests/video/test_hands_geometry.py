"""Anchors, boxes and squares of the hand detector: what the published graph has, and that turning a hand turns its square."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from robolearn.video import _wrist_table
from robolearn.video.detectors import _palm, _roi
from robolearn.video.detectors._roi import Roi

HAND = _wrist_table.HAND[:, :2][:, ::-1] * 1000 + 300  # some flat hand [px]
angles = st.floats(-3.1, 3.1)


def turn(angle: float) -> np.ndarray:
    """Returns the 2x2 rotation that is clockwise in a picture."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def test_there_is_an_anchor_for_each_of_the_networks_2016_boxes() -> None:
    anchors = _palm.anchors()
    assert anchors.shape == (2016, 2) and (anchors > 0).all() and (anchors < 1).all()
    assert np.allclose(anchors[0], anchors[1]) and np.allclose(anchors[0], 0.5 / 24)
    assert np.allclose(anchors[1152], 0.5 / 12) and np.allclose(anchors[1152:1158], anchors[1152])
    assert np.allclose(anchors[2], (1.5 / 24, 0.5 / 24)), "row by row"


def test_boxes_of_one_palm_are_averaged_by_their_scores_and_another_palm_stays() -> None:
    values, logits = np.zeros((2016, 18)), np.full(2016, -50.0)
    values[:, 2:4] = 48.0
    for index, logit in ((600, 2.0), (602, 0.0), (40, 1.0)):  # two neighbours and one far away
        logits[index] = logit
    found, scores = _palm.palms(values, logits, 0.5)
    sure = 1 / (1 + np.exp(-np.array([2.0, 0.0, 1.0])))
    assert np.allclose(scores, [sure[0], sure[2]])
    middle = np.average(_palm.anchors()[[600, 602]], axis=0, weights=sure[:2])
    assert np.allclose((found[0, :2] + found[0, 2:4]) / 2, middle) and np.allclose(found[0, 4:6], middle)
    assert np.allclose(found[1, 2:4] - found[1, :2], 0.25)


def test_where_nothing_is_sure_there_is_no_palm() -> None:
    found, scores = _palm.palms(np.zeros((2016, 18)), np.full(2016, -200.0), 0.5)
    assert found.shape == (0, 18) and len(scores) == 0


@given(angles, st.floats(0.3, 3.0), st.floats(-500, 500))
def test_a_hand_that_is_turned_moved_and_scaled_has_its_square_turned_moved_and_scaled(
    angle: float, scale: float, shift: float
) -> None:
    before = _roi.of_hand(HAND)
    after = _roi.of_hand(scale * HAND @ turn(angle).T + shift)
    assert np.allclose(after.centre, scale * turn(angle) @ before.centre + shift, atol=1e-6)
    assert np.isclose(after.side, scale * before.side)
    assert np.isclose(np.cos(after.angle - before.angle - angle), 1.0)


def test_an_upright_hand_has_an_upright_square_around_all_its_points() -> None:
    up = np.stack([HAND[:, 0], HAND[:, 1]], axis=-1)
    roi = _roi.of_hand(up)
    upright = _roi.of_hand((up - roi.centre) @ turn(roi.angle) + roi.centre)
    assert abs(upright.angle) < 1e-9
    inside = np.abs((up - roi.centre) @ turn(roi.angle)) < roi.side / 2
    assert inside.all()


@given(angles, st.floats(40, 150), st.integers(90, 150), st.integers(70, 120))
def test_a_point_of_the_picture_is_found_in_the_cut_square_and_placed_back(angle: float, side: float, u: int, v: int) -> None:
    picture = np.zeros((200, 240, 3), np.uint8)
    cv2.circle(picture, (u, v), 3, (255, 255, 255), -1)
    roi = Roi(np.array([u + 0.2 * side, v - 0.15 * side]), side, angle)
    shown = _roi.cut(picture, roi, _roi.SIDE, cv2.BORDER_CONSTANT)[..., 0]
    assert shown.shape == (224, 224) and shown.max() <= 1.0
    rows, columns = np.nonzero(shown > 0.5)
    seen = np.array([[columns.mean(), rows.mean()]]) / _roi.SIDE
    assert np.abs(_roi.placed(seen, roi)[0] - (u, v)).max() < 0.6


def test_of_two_squares_of_one_hand_the_later_stays() -> None:
    old, same, other = Roi(np.array([50.0, 50.0]), 40, 0), Roi(np.array([52.0, 50.0]), 42, 1), Roi(np.array([150.0, 50.0]), 40, 0)
    assert _roi.one_each([old, other, same]) == [other, same]
    assert _roi.one_each([]) == []
