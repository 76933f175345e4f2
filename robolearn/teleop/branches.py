"""Whole trajectories: of the eight branches at every target, the path with the least joint motion, by dynamic programming."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from robolearn.errors import BadInput
from robolearn.teleop._batch import OUTSIDE, solve_batch
from robolearn.teleop.arm import Arm

Array = np.ndarray


class Trajectory(NamedTuple):
    """q (N, 7) [rad]; branch (N,): which of the eight; fits (N,): whether it is inside the limits (clipped into them if not)."""

    q: Array
    branch: Array
    fits: Array


def solve_trajectory(arm: Arm, U: Any, L: Any, H: Any, q_start: Any = None) -> Trajectory:
    """Returns joint angles (N, 7) for targets U, L (N, 3), H (N, 3, 3) with the least sum of |dq| over the whole trajectory.

    Greedy nearest-branch choice can walk into a limit that another branch avoids; looking at all targets does not. A branch
    outside the limits costs 1e6 a step. q_start (7,): where the arm is before the first target. BadInput for no target.
    """
    if len(U) == 0:
        raise BadInput("solve_trajectory: want at least one target, got none")
    near = arm.middle() if q_start is None else np.asarray(q_start, float)
    batch = solve_batch(arm, np.asarray(U, float), np.asarray(L, float), np.asarray(H, float), near)
    if not np.isfinite(batch.branches).all():
        bad = int(np.argmin(np.isfinite(batch.branches).all(axis=(1, 2))))
        raise BadInput(f"solve_trajectory: target {bad} is no pose (zero or not finite)")
    n = len(batch.branches)
    penalty = np.where(batch.fits, 0.0, OUTSIDE)  # (N, 8)
    turns = _all_turns(arm, batch.branches)  # (N, 8, 7, 3) angles, inf where outside
    start = np.zeros(8) if q_start is None else np.sum(_gap(arm, near[None], turns[0])[0], axis=-1)
    cost, came = start + penalty[0], np.zeros((n, 8), int)
    for k in range(1, n):
        step = np.sum(_pair(arm, batch.branches[k - 1], batch.branches[k]), axis=-1)  # (8 before, 8 after)
        total = cost[:, None] + step
        came[k] = np.argmin(total, axis=0)
        cost = total[came[k], np.arange(8)] + penalty[k]
    branch = np.empty(n, int)
    branch[-1] = int(np.argmin(cost))
    for k in range(n - 1, 0, -1):
        branch[k - 1] = came[k, branch[k]]
    chosen = batch.branches[np.arange(n), branch]
    return Trajectory(_unwound(arm, chosen, near if q_start is not None else None), branch, batch.fits[np.arange(n), branch])


def _pair(arm: Arm, before: Array, after: Array) -> Array:
    """Returns |dq| (8, 8, 7) between branches: the shorter way round where the joint may turn for ever."""
    gap = np.abs(after[None] - before[:, None])
    around = np.abs((gap + np.pi) % (2 * np.pi) - np.pi)
    return np.where(np.isfinite(arm.high - arm.low), gap, around)


def _all_turns(arm: Arm, q: Array) -> Array:
    """Returns q plus -1, 0, 1 turns (..., 7, 3), infinite where that leaves the limits."""
    turned = q[..., None] + 2 * np.pi * np.array([-1.0, 0.0, 1.0])
    inside = (turned >= arm.low[:, None] - 1e-12) & (turned <= arm.high[:, None] + 1e-12)
    return np.where(inside, turned, np.inf)


def _gap(arm: Arm, near: Array, turns: Array) -> Array:
    """Returns |dq| (1, 8, 7) from `near` to the nearest turn of each branch, a whole turn where none is inside."""
    gap = np.min(np.abs(turns[None] - near[:, None, :, None]), axis=-1)
    return np.where(np.isfinite(gap), gap, 2 * np.pi)


def _unwound(arm: Arm, q: Array, start: Array | None) -> Array:
    """Returns a path (N, 7) with each angle turned to be near the one before it, where the limits allow."""
    out = q.copy()
    last = start
    for k in range(len(out)):
        if last is not None:
            turned = out[k] + 2 * np.pi * np.round((last - out[k]) / (2 * np.pi))
            inside = (turned >= arm.low) & (turned <= arm.high)
            out[k] = np.where(inside, turned, out[k])
        out[k] = np.clip(out[k], arm.low, arm.high)
        last = out[k]
    return out
