"""What a driver's loop is asked from outside and what it left to be read, wherever it runs: in a process of its own, or beside.

Calls go by `_call`; setpoints and samples go through two rings. `hardware._host` and `hardware._stepped` say how a call travels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from hardware import _errors
from hardware._base import Caps, Health, Identity, Setpoint, Stop
from hardware._errors import NotReady
from hardware._life import well_formed
from hardware._records import Sample, caps_from, sample_dtype, sample_of, setpoint_dtype
from hardware._ring import Layout, Ring
from robolearn import errors
from robolearn.errors import HardwareError


class Asked(ABC):
    """A driver at work. name: in messages and segments; caps: from `connect` on; filters: of the guard, from `activate` on."""

    name: str
    caps: Caps
    filters: tuple[str, ...] = ()
    _rings: tuple[Ring, Ring] | None = None  # of states, of setpoints

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
        """Returns the newest cycle, without the wire. NotReady before the first."""
        record = self._rings[0].newest() if self._rings else None
        if record is None:
            raise NotReady(self.name, "read: there is no sample yet; connect first")
        return self._sample(record.array)

    def heard(self) -> dict[str, int]:
        """Returns when the joints were heard of last [ns], by the loop's clock."""
        return {"joints": self.read().state.t_recv_ns}

    def history(self, k: int) -> list[Sample]:
        """Returns up to k cycles, oldest first."""
        return [self._sample(record.array) for record in self._rings[0].last(k)] if self._rings else []

    @abstractmethod
    def _call(self, what: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        """Returns what the loop answers; raises what it raises."""

    @abstractmethod
    def _now_ns(self) -> int:
        """Returns this instant by the loop's clock."""

    def _begun(self, run: str, timeout_s: float) -> Identity:
        """Opens the device and starts the loop, which reads only until `activate`; run: opens the names of the rings."""
        said = self._call("connect", timeout_s)
        self.caps = caps_from(said["caps"])
        n = len(self.caps.joints)
        layouts = [
            Layout(f"{run}-{self.name}-{kind}", "u1", (dtype.itemsize,), depth)
            for kind, dtype, depth in (("state", sample_dtype(n), 64), ("setpoint", setpoint_dtype(n), 8))
        ]
        self._rings = Ring(layouts[0], create=True), Ring(layouts[1], create=True)
        self._call("loop", timeout_s, layouts=[asdict(layout) for layout in layouts])  # there is a sample to read, or it raises
        return Identity(**{**said["identity"], "parts": tuple(said["identity"]["parts"])})

    def _unlink(self) -> None:
        """Lets go of the rings and removes them."""
        for ring in self._rings or ():
            ring.close()
            ring.unlink()
        self._rings = None

    def _leave(self, setpoint: Setpoint | None) -> None:
        """Leaves a setpoint for the loop, or None for a hold."""
        if self._rings is None:
            raise NotReady(self.name, f"{'setpoint' if setpoint else 'hold'}: connect first")
        now, record = self._now_ns(), np.zeros(1, setpoint_dtype(len(self.caps.joints)))
        if setpoint is None:
            record["hold"] = True
        else:
            record["q"] = well_formed(setpoint, self.caps, self.name)
            record["aperture"] = np.nan if setpoint.aperture is None else setpoint.aperture
            record["t_ns"] = setpoint.t_ns or now
        self._rings[1].write(record.view("u1"), now)

    def _sample(self, raw: np.ndarray) -> Sample:
        return sample_of(raw.view(sample_dtype(len(self.caps.joints)))[0])


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
