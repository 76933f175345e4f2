"""When a hand holds something: five frames of thumb and finger at the object, or a pinch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn.video.grasp import closed_from_contact, closed_from_distance, contact_from_mask

MASK = np.zeros((480, 640), np.uint8)
MASK[200:280, 300:340] = 255
FAR, AT_LEFT, AT_RIGHT = (20.0, 20.0), (290.0, 240.0), (350.0, 240.0)  # 10 and 11 px from the object


def hand(thumb: bool, finger: bool) -> np.ndarray:
    landmarks = np.tile(FAR, (21, 1))
    if thumb:
        landmarks[4] = AT_LEFT
    if finger:
        landmarks[12] = AT_RIGHT
    return landmarks


def filmed(contact: str) -> np.ndarray:
    """Returns landmarks (T, 21, 2); B = thumb and finger at the object, T = thumb only, F = finger only, . = neither."""
    return np.stack([hand(frame in "BT", frame in "BF") for frame in contact])


def closed(contact: str) -> str:
    found = closed_from_contact(contact_from_mask(filmed(contact), [MASK] * len(contact)))
    return "".join("x" if frame else "." for frame in found)


@pytest.mark.parametrize(
    ("contact", "expected"),
    [
        ("........BBBBB.....", ".......xxxxxx....."),  # closes on the 5th, and 5 frames before it too
        ("........BBBB......", ".................."),  # four frames are a blip
        ("........BBBB.BBBB.", ".................."),
        ("....TTTTTTTTTTTTTT", ".................."),  # the thumb alone
        ("....FFFFFFFFFFFFFF", ".................."),  # the fingers alone
        ("BBBBBBB", "xxxxxxx"),  # held from the first frame
        (".......BBBBBBBB...", "......xxxxxxxxx..."),
    ],
)
def test_the_gripper_closes_after_five_frames_of_thumb_and_finger(contact: str, expected: str) -> None:
    """T8 of the specification."""
    assert closed(contact) == expected


@settings(max_examples=30)
@given(st.lists(st.booleans(), max_size=40))
def test_every_closed_stretch_has_five_frames_in_contact(contact: list[bool]) -> None:
    found = closed_from_contact(np.array(contact, dtype=bool))
    text = "".join("B" if touch else "." for touch in contact)
    assert found.any() == ("BBBBB" in text)
    for t in np.flatnonzero(found):
        assert "BBBBB" in text[max(t - 5, 0) : t + 6]


def test_near_is_fifteen_pixels_of_a_picture_640_wide() -> None:
    landmarks = hand(True, True)
    landmarks[4, 0] = 300 - 15
    assert contact_from_mask(landmarks[None], [MASK])[0]
    landmarks[4, 0] = 300 - 16
    assert not contact_from_mask(landmarks[None], [MASK])[0]
    small = MASK[::4, ::4]
    assert not contact_from_mask((landmarks[None] + 0.5) / 4 - 0.5, [small])[0], "15 px there are 4 here"


def test_a_hand_partly_outside_is_clamped_and_a_lost_hand_or_object_touches_nothing() -> None:
    edge = np.zeros((480, 640), bool)
    edge[:, :5] = True
    landmarks = hand(False, True)
    landmarks[4], landmarks[12] = (-30.0, 100.0), (-5.0, 500.0)
    assert contact_from_mask(landmarks[None], [edge])[0]
    assert not contact_from_mask(landmarks[None], [np.zeros_like(edge)])[0]
    assert not contact_from_mask(np.full((1, 21, 2), np.nan), [edge])[0]


def test_a_pinch_below_seven_centimetres_is_closed_and_a_gap_keeps_the_state() -> None:
    apart = [np.nan, 0.10, 0.071, 0.069, np.nan, 0.02, 0.09, np.nan]
    landmarks = np.zeros((8, 21, 3))
    landmarks[:, 8, 1] = apart
    assert closed_from_distance(landmarks).tolist() == [False, False, False, True, True, True, False, False]
    assert not closed_from_distance(np.full((3, 21, 3), np.nan)).any()
