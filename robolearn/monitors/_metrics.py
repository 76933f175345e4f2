"""What a failure detector is worth: rates, detection time, TWA and AUROC over episodes, with intervals by episode.

Positive means failure. A metric is a function of how often each episode counts: once each gives its value, other counts give
a resample of the bootstrap. Definitions of FIPER (arXiv 2510.09459) and its published code; AUROC of Mann and Whitney (1947).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from robolearn.errors import BadInput, UnknownName
from robolearn.intervals import wilson95
from robolearn.monitors._conformal import alarms_interval

RESAMPLES = 10_000
_BLOCK = 500  # resamples at a time: (resamples, episodes) at once would be large
_SEED = 0  # of the bootstrap: the same episodes give the same interval
Pair = tuple[float, float]


@dataclass(frozen=True)
class Rows:
    """What one detector made of n episodes; made by `Rows.of`, which checks.

    success: (n,) bool; alarm: (n,) int, plan of the first alarm, -1 where there was none; length: (n,) int, plans;
    longest: plans of the longest episode of calibration and test; score: (n,), higher is more suspicious (None: no AUROC).
    """

    success: np.ndarray
    alarm: np.ndarray
    length: np.ndarray
    longest: int
    score: np.ndarray | None = None

    @staticmethod
    def of(
        success: Sequence[bool] | np.ndarray,
        alarm: Sequence[int] | np.ndarray,
        length: Sequence[int] | np.ndarray,
        longest: int | None = None,
        score: Sequence[float] | np.ndarray | None = None,
    ) -> Rows:
        """Returns checked rows; `longest` is that of these episodes where it is not given. BadInput names what does not fit."""
        good = _labels(success)
        first, plans = _whole(alarm, "alarm", len(good)), _whole(length, "length", len(good))
        wrong = np.flatnonzero((plans < 1) | (first < -1) | (first >= plans))
        if len(wrong):
            i = wrong[0]
            raise BadInput(f"metrics: episode {i}: want an alarm from -1 to length - 1, got alarm {first[i]}, length {plans[i]}")
        most = int(plans.max(initial=1))
        if longest is not None and longest < most:
            raise BadInput(f"metrics: want the longest episode of all to be at least {most} plans, got {longest}")
        scores = None if score is None else np.asarray(score, dtype=np.float64)
        if scores is not None and (scores.shape != good.shape or np.isnan(scores).any()):
            raise BadInput(f"metrics: want {len(good)} scores, one an episode and none NaN, got {scores.dtype}{scores.shape}")
        return Rows(good, first, plans, most if longest is None else int(longest), scores)

    @property
    def flagged(self) -> np.ndarray:
        """(n,) bool: where there was an alarm."""
        return self.alarm >= 0

    @property
    def delay(self) -> np.ndarray:
        """(n,): the first alarm as a share of the longest episode, 0 its first plan, 1 its last one."""
        return self.alarm / max(1, self.longest - 1)


Metric = Callable[[Rows, np.ndarray], np.ndarray]  # (rows, counts (m, n)) -> (m,), NaN where a class is empty


def tpr(rows: Rows, counts: np.ndarray) -> np.ndarray:
    """Returns the share of failures with an alarm."""
    return _mean(counts, ~rows.success, rows.flagged)


def tnr(rows: Rows, counts: np.ndarray) -> np.ndarray:
    """Returns the share of successes without an alarm."""
    return _mean(counts, rows.success, ~rows.flagged)


def fpr(rows: Rows, counts: np.ndarray) -> np.ndarray:
    """Returns the share of successes with an alarm."""
    return _mean(counts, rows.success, rows.flagged)


def balanced_accuracy(rows: Rows, counts: np.ndarray) -> np.ndarray:
    """Returns (TPR + TNR) / 2, which the published tables call accuracy."""
    return (tpr(rows, counts) + tnr(rows, counts)) / 2


def detection_time(rows: Rows, counts: np.ndarray) -> np.ndarray:
    """Returns the mean delay of the alarms in failures, as a share of the longest episode; 1 where no failure has one."""
    found = _mean(counts, ~rows.success & rows.flagged, rows.delay)
    missed = np.isnan(found) & (counts @ (~rows.success).astype(float) > 0)
    return np.where(missed, 1.0, found)


def twa(rows: Rows, counts: np.ndarray) -> np.ndarray:
    """Returns the time-weighted accuracy: balanced accuracy in which an alarm in a failure counts 1 - delay."""
    early = np.where(rows.flagged, 1 - rows.delay, 0.0)
    return (_mean(counts, ~rows.success, early) + tnr(rows, counts)) / 2


def auroc_of_score(rows: Rows, counts: np.ndarray) -> np.ndarray:
    """Returns the chance that a failure scores higher than a success, a tie counting half; NaN where rows have no score."""
    if rows.score is None:
        return np.full(len(counts), np.nan)
    order = np.argsort(rows.score, kind="stable")
    score, weights = rows.score[order], counts[:, order].astype(float)
    good, bad = weights * rows.success[order], weights * ~rows.success[order]
    below = np.concatenate([np.zeros((len(counts), 1)), good.cumsum(axis=1)], axis=1)  # successes before each place
    first, last = np.searchsorted(score, score, "left"), np.searchsorted(score, score, "right")  # of its ties
    won = (bad * (below[:, first] + below[:, last]) / 2).sum(axis=1)
    return _ratio(won, bad.sum(axis=1) * good.sum(axis=1))


METRICS: dict[str, Metric] = {
    **{metric.__name__: metric for metric in (tpr, tnr, fpr, balanced_accuracy, detection_time, twa)},
    "auroc": auroc_of_score,
}


def value(metric: str | Metric, rows: Rows) -> float | None:
    """Returns a metric, by its name in METRICS or as a function; None where it wants a failure or a success and has none."""
    found = float(_metric(metric)(rows, np.ones((1, len(rows.success))))[0])
    return None if math.isnan(found) else found


def interval95(metric: str | Metric, rows: Rows) -> Pair | None:
    """Returns the 95 % interval of a metric by percentile bootstrap over episodes; None where the metric has no value."""
    of = _metric(metric)
    return None if value(of, rows) is None else _percentiles([of(rows, counts) for counts in _resamples(rows.success)])


def difference95(metric: str | Metric, a: Rows, b: Rows) -> tuple[float, float, float] | None:
    """Returns metric(b) - metric(a) of two detectors on the same episodes and its 95 % interval, as (difference, low, high).

    Percentile bootstrap in which every resample draws the same episodes for both. None where the metric has no value.
    """
    if not (np.array_equal(a.success, b.success) and np.array_equal(a.length, b.length)):
        raise BadInput("metrics: want two detectors on the same episodes, got other labels or lengths")
    of = _metric(metric)
    before, after = value(of, a), value(of, b)
    if before is None or after is None:
        return None
    return after - before, *_percentiles([of(b, counts) - of(a, counts) for counts in _resamples(a.success)])


def auroc(score: Sequence[float] | np.ndarray, success: Sequence[bool] | np.ndarray) -> float | None:
    """Returns the AUROC of one scalar an episode (n,), higher meaning failure, ties counting half; None with an empty class."""
    good = _labels(success)
    return value("auroc", Rows.of(good, np.full(len(good), -1), np.ones(len(good), int), score=score))


def common_length(lengths: Sequence[int] | np.ndarray, success: Sequence[bool] | np.ndarray, share: float = 0.9) -> int:
    """Returns the most plans that a `share` of the failures and a `share` of the successes reach; 1: the shortest episode.

    Asked of each class, because a share of all would be taken from the class that ends sooner.
    """
    good = _labels(success)
    plans = _whole(lengths, "length", len(good))
    if not len(plans) or plans.min() < 1 or not 0 < share <= 1:
        raise BadInput(f"metrics: want episodes of one plan or more, a share above 0 up to 1, got {len(plans)} and {share}")
    classes = [np.sort(plans[which])[::-1] for which in (good, ~good) if which.any()]
    return min(int(descending[math.ceil(round(share * len(descending), 9)) - 1]) for descending in classes)


def peaks_at_common_length(
    traces: Sequence[np.ndarray], success: Sequence[bool] | np.ndarray, share: float = 0.9
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (peaks (m,), kept (n,) bool): the highest score over the first `common_length` plans, and of which episodes.

    Episodes that end before are left out, of both classes: carried on or cut shorter, their length would still tell. What is
    compared are episodes that all ran equally long, so a score that knows only the time knows nothing (AUROC exactly 1/2).
    """
    lengths = np.array([len(trace) for trace in traces], dtype=int)
    plans = common_length(lengths, success, share)
    kept = lengths >= plans
    return np.array([np.max(trace[:plans]) for trace, keep in zip(traces, kept, strict=True) if keep], dtype=float), kept


def auroc_common_length(traces: Sequence[np.ndarray], success: Sequence[bool] | np.ndarray, share: float = 0.9) -> float | None:
    """Returns the AUROC of `peaks_at_common_length` (traces: one (plans,) an episode); None with an empty class."""
    good = _labels(success)
    if good.all() or not good.any():
        return None
    peaks, kept = peaks_at_common_length(traces, good, share)
    return auroc(peaks, good[kept])


@dataclass(frozen=True)
class Metrics:
    """One detector on one test set; None where a class is empty or something was not given.

    tpr95, tnr95: Wilson intervals; promised95: where the false-alarm rate of so many successes lies if the threshold's promise
    holds (Beta-Binomial, calibration and test sizes both counted); detection_time: share of the longest episode.
    """

    failures: int
    successes: int
    tpr: float | None
    tpr95: Pair | None
    tnr: float | None
    tnr95: Pair | None
    balanced_accuracy: float | None
    detection_time: float | None
    twa: float | None
    fpr: float | None
    promised95: Pair | None
    auroc: float | None
    auroc_common: float | None

    @property
    def promise_kept(self) -> bool | None:
        """Whether the measured false-alarm rate lies where it was promised; None where nothing was."""
        low, high = self.promised95 or (math.nan, math.nan)
        return None if self.fpr is None or math.isnan(low) else low - 1e-12 <= self.fpr <= high + 1e-12

    def as_row(self) -> dict[str, float | int | bool | None]:
        """Returns one flat row for a table: an interval `x95` as x_low and x_high."""
        row: dict[str, float | int | bool | None] = {}
        for name, held in dataclasses.asdict(self).items():
            if name.endswith("95"):
                row[f"{name[:-2]}_low"], row[f"{name[:-2]}_high"] = held or (None, None)
            else:
                row[name] = held
        return row | {"promise_kept": self.promise_kept}


def measure(rows: Rows, promise: tuple[int, float] | None = None, traces: Sequence[np.ndarray] | None = None) -> Metrics:
    """Returns every metric of one detector.

    promise: how many successes its threshold was set on, and the false-alarm rate it allows; traces: one (plans,) an episode.
    """
    good, bad = rows.success, ~rows.success
    n_good, n_bad = int(good.sum()), int(bad.sum())
    return Metrics(
        failures=n_bad,
        successes=n_good,
        tpr95=wilson95(int((bad & rows.flagged).sum()), n_bad) if n_bad else None,
        tnr95=wilson95(int((good & ~rows.flagged).sum()), n_good) if n_good else None,
        promised95=alarms_interval(promise[0], n_good, promise[1]) if promise and n_good else None,
        auroc_common=None if traces is None else auroc_common_length(traces, good),
        **{name: value(name, rows) for name in METRICS},
    )


def _metric(metric: str | Metric) -> Metric:
    if not isinstance(metric, str):
        return metric
    if metric not in METRICS:
        raise UnknownName("metric", metric, METRICS)
    return METRICS[metric]


def _resamples(success: np.ndarray) -> Iterator[np.ndarray]:
    """Yields counts (block, n): how often each episode is drawn; failures and successes apart, so that no class is empty."""
    rng = np.random.default_rng(_SEED)
    for _ in range(RESAMPLES // _BLOCK):
        counts = np.zeros((_BLOCK, len(success)))
        for which in (success, ~success):
            n = int(which.sum())
            if n:
                counts[:, which] = rng.multinomial(n, np.full(n, 1 / n), size=_BLOCK)
        yield counts


def _percentiles(blocks: list[np.ndarray]) -> Pair:
    low, high = np.quantile(np.concatenate(blocks), (0.025, 0.975))
    return float(low), float(high)


def _mean(counts: np.ndarray, among: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Returns the mean (m,) of `of` (n,) over the episodes `among` (n,) bool, each as often as it counts; NaN over none."""
    weights = counts * among
    return _ratio(weights @ of.astype(float), weights.sum(axis=1))


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    return np.divide(over, under, out=np.full(len(under), np.nan), where=under > 0)


def _labels(success: Sequence[bool] | np.ndarray) -> np.ndarray:
    array = np.asarray(success)
    if array.ndim != 1 or (array.dtype != bool and not np.isin(array, (0, 1)).all()):
        raise BadInput(f"metrics: want success (n,) of True and False, got {array.dtype}{array.shape}")
    return array.astype(bool)


def _whole(values: Sequence[int] | np.ndarray, name: str, n: int) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != (n,) or (n and array.dtype.kind not in "iu"):
        raise BadInput(f"metrics: want {n} of {name}, one an episode in whole plans, got {array.dtype}{array.shape}")
    return array.astype(np.int64)
