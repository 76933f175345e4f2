"""The person's side: checks, repairs, mirror, level hand, and holding on bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolearn import geometry
from robolearn.errors import BadInput
from robolearn.teleop import human
from robolearn.teleop.human import Limb, Tracker

ROTVEC = st.lists(st.floats(-3.0, 3.0), min_size=3, max_size=3)


def limb(**changes) -> Limb:
    whole = Limb(np.array([0.0, -0.2, 0.0]), np.array([0.0, -0.25, -0.3]), np.array([0.25, -0.25, -0.3]), np.eye(3))
    return replace(whole, **changes)


FAULTS = {
    "finite": limb(elbow=np.array([np.nan, 0.0, 0.0])),
    "short": limb(wrist=np.array([0.0, -0.25, -0.305])),
    "determinant": limb(hand=np.diag([1.0, 1.0, -1.0])),
    "confidence is 0.50": limb(confidence=0.5),
    "confidence is nan": limb(confidence=float("nan")),
    "no limb": None,
}


@pytest.mark.parametrize("what", FAULTS)
def test_bad_input_gives_the_last_limb_and_says_why(what):
    tracker = Tracker()
    good, why = tracker.step(0.0, limb())
    assert why == ""
    held, why = tracker.step(0.1, FAULTS[what])
    assert held is good
    assert what in why
    assert tracker.step(0.2, limb())[1] == ""


@pytest.mark.parametrize("what", FAULTS)
def test_without_a_good_first_limb_there_is_nothing_to_hold(what):
    with pytest.raises(BadInput, match=what):
        Tracker().step(0.0, FAULTS[what])


@given(ROTVEC)
def test_mirroring_twice_changes_nothing_and_keeps_rotations(turn):
    one = limb(hand=geometry.matrix_from_rotvec(turn))
    other = human.mirrored(one)
    assert np.linalg.det(other.hand) == pytest.approx(1.0, abs=1e-12)
    assert np.allclose(human.mirrored(other).hand, one.hand, atol=1e-15)
    assert np.array_equal(human.mirrored(other).keypoints, one.keypoints)
    assert np.allclose(other.upper, human.MIRROR @ one.upper, atol=1e-15)


@given(ROTVEC, st.floats(0.9, 1.1))
def test_a_hand_that_is_nearly_a_rotation_is_projected(turn, scale):
    rotation = geometry.matrix_from_rotvec(turn)
    assert np.allclose(human.repaired(limb(hand=scale * rotation)).hand, rotation, atol=1.1e-3)
    assert np.linalg.det(human.nearest_rotation(rotation @ np.diag([1.0, 1.0, -0.5]))) == pytest.approx(1.0)


@given(ROTVEC)
def test_a_level_hand_is_level_and_keeps_its_heading(turn):
    hand = geometry.matrix_from_rotvec(turn)
    flat = human.level(hand, heading=0.4)
    assert np.allclose(flat @ flat.T, np.eye(3), atol=1e-12)
    assert np.allclose(flat[:, 2], [0.0, 0.0, 1.0])
    if np.linalg.norm(hand[:2, 0]) > 0.05:
        assert np.cross(flat[:2, 0], hand[:2, 0]) == pytest.approx(0.0, abs=1e-12)
    else:
        assert np.allclose(flat, geometry.rotation_z(0.4))


def test_a_level_hand_that_points_up_keeps_the_heading_it_had():
    tracker = Tracker(keep_level=True)
    first, _ = tracker.step(0.0, limb(hand=geometry.rotation_z(0.7)))
    up = geometry.rotation_z(0.7) @ geometry.matrix_from_rotvec([0.0, -np.pi / 2, 0.0])
    second, _ = tracker.step(0.1, limb(hand=up))
    assert np.allclose(first.hand, geometry.rotation_z(0.7), atol=1e-12)
    assert np.allclose(second.hand, first.hand, atol=1e-9)


def test_a_stream_is_filtered_and_repeated_times_are_harmless():
    tracker = Tracker()
    tracker.step(0.0, limb())
    moved = limb(wrist=np.array([0.25, -0.15, -0.3]))
    out, why = tracker.step(1 / 60, moved)
    assert why == ""
    assert -0.25 < out.wrist[1] < -0.15
    again, _ = tracker.step(1 / 60, moved)
    assert np.array_equal(again.keypoints, out.keypoints)
    tracker.reset()
    assert np.array_equal(tracker.step(0.0, moved)[0].keypoints, moved.keypoints)
