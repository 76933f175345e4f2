"""The loop of a driver's process: newest setpoint -> guard -> one cycle on the wire -> state into a ring."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from hardware._base import ArmState, Caps, Driver, Guard, Setpoint, State, Stop
from hardware._errors import BadCommand, DeviceFault, HwError, LimitViolation
from hardware._life import Attended
from hardware._process import ParentGone, die_with_parent, heard, say
from hardware._records import STATES, Hosting, caps_json, sample_dtype, setpoint_dtype
from hardware._ring import Layout, Ring
from hardware._way import Way
from robolearn.clock import Deadline
from robolearn.errors import RobolearnError

MakeDriver = Callable[[], Driver]
MakeGuard = Callable[[Caps, float], Guard]
Call = Callable[[dict[str, Any]], dict[str, Any]]
_FIRST_S = 5.0  # patience with a wire that gives nothing at all
_CYCLING = (State.CONNECTED, State.CONFIGURED, State.ACTIVE, State.STOPPING)
_SLOW = ("connect", "configure", "activate", "deactivate", "clear_fault")  # they take their time, and that is no stall


class Loop:
    """What runs in the driver's process. `calls` are what the parent may ask for."""

    def __init__(
        self,
        name: str,
        driver: Driver,
        make_guard: MakeGuard,
        hosting: Hosting,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """clock_ns: monotonic [ns]; sleep: for seconds of that clock."""
        self._arm = Attended(driver, name, hosting.period_s, hosting.budget, clock_ns)
        self._make_guard, self._hosting, self._clock_ns, self._sleep = make_guard, hosting, clock_ns, sleep
        self._deadline = Deadline(hosting.period_s, clock_ns, sleep, hosting.stall_s)
        self._guard: Guard | None = None
        self._rings: tuple[Ring, Ring] | None = None
        self._newest: ArmState | None = None
        self._way, self._ramping, self._resting = Way(), False, True
        self._count, self._cycle, self._felt_ns = 0, 0, 0
        self._fault: HwError | None = None
        self._filters: tuple[str, ...] = ()
        self.ending = False
        self.calls: dict[str, Call] = {
            "connect": lambda asked: {"identity": asdict(self._arm.connect()), "caps": caps_json(self._arm.caps)},
            "loop": self._begin,
            "configure": lambda asked: {"changed": dict(self._arm.configure())},
            "activate": self._activate,
            "deactivate": self._deactivate,
            "clear_fault": self._clear_fault,
            "health": lambda asked: {name: dict(values) for name, values in vars(self._arm.health()).items()},
            "fault": lambda asked: {"fault": None if self._fault is None else told(self._fault, name)},
            "close": self._close,
        }
        self.calls |= {name: self._unhurried(self.calls[name]) for name in _SLOW}

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Does what the parent asks for and returns what it is told; what is refused is told, a mistake of ours is raised."""
        try:
            return self.calls[asked["call"]](asked)
        except RobolearnError as error:
            return told(error, self._arm.name)

    def turn(self) -> None:
        """Does one cycle. What the device or the wire did is kept for the parent to read; a mistake of ours is raised."""
        late_s = self._deadline.wait()
        if self._hosting.dither_s:
            self._sleep(random.uniform(0.0, self._hosting.dither_s))
        if self._rings is None or self._arm.state not in _CYCLING:
            return
        sent, changed = self._next() if self._arm.state is State.ACTIVE else (None, ())
        try:
            self._newest = self._arm.cycle(sent)
        except (BadCommand, LimitViolation) as error:  # nothing was sent: hold, and keep the device's watchdog quiet
            self._fault, self._way, sent = error, Way(), None
            self._listen()
            self._guard_from_here()
        except HwError as error:
            self._fault, sent = error, None
            self._look()
        if self._newest is not None:
            self._publish(self._newest, sent, changed, late_s)
        self._feel()

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

    def _unhurried(self, call: Call) -> Call:
        """Returns the call, after which the loop begins anew: it was not late meanwhile."""

        def done(asked: dict[str, Any]) -> dict[str, Any]:
            try:
                return call(asked)
            finally:
                self._deadline.restart()

        return done

    def _stop(self, stop: Stop) -> None:
        if self._arm.state is State.ACTIVE:
            self._arm.deactivate(stop, drop=True)

    def _begin(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Takes the rings and reads the first sample; misses are borne within the budget, a fault is raised for the parent."""
        state, setpoint = (Layout(**{**layout, "shape": tuple(layout["shape"])}) for layout in asked["layouts"])
        self._rings = Ring(state), Ring(setpoint)
        end, problem = self._clock_ns() + _FIRST_S * 1e9, None
        while self._newest is None and self._arm.state is not State.FAULT and self._clock_ns() < end:
            self._deadline.wait()
            problem = self._listen()
        if self._newest is not None:
            self._publish(self._newest, None, (), 0.0)
        if problem is not None:
            raise problem
        self._fault = None
        return {}

    def _listen(self) -> HwError | None:
        """Does a cycle without a setpoint, and returns what went wrong."""
        try:
            self._newest = self._arm.cycle()
        except HwError as error:
            self._fault = error
            self._look()
            return error
        return None

    def _look(self) -> None:
        """Takes the sample that came with an error, such as the device's alarm; there is none where the wire gave nothing."""
        last = self._arm.last
        if last is not None and (self._newest is None or last.seq != self._newest.seq):
            self._newest = last

    def _guard_from_here(self) -> None:
        """Begins the guard anew at what the motors were told last: what it made since then went nowhere."""
        assert self._guard is not None and self._newest is not None
        q = self._newest.q if self._arm.sent is None else self._arm.sent
        self._guard.reset(q, _aperture(self._newest), self._clock_ns() / 1e9)

    def _feel(self) -> None:
        """Tells the guard, where it wants to know, how warm the joints are; one axis is asked at a time."""
        due = self._clock_ns() - self._felt_ns >= self._hosting.health_s * 1e9
        if due and self._arm.state is State.ACTIVE and self._guard is not None and self._guard.wants_temperature:
            self._guard.feel(self._arm.health().temperature)
            self._felt_ns = self._clock_ns()

    def _activate(self, asked: dict[str, Any]) -> dict[str, Any]:
        del asked  # Unused: it has no arguments.
        guard = self._make_guard(self._arm.caps, self._hosting.period_s)  # a limit without a number keeps the motors off
        for _ in range(len(self._arm.caps.joints) + 1 if guard.wants_temperature else 0):  # each axis once, and a gripper
            guard.feel(self._arm.health().temperature)
        self._arm.activate()
        try:
            self._newest = self._arm.cycle()
            guard.reset(self._newest.q, _aperture(self._newest), self._clock_ns() / 1e9)
        except RobolearnError:
            if self._arm.state is State.ACTIVE:
                self._arm.deactivate(Stop.HOLD)
            raise
        self._guard, self._way, self._resting, self._fault, self._felt_ns = guard, Way(), True, None, self._clock_ns()
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
        self._fault, self._way = None, Way()
        return {}

    def _close(self, asked: dict[str, Any]) -> dict[str, Any]:
        del asked  # Unused: it has no arguments.
        self.ending = True
        return {"errors": self.end(Stop.HOLD)}

    def _next(self) -> tuple[Setpoint, tuple[str, ...]]:
        """Returns the guarded setpoint of this cycle, and which filters changed it."""
        assert self._guard is not None and self._rings is not None and self._newest is not None
        now, record = self._clock_ns(), self._rings[1].newest()
        fresh = record is not None and record.count > self._count and not self._ramping
        self._count = record.count if record is not None else 0
        if record is not None and fresh:
            r = record.array.view(setpoint_dtype(len(self._arm.caps.joints)))[0]
            aperture = None if np.isnan(r["aperture"]) else float(r["aperture"])
            goal = Setpoint(r["q"].copy(), aperture, int(r["t_ns"]))
            self._way = Way() if r["hold"] else self._way.to(goal, self._newest.q, record.t_ns)
        blind = self._arm.wants_hold or self._deadline.wants_hold
        asked = None if blind else self._way.at(now, self._hosting.hold_after_s)
        if asked is None:
            self._way = Way()  # the next setpoint is gone to from where the arm is then
            setpoint, self._resting = self._guard.stop(self._newest, now / 1e9)
            return setpoint, ()
        self._resting = False
        return self._guard.step(asked, self._newest, now / 1e9)

    def _ramp(self) -> None:
        """Ramps to rest, for at most `ramp_s`; setpoints that come meanwhile are passed over."""
        self._way, self._resting, self._ramping = Way(), False, True
        end = self._clock_ns() + self._hosting.ramp_s * 1e9
        try:
            while self._rings is not None and self._arm.state is State.ACTIVE and not self._resting and self._clock_ns() < end:
                self.turn()
        finally:
            self._ramping = False

    def _publish(self, state: ArmState, sent: Setpoint | None, changed: tuple[str, ...], late_s: float) -> None:
        assert self._rings is not None
        r = np.zeros(1, sample_dtype(len(self._arm.caps.joints)))
        for name in ("q", "qd", "effort", "aperture", "t_sample_ns", "t_recv_ns", "t_unc_ns", "seq", "flags", "alarm"):
            r[name] = getattr(state, name)
        r["sent"] = np.nan if sent is None else sent.q
        r["sent_aperture"] = np.nan if sent is None or sent.aperture is None else sent.aperture
        r["changed"] = sum(1 << self._filters.index(name) for name in set(changed) if name in self._filters)
        self._cycle += 1
        r["late_s"], r["holding"], r["life"] = late_s, self._way.goal is None, STATES.index(self._arm.state)
        r["cycle"] = self._cycle
        self._rings[0].write(r.view("u1"), state.t_recv_ns)


def host(name: str, make_driver: MakeDriver, make_guard: MakeGuard, hosting: Hosting, pipe: Connection, parent: int) -> None:
    orphaned: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: orphaned.append(number))
    for key in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGHUP):  # a terminal sends them to all of its processes
        signal.signal(key, signal.SIG_IGN)  # they are the parent's to handle: while it does, or stands still, the arm ramps
    die_with_parent(parent)
    with contextlib.suppress(ParentGone):
        try:
            loop = Loop(name, make_driver(), make_guard, hosting)
        except RobolearnError as error:  # the first call is answered by why there is nobody to call
            asked = heard(pipe, None)
            say(pipe, {**told(error, name), "id": asked["id"] if asked else 0})
            return
        try:
            while not orphaned and not loop.ending:
                loop.turn()
                while (asked := heard(pipe)) is not None:
                    say(pipe, {**loop.answer(asked), "id": asked["id"]})
        finally:  # also after a mistake of ours: the arm is stopped in order
            if not loop.ending:
                loop.end(hosting.on_orphan)


def told(error: RobolearnError, name: str) -> dict[str, Any]:
    """Returns an error as the parent reads it, in plain JSON values."""
    device = error.device if isinstance(error, HwError) else name
    bits = error.bits if isinstance(error, DeviceFault) else 0
    code = error.kind if isinstance(error, HwError) else ""
    return {"error": type(error).__name__, "message": str(error), "device": device, "bits": bits, "code": code}


def _aperture(state: ArmState) -> float | None:
    return None if np.isnan(state.aperture) else state.aperture
