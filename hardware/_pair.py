"""An arm and a gripper of two makers as one arm: two drivers in two processes, one setpoint, one sample.

The arm's sample counts, with the gripper's aperture of the same moment in it. A fault of either is a fault of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from hardware._base import ArmState, Caps, Sampled, Setpoint, State, Stop
from hardware._host import Hosted
from hardware._records import Sample

NO_JOINTS = np.zeros(0)
_FRESH_S = 2.0  # patience with the next cycle


class Pair:
    """What `RealEnv` needs of an arm, over an arm and a gripper. Both are connected already."""

    def __init__(self, arm: Hosted, gripper: Hosted) -> None:
        self.arm, self.gripper, self.name = arm, gripper, arm.name
        self.caps: Caps = replace(arm.caps, opening_m=gripper.caps.opening_m)

    @property
    def filters(self) -> tuple[str, ...]:
        """Names of the arm's limits, in order."""
        return self.arm.filters

    @property
    def alive(self) -> bool:
        """Whether both processes run."""
        return self.arm.alive and self.gripper.alive

    @property
    def _off(self) -> list[Hosted]:
        return [part for part in (self.gripper, self.arm) if not _on(part)]

    def activate(self, timeout_s: float = 20.0) -> None:
        """Switches on, where it is, what is not on yet; the gripper first, for it may have to find its ends."""
        for part in self._off:
            part.activate(timeout_s)

    def configure(self, timeout_s: float = 20.0) -> Mapping[str, tuple[object, object]]:
        """Writes the settings that differ of what is not switched on, and returns them."""
        changed: dict[str, tuple[object, object]] = {}
        for part in self._off:
            changed |= part.configure(timeout_s)
        return changed

    def deactivate(self, stop: Stop, *, drop: bool = False, timeout_s: float = 20.0) -> None:
        """Ends the arm's motion; the gripper keeps what it holds, for a dropped object is a hazard."""
        self.arm.deactivate(stop, drop=drop, timeout_s=timeout_s)
        self.gripper.deactivate(Stop.HOLD, timeout_s=timeout_s)

    def clear_fault(self, timeout_s: float = 30.0) -> None:
        """Clears what either holds against us."""
        for part in (self.gripper, self.arm):
            if part.read().life is State.FAULT:
                part.clear_fault(timeout_s)

    def command(self, setpoint: Setpoint) -> None:
        """Leaves each its part; an aperture of None leaves the gripper where it is."""
        self.arm.command(replace(setpoint, aperture=None))
        if setpoint.aperture is not None:
            self.gripper.command(Setpoint(NO_JOINTS, setpoint.aperture, setpoint.t_ns))

    def hold(self) -> None:
        """Asks both for a ramp to rest."""
        self.arm.hold()
        self.gripper.hold()

    def read(self) -> Sample:
        """Returns the arm's newest cycle with the gripper's aperture."""
        return _joined(self.arm.read(), self.gripper.read())

    def read_fresh(self, after: int, timeout_s: float) -> Sample:
        """Returns the arm's first cycle after number `after`; TransportLost where none comes in time."""
        return _joined(self.arm.read_fresh(after, timeout_s), self.gripper.read())

    def heard(self) -> dict[str, int]:
        """Returns when the joints and the gripper were heard of last [ns]."""
        return {**self.arm.heard(), "gripper": self.gripper.read().state.t_recv_ns}

    def history(self, k: int) -> list[Sample]:
        """Returns up to k cycles of the arm, oldest first, each with the aperture of the gripper's nearest cycle before it."""
        fingers = self.gripper.history(k)
        if not fingers:
            return self.arm.history(k)
        stamps = np.array([one.state.t_sample_ns for one in fingers])
        joined = []
        for sample in self.arm.history(k):
            place = int(np.searchsorted(stamps, sample.state.t_sample_ns, side="right")) - 1
            joined.append(_joined(sample, fingers[max(place, 0)]))
        return joined

    def fault(self, timeout_s: float = 5.0) -> Exception | None:
        """Returns the error that ended the last motion of either, of its own kind; None where nothing did."""
        return self.arm.fault(timeout_s) or self.gripper.fault(timeout_s)

    def close(self, timeout_s: float = 5.0) -> list[str]:
        """Closes both, the arm first, and returns what went wrong."""
        return [*self.arm.close(timeout_s), *self.gripper.close(timeout_s)]


@dataclass
class GripperGuard:
    """A `Guard` for what has no joints: the aperture moves at most so fast [1/s]."""

    period_s: float
    speed: float = 2.0
    filters: tuple[str, ...] = ("aperture",)
    wants_temperature: bool = False
    _last: float | None = None

    def reset(self, q: np.ndarray, aperture: float | None, now_s: float) -> None:
        """Begins where the fingers are."""
        self._last = aperture

    def feel(self, temperature: Mapping[str, float]) -> None:
        """Has no use for temperatures."""

    def step(self, setpoint: Setpoint, state: ArmState, now_s: float) -> tuple[Setpoint, tuple[str, ...]]:
        """Returns the aperture one period further."""
        wanted = setpoint.aperture
        if wanted is None or not np.isfinite(wanted):
            return Setpoint(NO_JOINTS, self._last), ()
        last = wanted if self._last is None else self._last
        most = self.speed * self.period_s
        self._last = float(np.clip(np.clip(wanted, last - most, last + most), 0.0, 1.0))
        return Setpoint(NO_JOINTS, self._last), ("aperture",) if self._last != wanted else ()

    def stop(self, state: ArmState, now_s: float) -> tuple[Setpoint, bool]:
        """Stays."""
        return Setpoint(NO_JOINTS, self._last), True


def make_gripper_guard(caps: Caps, period_s: float) -> GripperGuard:
    """Returns the guard of a gripper alone, for `Hosted`."""
    del caps  # Unused: an aperture has no unit.
    return GripperGuard(period_s)


def _on(part: Hosted) -> bool:
    """Returns whether it is switched on, by a cycle that began after this question: the newest may be of before the last call."""
    sample = part.read()
    return sample.life is State.ACTIVE and part.read_fresh(sample.cycle, _FRESH_S).life is State.ACTIVE


def _joined(arm: Sample, fingers: Sample) -> Sample:
    stale = Sampled.STALE if fingers.state.flags & Sampled.STALE else 0
    emulated = arm.state.flags & fingers.state.flags & Sampled.EMULATED  # metal in either is metal
    flags = (arm.state.flags & ~Sampled.EMULATED) | stale | emulated
    life = State.FAULT if State.FAULT in (arm.life, fingers.life) else arm.life
    state = replace(arm.state, aperture=fingers.state.aperture, flags=int(flags), alarm=arm.state.alarm or fingers.state.alarm)
    holding = arm.holding  # a gripper that holds is a gripper at work
    return replace(arm, state=state, sent_aperture=fingers.sent_aperture, life=life, holding=holding)
