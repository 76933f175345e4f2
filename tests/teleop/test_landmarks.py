"""Landmarks to limbs: the torso frame takes out where the person is, a mirrored body gives the mirrored limb."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.devices import camera
from robolearn import geometry
from robolearn.errors import ArrayMismatch, BadInput
from robolearn.teleop import human, landmarks

NUMBER = st.floats(-0.15, 0.15)
PLACES = st.lists(st.lists(NUMBER, min_size=3, max_size=3), min_size=5, max_size=5)
ROTVEC = st.lists(st.floats(-3.0, 3.0), min_size=3, max_size=3)
NEUTRAL = {
    "right_shoulder": (0.0, -0.2, 0.5), "right_elbow": (0.0, -0.25, 0.2), "right_wrist": (0.25, -0.25, 0.2),
    "right_index": (0.35, -0.25, 0.24), "right_pinky": (0.35, -0.25, 0.16), "below": (0.0, 0.0, 0.0),
}  # fmt: skip


def body(noise) -> dict[str, np.ndarray]:
    """Returns a body, x forward, y left, z up, whose right arm is moved by `noise` (5, 3) [m] and whose left arm mirrors it."""
    noise = 0.2 * np.asarray(noise)
    noise[0] = 0.0
    names = [f"right_{part}" for part in landmarks.PARTS]
    points = {name: np.asarray(NEUTRAL[name]) + shift for name, shift in zip(names, noise, strict=True)}
    points |= {name.replace("right", "left"): human.MIRROR @ place for name, place in points.items()}
    return points | {"below": np.asarray(NEUTRAL["below"])}


def test_a_hand_that_points_forward_with_the_thumb_up_is_the_identity_on_both_sides():
    points = body(np.zeros((5, 3)))
    for side in ("right", "left"):
        assert np.allclose(landmarks.limb(points, side).hand, np.eye(3), atol=1e-12)


@given(PLACES)
def test_the_left_limb_is_the_mirrored_right_limb_to_1e_12(noise):
    points = body(noise)
    left, mirrored = landmarks.limb(points, "left"), human.mirrored(landmarks.limb(points, "right"))
    assert np.allclose(left.keypoints, mirrored.keypoints, rtol=0, atol=1e-12)
    assert np.allclose(left.hand, mirrored.hand, rtol=0, atol=1e-12)


@given(PLACES, ROTVEC, st.lists(st.floats(-5, 5), min_size=3, max_size=3), st.floats(0.5, 2.0))
def test_moving_turning_and_scaling_the_person_keeps_every_direction(noise, turn, shift, scale):
    points = body(noise)
    rotation = geometry.matrix_from_rotvec(turn)
    moved = {name: scale * rotation @ place + np.asarray(shift) for name, place in points.items()}
    for side in ("right", "left"):
        before, after = landmarks.limb(points, side), landmarks.limb(moved, side)
        assert np.allclose(before.upper, after.upper, rtol=0, atol=1e-12)
        assert np.allclose(before.lower, after.lower, rtol=0, atol=1e-12)
        assert np.allclose(before.hand, after.hand, rtol=0, atol=2e-12)
        assert np.allclose(scale * before.keypoints, after.keypoints, rtol=0, atol=1e-12)


def test_mediapipe_limbs_are_those_of_the_camera_device():
    marks = camera.person(0.3, visibility=0.8)
    limbs = landmarks.limbs_from_mediapipe(marks)
    assert [limb.confidence for limb in limbs] == [0.8, 0.8]
    for limb, sample in zip(limbs, camera.samples(marks, 5), strict=True):
        assert np.allclose(limb.keypoints, sample.keypoints, atol=1e-12)
        assert np.allclose(limb.hand, sample.pose[:3, :3], atol=1e-12)


def test_a_person_before_the_camera_has_x_forward_y_left_z_up():
    right, left = landmarks.limbs_from_mediapipe(camera.person(0.0))
    assert np.allclose(right.shoulder, [0.0, -0.2, 0.0], atol=1e-12)
    assert np.allclose(left.shoulder, [0.0, 0.2, 0.0], atol=1e-12)
    for limb in (right, left):
        assert np.allclose(limb.lower, [1.0, 0.0, 0.0], atol=1e-12)
        assert np.allclose(limb.hand, np.eye(3), atol=1e-12)


def test_the_least_visible_joint_is_the_confidence():
    marks = camera.person(0.0)
    marks[14, 3] = 0.2
    right, left = landmarks.limbs_from_mediapipe(marks)
    assert (right.confidence, left.confidence) == (0.2, 0.9)
    assert "confidence" in human.fault(right)


def test_openxr_joints_under_either_spelling_give_the_same_limb():
    points = body(np.zeros((5, 3)))
    joints = {"hips": landmarks.ROBOT_FROM_XR.T @ points["below"]}
    for side in ("right", "left"):
        for part, name in landmarks.XR.items():
            joints[name.format(side)] = landmarks.ROBOT_FROM_XR.T @ points[f"{side}_{part}"]
    capitals = {name.upper().replace("-", "_"): place for name, place in joints.items()}
    for side in ("right", "left"):
        want = landmarks.limb(points, side)
        for given_names in (joints, capitals):
            got = landmarks.limb_from_openxr(given_names, side)
            assert np.allclose(got.keypoints, want.keypoints, atol=1e-12)
            assert np.allclose(got.hand, want.hand, atol=1e-12)


def test_xr_axes_are_forward_left_and_up():
    for xr, robot in (((0, 0, -1), (1, 0, 0)), ((-1, 0, 0), (0, 1, 0)), ((0, 1, 0), (0, 0, 1))):
        assert np.array_equal(landmarks.ROBOT_FROM_XR @ xr, robot)
    assert np.linalg.det(landmarks.ROBOT_FROM_XR) == pytest.approx(1.0)


def test_without_fingers_the_hand_goes_on_from_the_forearm():
    points = {name: place for name, place in body(np.zeros((5, 3))).items() if "index" not in name}
    assert np.allclose(landmarks.limb(points, "right").hand, np.eye(3), atol=1e-12)
    points["right_wrist"] = points["right_elbow"] + np.array([0.0, 0.0, 0.25])
    assert np.allclose(landmarks.limb(points, "right").hand[:, 0], [0.0, 0.0, 1.0], atol=1e-12)


def test_shoulders_in_one_point_are_found_at_fault_not_divided_by():
    points = body(np.zeros((5, 3)))
    points["left_shoulder"] = points["right_shoulder"]
    assert "finite" in human.fault(landmarks.limb(points, "right"))


def test_missing_points_and_wrong_shapes_are_named():
    points = body(np.zeros((5, 3)))
    del points["right_elbow"]
    with pytest.raises(BadInput, match="no 'right_elbow'"):
        landmarks.limb(points, "right")
    with pytest.raises(ArrayMismatch, match=r"want \(33, 4\)"):
        landmarks.limbs_from_mediapipe(np.zeros((33, 3)))
