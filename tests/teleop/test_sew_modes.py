"""Modes B and C: link lines instead of axes, and the hand's exact pose with the elbow in the human plane."""

from __future__ import annotations

import numpy as np
import pytest
from sew_targets import ARMS, gap, inside

from robolearn.teleop import robots
from robolearn.teleop.sew import Status, Stream, solve


@pytest.mark.parametrize("name", ARMS)
def test_the_lines_between_the_joints_are_found_again(name: str) -> None:
    arm, rng = robots.arm(name), np.random.default_rng(0)
    for q in inside(arm, rng, 80):
        shoulder, elbow, wrist, _ = arm.keypoints(q)
        near = np.clip(q + rng.uniform(-0.02, 0.02, 7), arm.low, arm.high)
        result = solve(arm, elbow - shoulder, wrist - elbow, arm.directions(q)[2], near, mode="points")
        assert result.residuals.max() < 1e-9 and gap(result.q, q) < 1e-6


def test_axes_and_lines_differ_on_an_arm_with_an_offset_elbow() -> None:
    arm = robots.arm("panda")
    q = np.array([0.2, 0.3, 0.1, -1.8, 0.2, 1.9, 0.4])
    shoulder, elbow, wrist, _ = arm.keypoints(q)
    by_axis = solve(arm, elbow - shoulder, wrist - elbow, arm.directions(q)[2], q)
    assert gap(by_axis.q, q) > 0.1  # 14.6 and 12.1 degrees lie between them


@pytest.mark.parametrize("name", ["panda", "iiwa", "kinova3", "sawyer", "gr1_right"])
def test_the_hand_is_where_it_should_be_and_the_elbow_in_the_plane(name: str) -> None:
    arm, rng = robots.arm(name), np.random.default_rng(1)
    bent = [q for q in inside(arm, rng, 60) if abs(q[3]) > 0.4][: 40 if name in ("panda", "iiwa") else 12]
    for q in bent:
        shoulder, elbow, wrist, hand = arm.keypoints(q)
        near = np.clip(q + rng.uniform(-0.02, 0.02, 7), arm.low, arm.high)
        result = solve(arm, elbow - shoulder, wrist - elbow, arm.pose(q)[:3, :3], near, mode="pose", position=hand)
        assert result.status is Status.EXACT
        assert result.position_error < 1e-6 and result.residuals.max() < 1e-5
        pose = arm.pose(result.q)  # not what the solver says of itself
        assert np.linalg.norm(pose[:3, 3] - hand) < 1e-6 and np.abs(pose[:3, :3] - arm.pose(q)[:3, :3]).max() < 1e-6


@pytest.mark.parametrize("name", ["panda", "iiwa"])
def test_another_elbow_plane_keeps_the_hand(name: str) -> None:
    arm = robots.arm(name)
    q = np.array([0.1, 0.4, 0.1, -1.6, 0.1, 1.6, 0.3]) * (1 if name == "panda" else np.array([1, 1, 1, -1, 1, -1, 1]))
    shoulder, elbow, wrist, hand = arm.keypoints(q)
    for tilt in (-0.3, 0.3):
        out = elbow - shoulder + tilt * 0.3 * np.cross(wrist - shoulder, elbow - shoulder)
        result = solve(arm, out, wrist - shoulder - out, arm.pose(q)[:3, :3], q, mode="pose", position=hand)
        assert result.position_error < 1e-6 and result.residuals[2] < 1e-6


@pytest.mark.parametrize("name", ["panda", "iiwa"])
def test_a_hand_out_of_reach_is_said_and_gets_the_nearest(name: str) -> None:
    arm, q = robots.arm(name), robots.arm(name).middle()
    u, low, h = arm.directions(q)
    result = solve(arm, u, low, h, q, mode="pose", position=[5.0, 0.0, 0.5])
    assert result.status is Status.UNREACHABLE and result.position_error > 3.0
    assert (result.q >= arm.low).all() and (result.q <= arm.high).all()


def test_without_a_human_elbow_the_arm_keeps_its_own_plane() -> None:
    arm = robots.arm("panda")
    q = np.array([0.2, 0.3, 0.1, -1.8, 0.2, 1.9, 0.4])
    stream = Stream(arm, 20.0, 2.0, mode="pose")
    stream.reset(q)
    for step in np.linspace(0, 0.1, 20):
        goal = arm.pose(q)[:3, 3] + [step, 0, -step]
        result = stream.step(None, None, arm.pose(q)[:3, :3], goal)
        assert result.position_error < 1e-6
    assert gap(result.q, q) < 0.6


def test_a_missing_position_holds_the_arm() -> None:
    arm = robots.arm("panda")
    result = solve(arm, *arm.directions(arm.middle()), arm.middle(), mode="pose")
    assert result.status is Status.HELD and "position" in result.why


@pytest.mark.parametrize("name", ["sawyer", "gr1_right"])
def test_a_reachable_hand_is_never_called_out_of_reach(name: str) -> None:
    arm, rng = robots.arm(name), np.random.default_rng(5)
    for q in inside(arm, rng, 12):
        shoulder, elbow, wrist, hand = arm.keypoints(q)
        result = solve(arm, elbow - shoulder, wrist - elbow, arm.pose(q)[:3, :3], arm.middle(), mode="pose", position=hand)
        assert result.status is not Status.UNREACHABLE
    far = solve(arm, *arm.directions(arm.middle()), arm.middle(), mode="pose", position=[5.0, 0.0, 0.5])
    assert far.status is Status.UNREACHABLE
