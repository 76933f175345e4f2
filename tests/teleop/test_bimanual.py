"""Two arms on one torso: the capsules hold the real shapes, no filter returns a pose that touches, none breaks its promise."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolearn.apps._teleop_bimanual import CAP, HZ, judged, penetration, rolling_punch
from robolearn.errors import UnknownName
from robolearn.teleop import capsules
from robolearn.teleop.bimanual import D_MIN, Filter, Guard, Verdict, shortest_turn
from robolearn.teleop.smooth import Smooth
from robolearn.teleop.torso import Torso, torso

FRAMES = 140  # in which the fists meet three times


@pytest.fixture(scope="module", params=["panda", "iiwa"])
def body(request: pytest.FixtureRequest) -> Torso:
    return torso(request.param)


@given(st.integers(0, 10_000))
def test_the_nearest_points_of_two_segments_are_never_beaten_by_a_grid(seed: int) -> None:
    a0, a1, b0, b1 = np.random.default_rng(seed).normal(size=(4, 1, 3))
    s, t = capsules.closest(a0, a1, b0, b1)
    found = np.linalg.norm(a0 + s[:, None] * (a1 - a0) - b0 - t[:, None] * (b1 - b0))
    grid = np.linspace(0, 1, 41)
    x, y = a0 + grid[:, None] * (a1 - a0), b0 + grid[:, None] * (b1 - b0)
    assert found <= np.linalg.norm(x[:, None] - y[None], axis=-1).min() + 1e-9


def test_both_arms_move_as_mujoco_says(body: Torso) -> None:
    rng, data = np.random.default_rng(0), mujoco.MjData(body.model)
    for _ in range(10):
        q = np.stack([rng.uniform(arm.low, arm.high) for arm in body.arms])
        for side, prefix in enumerate(("right_", "left_")):
            data.qpos[body.qpos_of(side)] = q[side]
            mujoco.mj_kinematics(body.model, data)
            np.testing.assert_allclose(body.keypoints(q)[side, 3], data.body(prefix + "right_hand").xpos, atol=1e-12)


def test_where_the_capsules_are_apart_so_are_the_real_shapes(body: Torso) -> None:
    rng, data, radii = np.random.default_rng(1), mujoco.MjData(body.model), capsules.radii(body)
    apart = touching = 0
    for _ in range(500):
        q = np.stack([rng.uniform(arm.low, arm.high) for arm in body.arms])
        clear = capsules.near(body.keypoints(q), radii).clearance.min()
        deep = penetration(body, data, q)
        touching += deep > 0
        if clear > 0:
            apart += 1
            assert deep == 0.0
    assert apart > 50 and touching > 3


def test_neighbours_are_no_pairs_and_the_rest_are() -> None:
    assert len(capsules.PAIRS) == 15
    assert not {(1, 2), (2, 3), (0, 1), (0, 4), (4, 5), (5, 6)} & set(capsules.PAIRS)


@pytest.fixture(scope="module")
def punches() -> tuple[Torso, np.ndarray, list]:
    body = torso("panda")
    start, goals = rolling_punch(body, FRAMES, 0)
    return body, start, goals


def test_without_a_filter_the_arms_do_collide(punches: tuple) -> None:
    body, start, goals = punches
    assert judged(body, start, goals, "none", lambda goal: goal.q)["penetrating_frames"] > 10


def test_the_published_filter_never_returns_a_pose_that_touches(punches: tuple) -> None:
    body, start, goals = punches
    published, seen = Filter(body, start), set()
    for goal in goals:
        found = published.step(goal)
        seen.add(found.verdict)
        assert found.clearance >= D_MIN - 1e-6
        for side, arm in enumerate(body.arms):
            assert (found.q[side] >= arm.low).all() and (found.q[side] <= arm.high).all()
        assert penetration(body, mujoco.MjData(body.model), found.q) == 0.0
    assert {Verdict.ACCEPTED, Verdict.CORRECTED} <= seen


def test_the_guard_keeps_its_distance_and_its_speed_and_does_not_stand_still(punches: tuple) -> None:
    body, start, goals = punches
    guard = Guard(body, start, HZ, CAP)
    row = judged(body, start, goals, "guard", lambda goal: guard.step(goal).q)
    assert row["penetrating_frames"] == 0
    assert row["largest_step_rad"] <= CAP / HZ + 1e-12
    assert row["held_share"] < 0.1
    assert guard.clearance(guard.q) >= D_MIN - 1e-6


def test_the_smooth_alternative_keeps_apart_within_its_speed(punches: tuple) -> None:
    body, start, goals = punches
    smooth = Smooth(body, start, HZ, CAP)
    row = judged(body, start, goals, "mink", lambda goal: smooth.step(goal).q)
    assert row["penetrating_frames"] == 0 and row["largest_step_rad"] <= CAP / HZ + 1e-6


def test_a_clear_pose_is_not_touched(body: Torso) -> None:
    start, goals = rolling_punch(body, 1, 0)
    found = Filter(body, start).step(goals[0]._replace(q=start))
    assert found.verdict is Verdict.ACCEPTED
    np.testing.assert_array_equal(found.q, start)


@given(st.integers(0, 10_000))
def test_the_shortest_turn_turns_one_direction_onto_the_other(seed: int) -> None:
    a, b = np.random.default_rng(seed).normal(size=(2, 3))
    turned = shortest_turn(a, b) @ a
    np.testing.assert_allclose(turned / np.linalg.norm(a), b / np.linalg.norm(b), atol=1e-9)


def test_an_arm_that_is_not_there_is_named() -> None:
    with pytest.raises(UnknownName, match="panda"):
        torso("pandas")
