"""Followers of a hand pose: both get there, neither leaps, both stay where they are when asked for nonsense."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn import geometry
from robolearn.teleop import robots
from robolearn.teleop.drives import Follower
from robolearn.teleop.follow import HandPose, Sew, limbs, swing

HZ, SPEED = 20.0, 2.0
HOME = np.array([0.0, 0.2, 0.0, -2.4, 0.0, 2.6, 0.8])
ARM = robots.arm("panda")


def sew() -> Follower:
    return Sew(ARM, HZ, SPEED)


def hand() -> Follower:
    pytest.importorskip("mink")
    return HandPose(ARM, robots.model("panda"), "right_hand", HZ, SPEED)


BOTH = pytest.mark.parametrize("make", [sew, hand])


@BOTH
def test_a_pose_nearby_is_reached_and_no_joint_is_faster_than_its_cap(make: Callable[[], Follower]) -> None:
    follower, q = make(), HOME.copy()
    follower.reset(q)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        target = ARM.pose(HOME + 0.15 * rng.normal(size=7))
        for _ in range(20):
            following = follower.step(target[:3, 3], target[:3, :3], None, None)
            assert np.abs(following - q).max() <= SPEED / HZ + 1e-12
            q = following
        np.testing.assert_allclose(ARM.pose(q), target, atol=2e-3)


@BOTH
def test_a_target_that_is_no_number_leaves_the_arm_where_it_is(make: Callable[[], Follower]) -> None:
    follower = make()
    follower.reset(HOME)
    np.testing.assert_array_equal(follower.step(np.full(3, np.nan), np.eye(3), None, None), HOME)


@BOTH
def test_a_target_out_of_reach_is_followed_within_limits_and_cap(make: Callable[[], Follower]) -> None:
    follower, q = make(), HOME.copy()
    follower.reset(q)
    for _ in range(15):
        following = follower.step(np.array([1.5, 0.3, 0.6]), ARM.pose(HOME)[:3, :3], None, None)
        assert np.abs(following - q).max() <= SPEED / HZ + 1e-12
        assert ((following >= ARM.low) & (following <= ARM.high)).all()
        q = following


def test_sew_takes_the_elbows_swing_from_the_person_and_keeps_the_hand() -> None:
    follower, target, reach = Sew(ARM, HZ, SPEED), ARM.pose(HOME), np.array([0.3, 0.0, -0.1])
    follower.reset(HOME)
    for angle in (2.8, *[2.6] * 15):
        q = follower.step(target[:3, 3], target[:3, :3], *limbs(reach, angle))
    np.testing.assert_allclose(ARM.pose(q), target, atol=1e-6)
    before, after = (swing_of(joints) for joints in (HOME, q))
    assert geometry.wrap(after - before) == pytest.approx(-0.2, abs=5e-3)


def swing_of(q: np.ndarray) -> float:
    shoulder, elbow, wrist, _ = ARM.keypoints(q)
    return swing(elbow - shoulder, wrist - elbow)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.floats(-3.1, 3.1))
def test_the_swing_of_limbs_is_the_angle_they_were_made_with(reach: list[float], angle: float) -> None:
    v = np.array(reach)
    if np.linalg.norm(v[:2]) < 0.05:
        return
    assert geometry.wrap(swing(*limbs(v, angle)) - angle) == pytest.approx(0.0, abs=1e-9)
