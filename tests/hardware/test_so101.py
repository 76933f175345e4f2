"""The SO-101 as a driver, through its life cycle, against emulated Feetech servos."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardware._base import Sampled, Setpoint, State, Stop
from hardware._calibration import ServoCalibration, ServoGripper, ServoJoint, save
from hardware._errors import BadCommand, CalibrationMismatch, DeviceFault, LimitViolation, TransportLost
from hardware._feetech import FeetechBus
from hardware._life import Attended, Budget
from hardware.robots import so101
from hardware.robots.so101 import JOINTS, Config, make
from robolearn.errors import ConfigError
from tests.hardware.arm_bench import Served

pytest.importorskip("serial", reason="the Feetech bus is pyserial; pip install 'robolearn[feetech]'")
IDS, HOMING = (1, 2, 3, 4, 5, 6), (0, 30, 0, 0, -500, 0)
START = (0.1, -0.4, 0.5, 0.0, 0.3, 0.2)  # [rad] of the servos, from the middle of their turns
SIGNS = (1, -1, 1, 1, -1)
CALIBRATION = ServoCalibration(
    "so101",
    tuple(
        ServoJoint(name, servo, sign, 2048 - homing, -1.5, 1.5, model=777, registers={"homing": homing})
        for name, servo, sign, homing in zip(JOINTS, IDS, SIGNS, HOMING, strict=False)
    ),
    ServoGripper("gripper", 6, closed=1900, travel=800, opening_m=0.07),
)
TICK = 2 * np.pi / 4096
PATIENT = Budget(hard_s=60.0)  # only misses count: a busy machine may be elsewhere for longer than 200 ms


@pytest.fixture(scope="module")
def running() -> Iterator[Served]:
    with Served("feetech", {"q": START, "homing": HOMING}) as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Served) -> Served:
    """The emulator without a fault, every servo as after its supply was cut."""
    for op in ("replug", "thaw", "drop", "corrupt", "delay"):
        running.control(op)
    for servo in IDS:
        running.control("alive", id=servo)
        running.control("clear", id=servo)
    return running


@pytest.fixture
def arm(emulator: Served, tmp_path: Path) -> Iterator[Callable[..., Attended]]:
    """Makes arms, and closes them in the end."""
    arms: list[Attended] = []

    def arm(calibration: ServoCalibration = CALIBRATION, **overrides: Any) -> Attended:
        save(calibration, tmp_path / "so101.yaml")
        config = Config(port=emulator.address, calibration=str(tmp_path / "so101.yaml"), timeout_s=0.1)
        arms.append(Attended(make(replace(config, **overrides)), "arm", 0.01, PATIENT))
        return arms[-1]

    yield arm
    for made in arms:
        made.disconnect()


def active(arm: Attended) -> Attended:
    arm.connect()
    arm.configure()
    arm.activate()
    return arm


def test_connecting_moves_and_switches_nothing_and_shows_an_emulator(arm: Callable[..., Attended], emulator: Served) -> None:
    before = emulator.control("stats")
    body = arm()
    identity = body.connect()
    after = emulator.control("stats")
    assert identity.emulated and identity.model == "so101" and "STS3215" in identity.parts[0] and len(identity.parts) == 6
    assert (after["goals"], after["q"], after["torque"]) == (before["goals"], before["q"], [0] * 6)
    assert body.caps.joints == JOINTS and body.caps.watchdog_s is None and body.caps.opening_m == 0.07


def test_the_second_configuration_finds_nothing_to_write(arm: Callable[..., Attended], emulator: Served) -> None:
    body = arm(p_gain=17, grip_share=0.4)
    body.connect()
    changed = body.configure()
    assert changed["shoulder_pan.p_gain"][1] == 17 and changed["gripper.max_torque"][1] == 400
    body.disconnect()
    body = arm(p_gain=17, grip_share=0.4)
    body.connect()
    assert body.configure() == {}


def test_activation_holds_the_arm_where_it_is(arm: Callable[..., Attended], emulator: Served) -> None:
    before = emulator.control("stats")
    body = active(arm())
    after = emulator.control("stats")
    assert after["torque"] == [1] * 6 and after["goals"]["last"] == pytest.approx(before["q"], abs=TICK)
    state = body.cycle()
    q = np.array(SIGNS) * before["q"][:5]
    np.testing.assert_allclose(state.q, q, atol=TICK)
    assert state.aperture == pytest.approx((2048 + before["q"][5] / TICK - 1900) / 800, abs=0.01)
    assert state.flags & Sampled.EMULATED and state.t_sample_ns + state.t_unc_ns <= state.t_recv_ns
    np.testing.assert_allclose(emulator.control("stats")["q"], before["q"], atol=2 * TICK)


def test_the_arm_and_its_gripper_go_where_they_are_told(arm: Callable[..., Attended], emulator: Served) -> None:
    body = active(arm())
    goal = np.array([0.3, 0.2, -0.4, 0.6, -0.7])
    until = time.monotonic() + 10.0
    while np.abs((state := body.cycle(Setpoint(goal, 0.75))).q - goal).max() > 2 * TICK or abs(state.aperture - 0.75) > 0.01:
        assert time.monotonic() < until, state
    np.testing.assert_allclose(emulator.control("stats")["q"][:5], np.array(SIGNS) * goal, atol=4 * TICK)


@pytest.mark.parametrize(
    "q, error",
    [
        (np.full(5, np.nan), BadCommand),
        (np.array([0.0, 0.0, np.inf, 0.0, 0.0]), BadCommand),
        (np.zeros(6), BadCommand),
        (np.zeros(5, dtype=int), BadCommand),
        (np.full(5, 57.3), LimitViolation),
        (np.array([0.0, 0.0, 0.0, 0.0, 1.6]), LimitViolation),
    ],
)
def test_a_senseless_setpoint_never_reaches_the_wire(
    arm: Callable[..., Attended], emulator: Served, q: np.ndarray, error: type[Exception]
) -> None:
    body = active(arm())
    before = emulator.control("stats")
    with pytest.raises(error):
        body.cycle(Setpoint(q))
    with pytest.raises(BadCommand):
        body.cycle(Setpoint(np.zeros(5), float("nan")))
    after = emulator.control("stats")
    assert after["packets"] == before["packets"] and after["goals"] == before["goals"]


def test_a_dead_servo_makes_the_state_stale_at_once_and_then_is_a_fault(arm: Callable[..., Attended], emulator: Served) -> None:
    body = active(arm(timeout_s=0.03))
    last = body.cycle()
    emulator.control("dead", id=3)
    stale = body.cycle()
    assert stale.flags & Sampled.STALE
    np.testing.assert_array_equal(stale.q, last.q)
    with pytest.raises(TransportLost, match="no answer in 10 cycles"):
        for _ in range(20):
            body.cycle()
    assert body.state is State.FAULT and body.counters["TransportTimeout"] >= 3


def test_an_overload_is_a_named_fault_and_the_end_reports_who_refused(arm: Callable[..., Attended], emulator: Served) -> None:
    body = active(arm(release_at_end=True))
    emulator.control("alarm", id=4, bits=32)
    with pytest.raises(DeviceFault, match="wrist_flex: overload"):
        body.cycle()
    with pytest.raises(DeviceFault, match=r"servo 4 keeps its alarm \(overload\); switch its supply off and on"):
        body.clear_fault()
    errors = body.disconnect()
    assert len(errors) == 1 and "servo 4 does not take torque = 0" in str(errors[0])
    assert emulator.control("stats")["torque"] == [0, 0, 0, 1, 0, 0]
    FeetechBus("test", emulator.address).open()  # the port is free again


def test_after_the_supply_was_cut_the_fault_can_be_cleared(arm: Callable[..., Attended], emulator: Served) -> None:
    body = active(arm())
    emulator.control("alarm", id=4, bits=32)
    with pytest.raises(DeviceFault):
        body.cycle()
    emulator.control("clear", id=4)
    body.clear_fault()
    body.configure()
    body.activate()
    assert body.cycle().alarm == 0 and emulator.control("stats")["torque"] == [1] * 6


def test_unplugging_is_a_lost_transport_and_a_new_driver_connects_again(arm: Callable[..., Attended], emulator: Served) -> None:
    body = active(arm(release_at_end=True))
    body.cycle()
    emulator.control("unplug")
    with pytest.raises(TransportLost, match="is gone"):
        body.cycle()
    assert all(isinstance(error, TransportLost) for error in body.disconnect()) and body.disconnect() == []
    emulator.control("replug")
    again = active(arm())
    assert not again.cycle().flags & Sampled.STALE


def test_an_arm_that_is_let_go_has_no_torque_and_one_that_holds_keeps_it(arm: Callable[..., Attended], emulator: Served) -> None:
    body = active(arm())
    assert body.disconnect() == [] and emulator.control("stats")["torque"] == [1] * 6
    body = active(arm())
    body.deactivate(Stop.RELEASE, drop=True)
    assert emulator.control("stats")["torque"] == [0] * 6


def test_another_homing_offset_than_the_files_is_refused_before_anything_moves(
    arm: Callable[..., Attended], emulator: Served
) -> None:
    joints = (replace(CALIBRATION.joints[0], registers={"homing": 5}), *CALIBRATION.joints[1:])
    with pytest.raises(CalibrationMismatch, match=r"servo 1 \(shoulder_pan\) has homing 0, the file 5"):
        arm(replace(CALIBRATION, joints=joints)).connect()


def test_a_range_over_the_encoders_end_is_refused_with_what_to_do() -> None:
    joints = (replace(CALIBRATION.joints[0], zero=300), *CALIBRATION.joints[1:])
    with pytest.raises(ConfigError, match=r"shoulder_pan crosses the end .* give its servo a homing offset"):
        so101.settings(replace(CALIBRATION, joints=joints), Config())


@pytest.mark.parametrize(("closed", "travel", "fits"), [(40, 800, True), (39, 800, False), (3255, 800, True), (3256, 800, False),
                                                        (4055, -800, True), (4056, -800, False), (4000, 800, False)])  # fmt: skip
def test_the_gripper_needs_room_beyond_both_ends_within_its_turn(closed: int, travel: int, fits: bool) -> None:
    """Cut off at the end of the turn, the limit would stop the gripper before it is shut."""
    assert CALIBRATION.gripper is not None
    calibration = replace(CALIBRATION, gripper=replace(CALIBRATION.gripper, closed=closed, travel=travel))
    if not fits:
        with pytest.raises(ConfigError, match=r"the way of the gripper, with 40 ticks beyond each end, crosses the end"):
            so101.settings(calibration, Config())
        return
    wanted, ends = so101.settings(calibration, Config())[6], sorted((closed, closed + travel))
    assert (wanted["min_position"], wanted["max_position"]) == (ends[0] - 40, ends[1] + 40)


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"velocity": 0.0}, "so101: want velocity and slow_s above 0"), ({"timeout_s": 0.0}, "timeout_s: want seconds above 0"),
        ({"grip_share": 1.5}, "grip_share"), ({"p_gain": 0}, "p_gain"),
    ],
)  # fmt: skip
def test_a_config_that_makes_no_sense_is_refused(tmp_path: Path, wrong: dict[str, Any], says: str) -> None:
    save(CALIBRATION, tmp_path / "so101.yaml")
    with pytest.raises(ConfigError, match=says):
        make(Config(calibration=str(tmp_path / "so101.yaml"), **wrong))
