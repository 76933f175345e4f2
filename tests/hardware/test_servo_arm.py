"""A servo arm over a bus that is none: the order of things, what is tried although something failed, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardware import _servo_bus
from hardware._base import Sampled, Setpoint, Stop
from hardware._calibration import ServoCalibration, ServoGripper, ServoJoint
from hardware._errors import (
    CalibrationMismatch,
    ConfigMismatch,
    DeviceFault,
    HwError,
    TransportCorrupt,
    TransportLost,
    TransportTimeout,
)
from hardware._life import Attended
from hardware._servo_bus import TRIPPED, Sample
from hardware.robots._servo_arm import Options, ServoArm
from robolearn.errors import ConfigError

ARM = ServoCalibration(
    "toy",
    (ServoJoint("pan", 1, 1, 2048, -1.5, 1.5, registers={"homing": 3}), ServoJoint("lift", 2, -1, 100, -0.5, 2.0)),
    ServoGripper("jaw", 3, 1000, 500, 0.05),
)
START = {1: 2048, 2: 4000, 3: 1250}
MS = 1_000_000


@dataclass
class Clock:
    """Time [ns] that passes when told to."""

    now: int = 0

    def __call__(self) -> int:
        return self.now


@dataclass
class ToyBus:
    """Servos that are a dictionary. log: what was written, in order; dead, stubborn: who is silent, who refuses torque."""

    clock: Clock = field(default_factory=Clock)
    ticks_per_turn: int = 4096
    watchdog_s: tuple[float, float] | None = (0.02, 2.54)
    answer_ns: int = MS
    log: list[tuple[Any, ...]] = field(default_factory=list)
    dead: set[int] = field(default_factory=set)
    stubborn: set[int] = field(default_factory=set)
    deaf_to_goals: int = 0
    settings: tuple[str, ...] = ("return_delay",)
    is_open: bool = False

    def __post_init__(self) -> None:
        self.table: dict[int, dict[str, int]] = {
            servo: {"homing": 3, "position": at, "goal": 0, "torque": 0, "watchdog": 0, "alarm": 0, "return_delay": 250}
            | {"temperature": 30 + servo, "voltage": 120, "speed": 10 * servo, "marker": 0}
            for servo, at in START.items()
        }

    def open(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    def _ask(self, servo: int) -> dict[str, int]:
        self.clock.now += self.answer_ns
        if not self.is_open:
            raise TransportLost("toy", "the port is not open")
        if servo in self.dead:
            raise TransportTimeout("toy", f"no answer from servo {servo}")
        return self.table[servo]

    def ping(self, servo: int) -> tuple[int, int]:
        self._ask(servo)
        return 1200, 52

    def read(self, servo: int, name: str) -> int:
        return self._ask(servo)[name]

    def write(self, servo: int, name: str, value: int) -> None:
        self.log.append((name, servo, value))
        table = self._ask(servo)
        if name == "torque" and servo in self.stubborn:
            raise DeviceFault("toy", f"servo {servo} refuses torque = {value}", 32)
        table[name] = value

    def sample(self, servos: Sequence[int]) -> Sample:
        sent = self.clock.now
        tables = [self._ask(servo) for servo in servos]
        speed = np.array([table["speed"] for table in tables], float)
        position = np.array([table["position"] for table in tables])
        alert = np.array([table["alarm"] > 0 for table in tables])
        return Sample(position, speed, speed / 100, alert, sent, self.clock.now)

    def goals(self, servos: Sequence[int], ticks: Sequence[int]) -> None:
        self.log.append(("goals", tuple(servos), tuple(ticks)))
        if self.deaf_to_goals:
            self.deaf_to_goals -= 1
            return
        for servo, tick in zip(servos, ticks, strict=True):
            self.table[servo]["goal"] = tick
            for shadow in (4,) if servo == 1 and 4 in self.table else ():
                self.table[shadow]["goal"] = tick

    def alarms(self, servo: int, bits: int) -> tuple[str, ...]:
        return ("overload",) if bits & 32 else ()

    def reboot(self, servo: int) -> None:
        self.log.append(("reboot", servo))
        self._ask(servo).update(alarm=0, torque=0)

    def configure(self, servo: int) -> Mapping[str, tuple[int, int]]:
        table = self._ask(servo)
        changed = {name: (table[name], 0) for name in self.settings if table[name]}
        table.update(dict.fromkeys(self.settings, 0))
        return changed

    def model_name(self, number: int) -> str:
        return f"model {number}"


def pair(bus: ToyBus | None = None, calibration: ServoCalibration = ARM, **options: Any) -> tuple[ServoArm, ToyBus]:
    """Returns a driver, not connected, and its bus."""
    bus = bus or ToyBus()
    return ServoArm(bus, calibration, Options("toy", 2.0, **options), bus.clock), bus


def active(**options: Any) -> tuple[Attended, ToyBus]:
    """Returns an arm that holds, and its bus with an empty log."""
    arm, bus = pair(**options)
    attended = Attended(arm, "toy", 0.1, clock_ns=bus.clock)
    attended.connect()
    attended.configure()
    attended.activate()
    bus.log.clear()
    return attended, bus


def shadowed() -> ToyBus:
    """Returns a bus with a fourth servo that follows the first."""
    bus = ToyBus()
    bus.table[4] = dict(bus.table[1])
    return bus


def test_connecting_reads_and_writes_nothing() -> None:
    arm, bus = pair()
    identity = arm.connect()
    assert bus.log == [] and bus.is_open
    assert identity.parts[1] == "lift: model 1200 id 2 firmware 52" and identity.firmware == "52" and not identity.emulated
    caps = arm.capabilities()
    assert caps.joints == ("pan", "lift") and caps.opening_m == 0.05 and caps.lower.tolist() == [-1.5, -0.5]
    assert caps.stops == (Stop.HOLD, Stop.RELEASE) and not caps.brakes


def test_an_emulator_is_known_by_its_marker() -> None:
    arm, bus = pair(marker=("marker", 77))
    bus.table[1]["marker"] = 77
    assert arm.connect().emulated
    assert arm.exchange(None).flags == Sampled.EMULATED


def test_a_silent_servo_is_named_and_so_is_how_the_others_are() -> None:
    arm, bus = pair()
    bus.dead, bus.table[1]["alarm"] = {2}, 32
    with pytest.raises(TransportTimeout) as error:
        arm.connect()
    assert "toy: no answer from servo 2 (lift); others answer (1: 12.0 V, firmware 52, overload; 3: 12.0 V" in str(error.value)
    assert "check its cable and id" in str(error.value) and not bus.is_open
    bus.dead = {1, 2, 3}
    with pytest.raises(TransportTimeout, match="nobody answers: check power, port and baud"):
        arm.connect()


def test_a_bus_that_is_slow_at_its_best_is_refused() -> None:
    arm, bus = pair()
    bus.answer_ns = 16 * MS
    with pytest.raises(ConfigMismatch, match="an answer takes 16 ms, want 8 at most; set the adapter's latency_timer to 1"):
        arm.connect()


def test_servos_that_are_not_those_of_the_file_are_refused_before_anything_moves() -> None:
    arm, bus = pair()
    bus.table[1]["homing"] = 0
    with pytest.raises(CalibrationMismatch, match="has homing 0, the file 3"):
        arm.connect()
    assert bus.log == [] and not bus.is_open


def test_what_the_servos_cannot_do_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="the servos have 1024 ticks a turn, the file 4096"):
        pair(ToyBus(ticks_per_turn=1024))
    with pytest.raises(ConfigError, match=r"toy watchdog_s: want 0.02 to 2.54 s, or 0, got 3"):
        pair(watchdog_s=3.0)
    with pytest.raises(ConfigError, match=r"want 0: these servos have none, got 0.2"):
        pair(ToyBus(watchdog_s=None))


def test_configuring_twice_changes_nothing_the_second_time() -> None:
    arm, _ = pair()
    arm.connect()
    assert arm.configure() == {f"{name}.return_delay": (250, 0) for name in ("pan", "lift", "jaw")}
    assert arm.configure() == {}


def test_activating_sets_the_goal_then_the_watchdog_then_the_torque() -> None:
    arm, bus = pair()
    arm.connect()
    arm.activate()
    kinds = [entry[0] for entry in bus.log if entry[0] != "watchdog" or entry[2] > 0]
    assert kinds == ["goals"] + ["watchdog"] * 3 + ["torque"] * 3
    assert {servo: table["goal"] for servo, table in bus.table.items()} == START, "where it is"
    assert all(table["watchdog"] == 10 and table["torque"] == 1 for table in bus.table.values())


def test_servos_without_a_watchdog_are_asked_for_none() -> None:
    arm, bus = pair(ToyBus(watchdog_s=None), watchdog_s=0.0)
    arm.connect()
    arm.activate()
    assert all(entry[0] in ("goals", "torque") for entry in bus.log) and arm.capabilities().watchdog_s is None
    arm.deactivate(Stop.RELEASE)
    assert all(entry[0] != "watchdog" for entry in bus.log)


def test_a_lost_goal_is_noticed_before_the_torque_comes() -> None:
    arm, bus = pair()
    arm.connect()
    bus.deaf_to_goals = 5
    with pytest.raises(TransportCorrupt, match=r"servo 1 \(pan\) has goal 0, want 2048"):
        arm.activate()
    assert "torque" not in [entry[0] for entry in bus.log]
    bus.deaf_to_goals = 2
    arm.activate()
    assert bus.table[1]["goal"] == 2048 and bus.table[1]["torque"] == 1


def test_a_pose_that_cannot_be_gets_no_torque() -> None:
    arm, bus = pair()
    arm.connect()
    bus.table[1]["position"] = 100
    with pytest.raises(CalibrationMismatch, match="its zero has moved"):
        arm.activate()
    assert "torque" not in [entry[0] for entry in bus.log]


def test_one_servo_that_refuses_torque_leaves_no_other_with_it() -> None:
    arm, bus = pair()
    arm.connect()
    bus.stubborn = {3}
    with pytest.raises(DeviceFault, match="servo 3 refuses torque = 1"):
        arm.activate()
    assert [table["torque"] for table in bus.table.values()] == [0, 0, 0]


def test_two_servos_of_one_joint_must_agree() -> None:
    arm, bus = pair(shadowed(), shadows={4: 1})
    arm.connect()
    arm.activate()
    assert bus.table[4]["torque"] == 1 and bus.table[4]["watchdog"] == 10
    bus.table[4]["position"] += 200
    with pytest.raises(CalibrationMismatch, match=r"servos 1 and 4 of one joint read 0.31 rad apart"):
        arm.activate()


def test_a_sample_is_in_si_units_and_turns_as_the_joints_do() -> None:
    arm, _ = active()
    state = arm.cycle()
    np.testing.assert_allclose(state.q, [0.0, 196 * 2 * np.pi / 4096], atol=1e-9)  # 4000 is 196 below 100, over the end
    np.testing.assert_allclose(state.qd, [10.0, -20.0])
    np.testing.assert_allclose(state.effort, [0.1, -0.2])
    assert state.aperture == 0.5 and state.flags == 0 and state.alarm == 0
    assert state.t_recv_ns - state.t_sample_ns == state.t_unc_ns == 1.5 * MS  # three answers of a millisecond
    assert arm.cycle().seq == state.seq + 1


def test_a_setpoint_goes_out_as_one_write_and_the_gripper_only_when_asked() -> None:
    arm, bus = active()
    arm.cycle(Setpoint(np.array([0.1, -0.1])))
    assert bus.log == [("goals", (1, 2), (2048 + 65, 100 + 65 + 4096))]  # 4000 is in the turn above that of 100
    arm.cycle(Setpoint(np.array([0.0, 0.0]), aperture=1.0))
    assert bus.log[1:] == [("goals", (1, 2, 3), (2048, 4196, 1500))]


def test_a_servo_that_counts_one_turn_gets_goals_of_that_turn() -> None:
    """Moved by hand it counts on; torque brings it back into its turn, and the goal must be there already."""
    for single, want in ((frozenset({1}), 2048), (frozenset(), 2048 + 4096)):
        arm, bus = pair(single_turn=single)
        bus.table[1]["position"] = 2048 + 4096
        arm.connect()
        arm.activate()
        assert bus.table[1]["goal"] == want
        arm.exchange(Setpoint(np.array([0.0, 0.1])))
        assert bus.table[1]["goal"] == want


def test_an_alarm_is_the_devices_own_bits_and_is_looked_at_first() -> None:
    arm, bus = active()
    bus.table[2]["alarm"] = 32
    with pytest.raises(DeviceFault, match=r"the device raised an alarm \(lift: overload\)") as error:
        arm.cycle()
    assert error.value.bits == 32


def test_health_goes_round_and_keeps_what_it_saw() -> None:
    arm, _ = active()
    for _ in range(3):
        slow = arm.health()
    assert slow.temperature == {"pan": 31.0, "lift": 32.0, "jaw": 33.0} and slow.voltage["jaw"] == 12.0 and slow.alarm == {}


def test_goals_that_tripped_servos_would_ignore_are_a_fault() -> None:
    arm, bus = active()
    arm.cycle(Setpoint(np.array([0.0, 0.0])))
    bus.clock.now += 190 * MS
    arm.cycle(Setpoint(np.array([0.1, 0.0])))  # a pause, but the servos bore it
    bus.clock.now += 300 * MS
    bus.table[2]["watchdog"] = TRIPPED
    with pytest.raises(DeviceFault, match=r"the watchdog of lift ran out in a pause of 0.3\d s; clear the fault"):
        arm.cycle(Setpoint(np.array([0.2, 0.0])))
    arm.clear_fault()
    assert bus.table[2]["watchdog"] == 0 and ("reboot", 2) not in bus.log
    arm.configure()
    arm.activate()
    arm.cycle(Setpoint(np.array([0.2, 0.0])))


def test_clearing_a_fault_reboots_those_with_an_alarm_only() -> None:
    arm, bus = active()
    bus.table[3]["alarm"] = 32
    with pytest.raises(DeviceFault):
        arm.cycle()
    arm.clear_fault()
    assert [entry for entry in bus.log if entry[0] == "reboot"] == [("reboot", 3)] and arm.health().alarm == {}


def test_a_dead_servo_makes_stale_samples_and_then_a_fault() -> None:
    arm, bus = active()
    seq = arm.cycle().seq
    bus.dead = {2}
    for _ in range(9):
        state = arm.cycle(Setpoint(np.array([0.0, 0.0])))
        assert state.flags & Sampled.STALE and state.seq == seq
    assert arm.wants_hold
    with pytest.raises(TransportLost, match=r"no answer in 10 cycles, .*no answer from servo 2"):
        arm.cycle()


def test_holding_makes_the_measured_pose_the_goal_and_the_watchdogs_are_off() -> None:
    arm, bus = active()
    bus.table[1]["position"] = 2100
    arm.deactivate(Stop.HOLD)
    assert bus.table[1]["goal"] == 2100 and all(t["torque"] == 1 and t["watchdog"] == 0 for t in bus.table.values())


def test_every_servo_is_released_although_one_refuses() -> None:
    """An overloaded servo may refuse torque-off; those after it must not stay energised (lelamp_runtime issue 9)."""
    arm, bus = active()
    bus.stubborn, bus.dead = {1}, {2}
    with pytest.raises(DeviceFault, match="servo 1 refuses torque = 0"):
        arm.deactivate(Stop.RELEASE, drop=True)
    assert bus.table[3]["torque"] == 0 and bus.table[3]["watchdog"] == 0 and bus.table[1]["watchdog"] == 0


def test_disconnecting_never_raises_keeps_the_arm_up_and_closes() -> None:
    arm, bus = active()
    bus.dead = {2}
    errors = arm.disconnect()
    assert [type(error) for error in errors] == [TransportTimeout] and not bus.is_open
    assert bus.table[1]["torque"] == bus.table[3]["torque"] == 1 and bus.table[3]["watchdog"] == 0
    assert arm.disconnect() == []


def test_disconnecting_lets_go_where_that_was_asked_for() -> None:
    arm, bus = active(release=True)
    bus.stubborn = {1}
    errors = arm.disconnect()
    assert [type(error) for error in errors] == [DeviceFault] and not bus.is_open
    assert bus.table[2]["torque"] == bus.table[3]["torque"] == 0


def test_disconnecting_before_connecting_is_nothing() -> None:
    arm, bus = pair()
    assert arm.disconnect() == [] and bus.log == []


def test_what_passes_by_itself_is_tried_again_and_what_does_not_is_not() -> None:
    calls: list[int] = []

    def fails(error: HwError, times: int) -> int:
        calls.append(0)
        if len(calls) <= times:
            raise error
        return len(calls)

    assert _servo_bus.firmly(lambda: fails(TransportTimeout("toy", "late"), 2), tries=3) == 3
    calls.clear()
    with pytest.raises(TransportTimeout):
        _servo_bus.firmly(lambda: fails(TransportTimeout("toy", "late"), 3), tries=3)
    calls.clear()
    with pytest.raises(TransportLost):
        _servo_bus.firmly(lambda: fails(TransportLost("toy", "gone"), 9))
    assert len(calls) == 1


def test_an_adapter_is_known_by_the_name_the_system_gives_its_serial_number(tmp_path: Path) -> None:
    port, links = tmp_path / "ttyUSB0", tmp_path / "by-id"
    port.touch()
    links.mkdir()
    (links / "usb-FTDI_FT4THLXZ-if00").symlink_to(port)
    assert _servo_bus.adapter_serial(str(port), links) == "usb-FTDI_FT4THLXZ-if00"
    assert _servo_bus.adapter_serial(str(tmp_path / "ttyUSB1"), links) == ""
    assert _servo_bus.adapter_serial(str(port), tmp_path / "none") == ""


def test_the_latency_timer_of_an_adapter_is_read_where_it_has_one(tmp_path: Path) -> None:
    (tmp_path / "ttyUSB0").mkdir()
    (tmp_path / "ttyUSB0" / "latency_timer").write_text("16\n")
    assert _servo_bus.latency_timer_ms("/dev/ttyUSB0", tmp_path) == 16
    assert _servo_bus.latency_timer_ms("/dev/ttyACM0", tmp_path) is None


def test_a_calibration_of_a_gripperless_arm_has_no_aperture() -> None:
    arm, _ = pair(calibration=replace(ARM, gripper=None))
    arm.connect()
    assert np.isnan(arm.exchange(None).aperture) and not arm.capabilities().gripper
