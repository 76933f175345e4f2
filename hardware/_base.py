"""What a driver is, in SI units: input devices, robots, grippers and cameras, each one file with `Config` and `make(config)`.

A `Driver` speaks to one bus or controller and nothing else: it knows no limits, no retries and no clock but the one it is given.
`hardware._life` keeps its life cycle, its borders and its retry budget; `hardware._host` gives it a process of its own. Vendor
libraries are imported inside `connect`, so that a missing one breaks one driver and says the line that installs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntFlag, StrEnum
from types import MappingProxyType, ModuleType
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from robolearn import registry
from robolearn.core import TeleopSample

DEVICES = "hardware.devices"
ROBOTS = "hardware.robots"
GRIPPERS = "hardware.grippers"
CAMERAS = "hardware.cameras"
Kind = Literal["delta", "pose", "keypoints", "joints"]
_EMPTY: Mapping[str, Any] = MappingProxyType({})


@runtime_checkable
class Device(Protocol):
    """An input device. kind: what its samples hold; arms: how many hands it has; deadman: whether it has a dead-man switch."""

    kind: Kind
    arms: int
    deadman: bool

    def connect(self) -> None:
        """Opens the device; MissingDependency or HardwareError in one line where that cannot be done."""

    def read(self) -> Sequence[TeleopSample]:
        """Returns what came since the last call, oldest first, without waiting; empty where nothing did."""

    def close(self) -> None:
        """Lets go of the device; safe to call twice, and before `connect`."""


class State(StrEnum):
    """Where a driver is in its life; `hardware._life` holds the table of moves between them."""

    CREATED = "created"
    CONNECTED = "connected"
    CONFIGURED = "configured"
    ACTIVE = "active"
    STOPPING = "stopping"
    FAULT = "fault"
    CLOSED = "closed"


class Stop(StrEnum):
    """How to end motion: keep position, ramp to rest and keep it, go slowly to the pose of rest, or switch the torque off."""

    HOLD = "hold"
    RAMP_STOP = "ramp_stop"
    PARK = "park"
    RELEASE = "release"


class Sampled(IntFlag):
    """What `ArmState.flags` says of one sample; recorded, so values are never reused."""

    STALE = 1  # the wire gave nothing: this is the last sample again
    INTERPOLATED = 2
    CLAMPED = 4  # the device itself cut the last setpoint
    PARTIAL = 8  # some axes are of an earlier cycle
    EMULATED = 16  # no metal moved


@dataclass(frozen=True)
class Identity:
    """Who answered at `connect`. parts: a line for each axis or module (model, id, firmware); emulated: it is no metal."""

    model: str
    serial: str = ""
    firmware: str = ""
    parts: tuple[str, ...] = ()
    emulated: bool = False


@dataclass(frozen=True)
class Caps:
    """What a connected device can do, as read from it.

    joints: names, in the order of every (n,) array; lower, upper: hard limits [rad]; velocity: fastest [rad/s]; rate_hz: slowest,
    nominal and fastest cycle; modes: joint_pos, joint_vel, joint_torque, pose, gripper_width, gripper_force; stops: in order of
    preference; watchdog_s: range of the device's own watchdog, None where it has none, and then the host is the watchdog;
    opening_m: widest opening of the gripper that belongs to this device, 0 without one; latency_s: nominal seconds from the
    measurement to us, and from a setpoint to motion; blocking: calls that stop the cycle for longer than a period.
    """

    joints: tuple[str, ...]
    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    rate_hz: tuple[float, float, float]
    modes: tuple[str, ...] = ("joint_pos",)
    stops: tuple[Stop, ...] = (Stop.HOLD, Stop.RELEASE)
    watchdog_s: tuple[float, float] | None = None
    brakes: bool = False
    opening_m: float = 0.0
    latency_s: tuple[float, float] = (0.0, 0.0)
    blocking: tuple[str, ...] = ()
    needs_homing: bool = False

    @property
    def gripper(self) -> bool:
        """True where a setpoint has an aperture."""
        return self.opening_m > 0


@dataclass(frozen=True)
class Setpoint:
    """What the motors should reach. q: (n,) [rad]; aperture: 0 closed .. 1 open, None leaves the gripper.

    t_ns: when it should be reached [monotonic ns], 0: as soon as can be; qd: (n,) [rad/s] how fast it moves on, None: not at all.
    """

    q: np.ndarray
    aperture: float | None = None
    t_ns: int = 0
    qd: np.ndarray | None = None


@dataclass(frozen=True)
class ArmState:
    """One sample. q: (n,) [rad]; qd: (n,) [rad/s]; effort: (n,) [N m], or [A] where the device knows no torque.

    aperture: 0 closed .. 1 open, NaN without a gripper;
    t_sample_ns: when the device measured; t_recv_ns: when we had it, both monotonic; t_unc_ns: half the interval in which the
    measurement lies; seq: counts new measurements; flags: `Sampled`; alarm: the device's own bits, 0 = well.
    """

    q: np.ndarray
    qd: np.ndarray
    effort: np.ndarray
    t_sample_ns: int
    t_recv_ns: int
    t_unc_ns: int
    seq: int
    aperture: float = float("nan")
    flags: int = 0
    alarm: int = 0


@dataclass(frozen=True)
class Health:
    """What moves slowly, polled in rotation. temperature: [deg C]; voltage: [V]; alarm: names of the device's alarms, by axis."""

    temperature: Mapping[str, float] = field(default_factory=lambda: _EMPTY)
    voltage: Mapping[str, float] = field(default_factory=lambda: _EMPTY)
    alarm: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _EMPTY)
    counters: Mapping[str, int] = field(default_factory=lambda: _EMPTY)


@runtime_checkable
class Driver(Protocol):
    """One arm, gripper or both, behind one bus or controller. Every call may block; all of them come from one thread.

    Raises the family of `hardware._errors`. What each call may do to the device is a promise that the contract tests check.
    """

    def connect(self) -> Identity:
        """Opens the transport, asks who is there and reads; moves nothing, switches no torque, writes no setting, asks nobody."""

    def capabilities(self) -> Caps:
        """Returns what the connected device can do."""

    def configure(self) -> Mapping[str, tuple[Any, Any]]:
        """Writes the settings that differ, torque off, reads each back and returns (was, is) by name; else ConfigMismatch."""

    def activate(self) -> None:
        """Sets the goal to the measured pose, arms the device's watchdog and switches the torque on, in this order."""

    def exchange(self, setpoint: Setpoint | None) -> ArmState:
        """Sends the setpoint, if any, and returns one new sample; raises what the wire did, without retrying."""

    def health(self) -> Health:
        """Returns the slow values; polls at most one axis per call."""

    def deactivate(self, stop: Stop) -> None:
        """Ends motion in a declared way; RELEASE switches off the torque of every axis that answers, then the watchdog."""

    def clear_fault(self) -> None:
        """Clears what the device holds against us (reboot, unlock, error reset), without motion."""

    def disconnect(self) -> list[Exception]:
        """Closes the transport whatever happens and returns what went wrong on the way; never raises, may be called twice."""


@runtime_checkable
class Guard(Protocol):
    """What stands between a setpoint and the motors, in the driver's loop; made in `robolearn.runtime`, handed over here.

    filters: names of what may change a setpoint, in order; wants_temperature: whether it has a use for `feel`.
    """

    filters: tuple[str, ...]
    wants_temperature: bool

    def reset(self, q: np.ndarray, aperture: float | None, now_s: float) -> None:
        """Begins at rest at q (n,) [rad]."""

    def step(self, setpoint: Setpoint, state: ArmState, now_s: float) -> tuple[Setpoint, tuple[str, ...]]:
        """Returns what may be sent, one period after the last, and the names of the filters that changed it; never raises."""

    def stop(self, state: ArmState, now_s: float) -> tuple[Setpoint, bool]:
        """Returns the next setpoint of a ramp to rest, and whether it rests."""

    def feel(self, temperature: Mapping[str, float]) -> None:
        """Takes note of the newest temperatures [deg C], by joint, as far as they are known."""


@dataclass(frozen=True)
class Frame:
    """One picture. image: (height, width, 3) uint8 RGB; t_capture_ns, t_recv_ns: monotonic; t_unc_ns: half its interval.

    seq: counts captures; dropped: captures lost since the last frame; exposure_s: 0 where unknown; domain: whose clock stamped it
    (monotonic, device, file, sim, received).
    """

    image: np.ndarray
    t_capture_ns: int
    t_recv_ns: int
    t_unc_ns: int
    seq: int
    dropped: int = 0
    exposure_s: float = 0.0
    domain: str = "received"


@runtime_checkable
class FrameSource(Protocol):
    """A camera, real or not. size: (width, height) [px]; hz: nominal rate."""

    size: tuple[int, int]
    hz: float

    def connect(self) -> Identity:
        """Opens the camera by a name that survives replugging; HardwareError or MissingDependency in one line otherwise."""

    def read(self, timeout_s: float) -> Frame | None:
        """Returns the next frame, None when none came in time; TransportLost when the camera is gone."""

    def close(self) -> None:
        """Lets go of the camera; never raises, may be called twice."""


def device_names() -> tuple[str, ...]:
    """Returns the names of all devices."""
    return registry.names(DEVICES)


def device_module(name: str) -> ModuleType:
    """Returns the module of one device; UnknownName with the nearest one."""
    return registry.load(DEVICES, name, what="device")


def make_device(name: str, overrides: dict[str, Any]) -> Device:
    """Returns a device that is not connected yet; ConfigError names the field that does not fit."""
    return make(DEVICES, name, overrides, "device")


def make(package: str, name: str, overrides: dict[str, Any], what: str) -> Any:
    """Returns what a plug-in of `package` makes of its config, unconnected; UnknownName, or ConfigError with the wrong field."""
    from robolearn import config

    module = registry.load(package, name, what=what)
    return module.make(config.from_mapping(module.Config, overrides, where=f"{what} {name}"))
