"""The life of a driver, kept from outside: which call is allowed when, what never reaches the wire, how much a bad wire is borne.

    CREATED -connect-> CONNECTED -configure-> CONFIGURED -activate-> ACTIVE -deactivate-> CONNECTED
    any -> FAULT -deactivate-> FAULT -clear_fault-> CONNECTED        any -disconnect-> CLOSED, for good

One cycle may retry once, within 30 % of the period; then it returns the last sample, flagged STALE. Three such cycles in a row
ask for HOLD, ten of them or 200 ms are a fault.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hardware._base import ArmState, Caps, Driver, Health, Identity, Sampled, Setpoint, State, Stop
from hardware._errors import BadCommand, DeviceFault, HwError, LimitViolation, NotReady, TransportCorrupt, TransportLost

_TOLERANCE = 1e-6  # [rad] a setpoint may lie beyond a hard limit by rounding
_DEGREES = np.pi / 180
_FROM: dict[str, tuple[State, ...]] = {
    "connect": (State.CREATED,),
    "configure": (State.CONNECTED,),
    "activate": (State.CONFIGURED,),
    "exchange": (State.CONNECTED, State.CONFIGURED, State.ACTIVE, State.STOPPING),
    "deactivate": (State.ACTIVE, State.STOPPING, State.FAULT),
    "clear_fault": (State.FAULT,),
}


@dataclass(frozen=True)
class Budget:
    """How much of a bad wire is borne.

    retries: in a cycle; share: of the period, in which they may begin; soft, hard: misses in a row until HOLD and FAULT; hard_s:
    silence [s] until FAULT.
    """

    retries: int = 1
    share: float = 0.3
    soft: int = 3
    hard: int = 10
    hard_s: float = 0.2


def well_formed(setpoint: Setpoint, caps: Caps, name: str) -> np.ndarray:
    """Returns the joints (n,) [rad] of a setpoint; BadCommand where they, or the aperture, are nothing a motor may see."""
    q = np.asarray(setpoint.q)
    if q.shape != (len(caps.joints),) or q.dtype.kind != "f" or not np.isfinite(q).all():
        shown = np.array2string(q, precision=3, threshold=8)
        raise BadCommand(name, f"setpoint: want {len(caps.joints)} finite numbers [rad], got {shown}")
    if setpoint.aperture is not None and not (0.0 <= setpoint.aperture <= 1.0 and caps.gripper):
        wanted = "an aperture of 0 to 1" if caps.gripper else "no aperture: there is no gripper"
        raise BadCommand(name, f"setpoint: want {wanted}, got {setpoint.aperture}")
    return q


class Attended:
    """A driver whose every call is checked: its state, its setpoints, its answers. It is what everything else talks to."""

    def __init__(
        self,
        driver: Driver,
        name: str,
        period_s: float,
        budget: Budget = Budget(),
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """name: opens every message; period_s: of the cycle; clock_ns: monotonic [ns]."""
        self.name, self.state, self.caps = name, State.CREATED, None  # type: ignore[assignment]
        self.counters: Counter[str] = Counter()
        self._driver, self._period_ns, self._budget, self._clock_ns = driver, period_s * 1e9, budget, clock_ns
        self.last: ArmState | None = None
        self.sent: np.ndarray | None = None
        self._misses, self._good_ns = 0, 0

    caps: Caps
    """What the connected device can do."""
    last: ArmState | None
    """The newest sample that came from the device, also where it told of an alarm; None before the first of this life."""
    sent: np.ndarray | None
    """The newest setpoint (n,) [rad] that may have reached the device; None before the first since `activate`."""

    @property
    def wants_hold(self) -> bool:
        """True after so many misses in a row that moving on would be blind."""
        return self._misses >= self._budget.soft

    def connect(self) -> Identity:
        """Opens the device, reads who it is and what it can do."""
        self._require("connect")
        identity = self._driver.connect()
        self.caps, self.state = self._driver.capabilities(), State.CONNECTED
        return identity

    def configure(self) -> Mapping[str, tuple[Any, Any]]:
        """Writes what differs; returns it."""
        self._require("configure")
        changed = self._driver.configure()
        self.state = State.CONFIGURED
        self._begin_anew()
        return changed

    def activate(self) -> None:
        """Takes the measured pose as goal and switches the motors on. NotReady before `configure`, or without limits."""
        self._require("activate")
        if not (np.isfinite(self.caps.lower).all() and np.isfinite(self.caps.upper).all() and (self.caps.velocity > 0).all()):
            raise NotReady(
                self.name, "activate: the device gives no finite limits; calibrate it, or name them in the configuration"
            )
        try:
            self._driver.activate()
        except HwError:
            self.state = State.FAULT
            raise
        self.state, self.sent = State.ACTIVE, None
        self._begin_anew()

    def cycle(self, setpoint: Setpoint | None = None) -> ArmState:
        """Sends a checked setpoint and returns a sample: a new one, or the last one flagged STALE within the budget.

        BadCommand and LimitViolation leave the wire untouched; what exceeds the budget, or does not pass by itself, is a fault.
        """
        self._require("exchange")
        if setpoint is not None:
            self._check(setpoint)
            self.sent = setpoint.q.copy()
        began = self._clock_ns()
        for attempt in range(1 + self._budget.retries):
            try:
                state = self._driver.exchange(setpoint)
            except HwError as error:
                self.counters[error.code] += 1
                if not error.transient:
                    self.state = State.FAULT
                    raise
                late = self._clock_ns() - began > self._budget.share * self._period_ns
                if late or attempt == self._budget.retries:
                    return self._missed(error)
                self.counters["retries"] += 1
            else:
                return self._took(state)
        raise AssertionError("unreachable")

    def deactivate(self, stop: Stop, *, drop: bool = False) -> None:
        """Ends motion in a declared way.

        NotReady for a way that the device has not, and for RELEASE of an arm without brakes unless `drop`. A fault stays one.
        """
        self._require("deactivate")
        if stop not in self.caps.stops:
            raise NotReady(self.name, f"deactivate: it cannot {stop}, only {', '.join(self.caps.stops)}")
        if stop is Stop.RELEASE and self.caps.joints and not self.caps.brakes and not drop:
            raise NotReady(self.name, "deactivate: without brakes the arm falls when released; park it first, or say drop=True")
        faulty = self.state is State.FAULT
        self.state = State.FAULT if faulty else State.STOPPING
        self._driver.deactivate(stop)
        self.state = State.FAULT if faulty else State.CONNECTED
        self._begin_anew()

    def clear_fault(self) -> None:
        """Clears what the device holds against us; the next steps are `configure` and `activate`."""
        self._require("clear_fault")
        self._driver.clear_fault()
        self.last, self.state = None, State.CONNECTED
        self._begin_anew()

    def health(self) -> Health:
        """Returns the slow values and the counters; what does not answer is counted and left out."""
        try:
            slow = self._driver.health()
        except HwError as error:
            self.counters[error.code] += 1
            slow = Health()
        return replace(slow, counters=dict(Counter(slow.counters) + self.counters))

    def disconnect(self) -> list[Exception]:
        """Closes the device for good; never raises."""
        self.state = State.CLOSED
        return self._driver.disconnect()

    def _require(self, call: str) -> None:
        if self.state not in _FROM[call]:
            raise NotReady(self.name, f"{call}: want state {' or '.join(_FROM[call])}, it is {self.state}", phase=call)

    def _begin_anew(self) -> None:
        """Counts misses and silence from here: while a call was at work, nobody asked for a sample."""
        self._misses, self._good_ns = 0, self._clock_ns()

    def _check(self, setpoint: Setpoint) -> None:
        """The border before the wire. From outside the hard range an arm may come back, and stay, but go no farther."""
        if self.state is not State.ACTIVE:
            raise NotReady(self.name, f"setpoint: want state active, it is {self.state}")
        q = well_formed(setpoint, self.caps, self.name)
        here = [at for at in (self.sent, None if self.last is None else self.last.q) if at is not None]
        lower, upper = np.min([self.caps.lower, *here], axis=0), np.max([self.caps.upper, *here], axis=0)
        beyond = (q < lower - _TOLERANCE) | (q > upper + _TOLERANCE)
        if beyond.any():
            j = int(np.argmax(beyond))
            span = f"{lower[j]:.3f} to {upper[j]:.3f} rad"
            degrees = np.all((q * _DEGREES >= self.caps.lower) & (q * _DEGREES <= self.caps.upper))
            hint = "; are these degrees?" if degrees and np.abs(q).max() > 2 * np.pi else ""
            raise LimitViolation(self.name, f"setpoint: {self.caps.joints[j]} wants {span}, got {q[j]:.3f}{hint}")

    def _took(self, state: ArmState) -> ArmState:
        wanted = (len(self.caps.joints),)
        if state.q.shape != wanted or not np.isfinite(state.q).all():
            return self._missed(TransportCorrupt(self.name, f"sample: want {wanted} finite numbers, got {state.q}"))
        self._misses, self._good_ns, self.last = 0, self._clock_ns(), state
        self.counters["samples"] += 1
        if state.alarm:
            self.state = State.FAULT
            named = "; ".join(f"{axis}: {', '.join(bits)}" for axis, bits in self._alarms().items())
            raise DeviceFault(
                self.name, f"the device raised an alarm ({named or hex(state.alarm)})", state.alarm, phase="exchange"
            )
        return state

    def _alarms(self) -> Mapping[str, tuple[str, ...]]:
        try:
            return self._driver.health().alarm
        except HwError:
            return {}

    def _missed(self, error: HwError) -> ArmState:
        """Returns the last sample flagged STALE, or ends the patience."""
        self._misses += 1
        self.counters["stale"] += 1
        silent_s = (self._clock_ns() - self._good_ns) / 1e9 if self._good_ns else 0.0
        if self._misses >= self._budget.hard or silent_s > self._budget.hard_s:
            self.state = State.FAULT
            lost = f"no answer in {self._misses} cycles, {1000 * silent_s:.0f} ms ({error})"
            raise TransportLost(self.name, lost, phase="exchange") from error
        if self.last is None:
            raise error
        return replace(self.last, flags=self.last.flags | Sampled.STALE)
