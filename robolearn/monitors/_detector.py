"""From scores to alarms: windows, references, combination, one calibrated threshold. Pure functions of traces, and a `Detector`.

A trace (T,) of a score is summed over a window, measured against what successes do (its reference), and combined with the
others by taking the k-th largest: where that is high, k scores are high at once. Its highest value over an episode is what is
calibrated, so the promise holds for the combination, whatever the parts are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from robolearn.monitors import _conformal
from robolearn.monitors._base import EMPTY, Episode, Layout, Score
from robolearn.monitors._recipe import Recipe

Traces = list[np.ndarray]


def windowed(trace: np.ndarray, window: int) -> np.ndarray:
    """Returns sums over the last `window` plans (T,), fewer at the beginning; a window of T or more is the running sum."""
    padded = np.concatenate([np.zeros(window - 1), trace + EMPTY])
    # Each window is summed by itself: in a difference of running sums one huge score would swallow all later ones.
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, window).sum(axis=1))


@dataclass(frozen=True)
class Reference:
    """What successes do: a windowed score minus `mean`, over `spread`, is 1 where they rarely are above.

    window: plans; mean, spread: (T,), or (1,) where time does not matter; the last value goes on.
    """

    window: int
    mean: np.ndarray
    spread: np.ndarray

    @property
    def band(self) -> Literal["constant", "functional"]:
        """Whether time matters."""
        return "constant" if len(self.mean) == 1 else "functional"

    def measure(self, trace: np.ndarray) -> np.ndarray:
        """Returns a raw trace (T,) of the score, summed and measured."""
        at = np.minimum(np.arange(len(trace)), len(self.mean) - 1)
        return np.asarray((windowed(trace, self.window) - self.mean[at]) / self.spread[at])


def reference(traces: Traces, window: int, band: str, alpha: float) -> Reference:
    """Returns the reference of a score over the successes of the shape split (raw traces)."""
    curves = [windowed(trace, window) for trace in traces]
    if band == "functional":
        mean, spread = _conformal.modulation(curves, alpha)
        height = float(np.quantile([np.max((c - mean[: len(c)]) / spread[: len(c)]) for c in curves], 1 - alpha))
        return Reference(window, mean, spread * max(height, 0.1))
    together = np.concatenate(curves)
    mean_of_all, high = float(together.mean()), float(np.quantile([c.max() for c in curves], 1 - alpha))
    least = 1e-6 * max(1.0, abs(mean_of_all))  # of a score that never moves
    return Reference(window, np.array([mean_of_all]), np.array([max(high - mean_of_all, least)]))


def combined(measured: Sequence[np.ndarray], needed: int) -> np.ndarray:
    """Returns the `needed`-th largest of several measured traces at every plan: above 1 where so many are."""
    table = np.sort(np.stack(measured), axis=0)
    return np.asarray(table[len(measured) - needed])


def peak(trace: np.ndarray, patience: int = 0) -> float:
    """Returns the value that an episode's trace exceeds more than `patience` times: the highest, or one of the highest."""
    return float(np.sort(trace)[-(patience + 1)]) if patience < len(trace) else -1e9


def first_alarm(trace: np.ndarray, threshold: float, patience: int = 0) -> int:
    """Returns the plan of the alarm, counted from 0; -1 where there is none."""
    over = np.flatnonzero(trace > threshold)
    return int(over[patience]) if patience < len(over) else -1


@dataclass(frozen=True)
class Detector:
    """A fitted monitor: scores, what successes do, and one threshold a group ("" for every other).

    apart: what is subtracted from each measured trace where scores were calibrated apart (zeros where jointly);
    promised: 1 - k/(n+1); n_calibrate: episodes behind each threshold; notes: what a reader should know of the fit; peaks:
    (n,) what the threshold was set on, so that any other alpha can be looked at (empty where calibrated apart).
    """

    recipe: Recipe
    layout: Layout
    scores: Mapping[str, Score]
    references: Mapping[str, Reference]
    apart: Mapping[str, float]
    thresholds: Mapping[str, float]
    n_calibrate: Mapping[str, int]
    notes: tuple[str, ...] = ()
    peaks: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def threshold(self, group: str = "") -> float:
        """Returns the threshold of a group; without one of its own, that of all."""
        return self.thresholds.get(group, self.thresholds[""])

    @property
    def promised(self) -> float:
        """The promised false-alarm rate over all calibration episodes."""
        return _conformal.promised(self.n_calibrate[""], self.recipe.alpha)

    def raw(self, episode: Episode) -> dict[str, np.ndarray]:
        """Returns every score's trace over the plans that are scored."""
        plans = episode.plans[:: self.recipe.every]
        return {name: score.trace(plans) for name, score in self.scores.items()}

    def combine(self, raw: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the combined trace of raw traces by score."""
        measured = [self.references[name].measure(raw[name]) - self.apart[name] for name in self.recipe.scores]
        return combined(measured, self.recipe.needed)

    def alarm(self, episode: Episode) -> int:
        """Returns the plan at which this episode alarms, -1 where it does not."""
        at = first_alarm(self.combine(self.raw(episode)), self.threshold(episode.group), self.recipe.patience)
        return at * self.recipe.every if at >= 0 else -1


def raw_traces(scores: Mapping[str, Score], episodes: Sequence[Episode], every: int = 1) -> dict[str, Traces]:
    """Returns the traces of every score over episodes."""
    return {name: [score.trace(episode.plans[::every]) for episode in episodes] for name, score in scores.items()}


def twa(success: Sequence[bool], alarms: Sequence[int], longest: int) -> float:
    """Returns the time-weighted accuracy of alarms (plans, -1 none); where a class is empty, of the other alone."""
    good = [float(a < 0) for s, a in zip(success, alarms, strict=True) if s]
    bad = [(a >= 0) * (1 - a / max(longest - 1, 1)) for s, a in zip(success, alarms, strict=True) if not s]
    return float(np.mean([np.mean(part) for part in (good, bad) if part]))


def judged(good: Traces, bad: Traces, recipe: Recipe) -> tuple[float, float]:
    """Returns (time-weighted accuracy, share of failures seen) of measured traces under the threshold these successes give."""
    limit = float(np.quantile([peak(trace, recipe.patience) for trace in good], 1 - recipe.alpha))
    alarms = [first_alarm(trace, limit, recipe.patience) for trace in [*good, *bad]]
    longest = max(len(trace) for trace in [*good, *bad])
    seen = float(np.mean([alarm >= 0 for alarm in alarms[len(good) :]]))
    return twa([True] * len(good) + [False] * len(bad), alarms, longest), seen


def choose(good: Traces, bad: Traces, recipe: Recipe) -> Reference:
    """Returns the reference (window and band) under which a score tells failures from successes best, by time-weighted accuracy.

    good, bad: raw traces of the shape split. Without failures nothing can be chosen: the middle window, the first band.
    """
    options = [(window, band) for window in recipe.windows for band in recipe.bands]
    if not bad or len(options) == 1:
        return reference(good, recipe.windows[len(recipe.windows) // 2], recipe.bands[0], recipe.alpha)
    found = []
    for window, band in options:
        made = reference(good, window, band, recipe.alpha)
        told, _ = judged([made.measure(trace) for trace in good], [made.measure(trace) for trace in bad], recipe)
        found.append((told, -window, made))
    return max(found, key=lambda one: one[:2])[2]


def calibrate(
    references: Mapping[str, Reference], traces: Mapping[str, Traces], groups: Sequence[str], recipe: Recipe
) -> tuple[dict[str, float], dict[str, float], dict[str, int]]:
    """Returns (apart, thresholds, numbers of episodes) from raw traces of the calibration split, all of them successes."""
    names = recipe.scores
    measured = {name: [references[name].measure(trace) for trace in traces[name]] for name in names}
    apart = dict.fromkeys(names, 0.0)
    if not recipe.joint:
        peaks = {name: [peak(m, recipe.patience) for m in measured[name]] for name in names}
        apart = {name: _conformal.conformal_threshold(peaks[name], recipe.alpha) for name in names}
    n = len(groups)
    apart_too = [g for g in dict.fromkeys(groups) if g] if len(set(groups)) > 1 else []
    numbers = {"": n} | {g: list(groups).count(g) for g in apart_too}
    if not recipe.joint:
        return apart, dict.fromkeys(numbers, 0.0), numbers
    peaks_of_all = peaks_of(references, traces, recipe)
    thresholds = {"": _conformal.conformal_threshold(peaks_of_all, recipe.alpha)}
    if len(numbers) > 1:
        kept = _conformal.mondrian_thresholds(peaks_of_all, groups, recipe.alpha)
        thresholds |= {group: kept[group] for group in apart_too}
    return apart, thresholds, numbers


def peaks_of(references: Mapping[str, Reference], traces: Mapping[str, Traces], recipe: Recipe) -> np.ndarray:
    """Returns the highest combined value of every episode (n,), jointly measured, from raw traces."""
    episodes = zip(*([references[name].measure(trace) for trace in traces[name]] for name in recipe.scores), strict=True)
    return np.array([peak(combined(measured, recipe.needed), recipe.patience) for measured in episodes])
