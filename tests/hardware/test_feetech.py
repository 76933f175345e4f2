"""The Feetech bus against its emulator, which the vendor's own library takes for servos too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from hardware import _feetech_wire as wire
from hardware._errors import BadCommand, DeviceFault, NotReady, TransportCorrupt, TransportLost, TransportTimeout
from hardware._feetech import FeetechBus
from tests.hardware.arm_bench import Served

pytest.importorskip("serial", reason="the Feetech bus is pyserial; pip install 'robolearn[feetech]'")
IDS = (1, 2, 3, 4, 5, 6)
START = (0.0, -0.5, 0.5, 0.25, -0.25, 0.1)  # [rad]
HOMING = (0, 100, -100, 2047, -2047, 0)
TICKS = [(round(2048 + q * 4096 / (2 * np.pi)) - homing) % 4096 for q, homing in zip(START, HOMING, strict=True)]


@pytest.fixture(scope="module")
def running() -> Iterator[Served]:
    with Served("feetech", {"ids": IDS, "q": START, "homing": HOMING}) as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Served) -> Served:
    """The emulator without a fault, every servo where it began and as after its supply was cut."""
    for op in ("replug", "thaw", "drop", "corrupt", "delay"):
        running.control(op)
    revive(running)
    if not np.allclose(running.control("stats")["q"], START, atol=8e-4):
        bus = FeetechBus("arm", running.address, timeout_s=0.2)
        bus.open()
        for servo in IDS:
            bus.write(servo, "torque", 1)
        bus.goals(IDS, TICKS)
        eventually(lambda: np.allclose(running.control("stats")["q"], START, atol=8e-4))
        bus.close()
        revive(running)
    return running


def revive(emulator: Served) -> None:
    for servo in IDS:
        emulator.control("alive", id=servo)
        emulator.control("clear", id=servo)


def eventually(holds: Callable[[], bool]) -> None:
    """Waits until something holds."""
    until = time.monotonic() + 10.0
    while not holds():
        assert time.monotonic() < until, "it never came to hold"


@pytest.fixture
def opened(emulator: Served) -> Iterator[Callable[..., FeetechBus]]:
    """Opens a bus to the emulator, and closes it in the end."""
    buses: list[FeetechBus] = []

    def opened(timeout_s: float = 0.2, **kwargs: Any) -> FeetechBus:
        buses.append(FeetechBus("arm", emulator.address, timeout_s=timeout_s, **kwargs))
        buses[-1].open()
        return buses[-1]

    yield opened
    for bus in buses:
        bus.close()


@pytest.fixture
def bus(opened: Callable[..., FeetechBus]) -> FeetechBus:
    return opened()


def often(port: Any, call: Callable[[], tuple[Any, ...]]) -> Any:
    """Returns what a call of the vendor's library gives once it succeeds.

    Its 34 ms are shorter than a busy machine's pause, and it takes a late answer for the next one's, with an IndexError or worse.
    """
    for _ in range(50):
        try:
            *value, result, error = call()
        except IndexError:
            result = -1
        if result == 0:
            return value[0] if value else error
        time.sleep(0.1)
        port.ser.reset_input_buffer()
    raise AssertionError(f"the vendor's library says {result}")


def patiently(call: Callable[[], Any]) -> Any:
    """Returns what a call gives that has no second try of its own."""
    for _ in range(50):
        try:
            return call()
        except (TransportTimeout, TransportCorrupt):
            continue
    return call()


def test_the_vendors_library_takes_the_emulator_for_servos(emulator: Served) -> None:
    sdk = pytest.importorskip("scservo_sdk", reason="the vendor's library is the second client; pip install feetech-servo-sdk")
    port, packets = sdk.PortHandler(emulator.address), sdk.PacketHandler(0)
    assert port.openPort() and port.setBaudRate(1_000_000)
    try:
        assert [often(port, partial(packets.ping, port, s)) for s in IDS] == [777] * 6
        assert packets.ping(port, 9)[1] == sdk.COMM_RX_TIMEOUT
        assert often(port, lambda: packets.read2ByteTxRx(port, 1, 56)) == TICKS[0]
        assert often(port, lambda: packets.write2ByteTxRx(port, 2, 42, 1234)) == 0
        assert often(port, lambda: packets.read2ByteTxRx(port, 2, 42)) == 1234
        assert often(port, lambda: packets.regWriteTxRx(port, 2, 42, 2, [7, 0])) == 0
        packets.action(port, sdk.BROADCAST_ID)
        assert often(port, lambda: packets.read2ByteTxRx(port, 2, 42)) == 7
        reader, writer = sdk.GroupSyncRead(port, packets, 56, 2), sdk.GroupSyncWrite(port, packets, 42, 2)
        for servo in IDS:
            reader.addParam(servo)
            writer.addParam(servo, [0x34, servo])
        assert often(port, lambda: (None, reader.txRxPacket(), 0)) is None
        assert [reader.getData(servo, 56, 2) for servo in IDS] == TICKS
        assert writer.txPacket() == 0
        assert [often(port, partial(packets.read2ByteTxRx, port, s, 42)) for s in IDS] == [0x34 + 256 * servo for servo in IDS]
        emulator.control("alarm", id=3, bits=32)
        assert often(port, lambda: packets.write1ByteTxRx(port, 3, 40, 0)) == sdk.ERRBIT_OVERLOAD
    finally:
        port.closePort()


def test_a_servo_says_model_and_a_firmware_that_no_metal_has(bus: FeetechBus) -> None:
    number, firmware = bus.ping(3)
    assert bus.model_name(number) == "STS3215" and firmware == wire.EMULATED_FIRMWARE
    assert bus.model_name(1) == "model 1"
    assert bus.read(3, "voltage") == 74 and bus.read(3, "temperature") == 25


def test_one_sync_read_gives_all_positions_within_the_turn(bus: FeetechBus) -> None:
    sample = patiently(lambda: bus.sample(IDS))
    assert sample.position.tolist() == TICKS and sample.position.dtype == np.int64
    np.testing.assert_array_equal(sample.velocity, 0.0)
    assert not sample.alert.any() and 0 < sample.sent_ns < sample.recv_ns
    assert patiently(lambda: bus.sample((4, 2))).position.tolist() == [TICKS[3], TICKS[1]]


def test_goals_move_only_what_has_torque_and_the_velocity_has_a_sign(bus: FeetechBus, emulator: Served) -> None:
    bus.write(1, "goal", TICKS[0])
    bus.write(1, "torque", 1)
    for way in (400, -400):
        goal, speeds = TICKS[0] + way, [0.0]
        bus.goals(IDS, [goal] * 6)
        while abs(speeds[0]) < 1.0 or abs(bus.read(1, "position") - goal) > 1:
            sample = patiently(lambda: bus.sample(IDS))
            assert sample.position.tolist()[1:] == TICKS[1:]
            speeds = sorted([*speeds, sample.velocity[0]], key=abs, reverse=True)  # the fastest first
        assert speeds[0] * way > 0
    stats = emulator.control("stats")
    assert stats["torque"] == [1, 0, 0, 0, 0, 0] and len(stats["goals"]["last"]) == 6


@pytest.mark.parametrize("tick", [float("nan"), float("inf"), 2048.0, -1, 4096, 1 << 20])
def test_a_senseless_goal_never_reaches_the_wire(bus: FeetechBus, emulator: Served, tick: Any) -> None:
    before = emulator.control("stats")
    with pytest.raises(BadCommand, match="goal of servo 2"):
        bus.goals([1, 2], [2048, tick])
    with pytest.raises(ValueError, match="zip"):
        bus.goals([1, 2], [2048])
    after = emulator.control("stats")
    assert after["packets"] == before["packets"] and after["goals"] == before["goals"]


def test_settings_are_written_once_with_the_torque_off_and_outlive_the_supply(
    opened: Callable[..., FeetechBus], emulator: Served
) -> None:
    bus = opened(settings={2: {"protection_current": 250}})
    emulator.control("set", id=2, name="phase", value=12 | wire.MULTI_TURN)
    bus.write(2, "goal", bus.read(2, "position"))
    bus.write(2, "torque", 1)
    changed = bus.configure(2)
    assert changed == {"return_delay": (250, 0), "phase": (28, 12), "protection_current": (500, 250)}
    assert bus.read(2, "torque") == 0 and bus.read(2, "lock") == 1
    assert bus.configure(2) == {}
    emulator.control("clear", id=2)
    assert bus.configure(2) == {}
    bus.write(2, "return_delay", 250)
    bus.write(2, "protection_current", 500)


def test_a_servo_that_answers_no_writes_is_told_to(bus: FeetechBus, emulator: Served) -> None:
    emulator.control("set", id=5, name="response_level", value=0)
    assert bus.configure(5)["response_level"] == (0, 1)
    assert "response_level" not in bus.configure(5)
    bus.write(5, "return_delay", 250)


def test_a_write_that_makes_no_sense_is_refused_before_the_wire(bus: FeetechBus) -> None:
    with pytest.raises(NotReady, match="temperature of servo 1 cannot be written"):
        bus.write(1, "temperature", 30)
    with pytest.raises(NotReady, match="no register 'tork'; did you mean 'torque'"):
        bus.read(1, "tork")
    with pytest.raises(BadCommand, match="homing of servo 1: want -2047 to 2047, got 4000"):
        bus.write(1, "homing", 4000)


def test_an_overloaded_servo_shows_an_alert_and_keeps_its_torque_until_the_supply_is_cut(
    bus: FeetechBus, emulator: Served
) -> None:
    bus.write(3, "goal", bus.read(3, "position"))
    bus.write(3, "torque", 1)
    emulator.control("alarm", id=3, bits=32)
    assert patiently(lambda: bus.sample(IDS)).alert.tolist() == [False, False, True, False, False, False]
    assert bus.alarms(3, bus.read(3, "alarm")) == ("overload",)
    bus.write(3, "goal", 2000)  # an alarm that is only shown refuses nothing
    with pytest.raises(DeviceFault, match=r"servo 3 does not take torque = 0, it stays 1 \(alarm: overload\); switch its supply"):
        bus.write(3, "torque", 0)
    with pytest.raises(DeviceFault, match="servo 3 keeps its alarm"):
        bus.reboot(3)
    emulator.control("clear", id=3)
    bus.reboot(3)
    assert bus.read(3, "torque") == 0
    assert bus.alarms(3, 1 | 2 | 64) == ("voltage", "angle sensor", "bit 6")


def test_of_a_bad_line_no_wrong_value_arrives_and_every_miss_is_counted(
    opened: Callable[..., FeetechBus], emulator: Served
) -> None:
    bus = opened(timeout_s=0.03)
    wanted = {(servo, "position"): tick for servo, tick in zip(IDS, TICKS, strict=True)} | {(1, "voltage"): 74, (1, "alarm"): 0}
    before = emulator.control("stats")
    emulator.control("drop", p=0.03)
    emulator.control("corrupt", p=0.03)
    missed = good = 0
    for k in range(250):
        servo, name = list(wanted)[k % len(wanted)]
        try:
            assert bus.read(servo, name) == wanted[servo, name]
            good += 1
        except (TransportTimeout, TransportCorrupt):
            missed += 1
    after = emulator.control("stats")
    spoiled = sum(after[what] - before[what] for what in ("dropped", "corrupted"))
    assert good + missed == 250 and missed >= spoiled > 0 and bus.counters.total() == missed


def test_an_answer_that_comes_too_late_never_passes_for_the_next(opened: Callable[..., FeetechBus], emulator: Served) -> None:
    bus = opened(timeout_s=0.02)
    emulator.control("delay", s=0.03)
    seen: set[tuple[str, int | None]] = set()
    for k in range(12):
        name = ("temperature", "voltage", "temperature")[k % 3]
        try:
            seen.add((name, bus.read(1, name)))
        except TransportTimeout:
            seen.add((name, None))
    assert seen <= {("temperature", 25), ("temperature", None), ("voltage", 74), ("voltage", None)}
    assert bus.counters["timeouts"] > 0
    emulator.control("delay")
    assert patiently(lambda: bus.read(1, "voltage")) == 74


def test_a_dead_servo_is_named_the_others_still_answer_and_it_may_come_back(
    opened: Callable[..., FeetechBus], emulator: Served
) -> None:
    bus = opened(timeout_s=0.05)
    emulator.control("dead", id=1)

    def named() -> bool:
        with pytest.raises(TransportTimeout, match=r"servo .* on .*: no answer in 50 ms") as raised:
            bus.sample(IDS)
        return "servo 1 on" in str(raised.value)

    eventually(named)
    assert patiently(lambda: bus.read(4, "position")) == TICKS[3]
    with pytest.raises(TransportTimeout, match="check ids, baud, supply"):
        bus.ping(1)
    patiently(lambda: bus.write(4, "goal", TICKS[3]))
    emulator.control("alive", id=1)
    assert patiently(lambda: bus.sample(IDS)).position.tolist() == TICKS


def test_unplugging_is_a_lost_transport_and_the_same_process_connects_again(bus: FeetechBus, emulator: Served) -> None:
    patiently(lambda: bus.sample(IDS))
    emulator.control("unplug")
    for call in (lambda: bus.sample(IDS), lambda: bus.goals(IDS, TICKS), lambda: bus.read(1, "position")):
        with pytest.raises(TransportLost, match="is gone"):
            call()
    bus.close()
    bus.close()
    with pytest.raises(TransportLost, match="is not open"):
        bus.read(1, "position")
    with pytest.raises(TransportLost, match="cannot be opened"):
        bus.open()
    emulator.control("replug")
    bus.open()
    assert bus.ping(1)[0] == 777


def test_a_second_process_cannot_open_the_same_port(bus: FeetechBus, opened: Callable[..., FeetechBus]) -> None:
    with pytest.raises(TransportLost, match="close what else uses it"):
        opened()
