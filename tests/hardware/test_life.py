"""The life of a driver: which call is allowed when, what never reaches it, and how much of a bad wire is borne."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hardware._base import ArmState, Caps, Driver, Health, Identity, Sampled, Setpoint, State, Stop
from hardware._errors import (
    BadCommand,
    DeviceFault,
    HwError,
    LimitViolation,
    NotReady,
    ProtectiveStop,
    TransportCorrupt,
    TransportLost,
    TransportTimeout,
)
from hardware._life import Attended, Budget
from tests.hardware import hosted

PERIOD_S = 0.01


class Scripted:
    """A driver whose exchange does what a list says: a state, or an error to raise; the last entry repeats."""

    def __init__(self, script: Sequence[ArmState | HwError], spend: Callable[[], None] = lambda: None) -> None:
        self.script, self.sent, self.calls, self._spend = list(script), list[Setpoint | None](), list[str](), spend

    def connect(self) -> Identity:
        self.calls.append("connect")
        return Identity("scripted")

    def capabilities(self) -> Caps:
        two = np.full(2, 2.0)
        return Caps(("a", "b"), -two, two, two, (1.0, 100.0, 200.0), opening_m=0.1)

    def configure(self) -> dict[str, tuple[int, int]]:
        self._spend()
        return {"gain": (1, 2)}

    def activate(self) -> None:
        self._spend()
        self.calls.append("activate")

    def exchange(self, setpoint: Setpoint | None) -> ArmState:
        self._spend()
        self.sent.append(setpoint)
        now = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(now, HwError):
            raise now
        return now

    def health(self) -> Health:
        return Health(alarm={"a": ("overload",)})

    def deactivate(self, stop: Stop) -> None:
        self._spend()
        self.calls.append(f"deactivate {stop}")

    def clear_fault(self) -> None:
        self._spend()
        self.calls.append("clear_fault")

    def disconnect(self) -> list[Exception]:
        return []


class Clock:
    def __init__(self) -> None:
        self.ns = 1_000_000_000

    def __call__(self) -> int:
        return self.ns

    def spend(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)


def good(q: float = 0.5, alarm: int = 0) -> ArmState:
    return ArmState(np.full(2, q), np.zeros(2), np.zeros(2), 0, 0, 0, 1, alarm=alarm)


def timeout() -> TransportTimeout:
    return TransportTimeout("arm", "no answer")


def active(script: Sequence[ArmState | HwError], clock: Clock | None = None, spend_s: float = 0.0) -> tuple[Attended, Scripted]:
    clock = clock or Clock()
    driver = Scripted(script, lambda: clock.spend(spend_s))
    arm = Attended(driver, "arm", PERIOD_S, clock_ns=clock)
    arm.connect(), arm.configure(), arm.activate()
    return arm, driver


def test_a_scripted_driver_is_a_driver() -> None:
    assert isinstance(Scripted([good()]), Driver)
    assert isinstance(hosted.make_arm(), Driver)


@pytest.mark.parametrize("call", ["configure", "activate", "cycle", "clear_fault"])
def test_a_call_out_of_turn_is_refused_and_does_not_reach_the_driver(call: str) -> None:
    arm = Attended(driver := Scripted([good()]), "arm", PERIOD_S)
    with pytest.raises(NotReady, match=r"want state .*, it is created"):
        getattr(arm, call)()
    assert not driver.calls and not driver.sent


def test_a_life_goes_round() -> None:
    arm, driver = active([good()])
    assert arm.state is State.ACTIVE
    arm.deactivate(Stop.HOLD)
    assert arm.state is State.CONNECTED
    arm.configure(), arm.activate()
    assert arm.disconnect() == [] and arm.state is State.CLOSED
    with pytest.raises(NotReady):
        arm.connect()
    assert driver.calls == ["connect", "activate", "deactivate hold", "activate"]


def test_an_arm_without_brakes_is_not_dropped_unasked() -> None:
    arm, driver = active([good()])
    with pytest.raises(NotReady, match="without brakes the arm falls"):
        arm.deactivate(Stop.RELEASE)
    arm.deactivate(Stop.RELEASE, drop=True)
    assert driver.calls[-1] == "deactivate release"


def test_a_way_to_stop_that_the_device_has_not_is_refused() -> None:
    arm, _ = active([good()])
    with pytest.raises(NotReady, match="it cannot park, only hold, release"):
        arm.deactivate(Stop.PARK)


def test_without_finite_limits_no_torque() -> None:
    class Unlimited(Scripted):
        def capabilities(self) -> Caps:
            return Caps(("a",), np.array([-np.inf]), np.array([1.0]), np.ones(1), (1, 10, 100))

    arm = Attended(driver := Unlimited([good()]), "arm", PERIOD_S)
    arm.connect(), arm.configure()
    with pytest.raises(NotReady, match="no finite limits"):
        arm.activate()
    assert "activate" not in driver.calls


@pytest.mark.parametrize(
    ("setpoint", "error", "says"),
    [
        (Setpoint(np.array([0.0, np.nan])), BadCommand, "want 2 finite numbers"),
        (Setpoint(np.array([0.0, np.inf])), BadCommand, "want 2 finite numbers"),
        (Setpoint(np.zeros(3)), BadCommand, "want 2 finite numbers"),
        (Setpoint(np.array([0, 1])), BadCommand, "want 2 finite numbers"),
        (Setpoint(np.zeros(2), 1.5), BadCommand, "want an aperture of 0 to 1, got 1.5"),
        (Setpoint(np.zeros(2), float("nan")), BadCommand, "want an aperture"),
        (Setpoint(np.array([0.0, 2.1])), LimitViolation, "b wants -2.000 to 2.000 rad, got 2.100$"),
        (Setpoint(np.array([57.3, -20.0])), LimitViolation, "are these degrees"),
    ],
)
def test_what_no_motor_may_see_never_reaches_the_driver(setpoint: Setpoint, error: type[HwError], says: str) -> None:
    arm, driver = active([good()])
    with pytest.raises(error, match=says):
        arm.cycle(setpoint)
    assert driver.sent == [] and arm.state is State.ACTIVE


def test_from_beyond_its_range_an_arm_may_come_back_and_go_no_farther() -> None:
    arm, driver = active([good(2.3)])
    arm.cycle()
    with pytest.raises(LimitViolation, match=r"a wants -2\.000 to 2\.300 rad, got 2\.310"):
        arm.cycle(Setpoint(np.array([2.31, 0.0])))
    for q in (2.3, 2.2, 2.1):
        arm.cycle(Setpoint(np.array([q, 0.0])))
    driver.script = [good(1.9)]  # it is back, before it was told to be
    arm.cycle()
    arm.cycle(Setpoint(np.array([2.05, 0.0])))
    arm.cycle(Setpoint(np.array([1.9, 0.0])))
    with pytest.raises(LimitViolation, match=r"a wants -2\.000 to 2\.000 rad"):
        arm.cycle(Setpoint(np.array([2.1, 0.0])))


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float64, st.integers(0, 4), elements=st.floats(width=64)))
def test_only_finite_setpoints_within_limits_reach_the_driver(q: np.ndarray) -> None:
    arm, driver = active([good()])
    with contextlib.suppress(BadCommand, LimitViolation):
        arm.cycle(Setpoint(q))
    for sent in driver.sent:
        assert sent is not None and sent.q.shape == (2,) and (np.abs(sent.q) <= 2.0 + 1e-5).all()


def test_a_setpoint_before_activation_is_refused_while_reading_is_fine() -> None:
    arm = Attended(Scripted([good()]), "arm", PERIOD_S)
    arm.connect()
    assert arm.cycle().q[0] == 0.5
    with pytest.raises(NotReady, match="want state active"):
        arm.cycle(Setpoint(np.zeros(2)))


def test_one_miss_is_retried_within_the_cycle() -> None:
    arm, driver = active([good(), timeout(), good(0.7)])
    arm.cycle()
    assert arm.cycle().q[0] == 0.7
    assert arm.counters["retries"] == 1 and arm.counters["TransportTimeout"] == 1 and len(driver.sent) == 3


def test_a_slow_miss_is_not_retried_and_gives_the_last_sample_marked_stale() -> None:
    arm, driver = active([good(), timeout(), good(0.7)], clock := Clock(), spend_s=0.0)
    arm.cycle()
    driver._spend = lambda: clock.spend(0.5 * PERIOD_S)  # more than 30 % of the period
    state = arm.cycle()
    assert state.q[0] == 0.5 and state.flags & Sampled.STALE and len(driver.sent) == 2
    assert not arm.cycle().flags & Sampled.STALE


def test_three_misses_ask_for_a_hold_and_ten_are_a_fault() -> None:
    arm, _ = active([good(), timeout()])
    arm.cycle()
    for k in range(1, 10):
        assert arm.cycle().flags & Sampled.STALE
        assert arm.wants_hold == (k >= 3)
    with pytest.raises(TransportLost, match="no answer in 10 cycles"):
        arm.cycle()
    assert arm.state is State.FAULT


def test_200_ms_of_silence_are_a_fault_however_few_cycles_they_were() -> None:
    arm, _ = active([good(), timeout()], clock := Clock())
    arm.cycle()
    clock.spend(0.25)
    with pytest.raises(TransportLost, match="250 ms"):
        arm.cycle()


def test_what_does_not_pass_by_itself_is_a_fault_at_once() -> None:
    arm, driver = active([good(), ProtectiveStop("arm", "it was stopped"), good()])
    arm.cycle()
    with pytest.raises(ProtectiveStop):
        arm.cycle()
    assert arm.state is State.FAULT
    with pytest.raises(NotReady, match="it is fault"):
        arm.cycle()
    arm.clear_fault()
    assert arm.state is State.CONNECTED and driver.calls[-1] == "clear_fault"


def test_an_alarm_of_the_device_is_a_fault_that_names_it_and_its_sample_is_kept() -> None:
    arm, _ = active([good(), good(0.6, alarm=0x20)])
    arm.cycle()
    with pytest.raises(DeviceFault, match="a: overload") as caught:
        arm.cycle()
    assert caught.value.bits == 0x20 and arm.last is not None and (arm.last.alarm, arm.last.q[0]) == (0x20, 0.6)
    arm.clear_fault()
    assert arm.last is None


def test_a_fault_stays_one_when_the_arm_is_deactivated() -> None:
    arm, driver = active([ProtectiveStop("arm", "it was stopped")])
    with pytest.raises(ProtectiveStop):
        arm.cycle()
    arm.deactivate(Stop.HOLD)
    assert arm.state is State.FAULT and driver.calls[-1] == "deactivate hold"
    with pytest.raises(NotReady, match="it is fault"):
        arm.configure()


@pytest.mark.parametrize("call", ["configure", "activate", "deactivate"])
def test_silence_and_misses_count_from_the_end_of_a_call_that_takes_its_time(call: str) -> None:
    arm = Attended(driver := Scripted([good(), timeout()]), "arm", PERIOD_S, clock_ns=(clock := Clock()))
    arm.connect(), arm.cycle()
    if call != "configure":
        arm.configure()
    if call == "deactivate":
        arm.activate()
    for _ in range(8):
        arm.cycle()
    assert arm.wants_hold
    driver._spend = lambda: clock.spend(0.5)
    arm.deactivate(Stop.HOLD) if call == "deactivate" else getattr(arm, call)()
    driver._spend = lambda: None
    assert not arm.wants_hold
    for _ in range(9):
        assert arm.cycle().flags & Sampled.STALE
    clock.spend(0.25)
    with pytest.raises(TransportLost, match="250 ms"):
        arm.cycle()


def test_after_a_cleared_fault_the_patience_is_whole_again() -> None:
    arm, driver = active([good(), timeout()], clock := Clock())
    arm.cycle()
    clock.spend(1.0)
    with pytest.raises(TransportLost):
        arm.cycle()
    driver.script = [timeout(), timeout(), good(), timeout()]
    arm.clear_fault()
    with pytest.raises(TransportTimeout):  # there is no sample of this life yet
        arm.cycle()
    arm.cycle()
    assert arm.cycle().flags & Sampled.STALE and arm.state is State.CONNECTED


def test_a_sample_that_is_no_number_is_a_miss() -> None:
    arm, _ = active([good(), good(float("nan"))])
    arm.cycle()
    assert arm.cycle().q[0] == 0.5


def test_a_first_miss_has_no_sample_to_give() -> None:
    arm, _ = active([TransportCorrupt("arm", "bad checksum")])
    with pytest.raises(TransportCorrupt, match="arm: bad checksum"):
        arm.cycle()


def test_health_counts_what_was_borne() -> None:
    arm, _ = active([good(), timeout(), good()])
    arm.cycle(), arm.cycle()
    health = arm.health()
    assert health.counters["retries"] == 1 and health.alarm == {"a": ("overload",)}


def test_a_budget_can_be_told() -> None:
    driver = Scripted([good(), timeout()])
    arm = Attended(driver, "arm", PERIOD_S, Budget(retries=0, hard=2), clock_ns=Clock())
    arm.connect()
    arm.cycle(), arm.cycle()
    with pytest.raises(TransportLost):
        arm.cycle()
    assert len(driver.sent) == 3
