"""The xArm's driver through the vendor's SDK, attended, against the emulated control box in a process of its own."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from hardware._base import Sampled, Setpoint, State, Stop
from hardware._errors import (
    BadCommand,
    ConfigMismatch,
    DeviceFault,
    EStop,
    HwError,
    LimitViolation,
    NotReady,
    ProtectiveStop,
    TransportCorrupt,
    TransportLost,
    TransportTimeout,
)
from hardware._life import Budget
from hardware.emulators import xarm as emulator
from hardware.emulators._process import Running
from hardware.robots import xarm7
from robolearn.errors import BadInput, ConfigError, MissingDependency
from tests.hardware.arm_bench import Bench, until

PORT = 20502  # 502 needs a privilege
PATIENT = Budget(hard=40, hard_s=5.0)  # a busy machine is no broken wire


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    pytest.importorskip("xarm", reason="the xArm SDK is not installed: pip install 'robolearn[xarm]'")
    with Running("xarm", {"port": PORT, "q": [0.1, -0.2, 0.3, 0.4, -0.5, 0.6, -0.7]}) as box:
        bench = Bench(box, xarm7.make, xarm7.Config(host=box.address, port=PORT, reply_s=0.05), 1 / 100, PATIENT)
        yield bench
        assert bench.arm.disconnect() == [] == bench.driver.disconnect()


def test_connecting_says_who_is_there_and_touches_nothing(bench: Bench) -> None:
    bench.resting()
    before = bench.stats()
    driver = xarm7.make(bench.config)
    assert driver.disconnect() == []  # before connect: nothing to do
    identity = driver.connect()
    assert identity.model == "xArm7" and identity.firmware == "2.5.0"
    assert identity.serial == "XI1304EMULATED" and identity.emulated
    assert socket.getdefaulttimeout() is None  # the SDK sets it for the whole process
    assert driver.configure() == {} == driver.configure()
    state, after = driver.exchange(None), bench.stats()
    np.testing.assert_allclose(state.q, before["q"], atol=1e-6)
    assert state.flags & Sampled.EMULATED and state.t_sample_ns + state.t_unc_ns <= state.t_recv_ns + 1
    asked = {int(f) for f, count in after["calls"].items() if count > before["calls"].get(f, 0)}
    assert asked == {emulator.VERSION, emulator.JOINTS, emulator.ERROR} and after["goals"] == before["goals"]
    assert driver.disconnect() == []


def test_activating_takes_the_measured_pose_as_goal_in_servo_mode(bench: Bench) -> None:
    bench.resting()
    here = bench.cycle().q
    bench.active()
    stats = bench.stats()
    np.testing.assert_allclose(stats["goals"]["last"], here, atol=1e-6)
    assert stats["enabled"] and stats["mode"] == 1


def test_setpoints_move_the_arm(bench: Bench) -> None:
    bench.active()
    goal, states = bench.cycle().q + 0.05, []
    for _ in range(2000):
        states.append(bench.cycle(Setpoint(goal)))
        if np.abs(states[-1].q - goal).max() < 1e-3:
            break
    np.testing.assert_allclose(states[-1].q, goal, atol=1e-3)
    assert (np.diff([s.t_sample_ns for s in states]) > 0).all() and states[-1].seq == states[0].seq + len(states) - 1


def test_what_is_no_setpoint_never_reaches_the_wire(bench: Bench) -> None:
    arm = bench.active()
    here, before = bench.cycle().q, bench.stats()["goals"]
    for q in (np.full(7, np.nan), np.full(7, np.inf), here[:6]):
        with pytest.raises(BadCommand, match=r"want 7 finite numbers \[rad\]"):
            arm.cycle(Setpoint(q))
        with pytest.raises(BadCommand, match="want 7 finite numbers"):  # the driver by itself lets no such thing through either
            bench.driver.exchange(Setpoint(q))
    with pytest.raises(LimitViolation, match="are these degrees"):
        arm.cycle(Setpoint(np.degrees(here)))
    assert bench.stats()["goals"] == before and before["non_finite"] == 0


def test_a_setpoint_to_an_arm_that_is_not_active_is_refused(bench: Bench) -> None:
    bench.resting()
    here, before = bench.cycle().q, bench.stats()["goals"]
    with pytest.raises(NotReady, match="setpoint: the arm is not active"):
        bench.driver.exchange(Setpoint(here))
    assert bench.stats()["goals"] == before


def test_an_arm_that_somebody_stopped_is_sent_nothing(bench: Bench) -> None:
    bench.active()
    here = bench.cycle().q
    somebody = xarm7.make(bench.config)
    somebody.connect()
    somebody._arm.set_state(emulator.STOPPED)
    before = bench.stats()["goals"]["count"]
    error = bench.fault(Setpoint(here + 0.1))
    assert isinstance(error, ProtectiveStop) and "stopped from elsewhere (state 4)" in str(error)
    assert bench.stats()["goals"]["count"] == before and somebody.disconnect() == []
    assert bench.active().state is State.ACTIVE


def test_setting_up_waits_longer_than_a_cycle_does(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.resting().configure()
    monkeypatch.setattr(bench.driver, "_config", replace(bench.config, reply_s=0.01))
    bench.control("delay", s=0.02)
    bench.arm.activate()
    with pytest.raises(TransportTimeout, match=r"no answer in 0\.01 s"):
        bench.driver.exchange(None)
    bench.arm.deactivate(Stop.HOLD)
    bench.control("delay", s=0.0)


@pytest.mark.parametrize("when", ["activate", "exchange"])
def test_an_arm_that_we_set_going_is_stopped_at_the_end_whatever_went_wrong(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def fail() -> None:
        raise TransportTimeout("xarm7", "get_joint_states: no answer")

    bench.resting() if when == "activate" else bench.active()
    with monkeypatch.context() as broken:
        broken.setattr(bench.driver, "_joints" if when == "activate" else "_check_errors", fail)
        with pytest.raises(TransportTimeout):
            bench.driver.activate() if when == "activate" else bench.driver.exchange(None)
    bench.driver._active = False  # as an error leaves it
    assert bench.stats()["state"] != emulator.STOPPED
    assert bench.arm.disconnect() == [] and bench.stats()["state"] == emulator.STOPPED


def test_errors_of_the_box_are_named_and_clear(bench: Bench) -> None:
    for op, args, kind, line in (
        ("pstop", {}, ProtectiveStop, "error 31: Collision"),
        ("alarm", {"code": 11}, DeviceFault, "error 11: Servo motor 1 error"),
    ):
        arm = bench.active()
        here = bench.cycle().q
        bench.control(op, **args)
        error = bench.fault(Setpoint(here))
        assert type(error) is kind and line in str(error) and arm.state is State.FAULT
        assert bench.driver.health().alarm["box"] == (line.split(":")[0],)
        np.testing.assert_allclose(bench.active().cycle().q, here, atol=1e-3)


def test_an_emergency_stop_is_left_by_a_person(bench: Bench) -> None:
    arm = bench.active()
    bench.control("estop")
    assert isinstance(bench.fault(), EStop)
    with pytest.raises(EStop, match="error 1: The Emergency Stop Button"):
        arm.clear_fault()
    bench.control("clear")
    assert bench.active().state is State.ACTIVE


def test_a_lost_answer_is_a_miss_and_silence_is_a_loss(bench: Bench) -> None:
    arm = bench.active()
    bench.driver._arm.set_timeout(0.005)  # the box is silent: nothing to wait for
    bench.control("dead")
    with pytest.raises(TransportLost, match=r"no answer in .* get_joint_states: no answer"):
        stale = [arm.cycle().flags & Sampled.STALE for _ in range(100)]
        assert all(stale)
    bench.control("alive")
    bench.driver._arm.set_timeout(bench.config.reply_s)
    assert bench.active().state is State.ACTIVE


def test_lost_answers_are_counted_and_no_sample_is_wrong(bench: Bench) -> None:
    arm = bench.active()
    here, before = bench.cycle().q, arm.counters["TransportTimeout"]
    bench.driver._arm.set_timeout(0.01)
    bench.control("drop", p=0.05)
    states = [arm.cycle() for _ in range(40)]
    bench.control("drop", p=0.0)
    bench.driver._arm.set_timeout(bench.config.reply_s)
    assert arm.counters["TransportTimeout"] > before and bench.stats()["dropped"] > 0
    np.testing.assert_allclose([s.q for s in states], np.tile(here, (40, 1)), atol=1e-3)


def test_releasing_switches_the_motors_off_and_holding_does_not(bench: Bench) -> None:
    arm = bench.active()
    arm.deactivate(Stop.HOLD)
    stats = bench.stats()
    assert stats["enabled"] and stats["state"] == emulator.STOPPED
    with pytest.raises(NotReady, match="state active"):
        arm.cycle(Setpoint(np.zeros(7)))
    bench.active().deactivate(Stop.RELEASE)
    assert not bench.stats()["enabled"]


def test_another_number_of_joints_is_a_mismatch(bench: Bench) -> None:
    bench.active()
    driver = xarm7.make(replace(bench.config, lower=(-1.0,) * 6, upper=(1.0,) * 6))
    driver.connect()
    with pytest.raises(ConfigMismatch, match="joints: want 6, as there are limits, xArm7 has 7"):
        driver.configure()
    assert driver.disconnect() == []


def test_a_plain_client_of_the_sdk_lives_on_the_reports(bench: Bench) -> None:
    from xarm.wrapper import XArmAPI

    bench.active()
    here, asked = bench.cycle().q, bench.stats()["calls"].get(str(emulator.JOINTS), 0)
    arm = XArmAPI(bench.robot.address, is_radian=True, forbid_uds=True)
    try:
        until(lambda: np.allclose(arm.angles, here, atol=1e-3) and list(arm.temperatures) == [30] * 7)
        assert (arm.mode, arm.error_code, arm.axis) == (1, 0, 7)
        np.testing.assert_allclose(arm.angles, here, atol=1e-3)
        assert bench.stats()["calls"].get(str(emulator.JOINTS), 0) == asked, "it did not have to ask"
    finally:
        arm.disconnect()
        socket.setdefaulttimeout(None)


def test_pulling_the_plug_is_lost_and_the_same_process_connects_again(bench: Bench) -> None:
    arm, here = bench.active(), bench.cycle().q
    bench.control("unplug")
    assert isinstance(bench.fault(Setpoint(here)), TransportLost)
    assert all(isinstance(error, HwError) for error in arm.disconnect())
    with pytest.raises(TransportLost, match=rf"no control box at 127\..*:{PORT}"):
        xarm7.make(bench.config).connect()
    bench.control("replug")
    assert bench.active().state is State.ACTIVE


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (3, TransportTimeout), (5, TransportCorrupt), (8, TransportLost), (-1, TransportLost), (-8, LimitViolation),
        (9, NotReady), (51, NotReady), (12, DeviceFault),
    ],
)  # fmt: skip
def test_every_return_code_becomes_an_error_that_names_the_call(code: int, kind: type[HwError]) -> None:
    driver = xarm7.make(xarm7.Config())
    driver._done(0, "servo_j")
    with pytest.raises(kind, match="servo_j"):
        driver._done(code, "servo_j")


def test_without_the_sdk_its_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xarm.wrapper", None)
    with pytest.raises(MissingDependency, match=r"pip install 'robolearn\[xarm\]'"):
        xarm7.make(xarm7.Config()).connect()


def test_a_wrong_configuration_says_what_is_wanted() -> None:
    with pytest.raises(ConfigError, match="as many lower as upper limits"):
        xarm7.Config(lower=(0.0,))
    with pytest.raises(ConfigError, match="want a host and a port"):
        xarm7.Config(port=0)
    with pytest.raises(ConfigError, match="xarm: want 5 to 7 axes"):
        emulator.Config(axes=4)
    with pytest.raises(BadInput, match="unknown op 'corrupt'"):
        emulator.make(emulator.Config()).control("corrupt", {})
