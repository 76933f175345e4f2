"""The rows of an episode of a run log: as the ticks were, or, where they do not lie on the set's grid, brought onto it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.core import Flag, Spec
from robolearn.data.align import interpolate, interpolate_quat_wxyz, nearest
from robolearn.errors import BadInput, DatasetError
from robolearn.runtime._slots import Kinds
from robolearn.runtime.runs import Logged, Pictures, Run

_ACTIONS = {"action": "asked", "action_filtered": "filtered", "action_sent": "sent"}


@dataclass(frozen=True)
class Grid:
    """Rows of one rate over an episode. t_ns: (rows,) when; tick: (rows,) the tick in force then, which may repeat or skip some.

    exact: every tick is a row, so that nothing is resampled; held: (rows,) periods in which no tick began.
    """

    t_ns: np.ndarray
    tick: np.ndarray
    exact: bool
    held: np.ndarray


def grid_of(t_ns: np.ndarray, logged_hz: float, hz: float) -> Grid:
    """Returns the rows at `hz` of ticks at the rising times t_ns (n,), which were meant to come at `logged_hz`.

    A tick counts for the period whose beginning it is nearest to; the grid lies so that half of the ticks are early on it.
    """
    period, tick = 1e9 / hz, 1e9 / logged_hz
    since = (t_ns - t_ns[0]).astype(np.float64)
    start = float(np.median(since - np.rint(since / tick) * tick))
    count = int(np.floor((since[-1] - start + tick / 2) / period)) + 1
    at = start + np.arange(max(1, count)) * period
    place = np.maximum(np.searchsorted(since, at + min(tick, period) / 2, side="right") - 1, 0)
    if hz == logged_hz and np.array_equal(place, np.arange(len(t_ns))):
        return Grid(t_ns, place, True, np.zeros(len(t_ns), bool))
    held = (np.diff(place, prepend=-1) == 0) & (period >= tick)
    return Grid(t_ns[0] + np.rint(at).astype(np.int64), place, False, held)


def time_of(arrays: Mapping[str, Any]) -> np.ndarray:
    """Returns the times [ns] (n,) that the grid of an episode is laid over, rising: the simulator's where there is one.

    A tick that saw the same instant as the one before (nothing newer had come) is put 1 ns after it.
    """
    counts = np.arange(len(arrays["k"]))
    return np.maximum.accumulate(_stamps(arrays) - counts) + counts


def _stamps(arrays: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(arrays["t/sim"] if "t/sim" in arrays else arrays["t/monotonic"])


def relative(spec: Spec) -> bool:
    """Returns whether actions are displacements a tick, which mean something else at another rate."""
    return "delta" in spec.codec or bool(Kinds.of(spec).moving)


def grid_for(episode: Logged, hz: float, where: Path) -> Grid:
    """Returns the grid of an episode; BadInput where its actions cannot be brought to `hz`, DatasetError for a broken clock."""
    spec, times = episode.spec, time_of(episode.arrays)
    if hz != spec.hz and relative(spec):
        raise BadInput(f"{where}: its actions are displacements a tick of {spec.hz:g} Hz, which {hz:g} Hz have not; drop --hz")
    back = np.diff(_stamps(episode.arrays)) < -1e9 / spec.hz
    if back.any():
        row = int(np.argmax(back)) + 1
        raise DatasetError(f"{where}: episode {episode.index}: its clock goes back at tick {row}, so it has no rate")
    return grid_of(times, spec.hz, hz)


def columns(episode: Logged, run: Run, grid: Grid) -> dict[str, Any]:
    """Returns every key of an episode's rows: arrays (rows, ...), and pictures still to be decoded."""
    arrays, tick = episode.arrays, grid.tick
    made: dict[str, Any] = {key: _observed(arrays[f"obs/{key}"], key, grid, time_of(arrays)) for key in episode.spec.obs}
    for key, name in _ACTIONS.items():
        made[key] = arrays[name][tick]
    if relative(episode.spec):
        moving = list(Kinds.of(episode.spec).moving) or list(range(episode.spec.action.shape[-1]))
        for key in ("action", "action_filtered"):
            made[key] = _still(made[key], grid.held, moving)
    marks = np.where(arrays["intervention"], int(Flag.INTERVENTION), 0) | np.where(arrays["fault"], int(Flag.FAULT), 0)
    flags = _gathered(np.bitwise_or, arrays["flags"] | marks, grid) | np.where(grid.held, int(Flag.HELD), 0)
    made |= {"source": arrays["source"][tick], "flags": flags.astype(np.int32)}
    made |= {"step_success": _gathered(np.maximum, arrays["success"], grid), "step_score": arrays["task_score"][tick]}
    made |= _clocks(arrays, grid)
    for name in arrays:
        if name.startswith(("score/", "alarm/")):
            made[name.replace("/", "_")] = arrays[name][tick]
    for name, segment in raw_streams(run).items():
        newest = np.maximum.accumulate(segment.t_ns)
        rises = np.diff(newest, prepend=newest[0] - 1) > 0
        made[name] = interpolate(segment.t_ns[rises], np.asarray(segment.values)[rises], made["t_monotonic"])
    return made


def raw_streams(run: Run) -> dict[str, Any]:
    """Returns the raw streams of numbers by the key that they get, "stream_<name>"."""
    return {
        f"stream_{name.replace('/', '_')}": segment
        for name, segment in run.streams.items()
        if segment.kind == "rows" and "spec" not in segment.attributes and len(segment.t_ns) and _plain(segment.values)
    }


def decoded(pictures: Pictures) -> np.ndarray:
    """Returns pictures (n, height, width, 3) uint8; one that several rows show is decoded once."""
    places, first, rows = np.unique(np.asarray(pictures.places), return_index=True, return_inverse=True)
    del places  # Unused: which they are does not matter, only which are the same.
    return np.stack([pictures[int(row)] for row in first])[rows]


def _observed(values: Any, key: str, grid: Grid, t_ns: np.ndarray) -> Any:
    if grid.exact:
        return values
    if isinstance(values, Pictures):
        return Pictures(values.segment, [values.places[row] for row in nearest(t_ns, grid.t_ns).tolist()])
    if "quat" in key and values.shape[1:] == (4,):  # the order of its numbers does not matter here
        return interpolate_quat_wxyz(t_ns, values, grid.t_ns)
    return interpolate(t_ns, values, grid.t_ns)


def _still(actions: np.ndarray, held: np.ndarray, moving: list[int]) -> np.ndarray:
    """Returns the actions, without a displacement where no tick began: what was asked before was done already."""
    actions = actions.copy()
    for column in moving:
        actions[held, column] = 0
    return actions


def _gathered(whole: np.ufunc, values: np.ndarray, grid: Grid) -> np.ndarray:
    """Returns values of the ticks of each row, those of skipped ticks taken together with the next one's."""
    first = np.minimum(np.concatenate([[0], grid.tick[:-1] + 1]), grid.tick)
    pairs = zip(first.tolist(), grid.tick.tolist(), strict=True)
    return np.array([whole.reduce(values[start : stop + 1]) for start, stop in pairs], values.dtype)


def _clocks(arrays: Mapping[str, Any], grid: Grid) -> dict[str, np.ndarray]:
    """Returns when each row was, on every clock of its ticks; a device's clock says when the value it shows was taken."""
    times, made = time_of(arrays), {}
    shown = grid.tick if grid.exact else nearest(times, grid.t_ns)
    for name in (name for name in arrays if name.startswith("t/")):
        stamps = np.asarray(arrays[name])
        later = grid.t_ns - times[grid.tick]
        made[name.replace("/", "_")] = stamps[shown] if name.startswith("t/dev/") else stamps[grid.tick] + later
    return made


def _plain(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.dtype.names is None and values.dtype.kind in "fiub"
