"""Codecs and the kinematics under them: round trips, limits, and what they refuse."""

from __future__ import annotations

from functools import cache

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.robots import virtual
from robolearn import geometry
from robolearn.errors import ArrayMismatch, BadInput, UnknownName
from robolearn.runtime.codecs import _base
from robolearn.runtime.kinematics import Hand

ARMS = {"panda": "right_hand", "ur5e": "right_hand"}


@cache
def hand(arm: str) -> Hand:
    body = virtual._plant(virtual.Config(arm=arm))
    return Hand(body.plant.model, body.joints, ARMS[arm], body.lower, body.upper)


def some_q(arm: str, seed: int, spread: float = 0.6) -> np.ndarray:
    rng, body = np.random.default_rng(seed), hand(arm)
    middle = (body.lower + body.upper) / 2
    reach = np.minimum((body.upper - body.lower) / 2, 2.0)
    return middle + spread * reach * rng.uniform(-1, 1, len(middle))


@pytest.mark.parametrize("arm", ARMS)
def test_the_jacobian_is_the_derivative_of_the_pose(arm: str) -> None:
    body, q, step = hand(arm), some_q(arm, 0), 1e-6
    found = body.jacobian(q)
    for j in range(len(q)):
        ahead, behind = body.pose(q + step * np.eye(len(q))[j]), body.pose(q - step * np.eye(len(q))[j])
        turn = geometry.rotvec_from_matrix(ahead[:3, :3] @ behind[:3, :3].T)
        want = np.concatenate([ahead[:3, 3] - behind[:3, 3], turn]) / (2 * step)
        np.testing.assert_allclose(found[:, j], want, atol=1e-5)


@pytest.mark.parametrize("arm", ARMS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_pose_nearby_is_reached_inside_the_limits(arm: str, seed: int) -> None:
    body, rng = hand(arm), np.random.default_rng(seed)
    q = some_q(arm, seed)
    wanted = np.clip(q + rng.normal(0, 0.05, len(q)), body.lower, body.upper)
    found = body.solve(body.pose(wanted), q)
    assert found.reached
    assert (found.q >= body.lower).all() and (found.q <= body.upper).all()
    assert np.abs(found.q - q).max() < 1.0  # no other branch


def test_a_pose_out_of_reach_is_missed_and_said_so() -> None:
    body, far = hand("ur5e"), np.eye(4)
    far[:3, 3] = 5.0, 0.0, 0.0
    found = body.solve(far, some_q("ur5e", 1))
    assert not found.reached and found.position > 3.0
    assert np.isfinite(found.q).all()


@pytest.mark.parametrize("name", _base.codec_names())
@pytest.mark.parametrize("arm", ARMS)
def test_every_codec_makes_the_round_trip(name: str, arm: str) -> None:
    body, rng = hand(arm), np.random.default_rng(3)
    codec = _base.make_codec(name, body)
    for seed in range(5):
        q = some_q(arm, seed)
        wanted = np.clip(q + rng.normal(0, 0.02, len(q)), body.lower, body.upper)
        for aperture in (0.0, 1.0):
            action = codec.action_of(wanted, aperture, q)
            codec.action.check(action, name)
            target = codec.target(action, q)
            assert target.aperture == aperture
            asked, got = body.pose(wanted), body.pose(target.q)
            assert np.linalg.norm(asked[:3, 3] - got[:3, 3]) < 1e-3
            assert geometry.angle_between(asked[:3, :3], got[:3, :3]) < 5e-3
            np.testing.assert_allclose(codec.action_of(target.q, aperture, q), action, atol=5e-3)


def test_no_command_leaves_the_gripper_and_no_gripper_gives_no_command() -> None:
    codec = _base.make_codec("joint_abs", hand("panda"))
    assert codec.target(np.zeros(8), np.zeros(7)).aperture is None
    assert codec.action_of(np.zeros(7), float("nan"), np.zeros(7))[-1] == 0.0


def test_a_relative_command_is_cut_to_its_reach() -> None:
    body = hand("panda")
    codec, q = _base.make_codec("osc_delta", body), some_q("panda", 5, 0.2)
    far = codec.target(np.array([100.0, 0, 0, 0, 0, 0, 1]), q)
    assert np.linalg.norm(body.pose(far.q)[:3, 3] - body.pose(q)[:3, 3]) < 0.055


@pytest.mark.parametrize("pose", [np.full((4, 4), np.nan), np.eye(3)])
def test_what_is_no_pose_is_refused(pose: np.ndarray) -> None:
    with pytest.raises(ArrayMismatch, match=r"hand: want a finite pose \(4, 4\)"):
        hand("panda").solve(pose, np.zeros(7))


def test_what_is_not_in_the_model_is_named() -> None:
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body name='a'><joint name='j'/><geom size='1'/></body></worldbody></mujoco>"
    )
    with pytest.raises(BadInput, match=r"no joint 'k' \(known: j\)"):
        Hand(model, ["k"], "a", np.zeros(1), np.ones(1))
    with pytest.raises(BadInput, match="no site or body 'tip'"):
        Hand(model, ["j"], "tip", np.zeros(1), np.ones(1))
    with pytest.raises(ArrayMismatch, match="want 1 finite joint angles"):
        Hand(model, ["j"], "a", np.zeros(1), np.ones(1)).pose(np.array([np.nan]))
    with pytest.raises(UnknownName, match="unknown codec 'pose_ab'; did you mean 'pose_abs'"):
        _base.make_codec("pose_ab", hand("panda"))
