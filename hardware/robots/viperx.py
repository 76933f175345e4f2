"""Trossen ViperX 300 S: six joints and a gripper of Dynamixel XM540-W270 and XM430-W350 servos, nine on one adapter.

Shoulder and elbow have two servos each: the second one (the shadow) listens to the id of the first by its secondary id, is
mounted the other way round (drive mode 1), and must have been set up to read the same (homing offset). `activate` refuses an arm
whose two servos of a joint are apart. The gripper gives way at a current.
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
EMULATION = {  # its fields for this arm: the shadows turn the other way round
    "ids": (1, 2, 3, 4, 5, 6, 7, 8, 9), "models": (1120,) * 7 + (1020,) * 2, "joints": (0, 1, 1, 2, 2, 3, 4, 5, 6),
    "drive_modes": (0, 0, 1, 0, 1, 0, 0, 0, 0),
}  # fmt: skip
JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
IDS = (1, 2, 4, 6, 7, 8, 9)  # as the arm is put together: one a joint, and the gripper's
_AMPERE = 1 / 0.00269  # units of current of an XM430


@dataclass(frozen=True)
class Config:
    """The arm and how it is wired."""

    port: str = "/dev/ttyUSB0"
    """Serial port of the servo bus."""
    calibration: str = ""
    """YAML file of this arm, made by `robolearn calibrate servos`."""
    baud: int = 1_000_000
    """Rate of the bus [1/s]."""
    shadows: tuple[tuple[int, int], ...] = ((3, 2), (5, 4))
    """Id of each second servo, and of the one that it follows."""
    velocity: float = 2.0
    """Fastest joint speed [rad/s]."""
    watchdog_s: float = 0.2
    """Servos stop after so long without a request [s]; 0: never."""
    reply_s: float = 0.004
    """What an answer may take beyond the time of its bytes [s]."""
    grip_a: float = 0.5
    """Current [A] at which the gripper gives way."""
    rest_tolerance: float = 0.0
    """Refuses to start further than this from the calibrated pose of rest [rad]; 0: starts anywhere."""
    release_at_end: bool = False
    """Lets go when the driver is closed; without it the arm holds."""

    def __post_init__(self) -> None:
        if not self.reply_s > 0:
            raise ConfigError(f"viperx reply_s: want seconds above 0, got {self.reply_s:g}")
        if not 0 < self.grip_a <= 3.0:
            raise ConfigError(f"viperx grip_a: want a current up to 3 A, got {self.grip_a:g}")


def make(config: Config, clock_ns: Callable[[], int] = time.monotonic_ns) -> ServoArm:
    """Returns the driver, not connected; ConfigError where the calibration is not of such an arm."""
    options = Options(
        "viperx",
        config.velocity,
        watchdog_s=config.watchdog_s,
        port=config.port,
        shadows=dict(config.shadows),
        rest_tolerance=config.rest_tolerance,
        release=config.release_at_end,
    )
    calibration = calibration_of(config.calibration, "viperx", JOINTS)
    return arm(calibration, options, config.baud, config.reply_s, round(config.grip_a * _AMPERE), clock_ns)


def bus(config: Config, clock_ns: Callable[[], int] = time.monotonic_ns) -> DynamixelBus:
    """Returns the servos' bus, not open and without the settings that follow from a calibration."""
    return DynamixelBus("viperx", config.port, config.baud, reply_s=config.reply_s, clock_ns=clock_ns)
