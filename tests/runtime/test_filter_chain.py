"""Nothing bad reaches the motors, whatever comes in; what is well passes bit for bit; and the chain says which limit did what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from chain_loop import DT, OFF, Loop, arm, planar
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn.errors import BadInput
from robolearn.runtime.filters import Chain, Measured, Result, Sent, Tick, filters_of
from robolearn.runtime.limits import Plane


def smooth(ticks: int) -> np.ndarray:
    """Returns a path (ticks, 2) well inside all limits, from rest at 0."""
    t = np.arange(1, ticks + 1) * DT
    return np.stack([0.3 * (1 - np.cos(1.5 * t)) ** 2, -0.15 * (1 - np.cos(1.5 * t)) ** 2], axis=1)


def test_the_order_of_the_filters_is_the_declared_one() -> None:
    limits = arm(without=(), max_effort=(9.0, 9.0), max_temperature=70.0, planes=(Plane((0, 0, 1), 0.0),))
    order = [name for name, _ in filters_of(limits, points=np.zeros, safe_share=lambda a, b: 1.0)]
    want = "finite shape unit age position workspace rate aperture collision effort temperature step"
    assert order == want.split()


def test_a_path_inside_the_limits_passes_bit_for_bit() -> None:
    loop = Loop(arm())
    for q in smooth(300):
        done = loop.send(q)
        assert done.result is Result.PASS and done.which == () and done.why == ""
        np.testing.assert_array_equal(done.q, q)
    assert loop.chain.counts["pass"] == 300 and sum(loop.chain.counts.values()) == 300


@pytest.mark.parametrize(
    ("q", "aperture", "which", "why"),
    [
        ([np.nan, 0], None, "finite", "not finite: q \\[nan  0.\\]"),
        ([0, -np.inf], None, "finite", "not finite"),
        ([0, 0], np.nan, "finite", "aperture nan"),
        ([0, 0, 0], None, "shape", "want 2 joints, got an array of shape \\(3,\\)"),
        ([[0, 0]], None, "shape", "shape \\(1, 2\\)"),
        (0.0, None, "shape", "shape \\(\\)"),
        ("left", None, "shape", "want 2 numbers, got str"),
        (None, None, "finite", "not finite"),
        ([0, 0], "wide", "shape", "'wide'"),
        ([[0], [0, 0]], None, "shape", "want 2 numbers, got list"),
        ([90.0, -60.0], None, "unit", "shoulder is 90, its hard range is -2.000 .. 2.000 rad: are these degrees\\? want radians"),
        ([0.0, 1e308], None, "unit", "no angle of this arm"),
    ],
)
def test_what_is_no_setpoint_is_refused_by_name_and_the_arm_stays(q: Any, aperture: Any, which: str, why: str) -> None:
    loop = Loop(arm(), start=(0.3, 0.2))
    done = loop.send(q, aperture)
    assert done.result is Result.REJECT and done.which == (which,)
    np.testing.assert_array_equal(done.q, [0.3, 0.2])
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(done.why)
    assert loop.chain.counts[which] == loop.chain.counts["reject"] == 1


def test_degrees_are_refused_wherever_they_are_far_outside_and_never_where_they_could_be_radians() -> None:
    for pose in ([0.5, -0.4], [1.2, 1.0], [-1.9, 0.1]):
        assert Loop(arm()).send(np.rad2deg(pose)).which == ("unit",)
    assert Loop(arm()).send([2.5, 0.0]).result is Result.CLAMP, "a little outside is cut"


def test_a_setpoint_for_other_joints_or_in_another_order_is_refused() -> None:
    assert Loop(arm()).send([0, 0], names=("shoulder", "elbow")).result is Result.PASS
    done = Loop(arm()).send([0, 0], names=("elbow", "shoulder"))
    assert done.which == ("shape",) and "got ('elbow', 'shoulder')" in done.why


@pytest.mark.parametrize(("age_s", "why"), [(0.11, "too old: made 0.110 s ago"), (-0.2, "another clock"), (np.nan, "too old")])
def test_a_setpoint_of_another_time_is_refused(age_s: float, why: str) -> None:
    done = Loop(arm()).send([0, 0], age_s=age_s)
    assert done.which == ("age",) and why in done.why
    assert Loop(arm()).send([0, 0], age_s=0.09).result is Result.PASS
    assert Loop(arm(without=(*OFF, "age"))).send([0, 0], age_s=age_s).result is Result.PASS


def test_a_far_setpoint_is_walked_to_inside_speed_and_acceleration_and_hardly_overshot() -> None:
    loop = Loop(arm())
    first = loop.send([1.0, -1.0])
    assert first.result is Result.CLAMP and first.which == ("velocity", "acceleration", "jerk")
    assert first.why == "cut by velocity, acceleration, jerk"
    for _ in range(200):
        loop.send([1.0, -1.0])
    path, speed, pull = loop.rates()
    np.testing.assert_allclose(path[-1], [1.0, -1.0], atol=1e-9)
    assert path[:, 0].max() <= 1.0 + 1e-3 and path[:, 1].min() >= -1.0 - 1e-3
    bounds = loop.chain.limits.bounds
    assert np.all(np.abs(speed).max(0) <= bounds.velocity * (1 + 1e-6)) and np.all(
        np.abs(pull).max(0) <= bounds.acceleration * 1.001
    )
    start = np.diff(path[:8], 3, axis=0) / DT**3
    assert np.all(np.abs(start) <= bounds.jerk * 1.001), "the jerk is kept where the arm speeds up"


def test_setpoints_outside_end_at_the_soft_range() -> None:
    loop = Loop(arm())
    for _ in range(400):
        done = loop.send([2.4, -1.9])
    np.testing.assert_allclose(done.q, [1.95, -1.45], atol=1e-6)
    assert "position" in done.which


def test_an_arm_that_starts_outside_may_stay_or_come_back_but_not_go_farther() -> None:
    loop = Loop(arm(), start=(2.1, 0.0))
    assert loop.send([2.1, 0.0]).result is Result.PASS
    for _ in range(30):
        loop.send([2.3, 0.0])
    assert np.array(loop.q)[:, 0].max() <= 2.1
    for _ in range(100):
        loop.send([1.0, 0.0])
    assert loop.q[-1][0] == pytest.approx(1.0)


def test_a_refused_setpoint_in_full_motion_becomes_a_brake_and_not_a_jolt() -> None:
    loop = Loop(arm())
    for _ in range(40):
        loop.send([1.9, 0.0])
    for _ in range(60):
        done = loop.send([np.nan, 0.0])
        assert np.isfinite(done.q).all()
    _, speed, pull = loop.rates()
    assert speed[39, 0] > 1.5 and speed[-1, 0] == 0.0
    assert np.abs(pull[39:]).max() <= loop.chain.limits.bounds.acceleration[0] * 1.001


def test_a_stop_that_was_forced_is_over_when_it_is_done() -> None:
    loop = Loop(arm(without=OFF[:3]), safe_share=lambda a, b: 1.0 if b[0] <= 0.4 else 0.0)
    while loop.q[-1][0] < 0.38:
        loop.send([1.9, 0.0])
    while loop.q[-1][0] > loop.q[-2][0]:
        loop.send([1.9, 0.0])
    stood = loop.chain.sent
    assert stood.qd[0] == stood.qdd[0] == 0.0
    here = loop.q[-1]
    assert loop.send(here).result is Result.PASS, "it is not asked to go on braking"


def test_three_refusals_in_a_row_want_a_hold_and_a_good_setpoint_ends_it() -> None:
    loop = Loop(arm())
    for k in range(3):
        assert not loop.chain.wants_hold
        loop.send([np.nan, 0])
        assert loop.chain.wants_hold == (k == 2)
    loop.send([0.0, 0.0])
    assert not loop.chain.wants_hold
    for _ in range(6):  # every third one bad is no reason to hold
        loop.send([np.nan, 0])
        loop.send([0, 0])
        loop.send([0, 0])
        assert not loop.chain.wants_hold


def test_half_a_second_of_cuts_is_a_warning_until_something_passes() -> None:
    loop = Loop(arm())
    for _ in range(50):
        loop.send([1.99, 0.0])
        assert not loop.chain.sustained(loop.now_s)
    for _ in range(3):
        loop.send([1.99, 0.0])
    assert loop.chain.sustained(loop.now_s)
    loop.send(loop.q[-1] + (loop.q[-1] - loop.q[-2]))
    assert not loop.chain.sustained(loop.now_s)


@pytest.mark.parametrize("q", [[0.021, 0.0], [0.0, -0.011], [2.01, 0.0], [np.nan, 0.0]])
def test_the_last_look_sends_nothing_that_the_filters_before_it_should_have_cut(q: list[float]) -> None:
    last = np.array([1.995, 0.0]) if q[0] > 1 else np.zeros(2)
    name, step = filters_of(arm())[-1]
    tick = Tick(Sent(last, np.zeros(2), np.zeros(2)), 0.0, 0.0, DT)
    done = step(np.array(q), None, tick)
    assert name == "step" and done.which == ("step",)
    np.testing.assert_array_equal(done.q, last)
    assert step(last + [0.0, 0.0099], None, tick).which == ()


def test_a_loop_that_was_held_up_starts_from_rest_and_makes_up_for_nothing() -> None:
    loop = Loop(arm())
    for _ in range(40):
        loop.send([1.9, 0.0])
    loop.now_s += 0.5
    before = loop.q[-1][0]
    step = loop.send([1.9, 0.0]).q[0] - before
    assert 0 < step <= loop.chain.limits.bounds.acceleration[0] * DT**2 * 1.001


def test_a_loop_that_comes_early_and_late_is_not_cut() -> None:
    chain, rng = Chain(arm(), DT), np.random.default_rng(0)
    chain.reset(np.zeros(2), 0.0)
    for k, q in enumerate(smooth(200), start=1):
        now_s = (k + rng.uniform(-0.4, 0.4)) * DT
        assert chain.filter(q, None, now_s, now_s).result is Result.PASS


def test_calls_in_a_burst_move_no_faster_than_the_clock() -> None:
    chain = Chain(arm(), DT)
    chain.reset(np.zeros(2), 0.0)
    for k in range(400):
        chain.filter([1.9, 0.0], None, k * DT / 10, k * DT / 10)
    assert chain.sent.q[0] <= 2.0 * (0.4 + 2 * DT)


def test_what_cannot_be_set_up_is_refused_in_one_line() -> None:
    with pytest.raises(BadInput, match="the collision limit needs safe_share"):
        Chain(arm(without=OFF[:3]), DT)
    with pytest.raises(BadInput, match="the workspace limit needs points"):
        Chain(arm(planes=(Plane((0, 0, 1), 0.0),), without=OFF[1:]), DT)
    with pytest.raises(BadInput, match="finite period above 0"):
        Chain(arm(), 0.0)
    with pytest.raises(BadInput, match=r"want 2 finite joint angles, got \[nan  0.\]"):
        Chain(arm(), DT).reset(np.array([np.nan, 0]), 0.0)
    with pytest.raises(BadInput, match="reset it to the measured pose before the first setpoint"):
        Chain(arm(), DT).filter([0, 0], None, 0.0, 0.0)


number = st.one_of(
    st.floats(-3, 3), st.sampled_from([np.nan, np.inf, -np.inf, 1e308, -1e308, 57.3, -90.0, 0.0]), st.floats(allow_nan=True)
)
garbage = st.one_of(
    st.lists(number, min_size=2, max_size=2), st.lists(number, max_size=4), st.sampled_from([None, "x", [[0, 0]], {}])
)


@given(
    st.lists(
        st.tuples(garbage, st.none() | number, number, st.sampled_from([0.0, 0.004, DT, 0.013, 0.2])), min_size=1, max_size=25
    )
)
@settings(max_examples=40)
def test_whatever_comes_in_what_goes_out_is_finite_inside_and_slow(ticks: list[tuple[Any, Any, float, float]]) -> None:
    limits = arm(planes=(Plane((0, 0, 1), -0.4),), without=OFF[1:])
    bounds, chain, now_s = limits.bounds, Chain(limits, DT, points=planar), 0.0
    start = last = np.array([0.1, -0.1])
    chain.reset(last, now_s, 0.5)
    for q, aperture, age, pause_s in ticks:
        now_s += pause_s
        effort = Measured(np.zeros(2), np.array([age, age]))
        done = chain.filter(q, aperture, now_s - (age if abs(age) < 0.1 else 0.0), now_s, effort)
        assert done.q.shape == (2,) and np.isfinite(done.q).all()
        assert np.all(done.q >= bounds.lower) and np.all(done.q <= bounds.upper)
        assert np.all(np.abs(done.q - last) <= bounds.velocity * DT * (1 + 1e-5) + 1e-12)
        assert np.all(np.abs(done.q - start) <= bounds.velocity * (now_s + 2 * DT) * (1 + 1e-5))
        assert planar(done.q)[:, 2].min() >= -0.4 - 1e-8
        assert done.aperture is None or 0.0 <= done.aperture <= 1.0
        assert (done.result is Result.PASS) == (done.which == ()) and bool(done.why) == bool(done.which)
        last = done.q
