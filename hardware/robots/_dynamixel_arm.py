"""What the arms of Dynamixel servos share: the settings that follow from their calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from hardware._calibration import ServoCalibration
from hardware._dynamixel import DynamixelBus
from hardware._dynamixel_registers import CURRENT_POSITION, EMULATED, EXTENDED_POSITION, POSITION
from hardware.robots._servo_arm import Options, ServoArm
from robolearn.errors import ConfigError


def settings(
    calibration: ServoCalibration, shadows: Mapping[int, int], grip_units: int
) -> tuple[dict[int, dict[str, int]], frozenset[int]]:
    """Returns the settings by servo, and who counts within one turn.

    Those whose range stays within the encoder's turn keep to it by themselves (position mode), unless a homing offset moves its
    ends; others count on. Shadows take the settings of whom they follow, and listen to its id.
    grip_units: current of the gripper, in its own units.
    """
    wanted: dict[int, dict[str, int]] = {}
    single = set()
    for k, joint in enumerate(calibration.joints):
        if calibration.single_turn[k] and not joint.registers.get("homing", 0):
            lowest, highest = calibration.servo_limits(k)
            wanted[joint.id] = {"operating_mode": POSITION, "min_position": lowest, "max_position": highest}
            single.add(joint.id)
        else:
            wanted[joint.id] = {"operating_mode": EXTENDED_POSITION}
    if calibration.gripper is not None:
        wanted[calibration.gripper.id] = {"operating_mode": CURRENT_POSITION, "goal_current": grip_units}
    for shadow, of in shadows.items():
        if of not in wanted or shadow in wanted:
            ids = ", ".join(str(joint.id) for joint in calibration.joints)
            raise ConfigError(f"{calibration.device} shadows: want a free id that follows one of {ids}, got {shadow} after {of}")
        wanted[shadow] = {**wanted[of], "secondary_id": of}
    return wanted, frozenset(single)


def arm(
    calibration: ServoCalibration, options: Options, baud: int, reply_s: float, grip_units: int, clock_ns: Callable[[], int]
) -> ServoArm:
    """Returns the driver of an arm at `options.port`."""
    wanted, single = settings(calibration, options.shadows, grip_units)
    bus = DynamixelBus(options.name, options.port, baud, wanted, reply_s, clock_ns)
    options = replace(options, single_turn=single, marker=("model_information", EMULATED))
    return ServoArm(bus, calibration, options, clock_ns)
