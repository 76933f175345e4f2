"""The calibration of a servo arm: every encoder zero gives the pose back, and what makes no sense is refused in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware._calibration import (
    MARGIN,
    Found,
    ServoCalibration,
    ServoGripper,
    ServoJoint,
    homing_offset,
    load,
    measure_range,
    measure_zero,
    save,
    shortest,
)
from hardware._errors import BadCommand, CalibrationMismatch
from robolearn.errors import ConfigError

TURN = 4096
TICK = 2 * np.pi / TURN
ELBOW = ServoJoint("elbow", 3, -1, 100, -0.5, 2.0, model=1200, firmware=52, registers={"homing": 7}, rest=1.0)
JAW = ServoGripper("jaw", 6, 4000, 900, 0.07)
ARM = ServoCalibration("koch", (ServoJoint("pan", 1, 1, 2048, -1.5, 1.5), ELBOW), JAW, serial="usb-A")
FOUND = {1: Found(1060, 44, {}), 3: Found(1200, 52, {"homing": 7}), 6: Found(1200, 52, {})}


def joints(zeros: np.ndarray, sign: int, lower: float, upper: float) -> ServoCalibration:
    return ServoCalibration("koch", tuple(ServoJoint(f"j{k}", k, sign, int(z), lower, upper) for k, z in enumerate(zeros)))


@pytest.mark.parametrize("sign", (1, -1))
@pytest.mark.parametrize(("lower", "upper"), ((-1.5, 1.5), (-0.4, 5.6), (-6.0, -0.2)))
def test_every_zero_of_the_encoder_gives_the_pose_back_within_half_a_tick(sign: int, lower: float, upper: float) -> None:
    """All 4096 zeros, poses over the whole range and its margins, and whatever whole turns the servo has counted."""
    rng = np.random.default_rng(0)
    for zeros in np.arange(TURN).reshape(32, 128):
        calibration = joints(zeros, sign, lower, upper)
        for q in (np.full(128, lower - MARGIN / 2), np.full(128, upper + MARGIN / 2), rng.uniform(lower, upper, 128)):
            encoder = np.rint(zeros + sign * q / TICK).astype(int) % TURN  # what it knows: its place within a turn
            counted = encoder + TURN * rng.integers(-3, 4, 128)
            assert np.abs(calibration.radians(counted) - q).max() <= TICK / 2 + 1e-9
            assert np.abs(calibration.ticks(q, counted) - counted).max() <= 1, "the goal is where the servo is"


@given(st.integers(0, TURN - 1), st.sampled_from((1, -1)), st.floats(-0.4, 5.6), st.floats(-0.4, 5.6), st.integers(-2, 2))
@settings(max_examples=25)
def test_a_goal_is_reached_through_the_range_and_never_the_other_way_round(
    zero: int, sign: int, here: float, there: float, turns: int
) -> None:
    calibration = joints(np.array([zero]), sign, -0.4, 5.6)
    at = np.array([round(zero + sign * here / TICK) % TURN + TURN * turns])
    way = calibration.ticks(np.array([there]), at) - at
    assert abs(way[0] - sign * (there - here) / TICK) <= 1.5


@pytest.mark.parametrize("bad", ([np.nan, 0.0], [0.0, np.inf], [0.0], [0.0, 0.0, 0.0]))
def test_a_goal_that_is_no_pose_never_becomes_ticks(bad: list[float]) -> None:
    with pytest.raises(BadCommand, match="koch: goal: want 2 finite angles"):
        ARM.ticks(np.array(bad), np.zeros(2, dtype=int))


def test_a_range_over_the_encoders_end_is_not_left_to_the_servo() -> None:
    assert ARM.single_turn.tolist() == [True, False]
    lowest, highest = ARM.servo_limits(0)
    assert lowest == np.ceil(2048 - 1.6 / TICK) and highest == np.floor(2048 + 1.6 / TICK)


@given(st.integers(0, TURN - 1), st.integers(40, 3000), st.sampled_from((1, -1)), st.floats(0, 1), st.integers(-2, 2))
@settings(max_examples=25)
def test_an_aperture_survives_its_ticks_wherever_the_gripper_is_mounted(
    closed: int, travel: int, sign: int, aperture: float, turns: int
) -> None:
    arm = replace(ARM, gripper=ServoGripper("jaw", 6, closed, sign * travel, 0.07))
    near = (closed + sign * round(aperture * travel)) % TURN + TURN * turns
    ticks = arm.gripper_ticks(aperture, near)
    assert abs(ticks - near) <= 1 and arm.aperture(ticks) == pytest.approx(aperture, abs=1 / travel)


def test_a_gripper_pressed_beyond_its_ends_is_shut_or_open() -> None:
    assert ARM.aperture(3990) == 0.0 and ARM.aperture(4910) == 1.0 and np.isnan(replace(ARM, gripper=None).aperture(0))


def test_an_aperture_beyond_its_ends_or_without_a_gripper_is_refused() -> None:
    for bad in (1.01, -0.1, float("nan")):
        with pytest.raises(BadCommand, match="want an aperture of 0 to 1, got"):
            ARM.gripper_ticks(bad, 0)
    with pytest.raises(BadCommand, match="want no aperture: there is no gripper"):
        replace(ARM, gripper=None).gripper_ticks(0.5, 0)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_homing_offset_takes_the_shortest_arc_and_fits_its_register(sign: int) -> None:
    """Offsets beyond 2047 do not fit into a servo's register (lerobot issue 1296)."""
    for wanted in (0, 2047, 2048, 4095):
        for actual in range(TURN):
            offset = homing_offset(actual, wanted, sign)
            assert -2047 <= offset <= 2047
            left = shortest(actual + sign * offset - wanted)
            assert left == 0 or (abs(left) == 1 and (wanted - actual) % TURN == 2048), (actual, wanted)


def test_zeros_and_ranges_are_measured_from_what_the_encoders_read() -> None:
    rng = np.random.default_rng(1)
    zeros, signs = np.array([5, 4090, 2000]), (1, -1, 1)
    path = np.cumsum(np.vstack([np.zeros(3), rng.uniform(-0.5, 0.6, (200, 3))]), axis=0)
    path = np.clip(path, -2.5, 2.9)
    ticks = np.rint(zeros + np.array(signs) * path / TICK).astype(int) % TURN
    assert measure_zero(ticks[7].tolist(), path[7].tolist(), signs) == pytest.approx(zeros, abs=1)
    lower, upper = measure_range(ticks, zeros.tolist(), signs)
    np.testing.assert_allclose(lower, path.min(axis=0), atol=TICK)
    np.testing.assert_allclose(upper, path.max(axis=0), atol=TICK)


@pytest.mark.parametrize(
    ("change", "said"),
    (
        ({"sign": 0}, "elbow: want a sign of 1 or -1, got 0"),
        ({"zero": 4096}, "elbow: want a zero of 0 to 4095 ticks, got 4096"),
        ({"lower": 2.0}, "elbow: want a range of 0.1 to 6.08 rad, got 2 to 2"),
        ({"lower": 3.0}, "got 3 to 2"),
        ({"lower": float("nan")}, "elbow: want a range"),
        ({"upper": 6.0}, "got -0.5 to 6"),
        ({"lower": 8.0, "upper": 9.0, "rest": None}, "elbow: want a range within a turn of its zero"),
        ({"rest": 2.5}, "elbow: want rest within -0.5 to 2 rad, got 2.5"),
        ({"id": 1}, "want every name and id once, got pan 1, elbow 1, jaw 6"),
        ({"id": 253}, "elbow: want an id of 0 to 252, got 253"),
        ({"registers": {"homing": "x"}}, "elbow: want whole numbers in registers"),
    ),
)
def test_a_joint_that_makes_no_sense_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        replace(ARM, joints=(ARM.joints[0], replace(ELBOW, **change)))
    assert said in str(error.value) and str(error.value).startswith("calibration of koch: ")


@pytest.mark.parametrize(
    ("change", "said"),
    (
        ({"closed": -1}, "jaw: want closed at 0 to 4095 ticks, got -1"),
        ({"travel": 0}, "jaw: want a travel of 40 to 4016 ticks either way, got 0"),
        ({"opening_m": 0.0}, "jaw: want an opening above 0 m, got 0"),
    ),
)
def test_a_gripper_that_makes_no_sense_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(ARM, gripper=replace(JAW, **change))


def test_no_joints_and_another_format_are_refused() -> None:
    with pytest.raises(ConfigError, match="want at least one joint"):
        replace(ARM, joints=())
    with pytest.raises(ConfigError, match="format 2 is not known; this version reads 1"):
        replace(ARM, format=2)


def test_a_saved_calibration_loads_as_it_was_and_keeps_its_hash(tmp_path: Path) -> None:
    save(ARM, tmp_path / "arm.yaml")
    loaded = load(tmp_path / "arm.yaml")
    assert loaded == ARM and loaded.hash == ARM.hash
    assert replace(ARM, serial="usb-B").hash != ARM.hash
    assert [path.name for path in tmp_path.iterdir()] == ["arm.yaml"]


def test_a_file_that_is_not_there_or_wrong_is_named(tmp_path: Path) -> None:
    path = tmp_path / "arm.yaml"
    with pytest.raises(ConfigError, match=r"arm.yaml: no such calibration; make one with robolearn calibrate servos"):
        load(path)
    save(ARM, path)
    path.write_text(path.read_text().replace("sign: -1", "sign: 2"))
    with pytest.raises(ConfigError, match=r"arm.yaml: calibration of koch: elbow: want a sign"):
        load(path)
    path.write_text("device: koch\njoint: []\n")
    with pytest.raises(ConfigError, match=r"arm.yaml: calibration: unknown field 'joint'; did you mean 'joints'\?"):
        load(path)


@pytest.mark.parametrize(
    ("found", "serial", "passes"),
    [
        (FOUND, "usb-A", True),
        (FOUND, "", True),  # an adapter without a serial number
        ({**FOUND, 1: Found(9, 9, {"homing": 1})}, "usb-A", True),  # of this servo the file says nothing
        ({**FOUND, 4: Found(9, 9, {})}, "usb-A", True),  # nor of this one
        ({**FOUND, 6: Found(1060, 44, {})}, "usb-A", False),
        (FOUND, "usb-B", False),
    ],
)
def test_servos_pass_where_all_that_the_file_says_of_them_is_so(found: dict[int, Found], serial: str, passes: bool) -> None:
    arm = replace(ARM, gripper=replace(JAW, model=1200))
    try:
        arm.compare(found, serial)
    except CalibrationMismatch:
        assert not passes
    else:
        assert passes


@pytest.mark.parametrize(
    ("id", "there", "said"),
    (
        (3, Found(1060, 52, {"homing": 7}), "servo 3 (elbow) has model 1060, the file 1200"),
        (3, Found(1200, 53, {"homing": 7}), "servo 3 (elbow) has firmware 53, the file 52"),
        (3, Found(1200, 52, {"homing": 0}), "servo 3 (elbow) has homing 0, the file 7; calibrate again"),
    ),
)
def test_another_servo_or_one_that_lost_its_settings_is_a_mismatch(id: int, there: Found, said: str) -> None:
    with pytest.raises(CalibrationMismatch) as error:
        ARM.compare({**FOUND, id: there})
    assert said in str(error.value)


def test_another_adapter_is_a_mismatch() -> None:
    with pytest.raises(CalibrationMismatch, match="want adapter usb-A, got usb-B; name the file of this arm"):
        ARM.compare(FOUND, "usb-B")


def test_a_pose_that_cannot_be_is_a_mismatch() -> None:
    ARM.check_pose(np.array([1.59, -0.55]))
    with pytest.raises(
        CalibrationMismatch, match=r"pan reads -1.70 rad, beyond its range of -1.50 to 1.50 rad; its zero has moved"
    ):
        ARM.check_pose(np.array([-1.7, 0.0]))
    with pytest.raises(CalibrationMismatch, match=r"pan reads nan rad"):
        ARM.check_pose(np.array([np.nan, 0.0]))


def test_an_arm_away_from_its_pose_of_rest_is_a_mismatch_where_that_is_asked_for() -> None:
    ARM.check_pose(np.array([1.0, 0.0]))
    ARM.check_pose(np.array([1.0, 1.04]), rest_tolerance=0.05)
    with pytest.raises(CalibrationMismatch, match=r"elbow reads 1.10 rad at rest, the file says 1.00; put the arm to rest"):
        ARM.check_pose(np.array([1.0, 1.1]), rest_tolerance=0.05)
