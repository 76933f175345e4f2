"""T10: true future tracks in place of a network's, decoded by the same chain, solve what the demonstration solves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from robolearn.apps import _oracle_tracks as oracle
from robolearn.apps import _two_hands_sets as sets
from robolearn.apps._oracle_tracks import Oracle
from robolearn.video.decoding import Gates
from sim_envs._two_hands import TwoHands

SEEDS = range(50_000, 50_004)


@pytest.fixture(scope="module")
def lift() -> Iterator[TwoHands]:
    with closing(sets.open_bench("reach_lift", {})) as body:
        yield body


@pytest.fixture(scope="module")
def demo(lift: TwoHands) -> sets.Episode:
    found = sets.performed(lift, SEEDS[0])
    assert found.success
    return found


@pytest.mark.parametrize("task", oracle.TASKS)
def test_true_tracks_solve_every_task_as_often_as_the_demonstrations_replay(task: str) -> None:
    """T10 on four scenes a task, exact and with 1 px of noise at 640 px; `oracle_rows` on 100 gives the figures of the docs."""
    rows = oracle.oracle_rows((task,), len(SEEDS), (0.0, 1.0), SEEDS[0])
    assert [row["sigma_px"] for row in rows] == [0.0, 1.0]
    for row in rows:
        assert row["replay_success"] == row["demo_success"] and row["success"] >= row["replay_success"] - 0.05
    assert rows[0]["untrusted_plans"] == 0


def test_noise_that_hides_the_motion_loses_the_task(lift: TwoHands, demo: sets.Episode) -> None:
    hidden = Oracle(sigma_px=60.0, gates=Gates(outlier_px=1e4, reprojection_px=1e4))
    assert not oracle.follow(lift, demo, SEEDS[0], hidden).success


def test_views_that_disagree_stop_the_hand(lift: TwoHands, demo: sets.Episode) -> None:
    """T11: no row of a plan is followed whose points disagree between the views by more than the gate allows."""
    start = lift.reset(SEEDS[0])["eef_pos"]
    found = oracle.follow(lift, demo, SEEDS[0], Oracle(sigma_px=60.0))
    assert found.untrusted >= 3 and not found.success
    assert np.linalg.norm(lift.eef_pose()[:3, 3] - start) < 0.02


def test_a_camera_that_is_calibrated_a_little_wrong_does_not_lose_the_task(lift: TwoHands, demo: sets.Episode) -> None:
    """T11: the bias is in both ends of the motion and mostly cancels."""
    assert oracle.follow(lift, demo, SEEDS[0], Oracle(shift_px=4.0)).success
