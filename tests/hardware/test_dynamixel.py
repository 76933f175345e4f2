"""The vendor's own package and our driver on the emulated bus: what a driver promises, and what faults on the wire do."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardware import _dynamixel
from hardware._base import ArmState, Sampled, Setpoint, Stop
from hardware._calibration import ServoCalibration, ServoGripper, ServoJoint, save
from hardware._dynamixel import DynamixelBus
from hardware._errors import (
    BadCommand,
    CalibrationMismatch,
    ConfigMismatch,
    DeviceFault,
    LimitViolation,
    TransportCorrupt,
    TransportLost,
    TransportTimeout,
)
from hardware._life import Attended, Budget
from hardware.emulators import _dynamixel_wire as wire
from hardware.emulators._base import Emulator, make_emulator
from hardware.emulators._process import Running
from hardware.emulators._pty import Line
from hardware.robots import koch, viperx
from robolearn.errors import ConfigError, HardwareError, MissingDependency

sdk: Any = pytest.importorskip("dynamixel_sdk", reason="dynamixel-sdk is not installed: pip install 'robolearn[dynamixel]'")

IDS = (1, 2, 3, 4, 5, 6)
ZEROS = (2048, 100, 2048, 4000, 2048, 1000)  # two joints cross the end of their encoder
SIGNS = (1, 1, -1, 1, -1, 1)
START = np.array([0.3, -0.2, 0.5, 0.4, -0.1])
TICK = 2 * np.pi / 4096
CALM = 0.25  # [s] for an answer: a busy machine is no dead servo


def calibration(device: str = "koch", names: tuple[str, ...] = koch.JOINTS, ids: tuple[int, ...] = IDS) -> ServoCalibration:
    registers = {"homing": 0, "drive_mode": 0}
    arm = tuple(
        ServoJoint(name, ids[k], (SIGNS * 2)[k], (ZEROS * 2)[k], -1.6, 1.6, 1200, 52, registers) for k, name in enumerate(names)
    )
    return ServoCalibration(device, arm, ServoGripper("gripper", ids[-1], 1000, 600, 0.07, 1200, 52, registers))


@pytest.fixture(scope="module")
def emulator() -> Iterator[Running]:
    overrides = {"zeros": list(ZEROS), "signs": list(SIGNS), "q": [*START.tolist(), 300 * TICK], "reboot_s": 0.05}
    with Running("dynamixel", overrides) as running:
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


def until(emulator: Running, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Returns the emulator's view once it is as wanted."""
    end = time.monotonic() + 10.0
    while time.monotonic() < end:
        seen = dict(emulator.control("stats"))
        if true(seen):
            return seen
        time.sleep(0.005)
    raise AssertionError(f"not in 10 s: {seen}")


def go(arm: Attended, q: np.ndarray, aperture: float | None = None) -> ArmState:
    """Cycles until the arm is there."""
    end = time.monotonic() + 10.0
    while True:
        state = arm.cycle(Setpoint(q, aperture))
        there = np.abs(state.q - q).max() < 1.2 * TICK and (aperture is None or abs(state.aperture - aperture) < 0.01)
        if there or time.monotonic() > end:
            return state
        time.sleep(0.005)


def test_the_vendors_group_classes_read_and_write_the_emulated_servos(emulator: Running, bench: Any) -> None:
    port, packets = sdk.PortHandler(emulator.address), sdk.PacketHandler(2.0)
    assert port.setBaudRate(1_000_000)

    def patiently(call: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
        results = [result for result in (call() for _ in range(20)) if good(result)]
        assert results, "20 tries"
        return results[0]

    assert patiently(lambda: packets.ping(port, 1), lambda r: r[1] == 0)[0] == 1200
    reader, fast = (sdk.GroupSyncRead(port, packets, 132, 4) for _ in range(2))
    writer = sdk.GroupSyncWrite(port, packets, 116, 4)
    for servo in IDS:
        reader.addParam(servo)
        fast.addParam(servo)
        writer.addParam(servo, list((1500).to_bytes(4, "little")))
    patiently(reader.txRxPacket, lambda r: r == 0)
    patiently(fast.fastSyncRead, lambda r: r == 0)
    want = [servo["position"] for servo in emulator.control("stats")["servos"].values()]
    assert [reader.getData(servo, 132, 4) for servo in IDS] == [fast.getData(servo, 132, 4) for servo in IDS] == want
    assert writer.txPacket() == 0
    until(emulator, lambda seen: all(servo["goal"] == 1500 for servo in seen["servos"].values()))
    port.closePort()


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


def test_every_zero_reproduces_the_pose_on_the_wire(emulator: Running, tmp_path: Path) -> None:
    bus = DynamixelBus("koch", emulator.address, reply_s=CALM)
    bus.open()
    q = np.array(emulator.control("stats")["q"])
    for zero in (0, 1, 2047, 2048, 2049, 4094, 4095):
        for servo in IDS:
            emulator.control("set", id=servo, zero=zero)
        arm = tuple(ServoJoint(f"j{k}", servo, SIGNS[k], zero, -1.6, 1.6) for k, servo in enumerate(IDS))
        np.testing.assert_allclose(ServoCalibration("koch", arm).radians(bus.sample(IDS).position), q, atol=TICK)
    for servo, zero in zip(IDS, ZEROS, strict=True):
        emulator.control("set", id=servo, zero=zero)
    bus.close()


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


def test_the_drivers_own_encoder_refuses_too(emulator: Running, bench: Callable[..., Attended]) -> None:
    bus = DynamixelBus("koch", emulator.address, reply_s=CALM)
    bus.open()
    before = emulator.control("stats")["goals"]["count"]
    for bad in (float("nan"), float("inf"), 1 << 31):
        with pytest.raises(BadCommand, match="goals: want 1 counts of 32 bits"):
            bus.goals((1,), (bad,))  # type: ignore[arg-type]
    with pytest.raises(BadCommand, match="torque: want 1 bytes, got 256"):
        bus.write(1, "torque", 256)
    with pytest.raises(BadCommand, match="unknown register 'torqe'; did you mean 'torque'"):
        bus.read(1, "torqe")
    assert emulator.control("stats")["goals"]["count"] == before
    bus.close()


def test_a_spoiled_wire_delivers_no_wrong_value_and_counts_every_miss(emulator: Running, bench: Callable[..., Attended]) -> None:
    bus = DynamixelBus("koch", emulator.address, reply_s=0.01)
    bus.open()
    want = bus.sample(IDS).position
    emulator.control("drop", p=0.02)
    emulator.control("corrupt", p=0.02)
    misses, good = 0, 0
    for _ in range(150):
        try:
            np.testing.assert_array_equal(bus.sample(IDS).position, want)
            good += 1
        except (TransportTimeout, TransportCorrupt):
            misses += 1
    spoiled = emulator.control("stats")
    assert good > 0 and misses > 0 and spoiled["dropped"] > 0 and spoiled["corrupted"] > 0
    bus.close()


def test_an_answer_that_comes_late_is_never_taken_for_the_next_one(emulator: Running, bench: Callable[..., Attended]) -> None:
    """Without the barrier the sample after the silence would be the one from before the servo moved."""
    bus = DynamixelBus("koch", emulator.address, reply_s=0.02)
    bus.open()
    for servo in IDS:  # a bus that is not sure asks first
        bus.ping(servo)
    emulator.control("delay", s=0.1)
    old = emulator.control("stats")["servos"]["1"]["position"]
    with pytest.raises(TransportTimeout, match="no answer from servo 1"):
        bus.sample(IDS)
    emulator.control("set", id=1, zero=ZEROS[0] + 500)
    emulator.control("delay", s=0)
    for _ in range(20):
        with contextlib.suppress(TransportTimeout, TransportCorrupt):
            assert bus.sample(IDS).position[0] == old + 500
    emulator.control("set", id=1, zero=ZEROS[0])
    bus.close()


@pytest.mark.parametrize(
    ("error", "data", "said"),
    (
        (0, b"", "servo 1: its answer has 0 bytes, want 2"),  # the package takes the checksum for data (DynamixelSDK PR 665)
        (0, b"\x01\x02\x03", "servo 1: its answer has 3 bytes, want 2"),
        (3, b"", "servo 1 refuses voltage: CRC error"),  # the request was damaged on its way
    ),
)
def test_an_answer_that_is_none_is_damage_and_no_value(error: int, data: bytes, said: str) -> None:
    line, over = Line(), threading.Event()

    def answer() -> None:
        while not over.is_set():
            if line.read(0.01):
                line.write(wire.status(1, error, data))

    thread = threading.Thread(target=answer)
    thread.start()
    bus = DynamixelBus("koch", line.path, reply_s=0.1)
    bus.open()
    try:
        with pytest.raises(TransportCorrupt, match=said):
            bus.read(1, "voltage")
    finally:
        over.set()
        thread.join(10.0)
        bus.close()
        line.close()


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


def test_an_overloaded_servo_that_refuses_torque_says_so(emulator: Running, bench: Callable[..., Attended]) -> None:
    bus = DynamixelBus("koch", emulator.address, reply_s=CALM)
    bus.open()
    emulator.control("alarm", id=2, bits=0x20)
    with pytest.raises(DeviceFault, match="servo 2 refuses torque = 1: result fail error, under an alarm"):
        bus.write(2, "torque", 1)
    bus.write(2, "led", 1)  # an alarm beside a success is no error
    assert bus.alarms(2, 0x21) == ("input voltage", "overload")
    emulator.control("clear", id=2)
    bus.write(1, "torque", 1)
    with pytest.raises(ConfigMismatch, match="servo 1 refuses operating_mode = 4: access error"):
        bus.write(1, "operating_mode", 4)
    bus.close()


def test_a_setting_that_does_not_take_is_a_mismatch(emulator: Running, bench: Callable[..., Attended]) -> None:
    bus = DynamixelBus("koch", emulator.address, wanted={1: {"firmware": 53}}, reply_s=CALM)
    bus.open()
    with pytest.raises(ConfigMismatch, match="servo 1 refuses firmware = 53: access error"):
        bus.configure(1)
    bus.close()


def test_a_pause_longer_than_the_watchdog_is_a_fault_and_not_a_deaf_arm(
    emulator: Running, bench: Callable[..., Attended]
) -> None:
    arm = bench(watchdog_s=0.1)
    arm.connect()
    arm.configure()
    arm.activate()
    until(emulator, lambda seen: seen["servos"]["1"]["watchdog"] == 255)
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
    until(emulator, lambda seen: seen["goals"]["count"] > count + 20)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(10.0)
    seen = until(emulator, lambda seen: all(servo["watchdog"] == 255 for servo in seen["servos"].values()))
    assert all(servo["torque"] for servo in seen["servos"].values()), "they hold"
    resting = emulator.control("stats")["q"]
    time.sleep(0.05)
    np.testing.assert_allclose(emulator.control("stats")["q"], resting, atol=2 * TICK)


def test_an_adapter_that_waits_is_refused_with_the_line_that_cures_it(
    emulator: Running, bench: Callable[..., Attended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_dynamixel, "latency_timer_ms", lambda port: 16)
    with pytest.raises(ConfigMismatch, match=r"the adapter waits 16 ms, want 2 at most; echo 1 \| sudo tee /sys/bus/usb-serial"):
        bench().connect()


def test_a_rate_that_no_port_has_is_refused(emulator: Running) -> None:
    with pytest.raises(ConfigMismatch, match="has no rate of 12345; name another baud"):
        DynamixelBus("koch", emulator.address, 12345).open()


def test_the_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "dynamixel_sdk", None)
    with pytest.raises(MissingDependency, match=r"pip install 'robolearn\[dynamixel\]'"):
        DynamixelBus("koch", "tty").open()


def test_a_bus_that_is_not_open_is_lost() -> None:
    bus = DynamixelBus("koch", "tty")
    with pytest.raises(TransportLost, match="the port is not open"):
        bus.ping(1)
    bus.close()


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
    with pytest.raises(ConfigError, match="want velocity and reply_s above 0"):
        robot.Config(velocity=0.0)
    with pytest.raises(ConfigError, match="grip_a: want a current up to"):
        robot.Config(grip_a=9.0)


@contextlib.contextmanager
def served(overrides: dict[str, Any]) -> Iterator[tuple[str, Emulator]]:
    """Serves an emulator from a thread, which costs no start of a process; yields its address and itself."""
    emulator, over = make_emulator("dynamixel", overrides), threading.Event()
    address = emulator.open()

    def serve() -> None:
        while not over.is_set():
            emulator.turn(0.002)

    thread = threading.Thread(target=serve)
    thread.start()
    yield address, emulator
    over.set()
    thread.join(10.0)
    emulator.close()


def test_a_viperx_moves_both_servos_of_a_joint_and_refuses_two_that_are_apart(tmp_path: Path) -> None:
    overrides = {
        "ids": [1, 2, 3, 4, 5, 6, 7, 8, 9],
        "joints": [0, 1, 1, 2, 2, 3, 4, 5, 6],
        "zeros": [2048, 2000, 4096 - 2000, 2048, 2048, 2048, 2048, 2048, 1100],
        "drive_modes": [0, 0, 1, 0, 1, 0, 0, 0, 0],
    }
    arm = tuple(
        ServoJoint(name, servo, 1, 2000 if servo == 2 else 2048, -1.6, 1.6)
        for name, servo in zip(viperx.JOINTS, (1, 2, 4, 6, 7, 8), strict=True)
    )
    save(ServoCalibration("viperx", arm, ServoGripper("gripper", 9, 1000, 600, 0.11)), tmp_path / "viperx.yaml")
    with served(overrides) as (address, emulator):
        file = str(tmp_path / "viperx.yaml")
        driver = Attended(viperx.make(viperx.Config(address, file, watchdog_s=2.0, reply_s=CALM)), "viperx", 1.0)
        driver.connect()
        assert driver.configure()["shoulder shadow.secondary_id"] == (255, 2)
        driver.activate()
        q = np.array([0.2, -0.5, 0.7, 0.0, 0.3, -0.2])
        np.testing.assert_allclose(go(driver, q).q, q, atol=2 * TICK)
        seen = emulator.control("stats", {})["servos"]
        assert seen["3"]["goal"] == seen["2"]["goal"] and seen["3"]["torque"] and seen["5"]["torque"]
        driver.deactivate(Stop.RELEASE, drop=True)
        emulator.control("set", {"id": 3, "zero": 3000})
        driver.configure()
        with pytest.raises(CalibrationMismatch, match="servos 2 and 3 of one joint read"):
            driver.activate()
        assert not any(servo["torque"] for servo in emulator.control("stats", {})["servos"].values())
        assert driver.disconnect() == []
