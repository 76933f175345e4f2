"""What may follow what, what ends motion and what leads back: every row of both tables, and every guard."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn.errors import BadInput, UnknownName
from robolearn.runtime.state import (
    AUTOMATIC,
    REACTIONS,
    TRANSITIONS,
    Category,
    Change,
    DeadMan,
    Facts,
    Machine,
    Mode,
    Reaction,
    reaction,
    stop_category,
)

S = 1_000_000_000
WELL = Facts(operator=True, schedule_empty=True, deadman=True)
ALONE = Facts(operator=False, schedule_empty=True, deadman=True)
IN_THE_TABLE = ["camera_late", "camera_gone", "servo_miss", "servo_lost", "servo_alert", "bad_chunk", "underrun", "policy_crash"]
IN_THE_TABLE += ["driver_crash", "supervisor_crash", "stall", "protective_stop", "estop", "clock_step", "log_dead", "deadman"]


def running(history: list[Change] | None = None) -> Machine:
    machine = Machine(sink=(history if history is not None else []).append)
    assert machine.on("start", "", 0, WELL).accepted and machine.on("aligned", "", 0, WELL).accepted
    assert machine.mode is Mode.RUN
    return machine


def troubled(row: Reaction, kind: str = "") -> Machine:
    """Returns a machine in RUN to which the trouble came as often as the row asks for."""
    machine = running()
    for _ in range(row.after):
        machine.react(row.event, "test", S, kind)
    return machine


@pytest.mark.parametrize("move", TRANSITIONS, ids=lambda move: f"{move.source}-{move.event}")
def test_every_row_moves_where_all_its_guards_hold(move: object) -> None:
    machine = Machine(sink=[].append, mode=move.source, _aligned=True)  # type: ignore[attr-defined]
    change = machine.on(move.event, "test", 0, WELL)  # type: ignore[attr-defined]
    assert change.accepted and machine.mode is move.target is change.target  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", list(Mode))
def test_every_event_that_is_not_in_the_table_leaves_the_mode_and_says_so(mode: Mode) -> None:
    known = {move.event for move in TRANSITIONS if move.source is mode}
    for event in {move.event for move in TRANSITIONS} - known:
        machine = Machine(sink=[].append, mode=mode)
        change = machine.on(event, "test", 0, WELL)
        assert not change.accepted and machine.mode is mode and change.why == f"no such move from {mode}"


def test_only_run_takes_plans() -> None:
    assert [mode for mode in Mode if Machine(sink=[].append, mode=mode).accepts_chunks] == [Mode.RUN]


def test_any_mode_can_fault_and_only_align_leads_out_of_a_latch() -> None:
    for mode in Mode:
        machine = Machine(sink=[].append, mode=mode)
        machine.react("estop", "pressed", 0)
        assert machine.mode is Mode.ESTOP
        machine = Machine(sink=[].append, mode=mode)
        machine.react("servo_lost", "gone", 0)
        assert machine.mode is (Mode.ESTOP if mode is Mode.ESTOP else Mode.FAULT)
    for latched in (Mode.FAULT, Mode.ESTOP):
        out = {move.target for move in TRANSITIONS if move.source is latched} - {Mode.ESTOP}
        assert out == {Mode.ALIGN}


def test_the_table_of_troubles_is_whole_and_says_everything() -> None:
    assert list(REACTIONS) == IN_THE_TABLE
    for row in REACTIONS.values():
        assert row.found_by and row.reaction and row.back and reaction(row.event) is row
        assert (row.mode is None) == (row.category is None)
    with pytest.raises(UnknownName, match="unknown trouble 'camera_lost'; did you mean 'camera_late'"):
        reaction("camera_lost")


@pytest.mark.parametrize("row", REACTIONS.values(), ids=lambda row: row.event)
def test_a_trouble_leads_where_its_row_says_and_only_then(row: Reaction) -> None:
    machine = running()
    for _ in range(row.after - 1):
        assert machine.react(row.event, "test", S).category is None
        assert machine.mode is Mode.RUN, "too few of it"
    told = machine.react(row.event, "test", S)
    assert machine.mode is (row.mode or Mode.RUN)
    assert machine.accepts_chunks is (row.mode is None)
    if row.mode is not None:
        assert told is row and row.category is Category.RAMP_AND_HOLD and machine.causes == (row.event,)
    assert row.black_box is row.flush is (row.mode in (Mode.FAULT, Mode.ESTOP, Mode.STOPPING))


@pytest.mark.parametrize("row", [row for row in REACTIONS.values() if row.mode is Mode.HOLD], ids=lambda row: row.event)
def test_a_hold_ends_when_its_cause_has_gone_and_long_ones_align_again(row: Reaction) -> None:
    machine = troubled(row)
    assert machine.on("resume", "", 2 * S, WELL).why == f"a cause is left: {row.event}"
    machine.clear(row.event, "gone", S + S // 2)
    if row.align_after_s == 0:
        assert "align first" in machine.on("resume", "", 2 * S, WELL).why
    else:
        assert machine.on("resume", "", 2 * S, WELL).accepted and machine.mode is Mode.RUN
    machine = troubled(row)
    machine.clear(row.event, "gone", 10 * S)
    assert machine.on("resume", "", 10 * S, WELL).accepted is (row.align_after_s > 9)
    machine = troubled(row)
    machine.clear(row.event, "gone", 10 * S)
    assert machine.on("align", "", 10 * S, WELL).target is Mode.ALIGN
    assert machine.on("aligned", "", 10 * S, WELL).target is Mode.RUN


LATCHED = [row for row in REACTIONS.values() if row.mode in (Mode.FAULT, Mode.ESTOP)]


@pytest.mark.parametrize("row", LATCHED, ids=lambda row: row.event)
def test_a_latch_opens_for_a_cause_gone_a_person_and_an_empty_schedule_together(row: Reaction) -> None:
    machine = troubled(row)
    assert "a cause is left" in machine.on("recover", "", 20 * S, WELL).why
    machine.clear(row.event, "gone", 20 * S)
    for facts, why in (
        (Facts(True, False, True), "the schedule still holds actions; flush it"),
        (Facts(True, True, False), "the dead-man is not held"),
    ):
        assert machine.on("recover", "", 20 * S, facts).why == why and machine.mode is row.mode
    if row.event not in AUTOMATIC:
        assert machine.on("recover", "", 20 * S, ALONE).why == "an operator must say so"
    assert machine.on("recover", "", 20 * S, WELL).target is Mode.ALIGN
    assert not machine.accepts_chunks


def test_a_second_cause_keeps_a_latch_shut() -> None:
    machine = running()
    machine.react("estop", "pressed", S)
    machine.react("servo_lost", "cable", S)
    machine.clear("estop", "released", 2 * S)
    assert machine.mode is Mode.ESTOP and machine.on("recover", "", 2 * S, WELL).why == "a cause is left: servo_lost"
    machine.clear("servo_lost", "back", 3 * S)
    assert machine.on("recover", "", 3 * S, ALONE).why == "an operator must say so"  # an e-stop is not on the list
    assert machine.on("recover", "", 3 * S, WELL).accepted


def test_a_protective_stop_recovers_alone_after_5_s_and_three_times_in_ten_minutes() -> None:
    machine, now = running(), 0
    for _ in range(3):
        machine.react("protective_stop", "collision", now, kind="ur_protective_stop")
        machine.clear("ur_protective_stop", "unlocked", now + S)
        assert machine.on("recover", "", now + 4 * S, ALONE).why == "an operator must say so"
        assert machine.on("recover", "", now + 5 * S, ALONE).accepted
        machine.on("aligned", "", now + 6 * S, ALONE)
        now += 60 * S
    machine.react("protective_stop", "collision", now, kind="ur_protective_stop")
    machine.clear("ur_protective_stop", "unlocked", now + S)
    assert not machine.on("recover", "the fourth", now + 9 * S, ALONE).accepted
    assert machine.on("recover", "ten minutes later", 606 * S, ALONE).accepted


def test_what_a_person_recovers_is_not_counted() -> None:
    machine = running()
    for k in range(5):
        machine.react("servo_lost", "cable", k * S)
        machine.clear("servo_lost", "back", k * S)
        assert machine.on("recover", "", k * S, WELL).accepted
        machine.on("aligned", "", k * S, WELL)
    machine.react("servo_lost", "cable", 9 * S)
    machine.clear("servo_lost", "back", 9 * S)
    assert machine.on("recover", "", 9 * S, ALONE).accepted


def test_a_kind_that_is_not_listed_never_recovers_alone() -> None:
    machine = running()
    machine.react("servo_lost", "cable", 0)
    machine.react("servo_alert", "hot", 0)
    machine.clear("servo_lost", "back", S)
    machine.clear("servo_alert", "cool", S)
    assert not machine.on("recover", "", 900 * S, ALONE).accepted


def test_stalls_hold_only_when_four_lie_within_ten_seconds() -> None:
    machine = running()
    for k in range(8):
        machine.react("stall", "150 ms", 4 * k * S)
    assert machine.mode is Mode.RUN
    for k in range(3):
        machine.react("stall", "150 ms", (29 + k) * S)
    assert machine.mode is Mode.HOLD


def test_a_good_chunk_between_bad_ones_starts_the_count_anew() -> None:
    machine = running()
    for _ in range(5):
        machine.react("bad_chunk", "NaN", S)
        machine.react("bad_chunk", "NaN", S)
        machine.clear("bad_chunk", "a good one", S)
    assert machine.mode is Mode.RUN


def test_a_hold_before_the_alignment_was_done_does_not_lead_to_run() -> None:
    machine = Machine(sink=[].append)
    machine.on("start", "", 0, WELL)
    machine.react("deadman", "released", S)
    machine.clear("deadman", "held", 2 * S)
    assert machine.mode is Mode.HOLD and "align first" in machine.on("resume", "", 2 * S, WELL).why
    assert machine.on("align", "", 2 * S, WELL).accepted


def test_a_trouble_before_the_start_forbids_the_start() -> None:
    machine = Machine(sink=[].append)
    machine.react("camera_gone", "unplugged", 0)
    assert machine.mode is Mode.IDLE and machine.on("start", "", S, WELL).why == "a cause is left: camera_gone"


def test_everything_asked_is_told_refused_or_not_with_its_reason() -> None:
    history: list[Change] = []
    machine = running(history)
    machine.on("resume", "nothing to resume", 3, WELL)
    machine.react("estop", "button", 4)
    machine.react("clock_step", "NTP", 5)
    machine.clear("estop", "released", 6)
    seen = [(change.t_ns, change.source, change.event, change.target, change.accepted) for change in history]
    assert seen == [
        (0, Mode.IDLE, "start", Mode.ALIGN, True),
        (0, Mode.ALIGN, "aligned", Mode.RUN, True),
        (3, Mode.RUN, "resume", Mode.RUN, False),
        (4, Mode.RUN, "estop", Mode.ESTOP, True),
        (5, Mode.ESTOP, "clock_step", Mode.ESTOP, True),
        (6, Mode.ESTOP, "cleared", Mode.ESTOP, True),
    ]
    assert history[3].reason == "button" and history[3].kind == "estop"
    with pytest.raises(UnknownName, match="unknown event 'stert'; did you mean 'start'"):
        machine.on("stert", "", 7)


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted({m.event for m in TRANSITIONS} | set(REACTIONS) | {"clear"})), st.booleans()),
        max_size=40,
    )
)
@settings(max_examples=40)
def test_whatever_happens_run_is_entered_only_without_a_cause_and_latches_hold(events: list[tuple[str, bool]]) -> None:
    history: list[Change] = []
    machine = running(history)
    for k, (event, operator) in enumerate(events):
        before, facts = machine.mode, Facts(operator, schedule_empty=True, deadman=True)
        if event == "clear":
            for kind in machine.causes:
                machine.clear(kind, "", k * S)
        elif event in REACTIONS:
            machine.react(event, "", k * S)
        else:
            machine.on(event, "", k * S, facts)
        if machine.mode is Mode.RUN:
            assert not machine.causes
        if before is Mode.ESTOP and machine.mode is not Mode.ESTOP:
            assert event == "recover" and operator and machine.mode is Mode.ALIGN
        if before is Mode.FAULT and machine.mode not in (Mode.FAULT, Mode.ESTOP):
            assert event == "recover" and machine.mode is Mode.ALIGN
    assert len(history) >= 2


def test_a_dead_man_is_held_while_a_fresh_level_says_so() -> None:
    switch = DeadMan("pedal")
    assert not switch.held(0)
    switch.update(True, S)
    assert switch.held(S) and switch.held(S + S // 10)
    assert not switch.held(S + S // 10 + 1)  # silence
    assert not switch.held(S // 2)  # stamped in the future: another clock
    switch.update(False, 2 * S)
    switch.update(True, S)  # older than what is known
    assert not switch.held(2 * S)
    switch.update(None, 3 * S)
    assert not switch.held(3 * S)


def test_a_release_counts_whenever_it_comes_and_a_stamp_of_the_future_never_holds() -> None:
    switch = DeadMan("pedal")
    switch.update(True, 2 * S)
    switch.update(False, S)  # overtaken on its way
    assert not switch.held(2 * S)
    switch.update(True, 3 * S)
    assert not switch.held(3 * S - 1) and switch.held(3 * S)


def test_a_keyboard_is_no_dead_man() -> None:
    with pytest.raises(BadInput, match=r"want a level signal \(pedal, trigger, clutch\), got 'keyboard', which sends presses"):
        DeadMan("keyboard")


def test_software_asks_for_stops_of_category_1_and_2_only() -> None:
    assert stop_category(1) is Category.RAMP_THEN_OFF and stop_category(2) is Category.RAMP_AND_HOLD
    with pytest.raises(BadInput, match="want 1 or 2, got 0; 0 cuts the power, which only hardware does"):
        stop_category(0)
