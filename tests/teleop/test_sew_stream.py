"""Streams: no step above the cap whatever comes in, calm at poles, back where it began, and a word for every bad input."""

from __future__ import annotations

import numpy as np
import pytest
from sew_targets import ARMS, gap, inside, rotations, units

from robolearn import geometry
from robolearn.errors import BadInput
from robolearn.teleop import robots
from robolearn.teleop.sew import Status, Stream

HZ, MAX_SPEED = 60.0, 3.0
MOST = MAX_SPEED / HZ


def poles(arm_name: str, n: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns a stream through every pole: upper arm along axis 1, straight elbow, hand along the forearm, with 10 mrad noise."""
    arm, rng = robots.arm(arm_name), np.random.default_rng(0)
    h1, out = arm.axes[0], []
    for k in range(n):
        s = 2 * np.pi * k / n
        side = np.cross(h1, arm.axes[1])
        u = np.cos(1.3 * np.sin(s)) * h1 + np.sin(1.3 * np.sin(s)) * side
        low = np.cos(0.8 * np.sin(2 * s)) * u + np.sin(0.8 * np.sin(2 * s)) * np.cross(arm.axes[1], u)
        turn = geometry.matrix_from_rotvec(np.array([0.4 * np.sin(3 * s), 0.3 * np.sin(s), 0.2 * np.cos(2 * s)]))
        out.append((u + rng.normal(0, 0.01, 3), low + rng.normal(0, 0.01, 3), turn @ arm.hand_rotation))
    return out


@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize("eps", [0.0, 0.05, 0.1])
def test_no_step_is_above_the_cap_through_every_pole(name: str, eps: float) -> None:
    arm = robots.arm(name)
    stream = Stream(arm, HZ, MAX_SPEED, eps)
    last = stream.q
    for target in poles(name, 400):
        result = stream.step(*target)
        assert np.abs(result.q - last).max() <= MOST
        assert np.isfinite(result.q).all() and (result.q >= arm.low).all() and (result.q <= arm.high).all()
        last = result.q


@pytest.mark.parametrize("mode", ["axis", "points", "pose"])
def test_a_leap_of_the_target_is_walked_and_arrived_at(mode: str) -> None:
    arm, rng = robots.arm("iiwa"), np.random.default_rng(1)
    stream = Stream(arm, HZ, MAX_SPEED, 0.0, mode)  # type: ignore[arg-type]
    start, goal = np.array([0.3, 0.6, 0.2, 1.2, 0.3, -0.8, 0.1]), np.array([0.8, 0.9, 0.5, 1.5, -0.2, -0.6, 0.6])
    del rng
    stream.reset(start)
    u, low, h = arm.directions(goal)
    statuses = []
    for _ in range(60):
        before = stream.q
        result = stream.step(u, low, h, arm.pose(goal)[:3, 3])
        assert np.abs(result.q - before).max() <= MOST
        statuses.append(result.status)
    assert statuses[0] is Status.LIMITED and statuses[-1] is Status.EXACT
    assert gap(result.q, goal) < 1e-6


@pytest.mark.parametrize("name", ["panda", "iiwa", "gr1_right"])
def test_a_closed_loop_of_targets_ends_where_it_began(name: str) -> None:
    arm, rng = robots.arm(name), np.random.default_rng(2)
    middle = inside(arm, rng, 1)[0] * 0.3 + arm.middle() * 0.7
    stream = Stream(arm, HZ, MAX_SPEED, 0.0)
    stream.reset(middle)
    for s in np.linspace(0, 2 * np.pi, 240):
        result = stream.step(*arm.directions(middle + 0.15 * np.sin(s + np.arange(7)) - 0.15 * np.sin(np.arange(7))))
    assert gap(result.q, middle) < 1e-9


def test_a_pole_is_passed_calmly() -> None:
    """Near the pole of the first two joints the raw solution turns half round in one frame; the damped one does not."""
    arm = robots.arm("iiwa")
    turns = {}
    for eps in (0.0, 0.1):
        stream = Stream(arm, HZ, 100.0, eps)
        stream.reset(np.array([0.0, 0.5, 0.0, 1.0, 0.0, 0.5, 0.0]))
        steps = []
        for angle in np.linspace(0.5, -0.5, 150):
            u = np.array([np.sin(angle), 0.003, np.cos(angle)])
            before = stream.q
            stream.step(u, np.array([1.0, 0.1, 0.2]), np.eye(3))
            steps.append(np.abs(stream.q - before)[:2].max())
        turns[eps] = max(steps)
    assert turns[0.1] < 0.2 and turns[0.1] < turns[0.0] / 3


def test_the_same_target_again_moves_nothing() -> None:
    arm = robots.arm("panda")
    q = np.array([0.2, 0.3, 0.1, -1.8, 0.2, 1.9, 0.4])
    stream = Stream(arm, HZ, MAX_SPEED)
    stream.reset(q)
    for _ in range(50):
        result = stream.step(*arm.directions(q))
    assert gap(result.q, q) < 1e-9


@pytest.mark.parametrize("what", ["nan", "det", "swap", "gap"])
def test_what_is_wrong_with_the_input_holds_the_arm_or_limits_it_and_says_so(what: str) -> None:
    arm = robots.arm("panda")
    q = np.array([0.2, 0.3, 0.1, -1.8, 0.2, 1.9, 0.4])
    stream = Stream(arm, HZ, MAX_SPEED)
    stream.reset(q)
    u, low, h = arm.directions(q)
    stream.step(u, low, h)
    before = stream.q
    if what == "nan":
        result = stream.step(u * np.nan, low, h)
    elif what == "det":
        result = stream.step(u, low, h @ np.diag([1.0, 1.0, -1.0]))
    elif what == "swap":
        result = stream.step(*(a * np.array([1, -1, 1]) for a in (u, low)), h)
    else:  # 300 ms later the hand is elsewhere
        result = stream.step(*arm.directions(q + 0.6))
    assert np.abs(result.q - before).max() <= MOST
    if what in ("nan", "det"):
        assert result.status is Status.HELD and result.why
        np.testing.assert_array_equal(result.q, before)
    else:
        assert result.status in (Status.LIMITED, Status.SINGULAR)


@pytest.mark.parametrize("kwargs", [{"hz": 0}, {"hz": 60, "max_speed": -1}, {"hz": 60, "eps": -0.1}])
def test_a_stream_that_makes_no_sense_is_refused(kwargs: dict[str, float]) -> None:
    with pytest.raises(BadInput, match="retargeting stream"):
        Stream(robots.arm("panda"), **kwargs)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="seven finite"):
        Stream(robots.arm("panda"), 60).reset([np.nan] * 7)


def test_random_targets_never_break_the_cap() -> None:
    rng = np.random.default_rng(3)
    for name in ARMS:
        stream = Stream(robots.arm(name), HZ, MAX_SPEED)
        for u, low, h in zip(units(rng, 60), units(rng, 60), rotations(rng, 60), strict=True):
            before = stream.q
            assert np.abs(stream.step(u, low, h).q - before).max() <= MOST
