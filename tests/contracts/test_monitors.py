"""What every failure score and every combination promises; a new file in robolearn/monitors is tested here by existing."""

from __future__ import annotations

import copy
import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robolearn import registry
from robolearn.core import Chunk
from robolearn.errors import BadInput, ConfigError, SpecMismatch, UnknownName
from robolearn.monitors import _folder
from robolearn.monitors._base import ARRAYS, Episode, Layout, Plans, Score, ScoreConfig, Tail
from robolearn.monitors._detector import Detector
from robolearn.monitors._fit import fit
from robolearn.monitors._recipe import PACKAGE, Recipe, make_score, named, score_names
from robolearn.monitors._watch import Watch

NAMES = registry.names(PACKAGE)
SCORES = score_names()
LAYOUT = Layout(("x", "y", "gripper"), horizon=6, execute=3, n_past=2, scale=(1.0, 2.0, 0.5))
DRAWS = 5
SMALL: dict[str, Any] = {"epochs": 3, "batch": 64, "out": 4, "time": 8, "pooled": 2, "components": 3, "clusters": 6}
NARROW = ("hidden", "extra", "widths", "channels")  # fields that hold the sizes of layers
scores = pytest.mark.parametrize("name", SCORES)


def options(name: str) -> dict[str, Any]:
    """Returns what makes a score's networks small, whatever it is; a field of another name stays as it is."""
    fields: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(registry.load(PACKAGE, name).Config)}
    narrow = {f: (8,) * len(fields[f]) if isinstance(fields[f], tuple) else 8 for f in NARROW if f in fields}
    return narrow | {f: value for f, value in SMALL.items() if f in fields}


def episode(seed: int, success: bool = True, layout: Layout = LAYOUT, length: int = 0) -> Episode:
    rng = np.random.default_rng([11, seed])
    n = length or int(rng.integers(8, 13))
    stray = (np.zeros(n) if success else np.linspace(0, 3, n))[:, None]
    width = len(layout.action)
    features = rng.normal(size=(n, 5)) + stray
    samples = rng.normal(size=(n, DRAWS, layout.horizon, width)) * (1 + stray[..., None, None])
    past, executed = rng.normal(size=(n, DRAWS, layout.n_past, width)), rng.normal(size=(n, layout.n_past, width))
    executed[0], executed[1:2, :1] = np.nan, np.nan
    arrays = [array.astype(np.float32) for array in (features, samples, past, executed)]
    return Episode(Plans(np.arange(n) * layout.execute, *arrays), success, n * layout.execute, seed)


EPISODES = [episode(i, i % 3 > 0) for i in range(36)]


def make(name: str, layout: Layout = LAYOUT, **more: Any) -> Score:
    return make_score(name, layout, DRAWS - 1, options(name) | more)


def learnt(name: str, episodes: list[Episode]) -> Score:
    score = make(name)
    score.fit(episodes, np.random.default_rng(3))
    return score


@cache
def fitted(name: str) -> Score:
    return learnt(name, [e for e in EPISODES if e.success or make(name).supervised])


@cache
def detector(name: str) -> Detector:
    recipe = named(name)
    small = {score: options(score) for score in recipe.scores}
    return fit(dataclasses.replace(recipe, draws=DRAWS - 1, windows=(1, 3), alpha=0.2, options=small), LAYOUT, EPISODES)


def close(one: np.ndarray, other: np.ndarray) -> bool:
    """Returns whether two traces are one but for how a network's rows are batched."""
    return one.shape == other.shape and np.allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_a_score_of_its_own_name_or_a_combination_of_scores(name: str) -> None:
    module = registry.load(PACKAGE, name)
    assert module.__doc__ and module.__doc__.strip()
    if hasattr(module, "RECIPE"):
        assert isinstance(module.RECIPE, Recipe) and set(module.RECIPE.scores) <= set(SCORES) and len(module.RECIPE.scores) > 1
        assert named(name) is module.RECIPE
        return
    assert issubclass(module.Config, ScoreConfig) and module.Config.__dataclass_params__.frozen
    assert module.Config().name == name and issubclass(module.Predictor, Score)
    assert named(name) == Recipe((name,))


@scores
def test_a_trace_is_one_finite_number_a_plan_and_leaves_the_plans_alone(name: str) -> None:
    score, plans = fitted(name), episode(70, False).plans
    before = copy.deepcopy(plans)
    trace = score.trace(plans)
    assert trace.shape == (len(plans),) and trace.dtype == np.float64 and np.isfinite(trace).all()
    assert all(np.array_equal(getattr(before, key), getattr(plans, key), equal_nan=True) for key in ARRAYS)
    assert np.array_equal(score.trace(plans), trace), "a pure function"
    assert trace.std() > 0


@scores
def test_a_score_depends_on_no_later_plan_and_on_no_earlier_one_than_it_says(name: str) -> None:
    score, plans = fitted(name), episode(71, False).plans
    whole, tail = score.trace(plans), Tail(score.reach)
    for k in range(len(plans)):
        assert close(score.trace(plans[: k + 1]), whole[: k + 1])
        assert close(score.trace(tail.add(plans[k : k + 1]))[-1:], whole[k : k + 1])


@scores
def test_the_draws_it_needs_are_enough_one_less_is_refused_and_more_change_nothing(name: str) -> None:
    score, whole = fitted(name), episode(72)
    draws = score.needs.draws
    assert 1 <= draws < DRAWS, "a recipe's draws are what it takes at most"
    exact = score.trace(whole.with_draws(draws).plans)
    assert np.array_equal(score.trace(whole.plans), exact)
    if draws > 1:
        with pytest.raises(BadInput, match=f"^{name}: "):
            score.trace(whole.with_draws(draws - 1).plans)


@scores
@pytest.mark.parametrize("key", ["features", "samples"])
def test_what_is_not_finite_is_refused_by_whoever_reads_it(name: str, key: str) -> None:
    plans = episode(73).plans
    broken = getattr(plans, key).copy()
    broken[4, 0] = np.nan
    amiss = dataclasses.replace(plans, **{key: broken})
    needs = fitted(name).needs
    reads = needs.features if key == "features" else needs.draws > 1 or bool(needs.action_names)
    try:
        trace = fitted(name).trace(amiss)
    except BadInput as error:
        assert str(error).startswith(f"{name}: ") and "\n" not in str(error)
        return
    assert not reads and np.array_equal(trace, fitted(name).trace(plans))


@scores
def test_fitting_is_the_same_again_and_looks_at_failures_only_where_supervised(name: str) -> None:
    score, plans = fitted(name), episode(74).plans
    used = [e for e in EPISODES if e.success or score.supervised]
    assert np.array_equal(learnt(name, used).trace(plans), score.trace(plans))
    if not score.supervised:
        assert np.array_equal(learnt(name, EPISODES).trace(plans), score.trace(plans))
    else:
        with pytest.raises(BadInput, match=f"^{name}: "):
            learnt(name, [e for e in EPISODES if e.success])


@scores
def test_before_it_is_fitted_a_score_that_learns_says_so_and_one_that_does_not_scores(name: str) -> None:
    score, plans = make(name), episode(75).plans
    if fitted(name).arrays():
        with pytest.raises(BadInput, match=f"^{name}: is not fitted"):
            score.trace(plans)
    else:
        assert np.array_equal(score.trace(plans), fitted(name).trace(plans))


@scores
def test_what_was_fitted_is_numbers_that_bring_the_score_back_to_the_bit(name: str) -> None:
    score, other, plans = fitted(name), make(name), episode(76).plans
    kept = score.arrays()
    assert all(isinstance(array, np.ndarray) and array.dtype.kind in "fiu" and array.ndim for array in kept.values())
    other.restore(kept)
    assert np.array_equal(other.trace(plans), score.trace(plans))
    for strangers in ({**kept, "stranger": np.zeros(3)}, dict(list(kept.items())[1:])):
        if kept:
            with pytest.raises(BadInput, match=f"^{name}: "):
                make(name).restore(strangers)


@scores
def test_a_policy_that_cannot_serve_it_is_refused_when_it_is_made(name: str) -> None:
    joints = dataclasses.replace(LAYOUT, action=("q0", "q1", "gripper"))
    if fitted(name).needs.action_names:
        with pytest.raises(SpecMismatch, match=f"^{name}: "):
            make(name, joints)
    else:
        make(name, joints)


@scores
def test_an_option_that_it_has_not_is_refused_with_the_nearest(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^monitor option {name}: unknown field 'naem'; did you mean 'name'"):
        make(name, naem="x")


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_fitted_and_alarms_from_a_folder_where_it_did_before(name: str, tmp_path: Path) -> None:
    made = detector(name)
    assert 0 < made.promised <= 0.2 and made.notes == ()
    _folder.save(tmp_path / name, made, {})
    other, _ = _folder.load(tmp_path / name)
    for seed in range(80, 92):
        seen = episode(seed, seed % 2 > 0)
        raw, again = made.raw(seen), other.raw(seen)
        assert np.array_equal(made.combine(raw), other.combine(again))
        assert -1 <= made.alarm(seen) == other.alarm(seen) < len(seen)


@pytest.mark.parametrize("name", NAMES)
def test_it_watches_a_running_episode_as_it_judges_the_finished_one(name: str) -> None:
    made, seen = detector(name), episode(93, False)
    plans = dataclasses.replace(seen.plans, executed=_executed(seen.plans))
    trace = made.combine(made.raw(dataclasses.replace(seen, plans=plans)))
    watch = Watch(made)
    watch.require(LAYOUT.action, LAYOUT.horizon)
    for k in range(len(seen)):
        p, d = plans[k : k + 1], watch.needs.draws
        chunk = Chunk(
            p.samples[0, 0], int(p.ticks[0]), p.past_samples[0, 0], 1, p.samples[0, :d], p.past_samples[0, :d], p.features[0]
        )
        assert close(np.array([watch.update({}, chunk).score]), trace[k : k + 1])


def _executed(plans: Plans) -> np.ndarray:
    """Returns what was executed before each plan, where every plan is executed for as long as the layout says."""
    done = plans.samples[:, 0, : LAYOUT.execute].reshape(-1, len(LAYOUT.action))
    before = np.concatenate([np.full((LAYOUT.n_past, len(LAYOUT.action)), np.nan, np.float32), done])
    return np.stack([before[tick : tick + LAYOUT.n_past] for tick in plans.ticks])


def test_an_unknown_name_names_the_nearest_one() -> None:
    with pytest.raises(UnknownName, match="unknown monitor 'fipper'; did you mean 'fiper'"):
        named("fipper")
