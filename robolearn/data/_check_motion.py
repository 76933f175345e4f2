"""How the body moved in one episode: smoothness, joint limits, idle ends, gripper, and how it followed the action."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from robolearn.data._check_card import Card
from robolearn.data._check_signal import lag_of, rms_jerk, runs, sparc, unwrapped
from robolearn.data._check_survey import Context

_LAG_S = 1.0  # largest lag looked for
_LAG_CORRELATION = 0.6  # below, the lag means nothing
_STILL_SHARE = 0.05  # of its range in the set: a column that moved less in an episode has no smoothness
_STEADY = 0.5  # a constant offset is one whose spread over time is below this share of it


def body_of(rows: Mapping[str, np.ndarray], context: Context) -> np.ndarray:
    """Returns all numbers of the body, (steps, n), in shares of their range in the set; those that never change are left out."""
    parts = []
    for group in context.roles.body:
        if group.key in rows and group.key in context.extents:
            width = context.extents[group.key].width[list(group.columns)]
            values = unwrapped(_columns(rows[group.key], group.columns), np.array(group.angular))
            parts.append(values[:, width > 0] / width[width > 0])
    return np.concatenate(parts, axis=1) if parts else np.zeros((len(next(iter(rows.values()))), 0))


def _columns(rows: np.ndarray, columns: tuple[int, ...]) -> np.ndarray:
    """Returns some columns of rows, finite: a value that is none is the one before."""
    values = rows[:, list(columns)].astype(np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        last = np.maximum.accumulate(np.where(bad, 0, np.arange(len(values))[:, None]), axis=0)
        values = np.nan_to_num(np.take_along_axis(values, last, axis=0), posinf=0.0, neginf=0.0)
    return values


def check_smoothness(rows: Mapping[str, np.ndarray], context: Context, card: Card) -> None:
    """Adds sparc, jerk and largest speed of every joint and position, and their worst as numbers of the episode."""
    for group in context.roles.body:
        if group.key not in rows or group.key not in context.extents or card.steps < 4:
            continue
        values = unwrapped(_columns(rows[group.key], group.columns), np.array(group.angular))
        moved = np.ptp(values, axis=0) > _STILL_SHARE * context.extents[group.key].width[list(group.columns)]
        speed, jerk = np.abs(np.diff(values, axis=0)) * context.rate, rms_jerk(values, context.rate)
        if group.kind == "position":
            speed, jerk, moved = (
                np.linalg.norm(speed, axis=1)[:, None],
                np.array([np.linalg.norm(jerk)]),
                moved.any(keepdims=True),
            )
        arc, fastest = sparc(speed, context.rate), speed.max(0)
        for k, name in enumerate(group.series):
            if moved[k]:
                card.series[name] = {"sparc": float(arc[k]), "jerk": float(jerk[k]), "max_speed": float(fastest[k])}
    found = [s["sparc"] for s in card.series.values() if np.isfinite(s["sparc"])]
    if found:
        card.numbers["worst_sparc"] = min(found)
    if not context.roles.body:
        card.notes.append("smoothness: not checked, no joint or position recorded")


def check_joint_limits(rows: Mapping[str, np.ndarray], context: Context, card: Card) -> None:
    """Adds joint_margin [rad], the least distance to a limit, and flags joints that came too near to one."""
    least = np.inf
    for group in context.roles.body:
        allowed = context.joint_ranges.get(group.key) if group.kind == "joint" else None
        if allowed is None or group.key not in rows:
            continue
        values = _columns(rows[group.key], group.columns)
        margin = np.minimum(values - allowed.low, allowed.high - values)
        least = min(least, float(margin.min()))
        for k in np.flatnonzero(margin.min(0) < context.limits.joint_margin_rad):
            near = np.flatnonzero(margin[:, k] < context.limits.joint_margin_rad)
            text = f"{group.series[k]} is {margin[:, k].min():.3g} rad from its limit, in {len(near)} steps"
            card.add("joint_limit", text, group.key, (near[0], near[-1]))
    if np.isfinite(least):
        card.numbers["joint_margin_rad"] = least


def check_saturation(rows: Mapping[str, np.ndarray], context: Context, card: Card) -> None:
    """Adds saturated_share and flags actions that stay at a limit: the declared one, or else the set's own extreme.

    A target that is held while nothing else of the action moves either is a pause, no limit.
    """
    bounds = context.action_limits
    if "action" not in rows or not len(bounds.low):
        return
    action, share_most = rows["action"].astype(np.float64), context.limits.saturated_share
    at_bound = {"minimum": (action <= bounds.low, bounds.low), "maximum": (action >= bounds.high, bounds.high)}
    worst = 0.0
    for side, (at, limit) in at_bound.items():
        for column in np.flatnonzero(at.mean(0) > share_most):
            held = _held_long(at[:, column], 1 if bounds.declared else context.limits.saturated_run)
            if any(pair.action == column for pair in context.pairs):
                held &= _others_move(action, int(column))
            share = float(held.mean())
            worst = max(worst, share)
            if share > share_most:
                places = np.flatnonzero(held)
                text = f"action[{column}] at its {side} {limit[column]:.4g} in {share:.0%} of the steps"
                card.add("saturated", text, "action", (places[0], places[-1]))
    clamped = card.numbers.get("clamped_share", 0.0)
    if clamped > share_most:
        card.add("saturated", f"the limits changed the action in {clamped:.0%} of the steps", "flags")
    card.numbers["saturated_share"] = max(worst, clamped)


def _held_long(at: np.ndarray, least: int) -> np.ndarray:
    held = np.zeros(len(at), bool)
    for start, stop in runs(at):
        held[start:stop] = stop - start >= least
    return held


def _others_move(action: np.ndarray, column: int) -> np.ndarray:
    """Returns for every row whether another number of the action changed since the row before, or changes until the next."""
    changed = (np.diff(np.delete(action, column, axis=1), axis=0) != 0).any(1)
    return np.concatenate([changed[:1], changed]) | np.concatenate([changed, changed[-1:]])


def check_idle(rows: Mapping[str, np.ndarray], body: np.ndarray, context: Context, card: Card) -> None:
    """Adds idle_head and idle_tail, rows without motion at the ends, and flags them with the rows to trim."""
    parts = [np.abs(np.diff(body, axis=0))]
    for key, column in context.roles.grippers:
        if key in rows and context.extents[key].width[column] > 0:
            parts.append(np.abs(np.diff(_columns(rows[key], (column,)), axis=0)) / context.extents[key].width[column])
    if "action" in rows and "action" in context.extents:
        width = np.where(context.extents["action"].width > 0, context.extents["action"].width, np.inf)
        action = _columns(rows["action"], tuple(range(len(width))))
        parts.append(np.abs(np.diff(action, axis=0)) / width)
    motion = np.concatenate(parts, axis=1) if parts else np.zeros((card.steps - 1, 0))
    if not motion.shape[1]:
        return
    moving = motion.max(1) > context.limits.idle_share
    first = int(np.argmax(moving)) if moving.any() else card.steps
    last = len(moving) - int(np.argmax(moving[::-1])) if moving.any() else 0  # the last row that differs from the one before
    head, tail = first, card.steps - 1 - last if moving.any() else 0
    card.numbers |= {"idle_head": float(head), "idle_tail": float(tail)}
    long = context.limits.idle_s * context.rate
    if head > long:
        card.add("idle", f"nothing moves in rows 0 to {head - 1}: trim them", "action", (0, head - 1))
    if tail > long:
        card.add(
            "idle",
            f"nothing moves after row {last}: trim rows {last + 1} to {card.steps - 1}",
            "action",
            (last + 1, card.steps - 1),
        )


def check_gripper(rows: Mapping[str, np.ndarray], context: Context, card: Card) -> None:
    """Flags an episode in which no gripper moved although it does in others."""
    moved, known = [], False
    for key, column in context.roles.grippers:
        if key not in rows or key not in context.extents:
            continue
        extent = context.extents[key]
        span = extent.high[column] - extent.low[column]
        if span > 0:
            known = True
            moved.append(float(np.ptp(_columns(rows[key], (column,)))) / span)
    if known and max(moved) < context.limits.gripper_share:
        card.add("gripper", "the gripper never moved", context.roles.grippers[0][0])


def check_following(rows: Mapping[str, np.ndarray], context: Context, card: Card) -> None:
    """Adds lag_ms, how long the body takes to follow the action, and the constant rest between both, by number."""
    pairs = [pair for pair in context.pairs if pair.key in rows]
    if not pairs or "action" not in rows or card.steps < 10:
        return
    widths = np.array([pair.width for pair in pairs])
    asked = np.stack([_columns(rows["action"], (pair.action,))[:, 0] for pair in pairs], axis=1) / widths
    angular = np.array([_angular(context, pair.key, pair.column) for pair in pairs])
    got = np.stack([_columns(rows[pair.key], (pair.column,))[:, 0] for pair in pairs], axis=1)
    got = unwrapped(got, angular) / widths
    lag, correlation = lag_of(asked, got, round(_LAG_S * context.rate))
    if correlation < _LAG_CORRELATION or not np.isfinite(lag):
        return
    card.numbers["lag_ms"] = 1000 * lag / context.rate
    shift = max(0, round(lag))
    rest = asked[: len(asked) - shift] - got[shift:]
    middle = np.median(rest, axis=0)
    spread = np.percentile(rest, 75, axis=0) - np.percentile(rest, 25, axis=0)
    for pair, offset, scatter in zip(pairs, middle, spread, strict=True):
        steady = scatter < _STEADY * abs(offset)
        card.numbers[f"offset:{pair.name}"] = float(offset * pair.width)
        if abs(offset) > context.limits.offset_share and steady:
            text = f"action[{pair.action}] is {offset * pair.width:+.3g} off {pair.name} of {pair.key} all along (calibration?)"
            card.add("offset", text, pair.key)


def _angular(context: Context, key: str, column: int) -> bool:
    return any(
        group.key == key and column in group.columns and group.angular[group.columns.index(column)]
        for group in context.roles.body
    )
