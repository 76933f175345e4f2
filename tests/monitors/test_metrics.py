"""Metrics of a detector: the definitions, what they give where a class is empty, and intervals that hold."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn.errors import BadInput, UnknownName
from robolearn.monitors import _metrics as metrics
from robolearn.monitors._conformal import alarms_interval, conformal_threshold
from robolearn.monitors._metrics import Rows

# Of 20 official test episodes each: labels, the highest score of another method, its threshold and the number of windows, from
# github.com/cai60-cai/fiper at e75a747, result/<task>/eval_details.json (MIT).
PRETZEL = {
    "labels": "fsssffsfffffsffsssss",
    "threshold": 0.141849,
    "scores": (0.386008, 0.152926, 0.159853, 0.161434, 0.353624, 0.425172, 0.214565, 0.265429, 0.336310, 0.350852)
    + (0.421344, 0.459012, 0.147479, 0.326810, 0.154366, 0.125178, 0.116579, 0.123607, 0.125941, 0.174745),
    "windows": (10, 6, 6, 6, 10, 8, 7, 8, 8, 8, 8, 8, 6, 8, 6, 5, 5, 5, 5, 8),
}
PUSH_CHAIR = {
    "labels": "ffffffffffssssssssss",
    "threshold": 0.378217,
    "scores": (3.037214, 2.068482, 1.877194, 2.005573, 2.974643, 4.407445, 1.518565, 2.456668, 3.444555, 2.194414)
    + (0.223943, 0.298921, 0.296737, 0.376616, 0.312205, 0.190042, 0.291202, 0.318630, 0.216037, 0.150657),
    "windows": (1,) * 20,
}

GOOD = np.array([True, True, False, False])
PLANS = np.array([11, 11, 11, 11])


@st.composite
def tables(draw: st.DrawFn, both: bool = True) -> Rows:
    """Episodes with any labels (of `both` classes), lengths, alarms and scores full of ties."""
    n = draw(st.integers(2, 12))
    good = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    if both:
        good[:2] = True, False
    length = np.array(draw(st.lists(st.integers(1, 9), min_size=n, max_size=n)))
    alarm = np.array([draw(st.integers(-1, int(plans) - 1)) for plans in length])
    score = np.array(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)), float)
    return Rows.of(good, alarm, length, draw(st.integers(int(length.max()), 12)), score)


def by_hand(rows: Rows) -> dict[str, float]:
    """Every metric from its definition, one episode at a time."""
    failures = [i for i in range(len(rows.success)) if not rows.success[i]]
    successes = [i for i in range(len(rows.success)) if rows.success[i]]
    late = {i: rows.alarm[i] / max(1, rows.longest - 1) for i in failures if rows.alarm[i] >= 0}
    tpr = len(late) / len(failures)
    tnr = sum(rows.alarm[i] == -1 for i in successes) / len(successes)
    assert rows.score is not None
    wins = [
        1.0 if rows.score[f] > rows.score[s] else 0.5 if rows.score[f] == rows.score[s] else 0.0
        for f in failures
        for s in successes
    ]
    return {
        "tpr": tpr,
        "tnr": tnr,
        "fpr": 1 - tnr,
        "balanced_accuracy": (tpr + tnr) / 2,
        "detection_time": sum(late.values()) / len(late) if late else 1.0,
        "twa": 0.5 * (sum(1 - d for d in late.values()) / len(failures) + tnr),
        "auroc": sum(wins) / len(wins),
    }


@given(tables())
def test_every_metric_is_its_definition(rows: Rows) -> None:
    assert {name: metrics.value(name, rows) for name in metrics.METRICS} == pytest.approx(by_hand(rows))


@pytest.mark.parametrize(
    ("alarm", "twa", "accuracy", "time"),
    [
        ([-1, -1, -1, -1], 0.5, 0.5, 1.0),  # never an alarm: the detection time of nothing is 1
        ([0, 0, 0, 0], 0.5, 0.5, 0.0),  # always, at once
        ([-1, -1, 0, 0], 1.0, 1.0, 0.0),  # perfect at once
        ([-1, -1, 10, 10], 0.5, 1.0, 1.0),  # perfect, but with the last plan of the longest episode
        ([-1, 3, 5, -1], 0.375, 0.5, 0.5),
    ],
)
def test_time_weighted_accuracy_has_the_values_of_the_specification(
    alarm: list[int], twa: float, accuracy: float, time: float
) -> None:
    rows = Rows.of(GOOD, alarm, PLANS)
    assert metrics.value("twa", rows) == twa
    assert metrics.value("balanced_accuracy", rows) == accuracy
    assert metrics.value("detection_time", rows) == time


def test_a_longer_calibration_episode_makes_the_same_alarm_earlier() -> None:
    alarm = [-1, -1, 5, 5]
    assert metrics.value("detection_time", Rows.of(GOOD, alarm, PLANS, longest=21)) == 0.25
    assert metrics.value("twa", Rows.of(GOOD, alarm, PLANS, longest=21)) == 0.875


def test_an_episode_of_one_plan_is_flagged_at_once_or_not_at_all() -> None:
    rows = Rows.of([True, False], [-1, 0], [1, 1])
    assert (metrics.value("detection_time", rows), metrics.value("twa", rows)) == (0.0, 1.0)


@pytest.mark.parametrize("label", [True, False])
def test_an_empty_class_gives_none_and_never_nan(label: bool) -> None:
    rows = Rows.of([label] * 3, [-1, 0, 1], [2, 2, 2], score=[1.0, 2.0, 3.0])
    row = metrics.measure(rows, (20, 0.1), traces=[np.zeros(2)] * 3).as_row()
    held = {name for name, number in row.items() if number is not None}
    good = {"tnr", "tnr_low", "tnr_high", "fpr", "promised_low", "promised_high", "promise_kept"}
    bad = {"tpr", "tpr_low", "tpr_high", "detection_time"}
    assert held == {"failures", "successes"} | (good if label else bad)
    assert "NaN" not in json.dumps(row)
    assert metrics.interval95("twa", rows) is None and metrics.difference95("auroc", rows, rows) is None


def test_no_episode_at_all_gives_none() -> None:
    rows = Rows.of([], [], [])
    assert all(metrics.value(name, rows) is None for name in metrics.METRICS)
    assert metrics.measure(rows, (20, 0.1), traces=[]).as_row()["failures"] == 0


def test_a_row_is_flat_and_holds_every_figure() -> None:
    rows = Rows.of(GOOD, [-1, 3, 5, -1], PLANS, score=[0.0, 3.0, 2.0, 1.0])
    row = metrics.measure(rows, (50, 0.1), traces=[np.arange(11.0)] * 4).as_row()
    assert row["tpr"] == 0.5 and row["tpr_low"] == pytest.approx(0.0945, abs=1e-3)
    assert row["auroc"] == 0.5 and row["auroc_common"] == 0.5
    assert (row["promised_low"], row["promised_high"]) == alarms_interval(50, 2, 0.1)
    assert row["promise_kept"] is True and (row["failures"], row["successes"]) == (2, 2)
    assert metrics.measure(rows).promise_kept is None


@pytest.mark.parametrize(
    ("task", "auroc", "tpr", "tnr", "by_length"), [(PRETZEL, 0.960, 1.0, 0.40, 0.93), (PUSH_CHAIR, 1.0, 1.0, 1.0, 0.50)]
)
def test_public_labels_and_scores_give_the_published_figures(
    task: dict[str, object], auroc: float, tpr: float, tnr: float, by_length: float
) -> None:
    good = np.array([label == "s" for label in str(task["labels"])])
    scores, windows = np.array(task["scores"]), np.array(task["windows"])
    rows = Rows.of(good, np.where(scores > task["threshold"], 0, -1), windows, score=scores)
    got = metrics.measure(rows)
    assert (got.auroc, got.tpr, got.tnr) == pytest.approx((auroc, tpr, tnr))
    assert metrics.auroc(windows.astype(float), good) == pytest.approx(by_length, abs=0.006)


@given(tables())
def test_auroc_sees_order_only(rows: Rows) -> None:
    score = np.asarray(rows.score)
    first = metrics.auroc(score, rows.success)
    assert first == metrics.auroc(np.exp(2 * score) - 7, rows.success)
    assert first == pytest.approx(1 - (metrics.auroc(-score, rows.success) or 0.0))
    assert metrics.auroc(np.full(len(score), 3.0), rows.success) == 0.5


def test_auroc_takes_infinity_and_refuses_nan() -> None:
    assert metrics.auroc([-math.inf, 0.0, math.inf, math.inf], GOOD) == 1.0
    with pytest.raises(BadInput, match="want 4 scores, one an episode and none NaN"):
        metrics.auroc([0.0, math.nan, 1.0, 2.0], GOOD)


@given(tables(), st.sampled_from([0.5, 0.9, 1.0]), st.integers(0, 99))
def test_a_score_that_knows_only_the_time_is_worth_exactly_half_at_a_common_length(rows: Rows, share: float, seed: int) -> None:
    clock = [np.arange(plans, dtype=float) for plans in rows.length]
    assert metrics.auroc_common_length(clock, rows.success, share) == 0.5
    wave = np.random.default_rng(seed).normal(size=9)  # any function of time
    assert metrics.auroc_common_length([wave[:plans] for plans in rows.length], rows.success, share) == 0.5


def test_where_failures_time_out_the_clock_looks_perfect_until_the_length_is_common() -> None:
    rng = np.random.default_rng(0)
    good = np.arange(80) < 50
    length = np.where(good, rng.integers(20, 60, 80), 60)
    clock = [np.arange(plans, dtype=float) for plans in length]
    assert metrics.auroc([trace.max() for trace in clock], good) == 1.0
    assert metrics.auroc_common_length(clock, good) == 0.5
    seeing = [trace * 0 + (not label) for trace, label in zip(clock, good, strict=True)]
    assert metrics.auroc_common_length(seeing, good) == 1.0


def test_the_common_length_is_reached_by_the_share_of_each_class() -> None:
    good = np.arange(40) < 20
    length = np.concatenate([np.arange(1, 21), np.full(20, 30)])
    assert metrics.common_length(length, good) == 3  # 18 of 20 successes reach it, and every failure
    assert metrics.common_length(length, good, share=1.0) == 1
    assert metrics.common_length(length, ~good) == 3
    traces = [np.arange(plans, dtype=float) for plans in length]
    peaks, kept = metrics.peaks_at_common_length(traces, good)
    assert kept.sum() == 38 and not kept[:2].any() and (peaks == 2.0).all()


def test_what_comes_after_the_common_length_does_not_count() -> None:
    traces = [np.array([0.0, 1.0]), np.array([0.0, 0.0, 9.0]), np.array([5.0, 0.0])]
    assert metrics.auroc_common_length(traces, [True, True, False], share=1.0) == 1.0


@given(tables(), st.sampled_from(sorted(metrics.METRICS)), st.integers(0, 99))
def test_counting_an_episode_twice_is_having_it_twice(rows: Rows, name: str, seed: int) -> None:
    counts = np.random.default_rng(seed).integers(0, 4, len(rows.success))
    counts[:2] = np.maximum(counts[:2], 1)  # a success and a failure
    repeated = np.repeat(np.arange(len(counts)), counts)
    assert rows.score is not None
    twice = Rows.of(*(a[repeated] for a in (rows.success, rows.alarm, rows.length)), rows.longest, rows.score[repeated])
    assert metrics.METRICS[name](rows, counts[None])[0] == pytest.approx(metrics.value(name, twice))


def test_a_resample_keeps_the_size_of_each_class() -> None:
    good = np.arange(30) < 27
    blocks = list(metrics._resamples(good))
    counts = np.concatenate(blocks)
    assert counts.shape == (metrics.RESAMPLES, 30) and metrics.RESAMPLES == 10_000
    assert (counts[:, good].sum(axis=1) == 27).all() and (counts[:, ~good].sum(axis=1) == 3).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(30), abs=0.05)


def simulated(rng: np.random.Generator, n: int, sharp: float) -> Rows:
    good = np.arange(n) < n // 2
    score = rng.normal(size=n) + sharp * ~good
    return Rows.of(good, np.where(score > 1.0, 3, -1), np.full(n, 11), score=score)


def test_the_bootstrap_covers_the_truth_about_as_often_as_promised() -> None:
    rng = np.random.default_rng(3)
    truth = 0.921350  # Phi(2 / sqrt 2)
    found = [metrics.interval95("auroc", simulated(rng, 60, 2.0)) for _ in range(30)]
    hits = sum(low <= truth <= high for low, high in filter(None, found))
    assert 25 <= hits <= 30


def test_the_interval_of_a_rate_is_that_of_a_proportion() -> None:
    rows = Rows.of([False] * 100 + [True], [0] * 80 + [-1] * 21, [2] * 101)
    low, high = metrics.interval95("tpr", rows) or (0.0, 0.0)
    assert (low, high) == pytest.approx((0.72, 0.875), abs=0.011)


def test_equal_episodes_give_equal_intervals() -> None:
    rows = simulated(np.random.default_rng(0), 60, 1.0)
    assert metrics.interval95("twa", rows) == metrics.interval95("twa", rows)


@settings(max_examples=5)
@given(tables())
def test_a_detector_does_not_differ_from_itself(rows: Rows) -> None:
    for name in metrics.METRICS:
        assert metrics.difference95(name, rows, rows) == (0.0, 0.0, 0.0)


def test_pairing_sees_a_difference_that_two_intervals_hide() -> None:
    a = simulated(np.random.default_rng(0), 120, 1.0)
    better = np.where(~a.success & (a.alarm < 0) & (np.arange(120) % 3 == 0), 3, a.alarm)
    b = Rows.of(a.success, better, a.length)
    difference, low, high = metrics.difference95("tpr", a, b) or (0.0, 0.0, 0.0)
    assert difference == pytest.approx((metrics.value("tpr", b) or 0) - (metrics.value("tpr", a) or 0)) and 0 < low < high
    one, two = metrics.interval95("tpr", a), metrics.interval95("tpr", b)
    assert one and two and one[1] > two[0], "the intervals overlap"
    assert metrics.difference95("tpr", b, a) == pytest.approx((-difference, -high, -low))


def test_a_metric_of_ones_own_is_resampled_too() -> None:
    rows = simulated(np.random.default_rng(1), 60, 1.0)
    low, high = metrics.interval95(lambda rows, counts: 1 - metrics.tpr(rows, counts), rows) or (0.0, 0.0)
    assert (1 - high, 1 - low) == pytest.approx(metrics.interval95("tpr", rows))


def test_the_promised_rate_holds_what_calibration_and_test_together_scatter() -> None:
    rng = np.random.default_rng(5)
    kept = []
    for _ in range(300):
        threshold = conformal_threshold(rng.exponential(size=50), 0.1)
        alarm = np.where(rng.exponential(size=100) > threshold, 0, -1)
        kept.append(metrics.measure(Rows.of([True] * 100, alarm, [1] * 100), (50, 0.1)).promise_kept)
    assert np.mean(kept) >= 0.93
    careless = Rows.of([True] * 100, [0] * 40 + [-1] * 60, [1] * 100)
    assert metrics.measure(careless, (50, 0.1)).promise_kept is False


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda: Rows.of([0.5, 1.0], [-1, -1], [2, 2]), "want success .* of True and False, got float64"),
        (lambda: Rows.of(GOOD, [-1], PLANS), r"want 4 of alarm, one an episode in whole plans, got int64\(1,\)"),
        (lambda: Rows.of(GOOD, [-1.0] * 4, PLANS), "want 4 of alarm, one an episode in whole plans, got float64"),
        (
            lambda: Rows.of(GOOD, [-1, -1, 11, -1], PLANS),
            "episode 2: want an alarm from -1 to length - 1, got alarm 11, length 11",
        ),
        (lambda: Rows.of(GOOD, [-2, -1, 1, -1], PLANS), "episode 0: want an alarm from -1 to length - 1, got alarm -2"),
        (lambda: Rows.of(GOOD, [-1] * 4, PLANS, longest=5), "want the longest episode of all to be at least 11 plans, got 5"),
        (lambda: Rows.of(GOOD, [-1] * 4, PLANS, score=[1.0]), "want 4 scores, one an episode"),
        (lambda: metrics.common_length(PLANS, GOOD, 0.0), "a share above 0 up to 1, got 4 and 0.0"),
        (lambda: metrics.common_length([0, 1], [True, False]), "want episodes of one plan or more"),
        (
            lambda: metrics.difference95("tpr", Rows.of(GOOD, [-1] * 4, PLANS), Rows.of(~GOOD, [-1] * 4, PLANS)),
            "want two detectors on the same episodes, got other labels or lengths",
        ),
    ],
)
def test_rows_that_make_no_sense_are_refused(what, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        what()


def test_an_unknown_metric_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown metric 'tpf'; did you mean 'tpr'"):
        metrics.value("tpf", Rows.of(GOOD, [-1] * 4, PLANS))
