"""From traces to alarms: windows against brute force, k that agree, references, and a promise that holds when it is measured."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolearn.monitors._base import EMPTY, Layout
from robolearn.monitors._conformal import promised
from robolearn.monitors._detector import (
    Detector,
    Reference,
    Traces,
    calibrate,
    choose,
    combined,
    first_alarm,
    peak,
    reference,
    twa,
    windowed,
)
from robolearn.monitors._recipe import Recipe

NAMES = ("knn", "variance", "clock")
LAYOUT = Layout(("x", "y"), horizon=6, execute=3)
rows = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40).map(np.array)
tables = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.lists(st.integers(-3, 3), min_size=n, max_size=n), min_size=1, max_size=12).map(
        lambda table: list(np.array(table, np.float64).T)
    )
)  # whole numbers, so that ties are tried


def brute(trace: np.ndarray, window: int) -> np.ndarray:
    return np.array([math.fsum(x + EMPTY for x in trace[max(0, t - window + 1) : t + 1]) for t in range(len(trace))])


# Windows.


@given(rows, st.integers(1, 50))
def test_windowed_sums_are_those_of_brute_force(trace: np.ndarray, window: int) -> None:
    before = trace.copy()
    np.testing.assert_allclose(windowed(trace, window), brute(trace, window), rtol=1e-9, atol=1e-9)
    assert np.array_equal(trace, before), "the trace is left as it was"


@given(rows, st.integers(0, 10))
def test_a_window_of_one_is_the_score_and_one_as_long_as_the_episode_the_running_sum(trace: np.ndarray, more: int) -> None:
    np.testing.assert_allclose(windowed(trace, 1), trace + EMPTY, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(windowed(trace, len(trace) + more), np.cumsum(trace + EMPTY), rtol=1e-9, atol=1e-9)


@given(rows, st.integers(1, 20), st.floats(-5, 5), st.integers(0, 2**20))
def test_windowed_sums_are_linear_in_the_score(trace: np.ndarray, window: int, factor: float, seed: int) -> None:
    other = np.random.default_rng(seed).normal(size=len(trace))
    offset = EMPTY * np.minimum(np.arange(len(trace)) + 1, window)
    whole = windowed(factor * trace + other, window) - offset
    parts = factor * (windowed(trace, window) - offset) + windowed(other, window) - offset
    np.testing.assert_allclose(whole, parts, rtol=1e-8, atol=1e-8)


@given(rows, st.integers(1, 20), st.integers(1, 40))
def test_windowed_sums_of_a_running_episode_are_those_of_the_finished_one(trace: np.ndarray, window: int, cut: int) -> None:
    assert np.array_equal(windowed(trace[:cut], window), windowed(trace, window)[:cut])


@pytest.mark.parametrize("window", [1, 2, 5])
def test_a_score_that_overflowed_once_is_forgotten_after_its_window(window: int) -> None:
    trace = np.array([1.0, 2.0, 1e30, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])  # 1e30 is what a network's score is cut at
    np.testing.assert_allclose(windowed(trace, window), brute(trace, window), rtol=1e-9)


# What successes do.


@pytest.mark.parametrize("band", ["constant", "functional"])
@pytest.mark.parametrize("window", [1, 4, 100])
def test_measured_successes_are_above_one_as_rarely_as_alpha_says(band: str, window: int) -> None:
    good = traces(60, 3)["knn"]
    made = reference(good, window, band, 0.1)
    above = sum(made.measure(trace).max() > 1 + 1e-9 for trace in good)
    assert 3 <= above <= 6, f"{above} of 60 at alpha 0.1"
    assert made.band == band and made.window == window and (made.spread > 0).all()


def test_a_functional_reference_knows_what_is_high_early_and_goes_on_with_its_last_value() -> None:
    rng = np.random.default_rng(0)
    good = [np.linspace(1, 10, 10) + rng.normal(0, 0.1, 10) for _ in range(40)]
    early = np.array([9.5, 9.5, 9.5])
    assert reference(good, 1, "functional", 0.1).measure(early)[0] > 5 > 1 > reference(good, 1, "constant", 0.1).measure(early)[0]
    made = reference(good, 1, "functional", 0.1)
    long = made.measure(np.full(30, 10.0))
    assert np.allclose(long[9:], long[9]) and len(long) == 30


@pytest.mark.parametrize("band", ["constant", "functional"])
@pytest.mark.parametrize("level", [0.0, 1e6])
def test_a_score_that_never_moves_is_measured_finitely_and_any_move_up_is_high(band: str, level: float) -> None:
    made = reference([np.full(n, level) for n in (5, 8, 8)], 1, band, 0.1)
    still, moved = made.measure(np.full(12, level)), made.measure(np.full(12, level + max(1.0, level)))
    assert np.isfinite(still).all() and (still < 1).all() and (moved > 1).all()


def test_without_failures_the_middle_window_and_the_first_band_are_taken() -> None:
    recipe = Recipe(("knn",), windows=(2, 7, 30), bands=("functional", "constant"))
    chosen = choose(traces(20, 1)["knn"], [], recipe)
    assert (chosen.window, chosen.band) == (7, "functional")


def test_the_window_and_the_band_that_tell_failures_apart_are_chosen_and_of_equals_the_shortest() -> None:
    rng = np.random.default_rng(5)
    noisy = [np.abs(rng.normal(0, 1, 40)) for _ in range(40)]
    weak = [np.abs(rng.normal(0, 1, 40)) + 0.5 for _ in range(40)]
    recipe = Recipe(("knn",), windows=(1, 30))
    assert choose(noisy, weak, recipe).window == 30, "a weak offset shows only in a long sum"
    rising = [np.linspace(0, 10, 40) + rng.normal(0, 0.1, 40) for _ in range(40)]
    early = [np.full(40, 8.0) + rng.normal(0, 0.1, 40) for _ in range(40)]
    assert choose(rising, early, Recipe(("knn",), windows=(1,))).band == "functional"
    clear = [trace + 1e3 for trace in noisy]
    assert choose(noisy, clear, Recipe(("knn",), windows=(30, 1), bands=("constant",))).window == 1


# Which of them agree.


@given(tables, st.integers(-4, 4))
def test_as_many_as_are_asked_for_are_high_where_the_combination_is(measured: list[np.ndarray], threshold: int) -> None:
    many = np.sum([trace > threshold for trace in measured], axis=0)
    for needed in range(1, len(measured) + 1):
        assert np.array_equal(combined(measured, needed) > threshold, many >= needed)


@given(tables, st.integers(-4, 4), st.integers(0, 2))
def test_and_alarms_only_where_each_does_and_or_wherever_any_does(
    measured: list[np.ndarray], threshold: int, patience: int
) -> None:
    fewest, most = combined(measured, len(measured)), combined(measured, 1)
    for trace in measured:
        assert ((fewest > threshold) <= (trace > threshold)).all() and ((trace > threshold) <= (most > threshold)).all()
        strict, one, loose = (first_alarm(t, threshold, patience) for t in (fewest, trace, most))
        assert strict < 0 or 0 <= one <= strict
        assert one < 0 or 0 <= loose <= one


def test_with_common_references_and_threshold_rates_order_as_and_each_or() -> None:
    good, bad, made = traces(200, 8), traces(200, 9, shift=0.8), references("constant")
    for threshold in (0.3, 0.8, 1.2):
        rates = {}
        for needed in (3, 2, 1):
            for label, of in (("fpr", good), ("tpr", bad)):
                alarms = [first_alarm(combined(some, needed), threshold) for some in measure(of, made)]
                rates[label, needed] = np.mean(np.array(alarms) >= 0)
        for label, of in (("fpr", good), ("tpr", bad)):
            each = [np.mean([made[n].measure(trace).max() > threshold for trace in of[n]]) for n in NAMES]
            assert rates[label, 3] <= min(each) and max(each) <= rates[label, 1]
            assert rates[label, 3] <= rates[label, 2] <= rates[label, 1]


@given(rows, st.integers(0, 5), st.floats(-1e3, 1e3))
def test_there_is_an_alarm_where_the_peak_is_above_the_threshold(trace: np.ndarray, patience: int, threshold: float) -> None:
    at = first_alarm(trace, threshold, patience)
    assert (at >= 0) == (peak(trace, patience) > threshold)
    if at >= 0:
        assert trace[at] > threshold and (trace[: at + 1] > threshold).sum() == patience + 1
    own = peak(trace, patience)
    assert first_alarm(trace, own, patience) == -1, "a threshold taken from an episode does not alarm in it"


def test_time_weighted_accuracy_has_the_anchors_of_the_specification() -> None:
    success = [True, True, False, False]
    assert twa(success, [-1, -1, -1, -1], 10) == 0.5
    assert twa(success, [0, 0, 0, 0], 10) == 0.5
    assert twa(success, [-1, -1, 0, 0], 10) == 1.0
    assert twa(success, [-1, -1, 9, 9], 10) == 0.5
    assert twa([True, True], [-1, 3], 10) == 0.5 and twa([False], [0], 1) == 1.0


# The promise: over calibrations and new episodes, so it is measured over many.


def traces(n: int, seed: int, shift: float = 0.0) -> dict[str, Traces]:
    """Returns raw traces of three scores over n episodes of unequal lengths: skewed, correlated, each episode with its level."""
    rng = np.random.default_rng(seed)
    found: dict[str, Traces] = {name: [] for name in NAMES}
    for length in rng.integers(6, 24, n):
        level, common = rng.exponential(0.5), rng.exponential(0.5, length)
        for k, name in enumerate(NAMES):
            own = rng.gamma(1.0 + k, 0.5, length) + rng.exponential(0.3)
            found[name].append(level + common + own + shift + 0.02 * k * np.arange(length))
    return found


def references(band: str) -> dict[str, Reference]:
    shape = traces(25, 2)
    return {name: reference(shape[name], window, band, 0.1) for name, window in zip(NAMES, (1, 3, 9), strict=True)}


def measure(of: dict[str, Traces], made: dict[str, Reference]) -> list[list[np.ndarray]]:
    return [[made[name].measure(of[name][i]) for name in NAMES] for i in range(len(of[NAMES[0]]))]


@cache
def pool(band: str) -> tuple[dict[str, Reference], dict[str, Traces], list[list[np.ndarray]]]:
    """Returns references, raw traces of 900 episodes, and what the ones make of the others."""
    made, of = references(band), traces(900, 1)
    return made, of, measure(of, made)


def false_alarms(recipe: Recipe, band: str, n: int, repeats: int) -> np.ndarray:
    """Returns the share of alarms among all other episodes of the pool, for `repeats` calibrations on n of them."""
    made, of, measured = pool(band)
    rng, rates = np.random.default_rng(4), []
    jointly = np.array([peak(combined(some, recipe.needed), recipe.patience) for some in measured])
    for _ in range(repeats):
        order = rng.permutation(len(measured))
        held = {name: [of[name][i] for i in order[:n]] for name in NAMES}
        apart, thresholds, numbers = calibrate(made, held, [""] * n, recipe)
        detector = Detector(recipe, LAYOUT, {}, made, apart, thresholds, numbers)
        assert detector.promised == promised(n, recipe.alpha)
        if recipe.joint:
            assert set(apart.values()) == {0.0}
            rates.append(np.mean(jointly[order[n:]] > detector.threshold()))
        else:
            traced = [detector.combine({name: of[name][i] for name in NAMES}) for i in order[n : n + 50]]
            rates.append(np.mean([first_alarm(t, detector.threshold(), recipe.patience) >= 0 for t in traced]))
    return np.array(rates)


def error(rates: np.ndarray) -> float:
    return 4 * float(rates.std()) / math.sqrt(len(rates))


@pytest.mark.parametrize(
    ("agree", "band", "patience", "n"),
    [
        (0, "constant", 0, 21),
        (1, "functional", 0, 21),
        (2, "functional", 0, 24),
        (0, "functional", 2, 21),
        (1, "constant", 3, 30),
        (2, "constant", 1, 21),
    ],
)
def test_the_combination_alarms_in_as_many_successes_as_promised(agree: int, band: Any, patience: int, n: int) -> None:
    rates = false_alarms(Recipe(NAMES, agree, patience=patience), band, n, 200)
    assert error(rates) < 0.02, "what is measured is sharp enough to tell the order statistic from the quantile"
    assert abs(rates.mean() - promised(n, 0.1)) < error(rates)


@pytest.mark.parametrize(("band", "patience"), [("constant", 0), ("functional", 2)])
def test_scores_calibrated_apart_that_must_all_agree_alarm_in_at_most_alpha(band: Any, patience: int) -> None:
    rates = false_alarms(Recipe(NAMES, patience=patience, joint=False), band, 24, 80)
    assert 0 < rates.mean() < 0.1, "and in fewer, as their alarms seldom coincide"


def test_scores_calibrated_apart_of_which_any_may_alarm_would_break_the_promise_and_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^joint: scores calibrated apart keep their promise only where all must agree"):
        Recipe(NAMES, agree=1, joint=False)


def test_a_threshold_of_its_own_keeps_the_promise_in_every_group_and_one_for_all_does_not() -> None:
    made, rng, of = references("constant"), np.random.default_rng(6), traces(400, 11)
    wild = {name: [trace * 4 for trace in of[name]] for name in NAMES}
    peaks = {g: np.array([peak(combined(m, 3)) for m in measure(some, made)]) for g, some in (("tame", of), ("wild", wild))}
    rates: dict[str, list[float]] = {"tame": [], "wild": [], "wild by all": []}
    for _ in range(150):
        order = rng.permutation(400)[:38]
        held = {name: [of[name][i] for i in order[:19]] + [wild[name][i] for i in order[19:]] for name in NAMES}
        _, thresholds, numbers = calibrate(made, held, ["tame"] * 19 + ["wild"] * 19, Recipe(NAMES))
        assert numbers == {"": 38, "tame": 19, "wild": 19} and set(thresholds) == set(numbers)
        for group, used in (("tame", order[:19]), ("wild", order[19:])):
            fresh = np.delete(peaks[group], used)
            rates[group].append(float(np.mean(fresh > thresholds[group])))
        rates["wild by all"].append(float(np.mean(peaks["wild"] > thresholds[""])))
    for group in ("tame", "wild"):
        assert abs(np.mean(rates[group]) - 0.1) < error(np.array(rates[group]))
    assert np.mean(rates["wild by all"]) > 0.15
