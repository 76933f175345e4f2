"""What a memory holds: a linear read-out of a hidden fact from its states, measured on episodes it was not fitted on.

Ridge regression one class against the rest on standardised features, the largest output wins. It is a lower bound: what it
reads is there, what it misses may be there in another form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolearn.errors import ArrayMismatch, ConfigError, DatasetError
from robolearn.intervals import wilson95

_PENALTY = 0.1  # of a weight's square against the mean squared error, features standardised


@dataclass(frozen=True)
class AtTick:
    """The read-out at one tick of the episodes: accuracy over n states, with the 95 % Wilson interval over them."""

    tick: int
    accuracy: float
    interval95: tuple[float, float]
    n: int


@dataclass(frozen=True)
class Probe:
    """How often the read-out names the fact, on held-out episodes.

    interval95: Wilson, over episodes and not states, for the states of an episode repeat each other; chance: the share of
    the most frequent fact, which needs no memory; by_tick: one read-out for all ticks, counted tick by tick.
    """

    accuracy: float
    interval95: tuple[float, float]
    chance: float
    n_states: int
    n_episodes: int
    by_tick: tuple[AtTick, ...] = ()


def probe(
    states: np.ndarray,
    facts: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    ticks: np.ndarray | None = None,
    seed: int,
    folds: int = 5,
) -> Probe:
    """Returns the cross-validated accuracy of reading facts (n,) int from states (n, d).

    groups: the episode (n,) of each state, never on both sides of a fold (None: each state is an episode of its own);
    ticks: (n,) when each was, for `by_tick`; folds: at most one per episode.
    Time grows with min(n, d) cubed, memory with its square.
    """
    states, facts = np.asarray(states, np.float64), np.asarray(facts)
    groups = np.arange(len(states)) if groups is None else np.asarray(groups)
    _check(states, facts, groups, ticks)
    classes, labels = np.unique(facts, return_inverse=True)
    episodes, episode = np.unique(groups, return_inverse=True)
    if len(classes) < 2 or len(episodes) < 2:
        raise DatasetError(f"probe: want 2 facts and 2 episodes or more, got {len(classes)} and {len(episodes)}")
    if folds < 2:
        raise ConfigError(f"probe: want at least 2 folds, got {folds}")
    fold = _fold_of_episodes(labels, episode, min(folds, len(episodes)), np.random.default_rng(seed))[episode]
    named = np.empty(len(states), np.int64)
    for k in np.unique(fold):
        named[fold == k] = _read_out(states[fold != k], labels[fold != k], states[fold == k])
    right = named == labels
    accuracy = float(right.mean())
    whole = wilson95(round(accuracy * len(episodes)), len(episodes))
    chance = float(np.bincount(labels).max() / len(labels))
    return Probe(accuracy, whole, chance, len(states), len(episodes), _by_tick(right, ticks))


def _check(states: np.ndarray, facts: np.ndarray, groups: np.ndarray, ticks: np.ndarray | None) -> None:
    if states.ndim != 2 or not np.isfinite(states).all():
        raise ArrayMismatch(f"probe: want finite states (n, d), got {states.shape}")
    if facts.dtype.kind not in "iub":
        raise ArrayMismatch(f"probe: want facts as integers, got {facts.dtype}")
    for name, array in (("facts", facts), ("groups", groups), ("ticks", ticks)):
        if array is not None and np.shape(array) != (len(states),):
            raise ArrayMismatch(f"probe: want {name} ({len(states)},), one a state, got {np.shape(array)}")


def _fold_of_episodes(labels: np.ndarray, episode: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the fold (episodes,) of each episode, every fact dealt out evenly (by an episode's most frequent one).

    Drawn without regard to the facts, a fold rich in one leaves the others poor in it, and pure noise scores below chance.
    """
    counts = np.zeros((episode.max() + 1, labels.max() + 1), np.int64)
    np.add.at(counts, (episode, labels), 1)
    shuffled = rng.permutation(len(counts))
    by_fact = shuffled[np.argsort(counts.argmax(axis=1)[shuffled], kind="stable")]
    fold = np.empty(len(counts), np.int64)
    fold[by_fact] = np.arange(len(counts)) % folds
    return fold


def _read_out(states: np.ndarray, labels: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """Returns the class (m,) of unseen states (m, d), fitted on states (n, d) with labels (n,)."""
    mean, spread = states.mean(axis=0), states.std(axis=0)
    scale = np.where(spread > 1e-9 * (1 + np.abs(mean)), spread, np.inf)  # what never varies says nothing
    x, z = (states - mean) / scale, (unseen - mean) / scale
    target = np.eye(labels.max() + 1)[labels]
    offset = target.mean(axis=0)
    n, d = x.shape
    if d <= n:
        weights = np.linalg.solve(x.T @ x + n * _PENALTY * np.eye(d), x.T @ (target - offset))
    else:  # the same weights, by a system of n equations
        weights = x.T @ np.linalg.solve(x @ x.T + n * _PENALTY * np.eye(n), target - offset)
    return (z @ weights + offset).argmax(axis=1)


def _by_tick(right: np.ndarray, ticks: np.ndarray | None) -> tuple[AtTick, ...]:
    if ticks is None:
        return ()
    rows = []
    for tick in np.unique(ticks):
        here = right[np.asarray(ticks) == tick]
        rows.append(AtTick(int(tick), float(here.mean()), wilson95(int(here.sum()), len(here)), len(here)))
    return tuple(rows)
