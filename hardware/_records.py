"""What a hosted driver and its parent leave for each other in shared memory, and how capabilities travel between them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hardware._base import ArmState, Caps, State, Stop
from hardware._life import Budget

STATES = tuple(State)


@dataclass(frozen=True)
class Hosting:
    """How a driver's process runs.

    period_s: of its loop; hold_after_s: how long without a new setpoint until it holds; ramp_s: longest ramp to rest; on_orphan:
    how to end when the parent ends; budget: how much of a bad wire is borne; dither_s: longest random wait before each cycle, so
    that samples and setpoints are not in step where a delay is measured; health_s: how often an axis is asked how warm it is,
    where the guard wants to know; stall_s: lateness of a cycle that counts as a stall.
    """

    period_s: float = 0.01
    hold_after_s: float = 0.3
    ramp_s: float = 1.0
    on_orphan: Stop = Stop.HOLD
    budget: Budget = Budget()
    dither_s: float = 0.0
    health_s: float = 0.5
    stall_s: float = 0.1


@dataclass(frozen=True)
class Sample:
    """What the loop of a hosted driver did last. sent: (n,) [rad], NaN where nothing was; changed: bits of `Hosted.filters`.

    late_s: how late the cycle came; holding: it ramps to rest or rests, whatever was asked; life: state of the driver.
    """

    state: ArmState
    sent: np.ndarray
    sent_aperture: float
    changed: int
    late_s: float
    holding: bool
    life: State
    cycle: int


def sample_dtype(n: int) -> np.dtype:
    """Returns the record of one cycle in shared memory, for n joints."""
    vectors = [(name, "<f8", (n,)) for name in ("q", "qd", "effort", "sent")]
    numbers = [(name, "<f8") for name in ("aperture", "sent_aperture", "late_s")]
    counts = [
        (name, "<i8")
        for name in ("t_sample_ns", "t_recv_ns", "t_unc_ns", "seq", "flags", "alarm", "changed", "holding", "life", "cycle")
    ]
    return np.dtype([*vectors, *numbers, *counts])


def setpoint_dtype(n: int) -> np.dtype:
    """Returns the record of one setpoint in shared memory; an aperture of NaN leaves the gripper."""
    return np.dtype([("q", "<f8", (n,)), ("aperture", "<f8"), ("t_ns", "<i8"), ("hold", "<i8")])


def sample_of(r: np.void) -> Sample:
    """Returns what one record of `sample_dtype` holds."""
    stamps = {name: int(r[name]) for name in ("t_sample_ns", "t_recv_ns", "t_unc_ns", "seq", "flags", "alarm")}
    state = ArmState(r["q"].copy(), r["qd"].copy(), r["effort"].copy(), aperture=float(r["aperture"]), **stamps)
    return Sample(
        state,
        r["sent"].copy(),
        float(r["sent_aperture"]),
        int(r["changed"]),
        float(r["late_s"]),
        bool(r["holding"]),
        STATES[int(r["life"])],
        int(r["cycle"]),
    )


def caps_json(caps: Caps) -> dict[str, Any]:
    """Returns capabilities as plain JSON values; `caps_from` reads them back."""
    values = asdict(caps)
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in values.items()}


def caps_from(values: dict[str, Any]) -> Caps:
    """Returns the capabilities written by `caps_json`."""
    arrays = {key: np.array(values[key], dtype=float) for key in ("lower", "upper", "velocity")}
    tuples = {key: tuple(values[key]) for key in ("joints", "rate_hz", "modes", "latency_s", "blocking")}
    watchdog = None if values["watchdog_s"] is None else tuple(values["watchdog_s"])
    return Caps(**{**values, **arrays, **tuples, "stops": tuple(Stop(stop) for stop in values["stops"]), "watchdog_s": watchdog})
