"""A UFACTORY xArm 7 through the vendor's SDK, in servo mode (mode 1): every cycle asks for the state and for the errors.

The SDK returns codes, which become exceptions here; it lets NaN through, so a setpoint must be finite; it ignores speeds in servo
mode, so what limits the speed stands before this driver. It sets a time-out for every socket of its process, which is put back;
give it a process of its own all the same. Some calls last 190 ms now and then (xArm-Python-SDK issue 154): that cycle is a miss.
The box has no watchdog that is known; the host is it. An emulator is known by its serial number.
"""

from __future__ import annotations

import contextlib
import io
import math
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hardware._base import ArmState, Caps, Health, Identity, Sampled, Setpoint, Stop
from hardware._errors import (
    ConfigMismatch,
    DeviceFault,
    EStop,
    LimitViolation,
    NotReady,
    ProtectiveStop,
    TransportCorrupt,
    TransportLost,
    TransportTimeout,
)
from hardware.robots._controller import check_limits, checked, let_go
from robolearn.errors import ConfigError, MissingDependency

NEEDS = ("xarm", "xarm")  # the library it speaks through, and the extra that brings it
EMULATOR = "xarm"  # what speaks its protocol without the metal
EMULATION: dict[str, object] = {}  # its fields: none, it is one by default
NAME = "xarm7"
_TURN = 2 * math.pi
_EMERGENCY, _COLLISION = (1, 2, 3), (31,)  # error codes of the box
_SERVO, _START, _STOP = 1, 0, 4  # mode; states
_SETTLE_S = 1.0
_SETUP_S = 1.0  # what an answer may take where no cycle waits for it: brakes need their time


@dataclass(frozen=True)
class Config:
    """Where the control box is."""

    host: str = "192.168.1.203"
    """Address of the control box; an emulator's is 127.x.y.z."""
    port: int = 502
    """Of its commands; another one than 502 is set in the SDK for the whole process."""
    rate_hz: float = 100.0
    """Of the cycle in which setpoints come."""
    reply_s: float = 0.02
    """How long a request waits for its answer, once connected."""
    lower: tuple[float, ...] = (-_TURN, -2.059, -_TURN, -0.191, -_TURN, -1.692, -_TURN)
    """Hard limits [rad], from the vendor's manual."""
    upper: tuple[float, ...] = (_TURN, 2.094, _TURN, 3.926, _TURN, math.pi, _TURN)
    """The same, above."""
    velocity: float = math.pi
    """Fastest joint speed [rad/s]."""

    def __post_init__(self) -> None:
        check_limits(self.lower, self.upper, NAME)
        if min(self.rate_hz, self.reply_s, self.velocity) <= 0 or not self.host or not 0 < self.port < 65536:
            raise ConfigError("xarm7: want a host and a port, and rate_hz, reply_s and velocity above 0")


def make(config: Config, clock_ns: Callable[[], int] = time.monotonic_ns) -> XArm7:
    """Returns the driver, not connected."""
    return XArm7(config, clock_ns)


class XArm7:
    """The `Driver` of one arm."""

    def __init__(self, config: Config, clock_ns: Callable[[], int]) -> None:
        self._config, self._clock_ns = config, clock_ns
        self._arm: Any = None  # xarm.wrapper.XArmAPI, which has no types
        self._identity, self._seq, self._active = Identity(NAME), 0, False
        self._reply_s = config.reply_s  # what a request waits at present
        self._ours = False  # the motors may be on, or the arm on its way, because of us

    def connect(self) -> Identity:
        """Opens the connection and reads who is there; TransportLost where nobody is."""
        before, c = socket.getdefaulttimeout(), self._config
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                from xarm.core.config.x_config import XCONF
                from xarm.wrapper import XArmAPI

                XCONF.SocketConf.TCP_CONTROL_PORT = c.port
                self._arm = XArmAPI(
                    c.host, is_radian=True, forbid_uds=True, enable_report=False, check_joint_limit=False, timed_comm=False
                )
        except ImportError:
            raise MissingDependency("xarm-python-sdk", "the xArm", "pip install 'robolearn[xarm]'") from None
        except Exception as error:  # the SDK raises nothing narrower
            raise TransportLost(NAME, f"no control box at {c.host}:{c.port}: {error}", phase="connect") from error
        finally:
            socket.setdefaulttimeout(before)
        self._arm.set_timeout(c.reply_s)
        arm = self._arm
        firmware = ".".join(map(str, arm.version_number))
        self._identity = Identity(f"xArm{arm.axis}", arm.sn or "", firmware, emulated="EMULATED" in (arm.sn or ""))
        return self._identity

    def capabilities(self) -> Caps:
        """Returns the configured limits."""
        c = self._config
        n = len(c.lower)
        return Caps(
            tuple(f"joint{k}" for k in range(1, n + 1)), np.array(c.lower), np.array(c.upper), np.full(n, c.velocity),
            (30.0, c.rate_hz, 250.0), stops=(Stop.HOLD, Stop.RELEASE), brakes=True, latency_s=(0.002, 0.05),
            blocking=("servo_j: up to 0.19 s now and then",),
        )  # fmt: skip

    def configure(self) -> Mapping[str, tuple[Any, Any]]:
        """Writes nothing; ConfigMismatch where the arm has another number of joints than there are limits."""
        arm, n = self._there(), len(self._config.lower)
        if arm.axis != n:
            raise ConfigMismatch(NAME, f"joints: want {n}, as there are limits, {self._identity.model} has {arm.axis}")
        return {}

    def activate(self) -> None:
        """Enables the motors, goes to servo mode and gives the measured pose as goal; raises the error that stands."""
        with self._patient() as arm:
            self._check_errors()
            self._ours = True
            self._done(arm.motion_enable(True), "motion_enable")
            self._done(arm.set_mode(_SERVO), "set_mode")
            self._done(arm.set_state(_START), "set_state")
            until = self._clock_ns() + int(_SETTLE_S * 1e9)
            while self._value(arm.get_state(), "get_state") >= _STOP:
                if self._clock_ns() > until:
                    raise NotReady(NAME, f"activate: the arm does not leave its stop within {_SETTLE_S:g} s", phase="activate")
                time.sleep(0.005)
            self._done(arm.set_servo_angle_j(self._joints()[0], is_radian=True), "servo_j")
        self._active = True

    def exchange(self, setpoint: Setpoint | None) -> ArmState:
        """Sends a setpoint, unless somebody stopped the arm, and asks for joints and errors: two round trips, or four."""
        arm = self._there()
        if setpoint is not None:
            q = checked(setpoint, len(self._config.lower), self._active, NAME)
            self._check_state()
            code = arm.set_servo_angle_j(q, is_radian=True)
            if code:
                self._check_errors()
                self._done(code, "servo_j")
        sent_ns = self._clock_ns()
        q, qd, effort = self._joints()
        recv_ns = self._clock_ns()
        self._check_errors()
        self._seq += 1
        return ArmState(
            np.array(q), np.array(qd), np.array(effort), (sent_ns + recv_ns) // 2, recv_ns, (recv_ns - sent_ns) // 2, self._seq,
            flags=Sampled.EMULATED if self._identity.emulated else 0,
        )  # fmt: skip

    def health(self) -> Health:
        """Returns the error and warning by name."""
        error, warning = self._errors()
        named = tuple(f"{kind} {code}" for kind, code in (("error", error), ("warning", warning)) if code)
        return Health(alarm={"box": named} if named else {})

    def deactivate(self, stop: Stop) -> None:
        """Stops the arm, whose motors hold it; RELEASE switches them off, and the brakes hold it."""
        self._active = False
        with self._patient() as arm:
            try:
                self._done(arm.set_state(_STOP), "set_state")
            finally:
                if stop is Stop.RELEASE:
                    self._done(arm.motion_enable(False), "motion_enable")
        self._ours = False

    def clear_fault(self) -> None:
        """Clears error and warning; raises what still stands, as the emergency stop while it is pressed."""
        self._active = False
        with self._patient() as arm:
            arm.clean_error()
            arm.clean_warn()
            self._check_errors()

    def disconnect(self) -> list[Exception]:
        """Stops the arm if it still answers, and closes the connection."""
        errors = let_go(self._ours, lambda: self.deactivate(Stop.HOLD))
        if self._arm is not None:
            with contextlib.redirect_stdout(io.StringIO()):
                self._arm.disconnect()
        self._arm, self._active, self._ours = None, False, False
        return errors

    def _there(self) -> Any:
        if self._arm is None or not self._arm.connected:
            raise TransportLost(NAME, f"the control box at {self._config.host} is not connected; disconnect and connect again")
        return self._arm

    @contextlib.contextmanager
    def _patient(self) -> Iterator[Any]:
        """Yields the arm with time for slow answers; a cycle's time-out is back afterwards."""
        arm, self._reply_s = self._there(), max(self._config.reply_s, _SETUP_S)
        arm.set_timeout(self._reply_s)
        try:
            yield arm
        finally:
            self._reply_s = self._config.reply_s
            arm.set_timeout(self._reply_s)

    def _check_state(self) -> None:
        """Raises the error for which the box has stopped the arm, ProtectiveStop where somebody else did."""
        state = self._value(self._there().get_state(), "get_state")
        if state < _STOP:
            return
        self._check_errors()
        self._active = False
        said = f"the arm was stopped from elsewhere (state {state}); find out why, then clear the fault"
        raise ProtectiveStop(NAME, said, code="stopped", raw=state)

    def _joints(self) -> tuple[list[float], list[float], list[float]]:
        """Returns position [rad], velocity [rad/s] and effort [N m] as the box gives them, without the joints that it has not."""
        n = len(self._config.lower)
        found = self._value(self._there().get_joint_states(is_radian=True, num=3), "get_joint_states")
        if len(found) != 3 or any(len(values) < n for values in found):
            raise TransportCorrupt(NAME, f"get_joint_states: want 3 times {n} numbers, got {[len(values) for values in found]}")
        return found[0][:n], found[1][:n], found[2][:n]

    def _errors(self) -> tuple[int, int]:
        error, warning = self._value(self._there().get_err_warn_code(), "get_err_warn_code")
        return int(error), int(warning)

    def _check_errors(self) -> None:
        """Raises the error that the box holds against us."""
        error, _ = self._errors()
        if not error:
            return
        self._active = False
        from xarm.core.config.x_code import ControllerError

        said = f"error {error}: {ControllerError(error).title['en']}"
        if error in _EMERGENCY:
            raise EStop(NAME, said, code="estop", raw=error)
        if error in _COLLISION:
            raise ProtectiveStop(NAME, said, code="collision", raw=error)
        raise DeviceFault(NAME, said, error)

    def _value(self, answer: tuple[int, Any], call: str) -> Any:
        self._done(answer[0], call)
        return answer[1]

    def _done(self, code: int, call: str) -> None:
        """Raises what a return code of the SDK means; 0 is well."""
        if code == 0:
            return
        if code == 3:
            raise TransportTimeout(NAME, f"{call}: no answer in {self._reply_s:g} s", raw=code)
        if code in (4, 5, 6, 7):
            raise TransportCorrupt(NAME, f"{call}: the answer is not one (code {code})", raw=code)
        if code in (-1, 8):
            raise TransportLost(NAME, f"{call}: the control box at {self._config.host} has gone (code {code})", raw=code)
        if code in (-6, -7, -8):
            raise LimitViolation(NAME, f"{call}: the SDK refuses it as beyond a limit (code {code})", raw=code)
        if code in (-2, 9, 51):
            raise NotReady(NAME, f"{call}: the arm is not ready: clear its errors, and activate it (code {code})", raw=code)
        raise DeviceFault(NAME, f"{call}: code {code}", code)
