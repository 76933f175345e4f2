"""The Robotiq driver through pymodbus against its emulator, on a pseudo-terminal and on TCP."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from hardware._base import Health, Identity, Sampled, Setpoint, Stop
from hardware._errors import BadCommand, ConfigMismatch, DeviceFault, NotReady, TransportCorrupt, TransportLost, TransportTimeout
from hardware._life import Attended, Budget
from hardware._modbus import Modbus
from hardware.grippers import robotiq_2f
from hardware.grippers.robotiq_2f import COMMAND, STATUS, Config, Robotiq2F, command, make
from tests.hardware.arm_bench import Served

OBJECT_M, OPENING_M = 0.034, 0.085
NOTHING = np.zeros(0)
PATIENT = Budget(hard_s=60.0)  # only misses count: a busy machine may be elsewhere for longer than 200 ms
MADE: list[Robotiq2F] = []  # drivers of the running test; they keep the port for themselves


@pytest.fixture(scope="module", params=["rtu", "tcp"])
def running(request: pytest.FixtureRequest) -> Iterator[Served]:
    pytest.importorskip("pymodbus", reason="the Robotiq driver speaks through pymodbus; pip install 'robolearn[robotiq]'")
    with Served("robotiq", {"transport": request.param, "object_m": OBJECT_M, "speed": (0.5, 2.0)}) as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Served) -> Iterator[Served]:
    """The emulator without a fault and never activated."""
    for op in ("replug", "clear", "thaw"):
        running.control(op)
    running.control("alive", id=9)
    for op in ("drop", "corrupt", "delay"):
        running.control(op)
    wire = Modbus("test", running.address, 9, 115200, 0.2, "robotiq")
    wire.open()
    wire.tried(lambda: wire.write(COMMAND, command(0)), 20)
    wire.close()
    yield running
    while MADE:
        MADE.pop().disconnect()


def driver(emulator: Served, timeout_s: float = 0.2, unit: int = 9, homing_s: float = 10.0) -> Robotiq2F:
    MADE.append(make(Config(port=emulator.address, timeout_s=timeout_s, unit=unit, force=1.0, homing_s=homing_s)))
    return MADE[-1]


def active(gripper: Robotiq2F) -> Attended:
    arm = Attended(gripper, "gripper", 0.05, PATIENT)
    arm.connect()
    arm.configure()
    arm.activate()
    return arm


def settle(gripper: Robotiq2F, arm: Attended, aperture: float) -> float:
    """Returns where the fingers come to rest: the gripper says that they have stopped, and they do not move for 20 ms."""
    until, seen = time.monotonic() + 10.0, [-1.0]
    while time.monotonic() < until and not (len(seen) > 5 and np.ptp(seen[-5:]) == 0):
        at = arm.cycle(Setpoint(NOTHING, aperture)).aperture
        seen = [*seen, at] if gripper.status.contact else [-1.0]
        time.sleep(0.005)
    return seen[-1]


def test_connecting_moves_and_writes_nothing_and_shows_an_emulator(emulator: Served) -> None:
    before = emulator.control("stats")
    arm = Attended(driver(emulator), "gripper", 0.05)
    identity = arm.connect()
    assert isinstance(identity, Identity) and identity.emulated and identity.model == "2F-85"
    assert arm.caps.joints == () and arm.caps.opening_m == OPENING_M and arm.caps.needs_homing and arm.caps.watchdog_s is None
    state = arm.cycle()
    assert state.flags == Sampled.EMULATED and state.t_sample_ns + state.t_unc_ns <= state.t_recv_ns and state.q.shape == (0,)
    after = emulator.control("stats")
    assert after["goals"] == before["goals"] and after["q"] == before["q"] and after["torque"] == [0]
    assert arm.disconnect() == []


def test_activation_homes_once_and_then_the_goal_is_where_the_fingers_are(emulator: Served) -> None:
    gripper = driver(emulator)
    arm = active(gripper)
    homed = emulator.control("stats")
    assert homed["goals"]["last"] == pytest.approx([OPENING_M], abs=1e-3) == homed["q"]
    settle(gripper, arm, 0.5)
    arm.disconnect()
    before = emulator.control("stats")["q"]
    active(driver(emulator)).disconnect()
    after = emulator.control("stats")
    assert after["q"] == pytest.approx(before, abs=1e-3) and after["goals"]["last"] == pytest.approx(before, abs=2e-3)


def test_an_object_stops_the_fingers_at_its_width_and_is_felt(emulator: Served) -> None:
    gripper = driver(emulator)
    arm = active(gripper)
    assert settle(gripper, arm, 0.0) == pytest.approx(OBJECT_M / OPENING_M, abs=0.01)
    assert gripper.status.holding and gripper.status.current_A > 0.1
    arm.deactivate(Stop.HOLD)
    assert emulator.control("stats")["goals"]["last"] == [0.0]  # holding means going on to grip
    arm.configure()
    arm.activate()
    assert emulator.control("stats")["goals"]["last"] == [0.0]
    assert settle(gripper, arm, 1.0) == 1.0 and not gripper.status.holding
    arm.disconnect()


def test_hold_stops_moving_fingers_and_release_switches_the_drive_off(emulator: Served) -> None:
    gripper = driver(emulator)
    arm = active(gripper)
    settle(gripper, arm, 0.9)
    emulator.control("freeze")  # as if they were still on their way
    arm.cycle(Setpoint(NOTHING, 0.5))
    arm.deactivate(Stop.HOLD)
    assert emulator.control("stats")["goals"]["last"] == pytest.approx([0.9 * OPENING_M], abs=1e-3)
    emulator.control("thaw")
    arm.configure()
    arm.activate()
    arm.deactivate(Stop.RELEASE)
    assert emulator.control("stats")["torque"] == [0]
    arm.disconnect()


@pytest.mark.parametrize("aperture", [float("nan"), float("inf"), -0.01, 1.01, 57.3])
def test_a_senseless_aperture_never_reaches_the_wire(emulator: Served, aperture: float) -> None:
    gripper = driver(emulator)
    arm = active(gripper)
    before = emulator.control("stats")["requests"]
    with pytest.raises(BadCommand, match="want an aperture of 0 to 1"):
        arm.cycle(Setpoint(NOTHING, aperture))
    with pytest.raises(BadCommand, match="want an aperture of 0 to 1"):
        gripper.exchange(Setpoint(NOTHING, aperture))
    after = emulator.control("stats")
    assert after["requests"] == before and after["goals"]["non_finite"] == 0
    arm.disconnect()


def test_a_fault_is_named_and_a_reset_ends_it_but_asks_for_homing(emulator: Served) -> None:
    gripper = driver(emulator)
    arm = active(gripper)
    emulator.control("alarm", bits=0x0E)
    with pytest.raises(DeviceFault, match="gripper: over-current") as raised:
        arm.cycle()
    assert raised.value.bits == 0x0E and arm.health().alarm == {"gripper": ("over-current",)}
    arm.clear_fault()
    assert arm.cycle().alarm == 0 and gripper.status.state == 0
    emulator.control("alarm", bits=0x0C)
    arm.configure()
    with pytest.raises(DeviceFault, match="activate: internal fault"):
        arm.activate()
    arm.clear_fault()
    arm.configure()
    arm.activate()
    assert gripper.status.state == 3
    arm.disconnect()


def test_a_fault_that_passes_by_itself_is_shown_but_stops_nothing(emulator: Served) -> None:
    arm = active(driver(emulator))
    emulator.control("alarm", bits=0x09)
    assert arm.cycle().alarm == 0
    assert arm.health().alarm == {"gripper": ("no communication for a second",)}
    arm.disconnect()


def test_homing_that_does_not_end_is_said(emulator: Served) -> None:
    arm = Attended(driver(emulator, homing_s=0.1), "gripper", 0.05)
    arm.connect()
    arm.configure()
    emulator.control("freeze")
    with pytest.raises(TransportTimeout, match=r"activate: not done in 0\.1 s"):
        arm.activate()
    arm.disconnect()


def test_a_gripper_that_falls_silent_is_stale_first_and_then_lost(emulator: Served) -> None:
    arm = active(driver(emulator, timeout_s=0.03))
    last = arm.cycle(Setpoint(NOTHING, 1.0))
    emulator.control("dead", id=9)
    stale = arm.cycle()
    assert stale.flags & Sampled.STALE and stale.seq >= last.seq
    with pytest.raises(TransportLost, match="no answer in 10 cycles"):
        for _ in range(20):
            arm.cycle()
    assert arm.health() == Health(counters=arm.counters)
    emulator.control("alive", id=9)
    arm.clear_fault()
    arm.configure()
    arm.activate()
    assert not arm.cycle().flags & Sampled.STALE
    arm.disconnect()


def test_another_unit_is_silent_and_the_message_says_what_to_check(emulator: Served) -> None:
    gripper = driver(emulator, timeout_s=0.05, unit=7)
    with pytest.raises(TransportTimeout, match=r"unit 7 on .*; check supply, unit and baud"):
        gripper.connect()
    assert gripper.disconnect() == []


def test_unplugging_is_a_lost_transport_and_a_new_driver_connects_again(emulator: Served) -> None:
    arm = active(driver(emulator))
    emulator.control("unplug")
    with pytest.raises(TransportLost, match="is gone"):
        for _ in range(100):
            arm.cycle()
    with pytest.raises(NotReady, match="exchange: want state"):
        arm.cycle()
    assert arm.disconnect() == [] and arm.disconnect() == []
    with pytest.raises(TransportLost, match="cannot be opened"):
        driver(emulator).connect()
    emulator.control("replug")
    again = active(driver(emulator))
    assert again.cycle(Setpoint(NOTHING, 1.0)).aperture > 0.9
    again.disconnect()


def test_of_a_bad_line_no_wrong_value_arrives_and_every_miss_is_counted(emulator: Served) -> None:
    gripper = driver(emulator)
    arm = active(gripper)
    settle(gripper, arm, 0.5)
    before = emulator.control("stats")
    emulator.control("drop", p=0.08)
    if not emulator.address.startswith("tcp"):  # TCP has a check sum of its own, Modbus TCP has none
        emulator.control("corrupt", p=0.08)
    good = missed = 0
    apertures = set()
    for _ in range(50):
        try:
            apertures.add(gripper.exchange(None).aperture)
            good += 1
        except (TransportTimeout, TransportCorrupt):
            missed += 1
    emulator.control("drop")
    emulator.control("corrupt")
    after = emulator.control("stats")
    spoiled = sum(after[what] - before[what] for what in ("dropped", "corrupted"))
    assert apertures == {gripper.wire.tried(lambda: gripper.exchange(None)).aperture}
    assert good + missed == 50 and missed >= spoiled > 0 and gripper.wire.counters.total() >= missed
    arm.disconnect()


def test_a_unit_that_is_no_gripper_is_let_go_of(emulator: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    gripper = driver(emulator)
    monkeypatch.setattr(robotiq_2f, "STATUS", 0)  # of which it knows nothing
    with pytest.raises(ConfigMismatch, match="refuses function 4: exception 2"):
        gripper.connect()
    with pytest.raises(TransportLost, match="is not open"):
        gripper.wire.read(STATUS, 3)


def test_what_a_unit_refuses_is_said_with_function_and_exception(emulator: Served) -> None:
    wire = Modbus("gripper", emulator.address, 9, 115200, 0.2, "robotiq")
    wire.open()
    with pytest.raises(ConfigMismatch, match=r"gripper: unit 9 on .* refuses function 4: exception 2"):
        wire.tried(lambda: wire.read(0, 3))
    wire.close()
    with pytest.raises(TransportLost, match="is not open"):
        wire.read(STATUS, 3)
