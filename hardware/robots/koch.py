"""Koch v1.1 follower: five joints and a gripper of Dynamixel servos (2 XL430-W250, 4 XL330-M288) on one adapter.

A joint whose calibrated range stays within its encoder's turn is kept there by its servo too; another one counts on over the
encoder's end. The gripper gives way at a current. The XL430 measure a load and no current: their effort is NaN.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from hardware._dynamixel import DynamixelBus
from hardware.robots._dynamixel_arm import arm
from hardware.robots._servo_arm import Options, ServoArm, calibration_of
from robolearn.errors import ConfigError

NEEDS = ("dynamixel_sdk", "dynamixel")  # the library it speaks through, and the extra that brings it
EMULATOR = "dynamixel"  # what speaks its protocol without the metal
EMULATION = {"ids": (1, 2, 3, 4, 5, 6), "models": (1060,) * 2 + (1200,) * 4}  # its fields for this arm
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll")
IDS = (1, 2, 3, 4, 5, 6)  # as the arm is put together: one a joint, and the gripper's
_AMPERE = 1000  # units of current of an XL330


@dataclass(frozen=True)
class Config:
    """The arm and how it is wired."""

    port: str = "/dev/ttyUSB0"
    """Serial port of the servo bus."""
    calibration: str = ""
    """YAML file of this arm, made by `robolearn calibrate servos`."""
    baud: int = 1_000_000
    """Rate of the bus [1/s]."""
    velocity: float = 3.0
    """Fastest joint speed [rad/s]."""
    watchdog_s: float = 0.2
    """Servos stop after so long without a request [s]; 0: never."""
    reply_s: float = 0.004
    """What an answer may take beyond the time of its bytes [s]."""
    grip_a: float = 0.3
    """Current [A] at which the gripper gives way."""
    rest_tolerance: float = 0.0
    """Refuses to start further than this from the calibrated pose of rest [rad]; 0: starts anywhere."""
    release_at_end: bool = False
    """Lets go when the driver is closed; without it the arm holds."""

    def __post_init__(self) -> None:
        if not self.reply_s > 0:
            raise ConfigError(f"koch reply_s: want seconds above 0, got {self.reply_s:g}")
        if not 0 < self.grip_a <= 1.5:
            raise ConfigError(f"koch grip_a: want a current up to 1.5 A, got {self.grip_a:g}")


def make(config: Config, clock_ns: Callable[[], int] = time.monotonic_ns) -> ServoArm:
    """Returns the driver, not connected; ConfigError where the calibration is not of such an arm."""
    options = Options(
        "koch",
        config.velocity,
        watchdog_s=config.watchdog_s,
        port=config.port,
        rest_tolerance=config.rest_tolerance,
        release=config.release_at_end,
    )
    calibration = calibration_of(config.calibration, "koch", JOINTS)
    return arm(calibration, options, config.baud, config.reply_s, round(config.grip_a * _AMPERE), clock_ns)


def bus(config: Config, clock_ns: Callable[[], int] = time.monotonic_ns) -> DynamixelBus:
    """Returns the servos' bus, not open and without the settings that follow from a calibration."""
    return DynamixelBus("koch", config.port, config.baud, reply_s=config.reply_s, clock_ns=clock_ns)
