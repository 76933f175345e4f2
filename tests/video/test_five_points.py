"""The five points that a gripper and a hand share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from robolearn import geometry as g
from robolearn.video import points as p

landmarks = arrays(float, (21, 2), elements=st.floats(0, 639, allow_subnormal=False))
DOWN = g.pose([0.4, 0.1, 0.5], np.diag([1.0, -1.0, -1.0]))


@settings(max_examples=30)
@given(landmarks, st.sampled_from(["index", "wrist"]))
def test_a_right_hand_and_its_mirror_image_give_the_same_points(right: np.ndarray, base: str) -> None:
    """T1 of the specification: mirroring changes the hand, exchanges thumb and index, and so their sides in the picture."""
    left = p.mirrored(right, 640)
    direct = p.five_of_hand(right, True, base)
    through = p.mirrored(p.five_of_hand(left, False, base), 640)
    swapped = [p.LAYOUT.index(name) for name in ("base", "left1", "right1", "left2", "right2")]
    assert np.allclose(through[swapped], direct)


def test_thumb_and_index_are_the_fingers_and_change_sides_with_the_hand() -> None:
    ids = np.arange(21.0)[:, None]
    assert p.five_of_hand(ids, True)[:, 0].tolist() == [5, 2, 6, 4, 8]
    assert p.five_of_hand(ids, False)[:, 0].tolist() == [5, 6, 2, 8, 4]
    assert p.five_of_hand(ids, True, base="wrist")[0, 0] == 0


@settings(max_examples=30)
@given(arrays(float, 3, elements=st.floats(-3, 3, allow_subnormal=False)), st.floats(0, 1))
def test_gripper_points_are_one_rigid_body(rotvec: np.ndarray, opening: float) -> None:
    world_from_hand = g.pose([0.3, -0.2, 0.1], g.matrix_from_rotvec(rotvec))
    five = p.gripper_points(world_from_hand, opening)
    there = p.gripper_points(np.eye(4), opening) @ world_from_hand[:3, :3].T + world_from_hand[:3, 3]
    assert np.allclose(five, there)
    half = 0.05 if opening >= p.OPEN_FROM else 0.025
    assert np.allclose(np.linalg.norm(five[[1, 3]] - five[[2, 4]], axis=-1), 2 * half)


def test_the_fingers_reach_along_the_approach_axis() -> None:
    five = p.gripper_points(DOWN, 1.0)
    assert np.allclose(five[0], [0.4, 0.1, 0.5])
    assert np.allclose(five[1:, 2], 0.5 - np.array([0.075, 0.075, 0.15, 0.15]))
    assert np.allclose(five[1:, 1] - 0.1, [0.05, -0.05, 0.05, -0.05]), "right is +y of the authors' frame g"


@settings(max_examples=30)
@given(st.floats(-np.pi, np.pi), st.floats(0.05, 1.2))
def test_subtracting_euler_angles_is_this_turn_for_angles_about_fixed_axes_only(yaw: float, pitch: float) -> None:
    """The authors turn by euler - (-pi, 0, 0). About the hand's own axes that is another frame as soon as it pitches."""

    def difference(order: str, angles: tuple[float, float, float]) -> float:
        hand = Rotation.from_euler(order, angles).as_matrix()
        theirs = Rotation.from_euler(order, np.subtract(angles, (-np.pi, 0.0, 0.0))).as_matrix()
        offsets_g = p.gripper_points(np.eye(4), 1.0) * (1.0, -1.0, -1.0)
        return float(np.abs(offsets_g @ theirs.T - p.gripper_points(g.pose(np.zeros(3), hand), 1.0)).max())

    assert difference("xyz", (-np.pi, pitch, yaw)) < 1e-12
    assert difference("XYZ", (-np.pi, 0.0, 0.0)) < 1e-12
    assert difference("XYZ", (-np.pi, pitch, 0.0)) > 0.2 * np.sin(pitch)


def test_a_batch_opens_and_closes_hand_by_hand() -> None:
    five = p.gripper_points(np.stack([DOWN, DOWN]), np.array([1.0, 0.0]))
    assert np.ptp(five[0, 1:, 1]) == pytest.approx(0.1) and np.ptp(five[1, 1:, 1]) == pytest.approx(0.05)
