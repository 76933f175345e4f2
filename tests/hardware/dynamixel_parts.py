"""What the tests of Dynamixel arms share: how the servos are mounted, and the calibration that says so."""

from __future__ import annotations

import time

import numpy as np

from hardware._base import ArmState, Setpoint
from hardware._calibration import ServoCalibration, ServoGripper, ServoJoint
from hardware._life import Attended
from hardware.robots import koch

IDS = (1, 2, 3, 4, 5, 6)
ZEROS = (2048, 100, 2048, 4000, 2048, 1000)  # two joints cross the end of their encoder
SIGNS = (1, 1, -1, 1, -1, 1)
START = np.array([0.3, -0.2, 0.5, 0.4, -0.1])
TICK = 2 * np.pi / 4096
CALM = 0.25  # [s] for an answer: a busy machine is no dead servo
MOUNTED = {"zeros": list(ZEROS), "signs": list(SIGNS), "q": [*START.tolist(), 300 * TICK], "reboot_s": 0.05}  # of the emulator


def calibration(device: str = "koch", names: tuple[str, ...] = koch.JOINTS, ids: tuple[int, ...] = IDS) -> ServoCalibration:
    registers = {"homing": 0, "drive_mode": 0}
    arm = tuple(
        ServoJoint(name, ids[k], (SIGNS * 2)[k], (ZEROS * 2)[k], -1.6, 1.6, 1200, 52, registers) for k, name in enumerate(names)
    )
    return ServoCalibration(device, arm, ServoGripper("gripper", ids[-1], 1000, 600, 0.07, 1200, 52, registers))


def go(arm: Attended, q: np.ndarray, aperture: float | None = None) -> ArmState:
    """Cycles until the arm is there."""
    end = time.monotonic() + 10.0
    while True:
        state = arm.cycle(Setpoint(q, aperture))
        there = np.abs(state.q - q).max() < 1.2 * TICK and (aperture is None or abs(state.aperture - aperture) < 0.01)
        if there or time.monotonic() > end:
            return state
        time.sleep(0.005)
