"""A driver on simulated time: who is called when, and that it does what a hosted driver does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hosted import body as three_joints
from hosted import make_guard

from hardware._base import Setpoint, State, Stop
from hardware._errors import BadCommand, NotReady
from hardware._stepped import SimulatedTime, Stepped
from hardware.robots.virtual import Config, Virtual


@pytest.fixture
def time() -> SimulatedTime:
    return SimulatedTime()


@pytest.fixture
def arm(time: SimulatedTime) -> Iterator[Stepped]:
    driver = Virtual(Config(watchdog_s=0.5, opening_m=0.08), three_joints, time.now_ns)
    arm = Stepped("a", driver, make_guard, time)
    yield arm
    arm.close()


def active(arm: Stepped) -> Stepped:
    arm.connect()
    arm.configure()
    arm.activate()
    return arm


def test_who_asked_for_it_is_called_at_its_instants_in_order(time: SimulatedTime) -> None:
    called: list[tuple[str, int]] = []
    time.every(0.010, lambda: called.append(("slow", time.now_ns() // 1_000_000)))
    time.every(0.005, lambda: called.append(("fast", time.now_ns() // 1_000_000)))
    time.sleep(0.0101)
    assert called == [("fast", 1005), ("slow", 1010), ("fast", 1010)]
    assert time.now_ns() == 1_010_100_000 and time.now_s() == pytest.approx(1.0101)


def test_a_turn_may_sleep_and_what_others_miss_is_skipped(time: SimulatedTime) -> None:
    called: list[str] = []

    def long() -> None:
        called.append("long")
        time.sleep(0.035)

    time.every(0.100, long)
    time.every(0.010, lambda: called.append("short"))
    time.sleep(0.145)
    assert called == ["short"] * 9 + ["long"] + ["short"] * 2, "at 135 ms, late, and at 140 ms"
    assert time.now_ns() == 1_145_000_000


def test_apart_nobody_is_called(time: SimulatedTime) -> None:
    called: list[int] = []
    time.every(0.010, lambda: called.append(time.now_ns()))
    with time.apart():
        time.sleep(0.1)
    assert called == [] and time.now_ns() == 1_100_000_000


def test_the_arm_goes_where_it_is_told_within_its_guards_speed(arm: Stepped, time: SimulatedTime) -> None:
    active(arm)
    goal, steps = np.array([0.3, -0.2, 0.1]), []
    for _ in range(40):
        arm.command(Setpoint(goal, 1.0))
        time.sleep(0.02)
        steps.append(arm.read().sent)
    np.testing.assert_allclose(arm.read().state.q, goal, atol=1e-3)
    assert np.abs(np.diff(steps, axis=0)).max() <= 0.0201, "1 rad/s for 20 ms"
    assert arm.read().state.aperture == 1.0 and arm.read().life is State.ACTIVE


def test_cycles_come_once_a_period_of_simulated_time(arm: Stepped, time: SimulatedTime) -> None:
    active(arm)
    before = arm.read().cycle
    time.sleep(1.0)
    samples = arm.history(50)
    assert arm.read().cycle == before + 100
    assert set(np.diff([one.state.t_sample_ns for one in samples])) == {10_000_000}
    assert all(one.late_s == 0.0 for one in samples)


def test_without_a_new_setpoint_it_holds(arm: Stepped, time: SimulatedTime) -> None:
    active(arm)
    arm.command(Setpoint(np.full(3, 1.5)))
    time.sleep(0.25)
    assert not arm.read().holding
    time.sleep(0.2)
    assert arm.read().holding and arm.read().state.q.max() < 0.5


def test_it_can_be_switched_off_and_on_again(arm: Stepped, time: SimulatedTime) -> None:
    active(arm)
    arm.deactivate(Stop.HOLD)
    fresh = arm.read_fresh(arm.read().cycle + 1, 1.0)
    assert fresh.life is State.CONNECTED
    arm.configure()
    arm.activate()
    assert arm.read_fresh(arm.read().cycle, 1.0).life is State.ACTIVE and arm.health().counters["samples"] > 3


def test_a_pause_longer_than_the_watchdog_is_a_fault_that_can_be_cleared(arm: Stepped, time: SimulatedTime) -> None:
    active(arm)
    with time.apart():
        time.sleep(0.6)
    time.sleep(0.02)
    assert arm.read().life is State.FAULT and "watchdog" in str(arm.fault())
    arm.clear_fault()
    assert arm.fault() is None
    arm.configure()
    arm.activate()


def test_what_is_refused_is_refused_here(arm: Stepped) -> None:
    with pytest.raises(NotReady, match="connect first"):
        arm.command(Setpoint(np.zeros(3)))
    with pytest.raises(NotReady, match="connect first"):
        arm.read()
    arm.connect()
    with pytest.raises(NotReady, match="want state configured"):
        arm.activate()
    with pytest.raises(BadCommand):
        arm.command(Setpoint(np.full(3, np.nan)))


def test_closed_it_is_gone_and_may_be_closed_again(arm: Stepped) -> None:
    arm.connect()
    assert arm.alive and arm.close() == [] and not arm.alive and arm.close() == []
    with pytest.raises(NotReady):
        arm.read()
