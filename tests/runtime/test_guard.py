"""The guard of an arm: smooth where it may be, cut where it must be, and never anything that no motor may see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn.runtime.filters import Chain, Filtered, Measured, Result
from robolearn.runtime.guard import Guard
from robolearn.runtime.limits import Limits, defaults

pytest.importorskip("ruckig", reason="the tracker of setpoints; pip install 'robolearn[deploy]'")
PERIOD_S = 0.01
WITHOUT = ("workspace", "collision", "effort", "temperature")
LIMITS = defaults(("a", "b"), (-2.0, -2.0), (2.0, 2.0), (1.0, 1.0), without=WITHOUT)


def guard(limits: Limits = LIMITS) -> Guard:
    made = Guard(Chain(limits, PERIOD_S), PERIOD_S)
    made.reset(np.zeros(2), 0.5, 0.0)
    return made


def drive(made: Guard, targets: list[Any], aperture: Any = None) -> np.ndarray:
    """Returns what was sent (n, 2), one period a target."""
    sent = []
    for k, target in enumerate(targets, start=1):
        here = made.chain.sent.q
        sent.append(made.towards(target, aperture, None, Measured(here), k * PERIOD_S).q)
    return np.array(sent)


def test_a_far_target_is_approached_within_the_limits_and_reached() -> None:
    made = guard()
    sent = drive(made, [np.array([0.5, -0.5])] * 300)
    np.testing.assert_allclose(sent[-1], [0.5, -0.5], atol=1e-6)
    speed = np.diff(np.vstack([np.zeros(2), sent]), axis=0) / PERIOD_S
    bounds = LIMITS.bounds
    assert np.abs(speed).max() <= bounds.velocity.max() * (1 + 1e-6)
    assert np.abs(np.diff(speed, axis=0)).max() / PERIOD_S <= bounds.acceleration.max() * (1 + 1e-3)
    assert made.chain.counts["clamp"] == 0  # the chain has nothing to cut in what the tracker makes


def test_a_target_beyond_the_range_is_followed_to_its_soft_end_only() -> None:
    made = guard()
    sent = drive(made, [np.array([2.4, 0.0])] * 600)
    assert sent[:, 0].max() <= 2.0 - LIMITS.soft_margin + 1e-9


def test_what_the_tracker_keeps_back_is_told() -> None:
    made = guard()
    far = made.towards(np.array([1.5, 0.0]), None, None, Measured(np.zeros(2)), PERIOD_S)
    assert (far.result, far.which) == (Result.CLAMP, ("velocity",)) and far is made.last and far.why == "cut by velocity"
    made = guard()
    near = made.towards(np.array([0.009, 0.0]), None, None, Measured(np.zeros(2)), PERIOD_S)
    assert (near.result, near.which) == (Result.PASS, ())  # it is there within a period at top speed, or nearly
    beyond = drive_to(made, np.array([1.955, 0.0]))
    assert (beyond.result, beyond.which) == (Result.CLAMP, ("position",))


def test_a_target_that_is_followed_is_not_called_cut() -> None:
    made = guard()
    for k in range(1, 150):
        t = k * PERIOD_S
        q, qd = np.array([0.3 * (1 - np.cos(2 * t)), 0.0]), np.array([0.6 * np.sin(2 * t), 0.0])
        assert made.towards(q, None, qd, Measured(made.chain.sent.q), t).result is Result.PASS


def drive_to(made: Guard, target: np.ndarray) -> Filtered:
    """Returns what became of a target at the end of the way to it."""
    for k in range(2, 500):
        left = made.towards(target, None, None, Measured(made.chain.sent.q), k * PERIOD_S)
    return left


def test_a_stop_ramps_to_rest() -> None:
    made = guard()
    drive(made, [np.array([1.5, 0.0])] * 60)
    steps, resting, k = [made.chain.sent.q], False, 60
    while not resting and k < 400:
        k += 1
        left, resting = made.rest(Measured(steps[-1]), k * PERIOD_S)
        steps.append(left.q)
    assert resting
    speed = np.diff(steps, axis=0)[:, 0] / PERIOD_S
    assert speed[0] > 0.5 and abs(speed[-1]) < 0.05 and (np.diff(speed) <= 1e-9).all()


@pytest.mark.parametrize(
    "bad", [np.full(2, np.nan), np.array([0.0, np.inf]), np.zeros(3), np.array([90.0, 45.0]), "left", None, 7]
)
def test_what_is_no_setpoint_is_refused_and_becomes_a_brake(bad: Any) -> None:
    made = guard()
    drive(made, [np.array([1.0, 0.0])] * 40)
    left = made.towards(bad, None, None, Measured(made.chain.sent.q), 41 * PERIOD_S)
    assert left.result is Result.REJECT and left.why and np.isfinite(left.q).all()
    after = drive_on(made, np.array([1.0, 0.0]), 42)
    np.testing.assert_allclose(after, [1.0, 0.0], atol=1e-5)  # it goes on from what was sent


def drive_on(made: Guard, target: np.ndarray, k: int) -> np.ndarray:
    for i in range(k, k + 400):
        left = made.towards(target, None, None, Measured(made.chain.sent.q), i * PERIOD_S)
    return left.q


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.one_of(st.tuples(st.floats(), st.floats()), st.tuples(st.floats(-3, 3), st.floats(-3, 3))), min_size=5, max_size=25
    )
)
def test_whatever_comes_in_what_goes_out_is_finite_in_range_and_no_faster(targets: list[tuple[float, float]]) -> None:
    sent = drive(guard(), [np.array(target) for target in targets])
    assert np.isfinite(sent).all() and np.abs(sent).max() <= 2.0
    assert np.abs(np.diff(np.vstack([np.zeros(2), sent]), axis=0)).max() <= PERIOD_S * LIMITS.bounds.velocity.max() * (1 + 1e-6)


def test_a_temperature_limit_wants_a_temperature() -> None:
    made = guard(defaults(("a", "b"), (-2.0, -2.0), (2.0, 2.0), (1.0, 1.0), max_temperature=60.0, without=WITHOUT[:3]))
    assert made.towards(np.zeros(2), None, None, Measured(np.zeros(2)), PERIOD_S).result is Result.REJECT
    made.temperature = np.array([40.0, 40.0])
    assert made.towards(np.zeros(2), None, None, Measured(np.zeros(2)), 2 * PERIOD_S).result is Result.PASS


def test_the_filters_are_named() -> None:
    assert {"finite", "position", "velocity", "jerk", "step"} <= set(guard().filters)
