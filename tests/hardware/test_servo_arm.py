"""The life of a servo arm over a bus that is none: the order of things, and what is tried although something failed."""

from __future__ import annotations

import numpy as np
import pytest

from hardware._base import Sampled, Setpoint, Stop
from hardware._errors import (
    CalibrationMismatch,
    ConfigMismatch,
    DeviceFault,
    TransportCorrupt,
    TransportTimeout,
)
from hardware.robots._servo_arm import Options
from robolearn.errors import ConfigError
from tests.hardware.toy_bus import MS, START, ToyBus, active, pair, shadowed


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


def test_numbers_that_make_no_sense_are_refused() -> None:
    for wrong, line in (
        ({"velocity": 0.0}, "want velocity and slow_s above 0"),
        ({"velocity": float("nan")}, "want velocity and slow_s above 0"),
        ({"slow_s": 0.0}, "want velocity and slow_s above 0"),
        ({"watchdog_s": -0.1}, "watchdog_s and rest_tolerance of at least 0"),
        ({"rest_tolerance": -1.0}, "watchdog_s and rest_tolerance of at least 0"),
        ({"rate_hz": (10.0, 5.0, 200.0)}, "rate_hz: want slowest, nominal and fastest"),
    ):
        with pytest.raises(ConfigError, match=f"toy.*{line}"):
            Options(**{"name": "toy", "velocity": 2.0, **wrong})  # type: ignore[arg-type]


def test_an_arm_that_cannot_be_held_keeps_its_watchdogs() -> None:
    """Its servos may still be on their way to the last goal, and nothing else would stop them."""
    arm, bus = active()
    arm.cycle(Setpoint(np.array([0.5, 0.0])))
    bus.dead = {2}
    with pytest.raises(TransportTimeout, match="no answer from servo 2"):
        arm.deactivate(Stop.HOLD)
    assert [table["watchdog"] for table in bus.table.values()] == [10, 10, 10]
    assert [type(error) for error in arm.disconnect()] == [TransportTimeout] and not bus.is_open
    assert [table["watchdog"] for table in bus.table.values()] == [10, 10, 10]


def test_disconnecting_holds_an_arm_on_its_way_where_it_is() -> None:
    arm, bus = active()
    arm.cycle(Setpoint(np.array([0.5, 0.0]), 1.0))
    bus.table[1]["position"] = 2100
    assert bus.table[1]["goal"] > 2300
    assert arm.disconnect() == []
    assert bus.table[1]["goal"] == 2100 and [t["torque"] for t in bus.table.values()] == [1, 1, 1]
    assert [table["watchdog"] for table in bus.table.values()] == [0, 0, 0]


def test_an_arm_that_rests_already_is_not_lowered_by_disconnecting() -> None:
    """Held anew at where it sags to, it would sag from there again."""
    arm, bus = active()
    arm.deactivate(Stop.HOLD)
    bus.table[1]["position"] -= 20
    assert arm.disconnect() == [] and bus.table[1]["goal"] == START[1]


def test_an_arm_whose_watchdogs_have_run_out_can_be_held() -> None:
    arm, bus = active()
    arm.cycle(Setpoint(np.array([0.5, 0.0])))
    bus.tripped({1, 2, 3})
    arm.deactivate(Stop.HOLD)
    assert all(table["watchdog"] == 0 and table["goal"] == table["position"] for table in bus.table.values())


def test_torque_that_was_refused_to_go_off_is_tried_again_at_the_end() -> None:
    arm, bus = active(release=True)
    bus.stubborn = {1}
    with pytest.raises(DeviceFault, match="refuses torque = 0"):
        arm.deactivate(Stop.RELEASE, drop=True)
    bus.stubborn = set()
    assert arm.disconnect() == [] and bus.table[1]["torque"] == 0


def test_a_failed_activation_whose_torque_stays_on_is_not_forgotten() -> None:
    arm, bus = pair(release=True)
    arm.connect()
    bus.stubborn, bus.dead_to_off = {3}, {1}
    with pytest.raises(DeviceFault, match="servo 3 refuses torque = 1"):
        arm.activate()
    assert bus.table[1]["torque"] == 1
    bus.dead_to_off = set()
    arm.disconnect()
    assert bus.table[1]["torque"] == 0
