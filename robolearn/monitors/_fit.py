"""Who is fitted to what: disjoint splits of the rollouts, scores fitted on theirs, and detectors made of fitted scores."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from robolearn.errors import BadInput
from robolearn.monitors import _conformal
from robolearn.monitors._base import Episode, Layout, Score
from robolearn.monitors._detector import (
    Detector,
    Reference,
    Traces,
    calibrate,
    choose,
    combined,
    judged,
    peaks_of,
    raw_traces,
)
from robolearn.monitors._recipe import SHARES, Recipe

LEAST_TPR = 0.2  # a detector that alarms more rarely in failures has not won, however rarely it disturbs successes


@dataclass(frozen=True)
class Parts:
    """Rollouts dealt out: what scores learn from, what references and windows are chosen on, what thresholds come from."""

    learn_good: tuple[Episode, ...]
    learn_bad: tuple[Episode, ...]
    shape_good: tuple[Episode, ...]
    shape_bad: tuple[Episode, ...]
    calibrate: tuple[Episode, ...]
    notes: tuple[str, ...] = ()


def deal(episodes: Sequence[Episode], seed: int) -> Parts:
    """Returns the rollouts dealt out by chance alone; BadInput where there are too few successes for three parts."""
    seeds = [(episode.group, episode.seed) for episode in episodes]
    if len(set(seeds)) != len(seeds):
        raise BadInput("calibration: some rollouts begin alike (same task and seed); want every seed of a task once")
    good = [episode for episode in episodes if episode.success]
    bad = [episode for episode in episodes if not episode.success]
    if len(good) < 8:
        raise BadInput(f"calibration: want at least 8 successful rollouts, got {len(good)} of {len(episodes)}")
    rng = np.random.default_rng([seed, len(good), len(bad)])
    parts = _conformal.split(len(good), SHARES, rng)
    halves = _conformal.split(len(bad), {"learn": 0.5, "shape": 0.5}, rng)
    notes = () if bad else ("no failures among the rollouts: windows are not chosen, and supervised scores cannot be fitted",)

    def take(of: Sequence[Episode], which: np.ndarray) -> tuple[Episode, ...]:
        return tuple(of[i] for i in which)

    made = Parts(
        take(good, parts["learn"]),
        take(bad, halves["learn"]),
        take(good, parts["shape"]),
        take(bad, halves["shape"]),
        take(good, parts["calibrate"]),
        notes,
    )
    fitted = {id(e) for e in (*made.learn_good, *made.learn_bad, *made.shape_good, *made.shape_bad)}
    _conformal.refuse_overlap(fitted, {id(e) for e in made.calibrate})
    return made


def learned(scores: Mapping[str, Score], good: Sequence[Episode], bad: Sequence[Episode], seed: int) -> dict[str, Score]:
    """Returns the scores, each fitted on successes (and failures, where it wants them) with random numbers of its own."""
    for number, (name, score) in enumerate(scores.items()):
        rng = np.random.default_rng([seed, number, *name.encode()])
        score.fit([*good, *(bad if score.supervised else ())], rng)
    return dict(scores)


@dataclass(frozen=True)
class Fitted:
    """Scores fitted and measured once, of which detectors are made at no cost.

    recipe: of all of them together; good, bad: their raw traces on the shape split; held: on the calibration split.
    """

    recipe: Recipe
    layout: Layout
    parts: Parts
    scores: Mapping[str, Score]
    references: Mapping[str, Reference]
    good: Mapping[str, Traces]
    bad: Mapping[str, Traces]
    held: Mapping[str, Traces]

    def detector(self, names: Sequence[str], agree: int = 0, joint: bool = True) -> Detector:
        """Returns the calibrated detector of some of the scores; see `Recipe` for agree and joint."""
        options = {name: value for name, value in self.recipe.options.items() if name in names}
        recipe = dataclasses.replace(self.recipe, scores=tuple(names), agree=agree, joint=joint, options=options)
        groups = [episode.group for episode in self.parts.calibrate]
        apart, thresholds, numbers = calibrate(self.references, self.held, groups, recipe)
        return Detector(
            recipe,
            self.layout,
            {name: self.scores[name] for name in names},
            {name: self.references[name] for name in names},
            apart,
            thresholds,
            numbers,
            (*self.parts.notes, *_never(recipe, apart, thresholds, numbers)),
            peaks_of(self.references, self.held, recipe) if joint else np.zeros(0),
        )

    def worth(self, names: Sequence[str], agree: int = 0) -> float:
        """Returns the time-weighted accuracy of a combination on the shape split; -1 where it hardly finds a failure.

        BadInput where there are no failures to find.
        """
        if not self.parts.shape_bad:
            raise BadInput("choosing a combination: want failures among the calibration rollouts, got none")
        needed = agree or len(names)

        def traces(of: Mapping[str, Traces]) -> Traces:
            measured = [[self.references[name].measure(trace) for trace in of[name]] for name in names]
            return [combined(some, needed) for some in zip(*measured, strict=True)]

        accuracy, seen = judged(traces(self.good), traces(self.bad), self.recipe)
        return accuracy if seen >= LEAST_TPR else -1.0

    def best(self, names: Iterable[str] = (), most: int = 2) -> tuple[tuple[str, ...], int]:
        """Returns the scores, at most `most`, and how many must agree, that are worth most on the shape split.

        No calibration or test episode is looked at. names: the candidates; none: all.
        """
        among = tuple(names) or self.recipe.scores
        options: list[tuple[tuple[str, ...], int]] = [((name,), 1) for name in among]
        for size in range(2, most + 1):
            options += [(some, agree) for some in combinations(among, size) for agree in range(1, size + 1)]
        return max(options, key=lambda one: (self.worth(*one), -len(one[0])))


def prepare(recipe: Recipe, layout: Layout, episodes: Sequence[Episode], seed: int = 0) -> Fitted:
    """Returns all scores of a recipe fitted to rollouts: scores on the learn split, references on shape.

    Successes are dealt out at random in the shares 0.4, 0.2, 0.4; failures, where there are any, half to learn (for scores
    that want them) and half to shape (for the choice of windows); none is ever calibrated on.
    """
    parts = deal(episodes, seed)
    scores = learned(recipe.make(layout), parts.learn_good, parts.learn_bad, seed)
    good = raw_traces(scores, parts.shape_good, recipe.every)
    bad = raw_traces(scores, parts.shape_bad, recipe.every)
    references = {name: choose(good[name], bad[name], recipe) for name in recipe.scores}
    held = raw_traces(scores, parts.calibrate, recipe.every)
    return Fitted(recipe, layout, parts, scores, references, good, bad, held)


def fit(recipe: Recipe, layout: Layout, episodes: Sequence[Episode], seed: int = 0) -> Detector:
    """Returns the detector of a recipe, fitted and calibrated on rollouts; see `prepare`."""
    return prepare(recipe, layout, episodes, seed).detector(recipe.scores, recipe.agree, recipe.joint)


def _never(
    recipe: Recipe, apart: Mapping[str, float], thresholds: Mapping[str, float], numbers: Mapping[str, int]
) -> tuple[str, ...]:
    """Returns what to say aloud where a threshold is infinite."""
    short = [f"{group or 'all'} ({numbers[group]})" for group, value in thresholds.items() if math.isinf(value)]
    if not short and not any(math.isinf(value) for value in apart.values()):
        return ()
    least = _conformal.smallest_sample(recipe.alpha)
    return (f"no alarm ever for {', '.join(short) or 'any'}: alpha {recipe.alpha:g} takes {least} calibration successes",)
