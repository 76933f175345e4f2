"""A UR5e through ur_rtde: its samples come by RTDE, its setpoints go to `servoJ` of the control program that ur_rtde uploads.

The library lets NaN through and repeats the last pose after the controller has died; here a setpoint must be finite, and a sample
counts only when the controller's clock has moved on. The safety controller stops the arm, alone; this driver reports what it did.
An emulator is known by the word EMULATED in the version that the dashboard gives.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hardware._base import ArmState, Caps, Health, Identity, Sampled, Setpoint, Stop
from hardware._errors import ConfigMismatch, DeviceFault, EStop, NotReady, ProtectiveStop
from hardware.robots._controller import check_limits, checked, fresh, let_go
from hardware.robots._envelope import Envelope
from hardware.robots._ur_link import RUNNING, STREAM_HZ, Link
from robolearn.errors import ConfigError

NEEDS = ("rtde_control", "ur")  # the library it speaks through, and the extra that brings it
EMULATOR = "ur"  # what speaks its protocol without the metal
EMULATION: dict[str, object] = {}  # its fields: none, it is one by default
NAME = "ur5e"
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")
_SAFETY = (
    "normal", "reduced", "protective stop", "recovery", "safeguard stop", "system emergency stop", "robot emergency stop",
    "emergency stop", "violation", "fault", "stopped for safety",
)  # fmt: skip
_ESTOP, _FAULT, _PROTECTIVE, _SAFEGUARD, _STOPPED = 0b111 << 5, 0b11 << 8, 1 << 2, 1 << 4, 1 << 10  # of the safety status bits
_HOLD_BRAKE = 10.0  # [m/s^2] ur_rtde's own
_PAYLOAD_KG = 0.05  # a difference that matters
_LATE_NS = 50_000_000


@dataclass(frozen=True)
class Config:
    """Where the controller is and how closely the arm follows."""

    host: str = "192.168.0.10"
    """Address of the controller; an emulator's is 127.x.y.z."""
    model: str = "UR5"
    """What the dashboard must call the robot."""
    rate_hz: float = 125.0
    """Of the cycle in which setpoints come; servoJ moves for one period."""
    lookahead_s: float = 0.1
    """How far servoJ smooths ahead, 0.03 to 0.2; the arm is about so late."""
    gain: float = 300.0
    """Of servoJ, 100 to 2000."""
    watchdog_s: float = 0.1
    """Without a word for so long the control program ends and the arm stops."""
    lower: tuple[float, ...] = (-2 * math.pi,) * 6
    """Hard limits [rad] that the cell needs; the controller does not tell its own."""
    upper: tuple[float, ...] = (2 * math.pi,) * 6
    """The same, above."""
    velocity: float = math.pi
    """Fastest joint speed [rad/s]."""
    payload_kg: float = -1.0
    """What the arm carries, as the installation at the pendant must say; negative: not checked."""
    power_on: bool = False
    """Whether `activate` may switch the arm on and release its brakes, which else a person does at the pendant."""
    unlock_s: float = 5.0
    """How long a protective stop must have lasted before it may be unlocked; the controller wants the same."""
    ramp: float = 2.0
    """How hard [m/s^2] the tool brakes in RAMP_STOP; HOLD brakes with 10."""
    patience_s: float = 0.005
    """How long a cycle waits for a new sample."""
    timeout_s: float = 2.0
    """How long `connect` waits for the controller to answer."""

    def __post_init__(self) -> None:
        if not (0.03 <= self.lookahead_s <= 0.2 and 100 <= self.gain <= 2000):
            got = f"{self.lookahead_s:g} s and {self.gain:g}"
            raise ConfigError(f"ur5e: want lookahead_s of 0.03 to 0.2 and gain of 100 to 2000, got {got}")
        check_limits(self.lower, self.upper, NAME)
        if len(self.lower) != len(JOINTS):
            raise ConfigError(f"ur5e: want {len(JOINTS)} limits, got {self.lower}")
        positive = (self.rate_hz, self.watchdog_s, self.velocity, self.ramp, self.patience_s, self.timeout_s)
        if min(positive) <= 0 or self.unlock_s < 0 or not self.host:
            raise ConfigError("ur5e: want a host, unlock_s of at least 0, and rates, speeds and times above 0")


def make(config: Config, clock_ns: Callable[[], int] = time.monotonic_ns) -> UR5e:
    """Returns the driver, not connected."""
    return UR5e(config, clock_ns)


class UR5e:
    """The `Driver` of one arm; it belongs in a process of its own, as ur_rtde has threads that spin."""

    def __init__(self, config: Config, clock_ns: Callable[[], int]) -> None:
        self._config, self._clock_ns = config, clock_ns
        self._link, self._identity = Link(NAME, config.host, clock_ns), Identity(NAME)
        self._envelope, self._seen_s, self._seq = Envelope(), -1.0, 0
        self._active, self._stopped_ns = False, 0
        self._ours = False  # the control program may run, or move the arm, because of us

    def connect(self) -> Identity:
        """Opens RTDE and the dashboard and asks who is there; TransportLost after three tries."""
        self._link.open(self._config.timeout_s)
        try:
            model, serial, version = map(self._link.ask, ("get robot model", "get serial number", "PolyscopeVersion"))
        except BaseException:
            self._link.close()
            raise
        self._identity = Identity(model, serial, version, emulated="EMULATED" in version)
        return self._identity

    def capabilities(self) -> Caps:
        """Returns the configured limits and what an e-Series arm is known to do."""
        c = self._config
        return Caps(
            JOINTS, np.array(c.lower), np.array(c.upper), np.full(6, c.velocity), (1 / c.watchdog_s, c.rate_hz, STREAM_HZ),
            stops=(Stop.HOLD, Stop.RAMP_STOP, Stop.RELEASE), watchdog_s=(0.002, 1.0), brakes=True,
            latency_s=(1 / STREAM_HZ, c.lookahead_s + 1 / STREAM_HZ),
        )  # fmt: skip

    def configure(self) -> Mapping[str, tuple[Any, Any]]:
        """Writes nothing: model, remote control and payload are set at the pendant and checked here. ConfigMismatch names it."""
        c, payload = self._config, self._link.there().getPayload()
        if not self._identity.model.startswith(c.model):
            raise ConfigMismatch(NAME, f"model: want {c.model}, at {c.host} is a {self._identity.model}", phase="configure")
        if self._link.ask("is in remote control").lower() == "false":
            raise ConfigMismatch(NAME, "the pendant is in local control; switch it to remote control", phase="configure")
        if c.payload_kg >= 0 and abs(payload - c.payload_kg) > _PAYLOAD_KG:
            wanted = f"want {c.payload_kg:g} kg, the installation says {payload:g} kg; set it at the pendant"
            raise ConfigMismatch(NAME, f"payload: {wanted}", phase="configure")
        return {}

    def activate(self) -> None:
        """Starts the control program, gives it the measured pose as goal and arms its watchdog.

        NotReady while the arm is off, unless `power_on`, or while another program runs.
        """
        receive = self._link.there()
        self._check_safety()
        if receive.getRobotMode() != RUNNING:
            if not self._config.power_on:
                off = f"{self._link.ask('robotmode')}; power the arm on and release its brakes at the pendant, or set power_on"
                raise NotReady(NAME, f"activate: {off}", phase="activate")
            self._link.power_on()
        self._ours = True
        self._link.start_program()
        self._link.poll(lambda: self._servo(receive.getActualQ()), "servoJ is refused")
        if not self._link.within(lambda: self._link.control.setWatchdog(1.0 / self._config.watchdog_s)):
            raise ConfigMismatch(NAME, f"the watchdog of {self._config.watchdog_s:g} s did not take", phase="activate")
        self._active = True

    def exchange(self, setpoint: Setpoint | None) -> ArmState:
        """Sends a setpoint, or else a sign of life, and returns a sample that was not returned before.

        ProtectiveStop, EStop and DeviceFault as the controller reports them, before anything is sent.
        """
        self._link.there()
        self._check_safety()
        if self._active and not self._link.control.isProgramRunning():
            self._program_ended()
        if setpoint is not None:
            if not self._servo(checked(setpoint, len(JOINTS), self._active, NAME)):
                self._program_ended()
        elif self._active:
            self._link.do(self._link.control.kickWatchdog)
        return fresh(self._new, self._config.patience_s, self._clock_ns, NAME)

    def health(self) -> Health:
        """Returns what RTDE brought with the samples; asks for nothing."""
        receive = self._link.there()
        heat, volts = receive.getJointTemperatures(), receive.getActualJointVoltage()
        named = _names(receive.getSafetyStatusBits())
        alarm = {"robot": named} if named else {}
        return Health(dict(zip(JOINTS, heat, strict=True)), dict(zip(JOINTS, volts, strict=True)), alarm)

    def deactivate(self, stop: Stop) -> None:
        """Brakes and ends the control program: the controller holds the arm. RELEASE cuts its power, and the brakes hold it.

        NotReady where the program does not end, or the power stays on; each step is tried, whatever the one before it did.
        """
        self._active = False
        receive, control = self._link.there(), self._link.control
        try:
            if control is not None and control.isProgramRunning():
                self._link.end_program(self._config.ramp if stop is Stop.RAMP_STOP else _HOLD_BRAKE)
        finally:
            if stop is Stop.RELEASE:
                self._link.ask("power off")
                self._link.poll(lambda: receive.getRobotMode() != RUNNING, "the arm does not power off")
        self._ours = False

    def clear_fault(self) -> None:
        """Closes the popups, unlocks a protective stop that is old enough and uploads the control program again; moves nothing.

        EStop while the button is pressed; NotReady with the seconds left until a stop may be unlocked, or the controller's words.
        """
        receive = self._link.there()
        self._active = False
        with contextlib.suppress(ProtectiveStop):
            self._check_safety()
        bits = receive.getSafetyStatusBits()
        if bits & _SAFEGUARD:
            raise NotReady(NAME, "clear_fault: the safeguard is still open; close it", phase="clear_fault")
        self._link.ask("close safety popup")
        if bits & _PROTECTIVE:
            self._unlock()
        self._link.ask("close popup")
        self._stopped_ns = 0
        if self._link.control is not None and receive.getRobotMode() == RUNNING:
            self._ours = True
            self._link.start_program()

    def disconnect(self) -> list[Exception]:
        """Stops the arm if it still answers, and closes everything."""
        errors = let_go(self._ours, lambda: self.deactivate(Stop.HOLD))
        self._active = self._ours = False
        return errors + self._link.close()

    def _check_safety(self) -> None:
        """Raises what the safety system says."""
        bits = self._link.receive.getSafetyStatusBits()
        if not bits & (_ESTOP | _FAULT | _PROTECTIVE | _SAFEGUARD | _STOPPED):
            return
        self._active, named = False, ", ".join(_names(bits))
        if bits & _ESTOP:
            raise EStop(NAME, f"{named}; release it, then clear the fault", code="estop", raw=bits)
        if bits & _FAULT:
            raise DeviceFault(NAME, f"{named}; restart the safety system at the pendant", bits, code="safety")
        self._stopped_ns = self._stopped_ns or self._clock_ns()
        wait = f"find the cause, and clear the fault after {self._config.unlock_s:g} s"
        raise ProtectiveStop(NAME, f"{named}; {wait}", code="ur_protective_stop", raw=bits)

    def _program_ended(self) -> None:
        """Raises why: a stop of the safety system, which the other connection may show some packets later, or its own end."""
        self._active = False
        until = self._clock_ns() + _LATE_NS
        while self._clock_ns() < until:
            self._check_safety()
            time.sleep(0.0003)
        why = "the control program has ended: its watchdog, or an error that the pendant shows"
        raise DeviceFault(NAME, why, self._link.receive.getRobotStatus(), code="program", phase="exchange")

    def _unlock(self) -> None:
        left = self._config.unlock_s - (self._clock_ns() - self._stopped_ns) / 1e9
        if left > 0:
            raise NotReady(NAME, f"clear_fault: a protective stop can be unlocked in {left:.1f} s, not yet", phase="clear_fault")
        said = self._link.ask("unlock protective stop")
        if "releasing" not in said:
            raise NotReady(NAME, f"clear_fault: the controller says: {said}", phase="clear_fault")
        self._link.poll(lambda: not self._link.receive.getSafetyStatusBits() & _PROTECTIVE, "the protective stop stays")

    def _new(self) -> ArmState | None:
        """Returns what the last packet brought; None where it is an old one, or another one came between."""
        receive = self._link.receive
        seen_s, now = receive.getTimestamp(), self._clock_ns()
        q, qd, current = receive.getActualQ(), receive.getActualQd(), receive.getActualCurrent()
        if seen_s == self._seen_s or seen_s != receive.getTimestamp():
            return None
        self._seen_s, self._seq = seen_s, self._seq + 1
        return ArmState(
            np.array(q), np.array(qd), np.array(current), self._envelope.local_ns(int(seen_s * 1e9), now), now,
            int(0.5e9 / STREAM_HZ), self._seq, flags=Sampled.EMULATED if self._identity.emulated else 0,
        )  # fmt: skip

    def _servo(self, q: list[float]) -> bool:
        c = self._config
        servo = self._link.control.servoJ
        return bool(self._link.do(lambda: servo(q, 0.0, 0.0, 1.0 / c.rate_hz, c.lookahead_s, c.gain)))


def _names(bits: int) -> tuple[str, ...]:
    """Returns the names of the safety status bits that are not well."""
    return tuple(name for k, name in enumerate(_SAFETY) if k > 1 and bits >> k & 1)
