"""The cycle of a servo arm over a bus that is none: what goes out, what a sample says, and what makes a fault."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hardware._base import Sampled, Setpoint
from hardware._errors import (
    DeviceFault,
    TransportLost,
)
from hardware._servo_bus import TRIPPED
from tests.hardware.toy_bus import ARM, MS, active, pair


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


def test_a_calibration_of_a_gripperless_arm_has_no_aperture() -> None:
    arm, _ = pair(calibration=replace(ARM, gripper=None))
    arm.connect()
    assert np.isnan(arm.exchange(None).aperture) and not arm.capabilities().gripper
