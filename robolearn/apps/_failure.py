"""The tables of `study failure`: detectors fitted to one part of a policy's rollouts, measured on others, beside a clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolearn.monitors import _conformal, _metrics
from robolearn.monitors._base import Episode, Layout
from robolearn.monitors._detector import Detector, first_alarm, peak
from robolearn.monitors._fit import Fitted, prepare
from robolearn.monitors._recipe import Recipe, score_names

SUPERVISED = ("safe_mlp", "safe_lstm")
COLUMNS = ("cell", "seed", "kind", "success", "score", "plans", "alarm_plan", "alarm_step", "peak", "weights_sha256", "commit")
SPLITS = 20  # of the held-out successes, for the mean false-alarm rate


@dataclass(frozen=True)
class Trial:
    """One detector on the test episodes of one task: its combined traces, alarms (plans, -1 none), and what it is made of."""

    task: str
    name: str
    detector: Detector
    traces: list[np.ndarray]
    alarms: np.ndarray

    @property
    def made_of(self) -> str:
        """The scores and how they are combined."""
        names, needed = self.detector.recipe.scores, self.detector.recipe.needed
        word = " and " if needed == len(names) else " or " if needed == 1 else f" ({needed} of) "
        return word.join(
            f"{name} ({self.detector.references[name].band}, {self.detector.references[name].window})" for name in names
        )


def usable(layout: Layout, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns the failure scores that this policy can serve."""
    wanted = tuple(names) or score_names()
    return tuple(name for name in wanted if name != "past_disagreement" or layout.n_past)


def trials(
    task: str, layout: Layout, calibration: Sequence[Episode], test: Sequence[Episode], recipe: Recipe, seed: int
) -> Iterator[Trial]:
    """Yields every detector on the test episodes: each score, FIPER (jointly calibrated, and apart as published), the best ones.

    best: chosen among all scores and pairs on the shape split; best_unsupervised: without scores that learned from failures.
    """
    fitted = prepare(recipe, layout, calibration, seed)
    raw = [{name: score.trace(e.plans[:: recipe.every]) for name, score in fitted.scores.items()} for e in test]
    for name, detector in detectors(fitted):
        traces = [detector.combine({n: one[n] for n in detector.recipe.scores}) for one in raw]
        alarms = [first_alarm(t, detector.threshold(e.group), recipe.patience) for t, e in zip(traces, test, strict=True)]
        yield Trial(task, name, detector, traces, np.array([a * recipe.every if a >= 0 else -1 for a in alarms]))


def detectors(fitted: Fitted) -> Iterator[tuple[str, Detector]]:
    """Yields the detectors of a table by name."""
    names = fitted.recipe.scores
    for name in names:
        yield name, fitted.detector((name,))
    if {"rnd", "ace"} <= set(names):
        yield "fiper", fitted.detector(("rnd", "ace"))
        yield "fiper_apart", fitted.detector(("rnd", "ace"), joint=False)
    if fitted.parts.shape_bad:
        yield "best", fitted.detector(*fitted.best(n for n in names if n != "clock"))
        yield "best_unsupervised", fitted.detector(*fitted.best(n for n in names if n not in (*SUPERVISED, "clock")))


def row(trial: Trial, calibration: Sequence[Episode], test: Sequence[Episode]) -> dict[str, Any]:
    """Returns what `summary.json` keeps of one detector on one task."""
    rows = rows_of(trial, calibration, test)
    recipe, n = trial.detector.recipe, trial.detector.n_calibrate[""]
    found = _metrics.measure(rows, (n, recipe.alpha), trial.traces)
    wide = _conformal.alarms_interval(n, found.successes, recipe.alpha, 0.999) if found.successes else None
    mean = resplit(trial, test)
    return {
        "task": trial.task,
        "detector": trial.name,
        "made_of": trial.made_of,
        "tpr": found.tpr,
        "tnr": found.tnr,
        "balanced_accuracy": found.balanced_accuracy,
        "twa": found.twa,
        "twa95": _metrics.interval95("twa", rows),
        "detection_time": found.detection_time,
        "auroc_common_length": found.auroc_common,
        "auroc": found.auroc,
        "promised_fpr": trial.detector.promised if recipe.joint else None,
        "allowed_fpr": recipe.alpha,
        "measured_fpr": found.fpr,
        "predictive95": found.promised95,
        "inside95": _inside(found.fpr, found.promised95, recipe.joint),
        "inside999": _inside(found.fpr, wide, recipe.joint),
        "mean_fpr_over_resplits": mean,
        "resplits_promise": None if mean is None else _conformal.promised(found.successes // 2, recipe.alpha),
        "n_calibrate": n,
        "n_success": found.successes,
        "n_failure": found.failures,
    }


def _inside(rate: float | None, interval: tuple[float, float] | None, joint: bool) -> bool | None:
    """Returns whether a false-alarm rate is where it was promised; calibrated apart, scores promise an upper end only."""
    if rate is None or interval is None:
        return None
    return (not joint or interval[0] - 1e-12 <= rate) and rate <= interval[1] + 1e-12


def rows_of(trial: Trial, calibration: Sequence[Episode], test: Sequence[Episode]) -> _metrics.Rows:
    """Returns the per-episode rows that metrics are made of; the longest episode is that of both sets."""
    longest = max(len(episode) for episode in [*calibration, *test])
    peaks = [peak(trace) for trace in trial.traces]
    return _metrics.Rows.of([e.success for e in test], trial.alarms, [len(e) for e in test], longest, peaks)


def resplit(trial: Trial, test: Sequence[Episode], splits: int = SPLITS) -> float | None:
    """Returns the mean false-alarm rate over random halvings of the test successes: one half sets the threshold, one counts.

    What exchangeability alone promises, 1 - k/(n+1), with no luck of one draw in it; scores and references stay as fitted.
    None where scores are calibrated apart, and the combination has no threshold of its own.
    """
    recipe = trial.detector.recipe
    if not recipe.joint:
        return None
    peaks = np.array([peak(t, recipe.patience) for t, e in zip(trial.traces, test, strict=True) if e.success])
    half, rng, rates = len(peaks) // 2, np.random.default_rng(len(peaks)), []
    for _ in range(splits):
        mixed = rng.permutation(peaks)
        rates.append(float(np.mean(mixed[half:] > _conformal.conformal_threshold(mixed[:half], recipe.alpha))))
    return float(np.mean(rates))


def duels(done: Mapping[str, Trial], calibration: Sequence[Episode], test: Sequence[Episode]) -> list[dict[str, Any]]:
    """Returns the differences in time-weighted accuracy that were asked for, each paired by episode with its 95 % interval."""
    pairs = [("fiper", "clock"), ("fiper", "rnd"), ("fiper", "ace"), ("fiper", "fiper_apart")]
    for best in ("best", "best_unsupervised"):
        if best in done:
            pairs += [(best, "clock"), (best, "fiper")] + [(best, part) for part in done[best].detector.recipe.scores]
    found = []
    for ours, other in dict.fromkeys(pairs):
        if ours in done and other in done:
            a, b = (rows_of(done[name], calibration, test) for name in (other, ours))
            for metric in ("twa", "balanced_accuracy"):
                told = _metrics.difference95(metric, a, b)
                if told is not None:
                    verdict = "wins" if told[1] > 0 else "loses" if told[2] < 0 else "undecided"
                    found.append(
                        {
                            "task": done[ours].task,
                            "metric": metric,
                            "detector": ours,
                            "against": other,
                            "difference": told[0],
                            "interval95": told[1:],
                            "verdict": verdict,
                        }
                    )
    return found


def episode_rows(trial: Trial, test: Sequence[Episode], same: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields one row an episode, from which every figure of the table can be made again."""
    for episode, trace, alarm in zip(test, trial.traces, trial.alarms.tolist(), strict=True):
        yield {
            "cell": f"{trial.task}/{trial.name}",
            "seed": episode.seed,
            "kind": episode.kind,
            "success": int(episode.success),
            "score": round(episode.score, 4),
            "plans": len(episode),
            "alarm_plan": alarm,
            "alarm_step": int(episode.plans.ticks[alarm]) if alarm >= 0 else -1,
            "peak": round(peak(trace), 5),
            **same,
        }


def by_draws(
    layout: Layout, calibration: Sequence[Episode], test: Sequence[Episode], recipe: Recipe, draws: Sequence[int], seed: int
) -> list[dict[str, Any]]:
    """Returns time-weighted accuracy of scores of the draws against how many there are, calibrated anew for each."""
    found = []
    for b in draws:
        less = dataclasses.replace(recipe, draws=b)
        few = [e.with_draws(b) for e in calibration], [e.with_draws(b) for e in test]
        fitted = prepare(less, layout, few[0], seed)
        for name in less.scores:
            detector = fitted.detector((name,))
            alarms = [detector.alarm(e) for e in few[1]]
            longest = max(len(e) for e in [*calibration, *test])
            rows = _metrics.Rows.of([e.success for e in test], alarms, [len(e) for e in test], longest)
            found.append({"detector": name, "draws": b, "twa": _metrics.value("twa", rows), "tpr": _metrics.value("tpr", rows)})
    return found
