"""The released FIPER code's choices, known faults included, to be set beside ours on the same rollouts (`compat="official"`).

Scores are fitted to the very rollouts that thresholds come from; a threshold is np.quantile; the functional band has its sign
turned around, its longest curve in the first half, and goes on as its mean; two scores are thresholded apart with one level;
window and kind of threshold are those that are best on the test episodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from robolearn.monitors import _conformal
from robolearn.monitors._base import Episode, Layout
from robolearn.monitors._detector import Traces, first_alarm, raw_traces, twa, windowed
from robolearn.monitors._fit import learned
from robolearn.monitors._recipe import Recipe

WINDOWS = (1, 2, 3, 4, 5, 7, 9, 11, 13, 15, 20, 25, 30, 35, 40, 45, 50)
Option = tuple[int, str]  # window, kind of threshold
KINDS = ("ct_quantile", "tvt_cp_band")
OPTIONS: tuple[Option, ...] = tuple(product(WINDOWS, KINDS))
OF_TWO: tuple[Option, ...] = tuple(product(WINDOWS[::2], KINDS))  # of each of two scores: all pairs are tried


@dataclass(frozen=True)
class Official:
    """One detector the released way: the option of each of its scores, and its alarms on the test episodes (-1 none)."""

    options: Mapping[str, Option]
    alarms: np.ndarray
    chosen_on: str  # "test", as released, or "calibration"


def official(
    recipe: Recipe, layout: Layout, calibration: Sequence[Episode], test: Sequence[Episode], seed: int
) -> tuple[Official, Official]:
    """Returns what the released code makes of these rollouts; all successes of `calibration` are fitted to and calibrated on.

    First with the options that are best on the test episodes, as released, then with those best on the calibration rollouts.
    """
    good = [episode for episode in calibration if episode.success]
    scores = learned(recipe.make(layout), good, [episode for episode in calibration if not episode.success], seed)
    longest = max(len(episode) for episode in [*calibration, *test])
    options = OPTIONS if len(scores) == 1 else OF_TWO
    fitted = raw_traces(scores, good)
    limits = {(name, one): upper(fitted[name], *one, recipe.alpha, longest) for name in scores for one in options}

    def alarms(chosen: Mapping[str, Option], traces: Mapping[str, Traces]) -> list[int]:
        each = [
            [windowed(trace, chosen[name][0]) / limits[name, chosen[name]][: len(trace)] for trace in traces[name]]
            for name in scores
        ]
        both = [np.sort(np.stack(some), axis=0)[len(some) - recipe.needed] for some in zip(*each, strict=True)]
        return [first_alarm(trace, 1.0) for trace in both]

    def best(episodes: Sequence[Episode], traces: Mapping[str, Traces]) -> dict[str, Option]:
        success = [episode.success for episode in episodes]
        tried = [dict(zip(scores, some, strict=True)) for some in product(options, repeat=len(scores))]
        return max(tried, key=lambda chosen: twa(success, alarms(chosen, traces), longest))

    told = raw_traces(scores, test)
    on_test, on_calibration = best(test, told), best(calibration, raw_traces(scores, calibration))
    return (
        Official(on_test, np.array(alarms(on_test, told)), "test"),
        Official(on_calibration, np.array(alarms(on_calibration, told)), "calibration"),
    )


def upper(traces: Traces, window: int, kind: str, alpha: float, length: int) -> np.ndarray:
    """Returns the released threshold over plans 0 .. length - 1, from raw traces of the successes."""
    curves = [windowed(trace, window) for trace in traces]
    if kind == "ct_quantile":
        return np.full(length, np.quantile([curve.max() for curve in curves], 1 - alpha))
    longest = int(np.argmax([len(curve) for curve in curves]))
    rest = [curve for i, curve in enumerate(curves) if i != longest]
    half = len(rest) // 2
    return _conformal.band([curves[longest], *rest[:half]], rest[half:], alpha, "official").upper(length)
