"""Every way from HOLD back to RUN looks at the first target: near, it goes straight on; far, it aligns first, and once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from robolearn.runtime.state import DeadMan
from tests.runtime.deployed import HZ, Trip

SLOW = 0.2 / HZ + 1e-6  # a tick of an align phase


def elsewhere(trip: Trip) -> None:
    trip.policy.begin = 0.6  # from here on its plans begin far from where the arm is


def word(said: str) -> Any:
    return lambda trip: trip.words.append(said)


def stand(trip: Trip) -> None:
    trip.body.stands = True


def go(trip: Trip) -> None:
    trip.body.stands = False


def miss(trip: Trip) -> None:
    trip.body.late = ("joints",)


def answer(trip: Trip) -> None:
    trip.body.late = ()


def broken(trip: Trip) -> None:
    trip.policy.broken = True


def fine(trip: Trip) -> None:
    trip.policy.broken = False


def stall(trip: Trip) -> None:
    trip.body.extra_s = 0.5


def short(trip: Trip) -> None:
    trip.body.extra_s = 0.2


def slow(trip: Trip) -> None:
    trip.delay_s = 0.5


def quick(trip: Trip) -> None:
    trip.delay_s = 0.0


HOLDS = {
    "operator": {10: word("hold"), 30: word("resume")},
    "driver": {10: stand, 30: go},
    "servo_miss": {10: miss, 30: answer},
    "bad_chunk": {10: broken, 30: fine},
    "one long stall": {10: stall},
    "deadman": {},
    "short underrun": {10: slow, 20: quick},
}


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("cause", HOLDS)
def test_after_a_hold_a_near_first_target_goes_straight_on_and_a_far_one_is_aligned_to(cause: str, far: bool) -> None:
    deadman = DeadMan("pedal") if cause == "deadman" else None
    trip = Trip({**HOLDS[cause], **({11: elsewhere} if far else {})}, deadman=deadman)
    hear = trip.env._hear

    def press() -> list[str]:
        if deadman is not None and not 10 <= len(trip.modes) < 30:
            deadman.update(True, trip.world.now)
        return list(hear())

    trip.env._hear = press
    trip.run(150)
    assert cause != "short underrun" or (trip.modes.index("hold") > 11 and trip.modes[:40].count("hold") < HZ)
    assert trip.path()[:4] == (["run", "hold", "align", "run"] if far else ["run", "hold", "run"])
    rows, held = np.array(trip.body.sent), trip.modes.index("hold")
    back = next(k for k in range(held, 150) if trip.modes[k] == "run")
    assert np.abs(np.diff(rows[held : back + (not far)], axis=0)).max(initial=0.0) <= (SLOW if far else 0.021)
    assert trip.modes[-1] == "run" and rows[-1, 0] > rows[held, 0] + 0.1


def test_a_stall_in_which_the_arm_did_not_come_to_rest_goes_on_with_the_plan() -> None:
    trip = Trip({10: short})
    trip.run(30)
    assert trip.path() == ["run"] and len(trip.said("stall")) == 1


def test_a_plan_that_comes_after_more_than_a_second_without_one_is_looked_at_too() -> None:
    def slow(trip: Trip) -> None:
        trip.delay_s = 1.5

    def quick(trip: Trip) -> None:
        trip.delay_s = 0.0
        elsewhere(trip)

    trip = Trip({10: slow, 70: quick})
    trip.run(150)
    assert trip.path()[:4] == ["run", "hold", "align", "run"]


def test_a_planner_that_is_always_late_is_aligned_to_once_and_not_again_before_the_policy_moved_the_arm() -> None:
    trip = Trip({20: word("hold"), 40: word("resume")}, delay_s=0.3)
    trip.run(200)
    aligned = [change for change in trip.said("align") if change.accepted]
    rows = np.array(trip.body.sent)[:, 0]
    assert len(aligned) == 1 and rows[-1] > rows[60] + 0.3


def test_a_first_target_beyond_max_align_holds_after_a_hold_too() -> None:
    trip = Trip({10: word("hold"), 11: lambda trip: setattr(trip.policy, "begin", 1.5), 20: word("resume")})
    trip.run(60)
    assert trip.path() == ["run", "hold", "align", "hold"] and "confirm" in trip.said("hold")[-1].reason
    assert np.ptp(np.array(trip.body.sent)[11:], axis=0).max() == 0.0
