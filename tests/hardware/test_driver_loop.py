"""The loop of a driver on a clock of the test: what it sends, forgets, publishes, and when it holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest

from hardware._base import ArmState, Caps, Health, Identity, Setpoint, State, Stop
from hardware._errors import DeviceFault, HwError, LimitViolation, ProtectiveStop, TransportTimeout
from hardware._loop import Loop, MakeGuard
from hardware._records import Hosting
from hardware._stepped import SimulatedTime, Stepped
from tests.hardware.hosted import SpeedGuard

TICK_S = 0.01


class Noted:
    """An arm of two joints that is at once where it is told, and notes it; `errors` come first, `alarm` in every sample."""

    def __init__(self) -> None:
        self.q, self.told, self.calls = np.zeros(2), list[np.ndarray](), list[str]()
        self.follows, self.errors, self.alarm, self.seq = True, list[Exception](), 0, 0
        self.temperature = {"a": 30.0, "b": 31.0}
        self.meanwhile: Callable[[], None] = lambda: None

    def connect(self) -> Identity:
        return Identity("noted")

    def capabilities(self) -> Caps:
        return Caps(("a", "b"), np.full(2, -2.0), np.full(2, 2.0), np.ones(2), (10.0, 100.0, 200.0))

    def configure(self) -> dict[str, tuple[int, int]]:
        return {}

    def activate(self) -> None: ...

    def exchange(self, setpoint: Setpoint | None) -> ArmState:
        self.meanwhile()
        if self.errors:
            raise self.errors.pop(0)
        if setpoint is not None:
            self.told.append(setpoint.q)
            self.q = setpoint.q if self.follows else self.q
        self.seq += 1
        return ArmState(self.q.copy(), np.zeros(2), np.zeros(2), 0, 0, 0, self.seq, alarm=self.alarm)

    def health(self) -> Health:
        self.calls.append("health")
        return Health(temperature=self.temperature)

    def deactivate(self, stop: Stop) -> None:
        self.calls.append(f"deactivate {stop}")

    def clear_fault(self) -> None:
        self.alarm = 0

    def disconnect(self) -> list[Exception]:
        return []


class Open(SpeedGuard):
    """Lets everything through and keeps what it was asked; it comes to rest after four steps on the spot."""

    def __init__(self, period_s: float) -> None:
        super().__init__(period_s)
        self.asked, self.left = list[np.ndarray](), 4

    def step(self, setpoint: Setpoint, state: ArmState, now_s: float) -> tuple[Setpoint, tuple[str, ...]]:
        self._q, self.left = setpoint.q, 4
        self.asked.append(setpoint.q)
        return setpoint, ("velocity", "velocity")

    def stop(self, state: ArmState, now_s: float) -> tuple[Setpoint, bool]:
        self.left -= 1
        return Setpoint(self._q.copy()), self.left <= 0


class Warm(SpeedGuard):
    """Wants to know how warm the joints are."""

    wants_temperature = True

    def __init__(self, period_s: float) -> None:
        super().__init__(period_s)
        self.felt = list[Mapping[str, float]]()

    def feel(self, temperature: Mapping[str, float]) -> None:
        self.felt.append(dict(temperature))


class Bench:
    """A driver's loop at work on simulated time, with its driver and guard at hand."""

    def __init__(self) -> None:
        self.time, self.driver, self.guards, self._open = SimulatedTime(), Noted(), list[SpeedGuard](), list[Stepped]()

    def arm(self, make_guard: Callable[[float], SpeedGuard] = SpeedGuard, hosting: Hosting = Hosting()) -> Stepped:
        def make(caps: Caps, period_s: float) -> SpeedGuard:
            self.guards.append(make_guard(period_s))
            return self.guards[-1]

        factory: MakeGuard = make
        self._open.append(Stepped("arm", self.driver, factory, self.time, hosting))
        return self._open[-1]

    def active(self, make_guard: Callable[[float], SpeedGuard] = SpeedGuard, hosting: Hosting = Hosting()) -> Stepped:
        arm = self.arm(make_guard, hosting)
        arm.connect(), arm.configure(), arm.activate()
        return arm

    def go(self, arm: Stepped, *q: float, ticks: int = 1, due_s: float = 0.0) -> None:
        for _ in range(ticks):
            arm.command(Setpoint(np.array(q), None, self.time.now_ns() + round(1e9 * due_s)))
            self.time.sleep(TICK_S)

    def close(self) -> None:
        for arm in self._open:
            arm.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_after_refused_setpoints_the_arm_goes_on_from_where_it_was_told_to_be(bench: Bench) -> None:
    arm = bench.active()
    bench.go(arm, 2.5, -1.0, ticks=260)  # the plain guard knows no range: from 2.0 on, the border refuses all of it
    assert "a wants -2.000 to 2.000 rad" in str(arm.fault())
    bench.go(arm, 1.5, -1.9, ticks=80)
    told = np.array(bench.driver.told)
    assert told[:, 0].max() <= 2.0 + 1e-6 and told[-1, 0] < 1.6
    assert np.abs(np.diff(told, axis=0)).max() <= 0.01 + 1e-9


def test_an_arm_that_is_beyond_its_range_may_come_back(bench: Bench) -> None:
    bench.driver.q = np.array([2.3, 0.0])
    arm = bench.active()
    bench.go(arm, 1.0, 0.0, ticks=50)
    assert arm.fault() is None and arm.read().state.q[0] == pytest.approx(1.8)
    with pytest.raises(LimitViolation):
        arm._loop._arm.cycle(Setpoint(np.array([2.1, 0.0])))


def test_a_ramp_passes_over_setpoints_that_come_meanwhile(bench: Bench) -> None:
    arm = bench.active(Open)
    bench.go(arm, 0.5, 0.0)
    bench.driver.meanwhile = lambda: arm.command(Setpoint(np.array([1.5, 0.0])))
    before = len(bench.driver.told)
    arm.deactivate(Stop.HOLD)
    assert len(bench.driver.told) - before == 4 and bench.driver.told[-1][0] == 0.5
    assert bench.driver.calls == ["deactivate hold"] and arm.read().life is State.ACTIVE  # the last cycle was


def test_a_setpoint_after_a_hold_begins_where_the_arm_is(bench: Bench) -> None:
    arm = bench.active(Open, Hosting(hold_after_s=0.1))
    bench.driver.follows = False  # something is in its way
    bench.go(arm, 1.0, 0.0)
    bench.time.sleep(0.2)
    assert arm.read().holding
    bench.driver.q = np.array([0.2, 0.0])
    bench.time.sleep(TICK_S)
    bench.go(arm, 0.3, 0.0, ticks=2, due_s=0.5)
    guard = bench.guards[-1]
    assert isinstance(guard, Open) and 0.2 <= guard.asked[-1][0] <= 0.21


def test_the_flags_of_a_cycle_count_every_filter_once(bench: Bench) -> None:
    arm = bench.active(Open)
    bench.go(arm, 0.1, 0.0)
    assert arm.read().changed == 1 and arm.filters == ("velocity",)


@pytest.mark.parametrize("misses", [0, 1])
def test_a_fault_in_the_first_cycle_is_raised_by_connect(bench: Bench, misses: int) -> None:
    bench.driver.errors = [TransportTimeout("noted", "no answer")] * 2 * misses + [ProtectiveStop("noted", "it was stopped")]
    arm = bench.arm()
    with pytest.raises(ProtectiveStop, match="noted: it was stopped"):
        arm.connect()
    assert "it was stopped" in str(arm.fault())


def test_an_alarm_in_the_first_cycle_is_raised_and_published(bench: Bench) -> None:
    bench.driver.alarm = 0x20
    arm = bench.arm()
    with pytest.raises(DeviceFault, match="raised an alarm"):
        arm.connect()
    assert (arm.read().life, arm.read().state.alarm) == (State.FAULT, 0x20)
    arm.clear_fault()
    bench.time.sleep(2 * TICK_S)
    assert (arm.read().life, arm.read().state.alarm) == (State.CONNECTED, 0)


def test_an_alarm_in_motion_is_published_with_its_bits(bench: Bench) -> None:
    arm = bench.active()
    bench.driver.alarm = 0x04
    bench.time.sleep(2 * TICK_S)
    assert (arm.read().life, arm.read().state.alarm) == (State.FAULT, 0x04)


def test_a_wire_that_gives_nothing_at_first_is_a_fault_of_connect_in_the_end(bench: Bench) -> None:
    bench.driver.errors = [TransportTimeout("noted", "no answer")] * 100
    with pytest.raises(HwError, match="no answer in 10 cycles"):
        bench.arm().connect()


def test_an_error_that_is_not_of_the_wire_is_raised(bench: Bench) -> None:
    bench.active()
    bench.driver.errors = [OSError("a file is missing")]
    with pytest.raises(OSError, match="a file is missing"):
        bench.time.sleep(2 * TICK_S)


def test_more_than_three_stalls_in_ten_seconds_hold_the_arm_and_time_lets_it_go_on(bench: Bench) -> None:
    arm = bench.active()
    late = []
    for _ in range(4):
        bench.go(arm, 1.0, 0.0, ticks=3)
        assert not arm.read().holding
        with bench.time.apart():
            bench.time.sleep(0.15)  # nobody turned the loop
        bench.go(arm, 1.0, 0.0)
        late.append(max(one.late_s for one in arm.history(3)))
    bench.go(arm, 1.0, 0.0, ticks=3)
    assert min(late) > 0.1 and arm.read().late_s < 0.02 and arm.read().holding
    bench.time.sleep(10.0)
    bench.go(arm, 1.0, 0.0, ticks=3)
    assert not arm.read().holding


def test_calls_that_take_their_time_are_no_stalls(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    arm = bench.arm()
    for call in ("connect", "configure", "activate", "deactivate"):
        quick = getattr(bench.driver, call)
        monkeypatch.setattr(bench.driver, call, lambda *stop, quick=quick: (bench.time.sleep(0.5), quick(*stop))[1])
    arm.connect()
    for _ in range(5):
        arm.configure(), arm.activate()
        bench.go(arm, 0.5, 0.0, ticks=3)
        assert not arm.read().holding and max(one.late_s for one in arm.history(5)) < 0.02
        arm.deactivate(Stop.HOLD)


def test_a_guard_that_wants_temperatures_gets_them_before_the_motors_are_on_and_then_in_turn(bench: Bench) -> None:
    arm = bench.active(Warm, Hosting(health_s=0.2))
    guard = bench.guards[-1]
    assert isinstance(guard, Warm) and guard.felt == [{"a": 30.0, "b": 31.0}] * 3  # each joint once, and a gripper
    bench.driver.temperature = {"a": 70.0, "b": 31.0}
    bench.time.sleep(0.5)
    assert len(guard.felt) == 5 and guard.felt[-1]["a"] == 70.0
    arm.deactivate(Stop.HOLD)
    bench.time.sleep(0.5)
    assert len(guard.felt) == 5


def test_a_guard_that_wants_none_costs_no_questions(bench: Bench) -> None:
    bench.active()
    bench.time.sleep(1.0)
    assert bench.driver.calls == []


def test_what_the_parent_asks_is_answered_or_refused_in_plain_values() -> None:
    time, driver = SimulatedTime(), Noted()
    loop = Loop("arm", driver, lambda caps, period_s: SpeedGuard(period_s), Hosting(), time.now_ns, time.sleep)
    said = loop.answer({"call": "activate"})
    assert (said["error"], said["device"], said["bits"]) == ("NotReady", "arm", 0)
    assert said["message"] == "arm: activate: want state configured, it is created" and json.dumps(said)
    assert loop.answer({"call": "connect"})["identity"]["model"] == "noted"
