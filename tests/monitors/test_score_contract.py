"""Failure scores without a network: what all of them promise and refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from plain_scores import CASES, DRAWN, EMBEDDED, EPISODES, FITTED, JOINTS, LAYOUT, MOVING, NAMES, make, plans

from robolearn.errors import BadInput, SpecMismatch
from robolearn.monitors._base import Episode, Layout, Plans


@pytest.mark.parametrize("layout", [LAYOUT, MOVING], ids=["absolute", "moving"])
@pytest.mark.parametrize("case", CASES)
def test_a_score_live_is_the_score_afterwards_bit_for_bit(case: str, layout: Layout) -> None:
    score, seen = make(case, layout), plans(23, 77)
    trace = score.trace(seen)
    assert trace.shape == (23,) and trace.dtype == np.float64 and np.isfinite(trace).all() and trace.std() > 0
    for n in range(24):
        assert np.array_equal(score.trace(seen[:n]), trace[:n])
        begin = max(0, n - score.reach - 1)
        assert n == 0 or score.trace(seen[begin:n])[-1] == trace[n - 1], "the last reach + 1 plans are enough"


@pytest.mark.parametrize("case", CASES)
def test_what_was_fitted_goes_to_a_folder_and_back_bit_for_bit(case: str) -> None:
    score, other = make(case), make(case, fit=False)
    kept = {name: array.copy() for name, array in score.arrays().items()}
    assert bool(kept) == (case in FITTED)
    other.restore(kept)
    assert np.array_equal(score.trace(plans(9, 5)), other.trace(plans(9, 5)))
    assert all(np.array_equal(array, other.arrays()[name]) for name, array in kept.items())


@pytest.mark.parametrize("case", FITTED)
def test_a_score_learns_the_same_from_the_same_and_only_from_successes_unless_supervised(case: str) -> None:
    score, other = make(case), make(case, fit=False)
    other.fit([e for e in EPISODES if e.success or score.supervised], np.random.default_rng(0))
    assert np.array_equal(score.trace(plans(9, 5)), other.trace(plans(9, 5)))
    assert score.supervised == ("supervised" in case)


@pytest.mark.parametrize("case", FITTED)
def test_a_fit_to_nothing_and_a_score_before_the_fit_are_refused(case: str) -> None:
    score, name = make(case, fit=False), CASES[case][0].Config().name
    with pytest.raises(BadInput, match=f"^{name}: is not fitted yet"):
        score.trace(plans(3, 0))
    for none in ([], [e for e in EPISODES if not e.success]):
        with pytest.raises(BadInput, match=f"^{name}: wants a successful episode to fit to, got none among {len(none)}"):
            score.fit(none, np.random.default_rng(0))
    if score.supervised:
        with pytest.raises(BadInput, match=f"^{name}: wants a failed episode to fit to, got none among 6"):
            score.fit([e for e in EPISODES if e.success], np.random.default_rng(0))


@pytest.mark.parametrize("case", FITTED)
def test_restored_arrays_that_do_not_fit_are_refused_by_name_and_change_nothing(case: str) -> None:
    score, name = make(case), CASES[case][0].Config().name
    before, kept = score.trace(plans(5, 5)), score.arrays()
    last = list(kept)[-1]
    broken = [{}, kept | {"more": np.zeros(1)}, kept | {last: np.zeros(0)}, kept | {last: kept[last] * np.nan}]
    broken += [kept | {last: kept[last][None]}]
    if case not in ("knn", "knn cosine"):  # a single set of narrower embeddings is one of another policy: refused with its plans
        broken += [kept | {last: kept[last][..., 1:]}]
    for arrays in broken:
        with pytest.raises(BadInput, match=f"^{name}: (want the arrays? |array '{last}'|cell: want)"):
            score.restore(arrays)
    assert np.array_equal(score.trace(plans(5, 5)), before)


@pytest.mark.parametrize("case", CASES)
def test_plans_that_cannot_be_scored_are_refused(case: str) -> None:
    score, good = make(case), plans(6, 1)
    name = CASES[case][0].Config().name
    for key in ("features", "samples"):
        holed = getattr(good, key).copy()
        holed.flat[-1] = np.nan
        with pytest.raises(BadInput, match=f"^{name}: {key} hold NaN or infinity"):
            score.trace(Plans(**(vars(good) | {key: holed})))
    if case in EMBEDDED:
        with pytest.raises(BadInput, match=f"^{name}: was fitted to embeddings of 5 numbers, got 4"):
            score.trace(Plans(**(vars(good) | {"features": good.features[:, 1:]})))
        with pytest.raises(BadInput, match=f"^{name}: wants embeddings of at least one number, got none"):
            score.fit([Episode(Plans(**(vars(good) | {"features": np.zeros((6, 0))})), True, 24)], np.random.default_rng(0))
    if case in DRAWN:
        with pytest.raises(BadInput, match=f"^{name}: needs 6 draws a plan, got 5"):
            score.trace(Plans(**(vars(good) | {"samples": good.samples[:, :5]})))


@pytest.mark.parametrize("case", DRAWN)
def test_draws_beyond_those_of_the_calibration_change_nothing(case: str) -> None:
    seen = plans(6, 1)
    few = Plans(seen.ticks, seen.features, seen.samples[:, :6], seen.past_samples[:, :6], seen.executed)
    assert np.array_equal(make(case).trace(seen), make(case).trace(few)) and make(case).needs.draws == 6


def test_a_policy_that_cannot_serve_a_score_is_refused_when_it_is_made() -> None:
    for case in ("ace", "stac", "reversal"):
        with pytest.raises(SpecMismatch, match=f"^{case}: needs end-effector positions, got actions named q0, q1, q2, gripper"):
            make(case, JOINTS, fit=False)
    assert make("stac all", JOINTS).trace(plans(4, 0)).shape == (4,)
    with pytest.raises(SpecMismatch, match=r"^past_disagreement: needs a policy that predicts its past .* got n_past 0"):
        make("past_disagreement", Layout(NAMES, 8, 4), fit=False)
    for case in ("stac", "variance", "past_disagreement"):
        with pytest.raises(SpecMismatch, match=f"^{case}: scale: want one number for each of 4 of an action, got 1"):
            make(case, Layout(NAMES, 8, 4, 3, scale=(2.0,)), fit=False)


def test_needs_name_draws_embeddings_and_position_numbers() -> None:
    assert make("ace").needs.action_names == make("reversal").needs.action_names == ("x", "y", "z")
    assert make("stac", MOVING).needs.action_names == ("dx", "dy", "dz") and make("stac all").needs.action_names == ()
    assert {case for case in CASES if make(case).needs.features} == set(EMBEDDED)
    assert make("past_disagreement first").needs.draws == 1 and make("reversal").reach == 3 and make("stac").reach == 1


@pytest.mark.parametrize(
    ("case", "options", "message"),
    [
        ("ace", {"draws": 1}, "want draws at least 2 and cell above 0, got 1 and"),
        ("ace", {"cell": 0.0}, "want draws at least 2 and cell above 0, got 6 and 0"),
        ("stac", {"draws": 1}, "draws: want at least 2, got 1"),
        ("variance", {"draws": 1}, "draws: want at least 2, got 1"),
        ("past_disagreement", {"draws": 0}, "draws: want at least 1, got 0"),
        ("reversal", {"span": 0}, "span: want at least 1, got 0"),
        ("knn", {"k": 0}, "k: want at least 1, got 0"),
        ("mahalanobis", {"shrinkage": 0.0}, "shrinkage: want a share above 0 and up to 1, got 0"),
        ("pca_kmeans", {"clusters": 0}, "components and clusters: want at least 1, got 3 and 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(case: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make(case, fit=False, **options)
