"""The robots that are made of Dynamixel servos: what their files and numbers must say, and two servos on one joint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardware._base import Stop
from hardware._calibration import ServoCalibration, ServoGripper, ServoJoint, save
from hardware._errors import CalibrationMismatch
from hardware._life import Attended
from hardware.robots import koch, viperx
from robolearn.errors import ConfigError
from tests.hardware.arm_bench import Served
from tests.hardware.dynamixel_parts import CALM, TICK, calibration, go

sdk: Any = pytest.importorskip("dynamixel_sdk", reason="dynamixel-sdk is not installed: pip install 'robolearn[dynamixel]'")


def test_another_arms_calibration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="koch calibration: want the YAML file of this arm"):
        koch.make(koch.Config())
    save(calibration("viperx", viperx.JOINTS, (1, 2, 4, 6, 7, 8, 9)), tmp_path / "other.yaml")
    with pytest.raises(ConfigError, match=r"want the calibration of a koch with shoulder_pan, .* got viperx with waist"):
        koch.make(koch.Config(calibration=str(tmp_path / "other.yaml")))
    with pytest.raises(ConfigError, match=r"viperx shadows: want a free id that follows one of 1, 2, 4, .* got 2 after 1"):
        viperx.make(viperx.Config(calibration=str(tmp_path / "other.yaml"), shadows=((2, 1),)))


@pytest.mark.parametrize("robot", (koch, viperx))
def test_numbers_that_make_no_sense_are_refused(robot: Any) -> None:
    with pytest.raises(ConfigError, match="want velocity and slow_s above 0"):
        robot.make(robot.Config(velocity=0.0))
    with pytest.raises(ConfigError, match="reply_s: want seconds above 0, got 0"):
        robot.Config(reply_s=0.0)
    with pytest.raises(ConfigError, match="grip_a: want a current up to"):
        robot.Config(grip_a=9.0)


def test_a_viperx_moves_both_servos_of_a_joint_and_refuses_two_that_are_apart(tmp_path: Path) -> None:
    overrides = {**viperx.EMULATION, "zeros": [2048, 2000, 4096 - 2000, 2048, 2048, 2048, 2048, 2048, 1100]}
    arm = tuple(
        ServoJoint(name, servo, 1, 2000 if servo == 2 else 2048, -1.6, 1.6)
        for name, servo in zip(viperx.JOINTS, (1, 2, 4, 6, 7, 8), strict=True)
    )
    save(ServoCalibration("viperx", arm, ServoGripper("gripper", 9, 1000, 600, 0.11)), tmp_path / "viperx.yaml")
    with Served("dynamixel", overrides) as emulator:
        file = str(tmp_path / "viperx.yaml")
        driver = Attended(viperx.make(viperx.Config(emulator.address, file, watchdog_s=2.0, reply_s=CALM)), "viperx", 1.0)
        parts = driver.connect().parts
        assert [part.split()[1] for part in parts if "gripper" in part or "rotate" in part] == ["XM430-W350"] * 2
        assert sum("XM540-W270" in part for part in parts) == 7
        assert driver.configure()["shoulder shadow.secondary_id"] == (255, 2)
        driver.activate()
        q = np.array([0.2, -0.5, 0.7, 0.0, 0.3, -0.2])
        np.testing.assert_allclose(go(driver, q).q, q, atol=2 * TICK)
        seen = emulator.control("stats")["servos"]
        assert seen["3"]["goal"] == seen["2"]["goal"] and seen["3"]["torque"] and seen["5"]["torque"]
        driver.deactivate(Stop.RELEASE, drop=True)
        emulator.control("set", id=3, zero=3000)
        driver.configure()
        with pytest.raises(CalibrationMismatch, match="servos 2 and 3 of one joint read"):
            driver.activate()
        assert not any(servo["torque"] for servo in emulator.control("stats")["servos"].values())
        assert driver.disconnect() == []
