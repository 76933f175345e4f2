"""The two-embodiment bench: its tasks are solved by their motion and by nothing else, and both embodiments share the physics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import pytest

from robolearn import geometry
from robolearn.core import Obs
from robolearn.errors import ArrayMismatch, ConfigError
from robolearn.rollout import rollout
from sim_envs import _base as tasks
from sim_envs import _two_hands
from sim_envs._two_hands import HELD, HZ, TwoHands
from sim_envs.tasks import drawer

NAMES = ("drawer", "fork_plate", "reach_lift")
EXPERT_SHARE = {"drawer": 0.95, "fork_plate": 0.9, "reach_lift": 0.9}
DEVELOPMENT = 50_000
every_task = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def bodies() -> Iterator[dict[str, TwoHands]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(closing(tasks.make(name))) for name in NAMES}  # type: ignore[misc]


def demonstrated(body: TwoHands, seed: int) -> tuple[list[Obs], list[np.ndarray], bool]:
    """Returns what the expert saw, what it did, and whether that was a success."""
    policy, obs = tasks.expert(body, seed), body.reset(seed)
    policy.reset(seed)
    policy.observe(obs, None)
    seen, done, success = [obs], [], False
    for _ in range(body.config.max_steps):
        done.append(policy.plan().actions[0])
        step = body.step(done[-1])
        seen.append(step.obs)
        policy.observe(step.obs, step.filtered)
        if step.terminated:
            success = True
            break
    return seen, done, success


def pose_action(world_from_hand: np.ndarray, grip: float) -> np.ndarray:
    turned = geometry.rot6d_from_matrix(world_from_hand[:3, :3])
    return np.concatenate([world_from_hand[:3, 3], turned, [grip]]).astype(np.float32)


def solved_share(body: TwoHands, seeds: range) -> float:
    outcomes = [rollout(body, tasks.expert(body, seed), max_steps=body.config.max_steps, seed=seed) for seed in seeds]
    return sum(bool(outcome.success) for outcome in outcomes) / len(outcomes)


@every_task
def test_the_expert_solves_it(bodies: dict[str, TwoHands], name: str) -> None:
    assert solved_share(bodies[name], range(DEVELOPMENT, DEVELOPMENT + 8)) >= EXPERT_SHARE[name]


@pytest.mark.slow
@every_task
def test_the_expert_solves_nearly_all_of_fifty_scenes(bodies: dict[str, TwoHands], name: str) -> None:
    assert solved_share(bodies[name], range(DEVELOPMENT, DEVELOPMENT + 50)) >= EXPERT_SHARE[name]


@every_task
def test_who_does_nothing_or_anything_solves_nothing(bodies: dict[str, TwoHands], name: str) -> None:
    body = bodies[name]
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        for anything in (False, True):
            body.reset(seed)
            home, success = body.eef_pose(), False
            for tick in range(40):
                if anything and tick % 5 == 0:
                    home = geometry.pose(rng.uniform(_two_hands.LOW, _two_hands.HIGH), home[:3, :3])
                success |= bool(body.step(pose_action(home, rng.choice((-1.0, 1.0)) if anything else -1.0)).success)
            assert not success


def test_equal_actions_give_both_embodiments_bit_equal_physics() -> None:
    with closing(tasks.make("reach_lift")) as robot, closing(tasks.make("reach_lift", {"embodiment": "human"})) as human:
        _, done, _ = demonstrated(robot, 3)  # type: ignore[arg-type]
        states = []
        for body in (robot, human):
            body.reset(3)
            states.append([body.step(action) and body.state() for action in done])
        np.testing.assert_array_equal(*states)
        assert np.array_equal(human.restore(robot.state())["object"], robot.restore(robot.state())["object"])


def test_the_drawers_two_directions_mirror_each_other_and_need_different_motions() -> None:
    made: dict[str, Any] = {side: tasks.make("drawer", {"direction": side}) for side in drawer.SIDES}
    ways, acted = {}, {}
    for side, body in made.items():
        seen, acted[side], success = demonstrated(body, 5)
        assert success and drawer.direction(body) == drawer.SIDES[side]
        ways[side] = np.array([obs["eef_pos"][0] for obs in seen])
    left, right = ways["left"], ways["right"]
    assert right.max() > 0.2 and right.min() > -0.1 and left.min() < -0.2 and left.max() < 0.1
    other = made["left"]
    before = drawer.pulled_out(other) if other.reset(5) else 0.0
    assert not any(other.step(action).success for action in acted["right"])
    assert drawer.pulled_out(other) == pytest.approx(before, abs=1e-3)  # not even touched
    for body in made.values():
        body.close()


def test_the_direction_is_seen_in_the_first_observation_and_follows_the_seed() -> None:
    with closing(tasks.make("drawer")) as body:
        sides = [np.sign(body.reset(seed)["object"][-1]) for seed in range(20)]
        assert sides == [drawer.direction(body) if body.reset(seed) else 0 for seed in range(20)]
        assert 4 <= sum(side > 0 for side in sides) <= 16


def test_a_restored_drawer_stops_on_the_side_of_the_restored_episode() -> None:
    with closing(tasks.make("drawer", {"direction": "left"})) as left, closing(tasks.make("drawer")) as either:
        left.reset(0)
        kept = left.state()
        either.reset(next(seed for seed in range(20) if either.reset(seed)["object"][-1] > 0))
        either.restore(kept)
        assert drawer.direction(either) == -1  # type: ignore[arg-type]
        np.testing.assert_array_equal(either.model.joint("drawer").range, [-0.2, 0.0])  # type: ignore[attr-defined]


def test_a_block_is_held_by_friction_and_falls_when_the_fingers_open(bodies: dict[str, TwoHands]) -> None:
    body = bodies["reach_lift"]
    _, _, success = demonstrated(body, 1)
    lifted = body.object_poses()["block"][2, 3]
    assert success and lifted > 0.12
    still = body.eef_pose()
    for _ in range(10):
        body.step(pose_action(still, 0.0))  # 0 leaves the fingers closed
    assert body.object_poses()["block"][2, 3] == pytest.approx(lifted, abs=0.02)
    for _ in range(5):
        body.step(pose_action(still, -1.0))
    assert body.object_poses()["block"][2, 3] < 0.03


def test_success_must_last(bodies: dict[str, TwoHands]) -> None:
    body = bodies["drawer"]
    body.reset(0)
    far = pose_action(geometry.pose([0.0, 0.2, 0.4], body.eef_pose()[:3, :3]), -1.0)
    body.data.joint("drawer").qpos[0] = 0.0  # shut by nobody
    assert [bool(body.step(far).success) for _ in range(HELD)] == [False] * (HELD - 1) + [True]


def test_the_gripper_reaches_an_asked_pose_no_faster_than_allowed(bodies: dict[str, TwoHands]) -> None:
    body = bodies["reach_lift"]
    obs = body.reset(0)
    turned = geometry.matrix_from_rotvec([0.3, -0.2, 0.4]) @ body.eef_pose()[:3, :3]
    wanted = geometry.pose([0.2, -0.15, 0.3], turned)
    steps = []
    for _ in range(14):
        after = body.step(pose_action(wanted, -1.0)).obs
        steps.append(np.linalg.norm(after["eef_pos"] - obs["eef_pos"]))
        obs = after
    assert max(steps) < 1.1 * _two_hands.FASTEST / HZ
    assert np.linalg.norm(body.eef_pose()[:3, 3] - wanted[:3, 3]) < 1e-3
    assert geometry.angle_between(body.eef_pose()[:3, :3], turned) < 0.01
    reached = geometry.matrix_from_quat_wxyz(obs["eef_quat_wxyz"])
    assert geometry.angle_between(reached, body.eef_pose()[:3, :3]) < 1e-3


def test_an_action_outside_the_space_is_brought_back_and_said_so(bodies: dict[str, TwoHands]) -> None:
    body = bodies["reach_lift"]
    body.reset(0)
    beyond = geometry.pose([2.0, 0.0, -1.0], body.eef_pose()[:3, :3])
    step = body.step(pose_action(beyond, 3.0))
    np.testing.assert_allclose(step.filtered[:3], [_two_hands.HIGH[0], 0.0, _two_hands.LOW[2]])
    assert step.filtered[9] == 1.0


def test_what_does_not_fit_is_refused_by_name(bodies: dict[str, TwoHands]) -> None:
    with pytest.raises(ConfigError, match=r"unknown camera 'top' \(known: left, right\)"):
        tasks.make("drawer", {"cameras": ["top"]})
    with pytest.raises(ArrayMismatch, match="drawer state: want"):
        bodies["drawer"].restore(np.zeros(3))
