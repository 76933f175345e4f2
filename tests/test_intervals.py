"""Intervals and tests against published values and first principles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from robolearn.intervals import mcnemar_exact, mean95, paired95, wilson95


@pytest.mark.parametrize(
    ("k", "n", "low", "high"), [(45, 50, 78.6, 95.7), (47, 50, 83.8, 97.9), (25, 50, 36.6, 63.4), (319, 500, 59.5, 67.9)]
)
def test_wilson_gives_the_published_intervals(k: int, n: int, low: float, high: float) -> None:
    assert [round(100 * value, 1) for value in wilson95(k, n)] == [low, high]


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys_and_holds_the_rate(case: tuple[int, int]) -> None:
    k, n = case
    low, high = wilson95(k, n)
    want = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((want.low, want.high), abs=1e-12)
    assert 0.0 <= low <= k / n <= high <= 1.0
    assert wilson95(n - k, n) == pytest.approx((1 - high, 1 - low))


def test_nothing_seen_says_nothing() -> None:
    assert wilson95(0, 0) == (0.0, 1.0)
    assert mean95([]) == (-math.inf, math.inf)
    assert mcnemar_exact(0, 0) == 1.0


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_two_sided_sign_test(a: int, b: int) -> None:
    want = stats.binomtest(a, a + b, 0.5).pvalue if a + b else 1.0
    assert mcnemar_exact(a, b) == pytest.approx(want, rel=1e-9)
    assert mcnemar_exact(a, b) == mcnemar_exact(b, a)


def test_the_bootstrap_covers_the_mean_about_as_often_as_promised() -> None:
    random = np.random.default_rng(1)
    hits = sum(low <= 0.3 <= high for low, high in (mean95(random.beta(0.3, 0.7, size=60)) for _ in range(40)))
    assert 34 <= hits <= 40


def test_equal_data_give_equal_intervals() -> None:
    values = np.random.default_rng(0).uniform(size=50)
    assert mean95(values) == mean95(values.copy())
    low, high = mean95(values)
    assert low < values.mean() < high


def test_pairing_sees_what_the_spread_of_seeds_hides() -> None:
    seeds = np.random.default_rng(0).uniform(size=100)
    mean, low, high = paired95(seeds, seeds + 0.01)
    assert (mean, low, high) == pytest.approx((0.01, 0.01, 0.01))
    assert mean95(seeds)[0] < mean95(seeds + 0.01)[0] < mean95(seeds)[1], "unpaired intervals overlap"
