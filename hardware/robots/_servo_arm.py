"""An arm of smart servos on one bus: a `Driver` over any `ServoBus` and a `ServoCalibration`.

The arm has no brakes: a servo without torque lets go. One whose host is silent keeps its last goal; a watchdog, where it has one,
stops it on the way. An alarm is cleared by a reboot, which takes the torque of that servo: support the arm first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hardware import _servo_bus
from hardware._base import ArmState, Caps, Health, Identity, Sampled, Setpoint, Stop
from hardware._calibration import Found, ServoCalibration, load, shortest
from hardware._errors import CalibrationMismatch, DeviceFault, HwError, TransportCorrupt
from hardware._servo_bus import Sample, ServoBus, firmly, read_firmly, write_firmly
from robolearn.errors import ConfigError

_SHADOW_SLACK = 0.15  # [rad] two servos of one joint may be apart: backlash, and the rounding of two horns


@dataclass(frozen=True)
class Options:
    """What a robot is beyond its bus and its calibration.

    name: opens every message; velocity: fastest joint speed [rad/s]; rate_hz: slowest, nominal, fastest cycle;
    watchdog_s: the servos stop after so long without a request, 0: their watchdog is off;
    single_turn: ids of the servos that count within one turn while they hold;
    shadows: id of a second servo on the same joint, and whom it follows by its own settings;
    marker: register and value by which an emulator says that it is one; port: whose adapter has a serial number;
    slow_s: an answer that takes longer at best makes the bus too slow;
    rest_tolerance: [rad] of the check against the pose of rest at `activate`, 0: none;
    release: whether `disconnect` lets an arm go that still holds.
    """

    name: str
    velocity: float
    rate_hz: tuple[float, float, float] = (10.0, 100.0, 200.0)
    watchdog_s: float = 0.2
    single_turn: frozenset[int] = frozenset()
    shadows: Mapping[int, int] = field(default_factory=dict)
    marker: tuple[str, int] | None = None
    port: str = ""
    slow_s: float = 0.008
    rest_tolerance: float = 0.0
    release: bool = False

    def __post_init__(self) -> None:
        if not (self.velocity > 0 and self.slow_s > 0 and self.watchdog_s >= 0 and self.rest_tolerance >= 0):
            got = f"{self.velocity:g}, {self.slow_s:g}, {self.watchdog_s:g} and {self.rest_tolerance:g}"
            raise ConfigError(
                f"{self.name}: want velocity and slow_s above 0, watchdog_s and rest_tolerance of at least 0, got {got}"
            )
        if not 0 < self.rate_hz[0] <= self.rate_hz[1] <= self.rate_hz[2]:
            raise ConfigError(f"{self.name} rate_hz: want slowest, nominal and fastest, rising and above 0, got {self.rate_hz}")


def calibration_of(path: str, device: str, joints: tuple[str, ...]) -> ServoCalibration:
    """Returns the calibration in a file; ConfigError where there is none, or it is of another kind of arm."""
    if not path:
        raise ConfigError(f"{device} calibration: want the YAML file of this arm; make one with robolearn calibrate servos")
    calibration = load(Path(path))
    names = tuple(joint.name for joint in calibration.joints)
    if calibration.device != device or names != joints or calibration.gripper is None:
        want = f"{device} with {', '.join(joints)} and a gripper"
        raise ConfigError(f"{path}: want the calibration of a {want}, got {calibration.device} with {', '.join(names)}")
    return calibration


class ServoArm:
    """The driver. Torque and watchdogs are switched servo by servo, and each is tried, whatever the one before it did."""

    def __init__(
        self,
        bus: ServoBus,
        calibration: ServoCalibration,
        options: Options,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """ConfigError where bus and calibration count in different turns, or the watchdog cannot be set as wanted."""
        if bus.ticks_per_turn != calibration.turn:
            raise ConfigError(f"{options.name}: the servos have {bus.ticks_per_turn} ticks a turn, the file {calibration.turn}")
        span = bus.watchdog_s
        if options.watchdog_s and (span is None or not span[0] <= options.watchdog_s <= span[1]):
            wanted = f"{span[0]:g} to {span[1]:g} s, or 0" if span else "0: these servos have none"
            raise ConfigError(f"{options.name} watchdog_s: want {wanted}, got {options.watchdog_s:g}")
        self._bus, self._calibration, self._options, self._clock_ns = bus, calibration, options, clock_ns
        self._n, self._sign = len(calibration.joints), np.array([joint.sign for joint in calibration.joints])
        self._driven = tuple(servo.id for servo in calibration.servos)
        self._all = self._driven + tuple(options.shadows)
        names = {servo.id: servo.name for servo in calibration.servos}
        self._names = names | {shadow: f"{names[of]} shadow" for shadow, of in options.shadows.items()}
        self._single = np.array([servo in options.single_turn for servo in self._driven])
        self._ticks = np.zeros(len(self._driven), dtype=np.int64)  # as last measured
        self._seq, self._turn_to_poll, self._sent_ns = 0, 0, 0
        self._holding = self._armed = self._moving = self._emulated = False
        self._flagged: set[int] = set()
        self._slow = Health(temperature={}, voltage={}, alarm={})

    def connect(self) -> Identity:
        """Opens the bus, meets every servo, compares it with the calibration and takes one sample.

        TransportTimeout names who is silent and how the others are; ConfigMismatch a bus that is too slow.
        """
        self._bus.open()
        try:
            met = _servo_bus.meet(self._bus, self._names, self._options.name, self._options.slow_s, self._clock_ns)
            marker = self._options.marker
            self._emulated = marker is not None and read_firmly(self._bus, self._all[0], marker[0]) == marker[1]
            serial = _servo_bus.adapter_serial(self._options.port)
            found = {
                servo.id: Found(*met[servo.id], {name: read_firmly(self._bus, servo.id, name) for name in servo.registers})
                for servo in self._calibration.servos
            }
            self._calibration.compare(found, serial)
            self._take(firmly(lambda: self._bus.sample(self._all)))
        except BaseException:
            self._bus.close()
            raise
        firmware = "/".join(sorted({str(version) for _, version in met.values()}))
        parts = tuple(f"{self._names[id]}: {self._bus.model_name(n)} id {id} firmware {v}" for id, (n, v) in met.items())
        return Identity(self._options.name, serial, firmware, parts, self._emulated)

    def capabilities(self) -> Caps:
        """Returns the calibrated limits and the configured speed."""
        gripper = self._calibration.gripper
        return Caps(
            joints=tuple(joint.name for joint in self._calibration.joints),
            lower=self._calibration.lower,
            upper=self._calibration.upper,
            velocity=np.full(self._n, self._options.velocity),
            rate_hz=self._options.rate_hz,
            modes=("joint_pos",) + (("gripper_width",) if gripper else ()),
            watchdog_s=self._bus.watchdog_s if self._options.watchdog_s else None,
            opening_m=gripper.opening_m if gripper else 0.0,
            latency_s=(0.001, 0.02),
            blocking=("clear_fault",),
        )

    def configure(self) -> Mapping[str, tuple[Any, Any]]:
        """Writes the settings that differ and returns them by "servo.setting"."""
        changed = {}
        for servo in self._all:
            for name, values in self._bus.configure(servo).items():
                changed[f"{self._names[servo]}.{name}"] = values
        return changed

    def activate(self) -> None:
        """Holds the arm where it is: goals, read back, then watchdogs, then torque; undone where a servo refuses."""
        for servo in self._all:
            self._watchdog(servo, 0)  # one that has run out refuses goals
        self._take(sample := firmly(lambda: self._bus.sample(self._all)))
        self._check_pose(sample)
        firmly(self._hold_here)
        steps = round(self._options.watchdog_s / self._bus.watchdog_s[0]) if self._bus.watchdog_s else 0
        held = self._holding
        try:
            for servo in self._all:
                self._watchdog(servo, steps)
            self._holding = True
            for servo in self._all:
                write_firmly(self._bus, servo, "torque", 1)
        except HwError:
            self._end(release=not held)
            raise
        self._armed, self._sent_ns = steps > 0, self._clock_ns()

    def exchange(self, setpoint: Setpoint | None) -> ArmState:
        """Sends the goals and returns one sample; DeviceFault where the watchdogs have stopped the arm in a pause of ours."""
        now = self._clock_ns()
        if self._armed and now - self._sent_ns > 0.9e9 * self._options.watchdog_s:
            self._after_a_pause((now - self._sent_ns) / 1e9)
        if setpoint is not None:
            self._send(setpoint)
        sample = self._bus.sample(self._all)
        self._sent_ns = now
        self._take(sample)
        return self._state(sample)

    def health(self) -> Health:
        """Polls temperature, voltage and alarm of one servo, one with an alarm first, and returns the newest of all."""
        flagged = sorted(self._flagged)
        servo = flagged[0] if flagged else self._all[self._turn_to_poll % len(self._all)]
        self._turn_to_poll += not flagged
        name = self._names[servo]
        temperature, voltage = float(self._bus.read(servo, "temperature")), self._bus.read(servo, "voltage") / 10
        bits = self._bus.read(servo, "alarm")
        self._flagged.discard(servo)
        others = {axis: named for axis, named in self._slow.alarm.items() if axis != name}
        self._slow = Health(
            {**self._slow.temperature, name: temperature},
            {**self._slow.voltage, name: voltage},
            {**others, name: self._bus.alarms(servo, bits)} if bits else others,
        )
        return self._slow

    def deactivate(self, stop: Stop) -> None:
        """Keeps the measured pose, or lets go; then the watchdogs are off. Raises the first error after every servo was tried.

        Where the pose cannot be kept the watchdogs stay on: they stop servos that still go to an older goal.
        """
        if stop is Stop.HOLD:
            self._hold()
        errors = self._end(release=stop is Stop.RELEASE)
        if errors:
            raise errors[0]

    def clear_fault(self) -> None:
        """Reboots every servo with an alarm, which lets go of its torque, and resets watchdogs that have run out."""
        self._armed = False
        for servo in self._all:
            if read_firmly(self._bus, servo, "alarm"):
                self._bus.reboot(servo)
                _servo_bus.wait_for(self._bus, servo)
            self._watchdog(servo, 0)
        self._flagged.clear()
        self._slow = replace(self._slow, alarm={})

    def disconnect(self) -> list[Exception]:
        """Closes the bus; an arm that still holds is held where it is, or let go where `Options.release` says so."""
        errors: list[Exception] = []
        try:
            if self._holding and self._moving and not self._options.release:
                self._hold()
            if self._holding:
                errors += self._end(self._options.release)
        except HwError as error:
            errors.append(error)
        self._holding = self._armed = self._moving = False
        try:
            self._bus.close()
        except HwError as error:
            errors.append(error)
        return errors

    def _check_pose(self, sample: Sample) -> None:
        """Refuses a pose that cannot be, and two servos on one joint that would pull against each other."""
        self._calibration.check_pose(self._calibration.radians(self._ticks[: self._n]), self._options.rest_tolerance)
        at = dict(zip(self._all, sample.position.tolist(), strict=True))
        for shadow, of in self._options.shadows.items():
            apart = abs(shortest(at[shadow] - at[of], self._calibration.turn)) * 2 * np.pi / self._calibration.turn
            if apart > _SHADOW_SLACK:
                raise CalibrationMismatch(
                    self._options.name,
                    f"servos {of} and {shadow} of one joint read {apart:.2f} rad apart; set homing and drive_mode",
                )

    def _near(self) -> np.ndarray:
        """Returns the measured counts as the servos take goals: within the turn for those that count no more than one."""
        return np.where(self._single, self._ticks % self._calibration.turn, self._ticks)

    def _hold(self) -> None:
        """Holds the arm where it is measured now; a watchdog that has run out refuses goals and is reset first."""
        if self._armed:
            for servo in self._all:
                if read_firmly(self._bus, servo, "watchdog") == _servo_bus.TRIPPED:
                    self._watchdog(servo, 0)
        self._take(firmly(lambda: self._bus.sample(self._all)))
        firmly(self._hold_here)

    def _hold_here(self) -> None:
        """Makes the measured pose the goal and reads it back, because nobody answers a sync write."""
        here = self._near().tolist()
        self._bus.goals(self._driven, here)
        goal = dict(zip(self._driven, here, strict=True))
        for servo in self._all:
            want, got = goal[self._options.shadows.get(servo, servo)], self._bus.read(servo, "goal")
            if got != want:
                raise TransportCorrupt(self._options.name, f"servo {servo} ({self._names[servo]}) has goal {got}, want {want}")
        self._moving = False

    def _send(self, setpoint: Setpoint) -> None:
        near = self._near()
        ticks = self._calibration.ticks(setpoint.q, near[: self._n]).tolist()
        if setpoint.aperture is not None:
            ticks.append(self._calibration.gripper_ticks(setpoint.aperture, int(near[-1])))
        self._moving = True
        self._bus.goals(self._driven[: len(ticks)], ticks)

    def _after_a_pause(self, pause_s: float) -> None:
        """Looks whether the servos have given us up; then they refuse goals, and a sync write would not say so."""
        gone = [servo for servo in self._all if self._bus.read(servo, "watchdog") == _servo_bus.TRIPPED]
        if gone:
            who = ", ".join(self._names[servo] for servo in gone)
            said = f"the watchdog of {who} ran out in a pause of {pause_s:.2f} s; clear the fault, then activate again"
            raise DeviceFault(self._options.name, said, _servo_bus.TRIPPED, code="watchdog", phase="exchange")

    def _take(self, sample: Sample) -> None:
        self._ticks = sample.position[: len(self._driven)]

    def _state(self, sample: Sample) -> ArmState:
        self._seq += 1
        n = self._n
        return ArmState(
            q=self._calibration.radians(self._ticks[:n]),
            qd=self._sign * sample.velocity[:n],
            effort=self._sign * sample.current[:n],
            t_sample_ns=(sample.sent_ns + sample.recv_ns) // 2,
            t_recv_ns=sample.recv_ns,
            t_unc_ns=(sample.recv_ns - sample.sent_ns) // 2,
            seq=self._seq,
            aperture=self._calibration.aperture(int(self._ticks[-1])),
            flags=int(Sampled.EMULATED) if self._emulated else 0,
            alarm=self._alarm_bits(sample) if sample.alert.any() else 0,
        )

    def _alarm_bits(self, sample: Sample) -> int:
        """Returns the alarm registers of all who raise one, joined; 128 for one that does not say which."""
        bits = 0
        for servo in np.array(self._all)[sample.alert].tolist():
            self._flagged.add(servo)
            try:
                bits |= self._bus.read(servo, "alarm") or 128
            except HwError:
                bits |= 128
        return bits

    def _watchdog(self, servo: int, steps: int) -> None:
        if self._bus.watchdog_s is not None:
            write_firmly(self._bus, servo, "watchdog", steps)

    def _end(self, release: bool) -> list[Exception]:
        """Switches torque (if wanted) and watchdogs off, servo by servo; returns what went wrong."""
        errors: list[Exception] = []
        if release:
            errors += self._switch_off("torque")
            self._holding = self._holding and bool(errors)  # whoever refused may hold still
        if self._bus.watchdog_s is not None:
            errors += self._switch_off("watchdog")
        self._armed = False
        return errors

    def _switch_off(self, name: str) -> list[Exception]:
        errors: list[Exception] = []
        for servo in self._all:
            try:
                write_firmly(self._bus, servo, name, 0)
            except HwError as error:
                errors.append(error)
        return errors
