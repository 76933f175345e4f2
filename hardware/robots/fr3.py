"""A Franka Research 3 through franky (libfranka 0.21, robot server 10): each setpoint is a joint motion that replaces the last.

franky's own thread keeps the 1 kHz; Ruckig in it takes the arm from where it is to the newest setpoint within its limits of
speed, acceleration and jerk, and rests there: the arm is late by what it needs to come to rest, and holds when no setpoint comes.
A reflex ends control; `clear_fault` calls the robot's automatic recovery. On a lost network franky waits a second before it says
so. An emulator is known by its address: a robot is never at 127.x.y.z.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hardware._base import ArmState, Caps, Health, Identity, Sampled, Setpoint, Stop
from hardware._errors import ConfigMismatch, DeviceFault, EStop, NotReady, ProtectiveStop, TransportLost, TransportTimeout
from hardware.robots._controller import checked, fresh, let_go
from hardware.robots._envelope import Envelope
from robolearn.errors import ConfigError, MissingDependency

NEEDS = ("franky", "franka")  # the library it speaks through, and the extra that brings it
EMULATOR = ""  # nothing of ours speaks its protocol
EMULATION: dict[str, object] = {}  # no fields of what is not there
NAME = "fr3"
JOINTS = tuple(f"fr3_joint{k}" for k in range(1, 8))
_LOWER = (-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159)  # [rad] data sheet
_UPPER = (2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159)
_STREAM_HZ, _STOP_S = 1000.0, 2.0


@dataclass(frozen=True)
class Config:
    """Where the robot is and how fast it may follow."""

    host: str = "172.16.0.2"
    """Address of the robot's network port; the simulator's is 127.x.y.z."""
    rate_hz: float = 100.0
    """Of the cycle in which setpoints come."""
    dynamics: float = 0.5
    """Share of the robot's own limits of speed, acceleration and jerk, up to 1."""
    collision_torque: float = 20.0
    """Torque [N m] on a joint that ends control."""
    collision_force: float = 30.0
    """Force [N] at the hand that does."""
    realtime: bool = True
    """Whether a kernel without real-time scheduling is refused."""
    patience_s: float = 0.005
    """How long a cycle waits for a new sample."""

    def __post_init__(self) -> None:
        if not 0.0 < self.dynamics <= 1.0:
            raise ConfigError(f"fr3 dynamics: want more than 0 and at most 1, got {self.dynamics:g}")
        if min(self.rate_hz, self.collision_torque, self.collision_force, self.patience_s) <= 0 or not self.host:
            raise ConfigError("fr3: want a host, and rate_hz, collision_torque, collision_force and patience_s above 0")


def make(config: Config, clock_ns: Callable[[], int] = time.monotonic_ns) -> FR3:
    """Returns the driver, not connected."""
    return FR3(config, clock_ns)


class FR3:
    """The `Driver` of one arm; it belongs in a process of its own, as franky has a thread of 1 kHz."""

    def __init__(self, config: Config, clock_ns: Callable[[], int] = time.monotonic_ns, franky: Any = None) -> None:
        """franky: the library, None to import it at `connect`."""
        self._config, self._clock_ns, self._franky = config, clock_ns, franky
        self._robot: Any = None  # franky.Robot: a compiled module
        self._envelope, self._seen_ms, self._seq, self._active = Envelope(), -1, 0, False
        self._ours = False  # the arm may be on its way because of us

    def connect(self) -> Identity:
        """Opens the control interface; TransportLost where no robot is, ConfigMismatch for another server version or kernel."""
        c = self._config
        if self._franky is None:
            try:
                import franky
            except ImportError:
                raise MissingDependency("franky-control", "the FR3", "pip install 'robolearn[franka]'") from None
            self._franky = franky
        f = self._franky
        kernel = f.RealtimeConfig.Enforce if c.realtime else f.RealtimeConfig.Ignore
        try:
            self._robot = f.Robot(c.host, c.dynamics, c.collision_torque, c.collision_force, realtime_config=kernel)
        except (f.IncompatibleVersionException, f.RealtimeException) as error:
            raise ConfigMismatch(NAME, f"{c.host}: {error}", phase="connect") from error
        except (f.NetworkException, RuntimeError) as error:
            raise TransportLost(NAME, f"no robot at {c.host}: {error}", phase="connect") from error
        return Identity("FR3", firmware="robot server 10", emulated=self._emulated)

    def capabilities(self) -> Caps:
        """Returns the data sheet's joint limits and the speeds that the robot gives."""
        c = self._config
        speeds = np.asarray(self._there().joint_velocity_limit.max, dtype=float) * c.dynamics
        return Caps(
            JOINTS, np.array(_LOWER), np.array(_UPPER), speeds, (10.0, c.rate_hz, 250.0), stops=(Stop.HOLD, Stop.RAMP_STOP),
            brakes=True, latency_s=(1 / _STREAM_HZ, 0.1), blocking=("any call: 1 s once the network is lost",),
        )  # fmt: skip

    def configure(self) -> Mapping[str, tuple[Any, Any]]:
        """Writes nothing: the limits of collision went with `connect`, and nothing else can be read back."""
        self._there()
        return {}

    def activate(self) -> None:
        """Takes control with the measured pose as goal; raises what stands in the way: a reflex, the user stop, guiding."""
        self._check(self._state())
        self._ours = True
        self._move(np.asarray(self._state().q, dtype=float))
        self._active = True

    def exchange(self, setpoint: Setpoint | None) -> ArmState:
        """Gives the newest setpoint to the motion thread and returns a sample that was not returned before."""
        if self._active and not self._there().is_in_control:
            self._lost_control()
        if setpoint is not None:
            self._move(np.asarray(checked(setpoint, len(JOINTS), self._active, NAME)))
        return fresh(self._new, self._config.patience_s, self._clock_ns, NAME)

    def health(self) -> Health:
        """Returns the robot's errors by name."""
        named = _names(self._state().current_errors)
        return Health(alarm={"robot": named} if named else {})

    def deactivate(self, stop: Stop) -> None:
        """Brakes and gives control back; the robot holds itself. TransportTimeout where it does not come to rest in time."""
        del stop  # one way to brake
        self._active = False
        robot = self._there()
        if robot.is_in_control:
            self._call(lambda: robot.move(self._franky.JointStopMotion(), asynchronous=True))
            if not self._call(lambda: robot.join_motion(_STOP_S)):
                raise TransportTimeout(NAME, f"the arm does not come to rest within {_STOP_S:g} s", phase="deactivate")
        self._ours = False

    def clear_fault(self) -> None:
        """Calls the robot's automatic recovery; EStop while the user stop is pressed, NotReady where it does not recover."""
        self._active = False
        robot = self._there()
        self._call(robot.poll_motion, quiet=True)  # takes the error of the motion that ended
        if self._state().robot_mode == self._franky.RobotMode.UserStopped:
            raise EStop(NAME, "the user stop is pressed; release it", code="user_stop", phase="clear_fault")
        if not self._call(robot.recover_from_errors):
            names = ", ".join(_names(self._state().current_errors))
            raise NotReady(NAME, f"clear_fault: the robot does not recover ({names})", phase="clear_fault")

    def disconnect(self) -> list[Exception]:
        """Stops the arm if it still answers, and lets go of the robot."""
        errors = let_go(self._ours, lambda: self.deactivate(Stop.HOLD))
        self._robot, self._active, self._ours = None, False, False
        return errors

    @property
    def _emulated(self) -> bool:
        return self._config.host.startswith("127.") or self._config.host == "localhost"

    def _there(self) -> Any:
        if self._robot is None:
            raise TransportLost(NAME, f"the robot at {self._config.host} is not connected; connect again")
        return self._robot

    def _state(self) -> Any:
        robot = self._there()
        return self._call(lambda: robot.state)

    def _move(self, q: np.ndarray) -> None:
        motion = self._franky.JointMotion(q, return_when_finished=False)
        self._call(lambda: self._there().move(motion, asynchronous=True))

    def _new(self) -> ArmState | None:
        """Returns the robot's state as a sample, None where it is an old one; raises what its mode says."""
        state, now = self._state(), self._clock_ns()
        seen_ms = state.time.to_msec()
        if seen_ms == self._seen_ms:
            return None
        self._check(state)
        self._seen_ms, self._seq = seen_ms, self._seq + 1
        q, qd, effort = (np.asarray(values, dtype=float) for values in (state.q, state.dq, state.tau_J))
        t_ns = self._envelope.local_ns(seen_ms * 1_000_000, now)
        flags = Sampled.EMULATED if self._emulated else 0
        return ArmState(q, qd, effort, t_ns, now, int(0.5e9 / _STREAM_HZ), self._seq, flags=flags)

    def _check(self, state: Any) -> None:
        """Raises what the robot's mode says."""
        mode, modes = state.robot_mode, self._franky.RobotMode
        if mode in (modes.Idle, modes.Move):
            return
        self._active = False
        names = ", ".join(_names(state.current_errors) or _names(state.last_motion_errors))
        if mode == modes.UserStopped:
            raise EStop(NAME, "the user stop is pressed", code="user_stop")
        if mode == modes.Reflex:
            raise ProtectiveStop(NAME, f"reflex: {names or 'it gives no cause'}", code="franka_reflex", raw=names)
        raise NotReady(NAME, f"the robot is in mode {mode}; it must be idle")

    def _lost_control(self) -> None:
        """Raises why the motion ended."""
        self._active = False
        self._check(self._state())
        self._call(self._there().poll_motion)
        raise DeviceFault(NAME, "control has ended without an error", 0, code="control", phase="exchange")

    def _call(self, call: Callable[[], Any], quiet: bool = False) -> Any:
        """Returns what franky returns, its exceptions as ours. quiet: an old error of a motion is not worth one."""
        f = self._franky
        try:
            return call()
        except f.NetworkException as error:
            self._active = False
            raise TransportLost(NAME, f"the robot at {self._config.host} has gone: {error}") from error
        except f.ControlException as error:
            self._active = False
            if quiet:
                return None
            raise ProtectiveStop(NAME, f"control ended: {error}", code="control", raw=str(error)) from error
        except (f.CommandException, f.InvalidOperationException, RuntimeError) as error:
            self._active = False
            if quiet:
                return None
            if "Net Exception" in str(error):
                raise TransportLost(NAME, f"the robot at {self._config.host} has gone: {error}") from error
            raise DeviceFault(NAME, f"{error}", 0, code="command") from error


def _names(errors: Any) -> tuple[str, ...]:
    """Returns the names of the errors that are set."""
    return tuple(name for name in dir(errors) if not name.startswith("_") and getattr(errors, name) is True)
