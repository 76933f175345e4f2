"""The released code's choices, faults included: they show where they are known to, and differ from ours where they should."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from robolearn.monitors import _conformal
from robolearn.monitors._base import EMPTY, Episode
from robolearn.monitors._detector import Traces, twa
from robolearn.monitors._official import OPTIONS, WINDOWS, Official, official, upper
from robolearn.monitors._recipe import Recipe

sys.path.insert(0, str(Path(__file__).parent))
from test_fit import LAYOUT, rollout, rollouts

T = 40
ONE, TWO = Recipe(("variance",), draws=4), Recipe(("knn", "variance"), draws=4)


def skewed(n: int, rng: np.random.Generator) -> Traces:
    """Returns curves of the specification's skewed case: a gamma a curve and growing exponentials a step."""
    t = np.arange(T)
    mean = 1 + np.sin(np.linspace(0, 3, T)) + 0.3 * np.linspace(0, 3, T)
    level, noise = rng.gamma(2, 0.15, n), rng.exponential(0.3, (n, T)) * (0.5 + t / T)
    return list(mean + level[:, None] + noise)


def symmetric(n: int, rng: np.random.Generator) -> Traces:
    mean = 1 + np.sin(np.linspace(0, 3, T)) + 0.3 * np.linspace(0, 3, T)
    return list(mean + rng.normal(0, 0.3, (n, 1)) + rng.normal(0, 0.3, (n, T)))


def coverage(draw: Callable[[int, np.random.Generator], Traces], repeats: int = 40, n: int = 200) -> tuple[float, float]:
    """Returns which share of fresh curves stays below the released band all the time, and below the corrected one."""
    rng, released, ours = np.random.default_rng(1), [], []
    for _ in range(repeats):
        curves, fresh = draw(n, rng), np.stack(draw(50, rng))
        bound = upper(curves, 1, "tvt_cp_band", 0.1, T)
        right = _conformal.band(curves[: n // 2], curves[n // 2 :], 0.1).upper(T)
        released.append((fresh <= bound - EMPTY).all(axis=1).mean())
        ours.append((fresh <= right).all(axis=1).mean())
    return float(np.mean(released)), float(np.mean(ours))


def test_the_sign_turned_around_covers_far_too_little_where_scores_are_skewed() -> None:
    released, ours = coverage(skewed)
    assert abs(released - 0.245) < 0.06 and abs(ours - 0.898) < 0.025


def test_on_symmetric_scores_the_sign_hardly_shows() -> None:
    released, ours = coverage(symmetric)
    assert abs(released - 0.888) < 0.03 and abs(ours - 0.902) < 0.025


def test_the_released_constant_threshold_is_the_quantile_of_the_highest_sums() -> None:
    traces = symmetric(25, np.random.default_rng(3))
    for window in (1, 7, 50):
        sums = [[trace[max(0, t - window + 1) : t + 1].sum() for t in range(T)] for trace in traces]
        want = np.quantile([max(some) for some in sums], 0.9)
        np.testing.assert_allclose(upper(traces, window, "ct_quantile", 0.1, 60), np.full(60, want), rtol=1e-4)


def test_the_released_band_has_its_longest_curve_in_the_first_half_and_goes_on_as_its_mean() -> None:
    rng = np.random.default_rng(2)
    traces = [rng.exponential(1, n) for n in (10, 12, 30, 11, 9, 12, 10)]
    bound = upper(traces, 1, "tvt_cp_band", 0.1, 45)
    assert len(bound) == 45 and np.allclose(bound[30:], bound[:30].mean())
    half, second = [2, 0, 1, 3], [4, 5, 6]
    want = _conformal.band([traces[i] + EMPTY for i in half], [traces[i] + EMPTY for i in second], 0.1, "official").upper(45)
    np.testing.assert_allclose(bound, want)


def worth(made: Official, test: list[Episode], longest: int) -> float:
    return twa([e.success for e in test], made.alarms.tolist(), longest)


@pytest.mark.parametrize(("recipe", "seeds"), [(ONE, range(5)), (TWO, range(1))], ids=["one", "two"])
def test_what_was_chosen_on_test_is_at_least_as_good_there_as_what_was_chosen_on_calibration(
    recipe: Recipe, seeds: range
) -> None:
    gains = []
    for seed in seeds:
        calibration, test = rollouts(14, 8, begin=1000 * seed), rollouts(10, 10, begin=1000 * seed + 500)
        on_test, on_calibration = official(recipe, LAYOUT, calibration, test, seed)
        assert (on_test.chosen_on, on_calibration.chosen_on) == ("test", "calibration")
        longest = max(len(e) for e in [*calibration, *test])
        gains.append(worth(on_test, test, longest) - worth(on_calibration, test, longest))
        for made in (on_test, on_calibration):
            assert set(made.options) == set(recipe.scores) and set(made.options.values()) <= set(OPTIONS)
            assert made.alarms.shape == (20,) and all(-1 <= a < len(e) for a, e in zip(made.alarms, test, strict=True))
    assert min(gains) >= 0 and (len(seeds) == 1 or max(gains) > 0), "and mostly better, which is the fault"


def test_what_is_chosen_on_calibration_does_not_look_at_the_test_episodes() -> None:
    calibration, test = rollouts(14, 8), rollouts(10, 10, begin=500)
    turned = [dataclasses.replace(e, success=not e.success) for e in test]
    one, other = (official(ONE, LAYOUT, calibration, some, 0) for some in (test, turned))
    assert one[1].options == other[1].options and np.array_equal(one[1].alarms, other[1].alarms)
    assert one[0].options != other[0].options or not np.array_equal(one[0].alarms, other[0].alarms)


def test_the_windows_are_the_published_ones_with_both_kinds_of_threshold() -> None:
    assert WINDOWS == (1, 2, 3, 4, 5, 7, 9, 11, 13, 15, 20, 25, 30, 35, 40, 45, 50)
    assert len(OPTIONS) == 34 and {kind for _, kind in OPTIONS} == {"ct_quantile", "tvt_cp_band"}


def rising(seed: int, success: bool) -> Episode:
    """Returns an episode whose draws spread more and more, or, of a failure, as much from the start as others do late."""
    episode = rollout(seed, plans=12)
    wide = np.linspace(1, 5, 12) if success else np.full(12, 4.0)
    plans = dataclasses.replace(episode.plans, samples=episode.plans.samples * wide[:, None, None, None])
    return dataclasses.replace(episode, plans=plans, success=success)


@pytest.mark.parametrize("scores", [("variance",), ("variance", "ace")], ids=["one", "two"])
def test_the_band_is_among_what_is_tried_however_many_scores_there_are(scores: tuple[str, ...]) -> None:
    calibration, test = ([rising(begin + i, i < 12) for i in range(20)] for begin in (0, 100))
    on_test, _ = official(
        Recipe(scores, draws=4, options={"ace": {"cell": 0.2}} if "ace" in scores else {}), LAYOUT, calibration, test, 0
    )
    assert {kind for _, kind in on_test.options.values()} == {"tvt_cp_band"}, "only time tells these failures apart at once"


def test_scores_are_fitted_to_the_very_rollouts_that_thresholds_come_from() -> None:
    recipe = Recipe(("knn",), draws=4, options={"knn": {"k": 1}})
    calibration, test = [rollout(i) for i in range(20)], [rollout(i) for i in range(20)]
    made, _ = official(recipe, LAYOUT, calibration, test, 0)
    assert (made.alarms < 0).all(), "an episode that was fitted to is nearest to itself: in-sample scores are zero"
    fresh = [rollout(i) for i in range(100, 120)]
    assert (official(recipe, LAYOUT, calibration, [*fresh, rollout(0, False)], 0)[1].alarms[:20] >= 0).mean() > 0.5
