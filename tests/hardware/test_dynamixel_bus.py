"""The vendor's own package and our bus on emulated servos: values, refusals, and answers that are late, damaged or none."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from hardware._calibration import ServoCalibration, ServoJoint
from hardware._dynamixel import DynamixelBus
from hardware._errors import (
    BadCommand,
    ConfigMismatch,
    DeviceFault,
    NotReady,
    TransportCorrupt,
    TransportLost,
    TransportTimeout,
)
from hardware._servo_bus import firmly
from hardware.emulators import _dynamixel_wire as wire
from hardware.emulators._pty import Line
from robolearn.errors import MissingDependency
from tests.hardware.arm_bench import Served, until
from tests.hardware.dynamixel_parts import CALM, IDS, MOUNTED, SIGNS, TICK, ZEROS

sdk: Any = pytest.importorskip("dynamixel_sdk", reason="dynamixel-sdk is not installed: pip install 'robolearn[dynamixel]'")


@pytest.fixture(scope="module")
def running() -> Iterator[Served]:
    with Served("dynamixel", MOUNTED) as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Served) -> Iterator[Served]:
    """The emulator, put right afterwards."""
    yield running
    for op in ("drop", "corrupt", "delay"):
        running.control(op)
    for servo, zero in zip(IDS, ZEROS, strict=True):
        running.control("clear", id=servo)
        running.control("set", id=servo, address=64, value=0)
        running.control("set", id=servo, zero=zero)


@pytest.fixture
def opened(emulator: Served) -> Iterator[Callable[..., DynamixelBus]]:
    """Opens a bus to the emulator, and closes it in the end."""
    buses: list[DynamixelBus] = []

    def opened(reply_s: float = CALM, **kwargs: Any) -> DynamixelBus:
        buses.append(DynamixelBus("koch", emulator.address, reply_s=reply_s, **kwargs))
        buses[-1].open()
        return buses[-1]

    yield opened
    for bus in buses:
        bus.close()


def test_the_vendors_group_classes_read_and_write_the_emulated_servos(emulator: Served) -> None:
    port, packets = sdk.PortHandler(emulator.address), sdk.PacketHandler(2.0)
    assert port.setBaudRate(1_000_000)

    def patiently(call: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
        for _ in range(50):  # its 34 ms are shorter than a busy machine's pause
            if good(result := call()):
                return result
            time.sleep(0.05)  # what is late comes, and is thrown away
            port.clearPort()
        raise AssertionError(f"50 tries, the last one says {result}")

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
    until(lambda: all(servo["goal"] == 1500 for servo in emulator.control("stats")["servos"].values()))
    port.closePort()


def test_every_zero_reproduces_the_pose_on_the_wire(emulator: Served, opened: Callable[..., DynamixelBus]) -> None:
    bus = opened()
    q = np.array(emulator.control("stats")["q"])
    for zero in (0, 1, 2047, 2048, 2049, 4094, 4095):
        for servo in IDS:
            emulator.control("set", id=servo, zero=zero)
        arm = tuple(ServoJoint(f"j{k}", servo, SIGNS[k], zero, -1.6, 1.6) for k, servo in enumerate(IDS))
        np.testing.assert_allclose(ServoCalibration("koch", arm).radians(bus.sample(IDS).position), q, atol=TICK)


def test_the_drivers_own_encoder_refuses_too(emulator: Served, opened: Callable[..., DynamixelBus]) -> None:
    bus = opened()
    before = emulator.control("stats")["goals"]["count"]
    for bad in (float("nan"), float("inf"), 1 << 31):
        with pytest.raises(BadCommand, match="goals: want 1 counts of 32 bits"):
            bus.goals((1,), (bad,))  # type: ignore[arg-type]
    with pytest.raises(BadCommand, match="torque: want 1 bytes, got 256"):
        bus.write(1, "torque", 256)
    with pytest.raises(NotReady, match="no register 'torqe'; did you mean 'torque'"):
        bus.read(1, "torqe")
    assert emulator.control("stats")["goals"]["count"] == before


def test_a_spoiled_wire_delivers_no_wrong_value(emulator: Served, opened: Callable[..., DynamixelBus]) -> None:
    bus = opened(reply_s=0.01)
    want = firmly(lambda: bus.sample(IDS)).position  # a busy machine misses answers too
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


def test_an_answer_that_comes_late_is_never_taken_for_the_next_one(emulator: Served, opened: Callable[..., DynamixelBus]) -> None:
    """Without the barrier the sample after the silence would be the one from before the servo moved."""
    bus = opened(reply_s=0.02)
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


def test_late_answers_to_the_question_whether_answers_are_late_pass_for_nothing_either(
    emulator: Served, opened: Callable[..., DynamixelBus]
) -> None:
    """Every answer comes one request too late, those that clear the line too."""
    bus = opened(reply_s=0.015)
    for servo in IDS:
        bus.ping(servo)
    old = emulator.control("stats")["servos"]["1"]["position"]
    emulator.control("delay", s=0.025)
    for k in range(1, 15):
        emulator.control("set", id=1, zero=ZEROS[0] + 10 * k)
        with contextlib.suppress(TransportTimeout, TransportCorrupt):
            assert bus.sample(IDS).position[0] == old + 10 * k


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


def test_an_overloaded_servo_that_refuses_torque_says_so(emulator: Served, opened: Callable[..., DynamixelBus]) -> None:
    bus = opened()
    emulator.control("alarm", id=2, bits=0x20)
    with pytest.raises(DeviceFault, match="servo 2 refuses torque = 1: result fail error, under an alarm"):
        bus.write(2, "torque", 1)
    bus.write(2, "led", 1)  # an alarm beside a success is no error
    assert bus.alarms(2, 0x21) == ("input voltage", "overload")
    emulator.control("clear", id=2)
    bus.write(1, "torque", 1)
    with pytest.raises(ConfigMismatch, match="servo 1 refuses operating_mode = 4: access error"):
        bus.write(1, "operating_mode", 4)


def test_a_setting_that_does_not_take_is_a_mismatch(emulator: Served, opened: Callable[..., DynamixelBus]) -> None:
    bus = opened(wanted={1: {"firmware": 53}})
    with pytest.raises(ConfigMismatch, match="servo 1 refuses firmware = 53: access error"):
        bus.configure(1)


def test_a_rate_that_no_port_has_is_refused(emulator: Served) -> None:
    with pytest.raises(ConfigMismatch, match="has no rate of 12345; name another baud"):
        DynamixelBus("koch", emulator.address, 12345).open()


def test_the_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "dynamixel_sdk", None)
    with pytest.raises(MissingDependency, match=r"pip install 'robolearn\[dynamixel\]'"):
        DynamixelBus("koch", "tty").open()


def test_a_bus_that_is_not_open_is_lost() -> None:
    bus = DynamixelBus("koch", "tty")
    with pytest.raises(TransportLost, match="tty is not open"):
        bus.ping(1)
    bus.close()
