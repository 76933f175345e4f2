"""What the viewer shows above the plots as coloured bands: who acted, what was odd about a tick, how far the task was."""

from __future__ import annotations

from typing import Any

import numpy as np

from robolearn.core import SOURCES, Flag
from robolearn.data.store import EpisodeSet

_SHOWN_FLAGS = {
    Flag.INTERVENTION: "intervention",
    Flag.DISENGAGED: "not engaged",
    Flag.HELD: "held",
    Flag.CLAMPED: "clamped",
    Flag.LATE: "late",
    Flag.STALE: "stale input",
    Flag.FRAME_REPEATED: "frame repeated",
    Flag.FAULT: "fault",
}
_MOST_RUNS = 400


def bands(dataset: EpisodeSet, index: int) -> list[dict[str, Any]]:
    """Returns the lanes of one episode: {name, runs: [{first, last, name}]}, rows counted from its start, last included."""
    span = dataset.span(index)

    def column(key: str) -> np.ndarray | None:
        return dataset.read(key, *span).reshape(span[1] - span[0], -1)[:, 0] if key in dataset.keys else None

    lanes: list[dict[str, Any]] = []
    source, flags, late, success = (column(key) for key in ("source", "flags", "late_ms", "step_success"))
    if source is not None:
        lanes.append({"name": "source", "runs": _named_runs(source, dict(enumerate(SOURCES)))})
    if flags is not None:
        bits = flags.astype(np.int64)
        for flag, name in _SHOWN_FLAGS.items():
            lanes.append({"name": name, "runs": _named_runs((bits & int(flag)) != 0, {True: name})})
    if late is not None and dataset.hz and "t_sim" not in dataset.keys:  # a simulator is late for nobody
        lanes.append({"name": "late", "runs": _named_runs(late > 500.0 / dataset.hz, {True: "late by over half a period"})})
    lanes.append({"name": "clock", "runs": _clock_runs(dataset, column("t_sim" if "t_sim" in dataset.keys else "t_monotonic"))})
    if success is not None:
        lanes.append({"name": "success", "runs": _named_runs(success, {1: "solved"})})
    shown: dict[str, dict[str, Any]] = {}
    for lane in lanes:
        if lane["runs"]:
            shown.setdefault(lane["name"], lane)
    return list(shown.values())


def _clock_runs(dataset: EpisodeSet, stamps: np.ndarray | None) -> list[dict[str, Any]]:
    """Returns where the recording's own clock strays from the set's rate by over half a period."""
    if stamps is None or not dataset.hz or len(stamps) < 2:
        return []
    steps = np.diff(stamps.astype(np.int64)) / 1e9
    odd = np.concatenate([[False], np.abs(steps * dataset.hz - 1) > 0.5])
    return _named_runs(odd, {True: "interval off by over half a period"})


def _named_runs(values: np.ndarray, names: dict[Any, str]) -> list[dict[str, Any]]:
    """Returns runs of equal values that have a name; where there are too many, near ones of one name become one."""
    if not len(values):
        return []
    edges = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1], [True]]))
    least = len(values) / _MOST_RUNS if len(edges) > _MOST_RUNS else 0
    runs: list[dict[str, Any]] = []
    for first, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        name = names.get(values[first].item(), "")
        if not name:
            continue
        if runs and runs[-1]["name"] == name and first - runs[-1]["last"] <= least:
            runs[-1]["last"] = stop - 1
        else:
            runs.append({"first": first, "last": stop - 1, "name": name})
    return runs
