"""The tracker keeps speed, acceleration, jerk and range whatever the targets do, arrives, and stops in the least time."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn.errors import ArrayMismatch, BadInput, MissingDependency
from robolearn.runtime.filters import Chain, Result
from robolearn.runtime.limits import Limits, defaults
from robolearn.runtime.tracker import Tracker

pytest.importorskip("ruckig")
DT = 0.01
OFF = ("workspace", "effort", "temperature", "collision")


def arm(*off: str) -> Limits:
    return defaults(("a", "b"), (-1.0, -0.3), (1.0, 0.4), (2.0, 1.0), without=(*OFF, *off))


def tracker(limits: Limits | None = None, q: Any = (0.0, 0.0), period_s: float = DT) -> Tracker:
    made = Tracker(limits or arm(), period_s)
    made.reset(np.array(q))
    return made


def rates(path: list[np.ndarray], period_s: float) -> list[np.ndarray]:
    """Returns the largest speed, acceleration and jerk (2,) each of a path, by its differences."""
    return [np.abs(np.diff(path, k, axis=0)).max(axis=0) / period_s**k for k in (1, 2, 3)]


target = st.floats(-1.29, 1.39)
speed = st.floats(-3, 3) | st.sampled_from([1e308, -1e308])
phase = st.tuples(st.sampled_from(["step", "step", "moving", "stop"]), target, target, speed, speed, st.integers(1, 30))


@given(st.lists(phase, min_size=1, max_size=6), st.sampled_from([0.004, DT, 0.02]), st.sampled_from([(), ("jerk",)]))
@settings(max_examples=25)
def test_no_sequence_of_targets_breaks_speed_acceleration_jerk_or_range(
    phases: list[Any], period_s: float, off: tuple[str, ...]
) -> None:
    limits = arm(*off)
    follower, bounds = tracker(limits, period_s=period_s), limits.bounds
    chain, now_s = Chain(limits, period_s), 0.0
    chain.reset(np.zeros(2), now_s)
    path = [np.zeros(2)] * 3
    for what, a, b, c, d, ticks in phases:
        for _ in range(ticks):
            if what == "stop":
                path.append(follower.stop())
            else:
                path.append(follower.step(np.array([a, b]), np.array([c, d]) if what == "moving" else None))
            now_s += period_s
            assert chain.filter(path[-1], None, now_s, now_s).result is Result.PASS, "the filters leave a tracked path alone"
    assert np.all(np.array(path) >= bounds.soft_lower - 1e-8) and np.all(np.array(path) <= bounds.soft_upper + 1e-8)
    for rate, most in zip(rates(path, period_s), (bounds.velocity, bounds.acceleration, bounds.jerk), strict=True):
        assert np.all(rate <= most * (1 + 1e-6) + 1e-6)


def test_a_target_that_stays_is_reached_in_the_least_time_without_overshoot() -> None:
    follower = tracker()
    path = [follower.step(np.array([0.8, 0.1])) for _ in range(80)]
    np.testing.assert_allclose(path[-1], [0.8, 0.1], atol=1e-12)
    assert follower.at_rest and np.array(path)[:, 0].max() <= 0.8 + 1e-12
    # v = 2, a = 10, j = 100: 0.8 / v + v / a + a / j seconds
    first = next(k for k, q in enumerate(path) if abs(q[0] - 0.8) < 1e-9)
    assert (first + 1) * DT == pytest.approx(0.4 + 0.2 + 0.1, abs=DT)


def test_a_jump_of_the_target_in_full_motion_leaves_no_jump_in_the_path() -> None:
    follower = tracker()
    path = [follower.step(np.array([0.9, 0.3])) for _ in range(25)]
    path += [follower.step(np.array([-0.9, -0.2])) for _ in range(160)]
    speed, pull, jolt = rates(path, DT)
    bounds = arm().bounds
    assert np.all(speed <= bounds.velocity * (1 + 1e-6)) and np.all(pull <= bounds.acceleration * (1 + 1e-6))
    assert np.all(jolt <= bounds.jerk * (1 + 1e-6))
    np.testing.assert_allclose(path[-1], [-0.9, -0.2], atol=1e-9)


def test_a_moving_target_is_followed_without_lag_where_its_speed_is_told() -> None:
    told, untold = tracker(), tracker()
    for k in range(1, 120):
        target, speed = np.array([0.6 * np.sin(k * DT), 0.0]), np.array([0.6 * np.cos(k * DT), 0.0])
        with_speed, without = told.step(target, speed), untold.step(target)
    assert abs(with_speed - target)[0] < 0.01 < abs(without - target)[0]


@pytest.mark.parametrize("v", [0.5, 1.0, 1.5])
def test_a_target_that_moves_off_is_caught_without_a_run_up(v: float) -> None:
    told, untold = tracker(q=(-0.9, 0.0)), tracker(q=(-0.9, 0.0))
    path, lags = [told.q], []
    for k in range(1, 91):
        target = np.array([-0.9 + v * k * DT, 0.0])
        path.append(told.step(target, np.array([v, 0.0])))
        lags.append((target - path[-1])[0])
        untold_lag = (target - untold.step(target))[0]
    assert np.all(np.diff(np.array(path)[:, 0]) >= 0)  # it never goes the other way first
    assert lags[-1] == pytest.approx(-v * DT, abs=1e-9)  # it is where the target will be at the period's end
    assert untold_lag > 0.03 and max(lags) < 2 * untold_lag


@pytest.mark.parametrize("v", [0.5, 1.5, 2.0])
def test_a_chase_does_not_run_through_the_end_of_the_range(v: float) -> None:
    follower = tracker()
    for k in range(1, 120):
        target = np.array([min(0.6 + v * k * DT, 0.95), 0.0])  # far ahead, and it stops at the end at once
        q = follower.step(target, np.array([v if target[0] < 0.95 else 0.0, 0.0]))
        assert q[0] <= 0.95 + 1e-9
    assert follower.at_rest and q[0] == pytest.approx(0.95)


def test_a_stop_in_full_motion_ends_at_rest_in_the_time_that_the_limits_allow() -> None:
    follower = tracker()
    while follower.qd[0] < 1.9:
        follower.step(np.array([0.95, 0.0]))
    v, a, pull = follower.qd[0], 10.0, follower.qdd[0]
    allowed_s = v / a + a / 100.0 + 2 * abs(pull) / 100.0 + 2 * DT
    ticks = 0
    while not follower.at_rest:
        follower.stop()
        ticks += 1
        assert ticks * DT <= allowed_s
    here = follower.q.copy()
    np.testing.assert_array_equal(follower.stop(), here)
    np.testing.assert_allclose(follower.step(np.array([0.5, 0.0])), here, atol=1e-3)


@pytest.mark.parametrize("target", [[np.nan, 0.0], [np.inf, 0.0], [0.0], [[0.0, 0.0]], "left", None])
def test_a_target_that_is_none_is_refused_and_the_reference_stays_what_it_was(target: Any) -> None:
    follower, other = tracker(), tracker()
    for _ in range(10):
        follower.step(np.array([0.5, 0.1]))
        other.step(np.array([0.5, 0.1]))
    with pytest.raises(ArrayMismatch, match="tracker: target: want 2 finite numbers, got"):
        follower.step(target)
    with pytest.raises(ArrayMismatch, match="tracker: target_qd: want 2 finite numbers, got"):
        follower.step(np.zeros(2), np.array([0.0, np.nan]))
    np.testing.assert_array_equal(follower.q, other.q)
    np.testing.assert_array_equal(follower.step(np.array([0.5, 0.1])), other.step(np.array([0.5, 0.1])))


def test_from_outside_the_range_it_comes_back_and_goes_no_farther() -> None:
    follower = tracker(q=(1.2, 0.0))
    path = [follower.step(np.array([1.5, 0.0])) for _ in range(20)] + [follower.step(np.array([0.0, 0.0])) for _ in range(120)]
    assert np.array(path)[:, 0].max() <= 1.2
    np.testing.assert_allclose(path[-1], 0.0, atol=1e-9)


def test_a_target_passed_at_speed_at_the_end_of_the_range_is_not_run_through() -> None:
    follower = tracker()
    for _ in range(200):
        q = follower.step(np.array([0.94, 0.0]), np.array([2.0, 0.0]))
        assert q[0] <= 0.95 + 1e-9


def test_a_reset_starts_at_rest_somewhere_else() -> None:
    follower = tracker()
    for _ in range(30):
        follower.step(np.array([0.9, 0.0]))
    follower.reset(np.array([-0.5, 0.1]))
    assert follower.at_rest
    np.testing.assert_allclose(follower.step(np.array([-0.5, 0.1])), [-0.5, 0.1], atol=1e-12)


def test_a_target_in_degrees_is_refused_and_not_walked_to_the_end_of_the_range() -> None:
    follower = tracker()
    with pytest.raises(ArrayMismatch, match=r"tracker: target: a is 45, its hard range is .* are these degrees\? want radians"):
        follower.step(np.array([45.0, 10.0]))
    assert follower.at_rest and follower.q[0] == 0.0


def test_from_an_adopted_state_it_goes_on_without_a_jump() -> None:
    follower, bounds = tracker(), arm().bounds
    q, qd, qdd = np.array([0.2, 0.1]), np.array([1.0, -0.4]), np.array([-3.0, 0.0])
    follower.adopt(q, qd, qdd)
    path = [q - qd * DT, q] + [follower.step(np.array([0.9, 0.3])) for _ in range(80)]
    np.testing.assert_allclose(path[2], q + qd * DT + qdd * DT**2, atol=2e-5)
    speed, pull, _ = rates(path, DT)
    assert np.all(speed <= bounds.velocity * 1.001) and np.all(pull <= bounds.acceleration * 1.001)
    np.testing.assert_allclose(path[-1], [0.9, 0.3], atol=1e-9)
    follower.adopt(q, np.array([9.0, 0.0]), np.array([0.0, 99.0]))
    np.testing.assert_array_equal([follower.qd[0], follower.qdd[1]], [2.0, 5.0])
    with pytest.raises(ArrayMismatch, match="tracker: qd: want 2 finite numbers"):
        follower.adopt(q, np.array([np.nan, 0.0]), qdd)


def test_a_tracker_that_adopts_what_was_sent_passes_again_at_once_after_a_cut() -> None:
    chain, follower, now_s = Chain(arm(), DT), tracker(), 0.0
    chain.reset(np.zeros(2), now_s)
    found = []
    for k in range(120):
        now_s += DT
        asked = np.array([np.nan, 0.0]) if 20 <= k < 24 else follower.step(np.array([0.9, 0.3]))
        found.append(chain.filter(asked, None, now_s, now_s).result)
        if found[-1] is not Result.PASS:
            follower.adopt(chain.sent.q, chain.sent.qd, chain.sent.qdd)
    assert found == [Result.PASS] * 20 + [Result.REJECT] * 4 + [Result.PASS] * 96
    np.testing.assert_allclose(follower.q, [0.9, 0.3], atol=1e-9)


def test_what_ruckig_cannot_solve_becomes_a_stop_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    follower = tracker()
    for _ in range(20):
        follower.step(np.array([0.9, 0.0]))
    inner = follower._otg

    class Stubborn:
        """Solves stops only."""

        def update(self, given: Any, out: Any) -> int:
            position = given.control_interface == follower._lib.ControlInterface.Position
            return -110 if position else int(inner.update(given, out))

        def reset(self) -> None:
            inner.reset()

    monkeypatch.setattr(follower, "_otg", Stubborn())
    path = [follower.q] + [follower.step(np.array([0.9, 0.0])) for _ in range(60)]
    assert follower.unsolved == 60 and follower.at_rest
    assert all(rate[0] <= most * (1 + 1e-6) for rate, most in zip(rates(path, DT), (2.0, 10.0, 100.0), strict=True))
    monkeypatch.setattr(Stubborn, "update", lambda self, given, out: -110)
    with pytest.raises(BadInput, match=r"tracker: Ruckig finds no way to stop from .*: reset it to a pose"):
        follower.stop()


def test_what_it_cannot_be_made_of_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="tracker: it needs a limit of velocity, which is switched off"):
        Tracker(arm("velocity"), DT)
    with pytest.raises(BadInput, match="tracker: want a finite period above 0"):
        Tracker(arm(), 0.0)
    with pytest.raises(BadInput, match="reset it to the measured pose before the first target"):
        Tracker(arm(), DT).step(np.zeros(2))
    with pytest.raises(BadInput, match="reset it to the measured pose before it is stopped"):
        Tracker(arm(), DT).stop()
    monkeypatch.setitem(sys.modules, "ruckig", None)
    with pytest.raises(MissingDependency, match=r"ruckig is not installed.*pip install 'robolearn\[deploy\]'"):
        Tracker(arm(), DT)
