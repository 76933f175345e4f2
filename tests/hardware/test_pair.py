"""An arm and a gripper as one: what each is told, and what the pair says of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hardware._base import ArmState, Caps, Sampled, Setpoint, State, Stop
from hardware._errors import TransportLost
from hardware._pair import GripperGuard, Pair
from hardware._records import Sample

LOW, HIGH = np.full(2, -1.0), np.full(2, 1.0)


def sample(t_ms: int, aperture: float = float("nan"), life: State = State.ACTIVE, flags: int = 0) -> Sample:
    n = 2 if np.isnan(aperture) else 0
    state = ArmState(np.zeros(n), np.zeros(n), np.zeros(n), t_ms * 10**6, t_ms * 10**6, 0, t_ms, aperture, flags)
    return Sample(state, np.zeros(n), aperture, 0, 0.0, False, life, t_ms)


class Part:
    """Keeps what it is told, in order, in a list that both share."""

    def __init__(self, name: str, told: list[tuple[str, str]], samples: list[Sample], opening_m: float = 0.0) -> None:
        self.name, self.told, self.samples, self.filters, self.alive = name, told, samples, ("velocity",), True
        none = np.zeros(0)
        limits = (none, none, none) if opening_m else (LOW, HIGH, HIGH)
        self.caps = Caps(() if opening_m else ("a", "b"), *limits, (10.0, 100.0, 500.0), opening_m=opening_m)
        self.setpoints: list[Setpoint] = []
        self.next_one: Sample | None = None

    def command(self, setpoint: Setpoint) -> None:
        self.setpoints.append(setpoint)

    def read(self) -> Sample:
        return self.samples[-1]

    def read_fresh(self, after: int, timeout_s: float) -> Sample:
        return self.next_one or self.samples[-1]

    def heard(self) -> dict[str, int]:
        return {"joints": self.read().state.t_recv_ns}

    def history(self, k: int) -> list[Sample]:
        return self.samples[-k:]

    def fault(self, timeout_s: float = 5.0) -> Exception | None:
        return TransportLost(self.name, "lost") if self.read().life is State.FAULT else None

    def __getattr__(self, call: str) -> Any:
        def tell(*given: Any, **named: Any) -> Any:
            self.told.append((self.name, call))
            return {} if call == "configure" else []

        return tell


def pair(arm: list[Sample], gripper: list[Sample]) -> Pair:
    told: list[tuple[str, str]] = []
    return Pair(Part("arm", told, arm), Part("grip", told, gripper, 0.085))  # type: ignore[arg-type]


def test_a_setpoint_is_split_and_no_aperture_leaves_the_gripper_alone() -> None:
    both = pair([sample(1)], [sample(1, 0.5)])
    both.command(Setpoint(np.array([0.1, 0.2]), 0.7, 42))
    both.command(Setpoint(np.array([0.3, 0.4])))
    assert [one.aperture for one in both.arm.setpoints] == [None, None]  # type: ignore[attr-defined]
    (grip,) = both.gripper.setpoints  # type: ignore[attr-defined]
    assert grip.q.shape == (0,) and (grip.aperture, grip.t_ns) == (0.7, 42)


def test_each_cycle_of_the_arm_has_the_aperture_measured_last_before_it() -> None:
    both = pair([sample(t) for t in (10, 20, 30)], [sample(5, 0.1), sample(19, 0.2), sample(29, 0.3)])
    assert [one.state.aperture for one in both.history(3)] == [0.1, 0.2, 0.3]
    assert both.read().state.aperture == 0.3 == both.read_fresh(0, 1.0).state.aperture and both.read().cycle == 30
    assert both.caps.opening_m == 0.085 and both.caps.joints == ("a", "b")


def test_it_says_when_either_was_heard_of_last() -> None:
    assert pair([sample(30)], [sample(10, 0.5)]).heard() == {"joints": 30 * 10**6, "gripper": 10 * 10**6}


def test_a_fault_of_either_is_one_of_the_pair() -> None:
    well, lost = pair([sample(1)], [sample(1, 0.5)]), pair([sample(1)], [sample(1, 0.5, State.FAULT)])
    assert (well.read().life, well.fault()) == (State.ACTIVE, None)
    assert (lost.read().life, str(lost.fault())) == (State.FAULT, "grip: lost")
    lost.clear_fault()
    assert lost.arm.told == [("grip", "clear_fault")], "only whoever has one"  # type: ignore[attr-defined]


def test_metal_in_either_is_metal() -> None:
    emulated, stale = int(Sampled.EMULATED), int(Sampled.STALE)
    assert pair([sample(1, flags=emulated)], [sample(1, 0.5)]).read().state.flags == 0
    assert pair([sample(1, flags=emulated)], [sample(1, 0.5, flags=emulated | stale)]).read().state.flags == emulated | stale


def test_the_gripper_is_switched_on_first_and_off_last() -> None:
    both = pair([sample(1, life=State.CONNECTED)], [sample(1, 0.5, State.CONNECTED)])
    both.activate()
    both.deactivate(Stop.HOLD)
    calls = [("grip", "activate"), ("arm", "activate"), ("arm", "deactivate"), ("grip", "deactivate")]
    assert both.arm.told == calls  # type: ignore[attr-defined]


def test_an_arm_that_comes_back_alone_leaves_a_gripper_at_work_as_it_is() -> None:
    both = pair([sample(1, life=State.CONNECTED)], [sample(1, 0.5)])
    both.configure()
    both.activate()
    assert both.arm.told == [("arm", "configure"), ("arm", "activate")]  # type: ignore[attr-defined]


def test_what_was_switched_off_just_now_is_switched_on_again() -> None:
    both = pair([sample(1)], [sample(1, 0.5)])
    both.arm.next_one = sample(2, life=State.CONNECTED)  # type: ignore[attr-defined]
    both.configure()
    assert both.arm.told == [("arm", "configure")]  # type: ignore[attr-defined]


@pytest.mark.parametrize("wanted", [None, float("nan")])
def test_the_gripper_guard_limits_speed_and_stays_without_a_word(wanted: float | None) -> None:
    guard, state = GripperGuard(0.02, speed=2.0), sample(1, 0.5).state
    guard.reset(np.zeros(0), 0.5, 0.0)
    sent, cut = guard.step(Setpoint(np.zeros(0), 1.0), state, 0.0)
    assert sent.aperture == pytest.approx(0.54) and cut == ("aperture",)
    assert guard.step(Setpoint(np.zeros(0), wanted), state, 0.0)[0].aperture == pytest.approx(0.54)
    assert guard.stop(state, 0.0)[0].aperture == pytest.approx(0.54)
