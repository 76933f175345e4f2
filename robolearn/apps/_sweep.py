"""A joint is moved a little, up and down, faster and faster: what was asked, sent and measured, and the delay between them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hardware._base import Sampled, Setpoint, State
from hardware._errors import DeviceFault
from hardware._records import Sample
from hardware.real_env import Arm
from robolearn.clock import Deadline
from robolearn.errors import BadInput
from robolearn.runtime.latency import Delay, chirp, estimate_delay
from robolearn.runtime.limits import Limits

Array = np.ndarray
SEGMENTS = 8  # of a recording, for the interval
_KEPT = 60  # cycles of the arm looked back on at each tick
_ROOM = 0.3  # of speed, acceleration and jerk that the motion may use: nearer to them the guard lags behind what was asked


@dataclass(frozen=True)
class Motion:
    """A chirp. amplitude: [rad]; slow_hz, fast_hz: its first and last frequency; seconds: how long; hz: setpoints a second."""

    amplitude: float
    slow_hz: float = 0.2
    fast_hz: float = 0.5
    seconds: float = 12.0
    hz: float = 50.0


@dataclass(frozen=True)
class Clock:
    """Time as an argument: monotonic [ns], and how to wait [s]."""

    now_ns: Callable[[], int] = time.monotonic_ns
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Recording:
    """One joint in motion; times [s] since it began. due, asked: setpoints [rad], and when each should be reached.

    sent_at, sent: what went out on the wire [rad], and when; at, q: measurements [rad]; observed: seconds from each measurement
    until we had it; unsure: half the interval [s] in which each measurement lies; changed: share of cycles the guard changed.
    """

    due: Array
    asked: Array
    sent_at: Array
    sent: Array
    at: Array
    q: Array
    observed: Array
    unsure: Array
    changed: float


@dataclass(frozen=True)
class Found:
    """The delays of an arm.

    act: from the wire until the motion; dead: of it, before anything moves; asked: from when a setpoint is due until the motion,
    the guard's lag in it, None where the guard did not let through what was asked;
    observe_s: median from a measurement until we have it; observe_unsure_s: half the interval in which the measurement lies.
    """

    act: Delay
    dead: Delay
    asked: Delay | None
    observe_s: float
    observe_unsure_s: float
    samples: int


def check(motion: Motion, limits: Limits, joint: int, q: float) -> None:
    """Raises BadInput where a chirp about q [rad] leaves the joint's range, or is faster than the guard lets through."""
    bounds, name, omega = limits.bounds, limits.names[joint], 2 * math.pi * motion.fast_hz
    low, high = float(bounds.soft_lower[joint]), float(bounds.soft_upper[joint])
    if not low + motion.amplitude <= q <= high - motion.amplitude:
        span = f"{math.degrees(low):.0f} to {math.degrees(high):.0f} deg"
        said = f"{name} stands at {math.degrees(q):.1f} deg, and {math.degrees(motion.amplitude):g} deg either way leave {span}"
        raise BadInput(f"calibrate latency: {said}; move it towards the middle, or give smaller --degrees")
    most = min(float(bound[joint]) / omega**k for k, bound in enumerate((bounds.velocity, bounds.acceleration, bounds.jerk), 1))
    if motion.amplitude > _ROOM * most:
        fits = math.degrees(_ROOM * most)
        said = f"{math.degrees(motion.amplitude):g} deg at {motion.fast_hz:g} Hz are faster than the limits of {name} allow"
        raise BadInput(f"calibrate latency: {said}; want --degrees {fits:.1f} at most, or a smaller --fast-hz")


def sweep(arm: Arm, limits: Limits, joint: int, motion: Motion, clock: Clock = Clock()) -> Recording:
    """Moves one joint of an active arm about where it stands, and returns what happened. DeviceFault where the arm gives up.

    A joint outside the soft range goes to its edge first: the guard would else cut every setpoint.
    """
    offset, period_ns = chirp(motion.seconds, motion.slow_hz, motion.fast_hz, motion.amplitude), round(1e9 / motion.hz)
    deadline = Deadline(1 / motion.hz, clock.now_ns, clock.sleep)
    first = _well(arm)
    q0 = np.clip(first.state.q, limits.bounds.soft_lower, limits.bounds.soft_upper)
    seen, began_ns = first.cycle, clock.now_ns()
    due: list[tuple[float, float]] = []
    cycles: list[Sample] = []
    deadline.wait()
    while (now_ns := clock.now_ns()) - began_ns < (motion.seconds + 0.5) * 1e9:
        t_ns = now_ns + period_ns
        q = q0.copy()
        q[joint] += float(offset((t_ns - began_ns) / 1e9))
        arm.command(Setpoint(q, None, t_ns))
        due.append(((t_ns - began_ns) / 1e9, float(q[joint])))
        deadline.wait()
        newest = _well(arm).cycle
        cycles += [sample for sample in arm.history(min(_KEPT, newest - seen + 1)) if sample.cycle > seen]
        seen = max(seen, cycles[-1].cycle if cycles else seen)
    return _recording(np.array(due), cycles, joint, began_ns)


def estimate(recording: Recording, max_delay_s: float = 0.3) -> Found:
    """Returns the delays in a recording; BadInput where there is no answer in it."""
    measured = recording.at, recording.q, max_delay_s
    try:
        asked = estimate_delay(recording.due, recording.asked, *measured, between="linear", segments=SEGMENTS)
    except BadInput:
        asked = None
    return Found(
        estimate_delay(recording.sent_at, recording.sent, *measured, segments=SEGMENTS),
        estimate_delay(recording.sent_at, recording.sent, *measured, plant="first_order", segments=SEGMENTS),
        asked,
        max(0.0, float(np.median(recording.observed))),
        float(np.median(recording.unsure)),
        len(recording.at),
    )


def _well(arm: Arm) -> Sample:
    """Returns the newest cycle of an arm without fault."""
    sample = arm.read()
    if sample.life is State.FAULT:
        raise arm.fault() or DeviceFault(arm.name, "it does not say why it stopped", sample.state.alarm)
    return sample


def _recording(due: Array, cycles: list[Sample], joint: int, began_ns: int) -> Recording:
    """Returns the series of one joint.

    A measurement that the wire did not answer is left out; the setpoint of that cycle went out all the same, at about the time
    that its number says.
    """
    cycles = [one for one in cycles if np.isfinite(one.sent).all()]
    fresh = np.array([not one.state.flags & Sampled.STALE for one in cycles], dtype=bool)
    if fresh.sum() < 2:
        raise BadInput("calibrate latency: no two cycles of the arm have both a setpoint and a measurement")
    sample_ns, recv_ns, unsure_ns, number = (
        np.array(values, dtype=np.int64)
        for values in zip(
            *((one.state.t_sample_ns, one.state.t_recv_ns, one.state.t_unc_ns, one.cycle) for one in cycles), strict=True
        )
    )
    asked_ns = (recv_ns - 2 * unsure_ns)[fresh]  # a driver sends, then asks: when its question left, the setpoint had just gone
    sent_s = np.interp(number, number[fresh], (asked_ns - began_ns) / 1e9)
    going = np.concatenate([[True], sent_s[1:] > np.maximum.accumulate(sent_s)[:-1]])
    new = fresh & np.concatenate([[True], sample_ns[1:] > np.maximum.accumulate(sample_ns)[:-1]])
    return Recording(
        due[:, 0],
        due[:, 1],
        sent_s[going],
        np.array([one.sent[joint] for one in cycles])[going],
        (sample_ns[new] - began_ns) / 1e9,
        np.array([one.state.q[joint] for one in cycles])[new],
        (recv_ns - sample_ns)[new] / 1e9,
        unsure_ns[new] / 1e9,
        float(np.mean([one.changed != 0 for one in cycles])),
    )
