"""The loop of a driver's process: newest setpoint -> guard -> one cycle on the wire -> state into a ring."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from hardware._base import ArmState, Caps, Driver, Guard, Setpoint, State, Stop
from hardware._errors import BadCommand, HwError, LimitViolation
from hardware._life import Attended
from hardware._process import die_with_parent
from hardware._records import STATES, Hosting, caps_json, sample_dtype, setpoint_dtype
from hardware._ring import Layout, Ring
from robolearn.clock import Rate
from robolearn.errors import RobolearnError

MakeDriver = Callable[[], Driver]
MakeGuard = Callable[[Caps, float], Guard]


class Loop:
    """What runs in the driver's process. `calls` are what the parent may ask for."""

    def __init__(self, name: str, driver: Driver, make_guard: MakeGuard, hosting: Hosting) -> None:
        self._arm = Attended(driver, name, hosting.period_s, hosting.budget)
        self._make_guard, self._hosting, self._rate = make_guard, hosting, Rate(1.0 / hosting.period_s)
        self._guard: Guard | None = None
        self._rings: tuple[Ring, Ring] | None = None
        self._newest: ArmState | None = None
        self._way = Way()
        self._count, self._cycle, self._resting, self._fault = 0, 0, True, ""
        self._filters: tuple[str, ...] = ()
        self.ending = False
        self.calls: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "connect": lambda asked: {"identity": asdict(self._arm.connect()), "caps": caps_json(self._arm.caps)},
            "loop": self._begin,
            "configure": lambda asked: {"changed": dict(self._arm.configure())},
            "activate": self._activate,
            "deactivate": self._deactivate,
            "clear_fault": self._clear_fault,
            "health": lambda asked: {name: dict(values) for name, values in vars(self._arm.health()).items()},
            "fault": lambda asked: {"fault": self._fault},
            "close": self._close,
        }

    def turn(self) -> None:
        """Does one cycle: it never raises, and a fault is kept for the parent to read."""
        late_s = self._rate.wait()
        if self._rings is None or self._arm.state not in (State.CONNECTED, State.CONFIGURED, State.ACTIVE):
            return
        sent, changed = self._next() if self._arm.state is State.ACTIVE else (None, ())
        try:
            self._newest = self._arm.cycle(sent)
        except (BadCommand, LimitViolation) as error:  # nothing was sent: hold, and keep the device's watchdog quiet
            self._fault, self._way, sent = str(error), Way(), None
            self._listen()
        except HwError as error:
            self._fault, sent = str(error), None
        if self._newest is not None:
            self._publish(self._newest, sent, changed, late_s)

    def end(self, stop: Stop) -> list[str]:
        """Ramps, deactivates and closes; every step is tried whatever became of the one before."""
        went_wrong: list[str] = []
        for step in (self._ramp, lambda: self._stop(stop)):
            try:
                step()
            except Exception as error:  # whatever it is, a mistake of ours too: the next step is tried
                went_wrong.append(str(error))
        went_wrong += [str(error) for error in self._arm.disconnect()]
        for ring in self._rings or ():
            ring.close()
        self._rings = None
        return went_wrong

    def _stop(self, stop: Stop) -> None:
        if self._arm.state is State.ACTIVE:
            self._arm.deactivate(stop, drop=True)

    def _begin(self, asked: dict[str, Any]) -> dict[str, Any]:
        state, setpoint = (Layout(**{**layout, "shape": tuple(layout["shape"])}) for layout in asked["layouts"])
        self._rings = Ring(state), Ring(setpoint)
        return {}

    def _listen(self) -> None:
        """Does a cycle without a setpoint."""
        try:
            self._newest = self._arm.cycle()
        except HwError as error:
            self._fault = str(error)

    def _activate(self, asked: dict[str, Any]) -> dict[str, Any]:
        del asked  # Unused: it has no arguments.
        guard = self._make_guard(self._arm.caps, self._hosting.period_s)  # a limit without a number keeps the motors off
        self._arm.activate()
        try:
            self._newest = self._arm.cycle()
            aperture = None if np.isnan(self._newest.aperture) else self._newest.aperture
            guard.reset(self._newest.q, aperture, time.monotonic_ns() / 1e9)
        except RobolearnError:
            if self._arm.state is State.ACTIVE:
                self._arm.deactivate(Stop.HOLD)
            raise
        self._guard, self._way, self._resting, self._fault = guard, Way(), True, ""
        self._count = self._rings[1].count if self._rings else 0  # what was left before is of another life
        self._filters = guard.filters
        return {"filters": list(self._filters)}

    def _deactivate(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._ramp()
        self._arm.deactivate(Stop(asked["stop"]), drop=asked["drop"])
        return {}

    def _clear_fault(self, asked: dict[str, Any]) -> dict[str, Any]:
        del asked  # Unused: it has no arguments.
        self._arm.clear_fault()
        self._fault, self._way = "", Way()
        return {}

    def _close(self, asked: dict[str, Any]) -> dict[str, Any]:
        del asked  # Unused: it has no arguments.
        self.ending = True
        return {"errors": self.end(Stop.HOLD)}

    def _next(self) -> tuple[Setpoint, tuple[str, ...]]:
        """Returns the guarded setpoint of this cycle, and which filters changed it."""
        assert self._guard is not None and self._rings is not None and self._newest is not None
        now = time.monotonic_ns()
        record = self._rings[1].newest()
        if record is not None and record.count > self._count:
            self._count = record.count
            r = record.array.view(setpoint_dtype(len(self._arm.caps.joints)))[0]
            aperture = None if np.isnan(r["aperture"]) else float(r["aperture"])
            goal = Setpoint(r["q"].copy(), aperture, int(r["t_ns"]))
            self._way = Way() if r["hold"] else self._way.to(goal, self._newest.q, record.t_ns)
        asked = None if self._arm.wants_hold else self._way.at(now, self._hosting.hold_after_s)
        if asked is None:
            setpoint, self._resting = self._guard.stop(self._newest, now / 1e9)
            return setpoint, ()
        self._resting = False
        return self._guard.step(asked, self._newest, now / 1e9)

    def _ramp(self) -> None:
        """Ramps to rest, for at most `ramp_s`."""
        self._way, self._resting = Way(), False
        end = time.monotonic() + self._hosting.ramp_s
        while self._rings is not None and self._arm.state is State.ACTIVE and not self._resting and time.monotonic() < end:
            self.turn()

    def _publish(self, state: ArmState, sent: Setpoint | None, changed: tuple[str, ...], late_s: float) -> None:
        assert self._rings is not None
        r = np.zeros(1, sample_dtype(len(self._arm.caps.joints)))
        for name in ("q", "qd", "effort", "aperture", "t_sample_ns", "t_recv_ns", "t_unc_ns", "seq", "flags", "alarm"):
            r[name] = getattr(state, name)
        r["sent"] = np.nan if sent is None else sent.q
        r["sent_aperture"] = np.nan if sent is None or sent.aperture is None else sent.aperture
        r["changed"] = sum(1 << self._filters.index(name) for name in changed if name in self._filters)
        self._cycle += 1
        held = self._way.at(time.monotonic_ns(), self._hosting.hold_after_s) is None
        r["late_s"], r["holding"], r["life"], r["cycle"] = late_s, held, STATES.index(self._arm.state), self._cycle
        self._rings[0].write(r.view("u1"), state.t_recv_ns)


@dataclass(frozen=True)
class Way:
    """The straight way from the last target to the next, reached when the setpoint says; nowhere to go where there is no goal."""

    begin: np.ndarray | None = None
    begin_ns: int = 0
    goal: Setpoint | None = None
    left_ns: int = 0

    def to(self, goal: Setpoint, q: np.ndarray, left_ns: int) -> Way:
        """Returns the way to a new goal, asked at `left_ns`, from where this one is then, or from q (n,) if it goes nowhere."""
        here = self._place(left_ns) if self.goal is not None else q
        return Way(here, left_ns, goal, left_ns)

    def at(self, now_ns: int, hold_after_s: float) -> Setpoint | None:
        """Returns the target of this instant; None where there is no goal, or the last one is older than `hold_after_s`."""
        if self.goal is None or now_ns - self.left_ns > hold_after_s * 1e9:
            return None
        span_s = (self.goal.t_ns - self.begin_ns) / 1e9
        moving = self.begin is not None and span_s > 0 and now_ns < self.goal.t_ns
        qd = (self.goal.q - self.begin) / span_s if moving else None
        return Setpoint(self._place(now_ns), self.goal.aperture, self.goal.t_ns, qd)

    def _place(self, now_ns: int) -> np.ndarray:
        assert self.goal is not None and self.begin is not None
        span = self.goal.t_ns - self.begin_ns
        share = 1.0 if span <= 0 else min(1.0, max(0.0, (now_ns - self.begin_ns) / span))
        return self.begin + share * (self.goal.q - self.begin)


def host(name: str, make_driver: MakeDriver, make_guard: MakeGuard, hosting: Hosting, pipe: Connection, parent: int) -> None:
    orphaned: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: orphaned.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: it stops the motion in order
    die_with_parent(parent)
    try:
        loop = Loop(name, make_driver(), make_guard, hosting)
    except RobolearnError as error:  # the first call is answered by why there is nobody to call
        with contextlib.suppress(EOFError, OSError):
            pipe.send_bytes(json.dumps({**_told(error, name), "id": json.loads(pipe.recv_bytes())["id"]}).encode())
        return
    try:
        while not orphaned and not loop.ending:
            loop.turn()
            while pipe.poll():
                asked = json.loads(pipe.recv_bytes())
                try:
                    said = loop.calls[asked["call"]](asked)
                except RobolearnError as error:
                    said = _told(error, name)
                pipe.send_bytes(json.dumps({**said, "id": asked["id"]}).encode())
    except (EOFError, OSError):  # the parent has gone
        return
    finally:  # also after a mistake of ours: the arm is stopped in order
        if not loop.ending:
            loop.end(hosting.on_orphan)


def _told(error: RobolearnError, name: str) -> dict[str, Any]:
    """Returns an error as the parent reads it."""
    device = error.device if isinstance(error, HwError) else name
    return {"error": type(error).__name__, "message": str(error), "device": device}
