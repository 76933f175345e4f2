"""Mounts: rotations that put the operator's torso into the robot's base frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hardware.devices import camera
from robolearn import geometry
from robolearn.errors import BadInput
from robolearn.teleop import human, landmarks, mount, robots, sew

ROTVEC = st.lists(st.floats(-3.0, 3.0), min_size=3, max_size=3)
VECTOR = st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=3)


@given(VECTOR, VECTOR, ROTVEC)
def test_calibration_finds_the_rotation_between_two_like_poses(upper, lower, turn):
    size = np.linalg.norm(upper) * np.linalg.norm(lower)
    assume(size > 1e-3 and np.linalg.norm(np.cross(upper, lower)) > 0.06 * size)
    rotation = geometry.matrix_from_rotvec(turn)
    rest = (np.asarray(upper), np.asarray(lower))
    found = mount.calibrated(rest, (rotation @ rest[0], rotation @ rest[1]))
    assert np.allclose(found, rotation, rtol=0, atol=1e-9)


def test_calibration_lays_upper_arms_and_elbow_planes_on_each_other():
    rest = (np.array([0.0, 0.0, -1.0]), np.array([1.0, 0.0, 0.0]))
    home = (np.array([0.6, 0.0, 0.8]), np.array([0.8, 0.0, 0.1]))
    found = mount.calibrated(rest, home)
    assert np.allclose(found @ rest[0], home[0], atol=1e-12)
    assert found @ np.cross(*rest) @ home[0] == pytest.approx(0.0, abs=1e-12)
    assert (found @ np.cross(*rest)) @ np.cross(*home) > 0


def test_a_straight_arm_does_not_calibrate():
    straight = (np.array([0.0, 0.0, -1.0]), np.array([0.0, 0.02, -1.0]))
    with pytest.raises(BadInput, match="bent elbow"):
        mount.calibrated(straight, straight)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_humanoid_base_points_away_from_the_body(side):
    base_from_torso = mount.humanoid(side)
    assert np.linalg.det(base_from_torso) == pytest.approx(1.0)
    outward = np.array([0.0, -1.0 if side == "right" else 1.0, 0.0])
    assert np.array_equal(base_from_torso @ outward, [0.0, 0.0, 1.0])
    assert abs((base_from_torso @ [0.0, 0.0, -1.0])[2]) < 1e-12  # a hanging arm is far from joint 1's axis


def test_the_two_humanoid_mounts_mirror_each_other():
    flip = np.diag([1.0, -1.0, 1.0])
    assert np.array_equal(flip @ mount.humanoid("right") @ human.MIRROR, mount.humanoid("left"))


def test_an_unknown_side_is_refused():
    with pytest.raises(BadInput, match="right or left"):
        mount.humanoid("up")


def test_an_upright_mount_turns_with_the_operator():
    assert np.allclose(mount.upright(np.pi / 2) @ [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], atol=1e-12)


def test_a_hand_whose_z_is_its_tip_points_where_the_fingers_do():
    hand = geometry.matrix_from_rotvec([0.3, -0.4, 1.2])
    body = hand @ mount.TIP_ALONG_Z
    assert np.array_equal(body[:, 2], hand[:, 0])
    assert np.array_equal(body[:, 1], hand[:, 1])
    assert np.linalg.det(body) == pytest.approx(1.0)


def test_a_person_before_a_camera_is_followed_by_an_arm_without_residual():
    limbs = landmarks.limbs_from_mediapipe(camera.person(0.4))
    for limb, side in zip(limbs, ("right", "left"), strict=True):
        turn = mount.humanoid(side)
        arm = replace(robots.arm("iiwa"), low=np.full(7, -np.inf), high=np.full(7, np.inf))
        result = sew.solve(arm, turn @ limb.upper, turn @ limb.lower, turn @ limb.hand @ mount.TIP_ALONG_Z)
        assert result.residuals.max() < 1e-9
