"""Drives: a target of the hand becomes the action that brings the body's hand there, and a body at rest is told to rest."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolearn import geometry
from robolearn.apps import _cockpit
from robolearn.core import ArraySpec, Spec, TeleopSample
from robolearn.errors import SpecMismatch
from robolearn.teleop.drives import PlanarDrive, PoseDrive, RelativeDrive, simple_drives
from sim_envs import _base as tasks


@given(st.floats(0, 512), st.floats(0, 512))
def test_a_planar_hand_that_stays_keeps_the_pusher_where_it_is(x: float, y: float) -> None:
    drive = PlanarDrive()
    obs = {"state": np.array([x, y, 0.0, 0.0, 0.0])}
    np.testing.assert_allclose(drive.action(obs, drive.measured(obs), 0.0, None), [x, y], atol=1e-9)


def test_forward_is_up_in_the_picture_and_left_is_left() -> None:
    drive = PlanarDrive()
    obs = {"state": np.array([256.0, 256.0, 0.0, 0.0, 0.0])}
    target = drive.measured(obs)
    target[:2, 3] += [0.01, 0.02]
    np.testing.assert_allclose(drive.action(obs, target, 0.0, None), [236.0, 246.0])


def test_a_planar_target_off_the_table_stops_at_its_edge() -> None:
    drive = PlanarDrive()
    obs = {"state": np.array([10.0, 500.0, 0.0, 0.0, 0.0])}
    target = drive.measured(obs)
    target[:2, 3] += [-1.0, 1.0]
    np.testing.assert_array_equal(drive.action(obs, target, 0.0, None), [0.0, 512.0])


@pytest.mark.parametrize(("action", "kind"), [("pose_abs", PoseDrive), ("osc_delta", RelativeDrive)])
def test_the_drive_of_a_simulated_arm_brings_its_hand_to_the_target(action: str, kind: type) -> None:
    with closing(tasks.make("lift", {"action": action})) as body:
        obs = body.reset(3)
        (drive,) = simple_drives(body.spec)
        assert isinstance(drive, kind)
        drive.start(obs)
        target = drive.measured(obs)
        target[:3, 3] += [0.03, -0.04, 0.05]
        target[:3, :3] = geometry.rotation_z(0.2) @ target[:3, :3]
        for _ in range(30):
            obs = body.step(drive.action(obs, target, 0.0, None).astype(np.float32)).obs
        reached = drive.measured(obs)
        assert np.linalg.norm(reached[:3, 3] - target[:3, 3]) < 0.012
        assert geometry.angle_between(reached[:3, :3], target[:3, :3]) < 0.06


def test_every_arm_of_a_body_has_its_drive() -> None:
    with closing(tasks.make("two_arm_lift")) as body:
        drives = simple_drives(body.spec)
        obs = body.reset(0)
        left, right = (drive.measured(obs)[:3, 3] for drive in drives)
        assert len(drives) == 2 and np.linalg.norm(left - right) > 0.1


def test_an_action_space_that_no_hand_can_drive_is_refused_by_name() -> None:
    spec = Spec({}, ArraySpec((4,)), 20.0, codec="torque")
    with pytest.raises(SpecMismatch, match="torque"):
        simple_drives(spec)


def test_a_leader_that_falls_silent_or_is_let_go_leaves_the_arm_where_it_is() -> None:
    with closing(tasks.make("lift", {"action": "joint_abs"})) as body:
        obs = body.reset(0)
        drive = _cockpit.joint_drive(body, 0)
        drive.start(obs)
        start, rest = obs["joint_pos"].astype(float), drive.measured(obs)
        leader = TeleopSample(0, 0, joints=start + 0.4, deadman=True)
        assert drive.why == ""
        path = [drive.action(obs, rest, 0.0, leader)[:7] for _ in range(40)]
        steps = np.abs(np.diff(np.vstack([start, path]), axis=0))
        assert steps.max() <= 0.05 * _cockpit.LEADER_SPEED + 1e-9
        np.testing.assert_allclose(path[-1], start + 0.4, atol=0.02)
        for _ in range(5):  # not back to where its hand began
            np.testing.assert_array_equal(drive.action(obs, rest, 0.0, None)[:7], path[-1])
        jumped = TeleopSample(0, 0, joints=path[-1] + 0.7, deadman=True)
        assert np.abs(drive.action(obs, rest, 0.0, jumped)[:7] - path[-1]).max() <= 0.05 + 1e-9  # aligned anew
        drive.action(obs, rest, 0.0, TeleopSample(0, 0, joints=path[-1] + 2.0, deadman=True))
        assert "move it nearer" in drive.why
