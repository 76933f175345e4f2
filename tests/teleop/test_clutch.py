"""The clutch: engaging moves nothing, caps hold whatever comes, jumps are latched anew, the axes are those of the table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn import geometry
from robolearn.core import TeleopSample
from robolearn.errors import BadInput
from robolearn.teleop.clutch import Aligner, Clutch, Feel, shaped

DT = 1 / 60


def sample(t_s: float, pose: np.ndarray | None = None, held: bool | None = True, **more: object) -> TeleopSample:
    t_ns = round(t_s * 1e9)
    return TeleopSample(t_ns, t_ns, pose=pose, deadman=held, **more)  # type: ignore[arg-type]


def poses(seed: int, n: int, step: float = 0.003) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    at, out = geometry.pose(rng.normal(size=3), geometry.matrix_from_rotvec(rng.normal(size=3))), []
    for _ in range(n):
        turn = geometry.matrix_from_rotvec(rng.normal(0, step, 3))
        at = geometry.pose(at[:3, 3] + rng.normal(0, step, 3), turn @ at[:3, :3])
        out.append(at)
    return out


@given(st.integers(0, 10_000), st.sampled_from(["base", "tool"]))
@settings(max_examples=30, deadline=None)
def test_engaging_moves_nothing_however_hand_and_robot_were_moved_before(seed: int, frame: str) -> None:
    clutch = Clutch(Feel(max_speed=100, max_turn=100, frame=frame))  # type: ignore[arg-type]
    robot = poses(seed + 1, 1)[0]
    clutch.reset(robot)
    t = 0.0
    for k in range(3):
        hand = poses(seed + 10 * k, 1)[0]
        measured = geometry.pose(robot[:3, 3], clutch.target(robot, t).pose[:3, :3])
        clutch.update(sample(t, hand, held=False), measured, t)
        t += DT
        clutch.update(sample(t, hand), measured, t)
        first = clutch.target(measured, t)
        np.testing.assert_array_equal(first.pose, measured)
        assert first.engaged
        for pose in poses(seed + 10 * k, 8)[1:]:
            t += DT
            clutch.update(sample(t, pose), measured, t)
            robot = clutch.target(measured, t).pose


def test_the_hand_moves_the_target_one_to_one_and_scaled() -> None:
    for scale in (0.5, 1.0, 2.0):
        clutch = Clutch(Feel(scale=scale, max_speed=100, max_turn=100))
        clutch.reset(np.eye(4))
        hand = np.eye(4)
        clutch.update(sample(0.0, hand), np.eye(4), 0.0)
        clutch.target(np.eye(4), 0.0)
        hand = geometry.pose([0.01, 0.02, -0.03], geometry.rotation_z(0.1))
        clutch.update(sample(DT, hand), np.eye(4), DT)
        target = clutch.target(np.eye(4), DT).pose
        np.testing.assert_allclose(target[:3, 3], scale * hand[:3, 3])
        np.testing.assert_allclose(target[:3, :3], hand[:3, :3], atol=1e-12)


WEBXR = ((0.0, 0.0, -1.0), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0))  # x right, y up, z back -> x forward, y left, z up


@pytest.mark.parametrize(
    ("axes", "device", "robot"),
    [
        (WEBXR, (0, 0, -1), (1, 0, 0)),
        (WEBXR, (-1, 0, 0), (0, 1, 0)),
        (WEBXR, (0, 1, 0), (0, 0, 1)),
        (Feel().axis_map, (1, 0, 0), (1, 0, 0)),
        (((0, 1, 0), (-1, 0, 0), (0, 0, 1)), (1, 0, 0), (0, -1, 0)),
    ],
)
def test_the_axes_of_a_device_are_those_of_the_table(axes: tuple, device: tuple, robot: tuple) -> None:
    clutch = Clutch(Feel(axis_map=axes, max_speed=100, max_turn=100))
    clutch.reset(np.eye(4))
    clutch.update(sample(0.0, np.eye(4)), np.eye(4), 0.0)
    clutch.target(np.eye(4), 0.0)
    moved = geometry.pose(0.02 * np.array(device), geometry.matrix_from_rotvec(0.1 * np.array(device)))
    clutch.update(sample(DT, moved), np.eye(4), DT)
    target = clutch.target(np.eye(4), DT).pose
    np.testing.assert_allclose(target[:3, 3], 0.02 * np.array(robot), atol=1e-12)
    np.testing.assert_allclose(geometry.rotvec_from_matrix(target[:3, :3]), 0.1 * np.array(robot), atol=1e-12)


def test_a_jump_of_the_hand_is_latched_anew() -> None:
    clutch = Clutch(Feel(max_speed=100, max_turn=100))
    clutch.reset(np.eye(4))
    clutch.update(sample(0.0, np.eye(4)), np.eye(4), 0.0)
    before = clutch.target(np.eye(4), 0.0).pose
    clutch.update(sample(DT, geometry.pose([0.5, 0, 0], np.eye(3))), np.eye(4), DT)
    target = clutch.target(np.eye(4), DT)
    np.testing.assert_array_equal(target.pose, before)
    assert "jumped" in target.why
    clutch.update(sample(2 * DT, geometry.pose([0.51, 0, 0], np.eye(3))), np.eye(4), 2 * DT)
    np.testing.assert_allclose(clutch.target(np.eye(4), 2 * DT).pose[:3, 3], [0.01, 0, 0], atol=1e-12)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_loss_and_jitter_never_make_a_step_above_the_cap(seed: int) -> None:
    rng, feel = np.random.default_rng(seed), Feel()
    clutch = Clutch(feel)
    clutch.reset(np.eye(4))
    hands = poses(seed, 180, 0.01)
    arrivals = sorted(
        (k * DT + rng.uniform(0, 0.08), k) for k in range(len(hands)) if rng.random() > 0.05
    )  # 5 % lost, 80 ms of jitter, out of order
    last, t = clutch.target(np.eye(4), 0.0).pose, 0.0
    moved = 0
    for tick in range(1, 60):
        t = tick * 0.05
        while arrivals and arrivals[0][0] <= t:
            at, k = arrivals.pop(0)
            clutch.update(TeleopSample(round(k * DT * 1e9), round(at * 1e9), pose=hands[k], deadman=True), last, at)
        target = clutch.target(last, t).pose
        assert np.linalg.norm(target[:3, 3] - last[:3, 3]) <= feel.max_speed * 0.05 + 1e-9
        assert geometry.angle_between(target[:3, :3], last[:3, :3]) <= feel.max_turn * 0.05 + 1e-6
        moved += bool(np.any(target != last))
        last = target
    assert moved > 30


def test_a_sample_from_the_past_is_dropped() -> None:
    clutch = Clutch(Feel(max_speed=100, max_turn=100))
    clutch.reset(np.eye(4))
    for t, x in ((0.0, 0.0), (0.2, 0.02), (0.1, 0.05)):
        clutch.update(sample(t, geometry.pose([x, 0, 0], np.eye(3))), np.eye(4), t)
        target = clutch.target(np.eye(4), 0.2 + t).pose
    np.testing.assert_allclose(target[:3, 3], [0.02, 0, 0], atol=1e-12)


def test_a_deflection_is_a_speed_and_ends_when_it_is_not_renewed() -> None:
    clutch = Clutch(Feel(max_speed=0.2))
    clutch.reset(np.eye(4))
    delta = np.array([1.0, 0, 0, 0, 0, 0])
    for k in range(21):
        if k <= 10:
            clutch.update(sample(k * 0.05, None, None, delta=delta), np.eye(4), k * 0.05)
        target = clutch.target(np.eye(4), k * 0.05)
    assert 0.1 <= target.pose[0, 3] <= 0.2 * (0.5 + 0.3)
    again = clutch.target(np.eye(4), 2.0)
    np.testing.assert_array_equal(again.pose, target.pose)


def test_a_stick_at_rest_stays_at_rest_and_the_curve_is_odd() -> None:
    x = np.array([-1.0, -0.55, -0.1, 0.05, 0.1, 0.55, 1.0])
    y = shaped(x, 0.1, 1.5)
    np.testing.assert_allclose(y, -y[::-1] * np.array([1, 1, 1, 1, 1, 1, 1]), atol=0.1)
    assert y[2] == y[3] == y[4] == 0.0 and y[-1] == 1.0 and y[0] == -1.0


def test_the_gripper_turns_over_once_for_a_bouncing_key_and_keeps_while_released() -> None:
    clutch = Clutch()
    clutch.reset(np.eye(4))
    for t in (0.0, 0.05, 0.1):  # bounces
        clutch.update(sample(t, None, None, events=("toggle_grip",)), np.eye(4), t)
    assert clutch.target(np.eye(4), 0.1).grip == 1.0
    clutch.update(sample(0.3, None, None, events=("toggle_grip",)), np.eye(4), 0.3)
    assert clutch.target(np.eye(4), 0.3).grip == 0.0
    clutch.update(sample(0.4, np.eye(4), True, grip=0.7), np.eye(4), 0.4)
    clutch.update(sample(0.5, np.eye(4), False, grip=0.0), np.eye(4), 0.5)
    assert clutch.target(np.eye(4), 0.5).grip == pytest.approx(0.7)


def test_a_target_stays_inside_its_box_and_says_so() -> None:
    clutch = Clutch(Feel(high=(0.01, np.inf, np.inf), max_speed=100, max_turn=100))
    clutch.reset(np.eye(4))
    clutch.update(sample(0.0, np.eye(4)), np.eye(4), 0.0)
    clutch.target(np.eye(4), 0.0)
    clutch.update(sample(DT, geometry.pose([0.05, 0, 0], np.eye(3))), np.eye(4), DT)
    target = clutch.target(np.eye(4), DT)
    assert target.pose[0, 3] == 0.01 and "workspace" in target.why


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"scale": 5.0}, "scale"),
        ({"axis_map": ((1, 0, 0), (0, 1, 0), (0, 0, -1))}, "determinant"),
        ({"axis_map": ((1, 0.1, 0), (0, 1, 0), (0, 0, 1))}, "permutation"),
        ({"max_speed": 0.0}, "speeds above 0"),
    ],
)
def test_a_feel_that_makes_no_sense_is_refused(fields: dict, match: str) -> None:
    with pytest.raises(BadInput, match=match):
        Feel(**fields)


def test_what_is_no_number_changes_nothing_and_says_so() -> None:
    clutch = Clutch(Feel(max_speed=100, max_turn=100))
    clutch.reset(np.eye(4))
    clutch.update(sample(0.0, np.eye(4)), np.eye(4), 0.0)
    clutch.update(sample(DT, np.full((4, 4), np.nan)), np.eye(4), DT)
    target = clutch.target(np.eye(4), DT)
    np.testing.assert_array_equal(target.pose, np.eye(4))
    assert "not a number" in target.why


def test_a_leader_far_away_is_refused_and_a_near_one_approached_in_small_steps() -> None:
    align, command = Aligner(3), np.zeros(3)
    np.testing.assert_array_equal(align(np.array([0.1, 0.9, 0.0]), command), command)
    assert "joint 1" in align.why and "0.90" in align.why
    leader = np.array([0.4, -0.3, 0.0])
    for _ in range(20):
        following = align(leader, command)
        assert align.aligned or np.abs(following - command).max() <= align.step + 1e-12
        command = following
    np.testing.assert_allclose(command, leader)
    assert align.aligned and align.why == ""
    np.testing.assert_allclose(align(leader + 0.3, command), leader + 0.3)  # from then on one to one
    np.testing.assert_allclose(align(leader + 0.3 + 2 * np.pi, leader + 0.3), leader + 0.3)  # half a turn passed
    assert np.abs(align(leader + 2.0, leader + 0.3) - (leader + 0.3)).max() <= align.step + 1e-12


def test_a_leader_with_another_number_of_joints_holds_the_arm() -> None:
    align = Aligner(3)
    np.testing.assert_array_equal(align(np.zeros(2), np.ones(3)), np.ones(3))
    assert "want 3" in align.why
