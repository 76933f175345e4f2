"""Speed, acceleration and jerk of a stream of setpoints, judged and cut against what was sent last; and the time it may use.

Each joint for itself, numpy only. A stream that keeps its limits passes bit for bit; another one is led to its target so that it
can stop there, and it can always stop inside the soft range at the largest acceleration.
"""

from __future__ import annotations

import math

import numpy as np

from robolearn.runtime.limits import Bounds

Array = np.ndarray
_SAVED = 2.0  # periods of time that can be kept for later
_TOLERANCE = 1e-6  # relative: what rounding makes of a stream that keeps its limits exactly


class Credit:
    """The time a setpoint may use: one period at most, and over any while no more than has passed and two periods.

    These let a loop come early and late by half a period; no more lets a loop that was held up not make up for it in a burst.
    """

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self.reset(0.0)

    def reset(self, now_s: float) -> None:
        """Starts at `now_s` with all the credit there can be."""
        self._last_s, self._credit_s, self.elapsed_s = now_s, _SAVED * self.period_s, 0.0

    def take(self, now_s: float, least: float = 0.1) -> float:
        """Returns the time [s] that a setpoint sent now may use; 0, and nothing is taken, where it is not `least` of a period."""
        if not math.isfinite(now_s):
            return 0.0
        self.elapsed_s, self._last_s = max(0.0, now_s - self._last_s), now_s
        self._credit_s = min(self._credit_s + self.elapsed_s, _SAVED * self.period_s)
        dt_s = min(self._credit_s, self.period_s)
        if dt_s < least * self.period_s:
            return 0.0
        self._credit_s -= dt_s
        return dt_s


def stoppable_speed(room: Array, acceleration: Array, dt_s: float) -> Array:
    """Returns the fastest next speed (n,) after which braking, in steps of dt_s, still ends within `room` (n,) [rad] of here.

    The step itself takes w dt, braking after it w^2 / 2a - w dt / 2 at most.
    """
    room = np.maximum(room, 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        speed = acceleration * (np.sqrt(dt_s**2 / 4 + 2 * room / acceleration) - dt_s / 2)
    return np.minimum(np.where(np.isfinite(acceleration), speed, np.inf), room / dt_s)


def limited(q: Array, last: Array, qd: Array, qdd: Array, bounds: Bounds, dt_s: float) -> tuple[Array, tuple[str, ...]]:
    """Returns what of q (n,) can be sent dt_s after `last` (n,), which moved at qd and qdd (n,), and the limits that cut it."""
    if dt_s == 0.0:
        return last.copy(), ("velocity",) if np.any(q != last) else ()
    v, a, j = bounds.velocity, bounds.acceleration, bounds.jerk
    with np.errstate(over="ignore", invalid="ignore"):
        want = (q - last) / dt_s
        pull = (want - qd) / dt_s
        jolt = (pull - qdd) / dt_s
    down, up = _room(last, bounds, dt_s)
    fast = np.abs(want) > v * (1 + _TOLERANCE)
    hard = np.abs(pull) > a * (1 + 100 * _TOLERANCE)
    hard |= (want > up * (1 + _TOLERANCE) + 1e-9) | (want < -down * (1 + _TOLERANCE) - 1e-9)
    rough = np.abs(jolt) > j * (1 + 1000 * _TOLERANCE)
    which = tuple(name for name, bad in (("velocity", fast), ("acceleration", hard), ("jerk", rough)) if bad.any())
    if not which:
        return q, ()
    gap = q - last
    speed = np.sign(gap) * stoppable_speed(np.abs(gap), a, dt_s)
    led = np.clip(_towards(speed, qd, qdd, bounds, dt_s), -down, up)
    return np.where(fast | hard | rough, last + led * dt_s, q), which


def brake(last: Array, qd: Array, bounds: Bounds, dt_s: float) -> Array:
    """Returns the next setpoint (n,) of a stream that stops as fast as the acceleration allows, inside the soft range."""
    if dt_s == 0.0:
        return last.copy()
    down, up = _room(last, bounds, dt_s)
    still = np.zeros_like(qd)
    return last + np.clip(_towards(still, qd, still, bounds, dt_s), -down, up) * dt_s


def _room(last: Array, bounds: Bounds, dt_s: float) -> tuple[Array, Array]:
    """Returns the fastest next speeds (n,) down and up after which one can stop in the soft range; 0 outwards from outside it."""
    down, up = last - bounds.soft_lower, bounds.soft_upper - last
    return stoppable_speed(down, bounds.acceleration, dt_s), stoppable_speed(up, bounds.acceleration, dt_s)


def _towards(speed: Array, qd: Array, qdd: Array, bounds: Bounds, dt_s: float) -> Array:
    """Returns the speed (n,) nearest to the wanted one that the acceleration allows, and the jerk where the joint speeds up.

    A joint that brakes may use its acceleration at once: kept to the jerk, it would run past the target and come back.
    """
    v, a, j = bounds.velocity, bounds.acceleration, bounds.jerk
    low, high = np.maximum(-v, qd - a * dt_s), np.minimum(v, qd + a * dt_s)
    faster_up = qd + (np.maximum(qdd, 0) + j * dt_s) * dt_s
    faster_down = qd + (np.minimum(qdd, 0) - j * dt_s) * dt_s
    low, high = np.where(qd <= 0, np.maximum(low, faster_down), low), np.where(qd >= 0, np.minimum(high, faster_up), high)
    return np.clip(speed, low, high)
