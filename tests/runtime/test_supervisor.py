"""The state machine around a body: each row of the fault table is caused, its reaction is seen, and so is the way back to RUN."""

from __future__ import annotations

import numpy as np
import pytest

from robolearn.core import Flag
from robolearn.errors import BadInput, HardwareError
from robolearn.runtime.parties import Manners
from robolearn.runtime.remote import Local
from robolearn.runtime.state import DeadMan
from tests.runtime.deployed import HZ, Gone, Trip, Walker


def moved(trip: Trip, ticks: range) -> float:
    """Returns how far the body went in those ticks."""
    rows = np.array(trip.body.sent)[list(ticks)]
    return float(np.abs(rows - rows[0]).max())


def test_an_episode_without_trouble_runs_and_ends_in_idle() -> None:
    trip = Trip()
    outcome = trip.run(30)
    assert outcome.reason == "horizon" and trip.path() == ["run"] and trip.machine.mode == "idle"
    assert moved(trip, range(30)) > 0.5
    assert not any(tick.step.flags & Flag.HELD for tick in trip.ticks)


def test_a_far_first_target_is_walked_to_at_a_fifth_of_the_speed_before_the_policy_moves_anything() -> None:
    trip = Trip(begin=0.6)
    trip.run(80)
    assert trip.path() == ["align", "run"]
    steps = np.abs(np.diff(np.array(trip.body.sent)[: trip.modes.index("run")], axis=0))
    assert steps.max() <= 0.2 / HZ + 1e-6
    assert trip.body.calls[: trip.modes.index("run")].count("step") == 0


def test_a_first_target_beyond_max_align_is_held_and_said() -> None:
    trip = Trip(begin=1.5)
    trip.run(30)
    assert trip.path()[-1] == "hold" and "confirm" in trip.said("hold")[-1].reason
    assert moved(trip, range(30)) == 0.0


def test_late_frames_are_used_again_and_no_plan_is_made_from_very_old_ones() -> None:
    def late(trip: Trip) -> None:
        trip.body.late, trip.body.age_s = ("camera",), 0.3

    def fine(trip: Trip) -> None:
        trip.body.late, trip.body.age_s = (), 0.0

    trip = Trip({10: late, 20: fine}, manners=Manners(attended=True, waits=True))
    trip.run(30)
    assert "fault" not in trip.path() and "hold" not in trip.path()
    assert len(trip.said("camera_late")) == 1
    stood = [tick.k for tick in trip.ticks if "underrun" in tick.chunk.events]
    assert stood and set(stood) <= set(range(12, 22))  # what was planned before is executed to its end, nothing new is planned


@pytest.mark.parametrize(("lasting", "path"), [(8, ["run", "hold", "run"]), (40, ["run", "hold", "align", "run"])])
def test_a_camera_that_is_gone_holds_and_a_frame_goes_on(lasting: int, path: list[str]) -> None:
    def gone(trip: Trip) -> None:
        trip.body.raises = Gone("camera: the newest is 2.1 s old", "camera_gone")

    def back(trip: Trip) -> None:
        trip.body.raises = None

    trip = Trip({10: gone, 10 + lasting: back})
    trip.run(70)
    assert trip.path() == path and len(trip.said("camera_gone")) == 1
    aligned = [change for change in trip.changes if change.event == "align" and change.accepted]
    assert bool(aligned) == (lasting / HZ > 1.0)  # gone for more than a second costs the alignment
    flags = [trip.ticks[k].step.flags for k in range(11, 10 + lasting)]
    assert all(flag & Flag.HELD and flag & Flag.STALE for flag in flags)


def test_one_missed_read_is_a_flag_and_three_in_a_row_hold() -> None:
    def miss(trip: Trip) -> None:
        trip.body.late = ("joints",)

    def answer(trip: Trip) -> None:
        trip.body.late = ()

    trip = Trip({5: miss, 6: answer, 15: miss, 20: answer})
    trip.run(30)
    assert trip.path() == ["run", "hold", "run"] and trip.modes.index("hold") in (17, 18)


def test_a_servo_that_is_lost_is_a_fault_and_comes_back_alone_with_a_full_handshake() -> None:
    def lost(trip: Trip) -> None:
        trip.body.raises = Gone("elbow: 10 misses", "servo_lost")

    trip = Trip({10: lost})

    def recover() -> None:
        trip.recovered += 1
        if trip.recovered < 2:
            raise HardwareError("elbow: does not answer yet")
        trip.body.raises = None

    trip.recover = recover
    trip.run(80)
    assert trip.path() == ["run", "fault", "align", "run"] and trip.recovered == 2
    assert [change.accepted for change in trip.said("recover")] == [False, True]


def test_an_alert_waits_for_the_operator_and_for_nobody_else() -> None:
    def alert(trip: Trip) -> None:
        trip.body.raises = Gone("elbow: overload", "servo_alert")

    def mend(trip: Trip) -> None:
        trip.body.raises = None
        trip.words.append("recover")

    trip = Trip({10: alert, 50: mend})
    trip.run(70)
    assert trip.path() == ["run", "fault", "align", "run"] and trip.modes.index("fault") == 10 and trip.modes[49] == "fault"
    assert trip.recovered == 1


def test_three_broken_plans_in_a_row_hold_and_a_good_one_goes_on() -> None:
    def broken(trip: Trip) -> None:
        trip.policy.broken = True

    def fine(trip: Trip) -> None:
        trip.policy.broken = False

    trip = Trip({4: broken, 24: fine})
    trip.run(40)
    assert len(trip.said("bad_chunk")) >= 3 and "hold" in trip.path() and trip.modes[-1] == "run"
    assert np.isfinite(np.array(trip.body.sent)).all()


def test_a_late_plan_lets_the_last_one_end_and_holds_there() -> None:
    def slow(trip: Trip) -> None:
        trip.delay_s = 1.0

    def quick(trip: Trip) -> None:
        trip.delay_s = 0.0

    trip = Trip({10: slow, 45: quick})
    trip.run(60)
    assert trip.path()[:3] == ["run", "hold", "run"] and trip.said("underrun")
    held = [k for k, mode in enumerate(trip.modes) if mode == "hold"]
    assert moved(trip, range(held[0] + 1, held[0] + 6)) == 0.0  # it never extrapolates


def test_a_policy_that_ends_holds_and_a_new_planner_goes_on_after_aligning() -> None:
    def crash(trip: Trip) -> None:
        def poll() -> list[object]:
            raise HardwareError("planner: its process has ended (exit code -9)")

        trip.planner.poll = poll  # type: ignore[method-assign]

    trip = Trip({10: crash})
    new = Local(Walker(), 0.0, trip.world.s)

    def revive() -> bool:
        if len(trip.modes) < 25:
            return False
        trip.mind.replace(new)
        return True

    trip.env._revive = revive
    trip.run(50)
    assert trip.path() == ["run", "hold", "align", "run"] and trip.modes[24] == "hold" and trip.mind.planner is new
    assert [c.event for c in trip.changes if c.accepted and c.event in ("policy_crash", "align", "aligned")] == [
        "aligned", "policy_crash", "align", "aligned",
    ]  # fmt: skip


def test_a_driver_that_ends_needs_a_person() -> None:
    def crash(trip: Trip) -> None:
        trip.body.raises = Gone("arm: its driver process has ended (exit code -9)", "driver_crash")

    trip = Trip({10: crash}, manners=Manners(attended=False))
    outcome = trip.run(40)
    assert outcome.reason == "stopped:fault: driver_crash" and outcome.steps == 11 and trip.machine.mode == "fault"
    with pytest.raises(BadInput, match="want mode idle to begin, got fault: driver_crash"):
        trip.run(10)


def test_four_stalls_in_ten_seconds_hold_until_a_second_was_on_time() -> None:
    def stall(trip: Trip) -> None:
        trip.body.extra_s = 0.15

    trip = Trip({k: stall for k in (5, 8, 11, 14)})
    trip.run(60)
    assert len(trip.said("stall")) == 4 and trip.path() == ["run", "hold", "run"]
    assert trip.modes.index("hold") == 15 and trip.modes.count("hold") in range(18, 24)


@pytest.mark.parametrize("kind", ["ur_protective_stop", ""])
def test_a_protective_stop_ends_alone_only_where_it_is_listed_and_after_five_seconds(kind: str) -> None:
    def stop(trip: Trip) -> None:
        trip.body.raises = Gone("ur5e: protective stop", "protective_stop", kind)

    trip = Trip({10: stop}, manners=Manners(attended=True, give_up_s=60))

    def recover() -> None:
        trip.body.raises = None

    trip.recover = recover
    trip.run(200)
    fault = trip.modes.count("fault") / HZ
    assert (5.0 <= fault <= 7.5) if kind else fault > 9.0


def test_an_emergency_stop_latches_until_the_operator_recovers() -> None:
    def pressed(trip: Trip) -> None:
        trip.body.raises = Gone("ur5e: emergency stop", "estop")

    def released(trip: Trip) -> None:
        trip.body.raises = None

    def recover(trip: Trip) -> None:
        trip.words.append("recover")

    trip = Trip({10: pressed, 20: released, 40: recover})
    trip.run(60)
    assert trip.path() == ["run", "estop", "align", "run"] and trip.modes[39] == "estop"


def test_the_operators_own_stop_is_one_too() -> None:
    trip = Trip({10: lambda trip: trip.words.append("estop")}, manners=Manners(attended=False))
    assert trip.run(40).reason == "stopped:estop: estop"
    assert trip.body.calls[-1] == "still"


def test_a_wall_clock_that_jumps_is_only_said() -> None:
    def jump(trip: Trip) -> None:
        trip.world.wall += 3600 * 10**9

    trip = Trip({10: jump})
    trip.run(30)
    assert trip.path() == ["run"] and len(trip.said("clock_step")) == 1


def test_a_dead_man_let_go_holds_and_held_again_goes_on() -> None:
    deadman = DeadMan("pedal", stale_s=0.1)
    trip = Trip(deadman=deadman)
    hear = trip.env._hear

    def press() -> list[str]:
        if not 10 <= len(trip.modes) < 30:
            deadman.update(True, trip.world.now)
        return list(hear())

    trip.env._hear = press
    trip.run(60)
    assert trip.path() == ["run", "hold", "run"]
    assert moved(trip, range(13, 30)) == 0.0


def test_without_a_dead_man_that_is_held_nothing_begins() -> None:
    trip = Trip(deadman=DeadMan("pedal"))
    with pytest.raises(BadInput, match="dead-man is not held"):
        trip.run(10)
    assert not trip.body.sent


def test_what_the_operator_says() -> None:
    said = {5: "hold", 15: "resume", 25: "success"}
    trip = Trip({tick: lambda t, word=word: t.words.append(word) for tick, word in said.items()})
    outcome = trip.run(60)
    assert trip.path()[:3] == ["run", "hold", "run"] and outcome.success and outcome.reason == "success" and outcome.steps == 26
    assert moved(trip, range(6, 15)) == 0.0


def test_an_alarm_holds_and_asks_who_is_there() -> None:
    trip = Trip()
    trip.run(12)
    tick = trip.ticks[-1]
    for attended in (True, False):
        trip = Trip({10: lambda t: t.env.alarm("fiper", tick)}, manners=Manners(attended=attended, give_up_s=0.5))
        outcome = trip.run(60)
        assert trip.path() == ["run", "hold"] and "alarm of fiper" in trip.said("hold")[0].reason
        assert outcome.steps == (60 if attended else 21)


def test_a_body_that_nobody_watches_gives_up() -> None:
    def gone(trip: Trip) -> None:
        trip.body.raises = Gone("camera: gone", "camera_gone")

    trip = Trip({10: gone}, manners=Manners(give_up_s=2.0))
    outcome = trip.run(200)
    assert outcome.reason == "stopped:hold: camera_gone for 2 s" and outcome.steps in range(48, 54)


def test_a_tick_in_the_slot_of_the_one_before_is_no_underrun() -> None:
    def hurry(trip: Trip) -> None:
        trip.body.extra_s = -0.8 / HZ

    trip = Trip({10: hurry})
    trip.run(30)
    assert trip.mind.statistics().early == 1 and trip.path() == ["run"] and not trip.said("underrun")
