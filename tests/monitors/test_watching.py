"""A detector at work: what it says live, plan by plan, is what it says of the finished episode."""

from __future__ import annotations

import dataclasses
import math
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolearn.core import Chunk, Monitor, Verdict
from robolearn.errors import BadInput, SpecMismatch
from robolearn.monitors._base import ARRAYS, Episode, Plans
from robolearn.monitors._book import Book
from robolearn.monitors._detector import Detector
from robolearn.monitors._fit import fit
from robolearn.monitors._recipe import Recipe, score_names
from robolearn.monitors._watch import Watch

sys.path.insert(0, str(Path(__file__).parent))
from test_fit import LAYOUT, rollout, rollouts

FEW: dict[str, Any] = {"epochs": 3, "batch": 64}
SMALL: dict[str, dict[str, Any]] = {
    "rnd": {"hidden": (8,), "extra": (8,), "out": 4, **FEW},
    "rnd_actions": {"channels": (4, 4, 4), "pooled": 2, "extra": (8,), "out": 4, **FEW},
    "logpzo": {"widths": (8, 8), "time": 8, **FEW},
    "safe_mlp": {"hidden": (8,), **FEW},
    "safe_lstm": {"hidden": 8, **FEW},
}
ALL = Recipe(score_names(), 4, draws=4, windows=(1, 3), alpha=0.2, options=SMALL)
PLAIN = Recipe(("knn", "stac"), 1, draws=4, windows=(2,), bands=("constant",), alpha=0.2)


def chunks(seed: int, success: bool = True, jitter: bool = False, **options: Any) -> list[Chunk]:
    """Returns what a policy gives over an episode; jitter: not every plan is executed to its end."""
    plans = rollout(seed, success, **options).plans
    used = np.random.default_rng(seed).integers(1, LAYOUT.horizon + 1, len(plans)) if jitter else np.full(len(plans), 3)
    ticks = np.cumsum(used) - used[0]
    return [
        Chunk(s[0], int(tick), p[0], 1, s, p, f)
        for tick, s, p, f in zip(ticks, plans.samples, plans.past_samples, plans.features, strict=True)
    ]


def seen(given: list[Chunk], success: bool = True) -> Episode:
    """Returns the finished episode as a monitor saw it."""
    book = Book()
    return Episode(Plans.join([book.add(chunk) for chunk in given]), success, given[-1].tick + 3)


def few(chunk: Chunk, draws: int) -> Chunk:
    assert chunk.samples is not None and chunk.past_samples is not None
    return dataclasses.replace(chunk, samples=chunk.samples[:draws], past_samples=chunk.past_samples[:draws])


@cache
def detector(recipe_of: str = "plain", **fields: Any) -> Detector:
    recipe = {"plain": PLAIN, "all": ALL}[recipe_of]
    return fit(dataclasses.replace(recipe, **fields), LAYOUT, rollouts(40, 20), 2)


def asked(watch: Watch, chunk: Chunk) -> Verdict:
    """Returns the verdict on a plan with as many draws as the monitor had asked for."""
    return watch.update({}, few(chunk, watch.needs.draws))


@pytest.mark.parametrize(("every", "patience", "agree"), [(1, 0, 4), (2, 0, 0), (1, 2, 1), (3, 1, 6)])
def test_live_verdicts_of_all_scores_are_those_of_the_finished_episode(every: int, patience: int, agree: int) -> None:
    made = detector("all")
    made = dataclasses.replace(made, recipe=dataclasses.replace(made.recipe, every=every, patience=patience, agree=agree))
    watch, alarmed = Watch(made), 0
    for seed in range(100, 106):
        of = chunks(seed, seed % 2 == 0, jitter=seed % 3 == 0)
        episode = seen(of, seed % 2 == 0)
        raw, alarm = made.raw(episode), made.alarm(episode)
        combined = made.combine(raw)
        watch.reset()
        for i, chunk in enumerate(of):
            verdict = asked(watch, chunk)
            np.testing.assert_allclose(verdict.score, combined[i // every], rtol=1e-4, atol=1e-5)
            assert verdict.alarm == (0 <= alarm <= i) and verdict.threshold == made.threshold()
        for name, trace in raw.items():
            if name in SMALL:  # a network computes rows together a little differently from one by one
                np.testing.assert_allclose(watch.raw[name], trace, rtol=1e-4, atol=1e-6, err_msg=name)
            else:
                assert np.array_equal(watch.raw[name], trace), name
        alarmed += alarm >= 0
    assert set(made.scores) == set(score_names())
    assert alarmed < 6


def test_some_of_the_episodes_above_alarm_and_some_do_not() -> None:
    alarms = [detector("all").alarm(seen(chunks(seed, seed % 2 == 0))) >= 0 for seed in range(100, 112)]
    assert any(alarms) and not all(alarms)


def test_it_is_a_monitor_and_says_what_it_needs() -> None:
    watch = Watch(detector())
    assert isinstance(watch, Monitor)
    assert watch.needs.draws == 4 and watch.needs.features and watch.needs.action_names == ("x", "y")


@pytest.mark.parametrize("every", [1, 2, 3])
def test_many_draws_are_asked_for_only_where_a_plan_is_scored(every: int) -> None:
    made = detector(every=every)
    for seed in (3, 4, 5):
        of, watch = chunks(seed, False), Watch(made)
        draws, verdicts = [], []
        for chunk in of:
            draws.append(watch.needs.draws)
            verdicts.append(asked(watch, chunk))
            for _ in range(2):  # at ticks between plans the verdict stands and no other plan is counted
                assert watch.update({}, chunk) is verdicts[-1]
        assert draws == [4 if i % every == 0 else 1 for i in range(len(of))]
        for i, verdict in enumerate(verdicts):
            assert verdict is verdicts[i - i % every]
        alarm = made.alarm(seen(of))
        assert alarm % every == 0 or alarm == -1
        assert next((i for i, verdict in enumerate(verdicts) if verdict.alarm), -1) == alarm
        assert len(watch.raw["knn"]) == math.ceil(len(of) / every)


def test_two_monitors_with_budgets_of_their_own_watch_one_episode_as_each_does_alone() -> None:
    seldom, thrifty, alone = Watch(detector(every=2)), Watch(detector(draws=2)), Watch(detector(draws=2))
    for chunk in chunks(9, False):
        drawn = few(chunk, max(seldom.needs.draws, thrifty.needs.draws))  # 4, 2, 4, 2, ..., as `rollout` asks
        seldom.update({}, drawn)
        assert thrifty.update({}, drawn) == asked(alone, chunk)


def test_patience_waits_for_so_many_more_high_plans_in_a_row_or_not() -> None:
    made, of = detector(), chunks(9, False, plans=20)
    over = np.flatnonzero(made.combine(made.raw(seen(of))) > made.threshold())
    assert len(over) > 4
    for patience in (0, 1, 3, len(over) - 1, len(over)):
        patient = dataclasses.replace(made, recipe=dataclasses.replace(made.recipe, patience=patience))
        watch = Watch(patient)
        alarms = [watch.update({}, chunk).alarm for chunk in of]
        want = int(over[patience]) if patience < len(over) else len(of)
        assert alarms == [i >= want for i in range(len(of))]


def test_a_reset_forgets_the_episode_before_in_whatever_plan_it_ended() -> None:
    watch, of = Watch(detector(every=2)), chunks(9, False)
    for chunk in of[:5]:  # an odd number: the next plan would not have been scored
        asked(watch, chunk)
    watch.reset()
    fresh = Watch(detector(every=2))
    assert watch.needs == fresh.needs and watch.raw == fresh.raw == {"knn": [], "stac": []}
    for chunk in chunks(10):
        assert asked(watch, chunk) == asked(fresh, chunk)
    assert watch.raw == fresh.raw


def test_the_threshold_is_that_of_the_group() -> None:
    made = dataclasses.replace(detector(), thresholds={"": 1e9, "pusht": -1e9}, n_calibrate={"": 16, "pusht": 8})
    first = chunks(1)[0]
    assert Watch(made, "pusht").update({}, first).alarm
    for group in ("", "lift"):
        verdict = Watch(made, group).update({}, first)
        assert not verdict.alarm and verdict.threshold == 1e9


def test_plans_that_cannot_be_scored_are_refused_by_name() -> None:
    first, second = chunks(1)[:2]
    assert first.features is not None
    nan = np.where(np.arange(5) == 2, np.nan, first.features)
    with pytest.raises(BadInput, match=r"^knn: features hold NaN or infinity$"):
        Watch(detector()).update({}, dataclasses.replace(first, features=nan))
    with pytest.raises(BadInput, match=r"^mine: calibrated on 4 draws a plan, got 3$"):
        Watch(detector(), who="mine").update({}, few(first, 3))
    with pytest.raises(BadInput, match=r"^mine: calibrated on 4 draws a plan, got 1$"):
        Watch(detector(), who="mine").update({}, dataclasses.replace(first, samples=None))
    with pytest.raises(BadInput, match=r"^mine: the policy gives no embedding of its observations, so nothing can be scored$"):
        Watch(detector(), who="mine").update({}, dataclasses.replace(first, features=None))
    with pytest.raises(BadInput, match=r"^knn: was fitted to embeddings of 5 numbers, got 4$"):
        Watch(detector()).update({}, dataclasses.replace(first, features=first.features[:4]))
    for tick in (LAYOUT.horizon + 1, -1):
        watch = Watch(detector(), who="mine")
        watch.update({}, first)
        with pytest.raises(BadInput, match=f"^mine: a plan for tick {tick} cannot follow one for tick 0$"):
            watch.update({}, dataclasses.replace(second, tick=tick))


def test_a_policy_that_plans_otherwise_is_refused() -> None:
    watch = Watch(detector(), who="mine")
    watch.require(("x", "y", "gripper"), 6)
    for names, horizon in ((("x", "y", "z"), 6), (("x", "y", "gripper"), 7), (("y", "x", "gripper"), 6)):
        with pytest.raises(SpecMismatch) as caught:
            watch.require(names, horizon)
        want = f"mine: calibrated on plans of 6 ticks of x, y, gripper, got {horizon} ticks of {', '.join(names)}"
        assert str(caught.value) == want


# The books.


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(1, 4), st.integers(0, 3), st.integers(0, 99))
def test_what_was_executed_is_found_in_the_chunks_and_nan_before_the_episode(
    used: list[int], stride: int, n_past: int, seed: int
) -> None:
    rng, book, done, tick = np.random.default_rng(seed), Book(), [np.zeros(2)], 0
    for count in used:
        actions = rng.normal(size=(6, 2)).astype(np.float32)
        past = np.zeros((n_past, 2), np.float32) if n_past else None
        chunk = Chunk(actions, tick, past, stride, features=np.zeros(3))
        (executed,) = book.add(chunk).executed
        assert executed.shape == (n_past, 2)
        for j, row in enumerate(executed):
            back = tick - stride * (n_past - j)  # the tick that this token is for
            np.testing.assert_array_equal(row, done[1 + back] if back >= 0 else np.full(2, np.nan))
        done += list(actions[:count])
        tick += count


def test_a_chunk_becomes_a_run_of_one_plan_in_float32_with_actions_flattened() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(4, 6, 2, 3))
    plan = Book().add(Chunk(samples[0], 7, samples=samples, features=rng.normal(size=(2, 5))))
    assert [getattr(plan, name).shape for name in ARRAYS] == [(1,), (1, 10), (1, 4, 6, 6), (1, 4, 0, 6), (1, 0, 6)]
    assert plan.ticks.tolist() == [7] and plan.samples.dtype == plan.features.dtype == np.float32
    np.testing.assert_array_equal(plan.samples[0], samples.reshape(4, 6, 6).astype(np.float32))
    single = Book().add(Chunk(samples[0], 0, past=samples[0, :2], features=np.zeros(1)))
    assert single.samples.shape == (1, 1, 6, 6) and single.past_samples.shape == (1, 1, 2, 6)


def test_a_past_of_no_positions_is_none() -> None:
    chunk = Chunk(np.zeros((6, 2), np.float32), 0, past=np.zeros((0, 2), np.float32), features=np.zeros(3))
    assert Book().add(chunk).past_samples.shape == (1, 1, 0, 2)
