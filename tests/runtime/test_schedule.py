"""The rules by which a schedule takes chunks, and what happens where two meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolearn.core import ArraySpec, Spec
from robolearn.errors import BadInput
from robolearn.runtime._seam import Seam, splice
from robolearn.runtime._slots import Delays, Held, Kinds, Proposal, slot_at, slots_in
from robolearn.runtime.consumers._base import make_consumer
from robolearn.runtime.schedule import Offer, Rules, Schedule

HZ = 10.0
SPEC = Spec({"agent_pos": ArraySpec((1,), "float64", names=("x",))}, ArraySpec((1,), "float64", names=("x",)), HZ, execute=4)


def rows(*values: float) -> np.ndarray:
    return np.array(values, float)[:, None]


def schedule(rules: Rules = Rules(), name: str = "replace") -> Schedule:
    return Schedule(SPEC, make_consumer(name, {}, SPEC), rules)


def offer(to: Schedule, actions: np.ndarray, first: int, slot: int | None = None, **about: Any) -> Offer:
    """Offers a chunk before the action of `slot` is sent."""
    about = {"epoch": to.epoch, "t_obs": first / HZ, **about}
    return to.offer(Proposal(actions, first, **about), first if slot is None else slot, (first if slot is None else slot) / HZ)


def held(in_: Schedule, *slots: int) -> list[float | None]:
    return [None if (found := in_.at(slot)) is None else float(found.action[0]) for slot in slots]


@given(st.floats(-0.49, 0.49), st.integers(0, 10**6))
def test_a_tick_up_to_half_a_period_early_or_late_meets_its_own_slot(share: float, k: int) -> None:
    assert slot_at(5.0 + (k + share) / HZ, 5.0, HZ) == k


def test_slots_that_seconds_reach_into_are_counted_whole() -> None:
    assert [slots_in(s, HZ) for s in (0.0, 0.05, 0.1, 0.30000000000000004, 0.31)] == [0, 1, 1, 3, 4]


def test_a_chunk_changes_nothing_before_the_commit_slot() -> None:
    table = schedule(Rules(margin=2))
    assert offer(table, rows(0, 1, 2, 3, 4, 5, 6), 0) == Offer(True, dropped=2)
    assert held(table, 0, 1, 2, 6, 7) == [None, None, 2, 6, None]
    assert offer(table, rows(*range(100, 108)), 2, slot=3).dropped == 3
    assert held(table, 2, 3, 4, 5, 9, 10) == [2, 3, 4, 103, 107, None]
    assert table.at(5) == Held(5, table.at(5).action, 0, table.epoch, 3)  # type: ignore[union-attr]


def test_a_shorter_chunk_empties_what_lay_after_it() -> None:
    table = schedule()
    offer(table, rows(*range(9)), 0)
    offer(table, rows(10, 11), 2)
    assert held(table, 1, 2, 3, 4, 8) == [1, 10, 11, None, None]


@pytest.mark.parametrize(
    ("actions", "about", "reason"),
    [
        (rows(1, np.nan), {}, "invalid"),
        (np.zeros((3, 2)), {}, "invalid"),
        (np.zeros((0, 1)), {}, "invalid"),
        (rows(1, 2, 3), {"epoch": 0}, "epoch"),
        (rows(1, 2, 3), {"t_obs": -1.01}, "age"),
    ],
)
def test_a_chunk_that_is_refused_says_why_and_changes_nothing(actions: np.ndarray, about: dict[str, Any], reason: str) -> None:
    table = schedule(Rules(max_age_s=1.0))
    offer(table, rows(7, 8, 9), 0)
    found = offer(table, actions, 0, **about)
    assert not found.accepted and found.reason == reason
    assert held(table, 0, 1, 2) == [7, 8, 9]


def test_a_chunk_that_is_wholly_too_late_is_refused() -> None:
    table = schedule()
    assert offer(table, rows(1, 2, 3), 0, slot=3) == Offer(False, "late", dropped=3)
    assert offer(table, rows(1, 2, 3), 0, slot=2) == Offer(True, dropped=2)


def test_after_a_flush_only_what_was_executed_is_left_and_earlier_plans_are_refused() -> None:
    table = schedule()
    before = table.epoch
    offer(table, rows(1, 2, 3, 4), 0)
    table.execute(0, np.array([1.0]))
    table.flush()
    assert held(table, 0, 1, 2) == [1, None, None] and table.left(1) == 0
    assert offer(table, rows(1, 2, 3), 1, epoch=before).reason == "epoch"
    assert table.delays.every == [0]


def test_the_expected_delay_is_the_longest_of_the_last_ten_without_the_warm_up() -> None:
    delays = Delays()
    assert delays.expected is None
    delays.add(90)
    assert delays.expected is None and delays.warm_up == 90
    for slots in (7, *[2] * 9):
        delays.add(slots)
    assert delays.expected == 7
    delays.add(1)
    assert delays.expected == 2 and len(delays.every) == 12


def test_delays_are_the_slots_between_an_observation_and_what_its_plan_may_change() -> None:
    table = schedule(Rules(margin=1))
    for first, slot in ((0, 4), (5, 5), (6, 8)):
        offer(table, rows(*range(9)), first, slot)
    assert table.delays.every == [5, 1, 3] and table.view(9, 9).expected(0) == 3


def test_before_a_delay_is_measured_the_guess_counts_and_without_one_the_warm_up() -> None:
    table = schedule()
    assert table.view(0, 0).expected(-1) == 0
    offer(table, rows(*range(9)), 0, 4)
    assert (table.view(4, 4).expected(2), table.view(4, 4).expected(-1)) == (2, 4)
    offer(table, rows(*range(9)), 4, 5)
    assert table.view(5, 5).expected(7) == 1


def joined(new: np.ndarray, seam: Seam, old: np.ndarray = rows(), before: np.ndarray = rows(0.0, 0.0)) -> Any:
    rest = np.concatenate([old, np.repeat(before[-1:], len(new) - len(old), axis=0)]) if len(before) else old
    return splice(before, rest, new, seam, Kinds(), HZ)


def test_a_jump_within_the_limits_is_taken_as_it_is() -> None:
    found = joined(rows(0.1, 0.2, 0.3), Seam((1.0,)))
    assert found.reason == "" and found.blended == 0 and found.jump == pytest.approx(0.1)
    np.testing.assert_array_equal(found.actions, rows(0.1, 0.2, 0.3))


def test_a_jump_that_is_too_fast_is_faded_in() -> None:
    new = rows(*[0.3] * 8)
    found = joined(new, Seam((1.0,), blend=4))
    assert found.reason == "" and found.blended == 4
    np.testing.assert_allclose(found.actions, rows(0.06, 0.12, 0.18, 0.24, 0.3, 0.3, 0.3, 0.3))
    old = rows(0.1, 0.1, 0.1, 0.1)  # what would be executed otherwise is faded out
    np.testing.assert_allclose(joined(new, Seam((1.0,)), old).actions[:4], rows(0.14, 0.18, 0.22, 0.26))


@pytest.mark.parametrize("blend", [0, 1, 4])
def test_a_jump_that_blending_does_not_mend_is_refused(blend: int) -> None:
    assert joined(rows(*[0.9] * 8), Seam((1.0,), blend=blend)).reason == "seam"


def test_a_chunk_that_is_too_fast_in_itself_is_refused() -> None:
    assert joined(rows(0.0, 0.05, 0.3, 0.3), Seam((1.0,))).reason == "speed"
    assert joined(rows(0.0, 0.3), Seam((1.0,)), before=np.zeros((0, 1))).reason == "speed"
    assert joined(rows(0.0, 0.3), Seam(), before=np.zeros((0, 1))).reason == ""


def test_a_turn_that_is_too_sharp_is_faded_in_or_refused() -> None:
    moving = rows(-0.1, 0.0)  # 1 / s; the chunk goes back at 1 / s: a second difference of 20 / s^2
    assert joined(rows(-0.1, -0.2, -0.3), Seam((), (21.0,)), before=moving).reason == ""
    assert joined(rows(-0.1, -0.2, -0.3), Seam((), (19.0,), blend=0), before=moving).reason == "seam"
    faded = joined(rows(*np.arange(-1, -9, -1) * 0.1), Seam((), (19.0,), blend=4), rows(0.1, 0.2, 0.3, 0.4), moving)
    assert faded.reason == "" and faded.blended == 4
    bends = np.diff(np.concatenate([moving, faded.actions]), n=2, axis=0) * HZ**2
    assert np.abs(bends).max() <= 19.0


def test_numbers_without_a_limit_may_jump_and_grips_are_no_seam() -> None:
    before, new = np.zeros((1, 2)), np.array([[0.05, 1.0], [0.1, -1.0]])
    found = splice(before, new, new, Seam((1.0, np.inf), (10.0, np.inf)), Kinds(binary=(1,)), HZ)
    assert found.reason == "" and found.jump == pytest.approx(0.05)


def test_a_quaternion_of_the_other_sign_is_no_jump() -> None:
    before, new = np.array([[1.0, 0, 0, 0]]), np.array([[-1.0, 0, 0, 0], [1.0, 0, 0, 0]])
    found = splice(before, new, new, Seam((1.0,) * 4), Kinds(quaternions=(0,)), HZ)
    assert found.reason == "" and found.jump == 0.0
    np.testing.assert_array_equal(found.actions, [[1.0, 0, 0, 0]] * 2)


def test_the_seam_is_where_the_body_will_be_then_after_what_is_still_to_come() -> None:
    table = schedule(Rules(margin=2, seam=Seam((1.0,), blend=0)))
    offer(table, rows(*np.arange(10) * 0.1), 0, slot=0)
    table.execute(0, np.array([0.0]))
    table.execute(1, np.array([0.0]))
    assert offer(table, rows(0.4, 0.4, 0.4, 0.4), 2, slot=2).accepted  # from 0.3 in slot 3, not from 0.0
    assert offer(table, rows(0.9, 0.9, 0.9, 0.9), 2, slot=2).reason == "seam"


def test_displacements_stay_at_nothing_where_nothing_is_scheduled() -> None:
    kinds = Kinds.of(Spec({}, ArraySpec((3,), names=("dx", "arm.dy", "gripper")), HZ))
    assert kinds == Kinds((2,), (), (0, 1))
    np.testing.assert_array_equal(kinds.still(np.array([1.0, 2.0, 3.0])), [0.0, 0.0, 3.0])


def test_after_skipped_slots_what_lies_behind_a_gap_is_looked_at_too() -> None:
    table = schedule(Rules(margin=2, seam=Seam((1.0,), blend=0)))
    assert offer(table, rows(0.0, 0.0, 0.08), 0).accepted  # lies in slot 2
    table.execute(0, np.array([0.0]))
    table.execute(1, np.array([0.0]))
    assert offer(table, rows(*[0.16] * 5), 2).accepted  # from slot 4 on, a step further than what slot 2 leaves in slot 3
    assert table.resume(2) and not table.resume(3)  # without slot 2 it is two steps
    assert held(table, 2, 3, 4) == [0.08, None, None]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rules(margin=-1), "margin: want a finite number of at least 0, got -1"),
        (lambda: Rules(act_s=float("nan")), "act_s: want a finite number of at least 0, got nan"),
        (lambda: Seam((0.0,)), r"speed: want numbers above 0, infinity for no limit, got \[0.0\]"),
        (lambda: Seam((), (-1.0,)), "acceleration: want numbers above 0"),
        (lambda: Seam(blend=-1), "blend: want 0 or more steps, got -1"),
        (lambda: schedule(Rules(seam=Seam((1.0, 1.0)))), "speed: want 1 numbers, one for each of an action, got 2"),
    ],
)
def test_rules_out_of_range_are_refused_by_name(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make()
