"""The vocabulary: what flows between a body, a mind, a monitor and a sink, written down once. numpy only.

A body (simulator or robot) is an `Env`, a mind (network, script, person with a device) is a `Policy`; they meet in
`robolearn.rollout.rollout`. What flows between them is described by a `Spec` and checked once, where two parts meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntFlag
from types import MappingProxyType
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from robolearn.errors import ArrayMismatch, SpecMismatch, nearest

Obs = dict[str, np.ndarray]
_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class ArraySpec:
    """Describes an array before it exists: shape without the time axis, dtype, names of the last axis, unit, frame."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    names: tuple[str, ...] = ()
    unit: str = ""
    frame: str = ""

    @property
    def is_image(self) -> bool:
        """True for uint8 arrays (height, width, 3)."""
        return self.dtype == "uint8" and len(self.shape) == 3 and self.shape[-1] == 3

    def check(self, array: np.ndarray, key: str) -> None:
        """Raises ArrayMismatch unless `array` has this shape and dtype and, if it holds floats, is finite."""
        array = np.asarray(array)
        if array.shape != self.shape or array.dtype != np.dtype(self.dtype):
            raise ArrayMismatch(f"{key}: want {self.dtype}{self.shape}, got {array.dtype}{array.shape}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ArrayMismatch(f"{key}: want finite numbers, got {np.array2string(array, threshold=8)}")

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values; `from_json` reads them back."""
        return {
            "shape": list(self.shape),
            "dtype": self.dtype,
            "names": list(self.names),
            "unit": self.unit,
            "frame": self.frame,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ArraySpec:
        """Returns the spec written by `to_json`."""
        return cls(
            tuple(values["shape"]),
            values.get("dtype", "float32"),
            tuple(values.get("names", ())),
            values.get("unit", ""),
            values.get("frame", ""),
        )


@dataclass(frozen=True)
class Camera:
    """A calibrated pinhole camera, OpenCV convention (x right, y down, z forward); it travels with the data.

    size: (width, height) [px]; K: 3x3 [px]; dist: OpenCV distortion coefficients; world_from_camera: 4x4 [m];
    hash: of the calibration it came from, "" for a simulated camera that follows its model.
    """

    size: tuple[int, int]
    K: tuple[tuple[float, ...], ...]
    dist: tuple[float, ...] = ()
    world_from_camera: tuple[tuple[float, ...], ...] = ()
    hash: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values; `from_json` reads them back."""
        return {
            "size": list(self.size),
            "K": [list(row) for row in self.K],
            "dist": list(self.dist),
            "world_from_camera": [list(row) for row in self.world_from_camera],
            "hash": self.hash,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Camera:
        """Returns the camera written by `to_json`."""
        return cls(
            size=tuple(values["size"]),
            K=tuple(tuple(row) for row in values["K"]),
            dist=tuple(values.get("dist", ())),
            world_from_camera=tuple(tuple(row) for row in values.get("world_from_camera", ())),
            hash=values.get("hash", ""),
        )


@dataclass(frozen=True)
class Spec:
    """What a body shows and takes, or what a mind reads and gives.

    obs, action: arrays without the time axis; hz: control rate [1/s]; cameras: by the observation key they film;
    goal: arrays a policy may be conditioned on (`Ask.goal`); codec: the name of the map from this action space to the
    body's own ("" = identity); execute: how many actions of a chunk are run before the next plan; memory_stride: how
    often [ticks] a policy's memory moves.
    """

    obs: Mapping[str, ArraySpec]
    action: ArraySpec
    hz: float
    cameras: Mapping[str, Camera] = field(default_factory=lambda: _EMPTY)
    goal: Mapping[str, ArraySpec] = field(default_factory=lambda: _EMPTY)
    codec: str = ""
    execute: int = 1
    memory_stride: int = 1

    def require(self, other: Spec, who: str) -> None:
        """Raises SpecMismatch unless a mind with spec `other`, called `who`, can drive a body with this spec.

        The mind may read fewer observations than the body shows. Action, codec and rate must agree.
        """
        for key, want in other.obs.items():
            if key not in self.obs:
                raise SpecMismatch(f"{who} reads observation '{key}', which the body does not show{nearest(key, self.obs)}")
            have = self.obs[key]
            if have.shape != want.shape or have.dtype != want.dtype:
                raise SpecMismatch(
                    f"{who} reads observation '{key}' as {want.dtype}{want.shape}, the body shows {have.dtype}{have.shape}"
                )
        if other.action.shape != self.action.shape:
            raise SpecMismatch(f"{who} gives actions of shape {other.action.shape}, the body takes {self.action.shape}")
        if other.codec != self.codec:
            raise SpecMismatch(f"{who} gives actions as '{other.codec}', the body takes '{self.codec}'")
        if not np.isclose(other.hz, self.hz, rtol=1e-3):
            raise SpecMismatch(f"{who} runs at {other.hz:g} Hz, the body at {self.hz:g} Hz")

    def select(self, keys: tuple[str, ...]) -> Spec:
        """Returns this spec with the observations `keys` only, in that order."""
        missing = [key for key in keys if key not in self.obs]
        if missing:
            raise SpecMismatch(f"no observation '{missing[0]}'{nearest(missing[0], self.obs)}")
        return replace(self, obs={key: self.obs[key] for key in keys})

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values; `from_json` reads them back."""
        return {
            "obs": {key: spec.to_json() for key, spec in self.obs.items()},
            "action": self.action.to_json(),
            "hz": self.hz,
            "cameras": {key: camera.to_json() for key, camera in self.cameras.items()},
            "goal": {key: spec.to_json() for key, spec in self.goal.items()},
            "codec": self.codec,
            "execute": self.execute,
            "memory_stride": self.memory_stride,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Spec:
        """Returns the spec written by `to_json`."""
        return cls(
            obs={key: ArraySpec.from_json(spec) for key, spec in values["obs"].items()},
            action=ArraySpec.from_json(values["action"]),
            hz=float(values["hz"]),
            cameras={key: Camera.from_json(camera) for key, camera in values.get("cameras", {}).items()},
            goal={key: ArraySpec.from_json(spec) for key, spec in values.get("goal", {}).items()},
            codec=values.get("codec", ""),
            execute=int(values.get("execute", 1)),
            memory_stride=int(values.get("memory_stride", 1)),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Crosses to another process as its JSON values, read-only mappings cannot."""
        return Spec.from_json, (self.to_json(),)


SOURCES = ("", "policy", "operator", "recovery", "expert", "replay")
"""Who an action came from (`Tick.source`); a set stores the place in this list, which therefore only grows."""


class Flag(IntFlag):
    """What `Step.flags` says of one tick; a set stores the number, so values are never reused."""

    ENGAGED = 1  # a dead-man or clutch was held
    DISENGAGED = 2  # there is one, and it was not held; neither bit: the body has none
    INTERVENTION = 4  # a person overrode the policy
    HELD = 8  # no action was there in time: the body held still
    CLAMPED = 16  # the limits changed the action
    LATE = 32  # the tick came later than half a period
    STALE = 64  # an input was older than its limit
    FRAME_REPEATED = 128  # a camera had no new picture
    FAULT = 256  # the deployment was in a fault or an emergency stop


@dataclass(frozen=True)
class Step:
    """What one tick of a body did.

    obs: the observation after the action; filtered: the action, in the policy's space, that the limits left; sent:
    what went to the motors; t_ns: when `obs` was captured [ns] (monotonic, wall, sim, dev/<source>); score: the task's
    progress, if it has one; success: whether the task is solved now; terminated: the episode is over; truncated: it was cut off.
    """

    obs: Obs
    filtered: np.ndarray
    sent: np.ndarray
    t_ns: Mapping[str, int] = field(default_factory=lambda: _EMPTY)
    score: float | None = None
    success: bool | None = None
    terminated: bool = False
    truncated: bool = False
    flags: int = 0


@dataclass(frozen=True)
class Ask:
    """What a caller wants of one plan.

    draws: how many samples (the first is the one to execute); prefix: actions of the plan's own shape (horizon, action), from
    this tick on, of which some are already fixed (real-time chunking); prefix_mask: (horizon,) in [0, 1], how much each of
    them holds, 0: not at all, and not read; goal: values of the goal keys of the spec; guidance: strength of classifier-free
    guidance towards the goal (1 = plain conditional); prefix_beta: the largest weight of the prefix' pull; prefix_jacobian:
    pull through the network (full) or past it (identity, without back-propagation); prefix_fixed: so many first actions of the
    prefix are the plan's own first, exactly (for a policy trained so; they need no mask).
    """

    draws: int = 1
    prefix: np.ndarray | None = None
    prefix_mask: np.ndarray | None = None
    goal: Mapping[str, np.ndarray] = field(default_factory=lambda: _EMPTY)
    guidance: float = 1.0
    prefix_beta: float = 5.0
    prefix_jacobian: Literal["full", "identity"] = "full"
    prefix_fixed: int = 0


@dataclass(frozen=True)
class Chunk:
    """A plan: actions (horizon, action) for ticks tick, tick+1, ...

    past: (n_past, action), the past as the policy predicts it, past_stride ticks apart, the last for tick-past_stride;
    samples: (draws, horizon, action), evidence for monitors, and past_samples (draws, n_past, action) their pasts;
    features: (feature,), the policy's own embedding of the observation; events: what a person's device says (success,
    redo, engage, ...).
    """

    actions: np.ndarray
    tick: int
    past: np.ndarray | None = None
    past_stride: int = 1
    samples: np.ndarray | None = None
    past_samples: np.ndarray | None = None
    features: np.ndarray | None = None
    events: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """A monitor's word on one tick: alarm is score > threshold."""

    score: float
    threshold: float
    alarm: bool


@dataclass(frozen=True)
class Needs:
    """What a monitor must be given: number of draws, features, and the action keys it reads."""

    draws: int = 1
    features: bool = False
    action_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tick:
    """Everything known about control tick k: the observation it started from, what was asked, what became of it."""

    k: int
    obs: Obs
    asked: np.ndarray
    step: Step
    source: str
    chunk: Chunk | None
    verdicts: Mapping[str, Verdict] = field(default_factory=lambda: _EMPTY)


@dataclass(frozen=True)
class Outcome:
    """How an episode ended.

    success: whether the task was solved at any tick; score: the maximum over time (None where the task has none);
    reason: success, horizon, truncated, terminated, interrupted, alarm:<monitor>, stopped:<why a sink ended it>;
    alarm_step: first alarm, if any.
    """

    seed: int | None
    steps: int
    success: bool | None
    score: float | None
    reason: str
    alarm_step: int | None = None


@dataclass(frozen=True)
class TeleopSample:
    """What an input device says of one hand at one instant; nothing in it knows a robot.

    t_dev_ns: when the device measured it, t_recv_ns: when we had it, both monotonic [ns]; arm: 0 right or only, 1 left.
    Of these a device gives what it has: pose: frame_from_hand (4, 4) [m], in the device's own fixed frame, or in the torso frame
    beside keypoints; delta: (6,) deflections in [-1, 1] (x forward, y left, z up, and turns about them), meant as speeds;
    keypoints: (3, 3) shoulder, elbow, wrist [m] in the torso frame (x forward, y left, z up); joints: (n,) of a leader arm [rad].
    deadman: held or not, None where the device has none (it may drive simulations only); grip: 0 open .. 1 closed;
    events: what was pressed since the last sample (success, redo, ...); confidence: 0 .. 1.
    """

    t_dev_ns: int
    t_recv_ns: int
    arm: int = 0
    pose: np.ndarray | None = None
    delta: np.ndarray | None = None
    keypoints: np.ndarray | None = None
    joints: np.ndarray | None = None
    deadman: bool | None = None
    grip: float | None = None
    events: tuple[str, ...] = ()
    confidence: float = 1.0


OPERATOR_EVENTS = ("start", "stop", "success", "failure", "redo", "delete_last", "undo", "quit", "engage", "disengage")
"""What a person can say while recording (`TeleopSample.events`, `Chunk.events`)."""


@runtime_checkable
class Env(Protocol):
    """A body. Simulators also have state(), restore(state) and render(camera) (see SimEnv)."""

    spec: Spec

    def reset(self, seed: int | None = None) -> Obs: ...
    def step(self, action: np.ndarray) -> Step: ...
    def close(self) -> None: ...


@runtime_checkable
class SimEnv(Env, Protocol):
    """A simulated body: its whole state can be saved and restored, and it can be looked at."""

    def state(self) -> np.ndarray: ...
    def restore(self, state: np.ndarray) -> Obs: ...
    def render(self, camera: str | None = None) -> np.ndarray: ...


@runtime_checkable
class Policy(Protocol):
    """A mind. `observe` is called at every tick and is where history grows; `plan` is pure: twice gives the same."""

    spec: Spec

    def reset(self, seed: int | None = None) -> None: ...
    def observe(self, obs: Obs, applied: np.ndarray | None) -> None: ...
    def plan(self, ask: Ask = Ask()) -> Chunk: ...


@runtime_checkable
class Monitor(Protocol):
    """A failure predictor: reads observation and chunk at every tick and says whether this looks like failing."""

    @property
    def needs(self) -> Needs: ...  # asked before every plan

    def reset(self) -> None: ...
    def update(self, obs: Obs, chunk: Chunk) -> Verdict: ...


@runtime_checkable
class Sink(Protocol):
    """Takes what a rollout produces: a recorder, a viewer, a logger."""

    def begin(self, spec: Spec, meta: Mapping[str, Any]) -> None: ...
    def record(self, tick: Tick) -> None: ...
    def stream(self, name: str, t_ns: int, array: np.ndarray) -> None: ...
    def end(self, outcome: Outcome) -> None: ...


@runtime_checkable
class Plant(Protocol):
    """What an emulator of a robot moves: joint setpoints in, joint states out."""

    def command(self, target: np.ndarray) -> None: ...
    def advance(self, seconds: float) -> None: ...
    def measure(self) -> Mapping[str, np.ndarray]: ...
