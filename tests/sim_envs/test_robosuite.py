"""The robosuite bodies: their controllers, action spaces, states and experts. What every task promises is in contracts/."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn import geometry
from robolearn.errors import ArrayMismatch, BadInput, ConfigError, SpecMismatch
from robolearn.rollout import rollout
from sim_envs import _base as tasks
from sim_envs._robosuite import RobosuiteEnv

CODECS = ("pose_abs", "osc_delta", "joint_abs")
number = st.floats(-1.0, 1.0, width=32)


def make(task: str = "lift", **overrides: object) -> RobosuiteEnv:
    env = tasks.make(task, overrides)
    assert isinstance(env, RobosuiteEnv)
    return env


@pytest.fixture(scope="module", params=CODECS)
def body(request: pytest.FixtureRequest) -> Iterator[RobosuiteEnv]:
    with closing(make(action=request.param)) as env:
        yield env


@pytest.fixture(scope="module")
def lift() -> Iterator[RobosuiteEnv]:
    with closing(make()) as env:
        yield env


def hold(env: RobosuiteEnv, grip: float = -1.0) -> np.ndarray:
    """Returns the action that keeps the hand where it is."""
    if env.config.action == "osc_delta":
        return np.array([0.0] * 6 + [grip], np.float32)
    if env.config.action == "joint_abs":
        return np.array([*env.data.qpos[env.arms[0].qpos], grip], np.float32)
    return pose_action(env.eef_pose(), grip)


def pose_action(pose: np.ndarray, grip: float) -> np.ndarray:
    return np.array([*pose[:3, 3], *geometry.rot6d_from_matrix(pose[:3, :3]), grip], np.float32)


def wander(env: RobosuiteEnv, seed: int) -> np.ndarray:
    """Returns 16 actions around the hand's pose, each held for four ticks, the gripper opening and closing."""
    rng = np.random.default_rng(seed)
    width = 1.0 if env.config.action == "osc_delta" else 0.06
    rows = [hold(env) + width * rng.uniform(-1, 1, env.spec.action.shape) for _ in range(4)]
    for row, grip in zip(rows, (-1, 1, 1, -1), strict=True):
        row[-1] = grip
    return np.repeat(np.array(rows, np.float32), 4, axis=0)


def test_our_controllers_move_as_robosuites_own(body: RobosuiteEnv) -> None:
    body.reset(3)
    actions, ours, theirs = wander(body, 0), [], []
    for action in actions:
        body.step(action)
        ours.append(body.data.qpos.copy())
    body.reset(3)
    for action in actions.astype(float):
        if body.config.action == "pose_abs":
            rotvec = geometry.rotvec_from_matrix(geometry.matrix_from_rot6d(action[3:9]))
            action = np.concatenate([action[:3], rotvec, action[9:]])
        body.suite.step(np.clip(action, -1, 1) if body.config.action == "osc_delta" else action)
        theirs.append(body.data.qpos.copy())
    assert np.ptp(ours, axis=0).max() > 0.05, "nothing moved"
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_holding_still_keeps_the_hand_within_5_mm(body: RobosuiteEnv) -> None:
    body.reset(1)
    start, action = body.eef_pose(), hold(body)
    for _ in range(15):
        body.step(action)
    assert np.linalg.norm(body.eef_pose()[:3, 3] - start[:3, 3]) < 0.005
    assert geometry.angle_between(body.eef_pose()[:3, :3], start[:3, :3]) < 0.02


@pytest.mark.parametrize("robot", ["Panda", "UR5e"])
def test_a_commanded_pose_is_reached(robot: str) -> None:
    with closing(make(robot=robot)) as env:
        env.reset(0)
        turn = geometry.matrix_from_rotvec(np.array([0.1, -0.1, 0.4]))
        goal = geometry.pose(env.eef_pose()[:3, 3] + [0.08, -0.1, -0.05], turn @ env.eef_pose()[:3, :3])
        for _ in range(60):
            env.step(pose_action(goal, 1.0))
        assert np.linalg.norm(env.eef_pose()[:3, 3] - goal[:3, 3]) < 0.005
        assert geometry.angle_between(env.eef_pose()[:3, :3], goal[:3, :3]) < 0.05
        assert env.gripper_closed()


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[number] * 3), st.tuples(*[st.floats(-3.0, 3.0)] * 3), number)
def test_a_pose_survives_the_way_through_an_absolute_action(
    lift: RobosuiteEnv, position: tuple[float, ...], rotvec: tuple[float, ...], grip: float
) -> None:
    pose = geometry.pose(np.array(position), geometry.matrix_from_rotvec(np.array(rotvec)))
    arm = lift.arms[0]
    arm.set_goal(lift.data, pose_action(pose, grip))
    np.testing.assert_allclose(arm.goal_position, pose[:3, 3], atol=1e-6)
    np.testing.assert_allclose(arm.goal_rotation, pose[:3, :3], atol=1e-6)
    assert arm.command == np.sign(grip)


@pytest.fixture(scope="module")
def two_arms() -> Iterator[RobosuiteEnv]:
    with closing(make("two_arm_lift", action="osc_delta")) as env:
        env.reset(0)
        yield env


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1), st.tuples(*[number] * 3), st.tuples(*[st.floats(-0.25, 0.25)] * 3))
def test_a_near_pose_survives_the_way_through_a_relative_action(
    two_arms: RobosuiteEnv, k: int, gap: tuple[float, ...], rotvec: tuple[float, ...]
) -> None:
    arm, hand = two_arms.arms[k], two_arms.eef_pose(k)
    turn = geometry.matrix_from_rotvec(np.array(rotvec))
    goal = geometry.pose(hand[:3, 3] + 0.05 * np.array(gap), turn @ hand[:3, :3])
    arm.set_goal(two_arms.data, np.append(arm.relative(two_arms.data, goal), 1.0))
    np.testing.assert_allclose(arm.goal_position, goal[:3, 3], atol=1e-9)
    np.testing.assert_allclose(arm.goal_rotation, goal[:3, :3], atol=1e-9)


def test_restore_continues_bit_equal_in_a_fresh_body(body: RobosuiteEnv) -> None:
    body.reset(2)
    actions = wander(body, 1)
    for action in actions[:6]:
        body.step(action)
    state = body.state()
    rest = [body.step(action).obs for action in actions[6:]]
    with closing(tasks.make("lift", {"action": body.config.action})) as fresh:
        fresh.restore(state)
        for want, action in zip(rest, actions[6:], strict=True):
            got = fresh.step(action).obs
            assert all(np.array_equal(got[key], want[key]) for key in want)


def test_a_door_comes_back_to_where_it_was_placed() -> None:
    with closing(make("door")) as env:
        first = env.reset(1)
        state = env.state()
        assert not np.array_equal(env.reset(2)["object"], first["object"])
        np.testing.assert_array_equal(env.restore(state)["object"], first["object"])


@pytest.mark.parametrize("task", ["lift", "stack", "can", "square", "door", "two_arm_lift"])
def test_the_expert_solves_its_task(task: str) -> None:
    with closing(make(task)) as env:
        outcome = rollout(env, tasks.expert(env, 0), max_steps=env.config.max_steps, seed=4)
    assert outcome.success and outcome.score == 1.0 and outcome.reason == "success"


def test_the_expert_gives_relative_actions_too() -> None:
    with closing(make(action="osc_delta")) as env:
        assert rollout(env, tasks.expert(env, 0), max_steps=env.config.max_steps, seed=4).success


def test_an_expert_without_joint_angles_says_which_actions_it_gives() -> None:
    with closing(make(action="joint_abs")) as env, pytest.raises(SpecMismatch, match="pose_abs or osc_delta"):
        tasks.expert(env, 0)


def test_reset_leaves_the_callers_random_numbers_alone(lift: RobosuiteEnv) -> None:
    _, before, *_ = np.random.get_state()  # noqa: NPY002
    lift.reset(1)
    _, after, *_ = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(before, after)


def test_an_action_that_does_not_fit_is_refused(lift: RobosuiteEnv) -> None:
    lift.reset(0)
    with pytest.raises(ArrayMismatch, match=r"lift action: want float32\(10,\), got float32\(7,\)"):
        lift.step(np.zeros(7))
    with pytest.raises(ArrayMismatch, match="finite"):
        lift.step(np.full(10, np.nan))


def test_a_state_of_another_body_is_refused(lift: RobosuiteEnv) -> None:
    with pytest.raises(ArrayMismatch, match="another robot's or task's"):
        lift.restore(np.zeros(3))
    with pytest.raises(ArrayMismatch, match=r"\[time, qpos, qvel\] \(32,\), got \(3,\)"):
        lift.restore_legacy(np.zeros(3))


def test_a_rate_that_does_not_divide_the_physics_is_refused() -> None:
    with pytest.raises(ConfigError, match="hz: want a divisor of 500, got 30"):
        make(hz=30.0)


def demo(shared: Path, task: str) -> tuple[np.ndarray, str]:
    """Returns states (steps, 1 + nq + nv) and model of a human demonstration of robosuite 1.0.1."""
    path = shared / "data" / "robosuite_human_demos" / "1.0.1" / task / "panda" / "demo.hdf5"
    with h5py.File(path) as file:
        states = file["data/demo_1/states"][:]
    return states, (path.parent / "models" / "model_1.xml").read_text()


def test_states_recorded_in_2020_are_restored(lift: RobosuiteEnv, shared: Path) -> None:
    states, _ = demo(shared, "lift")
    for row in states[[0, 200, -1]]:
        obs = lift.restore_legacy(row)
        np.testing.assert_allclose(lift.object_poses()["cube"][:3, 3], row[10:13], atol=1e-9)
        np.testing.assert_allclose(obs["object"][:3], row[10:13], atol=1e-6)
    hand = lift.eef_pose()[:3, 3]
    assert np.linalg.norm(hand - states[-1, 10:13]) < 0.03, "the cube is in the hand at the end"


def test_a_recorded_door_stands_where_its_model_has_it(shared: Path) -> None:
    states, xml = demo(shared, "door")
    with closing(make("door")) as env:
        env.restore_legacy(states[-1], xml)
        gap = env.eef_pose()[:3, 3] - env.object_poses()["handle"][:3, 3]
        assert np.linalg.norm(gap) < 0.08, "the hand is at the handle at the end"
        assert env.suite._check_success()
        with pytest.raises(BadInput, match="no body"):
            env.restore_legacy(states[-1], "<mujoco/>")
