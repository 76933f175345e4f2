"""A Koch arm on the emulated bus, in a process of its own: what a driver promises, and what faults on the wire do."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardware import _dynamixel
from hardware._base import Sampled, Setpoint, Stop
from hardware._calibration import save
from hardware._errors import (
    BadCommand,
    ConfigMismatch,
    DeviceFault,
    LimitViolation,
    TransportLost,
    TransportTimeout,
)
from hardware._life import Attended, Budget
from hardware.emulators._process import Running
from hardware.robots import koch
from robolearn.errors import HardwareError
from tests.hardware.arm_bench import until
from tests.hardware.dynamixel_parts import CALM, IDS, MOUNTED, START, TICK, calibration, go

sdk: Any = pytest.importorskip("dynamixel_sdk", reason="dynamixel-sdk is not installed: pip install 'robolearn[dynamixel]'")


@pytest.fixture(scope="module")
def emulator() -> Iterator[Running]:
    with Running("dynamixel", MOUNTED) as running:
        yield running


@pytest.fixture
def bench(emulator: Running, tmp_path: Path) -> Iterator[Callable[..., Attended]]:
    """Makes connected arms on the emulator and puts everything right afterwards."""
    arms: list[Attended] = []
    save(calibration(), tmp_path / "koch.yaml")

    def make(**changes: Any) -> Attended:
        config = koch.Config(emulator.address, str(tmp_path / "koch.yaml"), **{"watchdog_s": 2.0, "reply_s": CALM, **changes})
        arm = Attended(koch.make(config), "koch", 1.0, Budget(hard_s=60.0))
        arms.append(arm)
        return arm

    yield make
    for op, args in (
        ("alive", {}),
        ("clear", {}),
        ("drop", {"p": 0}),
        ("corrupt", {"p": 0}),
        ("delay", {"s": 0}),
        ("replug", {}),
    ):
        for servo in IDS if op in ("alive", "clear") else (0,):
            emulator.control(op, **({"id": servo} if op in ("alive", "clear") else args))
    for arm in arms:
        with contextlib.suppress(HardwareError):
            arm.deactivate(Stop.RELEASE, drop=True)
        arm.disconnect()
    for servo in IDS:
        emulator.control("set", id=servo, address=64, value=0)
        emulator.control("set", id=servo, address=98, value=0)


def test_connecting_moves_nothing_and_writes_nothing(emulator: Running, bench: Callable[..., Attended]) -> None:
    before = emulator.control("stats")
    identity = bench().connect()
    after = emulator.control("stats")
    assert identity.emulated and identity.model == "koch" and identity.parts[0] == "shoulder_pan: XL330-M288 id 1 firmware 52"
    assert after["writes"] == before["writes"] and after["goals"]["count"] == before["goals"]["count"]
    assert not any(servo["torque"] for servo in after["servos"].values())


def test_configuring_reads_back_and_changes_nothing_the_second_time(emulator: Running, bench: Callable[..., Attended]) -> None:
    emulator.control("set", id=1, address=9, value=250)
    emulator.control("set", id=2, address=11, value=3)
    emulator.control("set", id=1, address=68, value=1)
    arm, again = bench(), bench()
    arm.connect()
    changed = arm.configure()
    assert changed["shoulder_pan.return_delay"] == (250, 0) and changed["shoulder_lift.operating_mode"] == (3, 4)
    assert changed["shoulder_pan.status_level"] == (1, 2)
    arm.disconnect()
    again.connect()
    before = emulator.control("stats")["writes"]
    assert again.configure() == {} and emulator.control("stats")["writes"] == before


def test_an_arm_goes_where_it_is_told_over_the_end_of_an_encoder(emulator: Running, bench: Callable[..., Attended]) -> None:
    arm = bench()
    arm.connect()
    arm.configure()
    at = arm.cycle().q
    np.testing.assert_allclose(at, emulator.control("stats")["q"][:5], atol=TICK)
    arm.activate()
    seen = emulator.control("stats")
    assert all(servo["torque"] and servo["goal"] == servo["position"] for servo in seen["servos"].values())
    assert all(servo["watchdog"] == 100 for servo in seen["servos"].values())
    for q, aperture in ((np.array([-1.0, -1.5, 1.2, 1.5, 0.7]), 1.0), (START, 0.25)):
        state = go(arm, q, aperture)
        np.testing.assert_allclose(state.q, q, atol=2 * TICK)
        np.testing.assert_allclose(emulator.control("stats")["q"][:5], q, atol=2 * TICK)
        assert state.aperture == pytest.approx(aperture, abs=0.01) and state.flags == Sampled.EMULATED
    assert state.t_sample_ns < state.t_recv_ns and 0 < state.t_unc_ns < 1e9


@pytest.mark.parametrize(
    ("setpoint", "error"),
    (
        (Setpoint(np.full(5, np.nan)), BadCommand),
        (Setpoint(np.array([0, 0, np.inf, 0, 0])), BadCommand),
        (Setpoint(np.zeros(6)), BadCommand),
        (Setpoint(np.zeros(5, dtype=int)), BadCommand),
        (Setpoint(np.rad2deg(START)), LimitViolation),
        (Setpoint(START, aperture=float("nan")), BadCommand),
        (Setpoint(START, aperture=57.0), BadCommand),
    ),
)
def test_what_no_motor_may_see_never_reaches_the_wire(
    emulator: Running, bench: Callable[..., Attended], setpoint: Setpoint, error: type[Exception]
) -> None:
    arm = bench()
    arm.connect()
    arm.configure()
    arm.activate()
    before = emulator.control("stats")["goals"]
    with pytest.raises(error):
        arm.cycle(setpoint)
    after = emulator.control("stats")["goals"]
    assert after == before and after["non_finite"] == 0
    assert arm.cycle(Setpoint(START)).seq > 0, "a refused setpoint is no fault"


def test_a_dead_servo_makes_stale_samples_and_leaves_the_others_on_the_line(
    emulator: Running, bench: Callable[..., Attended]
) -> None:
    arm = bench(reply_s=0.01)
    arm.connect()
    seq = max(arm.cycle().seq for _ in range(3))
    emulator.control("dead", id=3)
    states = [arm.cycle() for _ in range(4)]
    assert all(state.flags & Sampled.STALE and state.seq == states[0].seq for state in states)
    assert arm.wants_hold and arm.counters["TransportTimeout"] > 0 and states[0].seq >= seq
    with pytest.raises(TransportLost, match=r"no answer in 10 cycles, .*no answer from servo"):
        for _ in range(10):
            arm.cycle()


def test_a_servo_that_is_missing_at_connect_is_named(emulator: Running, bench: Callable[..., Attended]) -> None:
    emulator.control("dead", id=4)
    with pytest.raises(TransportTimeout, match=r"no answer from servo 4 \(wrist_flex\); others answer \(1: 12.0 V, firmware 52"):
        bench().connect()


def test_a_pulled_plug_is_lost_at_once_and_a_new_driver_reconnects(emulator: Running, bench: Callable[..., Attended]) -> None:
    arm = bench()
    arm.connect()
    arm.configure()
    arm.activate()
    emulator.control("unplug")
    with pytest.raises(TransportLost, match="is gone"):
        arm.cycle(Setpoint(START))
    assert arm.disconnect(), "the servos could not be told"
    with pytest.raises(TransportLost, match="cannot be opened"):
        bench().connect()
    emulator.control("replug")
    again = bench()
    again.connect()
    again.configure()
    again.activate()
    assert again.cycle(Setpoint(START)).flags == Sampled.EMULATED
    assert again.disconnect() == [] and again.disconnect() == []


def test_an_overload_is_a_fault_that_a_reboot_clears(emulator: Running, bench: Callable[..., Attended]) -> None:
    arm = bench()
    arm.connect()
    arm.configure()
    arm.activate()
    emulator.control("alarm", id=2, bits=0x20)
    with pytest.raises(DeviceFault, match=r"\(shoulder_lift: overload\)") as fault:
        for _ in range(5):  # the first answers may be from before
            arm.cycle()
    assert fault.value.bits == 0x20
    arm.clear_fault()
    arm.configure()
    arm.activate()
    assert go(arm, START).alarm == 0 and emulator.control("stats")["servos"]["2"]["torque"]


def test_a_pause_longer_than_the_watchdog_is_a_fault_and_not_a_deaf_arm(
    emulator: Running, bench: Callable[..., Attended]
) -> None:
    arm = bench(watchdog_s=0.1)
    arm.connect()
    arm.configure()
    arm.activate()
    until(lambda: emulator.control("stats")["servos"]["1"]["watchdog"] == 255)
    with pytest.raises(DeviceFault, match="ran out in a pause"):
        arm.cycle(Setpoint(START))
    arm.clear_fault()
    assert emulator.control("stats")["servos"]["1"]["watchdog"] == 0


def _drive(address: str, file: str) -> None:
    """Keeps an arm moving until it is killed."""
    arm = Attended(koch.make(koch.Config(address, file, watchdog_s=0.2, reply_s=CALM)), "koch", 1.0)
    arm.connect()
    arm.configure()
    arm.activate()
    while True:
        arm.cycle(Setpoint(START))


def test_a_killed_driver_leaves_servos_that_stopped_by_themselves(emulator: Running, tmp_path: Path, bench: Any) -> None:
    save(calibration(), tmp_path / "koch.yaml")
    count = emulator.control("stats")["goals"]["count"]
    process = multiprocessing.get_context("fork").Process(target=_drive, args=(emulator.address, str(tmp_path / "koch.yaml")))
    process.start()
    until(lambda: emulator.control("stats")["goals"]["count"] > count + 20)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(10.0)
    until(lambda: all(servo["watchdog"] == 255 for servo in emulator.control("stats")["servos"].values()))
    assert all(servo["torque"] for servo in emulator.control("stats")["servos"].values()), "they hold"
    resting = emulator.control("stats")["q"]
    time.sleep(0.05)
    np.testing.assert_allclose(emulator.control("stats")["q"], resting, atol=2 * TICK)


def test_an_adapter_that_waits_is_refused_with_the_line_that_cures_it(
    emulator: Running, bench: Callable[..., Attended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_dynamixel, "latency_timer_ms", lambda port: 16)
    with pytest.raises(ConfigMismatch, match=r"the adapter waits 16 ms, want 2 at most; echo 1 \| sudo tee /sys/bus/usb-serial"):
        bench().connect()
