"""A driver in a process of its own: the policy's interpreter never waits for the wire, and a crash of one leaves the other.

Calls that may block (connect, configure, ...) go through a pipe; setpoints and samples through shared memory. Without a new
setpoint for `Hosting.hold_after_s` the arm ramps to rest and holds; when the parent ends, it ramps, ends as `Hosting.on_orphan`
says, and goes.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from hardware import _errors
from hardware._base import Health, Identity, Setpoint, Stop
from hardware._errors import DriverEnded, NotReady, TransportLost
from hardware._life import well_formed
from hardware._loop import MakeDriver, MakeGuard, host
from hardware._records import Hosting, Sample, caps_from, sample_dtype, sample_of, setpoint_dtype
from hardware._ring import Layout, Ring
from robolearn import errors
from robolearn.errors import HardwareError


class Hosted:
    """A driver at work in another process. Reading and commanding copy memory; all else is a call that waits for its answer.

    Its process also ends with the thread that made it: make it in one that lasts, as the main thread does.
    """

    def __init__(self, name: str, make_driver: MakeDriver, make_guard: MakeGuard, run: str, hosting: Hosting = Hosting()) -> None:
        """name: in messages and segments; run: of `new_run`.

        make_driver, make_guard: functions of a module, or partials of one; they are called in the new process.
        """
        self.name, self._run, self._hosting = name, run, hosting
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        arguments = (name, make_driver, make_guard, hosting, far, os.getpid())
        self._process = context.Process(target=host, args=arguments, name=f"driver {name}", daemon=True)
        self._process.start()
        far.close()
        self._rings: tuple[Ring, Ring] | None = None
        self.filters: tuple[str, ...] = ()
        self._calls = 0

    @property
    def pid(self) -> int:
        """Of the driver's process."""
        return int(self._process.pid or 0)

    @property
    def alive(self) -> bool:
        """Whether the driver's process runs."""
        return self._process.is_alive()

    def connect(self, timeout_s: float = 20.0) -> Identity:
        """Opens the device in its process and starts the loop, which reads only until `activate`.

        Raises what the device says at the first sample: the fault that it already has, an emergency stop that is pressed.
        """
        said = self._call("connect", timeout_s)
        self.caps = caps_from(said["caps"])
        n = len(self.caps.joints)
        layouts = [
            Layout(f"{self._run}-{self.name}-{kind}", "u1", (dtype.itemsize,), depth)
            for kind, dtype, depth in (("state", sample_dtype(n), 64), ("setpoint", setpoint_dtype(n), 8))
        ]
        self._rings = Ring(layouts[0], create=True), Ring(layouts[1], create=True)
        self._call("loop", timeout_s, layouts=[asdict(layout) for layout in layouts])  # there is a sample to read, or it raises
        return Identity(**{**said["identity"], "parts": tuple(said["identity"]["parts"])})

    def configure(self, timeout_s: float = 20.0) -> Mapping[str, tuple[Any, Any]]:
        """Writes the settings that differ, and returns them."""
        return {key: (was, now) for key, (was, now) in self._call("configure", timeout_s)["changed"].items()}

    def activate(self, timeout_s: float = 20.0) -> None:
        """Switches the motors on where the arm is; it holds until the first setpoint."""
        self.filters = tuple(self._call("activate", timeout_s)["filters"])

    def deactivate(self, stop: Stop, *, drop: bool = False, timeout_s: float = 20.0) -> None:
        """Ramps to rest and ends motion in one of the ways the device declares."""
        self._call("deactivate", timeout_s, stop=str(stop), drop=drop)

    def clear_fault(self, timeout_s: float = 30.0) -> None:
        """Clears what the device holds against us, without motion."""
        self._call("clear_fault", timeout_s)

    def health(self, timeout_s: float = 5.0) -> Health:
        """Returns the slow values and all counters."""
        return Health(**self._call("health", timeout_s))

    def fault(self, timeout_s: float = 5.0) -> Exception | None:
        """Returns the error that ended the last motion, of its own kind; None where nothing did."""
        said = self._call("fault", timeout_s)["fault"]
        return None if said is None else raised(said)

    def command(self, setpoint: Setpoint) -> None:
        """Leaves a setpoint for the next cycle; the newest counts, and what is not finite or of another shape is refused here."""
        self._leave(setpoint)

    def hold(self) -> None:
        """Asks for a ramp to rest, to be held until the next setpoint (stop category 2)."""
        self._leave(None)

    def read(self) -> Sample:
        """Returns the newest cycle, without the wire. NotReady before the first, TransportLost where the process is gone."""
        if not self.alive:
            raise DriverEnded(self.name, f"its driver process has ended (exit code {self._process.exitcode})")
        record = self._rings[0].newest() if self._rings else None
        if record is None:
            raise NotReady(self.name, "read: there is no sample yet; connect first")
        return self._sample(record.array)

    def read_fresh(self, after: int, timeout_s: float) -> Sample:
        """Returns the first cycle after number `after`; TransportLost where none comes in time."""
        end = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(NotReady):
                sample = self.read()
                if sample.cycle > after:
                    return sample
            if time.monotonic() > end:
                raise TransportLost(self.name, f"no new cycle in {timeout_s:g} s")
            time.sleep(min(0.001, self._hosting.period_s / 4))

    def history(self, k: int) -> list[Sample]:
        """Returns up to k cycles, oldest first."""
        return [self._sample(record.array) for record in self._rings[0].last(k)] if self._rings else []

    def close(self, timeout_s: float = 5.0) -> list[str]:
        """Ramps to rest, closes the device, ends the process (by force at last); returns what went wrong, never raises."""
        went_wrong: list[str] = []
        if self.alive:
            try:
                went_wrong += self._call("close", timeout_s)["errors"]
            except (HardwareError, OSError) as error:
                went_wrong.append(str(error))
            self._process.join(timeout_s)
            if self.alive:
                self._process.kill()
                self._process.join()
                went_wrong.append(f"{self.name}: its driver process had to be killed")
        for ring in self._rings or ():
            ring.close()
            ring.unlink()
        self._rings = None
        self._pipe.close()
        return went_wrong

    def _leave(self, setpoint: Setpoint | None) -> None:
        """Leaves a setpoint in shared memory, or None for a hold."""
        if self._rings is None:
            raise NotReady(self.name, f"{'setpoint' if setpoint else 'hold'}: connect first")
        now, record = time.monotonic_ns(), np.zeros(1, setpoint_dtype(len(self.caps.joints)))
        if setpoint is None:
            record["hold"] = True
        else:
            record["q"] = well_formed(setpoint, self.caps, self.name)
            record["aperture"] = np.nan if setpoint.aperture is None else setpoint.aperture
            record["t_ns"] = setpoint.t_ns or now
        self._rings[1].write(record.view("u1"), now)

    def _sample(self, raw: np.ndarray) -> Sample:
        r = raw.view(sample_dtype(len(self.caps.joints)))[0]
        return sample_of(r)

    def _call(self, what: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        self._calls += 1
        said: dict[str, Any] = {}
        end = time.monotonic() + timeout_s
        try:
            self._pipe.send_bytes(json.dumps({"call": what, "id": self._calls, **arguments}).encode())
            while said.get("id") != self._calls:  # what answers an earlier call came too late for it
                if not self._pipe.poll(max(0.0, end - time.monotonic())):
                    raise TransportLost(self.name, f"{what}: its driver process does not answer in {timeout_s:g} s")
                said = dict(json.loads(self._pipe.recv_bytes()))
        except (EOFError, OSError):
            raise DriverEnded(self.name, f"{what}: its driver process has ended (exit code {self._process.exitcode})") from None
        del said["id"]
        if "error" in said:
            raise raised(said)
        return said


def raised(said: dict[str, Any]) -> Exception:
    """Returns the error that a process told of, of the same kind where it is one of the family's plain ones."""
    kind = getattr(_errors, said["error"], None)
    message, device = said["message"].removeprefix(f"{said['device']}: "), said["device"]
    if kind is _errors.DeviceFault:
        return _errors.DeviceFault(device, message, said["bits"], code=said["code"])
    if kind is not None:
        return kind(device, message, code=said["code"])
    known = getattr(errors, said["error"], None)
    plain = known if known not in (None, errors.MissingDependency, errors.UnknownName, errors.AlreadyExists) else HardwareError
    return plain(said["message"])
