"""SO-101 (and SO-100): five joints and a gripper of Feetech STS3215 servos on one adapter.

These servos have no watchdog: where the host dies they go to their last goal and hold it, and nothing in software can stop them
then. Put a relay into the arm's supply that opens when the host no longer closes it, and an emergency stop beside it. Torque off
lets the arm fall. After an overload a servo may refuse even that, until its supply is cut.

Every joint must stay within its encoder's turn: calibrate with a homing offset that puts the middle of its range at tick 2048
(`hardware._calibration.homing_offset`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hardware import _feetech_wire as wire
from hardware._calibration import ServoCalibration
from hardware._feetech import FeetechBus
from hardware.robots._servo_arm import Options, ServoArm, calibration_of
from robolearn.errors import ConfigError

NEEDS = ("serial", "feetech")  # the library it speaks through, and the extra that brings it
EMULATOR = "feetech"  # what speaks its protocol without the metal
EMULATION: dict[str, object] = {}  # its fields: none, it is one by default
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll")
IDS = (1, 2, 3, 4, 5, 6)  # as the arm is put together: one a joint, and the gripper's
_SLACK = 40  # [ticks] the gripper's servo may be beyond its ends: a finger that bends
_GRIPPER = {
    "protection_current": 250,
    "overload_torque": 25,
}  # 1.6 A; a quarter of the torque: it lives longer than it grips hard


@dataclass(frozen=True)
class Config:
    """The arm and how it is wired."""

    port: str = "/dev/ttyACM0"
    """Serial port of the servo bus."""
    calibration: str = ""
    """YAML file of this arm, made by `robolearn calibrate servos`."""
    baud: int = 1_000_000
    """Rate of the bus [1/s]."""
    velocity: float = 3.0
    """Fastest joint speed [rad/s]."""
    timeout_s: float = 0.008
    """What the answer to one request may take [s]."""
    p_gain: int = 16
    """Of every joint's position loop; the servos come with 32, which makes the arm shake."""
    grip_share: float = 0.5
    """Share of its torque that the gripper may use, 0 to 1."""
    rest_tolerance: float = 0.0
    """Refuses to start further than this from the calibrated pose of rest [rad]; 0: starts anywhere."""
    release_at_end: bool = False
    """Lets go when the driver is closed; without it the arm holds."""

    def __post_init__(self) -> None:
        if not self.timeout_s > 0:
            raise ConfigError(f"so101 timeout_s: want seconds above 0, got {self.timeout_s:g}")
        if not (0 < self.grip_share <= 1 and 0 < self.p_gain <= 254):
            raise ConfigError(
                f"so101: want grip_share to 1 and p_gain to 254, above 0, got {self.grip_share:g} and {self.p_gain}"
            )


def settings(calibration: ServoCalibration, config: Config) -> dict[int, dict[str, int]]:
    """Returns the settings by servo; ConfigError where a range does not fit into the encoder's turn."""
    wanted: dict[int, dict[str, int]] = {}
    for k, joint in enumerate(calibration.joints):
        if not calibration.single_turn[k]:
            what = f"the range of {joint.name} crosses the end of its encoder's turn"
            raise ConfigError(f"so101 calibration: {what}; give its servo a homing offset and calibrate again")
        lowest, highest = calibration.servo_limits(k)
        wanted[joint.id] = {"min_position": lowest, "max_position": highest, "p_gain": config.p_gain, "i_gain": 0, "d_gain": 32}
    gripper = calibration.gripper
    if gripper is not None:
        ends = sorted((gripper.closed, gripper.closed + gripper.travel))
        lowest, highest = ends[0] - _SLACK, ends[1] + _SLACK
        if lowest < 0 or highest >= wire.TICKS:
            what = f"the way of the {gripper.name}, with {_SLACK} ticks beyond each end, crosses the end of its encoder's turn"
            raise ConfigError(f"so101 calibration: {what}; give its servo a homing offset and calibrate again")
        limits = {"min_position": lowest, "max_position": highest, "max_torque": round(1000 * config.grip_share)}
        wanted[gripper.id] = _GRIPPER | limits
    return wanted


def make(config: Config, clock_ns: Callable[[], int] = time.monotonic_ns) -> ServoArm:
    """Returns the driver, not connected; ConfigError where the calibration is not of such an arm."""
    calibration = calibration_of(config.calibration, "so101", JOINTS)
    options = Options(
        "so101",
        config.velocity,
        watchdog_s=0.0,
        single_turn=frozenset(servo.id for servo in calibration.servos),
        marker=("firmware", wire.EMULATED_FIRMWARE),
        port=config.port,
        rest_tolerance=config.rest_tolerance,
        release=config.release_at_end,
    )
    return ServoArm(bus(config, clock_ns, settings(calibration, config)), calibration, options, clock_ns)


def bus(
    config: Config,
    clock_ns: Callable[[], int] = time.monotonic_ns,
    wanted: Mapping[int, Mapping[str, int]] = MappingProxyType({}),
) -> FeetechBus:
    """Returns the servos' bus, not open; wanted: settings by servo, which need a calibration."""
    return FeetechBus("so101", config.port, config.baud, wanted, config.timeout_s, clock_ns)
