"""Measure the drivers and the runtime against their anchors, through the vendors' own libraries where these are installed."""

from __future__ import annotations

import importlib.util
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from robolearn.apps import _anchors_run as runtime
from robolearn.apps import _anchors_wire as wire
from robolearn.apps import _bench
from robolearn.apps._report import write_json
from robolearn.errors import BadInput, Findings, RobolearnError


@dataclass(frozen=True)
class Config:
    """How much to measure."""

    quick: bool = False
    """A tenth of the work: does everything run?"""
    only: tuple[str, ...] = ()
    """Some anchors only, such as H1 H7."""
    json: Path | None = None
    """Write the figures to this file."""


class Missed(Findings):
    """An anchor whose figure counts for nothing, because something beside it did not hold. figures: what was measured."""

    def __init__(self, message: str, **figures: float) -> None:
        super().__init__(message)
        self.figures = figures


@dataclass(frozen=True)
class Anchor:
    """One figure to be held to. op: how `value` stands to `limit`; measure: returns runs; rate: it depends on the machine."""

    what: str
    op: str
    limit: float
    measure: Callable[[float], list[float]]
    sdk: str = ""
    rate: bool = False


def repeated(call: Callable[[float], float]) -> Callable[[float], list[float]]:
    """Returns a measure of five runs, of two seconds together at full work."""
    return lambda work: [call(2.0 * work) for _ in range(5)]


def once(call: Callable[[], float]) -> Callable[[float], list[float]]:
    """Returns a measure of one run, whatever the work."""
    return lambda work: [call()]


def served(work: float) -> list[float]:
    """Returns the 99th percentile [ms] of round trips of a picture-sized observation (H23)."""
    from robolearn.runtime.serve.round_trip import round_trip

    return [round_trip(calls=max(38, round(380 * work))).p99_ms for _ in range(5)]


def fuzzed(work: float) -> list[float]:
    """Returns how many of 100,000 mutated messages raised anything but ProtocolError (H21)."""
    from robolearn.runtime.serve.fuzz import fuzz

    return [float(len(fuzz(max(1000, round(100_000 * work)), 0).escaped))]


def framed(work: float) -> list[float]:
    """Returns the 99th percentile of the age [ms] of frames in a ring, 640x480 at 60 Hz (H17)."""
    from hardware._camera_host import ring_figures

    found = ring_figures(max(60, round(1800 * work)), 60.0)
    if found.torn:
        raise Missed(f"{found.torn} of {found.frames} frames were torn", torn=found.torn, age_p99_ms=1000 * found.age_p99_s)
    return [1000 * found.age_p99_s]


def ur_rate(seconds: float) -> float:
    """Returns the slower of distinct samples and servoJ calls [1/s] (H3)."""
    found = wire.ur_figures(seconds)
    if found["connect_s"] >= 1.0 or found["move_error_rad"] > 0.002:
        off_mrad = 1000 * found["move_error_rad"]
        raise Missed(f"connecting took {found['connect_s']:.2f} s, moveJ missed by {off_mrad:.2f} mrad", **found)
    return min(found["samples_per_s"], found["servo_per_s"])


def gripped(seconds: float) -> float:
    """Returns polls a second of a gripper that feels its object at the set width (H6)."""
    rate, off_m = wire.robotiq_figures(seconds)
    if off_m > 0.002:
        raise Missed(f"the fingers stopped {1000 * off_m:.1f} mm from the object", polls_per_s=rate, off_m=off_m)
    return rate


def dead_ms() -> float:
    """Returns when a sample tells of a dead servo [ms]; it is a fault within 200 (H8)."""
    flagged, fault = (1000 * seconds for seconds in wire.dead_servo_s())
    if math.isinf(flagged):
        raise Missed(f"no sample told of it before it was a fault, after {fault:.0f} ms", fault_ms=fault)
    if fault > 200:
        raise Missed(f"flagged after {flagged:.0f} ms, but a fault only after {fault:.0f}", flagged_ms=flagged, fault_ms=fault)
    return flagged


def aligned() -> float:
    """Returns the fastest step of an align phase in shares of the top speed; farther than max_align is refused (H14)."""
    fastest, refused = runtime.align_figures()
    if not refused:
        raise Missed("a target beyond max_align was not refused", fastest=fastest)
    return fastest


def misread(reads: int) -> float:
    """Returns how many wrong values a bad wire gave, on which every miss is counted (H7)."""
    wrong, uncounted = wire.wrong_values(reads)
    if uncounted:
        raise Missed(f"{uncounted} reads or more missed, and nobody counted them", wrong=wrong, uncounted=uncounted)
    return float(wrong)


ANCHORS = {
    "H1": Anchor(
        "Dynamixel: sync write and sync read of six servos [1/s]",
        ">=",
        1000,
        repeated(lambda s: wire.bus_cycles_per_s(0, s)),
        "dynamixel_sdk",
        True,
    ),
    "H2": Anchor(
        "the same where every byte takes its time at 1 Mbps [1/s]; 55 % of the bound of a read of 10 bytes",
        ">=",
        377,
        repeated(lambda s: wire.bus_cycles_per_s(1_000_000, s)),
        "dynamixel_sdk",
        True,
    ),
    "H3": Anchor(
        "ur_rtde: the slower of distinct samples and servoJ calls [1/s]; connecting takes less than 1 s, moveJ is within 2 mrad",
        ">=",
        450,
        lambda work: [ur_rate(2.0 * work) for _ in range(5)],
        "rtde_control",
        True,
    ),
    "H5": Anchor("xArm: servo_j calls of the SDK [1/s]", ">=", 1000, repeated(wire.xarm_calls_per_s), "xarm", True),
    "H6": Anchor(
        "Robotiq on an RTU line [polls/s]; the object is felt at its width",
        ">=",
        100,
        lambda work: [gripped(2.0 * work) for _ in range(5)],
        "pymodbus",
        True,
    ),
    "H7": Anchor(
        "wrong values in 3,000 reads with 2 % lost and 2 % damaged; what is spoilt is counted",
        "<=",
        0,
        lambda work: [misread(max(100, round(3000 * work)))],
        "dynamixel_sdk",
    ),
    "H8": Anchor(
        "dead servo: a sample says so after [ms]; it is a fault within 200",
        "<=",
        15,
        lambda work: [dead_ms() for _ in range(5)],
        "dynamixel_sdk",
        True,
    ),
    "H9": Anchor(
        "pulled cable: a fault after [ms], and connecting works again",
        "<=",
        100,
        once(lambda: 1000 * wire.unplugged_s()),
        "dynamixel_sdk",
    ),
    "H10": Anchor(
        "goals at the wire of setpoints that are none",
        "<=",
        0,
        once(lambda: float(wire.goals_that_got_through())),
        "dynamixel_sdk",
    ),
    "H14": Anchor(
        "align from 1 rad away: fastest step over top speed; farther is refused",
        "<=",
        0.2 + 1e-6,
        once(aligned),
        "ruckig",
    ),
    "H15": Anchor(
        "latency estimator on injected 5, 40, 120 ms: largest error [ms]", "<=", 2, once(lambda: 1000 * runtime.delay_error_s())
    ),
    "H16": Anchor(
        "loop at 100 Hz: share of overruns", "<", 0.005, lambda work: [runtime.loop_overruns(60.0 * work)[0]], rate=True
    ),
    "H17": Anchor("ring of 640x480 frames at 60 Hz: age p99 [ms]", "<=", 5, framed, rate=True),
    "H19": Anchor(
        "promises broken in 10,000 random schedules",
        "<=",
        0,
        lambda work: [float(runtime.broken_trials(max(60, round(10_000 * work))))],
    ),
    "H21": Anchor("100,000 mutated messages: other errors than ProtocolError", "<=", 0, fuzzed, "msgpack"),
    "H22": Anchor(
        "an open address without TLS and token is refused (1: yes)",
        ">=",
        1,
        once(lambda: float(runtime.bind_refused())),
        "msgpack",
    ),
    "H23": Anchor("round trip of 301,178 bytes over a websocket, p99 [ms]", "<=", 10, served, "msgpack", True),
    "H25": Anchor(
        "poses in contact on the ways to 1,000 colliding goals",
        "<=",
        0,
        lambda work: [float(runtime.penetrations(max(20, round(1000 * work)))[0])],
    ),
    "H26": Anchor("calibration: pose to encoder and back, largest error [ticks]", "<=", 1, once(runtime.calibration_error_ticks)),
}
ELSEWHERE = {
    "H4": "tests/hardware/test_fr3.py, with franky and franky-sim",
    "H11": "tests/runtime/test_planners.py and tests/hardware/test_host.py, in parts",
    "H12": "tests/hardware/test_dynamixel.py",
    "H13": "tests/hardware/test_host.py and test_camera_host.py",
    "H18": "tests/runtime/test_slots.py and tests/nets/test_guide.py",
    "H20": "tests/contracts/test_consumers.py and tests/runtime",
    "H24": "tests/runtime/test_runlog_crash.py",
}


def run(cfg: Config) -> int:
    """Prints a line an anchor; Findings (exit code 1) where one that does not depend on the machine does not hold."""
    unknown = [name for name in cfg.only if name not in ANCHORS]
    if unknown:
        raise BadInput(f"--only {unknown[0]}: want some of {', '.join(ANCHORS)}")
    names = cfg.only or tuple(ANCHORS)
    work, figures = (0.1 if cfg.quick else 1.0), {}
    for name in tqdm(names, unit="anchor", disable=None):
        figures[name] = measured(ANCHORS[name], work)
        tqdm.write(line(name, ANCHORS[name], figures[name]))
    if not cfg.only:
        figures |= {name: {"holds": None, "why": f"not measured here; shown by {where}"} for name, where in ELSEWHERE.items()}
    facts = {"reference_per_s": _bench.reference_per_s(), "quick": cfg.quick, **_bench.machine(1)}
    write_json(cfg.json, {**figures, **facts}, seed=0)
    failed = [name for name in names if figures[name]["holds"] is False and not ANCHORS[name].rate]
    if failed:
        raise Findings(f"these do not hold: {', '.join(failed)}")
    return 0


def measured(anchor: Anchor, work: float) -> dict[str, Any]:
    """Returns the figures of an anchor as `bench hardware --json` keeps them."""
    if anchor.sdk and importlib.util.find_spec(anchor.sdk) is None:
        return {"holds": None, "why": f"{anchor.sdk} is not installed; make sdk", "sdk": anchor.sdk}
    try:
        runs = anchor.measure(work)
    except RobolearnError as error:
        beside = {"figures": error.figures} if isinstance(error, Missed) else {}
        return {"holds": False, "why": str(error), "op": anchor.op, "limit": anchor.limit, "sdk": anchor.sdk, **beside}
    value = statistics.median(runs)
    holds = {">=": value >= anchor.limit, "<=": value <= anchor.limit, "<": value < anchor.limit}[anchor.op]
    return {
        "value": value, "op": anchor.op, "limit": anchor.limit, "runs": runs, "sdk": anchor.sdk, "holds": holds,
        "why": anchor.what, "rate": anchor.rate,
    }  # fmt: skip


def line(name: str, anchor: Anchor, figure: dict[str, Any]) -> str:
    """Returns what the terminal shows of an anchor."""
    if "value" not in figure:
        return f"{name:<4} {'-' if figure['holds'] is None else 'NO':<4} {figure['why']}"
    sign = "yes" if figure["holds"] else "NO"
    return f"{name:<4} {sign:<4} {figure['value']:10.4g}  want {anchor.op} {anchor.limit:g}   {anchor.what}"
