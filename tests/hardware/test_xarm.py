"""The xArm's driver through the vendor's SDK, attended, against the emulated control box in a process of its own."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hardware._base import ArmState, Sampled, Setpoint, State, Stop
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
from hardware._life import Attended, Budget
from hardware.emulators import xarm as emulator
from hardware.emulators._process import Running
from hardware.robots import xarm7
from robolearn.errors import BadInput, ConfigError, MissingDependency

PORT = 20502  # 502 needs a privilege
PATIENT = Budget(hard=40, hard_s=5.0)  # a busy machine is no broken wire


class Bench:
    """One emulated box and the arm connected to it."""

    def __init__(self, box: Running) -> None:
        self.box = box
        self.config = xarm7.Config(host=box.address, port=PORT, reply_s=0.05)
        self.connect()

    def connect(self) -> Attended:
        self.driver = xarm7.make(self.config)
        self.arm = Attended(self.driver, "xarm", 1 / 100, PATIENT)
        self.identity = self.arm.connect()
        return self.arm

    def resting(self) -> Attended:
        """Returns the arm connected and not active, from wherever the last test left it."""
        if self.arm.state is State.CLOSED:
            self.connect()
        if self.arm.state is State.FAULT:
            self.arm.clear_fault()
        if self.arm.state is State.ACTIVE:
            self.arm.deactivate(Stop.HOLD)
        return self.arm

    def active(self) -> Attended:
        """Returns the arm at work, from wherever the last test left it."""
        if self.arm.state is not State.ACTIVE:
            self.resting()
        if self.arm.state is State.CONNECTED:
            self.arm.configure()
        if self.arm.state is State.CONFIGURED:
            self.arm.activate()
        self.cycle()
        return self.arm

    def cycle(self, setpoint: Setpoint | None = None) -> ArmState:
        """Returns a fresh sample; a busy machine may miss some."""
        for _ in range(50):
            try:
                state = self.arm.cycle(setpoint)
            except TransportTimeout:  # nothing to repeat yet
                continue
            if not state.flags & Sampled.STALE:
                return state
        raise AssertionError("no fresh sample in 50 cycles")

    def fault(self, setpoint: Setpoint | None = None) -> HwError:
        """Returns what ends the cycles."""
        with pytest.raises(HwError) as caught:
            for _ in range(500):
                self.arm.cycle(setpoint)
        return caught.value

    def stats(self) -> Any:
        return self.box.control("stats")


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    pytest.importorskip("xarm", reason="the xArm SDK is not installed: pip install 'robolearn[xarm]'")
    with Running("xarm", {"port": PORT, "q": [0.1, -0.2, 0.3, 0.4, -0.5, 0.6, -0.7]}) as box:
        bench = Bench(box)
        yield bench
        assert bench.arm.disconnect() == [] == bench.driver.disconnect()


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


def test_connecting_says_who_is_there_and_touches_nothing(bench: Bench) -> None:
    assert bench.identity.model == "xArm7" and bench.identity.firmware == "2.5.0"
    assert bench.identity.serial == "XI1304EMULATED" and bench.identity.emulated
    assert socket.getdefaulttimeout() is None  # the SDK sets it for the whole process
    before = bench.stats()
    driver = xarm7.make(bench.config)
    assert driver.disconnect() == []  # before connect: nothing to do
    driver.connect()
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


def test_errors_of_the_box_are_named_and_clear(bench: Bench) -> None:
    for op, args, kind, line in (
        ("pstop", {}, ProtectiveStop, "error 31: Collision"),
        ("alarm", {"code": 11}, DeviceFault, "error 11: Servo motor 1 error"),
    ):
        arm = bench.active()
        here = bench.cycle().q
        bench.box.control(op, **args)
        error = bench.fault(Setpoint(here))
        assert type(error) is kind and line in str(error) and arm.state is State.FAULT
        assert bench.driver.health().alarm["box"] == (line.split(":")[0],)
        np.testing.assert_allclose(bench.active().cycle().q, here, atol=1e-3)


def test_an_emergency_stop_is_left_by_a_person(bench: Bench) -> None:
    arm = bench.active()
    bench.box.control("estop")
    assert isinstance(bench.fault(), EStop)
    with pytest.raises(EStop, match="error 1: The Emergency Stop Button"):
        arm.clear_fault()
    bench.box.control("clear")
    assert bench.active().state is State.ACTIVE


def test_a_lost_answer_is_a_miss_and_silence_is_a_loss(bench: Bench) -> None:
    arm = bench.active()
    bench.driver._arm.set_timeout(0.005)  # the box is silent: nothing to wait for
    bench.box.control("dead")
    with pytest.raises(TransportLost, match=r"no answer in .* get_joint_states: no answer"):
        stale = [arm.cycle().flags & Sampled.STALE for _ in range(100)]
        assert all(stale)
    bench.box.control("alive")
    bench.driver._arm.set_timeout(bench.config.reply_s)
    assert bench.active().state is State.ACTIVE


def test_lost_answers_are_counted_and_no_sample_is_wrong(bench: Bench) -> None:
    arm = bench.active()
    here, before = bench.cycle().q, arm.counters["TransportTimeout"]
    bench.driver._arm.set_timeout(0.01)
    bench.box.control("drop", p=0.05)
    states = [arm.cycle() for _ in range(40)]
    bench.box.control("drop", p=0.0)
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
    here = bench.cycle().q
    arm = XArmAPI(bench.box.address, is_radian=True, forbid_uds=True)
    try:
        until(lambda: np.allclose(arm.angles, here, atol=1e-3) and arm.mode == 1 and list(arm.temperatures) == [30] * 7)
    finally:
        arm.disconnect()
        socket.setdefaulttimeout(None)


def test_pulling_the_plug_is_lost_and_the_same_process_connects_again(bench: Bench) -> None:
    arm, here = bench.active(), bench.cycle().q
    bench.box.control("unplug")
    assert isinstance(bench.fault(Setpoint(here)), TransportLost)
    assert all(isinstance(error, HwError) for error in arm.disconnect())
    with pytest.raises(TransportLost, match=rf"no control box at 127\..*:{PORT}"):
        xarm7.make(bench.config).connect()
    bench.box.control("replug")
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
