"""What a WebXR page sends, checked: messages, the two clocks, and the samples that control gets. No socket in here.

    {"v": 1, "seq": 17, "t": 5123.4, "arm": 0, "p": [x, y, z], "q": [x, y, z, w], "btn": [0.2, 1], "axes": [],
     "deadman": true, "ev": ["success"]}                  one hand at one instant; t [ms] of the page, p [m], WebXR's frame
    {"v": 1, "pong": 3, "t": 5123.4}                      the answer to {"ping": 3}

btn and axes follow the xr-standard gamepad (btn[0] the trigger, which is the grip); `ev` may be left out.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import numpy as np

from robolearn import geometry
from robolearn.core import OPERATOR_EVENTS, TeleopSample
from robolearn.errors import BadInput

Array = np.ndarray
VERSION = 1
MAX_BYTES = 2048
REACH_M = 50.0  # a hand further from where the session began is no hand
EVENTS = tuple(event for event in OPERATOR_EVENTS if event not in ("engage", "disengage")) + ("toggle_grip",)
ROBOT_FROM_WEBXR = np.array(
    [[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
)  # x right, y up, z back -> x forward, y left, z up
_FIELDS = frozenset(("v", "seq", "t", "arm", "p", "q", "btn", "axes", "deadman", "ev"))


@dataclass(frozen=True)
class Hand:
    """One checked message. t_ms: of the page's clock; position (3,) [m], quat_xyzw (4,) of unit length: WebXR's frame."""

    seq: int
    t_ms: float
    arm: int
    position: Array
    quat_xyzw: Array
    btn: tuple[float, ...]
    deadman: bool
    events: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pong:
    """The page's answer to ping `number`, by its clock [ms]."""

    number: int
    t_ms: float


def parse(text: str | bytes, arms: int) -> Hand | Pong:
    """Returns the message in `text`; BadInput names the field that does not fit."""
    if not isinstance(text, str):
        raise BadInput("webxr message: want text, got bytes")
    if len(text) > MAX_BYTES:
        raise BadInput(f"webxr message: want at most {MAX_BYTES} characters, got {len(text)}")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise BadInput("webxr message: want one JSON object") from None
    if not isinstance(values, dict):
        raise BadInput(f"webxr message: want an object, got {type(values).__name__}")
    if values.get("v") != VERSION or isinstance(values.get("v"), bool):
        raise BadInput(f"webxr message, v: want {VERSION}, got {_short(values.get('v'))}; reload the page")
    if "pong" in values:
        return Pong(_whole(values, "pong", 2**31), _number(values.get("t"), "t", 0.0, 1e12))
    unknown = sorted(set(values) - _FIELDS)
    if unknown:
        raise BadInput(f"webxr message: unknown field {_short(unknown[0])}")
    position = _numbers(values, "p", (3, 3), REACH_M)
    quat = _numbers(values, "q", (4, 4), 1.1)
    norm = float(np.linalg.norm(quat))
    if abs(norm - 1.0) > 0.01:
        raise BadInput(f"webxr message, q: want a unit quaternion, got one of length {norm:.3g}")
    _numbers(values, "axes", (0, 8), 1.0)
    if not isinstance(values.get("deadman"), bool):
        raise BadInput(f"webxr message, deadman: want true or false, got {_short(values.get('deadman'))}")
    btn = _numbers(values, "btn", (0, 16), 1.0)
    return Hand(
        _whole(values, "seq", 2**53),
        _number(values.get("t"), "t", 0.0, 1e12),
        _whole(values, "arm", arms),
        position,
        quat / norm,
        tuple(float(value) for value in np.clip(btn, 0.0, 1.0)),
        values["deadman"],
        _events(values.get("ev", [])),
    )


def pose_of(hand: Hand) -> Array:
    """Returns frame_from_hand (4, 4) [m], x forward, y left, z up: x = -z, y = -x, z = y of WebXR's."""
    rotation = geometry.matrix_from_quat_wxyz(np.roll(hand.quat_xyzw, 1))
    turned = ROBOT_FROM_WEBXR @ rotation @ ROBOT_FROM_WEBXR.T
    return geometry.pose(ROBOT_FROM_WEBXR @ hand.position, turned)


@dataclass
class Clocks:
    """The page's clock against ours, from the ping-pongs: the one with the shortest way there and back counts."""

    rounds: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=10))  # (round trip, offset) [ms]
    sent: dict[int, float] = field(default_factory=dict)  # ping -> when [ms]
    asked: int = 0  # pings so far

    def ping(self, now_ms: float) -> int:
        """Returns the number of a new ping, sent now."""
        number, self.asked = self.asked, self.asked + 1
        self.sent[number] = now_ms
        self.sent.pop(number - 16, None)
        return number

    def pong(self, pong: Pong, now_ms: float) -> None:
        """Takes an answer; one that was not asked for, or was given before, counts nothing."""
        began = self.sent.pop(pong.number, None)
        if began is not None:
            self.rounds.append((now_ms - began, pong.t_ms - 0.5 * (began + now_ms)))

    @property
    def round_trip_ms(self) -> float | None:
        """The shortest of the last ten ways there and back [ms]; None before the first."""
        return min(self.rounds)[0] if self.rounds else None

    def ours_ms(self, page_ms: float) -> float | None:
        """Returns the page's instant [ms] on our clock; None before the first pong."""
        return page_ms - min(self.rounds)[1] if self.rounds else None


@dataclass
class Counts:
    """What became of the messages. late: older than the limit when they came; disordered: not newer than the last."""

    taken: int = 0
    refused: int = 0
    disordered: int = 0
    late: int = 0
    why: str = ""  # of the last refused


class Inbox:
    """Takes messages from one page at a time and keeps, for control, the newest sample of each hand since the last read.

    A change of the dead-man is never overwritten: let go and held again between two reads is read as both. full: keep every
    sample (for a log); max_age_s: a sample that took longer is dropped, its events are not.
    """

    def __init__(self, arms: int, clock: Callable[[], int], full: bool = False, max_age_s: float = 0.25) -> None:
        self.arms, self.clock, self.full, self.max_age_s = arms, clock, full, max_age_s
        self._lock = Lock()
        self._queue: list[TeleopSample] = []
        self.begin()

    def begin(self) -> None:
        """A page took control: numbers and clocks begin anew."""
        with self._lock:
            self.clocks, self.counts = Clocks(), Counts()
            self.ages_ms: deque[float] = deque(maxlen=200)
            self._seq = -1
            self._last: dict[int, TeleopSample] = {}
            self._spare: tuple[str, ...] = ()

    def ping(self) -> int:
        """Returns the number of a ping that is sent now."""
        return self.clocks.ping(self.clock() * 1e-6)

    def take(self, text: str | bytes) -> None:
        """Takes one message; BadInput where it does not fit, and nothing changed."""
        now_ns = self.clock()
        try:
            message = parse(text, self.arms)
        except BadInput as error:
            self.counts.refused += 1
            self.counts.why = str(error)
            raise
        if isinstance(message, Pong):
            self.clocks.pong(message, now_ns * 1e-6)
            return
        with self._lock:
            self._take(message, now_ns)

    def _take(self, hand: Hand, now_ns: int) -> None:
        if hand.seq <= self._seq:
            self.counts.disordered += 1
            return
        self._seq = hand.seq
        ours_ms = self.clocks.ours_ms(hand.t_ms)
        t_dev_ns = now_ns if ours_ms is None else min(now_ns, round(ours_ms * 1e6))
        age_s = (now_ns - t_dev_ns) * 1e-9
        last = self._last.get(hand.arm)
        events = self._spare + hand.events
        if age_s > self.max_age_s:
            self.counts.late += 1
            self._spare = events[-16:]
            if hand.deadman or last is None:
                return
            t_dev_ns = now_ns  # letting go is never too late
        self._spare = ()
        if last is not None:  # a better estimate of the clock must not turn time back
            t_dev_ns = min(now_ns, max(t_dev_ns, last.t_dev_ns + 1))
        grip = hand.btn[0] if hand.btn else None
        sample = TeleopSample(t_dev_ns, now_ns, hand.arm, pose=pose_of(hand), deadman=hand.deadman, grip=grip, events=events)
        self.counts.taken += 1
        self.ages_ms.append(age_s * 1e3)
        self._push(sample)

    def lost(self) -> None:
        """The page is gone: every hand it held lets go."""
        with self._lock:
            now_ns = self.clock()
            for sample in list(self._last.values()):
                self._push(replace(sample, t_dev_ns=max(now_ns, sample.t_dev_ns), t_recv_ns=now_ns, deadman=False, events=()))
            self._last = {}

    def read(self) -> list[TeleopSample]:
        """Returns the samples since the last call, oldest first."""
        with self._lock:
            taken, self._queue = self._queue, []
        return taken

    def _push(self, sample: TeleopSample) -> None:
        self._last[sample.arm] = sample
        mine = [k for k, old in enumerate(self._queue) if old.arm == sample.arm]
        if not self.full and mine and self._queue[mine[-1]].deadman == sample.deadman:
            old = self._queue.pop(mine[-1])
            sample = replace(sample, events=old.events + sample.events)
        self._queue.append(sample)
        while len(self._queue) > (4096 if self.full else 16):
            lost = self._queue.pop(0)
            self._queue[0] = replace(self._queue[0], events=(lost.events + self._queue[0].events)[-16:])


def _number(value: Any, name: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadInput(f"webxr message, {name}: want a number, got {_short(value)}")
    if not low <= value <= high or not math.isfinite(value):
        raise BadInput(f"webxr message, {name}: want a number from {low:g} to {high:g}, got {_short(value)}")
    return float(value)


def _numbers(values: dict[str, Any], name: str, lengths: tuple[int, int], limit: float) -> Array:
    row = values.get(name)
    if not isinstance(row, list) or not lengths[0] <= len(row) <= lengths[1]:
        raise BadInput(f"webxr message, {name}: want a list of {lengths[0]} to {lengths[1]} numbers, got {_short(row)}")
    return np.array([_number(value, name, -limit, limit) for value in row])


def _whole(values: dict[str, Any], name: str, end: int) -> int:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < end:
        raise BadInput(f"webxr message, {name}: want a whole number from 0 to {end - 1}, got {_short(value)}")
    return value


def _events(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > 8 or not all(isinstance(event, str) and event in EVENTS for event in value):
        raise BadInput(f"webxr message, ev: want at most 8 of {', '.join(EVENTS)}, got {_short(value)}")
    return tuple(value)


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer with too many digits to print
        text = "a huge number"
    return text if len(text) <= 40 else text[:37] + "..."
