"""Who holds a body, holds it: no recovery, no plan of before and no slow device brings it back to motion by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from robolearn.errors import HardwareError
from robolearn.runtime.parties import Manners
from robolearn.runtime.state import DeadMan
from tests.runtime.deployed import Gone, Trip


def lost(trip: Trip) -> None:
    trip.body.raises = Gone("elbow: 10 misses", "servo_lost")


def held_while(trip: Trip, deadman: DeadMan, when: Callable[[int], bool], reading_ns: int = 0) -> None:
    """Makes the trip's dead-man a device that is read at every tick: held while `when(tick)`, stamped when it was read."""
    hear = trip.env._hear

    def read() -> list[str]:
        trip.world.now += reading_ns
        if when(len(trip.modes)):
            deadman.update(True, trip.world.now)
        return list(hear())

    trip.env._hear = read


def test_a_dead_man_is_held_that_was_stamped_while_it_was_read() -> None:
    trip = Trip(deadman=(deadman := DeadMan("pedal")))
    held_while(trip, deadman, lambda tick: True, reading_ns=20_000)
    trip.run(20)
    assert trip.path() == ["run"]


@pytest.mark.parametrize("word", ["hold", "alarm"])
def test_a_fault_that_ends_alone_does_not_end_what_a_person_or_a_monitor_held(word: str) -> None:
    def hold(trip: Trip) -> None:
        if word == "alarm":
            trip.env.alarm("fiper", trip.ticks[-1])
        else:
            trip.words.append(word)

    def recover() -> None:
        trip.body.raises = None

    trip = Trip({10: hold, 15: lost, 50: lambda trip: trip.words.append("resume")})
    trip.recover = recover
    trip.run(70)
    assert trip.path() == ["run", "hold", "fault", "hold", "align", "run"] and trip.modes[49] == "hold"
    sent = np.array(trip.body.sent)
    assert np.ptp(sent[11:40], axis=0).max() == 0.0


def test_the_operator_who_clears_a_fault_ends_the_hold_too() -> None:
    def mend(trip: Trip) -> None:
        trip.body.raises = None
        trip.words.append("recover")

    def alert(trip: Trip) -> None:
        trip.body.raises = Gone("elbow: overload", "servo_alert")

    trip = Trip({10: lambda trip: trip.words.append("hold"), 15: alert, 30: mend})
    trip.run(50)
    assert trip.path() == ["run", "hold", "fault", "align", "run"]


@pytest.mark.parametrize("consumer", ["sync", "replace"])
@pytest.mark.parametrize("again", [26, 27, 28])
def test_what_was_planned_while_the_body_stood_is_not_caught_up_with(consumer: str, again: int) -> None:
    trip = Trip(deadman=(deadman := DeadMan("pedal")), consumer=consumer)
    held_while(trip, deadman, lambda tick: not 10 <= tick < again)
    trip.run(50)
    assert "hold" in trip.path() and trip.modes[-1] == "run"
    steps = np.diff(np.array(trip.body.sent)[:, 0])
    assert steps.max() < 0.021 and steps[again + 2 :].max() > 0.019  # it walks 0.02 a tick, and no faster because it had to wait


@pytest.mark.parametrize("delay_s", [0.0, 0.15])
def test_after_an_alignment_it_stands_until_a_plan_of_where_it_is_is_there(delay_s: float) -> None:
    def near(trip: Trip) -> None:
        trip.policy.begin, trip.delay_s = 0.0, delay_s

    trip = Trip({10: near}, begin=0.6)
    trip.run(120)
    first = trip.modes.index("run")
    rows = np.array(trip.body.sent)[:, 0]
    assert trip.body.calls[first] == "step" and rows[first - 1] == pytest.approx(0.62), "the first target, which it went to"
    assert 0 < rows[first] - rows[first - 1] <= 0.02 * (1 + round(delay_s * 20)) + 1e-6 and rows[-1] > 0.9
    assert not trip.said("underrun") and trip.path() == ["align", "run"]


def test_nothing_is_brought_back_while_the_dead_man_is_not_held() -> None:
    trip = Trip({10: lost, 20: lambda trip: trip.words.append("recover")}, deadman=(deadman := DeadMan("pedal")))
    held_while(trip, deadman, lambda tick: not 8 <= tick < 40)

    def recover() -> None:
        trip.recovered += 1
        trip.body.raises = None

    trip.recover = recover
    trip.run(60)
    assert trip.modes[39] == "fault" and trip.recovered == 1 and trip.path()[-2:] == ["align", "run"]
    assert trip.said("recover")[0].reason == "the dead-man is not held"


def test_a_recovery_that_fails_leaves_the_fault_and_its_causes() -> None:
    def fail() -> None:
        raise HardwareError("no answer")

    trip = Trip({10: lost}, manners=Manners(attended=True), recover=fail)
    trip.run(150)
    assert trip.modes[-1] == "fault" and trip.machine.causes == ("servo_lost",) and len(trip.said("recover")) == 3


@pytest.mark.parametrize("word", ["stop", "quit", "failure"])
def test_an_episode_that_is_ended_stands_in_that_tick(word: str) -> None:
    def say(trip: Trip) -> Any:
        trip.words.append(word)

    trip = Trip({10: say})
    outcome = trip.run(30)
    assert outcome.steps == 11 and trip.body.calls[9:11] == ["step", "still"]


def test_an_episode_that_ends_without_a_plan_does_not_bar_the_next_one() -> None:
    def slow(trip: Trip) -> None:
        trip.delay_s = 1.0

    trip = Trip({20: slow})
    trip.run(30)
    assert trip.modes[-1] == "hold" and trip.machine.causes == ("underrun",)
    trip.delay_s = 0.0
    assert trip.run(20).reason == "horizon" and trip.modes[-1] == "run"


def test_a_driver_that_holds_by_itself_is_a_stall_and_the_policy_plans_anew_from_where_the_arm_stood() -> None:
    def stand(trip: Trip) -> None:
        trip.body.stands = True

    def go(trip: Trip) -> None:
        trip.body.stands = False

    trip = Trip({10: stand, 40: go})
    trip.run(110)
    assert {change.reason for change in trip.said("stall")} == {"the arm's driver holds"}
    first = trip.modes.index("hold")
    assert first <= 15, "four ticks in which it stands are a hold that is said, not a run that goes nowhere"
    assert trip.modes[-1] == "run" and "fault" not in trip.path()
    rows = np.array(trip.body.sent)[:, 0]
    assert np.ptp(rows[11:40]) == 0.0 and rows[-1] > rows[40] + 0.1
    assert np.abs(np.diff(rows)).max() <= 1.5 * np.abs(np.diff(rows[:10])).max(), "nothing jumps when it goes on"
