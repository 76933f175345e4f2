"""The UR5e's driver through the real ur_rtde, attended, against the emulated controller in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hardware._base import ArmState, Sampled, Setpoint, State, Stop
from hardware._errors import (
    BadCommand,
    ConfigMismatch,
    DeviceFault,
    EStop,
    HwError,
    NotReady,
    ProtectiveStop,
    TransportLost,
)
from hardware._life import Budget
from hardware.emulators._process import Running
from hardware.robots import ur5e
from tests.hardware.arm_bench import Bench, until

pytest.importorskip("rtde_control", reason="ur_rtde is not installed: pip install 'robolearn[ur]'")
UNLOCK_S = 0.25
PATIENT = Budget(hard=40, hard_s=3.0)  # a busy machine is no broken wire


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """Connecting is quick, but ur_rtde takes a second to close."""
    with Running("ur", {"unlock_s": UNLOCK_S}) as robot:
        config = ur5e.Config(host=robot.address, watchdog_s=1.0, unlock_s=UNLOCK_S, power_on=True)
        yield Bench(robot, ur5e.make, config, 1 / 125, PATIENT)


def test_a_killed_driver_leaves_an_arm_that_its_watchdog_stopped(bench: Bench) -> None:
    bench.fresh()  # a controller takes one program
    tripped = bench.stats()["watchdog"]
    code = (
        "import time; from hardware.robots import ur5e; from hardware._base import Setpoint\n"
        f"arm = ur5e.make(ur5e.Config(host={bench.robot.address!r}, watchdog_s=0.5, patience_s=0.1)); arm.connect()\n"
        "arm.activate(); q = arm.exchange(None).q; print('active', flush=True)\n"
        "while True: q = q + 0.001; arm.exchange(Setpoint(q)); time.sleep(0.004)\n"
    )
    root = Path(__file__).parents[2]
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=root)
    try:
        assert child.stdout is not None and child.stdout.readline() == b"active\n"
        until(lambda: bench.stats()["goals"]["count"] > 5)
    finally:
        child.kill()
        child.wait()
    until(lambda: bench.stats()["watchdog"] > tripped)
    assert not bench.stats()["program"]


def test_connecting_says_who_is_there_and_touches_nothing(bench: Bench) -> None:
    assert ur5e.make(bench.config).disconnect() == []  # before connect: nothing to do
    arm, before = bench.fresh(), bench.stats()
    identity, driver = arm.connect(), bench.driver
    assert (identity.model, identity.serial, identity.emulated) == ("UR5", "00000000000", True)
    assert driver.configure() == {} == driver.configure()  # nothing is ever written
    state = bench.cycle()
    assert state.q.shape == state.qd.shape == state.effort.shape == (6,)
    assert state.flags & Sampled.EMULATED and state.t_sample_ns <= state.t_recv_ns and state.t_unc_ns == 1_000_000
    stats = bench.stats()
    assert stats["programs"] == before["programs"] and stats["goals"] == before["goals"] and not stats["program"]


def test_what_the_pendant_says_otherwise_is_a_mismatch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.resting()
    for wrong, line in (
        ({"model": "UR10"}, "model: want UR10, at 127.* is a UR5"),
        ({"payload_kg": 1.2}, "payload: want 1.2 kg, the installation says 0 kg; set it at the pendant"),
    ):
        monkeypatch.setattr(bench.driver, "_config", replace(bench.config, **wrong))
        with pytest.raises(ConfigMismatch, match=line):
            bench.driver.configure()
    monkeypatch.undo()
    bench.control("set", remote=False)
    with pytest.raises(ConfigMismatch, match="local control; switch it to remote control"):
        bench.driver.configure()
    bench.control("set", remote=True)


def test_activating_takes_the_measured_pose_as_goal_and_arms_the_watchdog(bench: Bench) -> None:
    arm = bench.resting()
    measured = bench.cycle().q
    assert bench.active() is arm
    stats = bench.stats()
    np.testing.assert_allclose(stats["goals"]["last"], measured, atol=1e-9)
    assert stats["watchdog_s"] == pytest.approx(1.0) and stats["program"] and arm.state is State.ACTIVE


def test_setpoints_move_the_arm_and_samples_follow_the_controllers_clock(bench: Bench) -> None:
    bench.active()
    goal, states = bench.cycle().q + 0.1, []
    for _ in range(200):
        states.append(bench.cycle(Setpoint(goal)))
        if np.abs(states[-1].q - goal).max() < 1e-3:
            break
    np.testing.assert_allclose(states[-1].q, goal, atol=1e-3)
    assert [s.seq for s in states] == list(range(states[0].seq, states[0].seq + len(states)))
    assert (np.diff([s.t_sample_ns for s in states]) > 0).all()
    health = bench.arm.health()
    assert health.temperature["elbow"] == 30.0 and health.voltage["wrist_3"] == 48.0 and not health.alarm


def test_a_move_of_the_library_arrives_within_two_milliradians(bench: Bench) -> None:
    bench.active()
    goal = (bench.cycle().q - 0.05).tolist()
    assert bench.driver._link.control.moveJ(goal, 3.0, 20.0)
    np.testing.assert_allclose(bench.cycle().q, goal, atol=2e-3)


def test_what_is_no_setpoint_never_reaches_the_wire(bench: Bench) -> None:
    arm = bench.active()
    here, before = bench.cycle().q, bench.stats()["goals"]
    bad = [np.full(6, np.nan), np.full(6, np.inf), here[:5], np.append(here, 0.0), (here * 0).astype(int)]
    for q in bad:
        with pytest.raises(BadCommand, match=r"want 6 finite numbers \[rad\]"):
            arm.cycle(Setpoint(q))
    with pytest.raises(HwError, match="are these degrees"):
        arm.cycle(Setpoint(np.degrees(here)))
    for q in bad[:3]:  # the driver by itself lets no such thing through either
        with pytest.raises(BadCommand, match="want 6 finite numbers"):
            bench.driver.exchange(Setpoint(q))
    assert bench.stats()["goals"] == before and before["non_finite"] == 0


def test_a_controller_that_falls_silent_is_stale_and_then_lost(bench: Bench) -> None:
    """ur_rtde goes on giving the last pose and calls itself connected; the controller's clock tells."""
    arm = bench.active()
    fresh = bench.cycle()
    bench.control("dead")
    states: list[ArmState] = []
    with pytest.raises(TransportLost, match=r"no answer in .* clock has stood still"):
        while len(states) < 100:
            states.append(arm.cycle())
    assert states[-1].flags & Sampled.STALE and bench.driver._link.receive.isConnected()
    bench.control("alive")
    np.testing.assert_allclose(bench.active().cycle().q, fresh.q, atol=1e-3)


def test_lost_packets_cost_samples_and_no_truth(bench: Bench) -> None:
    bench.active()
    here = bench.cycle().q
    bench.control("drop", p=0.5)
    states = [bench.cycle() for _ in range(30)]
    bench.control("drop", p=0.0)
    assert bench.stats()["dropped"] > 0 and (np.diff([s.t_sample_ns for s in states]) > 0).all()
    np.testing.assert_allclose([s.q for s in states], np.tile(here, (30, 1)), atol=1e-3)


def test_a_protective_stop_waits_for_its_time_and_the_arm_stays_where_it_was(bench: Bench) -> None:
    arm = bench.active()
    here = bench.cycle().q
    bench.control("pstop")
    error = bench.fault(Setpoint(here))
    assert isinstance(error, ProtectiveStop) and error.code == "ur_protective_stop" and arm.state is State.FAULT
    with pytest.raises(NotReady, match=r"can be unlocked in 0\.[0-9] s, not yet"):
        arm.clear_fault()
    time.sleep(UNLOCK_S)
    np.testing.assert_allclose(bench.active().cycle().q, here, atol=1e-3)
    verbs = bench.stats()["verbs"]
    assert verbs["unlock protective stop"] >= 1 and verbs["close safety popup"] >= 1 and verbs["close popup"] >= 1


def test_a_program_that_ends_is_a_fault_and_is_uploaded_again(bench: Bench) -> None:
    arm = bench.active()
    programs, here = bench.stats()["programs"], bench.cycle().q
    assert bench.driver._link.ask("stop") == "Stopped"  # a hand at the pendant
    error = bench.fault(Setpoint(here))
    assert isinstance(error, DeviceFault) and error.code == "program" and "has ended" in str(error)
    assert bench.active() is arm and bench.stats()["programs"] == programs + 1


def test_releasing_cuts_the_power_and_holding_does_not(bench: Bench) -> None:
    arm = bench.active()
    for stop in (Stop.HOLD, Stop.RAMP_STOP):
        arm.deactivate(stop)
        stats = bench.stats()
        assert not stats["program"] and stats["mode"] == "RUNNING" and arm.state is State.CONNECTED
        bench.active()
    arm.deactivate(Stop.RELEASE)  # it has brakes: nothing falls
    assert bench.stats()["mode"] == "POWER_OFF"
    assert bench.active().state is State.ACTIVE  # power_on


def test_an_emergency_stop_is_left_by_a_person(bench: Bench) -> None:
    arm = bench.active()
    bench.control("estop")
    error = bench.fault()
    assert isinstance(error, EStop) and "emergency stop" in str(error)
    with pytest.raises(EStop):
        arm.clear_fault()
    bench.control("clear")
    until(lambda: not bench.driver._link.receive.getSafetyStatusBits() & 0b1110_0000)
    arm.clear_fault()
    arm.configure()
    bench.driver._config = replace(bench.config, power_on=False)
    with pytest.raises(NotReady, match=r"Robotmode: POWER_OFF; power the arm on .* at the pendant, or set power_on"):
        arm.activate()
    bench.driver._config = bench.config
    assert bench.active().state is State.ACTIVE


def test_a_program_of_somebody_else_stays(bench: Bench) -> None:
    bench.active()
    second = ur5e.make(bench.config)
    second.connect()
    with pytest.raises(NotReady, match="another program runs on the controller; stop it at the pendant"):
        second.activate()
    assert second.disconnect() == [] and bench.stats()["program"]


def test_pulling_the_plug_is_lost_at_once_and_the_same_process_connects_again() -> None:
    """In a process of its own, as drivers are: on a connection that broke, ur_rtde's destructors can crash (SIGSEGV)."""
    for _ in range(3):
        here = [sys.executable, "-m", "tests.hardware.ur_unplugged"]
        done = subprocess.run(here, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120)
        if done.returncode != -signal.SIGSEGV:
            break
    assert done.returncode == 0, done.stderr
