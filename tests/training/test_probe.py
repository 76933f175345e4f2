"""A read-out finds what is there, nothing else, and never an episode it has seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from robolearn.errors import ArrayMismatch, ConfigError, DatasetError
from robolearn.intervals import wilson95
from robolearn.training.probe import probe

EPISODES, TICKS = 60, 12
EPISODE = np.repeat(np.arange(EPISODES), TICKS)
TICK = np.tile(np.arange(TICKS), EPISODES)


def facts(classes: int = 2, seed: int = 0) -> np.ndarray:
    """One fact an episode, repeated at each of its ticks, all as frequent."""
    return np.random.default_rng(seed).permutation(np.arange(EPISODES) % classes)[EPISODE]


@pytest.mark.parametrize("d", [6, 800])  # fewer and more features than states: both forms of the solution
@pytest.mark.parametrize("classes", [2, 3])
def test_a_linear_fact_is_read_without_error(classes: int, d: int) -> None:
    rng = np.random.default_rng(1)
    known = facts(classes)
    states = np.eye(classes)[known] @ rng.standard_normal((classes, d)) + 0.01 * rng.standard_normal((len(known), d))
    found = probe(100 + 7 * states, known - 5, groups=EPISODE, seed=0)
    assert found.accuracy == 1.0 and found.chance == pytest.approx(1 / classes)
    assert found.interval95 == wilson95(EPISODES, EPISODES)
    assert (found.n_states, found.n_episodes) == (EPISODES * TICKS, EPISODES)


def test_an_independent_fact_is_at_chance() -> None:
    accuracies = []
    for seed in range(20):
        states = np.random.default_rng(seed).standard_normal((EPISODES * TICKS, 8))
        accuracies.append(probe(states, facts(seed=seed), groups=EPISODE, seed=seed).accuracy)
    assert np.mean(accuracies) == pytest.approx(0.5, abs=0.02)


def test_what_only_names_the_episode_does_not_help() -> None:
    known, rng = facts(), np.random.default_rng(2)
    names = rng.standard_normal((EPISODES, 40))[EPISODE]
    for states in (np.eye(EPISODES)[EPISODE], names):
        assert abs(probe(states, known, groups=EPISODE, seed=0).accuracy - 0.5) < 0.15
    assert probe(names, known, seed=0).accuracy > 0.9  # the leak there would be


def test_accuracy_over_ticks_rises_where_the_fact_appears() -> None:
    known = facts()
    states = np.random.default_rng(3).standard_normal((len(known), 4))
    states[:, 0] += 20 * (2 * known - 1) * (TICK >= 6)
    found = probe(states, known, groups=EPISODE, ticks=10 * TICK, seed=0)
    assert [row.tick for row in found.by_tick] == [10 * k for k in range(TICKS)]
    assert all(row.accuracy == 1.0 for row in found.by_tick[6:]) and all(row.accuracy < 0.8 for row in found.by_tick[:6])
    for row in found.by_tick:
        assert row.n == EPISODES and row.interval95 == wilson95(round(row.accuracy * EPISODES), EPISODES)
    assert found.accuracy == pytest.approx(np.mean([row.accuracy for row in found.by_tick]))


def test_chance_is_the_most_frequent_fact() -> None:
    rare = (np.arange(EPISODES) < 15).astype(int)[EPISODE]
    states = np.random.default_rng(4).standard_normal((len(rare), 3))
    found = probe(states, rare, groups=EPISODE, seed=0)
    assert found.chance == 0.75 and found.accuracy == pytest.approx(0.75, abs=0.02)


def test_one_seed_gives_one_figure_and_constant_features_do_no_harm() -> None:
    known = facts()
    states = np.c_[np.random.default_rng(5).standard_normal((len(known), 3)) + known[:, None], np.full(len(known), 1e6)]
    assert probe(states, known, groups=EPISODE, seed=1) == probe(states, known, groups=EPISODE, seed=1)
    assert probe(states, known, groups=EPISODE, seed=1) == probe(states[:, :3], known, groups=EPISODE, seed=1)


def test_a_fact_may_change_within_an_episode() -> None:
    count = (TICK >= 6).astype(int)
    assert probe(TICK[:, None].astype(float), count, groups=EPISODE, seed=0).accuracy == 1.0


def test_what_cannot_be_read_is_refused_in_one_line() -> None:
    states, known = np.zeros((4, 2)), np.array([0, 1, 0, 1])
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (DatasetError, "want 2 facts", {"facts": np.zeros(4, int)}),
        (DatasetError, "2 episodes or more, got 2 and 1", {"groups": np.zeros(4, int)}),
        (ArrayMismatch, r"facts \(4,\), one a state, got \(3,\)", {"facts": known[:3]}),
        (ArrayMismatch, "facts as integers, got float64", {"facts": known / 2}),
        (ArrayMismatch, "finite states", {"states": states * np.nan}),
        (ArrayMismatch, r"ticks \(4,\)", {"ticks": np.arange(5)}),
        (ConfigError, "at least 2 folds, got 1", {"folds": 1}),
    ]
    good: dict[str, Any] = {"states": states, "facts": known, "seed": 0}
    for error, match, given in cases:
        with pytest.raises(error, match=match):
            probe(**(good | given))
