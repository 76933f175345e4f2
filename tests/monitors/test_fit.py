"""Who is fitted to what: nobody twice, failures to no threshold, and every choice without a look at calibration or test."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn.errors import BadInput, ConfigError, SpecMismatch, UnknownName
from robolearn.monitors._base import Episode, Layout, Plans
from robolearn.monitors._detector import Detector
from robolearn.monitors._fit import LEAST_TPR, Fitted, deal, fit, prepare
from robolearn.monitors._recipe import Recipe, make_score, named, needs_of, score_names

LAYOUT = Layout(("x", "y", "gripper"), horizon=6, execute=3, n_past=2, hz=10.0, scale=(1.0, 2.0, 0.5))
QUICK = Recipe(("knn", "variance", "clock"), draws=4, windows=(1, 3), alpha=0.2)


def rollout(seed: int, success: bool = True, group: str = "", plans: int = 0, layout: Layout = LAYOUT, **facts: Any) -> Episode:
    """Returns a rollout of 4 draws a plan and embeddings of 5 numbers; of a failure both stray more and more."""
    rng = np.random.default_rng([7, seed])
    length = plans or int(rng.integers(8, 14))
    stray = np.zeros(length) if success else np.linspace(0, 3, length)
    features = rng.normal(size=(length, 5)) + stray[:, None]
    samples = rng.normal(size=(length, 4, layout.horizon, 3)) * (1 + stray[:, None, None, None])
    past, executed = rng.normal(size=(length, 4, layout.n_past, 3)), rng.normal(size=(length, layout.n_past, 3))
    executed[: min(length, 2)] = np.nan  # the episode had not begun
    executed[1:2, 1:] = 0.5
    arrays = [array.astype(np.float32) for array in (features, samples, past, executed)]
    return Episode(Plans(np.arange(length) * layout.execute, *arrays), success, length * 3, seed, group, **facts)


def rollouts(good: int, bad: int = 0, begin: int = 0, **options: Any) -> list[Episode]:
    """Returns so many successes and failures, mixed, with seeds from `begin` on."""
    outcomes = np.random.default_rng(begin).permutation([True] * good + [False] * bad)
    return [rollout(begin + i, bool(outcome), **options) for i, outcome in enumerate(outcomes)]


def other_plans(episode: Episode) -> Episode:
    """Returns an episode of the same seed and outcome in which everything else was quite different."""
    return dataclasses.replace(episode, plans=rollout(episode.seed + 10_000, not episode.success, plans=len(episode) + 3).plans)


def told(detector: Detector) -> tuple[dict[str, Any], ...]:
    """Returns what a detector is, in numbers."""
    shape = {n: (r.window, r.band, r.mean.tolist(), r.spread.tolist()) for n, r in detector.references.items()}
    arrays = {n: {k: a.tolist() for k, a in s.arrays().items()} for n, s in detector.scores.items()}
    return shape, arrays, dict(detector.thresholds), dict(detector.apart), dict(detector.n_calibrate)


# Dealing.


@settings(max_examples=40)
@given(st.integers(8, 60), st.integers(0, 30), st.integers(0, 5))
def test_no_episode_is_dealt_twice_and_none_is_left_out(good: int, bad: int, seed: int) -> None:
    episodes = [rollout(i, i < good, plans=2) for i in range(good + bad)]
    parts = deal(episodes, seed)
    dealt = [parts.learn_good, parts.learn_bad, parts.shape_good, parts.shape_bad, parts.calibrate]
    assert sorted(e.seed for part in dealt for e in part) == list(range(good + bad))
    assert all(e.success for e in (*parts.learn_good, *parts.shape_good, *parts.calibrate)), "failures never calibrate"
    assert not any(e.success for e in (*parts.learn_bad, *parts.shape_bad))
    for part, share in ((parts.learn_good, 0.4), (parts.shape_good, 0.2), (parts.calibrate, 0.4)):
        assert abs(len(part) - share * good) <= 1 and part
    assert abs(len(parts.learn_bad) - len(parts.shape_bad)) <= 1


def test_episodes_are_dealt_by_the_seed_alone_whatever_happened_in_them() -> None:
    episodes = rollouts(20, 10)
    first, again, other = deal(episodes, 3), deal([other_plans(e) for e in episodes], 3), deal(episodes, 4)
    for field in dataclasses.fields(first):
        if field.name != "notes":
            assert [e.seed for e in getattr(first, field.name)] == [e.seed for e in getattr(again, field.name)]
    assert [e.seed for e in first.calibrate] != [e.seed for e in other.calibrate]


def test_one_start_under_two_disturbances_is_not_both_fitted_to_and_calibrated_on() -> None:
    with pytest.raises(BadInput, match="begin alike"):
        deal([rollout(i, kind=kind) for kind in ("", "delay") for i in range(15)], 0)


def test_rollouts_that_are_there_twice_are_refused() -> None:
    with pytest.raises(
        BadInput, match=r"^calibration: some rollouts begin alike \(same task and seed\); want every seed of a task once$"
    ):
        deal([*rollouts(12), rollout(3)], 0)
    with pytest.raises(BadInput, match="begin alike"):
        deal([*rollouts(12), rollout(3, success=False)], 0)
    deal([*rollouts(12), rollout(3, group="other task")], 0)


def test_too_few_successes_are_refused_however_many_failures_there_are() -> None:
    with pytest.raises(BadInput, match=r"^calibration: want at least 8 successful rollouts, got 7 of 37$"):
        deal(rollouts(7, 30), 0)
    assert len(deal(rollouts(8, 0), 0).calibrate) == 3


# What a threshold comes from.


def test_failures_change_no_threshold_of_an_unsupervised_score() -> None:
    recipe = dataclasses.replace(QUICK, windows=(3,), bands=("constant",))
    episodes = rollouts(30, 10)
    changed = [e if e.success else dataclasses.replace(e, plans=rollout(e.seed + 999, True).plans) for e in episodes]
    assert told(fit(recipe, LAYOUT, episodes)) == told(fit(recipe, LAYOUT, changed))


def test_fitting_is_the_same_again_and_differs_by_seed() -> None:
    episodes = rollouts(30, 10)
    assert told(fit(QUICK, LAYOUT, episodes, 5)) == told(fit(QUICK, LAYOUT, episodes, 5))
    assert told(fit(QUICK, LAYOUT, episodes, 5)) != told(fit(QUICK, LAYOUT, episodes, 6))


def test_no_episode_of_the_calibration_reaches_what_was_learned_or_shaped() -> None:
    episodes = rollouts(40, 20)
    held = {e.seed for e in deal(episodes, 1).calibrate}
    changed = [other_plans(e) if e.seed in held else e for e in episodes]
    one, other = prepare(QUICK, LAYOUT, episodes, 1), prepare(QUICK, LAYOUT, changed, 1)
    before, after = (told(made.detector(QUICK.scores)) for made in (one, other))
    assert before[:2] == after[:2], "references and scores"
    assert before[2] != after[2], "the threshold alone"
    assert one.best() == other.best()
    for names in (("knn",), ("variance", "clock")):
        assert one.worth(names) == other.worth(names)


def test_a_detector_of_some_of_the_scores_is_the_one_fitted_to_them_alone() -> None:
    episodes = rollouts(40, 20)
    fitted = prepare(QUICK, LAYOUT, episodes)
    for agree, joint in ((1, True), (2, False), (0, True)):
        some = dataclasses.replace(QUICK, scores=("knn", "clock"), agree=agree, joint=joint)
        assert told(fitted.detector(("knn", "clock"), agree, joint)) == told(fit(some, LAYOUT, episodes))


def test_groups_have_thresholds_of_their_own_from_their_own_and_strangers_that_of_all() -> None:
    episodes = [rollout(i, i % 4 > 0, ("near", "far")[i % 2]) for i in range(120)]
    fitted = prepare(QUICK, LAYOUT, episodes)
    detector = fitted.detector(("knn",))
    assert set(detector.thresholds) == {"", "near", "far"} and detector.threshold("nowhere") == detector.thresholds[""]
    near = [i for i, e in enumerate(fitted.parts.calibrate) if e.group == "near"]
    peaks = sorted(float(detector.combine({"knn": fitted.held["knn"][i]}).max()) for i in near)
    assert detector.n_calibrate["near"] == len(near) and detector.n_calibrate[""] == len(fitted.parts.calibrate)
    assert detector.threshold("near") == peaks[math.ceil((len(near) + 1) * 0.8) - 1]
    loudest = fitted.parts.calibrate[near[int(np.argmax([detector.combine({"knn": fitted.held["knn"][i]}).max() for i in near]))]]
    assert detector.alarm(loudest) >= 0
    assert set(fit(QUICK, LAYOUT, rollouts(30, group="near")).thresholds) == {""}, "one group is all"


def test_a_rollout_without_a_group_beside_others_counts_among_all_and_is_not_all() -> None:
    detector = fit(QUICK, LAYOUT, rollouts(20) + rollouts(20, begin=100, group="near"))
    assert detector.n_calibrate[""] == 16 and detector.n_calibrate["near"] < 16


# What a reader is told.


def test_a_threshold_that_is_infinite_is_said_aloud_with_what_a_finite_one_takes() -> None:
    episodes = rollouts(12, 4)
    for joint in (True, False):
        detector = fit(dataclasses.replace(QUICK, alpha=0.05, joint=joint), LAYOUT, episodes)
        (note,) = detector.notes
        assert note.endswith("alpha 0.05 takes 19 calibration successes") and "no alarm ever for" in note
        assert detector.promised == 0 and all(detector.alarm(rollout(i, False)) == -1 for i in range(70, 80))
    assert fit(dataclasses.replace(QUICK, alpha=0.05), LAYOUT, episodes).notes[0].startswith("no alarm ever for all (5): ")
    assert fit(QUICK, LAYOUT, episodes).notes == ()


def test_a_group_too_small_for_a_threshold_is_named() -> None:
    episodes = rollouts(40, 10, group="many") + rollouts(6, begin=900, group="few")
    detector = fit(QUICK, LAYOUT, episodes, 1)
    few = detector.n_calibrate["few"]
    assert detector.notes == (f"no alarm ever for few ({few}): alpha 0.2 takes 4 calibration successes",) and 0 < few < 4


def test_without_failures_this_is_said_and_what_needs_them_is_refused() -> None:
    fitted = prepare(QUICK, LAYOUT, rollouts(30))
    (note,) = fitted.detector(("knn",)).notes
    assert note == "no failures among the rollouts: windows are not chosen, and supervised scores cannot be fitted"
    with pytest.raises(BadInput, match=r"^choosing a combination: want failures among the calibration rollouts, got none$"):
        fitted.best()
    with pytest.raises(BadInput, match=r"^safe_mlp: .*fail"):
        fit(Recipe(("safe_mlp",), draws=4), LAYOUT, rollouts(30))


# The best pair.


def constant(good: list[float], bad: list[float], name: str) -> dict[str, Any]:
    """Returns what `prepare` would have measured of a score that is constant within every episode of 10 plans."""
    return {"good": {name: [np.full(10, v) for v in good]}, "bad": {name: [np.full(10, v) for v in bad]}}


def fitted_of(**scores: tuple[list[float], list[float]]) -> Fitted:
    made = prepare(dataclasses.replace(QUICK, windows=(1,), bands=("constant",)), LAYOUT, rollouts(30, 10))
    parts = [constant(*values, name) for name, values in scores.items()]
    good, bad = ({k: v for part in parts for k, v in part[side].items()} for side in ("good", "bad"))
    plain = {n: dataclasses.replace(made.references["knn"], mean=np.zeros(1), spread=np.ones(1)) for n in scores}
    recipe = dataclasses.replace(made.recipe, scores=tuple(scores))
    return dataclasses.replace(made, recipe=recipe, references=plain, good=good, bad=bad)


LOW, CLEAR = [0.1 * k for k in range(10)], [5.0] * 10


def test_the_combination_worth_most_is_chosen_and_of_equals_the_smaller() -> None:
    useless = [0.5] * 10
    assert fitted_of(knn=(LOW, useless), variance=(LOW, CLEAR)).best() == (("variance",), 1)
    half, rest = [5.0] * 5 + [0.0] * 5, [0.0] * 5 + [5.0] * 5
    halves = fitted_of(knn=(LOW, half), variance=(LOW, rest), clock=(LOW, useless))
    assert halves.best() == (("knn", "variance"), 1), "each finds half of the failures: either may alarm"
    assert halves.best(most=1)[0] == ("knn",) and halves.best(("variance", "clock")) == (("variance",), 1)
    loud = LOW[:5] + [7.0] * 5
    both = fitted_of(knn=(loud, CLEAR), variance=(loud[::-1], CLEAR))
    assert both.best() == (("knn", "variance"), 2), "each disturbs other successes: both must agree"


def test_what_hardly_finds_a_failure_has_not_won_however_seldom_it_disturbs() -> None:
    def worth(found: int) -> float:
        return fitted_of(knn=(LOW, [5.0] * found + [0.0] * (10 - found))).worth(("knn",))

    assert LEAST_TPR == 0.2
    assert worth(0) == worth(1) == -1.0 and worth(2) == pytest.approx(0.5) and worth(10) > worth(5) > worth(2)


# Recipes.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scores": ()}, "scores: want at least one and none twice, got []"),
        ({"scores": ("knn", "knn")}, "scores: want at least one and none twice, got ['knn', 'knn']"),
        ({"agree": 4}, "agree: want 0 to 3, got 4"),
        ({"agree": -1}, "agree: want 0 to 3, got -1"),
        ({"alpha": 0.0}, "alpha: want a share between 0 and 1, got 0.0"),
        ({"alpha": 1.0}, "alpha: want a share between 0 and 1, got 1.0"),
        ({"options": {"ace": {}}}, "options: 'ace' is none of the scores"),
        *[({name: value}, "draws, every, windows: want at least 1; patience: at least 0; bands: at least one")
          for name, value in [("draws", 0), ("every", 0), ("windows", (3, 0)), ("windows", ()), ("patience", -1), ("bands", ())]],
    ],
)  # fmt: skip
def test_recipes_that_mean_nothing_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        dataclasses.replace(QUICK, **fields)
    assert str(caught.value) == message


def test_a_name_is_a_combination_or_a_single_score_and_a_combination_is_no_score() -> None:
    assert named("fiper").scores == ("rnd", "ace") and named("fiper").needed == 2 and named("knn") == Recipe(("knn",))
    assert {"rnd", "ace", "clock"} <= set(score_names()) and "fiper" not in score_names()
    with pytest.raises(ConfigError, match=r"^scores: 'fiper' is a combination of scores itself; give its scores: rnd, ace$"):
        make_score("fiper", LAYOUT, 4, {})
    with pytest.raises(UnknownName, match="unknown failure score 'variances'; did you mean 'variance'"):
        Recipe(("variances",)).make(LAYOUT)
    with pytest.raises(ConfigError, match=r"^monitor option knn: unknown field 'kk'; did you mean 'k'"):
        Recipe(("knn",), options={"knn": {"kk": 3}}).make(LAYOUT)
    with pytest.raises(SpecMismatch, match=r"^past_disagreement: needs a policy that predicts its past"):
        Recipe(("past_disagreement",)).make(dataclasses.replace(LAYOUT, n_past=0))


def test_a_detector_needs_what_the_neediest_of_its_scores_does() -> None:
    needs = needs_of(Recipe(("knn", "variance", "ace"), draws=6, options={"ace": {"draws": 9}}).make(LAYOUT))
    assert (needs.draws, needs.features, needs.action_names) == (9, True, ("x", "y"))
    assert needs_of(Recipe(("clock",)).make(LAYOUT)).draws == 1
