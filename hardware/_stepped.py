"""A driver in this process, on a clock that is simulated: what `Hosted` does, without a process and as fast as the machine can.

The loop of the driver, its guard and its life are the same; only time is another: it passes when somebody sleeps.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from hardware._base import Caps, Driver, Health, Identity, Setpoint, Stop
from hardware._errors import NotReady, TransportLost
from hardware._host import raised
from hardware._life import well_formed
from hardware._loop import Loop, MakeGuard
from hardware._records import Hosting, Sample, caps_from, sample_dtype, sample_of, setpoint_dtype
from hardware._ring import Layout, Ring, new_run


class SimulatedTime:
    """Time that passes only in `sleep`; who asked for it is called on the way, at its instants."""

    def __init__(self, start_ns: int = 1_000_000_000) -> None:
        self._now_ns, self._apart = start_ns, False
        self._due_ns: list[int] = []
        self._turns: list[tuple[int, Callable[[], None]]] = []

    def now_ns(self) -> int:
        """Returns this instant [ns]."""
        return self._now_ns

    def now_s(self) -> float:
        """Returns this instant [s]."""
        return self._now_ns / 1e9

    def every(self, period_s: float, turn: Callable[[], None]) -> None:
        """Calls `turn` once a period from now on; who was called first is called first where two are due at once."""
        period_ns = round(period_s * 1e9)
        self._turns.append((period_ns, turn))
        self._due_ns.append(self._now_ns + period_ns)

    def sleep(self, seconds: float) -> None:
        """Lets so much time pass. Within a turn, or `apart`, nobody else is called meanwhile; what they miss is skipped."""
        end = self._now_ns + math.ceil(max(0.0, seconds) * 1e9)
        while not self._apart and self._turns and min(self._due_ns) <= end:
            first = int(np.argmin(self._due_ns))
            period_ns, turn = self._turns[first]
            self._now_ns = max(self._now_ns, self._due_ns[first])
            with self.apart():
                turn()
            missed = max(0, self._now_ns - self._due_ns[first]) // period_ns
            self._due_ns[first] += (1 + missed) * period_ns
        self._now_ns = max(self._now_ns, end)

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Runs a block in which time passes for itself alone."""
        before, self._apart = self._apart, True
        try:
            yield
        finally:
            self._apart = before


class Stepped:
    """A driver at work in this process. Its loop turns once a period of `time`, whenever somebody sleeps there."""

    def __init__(
        self, name: str, driver: Driver, make_guard: MakeGuard, time: SimulatedTime, hosting: Hosting = Hosting()
    ) -> None:
        """driver: made with `time.now_ns` as its clock."""
        self.name, self._time, self._hosting = name, time, hosting
        self._loop = Loop(name, driver, make_guard, hosting, time.now_ns, time.sleep)
        self._rings: tuple[Ring, Ring] | None = None
        self.filters: tuple[str, ...] = ()
        time.every(hosting.period_s, self._loop.turn)

    caps: Caps
    """What the connected device can do."""

    @property
    def alive(self) -> bool:
        """Whether it was not closed."""
        return not self._loop.ending

    def connect(self) -> Identity:
        """Opens the device and starts the loop, which reads only until `activate`."""
        said, run = self._call("connect"), new_run()
        self.caps = caps_from(said["caps"])
        n = len(self.caps.joints)
        layouts = [
            Layout(f"{run}-{self.name}-{kind}", "u1", (dtype.itemsize,), depth)
            for kind, dtype, depth in (("state", sample_dtype(n), 64), ("setpoint", setpoint_dtype(n), 8))
        ]
        self._rings = Ring(layouts[0], create=True), Ring(layouts[1], create=True)
        self._call("loop", layouts=[asdict(layout) for layout in layouts])
        return Identity(**said["identity"])

    def configure(self) -> Mapping[str, tuple[Any, Any]]:
        """Writes the settings that differ, and returns them."""
        return dict(self._call("configure")["changed"])

    def activate(self) -> None:
        """Switches the motors on where the arm is; it holds until the first setpoint."""
        self.filters = tuple(self._call("activate")["filters"])

    def deactivate(self, stop: Stop, *, drop: bool = False) -> None:
        """Ramps to rest and ends motion in one of the ways the device declares."""
        self._call("deactivate", stop=str(stop), drop=drop)

    def clear_fault(self) -> None:
        """Clears what the device holds against us, without motion."""
        self._call("clear_fault")

    def health(self) -> Health:
        """Returns the slow values and all counters."""
        return Health(**self._call("health"))

    def fault(self) -> Exception | None:
        """Returns the error that ended the last motion, of its own kind; None where nothing did."""
        said = self._call("fault")["fault"]
        return None if said is None else raised(said)

    def command(self, setpoint: Setpoint) -> None:
        """Leaves a setpoint for the next cycle; what is not finite or of another shape is refused here."""
        self._leave(setpoint)

    def hold(self) -> None:
        """Asks for a ramp to rest, to be held until the next setpoint."""
        self._leave(None)

    def read(self) -> Sample:
        """Returns the newest cycle; NotReady before the first."""
        record = self._rings[0].newest() if self._rings else None
        if record is None:
            raise NotReady(self.name, "read: there is no sample yet; connect first")
        return self._sample(record.array)

    def read_fresh(self, after: int, timeout_s: float) -> Sample:
        """Lets time pass until a cycle after number `after`, and returns it; TransportLost where none comes in time."""
        end = self._time.now_ns() + timeout_s * 1e9
        while (sample := self.read()).cycle <= after:
            if self._time.now_ns() > end:
                raise TransportLost(self.name, f"no new cycle in {timeout_s:g} s")
            self._time.sleep(self._hosting.period_s)
        return sample

    def history(self, k: int) -> list[Sample]:
        """Returns up to k cycles, oldest first."""
        return [self._sample(record.array) for record in self._rings[0].last(k)] if self._rings else []

    def close(self) -> list[str]:
        """Ramps to rest and closes the device; returns what went wrong, never raises, may be called twice."""
        went_wrong = [] if self._loop.ending else list(self._call("close")["errors"])
        for ring in self._rings or ():
            ring.close()
            ring.unlink()
        self._rings = None
        return went_wrong

    def _leave(self, setpoint: Setpoint | None) -> None:
        if self._rings is None:
            raise NotReady(self.name, "setpoint: connect first")
        record = np.zeros(1, setpoint_dtype(len(self.caps.joints)))
        if setpoint is None:
            record["hold"] = True
        else:
            record["q"] = well_formed(setpoint, self.caps, self.name)
            record["aperture"] = np.nan if setpoint.aperture is None else setpoint.aperture
            record["t_ns"] = setpoint.t_ns or self._time.now_ns()
        self._rings[1].write(record.view("u1"), self._time.now_ns())

    def _sample(self, raw: np.ndarray) -> Sample:
        return sample_of(raw.view(sample_dtype(len(self.caps.joints)))[0])

    def _call(self, what: str, **arguments: Any) -> dict[str, Any]:
        with self._time.apart():  # the loop turns by itself where a call wants it to
            return self._loop.calls[what](arguments)
