"""Time in one episode: rate, gaps, clocks that step back, devices whose values were old, ticks that came late."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from robolearn.core import Flag
from robolearn.data._check_card import Card
from robolearn.data._check_roles import Clock
from robolearn.data._check_survey import Context

_SLACK = 1.01  # stamps are rounded: float32 seconds, milliseconds
_OTHER_EPOCH_S = 10.0  # a device that differs by more counts from another zero


def check_clocks(rows: Mapping[str, np.ndarray], context: Context, card: Card) -> None:
    """Adds what the clocks of an episode say: rate_hz, duration_s, worst_gap_s, and their faults."""
    monotonic, paced = context.roles.clock("monotonic"), context.paced
    card.numbers["duration_s"] = card.steps / context.rate
    steady = _steps(rows, monotonic) if monotonic else None
    for clock in context.roles.clocks:
        steps, extent = _steps(rows, clock), context.extents.get(clock.key)
        if not len(steps) or not np.isfinite(steps).all() or extent is None or extent.low[0] == extent.high[0]:
            continue
        if clock.kind == "wall" and steady is not None:
            _wall_against_steady(clock.key, steps, steady, context.limits.gap_periods / context.rate, card)
            continue
        wrong = steps < 0 if clock.kind == "device" else steps <= 0
        if wrong.any():
            row = int(np.argmax(wrong)) + 1
            card.add("backwards", f"{clock.key} does not rise at row {row}", clock.key, (row, row))
        if clock.kind != "device" and (paced or clock is not monotonic):
            _check_steps(clock.key, steps, context, card)
    if "rate_hz" not in card.numbers:
        why = "no clock recorded" if monotonic is None else "the simulator kept to no clock"
        card.notes.append(f"rate and gaps: not checked, {why}")


def _check_steps(key: str, steps: np.ndarray, context: Context, card: Card) -> None:
    """Flags jumps of a clock and another rate than the set's; the first clock gives the episode its numbers."""
    period, most = float(np.median(steps)), context.limits.rate_share
    if period <= 0:
        return
    long = steps > context.limits.gap_periods * period * _SLACK
    if long.any():
        places = np.flatnonzero(long) + 1
        times = f"first at row {places[0]}, {len(places)} in all"
        text = f"{key} jumps by {steps.max():.3g} s (period {period:.3g} s), {times}"
        card.add("gap", text, key, (places[0], places[-1]))
    if context.hz and abs(1 / period - context.hz) > most * context.hz:
        card.add("rate", f"{key} runs at {1 / period:.3g} Hz, the set says {context.hz:g} Hz", key)
    if "rate_hz" not in card.numbers:
        card.numbers |= {"rate_hz": 1 / period, "worst_gap_s": float(steps.max()), "duration_s": float(steps.sum() + period)}


def _steps(rows: Mapping[str, np.ndarray], clock: Clock) -> np.ndarray:
    """Returns the steps of a clock [s]; differences of integers are taken before anything is rounded."""
    stamps = rows.get(clock.key, np.zeros((0, 1)))[:, 0]
    if stamps.dtype.kind in "iu":
        return np.diff(stamps.astype(np.int64)) * clock.scale
    return np.diff(stamps.astype(np.float64)) * clock.scale


def _wall_against_steady(key: str, wall: np.ndarray, steady: np.ndarray, most: float, card: Card) -> None:
    """Flags a wall clock that was set while the monotonic one ran on: people and NTP do that, and it spoils only this key."""
    apart = wall - steady
    wrong = (wall < 0) | (np.abs(apart) > most)
    if wrong.any():
        row = int(np.argmax(wrong)) + 1
        text = f"{key} moves by {wall[row - 1]:+.3g} s at row {row} while t_monotonic moves by {steady[row - 1]:+.3g} s"
        card.add("clock_step", text, key, (row, row))


def check_flags(rows: Mapping[str, np.ndarray], context: Context, card: Card) -> None:
    """Adds what the recorder noted of each tick: lateness, stale inputs, interventions, holds, the limits' work."""
    bits = rows["flags"][:, 0].astype(np.int64) if "flags" in rows else np.zeros(card.steps, np.int64)
    if "flags" in rows:
        for name, flag in (("intervention_share", Flag.INTERVENTION), ("held_share", Flag.HELD), ("clamped_share", Flag.CLAMPED)):
            card.numbers[name] = float(((bits & flag) > 0).mean())
    _check_late(rows, bits, context, card)
    _check_stale(rows, bits, context, card)


def _check_late(rows: Mapping[str, np.ndarray], bits: np.ndarray, context: Context, card: Card) -> None:
    late = (bits & Flag.LATE) > 0
    tail = 0.0
    if "late_ms" in rows and context.paced:
        late_ms = np.nan_to_num(rows["late_ms"][:, 0].astype(np.float64))
        late |= late_ms > 500 / context.rate
        tail = float(np.percentile(late_ms, 99))
        card.numbers["late_p99_ms"] = tail
    if not context.paced or ("late_ms" not in rows and "flags" not in rows):
        return
    share = float(late.mean())
    card.numbers["late_share"] = share
    if share > context.limits.late_share or tail > context.limits.late_p99_ms:
        rows_of = np.flatnonzero(late) if late.any() else np.array([int(np.argmax(rows["late_ms"][:, 0]))])
        text = f"{share:.1%} of the ticks came later than half a period" + (f", 99th percentile {tail:.3g} ms" if tail else "")
        card.add("late", text, "late_ms" if "late_ms" in rows else "flags", (rows_of[0], rows_of[-1]))


def _check_stale(rows: Mapping[str, np.ndarray], bits: np.ndarray, context: Context, card: Card) -> None:
    """Flags devices whose value was older than the limit while engaged, by their clocks, or by the bit the body set."""
    told = (bits & (Flag.ENGAGED | Flag.DISENGAGED)) > 0
    engaged = (bits & Flag.ENGAGED) > 0 if told.any() else np.ones(card.steps, bool)
    steady = context.roles.clock("monotonic")
    devices = [clock for clock in context.roles.clocks if clock.kind == "device" and clock.key in rows]
    worst, flagged = 0.0, False
    for clock in devices if steady is not None and steady.key in rows and context.paced else ():
        stamps, now = rows[clock.key][:, 0].astype(np.float64), rows[steady.key][:, 0]  # type: ignore[union-attr]
        known = engaged & (stamps > 0)
        if not known.any():
            continue
        age = (now.astype(np.int64) - rows[clock.key][:, 0].astype(np.int64)) * 1e-6  # [ms]
        if abs(float(np.median(age[known]))) > 1000 * _OTHER_EPOCH_S:
            age = age - age[known].min()
        old = known & (age > context.limits.stale_ms)
        worst = max(worst, float(age[known].max()))
        if old.any():
            places, flagged = np.flatnonzero(old), True
            text = f"{clock.key.removeprefix('t_dev_')} was up to {age[old].max():.0f} ms old in {len(places)} engaged steps"
            card.add("stale", text, clock.key, (places[0], places[-1]))
    if devices and steady is not None:
        card.numbers["worst_age_ms"] = worst
    marked = np.flatnonzero(((bits & Flag.STALE) > 0) & engaged)
    if len(marked) and not flagged:
        card.add("stale", f"the body marked an input as stale in {len(marked)} engaged steps", "flags", (marked[0], marked[-1]))
