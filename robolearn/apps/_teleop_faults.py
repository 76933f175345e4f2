"""The faults of a teleoperation link, one after the other on one arm's stream: what the arm did, and what it said.

A control loop at 60 Hz takes the newest sample that has arrived, drops what comes out of order, holds the last command when
the input is older than 100 ms and lets go at 500 ms (`limits.Freshness`); what is fresh goes through the streaming solver.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from robolearn.apps import _teleop_streams as streams
from robolearn.apps._teleop_streams import Target
from robolearn.teleop.arm import Arm
from robolearn.teleop.limits import Age, Freshness
from robolearn.teleop.sew import Status, Stream, solve

Array = np.ndarray
SECONDS = 4.0
FROM, UNTIL = 60, 78  # frames of the fault: 300 ms
BURST = 102  # a stall until here: 700 ms
LOSS, JITTER_S = 0.05, 0.080
MIRROR = np.diag([1.0, -1.0, 1.0])


class Packet(NamedTuple):
    """One sample: when it was made and when it arrives [s]."""

    made: float
    arrives: float
    target: Target


class Ran(NamedTuple):
    """What a stream did: q (n, 7), the status of each frame, and the reasons given."""

    q: Array
    statuses: list[str]
    why: list[str]


Fault = Callable[[list[Packet], np.random.Generator], list[Packet]]


def faults(arm: Arm, seed: int, max_speed: float = 3.0) -> dict[str, dict[str, Any]]:
    """Returns for each fault the largest step [rad], the cap, how often each status came, the reasons, and whether it holds."""
    out = {}
    for name, fault in FAULTS.items():
        rng = np.random.default_rng(seed)
        clean = [Packet(k / streams.HZ, k / streams.HZ, t) for k, t in enumerate(streams.bent(arm, rng, SECONDS))]
        start = solve(arm, *clean[0].target[:3]).q
        ran = run(arm, fault(clean, rng), start, len(clean), max_speed)
        out[name] = verdict(arm, name, ran, start, max_speed)
    return out


def run(arm: Arm, packets: Sequence[Packet], start: Array, frames: int, max_speed: float) -> Ran:
    """Returns what the arm did in `frames` ticks from joint angles `start` (7,)."""
    stream, fresh = Stream(arm, streams.HZ, max_speed), Freshness()
    stream.reset(start)
    waiting = sorted(packets, key=lambda p: p.arrives)
    newest: Packet | None = None
    qs, statuses, why = [], [], []
    for k in range(frames):
        now = k / streams.HZ
        while waiting and waiting[0].arrives <= now:
            packet = waiting.pop(0)
            newest = packet if newest is None or packet.made > newest.made else newest
        age = fresh.of(np.inf if newest is None else now - newest.made)
        if newest is None or age is not Age.FRESH:
            statuses.append("disengaged" if age is Age.DISENGAGED else "stale")
            why.append(f"no input for more than {1e3 * (fresh.hold_s if age is Age.HELD else fresh.disengage_s):.0f} ms")
        else:
            found = stream.step(newest.target.upper, newest.target.lower, newest.target.hand)
            statuses.append(str(found.status))
            why.append(found.why)
        qs.append(stream.q.copy())
    return Ran(np.array(qs), statuses, why)


def verdict(arm: Arm, name: str, ran: Ran, start: Array, max_speed: float) -> dict[str, Any]:
    """Returns the figures of one fault and whether the arm took the last command or a limited one, and said why."""
    steps = np.abs(np.diff(np.vstack([start, ran.q]), axis=0)).max(axis=1)
    cap = max_speed / streams.HZ
    still = [k for k, s in enumerate(ran.statuses) if s in (Status.HELD, "stale", "disengaged")]
    sound = bool(np.isfinite(ran.q).all() and (ran.q >= arm.low).all() and (ran.q <= arm.high).all() and steps.max() <= cap)
    held = all(steps[k] == 0.0 and ran.why[k] for k in still)
    # On every frame of the fault: noise alone reaches the cap now and then, so one frame would prove nothing.
    said = all(ran.statuses[k] == word for word, frames in EXPECTED[name] for k in frames)
    return {
        "holds": sound and held and said,
        "largest_step_rad": float(steps.max()),
        "cap_rad": cap,
        "statuses": dict(Counter(ran.statuses)),
        "why": sorted({w for w in ran.why if w}),
    }


def _spoilt(change: Callable[[Target], Target]) -> Fault:
    def fault(packets: list[Packet], rng: np.random.Generator) -> list[Packet]:
        del rng
        return [p._replace(target=change(p.target)) if FROM <= k < UNTIL else p for k, p in enumerate(packets)]

    return fault


def _gap(packets: list[Packet], rng: np.random.Generator) -> list[Packet]:
    del rng
    return packets[:FROM] + packets[UNTIL:]


def _lossy(packets: list[Packet], rng: np.random.Generator) -> list[Packet]:
    kept = [p for p in packets if rng.uniform() >= LOSS]
    return [p._replace(arrives=p.made + rng.uniform(0.0, JITTER_S)) for p in kept]


def _burst(packets: list[Packet], rng: np.random.Generator) -> list[Packet]:
    del rng
    return [p._replace(arrives=packets[BURST].made) if FROM <= k < BURST else p for k, p in enumerate(packets)]


def _swapped(t: Target) -> Target:
    """The other arm's target: mirrored left to right."""
    return Target(MIRROR @ t.upper, MIRROR @ t.lower, MIRROR @ t.hand @ MIRROR, MIRROR @ t.position)


FAULTS: dict[str, Fault] = {
    "nan": _spoilt(lambda t: t._replace(upper=np.full(3, np.nan))),
    "swapped_arms": _spoilt(_swapped),
    "gap_300_ms": _gap,
    "hand_det_-1": _spoilt(lambda t: t._replace(hand=t.hand @ np.diag([1.0, 1.0, -1.0]))),
    "loss_5_jitter_80_ms": _lossy,
    "stall_then_burst": _burst,
}
HOLD, LET_GO = 7, 30  # frames after the last sample: the first older than 100 ms; the last surely not older than 500 ms
EXPECTED: dict[str, tuple[tuple[str, range], ...]] = {
    "nan": (("held", range(FROM, UNTIL)),),
    "swapped_arms": (("limited", range(FROM, UNTIL)),),
    "gap_300_ms": (("stale", range(FROM - 1 + HOLD, UNTIL)),),
    "hand_det_-1": (("held", range(FROM, UNTIL)),),
    "loss_5_jitter_80_ms": (),
    "stall_then_burst": (
        ("stale", range(FROM - 1 + HOLD, FROM - 1 + LET_GO)),
        ("disengaged", range(FROM + LET_GO, BURST)),
    ),
}
