"""Thresholds keep their promise when it is measured: coverage against theory and against the published code's choices."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from robolearn.errors import BadInput
from robolearn.monitors._conformal import (
    Adaptive,
    Band,
    alarms_interval,
    band,
    conformal_threshold,
    modulation,
    mondrian_thresholds,
    promised,
    rank,
    rate_interval,
    refuse_overlap,
    smallest_sample,
    split,
    weighted_threshold,
)

T = 40  # plans of a curve
scores = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)
alphas = st.integers(1, 999).map(lambda i: i / 1000)


def near(measured: np.ndarray, expected: float, slack: float = 0.004) -> bool:
    """Returns whether the mean of repeats is the expected one within four standard errors, and what rounding a table costs."""
    return bool(abs(measured.mean() - expected) < 4 * measured.std() / math.sqrt(len(measured)) + slack)


@pytest.mark.parametrize(
    ("n", "q", "order", "quantile"),
    [
        (10, 0.9, 0.908, 0.832),
        (25, 0.9, 0.923, 0.871),
        (50, 0.9, 0.902, 0.885),
        (200, 0.9, 0.900, 0.895),
        (50, 0.95, 0.961, 0.934),
    ],
)
def test_the_order_statistic_covers_as_promised_and_the_quantile_less(n: int, q: float, order: float, quantile: float) -> None:
    drawn = np.random.default_rng(n).standard_normal((2000, n))
    held = stats.norm.cdf([conformal_threshold(row, 1 - q) for row in drawn])  # the share of all new episodes below it
    published = stats.norm.cdf(np.quantile(drawn, q, axis=1))
    assert near(held, order) and near(published, quantile)
    assert near(held, 1 - promised(n, 1 - q), slack=0) and promised(n, 1 - q) <= 1 - q + 1e-12
    assert not near(published, order, slack=0.001), "the two are told apart"


def test_too_few_episodes_for_the_level_make_a_threshold_of_infinity() -> None:
    assert conformal_threshold(np.arange(10.0), 0.05) == math.inf and promised(10, 0.05) == 0
    assert smallest_sample(0.1) == 9 and smallest_sample(0.05) == 19 and smallest_sample(0.01) == 99
    for alpha in (0.01, 0.05, 0.1, 0.3):
        n = smallest_sample(alpha)
        assert conformal_threshold(np.arange(float(n)), alpha) == n - 1
        assert conformal_threshold(np.arange(n - 1.0), alpha) == math.inf
        assert alarms_interval(n - 1, 50, alpha) == rate_interval(n - 1, alpha) == (0.0, 0.0)
    assert conformal_threshold([], 0.5) == math.inf


@given(scores, alphas, alphas)
def test_a_smaller_alpha_never_lowers_the_threshold_so_alarms_are_nested(values: list[float], one: float, other: float) -> None:
    strict, loose = (conformal_threshold(values, alpha) for alpha in sorted((one, other)))
    assert strict >= loose
    assert {i for i, v in enumerate(values) if v > strict} <= {i for i, v in enumerate(values) if v > loose}
    assert loose == math.inf or loose in values


@given(scores, alphas)
def test_of_calibration_scores_at_most_the_promised_share_lies_above(values: list[float], alpha: float) -> None:
    n = len(values)
    assert sum(v > conformal_threshold(values, alpha) for v in values) <= promised(n, alpha) * (n + 1) <= alpha * (n + 1) + 1e-6


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_an_alpha_that_is_no_share_is_refused(alpha: float) -> None:
    with pytest.raises(BadInput, match=r"alpha: want a share between 0 and 1, got"):
        rank(10, alpha)
    with pytest.raises(BadInput, match="alpha"):
        Adaptive([1.0], alpha)


def test_scores_that_are_no_finite_row_are_refused() -> None:
    for values in ([1.0, math.nan], [1.0, math.inf], np.zeros((2, 2))):
        with pytest.raises(BadInput, match="conformal_threshold: want finite numbers in one row"):
            conformal_threshold(values, 0.1)


def curves(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    x, t = np.linspace(0, 3, T), np.arange(T)
    mean = 1 + np.sin(x) + 0.3 * x
    if kind == "gaussian":
        return mean + rng.normal(0, 0.3, (n, 1)) + rng.normal(0, 0.3, (n, T))
    return mean + rng.gamma(2, 0.15, (n, 1)) + rng.exponential(0.3, (n, T)) * (0.5 + t / T)


def quantile_band(first: np.ndarray, second: np.ndarray, alpha: float) -> Band:
    """Returns the band with the right sign whose height is np.quantile, as published."""
    mean, spread = modulation(list(first), alpha)
    return Band(mean, spread, float(np.quantile(((second - mean) / spread).max(axis=1), 1 - alpha)))


@cache
def coverages(kind: str, n: int, repeats: int) -> dict[str, np.ndarray]:
    """Returns the share (repeats,) of 200 fresh curves wholly inside, for three bands made of the same n curves."""
    rng, found = np.random.default_rng([n, len(kind)]), []
    for _ in range(repeats):
        first, second, fresh = curves(kind, n // 2, rng), curves(kind, n - n // 2, rng), curves(kind, 200, rng)
        halves = list(first), list(second)
        made = (band(*halves, 0.1), quantile_band(first, second, 0.1), band(*halves, 0.1, compat="official"))
        found.append([(fresh <= one.upper(T)).all(axis=1).mean() for one in made])
    return dict(zip(("order", "quantile", "official"), np.array(found).T, strict=True))


@pytest.mark.parametrize(
    ("kind", "n", "repeats", "order", "quantile", "official"),
    [
        ("gaussian", 20, 300, 0.910, 0.834, 0.803),
        ("gaussian", 50, 200, 0.923, 0.871, 0.861),
        ("gaussian", 200, 100, 0.902, 0.895, 0.888),
        ("skewed", 50, 200, 0.922, 0.872, 0.267),
        ("skewed", 200, 100, 0.898, 0.892, 0.245),
    ],
)
def test_a_functional_band_covers_whole_curves_as_the_specification_says(
    kind: str, n: int, repeats: int, order: float, quantile: float, official: float
) -> None:
    got = coverages(kind, n, repeats)
    assert near(got["order"], order) and near(got["quantile"], quantile) and near(got["official"], official)
    assert near(got["order"], 1 - promised(n - n // 2, 0.1), slack=0.001)
    gap = got["order"] - got["quantile"]  # from the same curves, so that little of it is chance
    assert gap.mean() > 4 * gap.std() / math.sqrt(repeats) and near(gap, order - quantile)


def test_skewed_scores_tell_the_published_sign_from_the_right_one_and_symmetric_ones_hardly() -> None:
    skewed, symmetric = coverages("skewed", 200, 100), coverages("gaussian", 200, 100)
    assert skewed["order"].mean() > 0.85 and skewed["official"].mean() < 0.35
    assert symmetric["official"].mean() > 0.85


def test_beyond_the_longest_curve_the_last_value_goes_on_and_officially_the_mean() -> None:
    right, published = (Band(np.arange(4.0), np.ones(4), 2.0, compat) for compat in ("corrected", "official"))
    assert right.upper(6).tolist() == [2, 3, 4, 5, 5, 5] and published.upper(6).tolist() == [2, 3, 4, 5, 3.5, 3.5]
    assert right.upper(2).tolist() == [2, 3]
    assert np.isinf(band([np.ones(3)], [np.ones(3)], 0.1).upper(5)).all(), "one curve promises nothing"


def test_a_band_takes_curves_of_unequal_lengths_and_never_has_no_spread() -> None:
    mean, spread = modulation([np.array([1.0, 2, 3, 9]), np.array([3.0, 2])], 0.5)
    assert mean.tolist() == [2, 2, 3, 9] and (spread > 0).all()
    assert spread.tolist() == [1, 1 / 4, 1 / 4, 1 / 4], "no deviation counts as one over the length"
    with pytest.raises(BadInput, match="band: want at least one curve and none that is empty"):
        modulation([], 0.1)


def test_known_weights_keep_the_promise_under_shift_and_no_weights_break_it() -> None:
    rng, shift, plain, weighted = np.random.default_rng(3), 1.0, [], []
    for _ in range(400):
        old, new = rng.standard_normal(150), shift + rng.standard_normal(20)
        ratio = np.exp(shift * old - shift**2 / 2)
        limits = [weighted_threshold(old, ratio, float(np.exp(shift * x - shift**2 / 2)), 0.1) for x in new]
        plain.append((new > conformal_threshold(old, 0.1)).mean())
        weighted.append((new > np.array(limits)).mean())
    assert np.mean(plain) > 0.3 and np.mean(weighted) < 0.1 + 4 * np.std(weighted) / 20
    assert np.mean(weighted) > 0.03, "and not by never alarming"


@given(scores, alphas)
def test_equal_weights_are_no_weights(values: list[float], alpha: float) -> None:
    weights = np.full(len(values), 0.25)
    assert weighted_threshold(np.array(values), weights, 0.25, alpha) == conformal_threshold(values, alpha)


def test_a_new_episode_of_all_the_weight_makes_no_threshold() -> None:
    assert weighted_threshold(np.ones(5), np.ones(5), 1e9, 0.1) == math.inf
    for weights, new in ((np.ones(4), 1.0), (-np.ones(5), 1.0), (np.ones(5), -1.0), (np.zeros(5), 0.0)):
        with pytest.raises(BadInput, match=r"weights: want \(5,\) of numbers not below 0, got"):
            weighted_threshold(np.ones(5), weights, new, 0.1)


def test_a_threshold_a_task_keeps_the_promise_in_every_task_where_one_for_all_breaks_it() -> None:
    rng, easy, hard, pooled = np.random.default_rng(4), [], [], []
    for _ in range(400):
        values = np.concatenate([rng.normal(0, 1, 99), rng.normal(5, 2, 39)])
        kept = mondrian_thresholds(values, ["easy"] * 99 + ["hard"] * 39, 0.1)
        easy.append(stats.norm.sf(kept["easy"], 0, 1))
        hard.append(stats.norm.sf(kept["hard"], 5, 2))
        pooled.append(stats.norm.sf(conformal_threshold(values, 0.1), 5, 2))
    assert near(np.array(easy), 0.1, slack=0) and near(np.array(hard), 0.1, slack=0)
    assert np.mean(pooled) > 0.25
    with pytest.raises(BadInput, match="groups: want 3, got 2"):
        mondrian_thresholds(np.ones(3), ["a", "b"], 0.1)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=80), st.floats(0.01, 0.5), st.floats(0.01, 0.5))
def test_an_adaptive_threshold_keeps_its_long_run_rate_over_any_sequence(stream: list[float], alpha: float, step: float) -> None:
    follower = Adaptive([-3.0, 0.0, 1.0, 2.0], alpha, step)
    alarms = [follower.update(score) for score in stream]
    bound = (max(alpha, 1 - alpha) + step) / (step * len(stream))
    assert abs(np.mean(alarms) - alpha) <= bound + 1e-9
    assert -step <= follower.level <= 1 + step and len(follower.scores) == 4 + len(stream)


def test_an_adaptive_threshold_follows_a_drift_that_a_fixed_one_does_not_survive() -> None:
    rng = np.random.default_rng(5)
    old, drifting = rng.standard_normal(100), rng.standard_normal(1500) + np.linspace(0, 4, 1500)
    follower = Adaptive(list(old), 0.1)
    alarms = [follower.update(score) for score in drifting]
    assert abs(np.mean(alarms) - 0.1) <= (0.9 + 0.02) / (0.02 * 1500) < 0.031
    assert (drifting > conformal_threshold(old, 0.1)).mean() > 0.5
    assert len(old) == 100 and Adaptive([1.0], 0.1).threshold == math.inf


def test_the_false_alarm_rate_of_calibrations_lies_where_the_intervals_say() -> None:
    n, m, alpha, rng = 50, 100, 0.1, np.random.default_rng(6)
    rates = stats.norm.sf([conformal_threshold(row, alpha) for row in rng.standard_normal((4000, n))])
    assert rates.mean() == pytest.approx(promised(n, alpha), abs=0.003) and promised(n, alpha) == pytest.approx(5 / 51)
    assert rates.std() == pytest.approx(0.041, abs=0.002)
    for measured, (low, high), slack in (
        (rates, rate_interval(n, alpha), 0.0),
        (rng.binomial(m, rates) / m, alarms_interval(n, m, alpha), 0.02),  # of a count the interval is whole steps wide
    ):
        inside = ((measured >= low - 1e-12) & (measured <= high + 1e-12)).mean()
        assert 0.95 - 0.014 < inside < 0.95 + 0.014 + slack
        assert (measured < low - 1e-12).mean() < 0.035 and (measured > high + 1e-12).mean() < 0.035, "on both sides"
    wide, narrow = alarms_interval(n, m, alpha, 0.999), alarms_interval(n, m, alpha)
    assert wide[0] <= narrow[0] < narrow[1] < wide[1]
    assert alarms_interval(n, 20_000, alpha) == pytest.approx(rate_interval(n, alpha), abs=1e-3)


@given(st.integers(0, 200), st.integers(0, 2**32 - 1))
def test_a_split_deals_every_episode_to_one_part_by_chance_alone(n: int, seed: int) -> None:
    parts = split(n, {"fit": 0.5, "shape": 0.2, "calibrate": 0.3}, np.random.default_rng(seed))
    assert sorted(np.concatenate(list(parts.values()))) == list(range(n))
    assert all(abs(len(parts[name]) - share * n) <= 1 for name, share in (("fit", 0.5), ("shape", 0.2), ("calibrate", 0.3)))
    again = split(n, {"fit": 0.5, "shape": 0.2, "calibrate": 0.3}, np.random.default_rng(seed))
    assert all(np.array_equal(parts[name], again[name]) and (np.diff(parts[name]) > 0).all() for name in parts)


def test_every_episode_is_as_likely_in_every_part() -> None:
    rng = np.random.default_rng(7)
    times = np.bincount(np.concatenate([split(10, {"a": 0.4, "b": 0.6}, rng)["a"] for _ in range(2000)]), minlength=10) / 2000
    assert np.abs(times - 0.4).max() < 4 * math.sqrt(0.24 / 2000)


@pytest.mark.parametrize("shares", [{"a": 0.5, "b": 0.4}, {"a": 1.2, "b": -0.2}, {"a": 0.0, "b": 1.0}, {}])
def test_shares_that_are_none_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(BadInput, match="split: want positive shares that add up to 1, got"):
        split(10, shares, np.random.default_rng(0))


def test_an_episode_cannot_be_fitted_to_and_calibrated_on() -> None:
    refuse_overlap([1, 2], [3, 4])
    with pytest.raises(BadInput, match=r"calibration: 2 episodes are in the fit split too \(2, 3\); want disjoint splits"):
        refuse_overlap([1, 2, 3], [3, 2, 9])


def test_an_alpha_just_below_one_makes_the_lowest_score_the_threshold() -> None:
    assert rank(3, 1 - 1e-11) >= 1
    assert conformal_threshold([1.0, 2.0, 3.0], 1 - 1e-11) == 1.0


def book_nan() -> None:
    Adaptive([1.0, 2.0, 3.0], 0.1).update(math.nan)


REFUSALS: dict[str, Callable[[], object]] = {
    "a score that is no number is booked, and the threshold after it fails": book_nan,
    "a curve without plans": lambda: band([np.ones(3)], [np.zeros(0)], 0.1),
    "weights with an alpha that is no share": lambda: weighted_threshold(np.ones(3), np.ones(3), 1.0, 1.5),
    "a share that is no number": lambda: split(10, {"a": math.nan, "b": 0.5}, np.random.default_rng(0)),
    "a rate over no new episodes": lambda: alarms_interval(50, 0, 0.1),
}


@pytest.mark.parametrize("case", list(REFUSALS))
def test_these_are_refused_too(case: str) -> None:
    with pytest.raises(BadInput):
        REFUSALS[case]()
