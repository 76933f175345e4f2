"""What a deployment may do now, as tables: IDLE -> ALIGN -> RUN <-> HOLD -> STOPPING -> IDLE, any -> FAULT, ESTOP latched.

Every move is a row of `TRANSITIONS` and every trouble a row of `REACTIONS`; the code only looks them up. What went wrong is kept
by kind until `clear` says that it has gone, and nothing leads back to motion while one is left. Software asks for stops of
category 1 or 2 (IEC 60204-1); category 0, power off at once, is the hardware's alone.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum

from robolearn.errors import BadInput, HardwareError, UnknownName


class Mode(StrEnum):
    """Where a deployment is. Only RUN takes plans of a policy."""

    IDLE = "idle"
    ALIGN = "align"
    RUN = "run"
    HOLD = "hold"
    STOPPING = "stopping"
    FAULT = "fault"
    ESTOP = "estop"


class Category(IntEnum):
    """How motion ends, named after IEC 60204-1."""

    RAMP_THEN_OFF = 1
    RAMP_AND_HOLD = 2


def stop_category(number: int) -> Category:
    """Returns the stop that software may ask for; BadInput for any other."""
    if number not in (1, 2):
        raise BadInput(f"stop category: want 1 or 2, got {number}; 0 cuts the power, which only hardware does")
    return Category(number)


@dataclass(frozen=True)
class Move:
    """One row of the table: in `source`, `event` leads to `target` where every guard holds."""

    source: Mode
    event: str
    target: Mode
    guards: tuple[str, ...] = ()


_BACK = ("causes_cleared", "schedule_empty", "deadman")
TRANSITIONS = (
    Move(Mode.IDLE, "start", Mode.ALIGN, _BACK),
    Move(Mode.ALIGN, "aligned", Mode.RUN, ("causes_cleared", "deadman")),
    Move(Mode.ALIGN, "hold", Mode.HOLD),
    Move(Mode.RUN, "hold", Mode.HOLD),
    Move(Mode.HOLD, "resume", Mode.RUN, ("causes_cleared", "aligned", "deadman")),
    Move(Mode.HOLD, "align", Mode.ALIGN, _BACK),
    *(Move(mode, "stop", Mode.STOPPING) for mode in (Mode.ALIGN, Mode.RUN, Mode.HOLD)),
    Move(Mode.STOPPING, "stopped", Mode.IDLE),
    *(Move(mode, "fault", Mode.FAULT) for mode in Mode if mode not in (Mode.FAULT, Mode.ESTOP)),
    *(Move(mode, "estop", Mode.ESTOP) for mode in Mode if mode is not Mode.ESTOP),
    Move(Mode.FAULT, "recover", Mode.ALIGN, (*_BACK, "operator_or_listed")),
    Move(Mode.ESTOP, "recover", Mode.ALIGN, (*_BACK, "operator")),
)
_ROWS = {(move.source, move.event): move for move in TRANSITIONS}
_EVENTS = sorted({move.event for move in TRANSITIONS})
_INTO = {Mode.HOLD: "hold", Mode.STOPPING: "stop", Mode.FAULT: "fault", Mode.ESTOP: "estop"}
_WHY_NOT = {
    "causes_cleared": "a cause is left",
    "schedule_empty": "the schedule still holds actions; flush it",
    "deadman": "the dead-man is not held",
    "aligned": "the body was not aligned since; align first",
    "operator": "an operator must say so",
    "operator_or_listed": "an operator must say so",
}


@dataclass(frozen=True)
class Reaction:
    """One row of what happens when: found_by, reaction and back (the way to RUN) for people, the rest for the machine.

    mode: where it leads, None for nowhere; category: of the stop; after, within_s: how many of it, in which time, before it leads
    anywhere; align_after_s: lasting longer, it costs the alignment; operator: a person must end it; flush: the schedule is
    emptied; black_box: the last seconds are written.
    """

    event: str
    found_by: str
    reaction: str
    back: str
    mode: Mode | None = None
    category: Category | None = None
    after: int = 1
    within_s: float = math.inf
    align_after_s: float = math.inf
    operator: bool = False
    flush: bool = False
    black_box: bool = False


def _holds(event: str, found_by: str, reaction: str, back: str, after: int = 1, within_s: float = math.inf) -> Reaction:
    return Reaction(event, found_by, reaction, back, Mode.HOLD, Category.RAMP_AND_HOLD, after, within_s)


def _ends(event: str, found_by: str, reaction: str, back: str, mode: Mode = Mode.FAULT, operator: bool = False) -> Reaction:
    # What no line has cut keeps its torque, in ESTOP too: on an arm without brakes torque-off is a motion.
    stop = Category.RAMP_AND_HOLD
    return Reaction(event, found_by, reaction, back, mode, stop, align_after_s=0, operator=operator, flush=True, black_box=True)


_TABLE = (
    Reaction("camera_late", "age over 2 periods", "same frame, STALE; no plan from one over 250 ms", "the next good frame"),
    replace(_holds("camera_gone", "error, 2 s silence", "HOLD, reopen by id", "frame, align if > 1 s"), align_after_s=1.0),
    _holds("servo_miss", "transport's counter", "retry, STALE, predict 3 cycles; 3 in a row: HOLD", "the next read", after=3),
    _ends("servo_lost", "10 misses, 200 ms, lost, 2 s silence", "ramp the others to rest, FAULT", "full handshake, align"),
    _ends("servo_alert", "alert bit, register, status", "FAULT, no reboot", "clear_fault (reboots), align", operator=True),
    _holds("bad_chunk", "filters: finite, shape", "refuse it whole, keep the old; 3 in a row: HOLD", "a good chunk", after=3),
    _holds("underrun", "slots without action", "finish the chunk, ramp to HOLD, never extrapolate", "chunk that fits the seam"),
    replace(_holds("policy_crash", "pidfd, heartbeat", "as underrun; restart once", "warm-up dropped, align"), align_after_s=0.0),
    _ends("driver_crash", "pidfd", "its watchdog stops that arm; ramp the others", "full handshake, align", operator=True),
    _ends("supervisor_crash", "parent-death signal", "ramp to rest, no parking, exit", "a new run", Mode.STOPPING),
    _holds("stall", "over 100 ms late", "count; over 3 in 10 s, one over 0.3 s: HOLD", "by itself", after=4, within_s=10.0),
    _ends("protective_stop", "status bits", "flush, FAULT", "unlock after 5 s, align"),
    _ends("estop", "device bits, input line", "ESTOP latched, black box", "the operator, align", Mode.ESTOP, operator=True),
    Reaction("clock_step", "monotonic against wall clock", "log only", "nothing to do"),
    Reaction("log_dead", "the logger's heartbeat", "go on, warn; refuse the next episode", "free space, a new log"),
    _holds("deadman", "released, or older than 100 ms", "category 2: ramp and hold", "held again"),
)
REACTIONS: Mapping[str, Reaction] = {row.event: row for row in _TABLE}
AUTOMATIC: Mapping[str, float] = {"franka_reflex": 0.0, "ur_protective_stop": 5.0, "servo_lost": 0.0}
"""Kinds of fault that may end without a person, and how long [s] they must have lasted."""
MOST_AUTOMATIC, AUTOMATIC_WINDOW_S = 3, 600.0


def reaction(event: str) -> Reaction:
    """Returns the row of a trouble; UnknownName with the nearest one."""
    if event not in REACTIONS:
        raise UnknownName("trouble", event, REACTIONS)
    return REACTIONS[event]


def trouble(error: Exception) -> str:
    """Returns the row of `REACTIONS` that an error is: what it says itself, a lost servo for hardware, else a bad chunk."""
    return str(getattr(error, "trouble", "servo_lost" if isinstance(error, HardwareError) else "bad_chunk"))


class DeadMan:
    """A level signal that says "held" for `stale_s` after its stamp; silence, doubt or a stamp from the future is a release."""

    def __init__(self, source: str, stale_s: float = 0.1) -> None:
        if "keyboard" in source.lower():
            raise BadInput(f"dead-man: want a level signal (pedal, trigger, clutch), got '{source}', which sends presses")
        self.source, self._stale_ns = source, round(stale_s * 1e9)
        self._held, self._t_ns = False, 0

    def update(self, held: bool | None, t_ns: int) -> None:
        """Takes a level, stamped t_ns by the monotonic clock. A release always counts, a press only if it is the newest."""
        if held is not True:
            self._held = False
        elif t_ns >= self._t_ns:
            self._held = True
        self._t_ns = max(self._t_ns, t_ns)

    def held(self, now_ns: int) -> bool:
        """True where it is held now."""
        return self._held and 0 <= now_ns - self._t_ns <= self._stale_ns


@dataclass(frozen=True)
class Facts:
    """What guards ask for. operator: a person says so now; deadman: held, None where the body has none."""

    operator: bool = False
    schedule_empty: bool = False
    deadman: bool | None = None


@dataclass(frozen=True)
class Change:
    """One line of the machine's history: what was asked, and where it led; why: what stood in the way."""

    t_ns: int
    source: Mode
    event: str
    target: Mode
    reason: str = ""
    kind: str = ""
    accepted: bool = True
    why: str = ""


@dataclass
class _Cause:
    row: Reaction
    t_ns: int
    left: bool = True


@dataclass
class Machine:
    """The state of a deployment. sink: told what is asked of it; automatic: kinds that may recover alone, after so long [s]."""

    sink: Callable[[Change], None]
    automatic: Mapping[str, float] = field(default_factory=lambda: AUTOMATIC)
    mode: Mode = Mode.IDLE
    _causes: dict[str, _Cause] = field(default_factory=dict)
    _seen: dict[str, deque[int]] = field(default_factory=dict)
    _recovered: deque[int] = field(default_factory=lambda: deque(maxlen=MOST_AUTOMATIC))
    _aligned: bool = False

    @property
    def accepts_chunks(self) -> bool:
        """True in RUN only."""
        return self.mode is Mode.RUN

    @property
    def aligned(self) -> bool:
        """True while the way from HOLD to RUN is open, should no cause be left."""
        return self._aligned

    @property
    def causes(self) -> tuple[str, ...]:
        """Kinds of what went wrong and has not gone."""
        return tuple(kind for kind, cause in tuple(self._causes.items()) if cause.left)

    @property
    def faults(self) -> tuple[str, ...]:
        """Those of the causes that led, or would lead, to FAULT."""
        return tuple(kind for kind in self.causes if self._causes[kind].row.mode is Mode.FAULT)

    def on(self, event: str, reason: str, now_ns: int, facts: Facts = Facts()) -> Change:
        """Returns the change that `event` makes; one that the table or a guard forbids leaves the mode and says why."""
        if event not in _EVENTS:
            raise UnknownName("event", event, _EVENTS)
        move = _ROWS.get((self.mode, event))
        if move is None:
            return self._tell(Change(now_ns, self.mode, event, self.mode, reason, "", False, f"no such move from {self.mode}"))
        barred = [guard for guard in move.guards if not self._holds(guard, now_ns, facts)]
        if barred:
            left = f": {', '.join(self.causes)}" if barred[0] == "causes_cleared" else ""
            return self._tell(Change(now_ns, self.mode, event, self.mode, reason, "", False, _WHY_NOT[barred[0]] + left))
        return self._move(move.target, event, reason, now_ns, alone=not facts.operator)

    def react(self, event: str, reason: str, now_ns: int, kind: str = "") -> Reaction:
        """Returns the row of a trouble after going where it leads; kind: a finer name of it (ur_protective_stop).

        The caller does the rest: stop by category, flush, black box. While there were too few of it, the row has none of these.
        """
        row, kind = reaction(event), kind or event
        seen = self._seen.setdefault(kind, deque(maxlen=row.after))
        seen.append(now_ns)
        if row.mode is None or len(seen) < row.after or (now_ns - seen[0]) * 1e-9 > row.within_s:
            self._tell(Change(now_ns, self.mode, event, self.mode, reason, kind))
            return replace(row, mode=None, category=None, flush=False, black_box=False)
        if kind not in self.causes:
            self._causes[kind] = _Cause(row, now_ns)
        move = _ROWS.get((self.mode, _INTO[row.mode]))
        self._move(move.target if move else self.mode, event, reason, now_ns, kind)
        return row

    def clear(self, kind: str, reason: str, now_ns: int) -> None:
        """Notes that a trouble has gone: the device says so, a good chunk came, the dead-man is held again."""
        self._seen.pop(kind, None)
        cause = self._causes.get(kind)
        if cause is not None and cause.left:
            cause.left = False
            self._aligned = self._aligned and (now_ns - cause.t_ns) * 1e-9 <= cause.row.align_after_s
            self._tell(Change(now_ns, self.mode, "cleared", self.mode, reason, kind))

    def _holds(self, guard: str, now_ns: int, facts: Facts) -> bool:
        return {
            "causes_cleared": not self.causes,
            "schedule_empty": facts.schedule_empty,
            "deadman": facts.deadman is not False,
            "aligned": self._aligned,
            "operator": facts.operator,
            "operator_or_listed": facts.operator or self.may_recover(now_ns),
        }[guard]

    def may_recover(self, now_ns: int) -> bool:
        """True where every fault may end without a person, has lasted long enough, and not too many ended so lately."""
        spent = len(self._recovered) == MOST_AUTOMATIC and (now_ns - self._recovered[0]) * 1e-9 < AUTOMATIC_WINDOW_S
        faults = {kind: cause for kind, cause in self._causes.items() if cause.row.mode is Mode.FAULT}
        waited = (now_ns - cause.t_ns >= self.automatic.get(kind, math.inf) * 1e9 for kind, cause in faults.items())
        return not spent and bool(faults) and all(waited) and not any(cause.row.operator for cause in faults.values())

    def _move(self, target: Mode, event: str, reason: str, now_ns: int, kind: str = "", alone: bool = False) -> Change:
        source, self.mode = self.mode, target
        if source is Mode.FAULT and target is Mode.ALIGN and alone:
            self._recovered.append(now_ns)
        if target is not source:
            self._aligned = target in (Mode.RUN, Mode.HOLD) and (self._aligned or event == "aligned")
        if target in (Mode.ALIGN, Mode.RUN):
            self._causes.clear()
        return self._tell(Change(now_ns, source, event, target, reason, kind))

    def _tell(self, change: Change) -> Change:
        self.sink(change)
        return change
