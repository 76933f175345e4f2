"""A policy of 3-D points drives a body: the hand's pose becomes points, predicted points become poses (Point Policy, spec 1g)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robolearn import geometry
from robolearn.apps import _deploy_mind as minds
from robolearn.core import ArraySpec, Ask, Chunk, Obs, Spec
from robolearn.data.stats import Stats
from robolearn.errors import SpecMismatch
from robolearn.policies._pointed import Pointed, body_spec, poses_of
from robolearn.rollout import rollout
from robolearn.training.checkpoint import load_driver
from robolearn.video import points3d
from sim_envs import _base
from tests.apps.runs import untrained_for

POINTS = ArraySpec((27,), unit="m")
SPEC = Spec({"points": POINTS}, ArraySpec((28,)), 10.0, codec=points3d.CODEC, execute=4)


class Rises:
    """Plans the points it saw, a centimetre higher every tick, with an error of 2 mm on every one of them; then closes."""

    net = None
    spec = SPEC

    def __init__(self) -> None:
        self.rng, self.tick = np.random.default_rng(0), -1

    def reset_stream(self, i: int, seed: int | None) -> None:
        self.tick = -1

    def observe_stream(self, i: int, obs: Obs, applied: np.ndarray | None) -> None:
        self.tick += 1
        self.points = obs["points"].reshape(9, 3)

    def plan_streams(self, indices: Sequence[int], ask: Ask = Ask()) -> list[Chunk]:
        up = 0.01 * np.arange(1, 5)[:, None, None] * np.array([0.0, 0.0, 1.0])
        points = self.points + up + 0.002 * self.rng.normal(size=(4, 9, 3))
        command = np.array([[-1.0], [-1.0], [1.0], [1.0]])
        return [Chunk(np.concatenate([points.reshape(4, 27), command], axis=1).astype(np.float32), self.tick)]


def test_points_become_poses_and_commands() -> None:
    hand = geometry.pose(np.array([[0.1, 0.2, 0.3]]), geometry.matrix_from_rotvec(np.array([[0.3, -2.0, 0.5]])))
    points = points3d.nine_points(hand, np.array([True])).reshape(1, 27)
    action = poses_of(np.column_stack([points, [0.7]]))
    np.testing.assert_allclose(action[0, :3], hand[0, :3, 3], atol=1e-6)
    np.testing.assert_allclose(geometry.matrix_from_rot6d(action[0, 3:9]), hand[0, :3, :3], atol=1e-6)
    assert action[0, 9] == 1.0


def test_a_body_follows_points_that_rise() -> None:
    body: Any = _base.make("drawer")
    with closing(body):
        body.reset(0)
        before = body.eef_pose()
        policy: Any = Pointed(Rises())  # type: ignore[arg-type]
        assert policy.spec.codec == "pose_abs" and policy.spec.action.shape == (10,)
        rollout(body, policy, max_steps=8, seed=0)
        after = body.eef_pose()
    assert 0.04 < after[2, 3] - before[2, 3] < 0.10 or after[2, 3] > 0.43  # eight ticks of a centimetre, or the ceiling
    assert np.linalg.norm(after[:2, 3] - before[:2, 3]) < 0.01
    assert np.rad2deg(geometry.angle_between(after[:3, :3], before[:3, :3])) < 4.0
    assert body.gripper_open() < 0.5


def test_a_policy_without_points_is_refused() -> None:
    with pytest.raises(SpecMismatch, match="reads 'points', this one track"):
        body_spec(Spec({"track": ArraySpec((10,))}, ArraySpec((11,)), 10.0))


def test_a_run_of_points_is_loaded_and_described_as_what_drives_a_body(tmp_path: Path) -> None:
    wide = lambda n: Stats(min=-np.ones(n), max=np.ones(n), mean=np.zeros(n), std=np.ones(n), count=10)  # noqa: E731
    run = untrained_for(tmp_path / "points", SPEC, {"points": wide(27), "action": wide(28)}, task="drawer")
    driver = load_driver(run, streams=2)
    assert isinstance(driver, Pointed) and driver.spec.codec == "pose_abs"
    described = minds.local(run, "last", "cpu", {}).spec
    assert described.obs == driver.spec.obs and described.action == driver.spec.action and described.codec == "pose_abs"
    body: Any = _base.make("drawer")
    with closing(body):
        body.spec.require(described, who="points")
        outcome = rollout(body, driver, max_steps=3, seed=0)
    assert outcome.steps == 3
