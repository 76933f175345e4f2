"""Caps hold whatever the target does; old input holds the arm, then lets go of it; a stall and a burst do not make it lurch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolearn.errors import BadInput
from robolearn.teleop.limits import Age, Freshness, Limiter

DT = 0.02


@given(st.lists(st.floats(-5, 5) | st.just(float("nan")), min_size=1, max_size=120))
def test_no_target_breaks_the_caps_or_leaves_the_range(targets: list[float]) -> None:
    limiter = Limiter(1.5, 6.0, np.array([-1.0]), np.array([1.0]))
    limiter.reset(np.array([0.2]))
    last, speed = 0.2, 0.0
    for target in targets:
        (position,), _ = limiter.step(np.array([target]), DT)
        now = (position - last) / DT
        assert -1.0 <= position <= 1.0
        assert abs(now) <= 1.5 + 1e-9
        assert abs(now - speed) <= 6.0 * DT + 1e-6
        last, speed = position, now


def test_a_target_that_stays_is_arrived_at_without_overshoot() -> None:
    limiter = Limiter(1.0, 4.0)
    limiter.reset(np.zeros(2))
    path = np.array([limiter.step(np.array([0.7, -0.3]), DT)[0] for _ in range(150)])
    np.testing.assert_allclose(path[-1], [0.7, -0.3], atol=1e-3)
    assert path[:, 0].max() <= 0.7 + 1e-9 and path[:, 1].min() >= -0.3 - 1e-9


def test_a_stall_then_a_burst_is_walked_not_leapt() -> None:
    limiter = Limiter(1.0, 4.0)
    limiter.reset(np.zeros(1))
    for _ in range(40):
        limiter.step(np.array([0.1]), DT)
    steps = []
    for target in (0.1, 0.9, 0.95, 1.0, 1.0, 1.0):  # 0.5 s of motion arrives at once
        before = limiter.position.copy()
        steps.append(abs(limiter.step(np.array([target]), DT)[0] - before)[0])
    assert max(steps) <= 1.0 * DT + 1e-12 and steps[1] <= 4.0 * DT * DT + 1e-12


@pytest.mark.parametrize(
    ("age_s", "want"),
    [(0.0, Age.FRESH), (0.1, Age.FRESH), (0.11, Age.HELD), (0.5, Age.HELD), (0.51, Age.DISENGAGED), (np.nan, Age.DISENGAGED)],
)
def test_the_age_of_the_input_decides(age_s: float, want: Age) -> None:
    assert Freshness().of(age_s) is want


def test_caps_that_make_no_sense_are_refused() -> None:
    with pytest.raises(BadInput, match="caps above 0"):
        Limiter(0.0, 1.0)
    with pytest.raises(BadInput, match="hold_s"):
        Freshness(0.5, 0.1)
