"""`RealEnv`: a robot with cameras as `core.Env`. It owns the clock: `step` waits for the tick, so that the loop needs no sleep.

An action becomes a joint target by a codec and leaves through the guard of the arm's own process; what was really sent comes
back in the step. An observation belongs to one instant, the newest that all cameras have seen; joints are interpolated there.
Pictures are not: each is its camera's newest, so one of a camera that is ahead was taken later than the instant, by its lead over
the slowest camera, and the frame nearest to the instant may be an older one. What `sensed` reads is its newest, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from hardware._base import ArmState, Frame, Sampled, Setpoint, State
from hardware._errors import DeviceFault, HwError, JointsSilent, StaleData
from hardware._records import Sample
from robolearn.clock import Deadline
from robolearn.core import ArraySpec, Flag, Obs, Spec, Step
from robolearn.errors import SpecMismatch

_HISTORY = 60  # cycles of the arm that an observation may look back on
_MISS_M, _MISS_RAD = 1e-3, np.deg2rad(0.5)  # a hand that misses the asked pose by more was not sent where it was asked


class Arm(Protocol):
    """What `RealEnv` needs of an arm; `hardware._host.Hosted` is one. heard: when each of its parts was heard of last [ns]."""

    name: str

    def command(self, setpoint: Setpoint) -> None: ...
    def hold(self) -> None: ...
    def read(self) -> Sample: ...
    def history(self, k: int) -> list[Sample]: ...
    def heard(self) -> Mapping[str, int]: ...
    def fault(self) -> Exception | None: ...


class Eye(Protocol):
    """What it needs of a camera: the newest frame, None before the first."""

    def newest(self) -> Frame | None: ...


class Codec(Protocol):
    """Between the policy's actions and joint targets, both ways (see `robolearn.runtime.codecs`)."""

    action: ArraySpec

    def target(self, action: np.ndarray, q: np.ndarray) -> TargetLike: ...
    def action_of(self, q: np.ndarray, aperture: float, before: np.ndarray) -> np.ndarray: ...


class TargetLike(Protocol):
    """A joint target, and by how much [m, rad] the hand would miss the pose that was asked."""

    @property
    def q(self) -> np.ndarray: ...
    @property
    def aperture(self) -> float | None: ...
    @property
    def position(self) -> float: ...
    @property
    def angle(self) -> float: ...


@dataclass(frozen=True)
class Shown:
    """One observation key: what it looks like, and how it comes from a state of the arm."""

    spec: ArraySpec
    of: Callable[[ArmState], np.ndarray]


@dataclass(frozen=True)
class Sensed:
    """One observation key from elsewhere; `read` returns the newest value and when it was measured [monotonic ns]."""

    spec: ArraySpec
    read: Callable[[], tuple[np.ndarray, int]]


@dataclass(frozen=True)
class Ages:
    """How old an input may be [s] until it is flagged (late), and until the arm holds and the step raises StaleData (gone)."""

    late_s: float = 0.1
    gone_s: float = 2.0


@dataclass
class RealEnv:
    """A robot as a body.

    spec: what it shows and takes; shown, sensed, eyes: where each observation key comes from; codec: of spec.codec; begin: brings
    the arm to where an episode starts (align, with whatever consent that needs); rate: keeps spec.hz. age_s: of the oldest input
    of the newest observation; late: the inputs that are older than `ages.late_s` ("joints" and observation keys); rest: the
    action (action,) that keeps the arm where the episode began.
    """

    spec: Spec
    arm: Arm
    codec: Codec
    shown: Mapping[str, Shown]
    eyes: Mapping[str, Eye] = field(default_factory=dict)
    sensed: Mapping[str, Sensed] = field(default_factory=dict)
    begin: Callable[[int | None], None] = lambda seed: None
    ages: Ages = Ages()
    clock_ns: Callable[[], int] = time.monotonic_ns
    rate: Deadline | None = None

    def __post_init__(self) -> None:
        for key in self.spec.obs:
            if not (key in self.shown or key in self.eyes or key in self.sensed):
                raise SpecMismatch(f"{self.arm.name}: nothing shows observation '{key}'; it has {', '.join(self._keys())}")
        if self.codec.action.shape != self.spec.action.shape:
            want, got = self.spec.action.shape, self.codec.action.shape
            raise SpecMismatch(f"{self.arm.name}: codec '{self.spec.codec}' takes actions of shape {got}, the spec says {want}")
        self.rate = self.rate or Deadline(1.0 / self.spec.hz)
        self._frames: dict[str, int] = {}
        self.age_s, self.late = 0.0, tuple[str, ...]()
        self._fault: tuple[tuple[int, int], Exception] | None = None
        self.rest = np.zeros(self.spec.action.shape, self.spec.action.dtype)

    def reset(self, seed: int | None = None) -> Obs:
        """Brings the arm to its start and returns the first observation; StaleData where an input is missing."""
        self.begin(seed)
        self._frames = {}
        assert self.rate is not None
        self.rate.restart()  # what beginning took is no lateness of the first tick
        self.rate.wait()
        obs, _ = self._observe(sample := self._healthy())
        q = sample.state.q
        self.rest = self.codec.action_of(q, sample.state.aperture, q).astype(self.spec.action.dtype)
        return obs

    def step(self, action: np.ndarray) -> Step:
        """Sends an action, waits for the tick, and returns what came of it.

        Raises what the arm's process told of a fault, StaleData where an input is gone; the arm then holds.
        """
        self.spec.action.check(action, f"{self.arm.name} action")
        began = self._healthy()
        target = self.codec.target(action, began.state.q)
        self._send(target.q, target.aperture)
        return self._tick(began, action, missed=target.position > _MISS_M or target.angle > _MISS_RAD)

    def still(self) -> Step:
        """Asks the arm to ramp to rest and hold, waits for the tick, and returns what came of it; raises as `step`."""
        began = self._healthy()
        self.arm.hold()
        return self._tick(began, None)

    def toward(self, q: np.ndarray) -> Step:
        """Sends joint angles (n,) [rad] past the codec, as an align phase does; the gripper stays. Raises as `step`."""
        began = self._healthy()
        self._send(q, None)
        return self._tick(began, None)

    def where(self) -> np.ndarray:
        """Returns the measured joints (n,) [rad]."""
        return self._healthy().state.q

    def target(self, action: np.ndarray) -> np.ndarray:
        """Returns the joints (n,) [rad] that an action asks for."""
        self.spec.action.check(action, f"{self.arm.name} action")
        return self.codec.target(action, self.where()).q

    def _send(self, q: np.ndarray, aperture: float | None) -> None:
        self.arm.command(Setpoint(np.asarray(q, float), aperture, self.clock_ns() + round(1e9 / self.spec.hz)))

    def _tick(self, began: Sample, action: np.ndarray | None, missed: bool = False) -> Step:
        """Waits for the tick and returns what the arm did in it; action: what was asked, None where nothing of the policy was."""
        assert self.rate is not None
        late_s, before = self.rate.wait(), began.state
        sample = self._healthy()
        obs, flags = self._observe(sample)
        sent = sample.sent if np.isfinite(sample.sent).all() else sample.state.q
        aperture = sample.sent_aperture if np.isfinite(sample.sent_aperture) else sample.state.aperture
        flags |= Flag.LATE if late_s > 0.5 / self.spec.hz else 0
        tick = [one for one in self.arm.history(_HISTORY) if one.cycle > began.cycle] or [sample]
        cut = missed or any(one.changed or one.state.flags & Sampled.CLAMPED for one in tick)
        flags |= Flag.HELD if sample.holding else 0
        flags |= Flag.CLAMPED if cut else 0
        flags |= Flag.STALE if any(one.state.flags & Sampled.STALE for one in tick) else 0
        clocks = {"monotonic": self._instant, "wall": time.time_ns(), f"dev/{self.arm.name}": sample.state.t_sample_ns}
        clocks |= {f"dev/{key}": t_ns for key, t_ns in self._captured.items()}
        as_asked = action is not None and not (cut or sample.holding)
        filtered = np.asarray(action) if as_asked else self.codec.action_of(sent, aperture, before.q)
        return Step(obs, filtered.astype(self.spec.action.dtype), sent.astype(np.float32), clocks, flags=int(flags))

    def close(self) -> None:
        """Asks the arm to hold; whoever opened it closes it."""
        self.arm.hold()

    def _keys(self) -> Sequence[str]:
        return [*self.shown, *self.eyes, *self.sensed]

    def _healthy(self) -> Sample:
        """Returns the newest cycle of an arm without fault; where one is, all that still moves is told to hold first."""
        try:
            sample = self.arm.read()
        except HwError:
            self.arm.hold()
            raise
        if sample.life is State.FAULT:
            self.arm.hold()
            of = sample.cycle, sample.state.t_recv_ns
            if self._fault is None or self._fault[0] != of:  # asked once: a driver that froze in it answers late or never
                self._fault = of, self._why(sample)
            raise self._fault[1].with_traceback(None)
        return sample

    def _why(self, sample: Sample) -> Exception:
        """Returns the error that ended the arm's motion, or the one of asking for it."""
        try:
            return self.arm.fault() or DeviceFault(self.arm.name, "it does not say why it stopped", sample.state.alarm)
        except HwError as error:
            return error

    def _observe(self, sample: Sample) -> tuple[Obs, int]:
        """Returns the observation of one instant, and flags."""
        self.age_s, self.late = 0.0, ()
        frames, flags = {key: self._frame(key, eye) for key, eye in self.eyes.items()}, 0
        self._captured = {key: frame.t_capture_ns for key, frame in frames.items()}
        self._instant = min([frame.t_capture_ns for frame in frames.values()], default=sample.state.t_sample_ns)
        state = interpolated(self.arm.history(_HISTORY), self._instant) if frames else sample.state
        obs: Obs = {}
        for key, spec in self.spec.obs.items():
            if key in frames:
                obs[key] = frames[key].image
                flags |= Flag.FRAME_REPEATED if self._frames.get(key) == frames[key].seq else 0
                flags |= self._aged(key, frames[key].t_capture_ns)
                self._frames[key] = frames[key].seq
            elif key in self.sensed:
                obs[key], t_ns = self.sensed[key].read()
                flags |= self._aged(key, t_ns)
            else:
                obs[key] = self.shown[key].of(state)
            spec.check(obs[key], f"{self.arm.name} {key}")
        for part, t_ns in self.arm.heard().items():
            flags |= self._aged(part, t_ns, of_arm=True)
        return obs, flags

    def _frame(self, key: str, eye: Eye) -> Frame:
        frame = eye.newest()
        if frame is None:
            self.arm.hold()
            raise StaleData(key, "no picture has come yet; is the camera there?")
        return frame

    def _aged(self, what: str, t_ns: int, of_arm: bool = False) -> int:
        """Returns the flag of an input's age; where it is gone the arm holds: StaleData, JointsSilent of a part of the arm."""
        age_s = (self.clock_ns() - t_ns) / 1e9
        self.age_s = max(self.age_s, age_s)
        if age_s > self.ages.gone_s:
            self.arm.hold()
            old = f"the newest is {age_s:.1f} s old, want at most {self.ages.gone_s:g} s; the arm holds"
            raise JointsSilent(self.arm.name, f"{what}: {old}") if of_arm else StaleData(what, old)
        self.late += (what,) if age_s > self.ages.late_s else ()
        return Flag.STALE if age_s > self.ages.late_s else 0


def interpolated(samples: Sequence[Sample], t_ns: int) -> ArmState:
    """Returns the state at an instant, linear between cycles, the nearest outside. samples: oldest first, at least one."""
    states = [sample.state for sample in samples]
    stamps = np.array([state.t_sample_ns for state in states])
    after = int(np.searchsorted(stamps, t_ns))
    if after == 0 or after == len(states):
        return states[min(after, len(states) - 1)]
    early, late = states[after - 1], states[after]
    share = (t_ns - early.t_sample_ns) / max(1, late.t_sample_ns - early.t_sample_ns)

    def between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a + share * (b - a)

    return replace(
        late,
        q=between(early.q, late.q),
        qd=between(early.qd, late.qd),
        effort=between(early.effort, late.effort),
        aperture=early.aperture + share * (late.aperture - early.aperture),
        t_sample_ns=t_ns,
        t_unc_ns=max(early.t_unc_ns, late.t_unc_ns),
        flags=early.flags | late.flags | Sampled.INTERPOLATED,
    )
