"""What the numbers of a set go through: extremes, ranges, switches, and the bounds of the action. Streamed in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from robolearn.data import _zarr
from robolearn.data._check_roles import Group, Roles, is_time
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError

_BLOCK_BYTES = 32 * 1024 * 1024
_SAMPLE_ROWS = 2048  # of each block, for the ranges
_FEW = 3  # a number with up to so many values is a switch
_MAY_STAND = ("flags", "source", "step_success", "step_score", "late_ms", "sim_state")


@dataclass(frozen=True)
class Extent:
    """What the columns (n,) of one key go through: extremes, range from 0.1 to 99.9 %, middle, and whether each is a switch.

    usual: the range from 5 to 95 %, which one broken episode does not move.
    """

    low: np.ndarray
    high: np.ndarray
    width: np.ndarray
    middle: np.ndarray
    usual: np.ndarray
    switch: np.ndarray


@dataclass(frozen=True)
class ActionLimits:
    """From which value on each number (n,) of the action is at its limit; infinite where it has none, empty without an action."""

    low: np.ndarray
    high: np.ndarray
    declared: bool


def vector_rows(dataset: EpisodeSet, key: str, start: int, stop: int) -> np.ndarray:
    """Returns rows of a key (n, columns); DatasetError names key and chunk."""
    rows = _zarr.read_rows(dataset.array(key), start, stop, key)
    return rows.reshape(len(rows), int(np.prod(rows.shape[1:], dtype=int)))


def _row_blocks(dataset: EpisodeSet, key: str) -> Iterator[tuple[int, int]]:
    """Yields (first, last) rows of blocks of some tens of MB that end where a chunk ends."""
    array = dataset.array(key)
    row_bytes = max(1, int(np.prod(array.shape[1:], dtype=int)) * array.dtype.itemsize)
    step = max(256, _BLOCK_BYTES // row_bytes)
    step = max(array.chunks[0], step - step % array.chunks[0])
    for start in range(0, dataset.n_steps, step):
        yield start, min(start + step, dataset.n_steps)


def extent_of(dataset: EpisodeSet, key: str) -> tuple[Extent | None, list[str]]:
    """Returns what a key goes through in the set, NaN left out, None where no row can be read; and flags of broken chunks."""
    low = high = seen = None
    samples: list[np.ndarray] = []
    problems = []
    for start, stop in _row_blocks(dataset, key):
        try:
            rows = vector_rows(dataset, key, start, stop)
        except DatasetError as error:
            problems.append(f"corrupt: {error}")
            continue
        if rows.dtype.kind == "f" and not np.isfinite(rows).all():
            rows = np.where(np.isfinite(rows), rows, np.nan)
        below, above = np.fmin.reduce(rows, axis=0), np.fmax.reduce(rows, axis=0)
        low = below if low is None else np.fmin(low, below)
        high = above if high is None else np.fmax(high, above)
        samples.append(rows[:: max(1, len(rows) // _SAMPLE_ROWS)])
        if not is_time(key):
            seen = _distinct(rows, seen)
    if low is None or high is None:
        return None, problems
    sampled = np.concatenate(samples).astype(np.float64)
    some = np.isfinite(sampled).any(0)
    quantiles = np.zeros((5, sampled.shape[1]))
    if some.any():
        quantiles[:, some] = np.nanquantile(sampled[:, some], (0.001, 0.05, 0.5, 0.95, 0.999), axis=0, method="nearest")
    switch = np.zeros(len(low), bool) if seen is None else np.array([len(values) <= _FEW for values in seen], bool)
    low, high = (np.nan_to_num(values.astype(np.float64)) for values in (low, high))
    return Extent(low, high, quantiles[4] - quantiles[0], quantiles[2], quantiles[3] - quantiles[1], switch), problems


def _distinct(rows: np.ndarray, seen: list[set[float]] | None) -> list[set[float]]:
    """Returns the values of every column, up to one more than a switch has."""
    seen = [set() for _ in range(rows.shape[1])] if seen is None else seen
    for column, values in enumerate(seen):
        if len(values) <= _FEW:
            found = np.unique(rows[:, column])
            values.update(found[np.isfinite(found)][: _FEW + 1].tolist())
    return seen


def constant(key: str, extent: Extent) -> list[str]:
    """Returns a flag for the columns of a key that never change; keys of bookkeeping may well stand."""
    still = np.flatnonzero(extent.low == extent.high)
    if not len(still) or key in _MAY_STAND or is_time(key):
        return []
    return [f"constant: {key}{'' if len(still) == len(extent.low) else still.tolist()} never changes"]


def turning(group: Group, extents: Mapping[str, Extent]) -> Group:
    """Returns the group with those joints marked as angles that go through just one turn: names and units may not say it."""
    if group.kind != "joint" or group.key not in extents:
        return group
    span = extents[group.key].high - extents[group.key].low
    turns = (span[list(group.columns)] > 0.95 * 2 * np.pi) & (span[list(group.columns)] < 1.001 * 2 * np.pi)
    return replace(group, angular=tuple((np.array(group.angular) | turns).tolist()))


def action_limits(dataset: EpisodeSet, extent: Extent | None, roles: Roles) -> ActionLimits:
    """Returns the limits of the action: attribute `action_limits`, [[low, high], ...], or else the set's own extremes.

    An own extreme counts as a limit where several episodes reach it (one alone just went furthest) and it is not 0, the
    rest of a relative action; a gripper and a switch have only extremes.
    """
    if extent is None:
        return ActionLimits(np.zeros(0), np.zeros(0), False)
    declared = dataset.attrs.get("action_limits")
    values = np.asarray(declared, np.float64) if declared is not None else np.zeros(0)
    if values.shape == (len(extent.low), 2):
        slack = 1e-6 * (values[:, 1] - values[:, 0])
        return ActionLimits(values[:, 0] + slack, values[:, 1] - slack, True)
    slack = 1e-6 * (extent.high - extent.low)
    grips = np.array([("action", column) in roles.grippers for column in range(len(slack))], bool)
    none = extent.switch | grips | (slack == 0)
    low, high = extent.low + slack, extent.high - slack
    reach_low, reach_high = _reached(dataset, low, high)
    enough = min(2, dataset.n_episodes)
    no_low = none | (reach_low < enough) | (np.abs(extent.low) <= slack)
    no_high = none | (reach_high < enough) | (np.abs(extent.high) <= slack)
    return ActionLimits(np.where(no_low, -np.inf, low), np.where(no_high, np.inf, high), False)


def _reached(dataset: EpisodeSet, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns how many episodes have a row at or below `low`, and at or above `high`, by column."""
    counts = np.zeros((2, len(low)), np.int64)
    latest = np.full((2, len(low)), -1)  # the last episode counted, by side and column: it may go on in the next block
    for start, stop in _row_blocks(dataset, "action"):
        try:
            rows = vector_rows(dataset, "action", start, stop)
        except DatasetError:
            continue
        for side, at in enumerate((rows <= low, rows >= high)):
            for column in np.flatnonzero(at.any(0)):
                places = np.flatnonzero(at[:, column]) + start
                found = np.unique(np.searchsorted(dataset.episode_ends, places, side="right"))
                counts[side, column] += len(found) - int(found[0] == latest[side, column])
                latest[side, column] = found[-1]
    return counts[0], counts[1]
