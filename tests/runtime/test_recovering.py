"""A body is brought back beside the loop: it ticks on and hears, nobody else talks to the body, and what a person says wins."""

from __future__ import annotations

from typing import Any

import pytest

from robolearn.runtime.parties import Manners
from robolearn.runtime.state import DeadMan
from tests.runtime.deployed import HZ, Gone, Trip


def lost(trip: Trip) -> None:
    trip.body.raises = Gone("elbow: 10 misses", "servo_lost")


def pressed(trip: Trip) -> None:
    trip.body.raises = Gone("ur5e: emergency stop", "estop")


def say(*words: str) -> Any:
    return lambda trip: trip.words.extend(words)


def mended(at: dict[int, Any], ticks: int, **how: Any) -> Trip:
    """Returns a trip whose recoveries take so many ticks and mend the body."""
    trip = Trip(at, mending=ticks, **how)

    def mend() -> None:
        trip.body.raises, trip.recovered = None, trip.recovered + 1

    trip.recover = mend
    return trip


def test_the_loop_keeps_its_rate_and_leaves_the_body_alone_while_it_is_brought_back() -> None:
    trip = mended({10: lost}, 40)
    trip.run(80)
    assert trip.path() == ["run", "fault", "align", "run"] and trip.modes.count("fault") in range(40, 44)
    assert trip.body.calls.count("raise") == 1, "in the tick that found it out"
    assert trip.world.now == 10**12 + round(81 * 1e9 / HZ), "80 ticks, and one in which it comes to rest"
    assert not trip.said("stall")


@pytest.mark.parametrize("said", [12, 30, 51])
def test_an_emergency_stop_during_a_recovery_is_heard_in_its_tick_and_wins(said: int) -> None:
    trip = mended({10: lost, said: say("estop")}, 40)
    trip.run(80)
    assert trip.path() == ["run", "fault", "estop"] and trip.modes[said - 1 : said + 1] == ["fault", "estop"]
    assert trip.recovered == 0 and not any(change.accepted for change in trip.said("recover"))
    assert "emergency stop" in trip.said("recover")[-1].reason and trip.body.calls[11:].count("step") == 0


def deaf(trip: Trip) -> Trip:
    """Makes the trip's recoveries go on when they are asked to end, as one does that waits for a wire."""
    begin = trip.env._recovery._begin

    def begun() -> Any:
        under_way = begin()
        under_way.stop = lambda: None  # type: ignore[method-assign]
        return under_way

    trip.env._recovery._begin = begun
    return trip


def test_an_emergency_stop_wins_over_a_recovery_that_does_not_listen() -> None:
    trip = deaf(mended({10: lost, 30: say("estop")}, 40))
    trip.run(80)
    assert trip.recovered == 1 and trip.path() == ["run", "fault", "estop"] and "estop" in trip.machine.causes


def test_an_emergency_stop_during_a_recovery_from_one_keeps_it_latched() -> None:
    trip = mended({10: pressed, 20: say("recover"), 30: say("estop"), 70: say("recover")}, 20)
    trip.run(130)
    assert trip.path() == ["run", "estop", "align", "run"] and trip.modes[69] == "estop" and trip.recovered == 1


@pytest.mark.parametrize("word", ["stop", "quit", "success", "failure"])
def test_a_word_that_ends_the_episode_ends_it_during_a_recovery_too(word: str) -> None:
    trip = deaf(mended({10: lost, 30: say(word)}, 40))
    outcome = trip.run(80)
    assert outcome.steps == 31 and trip.recovered == 0 and trip.machine.mode == "fault"
    assert trip.body.calls.count("raise") == 1, "nobody talks to the body that is still being brought back"


def test_a_hold_that_is_said_during_a_recovery_outlasts_it() -> None:
    for at in ({10: lost, 30: say("hold")}, {10: pressed, 20: say("recover"), 30: say("hold")}):
        trip = mended(at, 40)
        trip.run(120)
        assert trip.path()[2:] == ["align", "hold"] or trip.path()[2:] == ["hold"]
        assert trip.modes[-1] == "hold" and "step" not in trip.body.calls[12:]


def test_a_hold_of_before_is_one_again_after_a_recovery_that_failed() -> None:
    def fail() -> None:
        raise Gone("no answer", "servo_lost")

    trip = mended({5: say("hold"), 10: lost, 15: say("recover")}, 4)
    mend, trip.recover = trip.recover, fail
    trip.at[30] = lambda trip: setattr(trip, "recover", mend)
    trip.run(150)
    assert trip.recovered == 1 and trip.modes[-1] == "hold"


@pytest.mark.parametrize("let_go", [False, True])
def test_a_recovery_of_seconds_needs_the_dead_man_all_the_while(let_go: bool) -> None:
    deadman = DeadMan("pedal")
    trip = mended({10: lost}, 60, deadman=deadman)
    hear = trip.env._hear

    def press() -> list[str]:
        if not (let_go and 40 <= len(trip.modes) < 45):
            deadman.update(True, trip.world.now)
        return list(hear())

    trip.env._hear = press
    trip.run(85)
    assert trip.path() == (["run", "fault"] if let_go else ["run", "fault", "align", "run"])
    if let_go:
        assert "dead-man" in trip.said("recover")[0].reason


def test_where_nobody_watches_the_last_try_may_take_its_time_too() -> None:
    trip = mended({10: lost}, 10, manners=Manners(give_up_s=60.0))
    mend, failed = trip.recover, list[int]()

    def third() -> None:
        failed.append(1)
        if len(failed) < 3:
            raise Gone("no answer yet", "servo_lost")
        mend()

    trip.recover = third
    assert trip.run(200).reason == "horizon" and trip.path() == ["run", "fault", "align", "run"]


def test_a_fault_that_a_hold_came_before_ends_alone_too() -> None:
    def miss(trip: Trip) -> None:
        trip.body.late = ("joints",)

    trip = mended({5: miss, 15: lost}, 10, manners=Manners(give_up_s=60.0))
    mend = trip.recover

    def well() -> None:
        trip.body.late = ()
        mend()

    trip.recover = well
    assert trip.run(100).reason == "horizon" and trip.path() == ["run", "hold", "fault", "align", "run"]
