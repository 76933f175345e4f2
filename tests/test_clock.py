"""A loop keeps its grid, skips what it missed, never catches up in a burst, and says what it cost."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn.clock import Deadline
from robolearn.errors import BadInput

MS = 1_000_000


class Clock:
    """Time that passes only in `sleep`, which overshoots, and where a test says so."""

    def __init__(self, overshoot_ns: int = 0) -> None:
        self.now, self.overshoot_ns = 5_000_000_000, overshoot_ns

    def __call__(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9) + self.overshoot_ns


def run(work_ms: list[float], period_s: float = 0.01, overshoot_ns: int = 0) -> tuple[Deadline, list[int]]:
    """Returns the loop after work of these lengths, and when each tick began [ns since the first]."""
    clock = Clock(overshoot_ns)
    deadline, begun = Deadline(period_s, clock, clock.sleep), []
    for work in work_ms:
        deadline.wait()
        begun.append(clock.now - 5_000_000_000)
        clock.now += round(work * MS)
    deadline.wait()
    return deadline, [*begun, clock.now - 5_000_000_000]


def test_ticks_lie_on_the_grid_and_errors_do_not_add_up() -> None:
    _, begun = run([3.0] * 1000, period_s=1 / 30, overshoot_ns=40_000)
    assert begun[-1] == pytest.approx(1000 / 30 * 1e9, abs=41_000)


@given(st.lists(st.floats(0, 80), min_size=1, max_size=60))
@settings(max_examples=40)
def test_however_long_the_work_takes_there_is_no_burst(work_ms: list[float]) -> None:
    deadline, begun = run(work_ms)
    timing = deadline.timing()
    slots = [t // (10 * MS) for t in begun]
    assert all(later > earlier for earlier, later in pairwise(slots))  # one tick a period at most
    assert slots[-1] == deadline.tick == len(work_ms) + timing.skipped  # every period ran or was counted
    assert timing.ticks == len(work_ms) + 1 == sum(timing.counts)


def test_being_late_by_less_than_a_period_costs_no_tick() -> None:
    deadline, begun = run([14.0, 2.0, 2.0])
    assert begun == [0, 14 * MS, 20 * MS, 30 * MS]
    timing = deadline.timing()
    assert (timing.late, timing.overruns, timing.skipped) == (1, 0, 0)


def test_being_late_by_more_skips_whole_periods_and_counts_one_overrun() -> None:
    deadline, begun = run([35.0, 2.0])
    assert begun == [0, 35 * MS, 40 * MS]
    timing = deadline.timing()
    assert (timing.late, timing.overruns, timing.skipped, deadline.tick) == (1, 1, 2, 4)


def test_late_by_exactly_a_period_is_on_the_next_deadline() -> None:
    _, begun = run([20.0, 0.0], period_s=0.01)
    assert begun == [0, 20 * MS, 30 * MS]


def test_quantiles_are_not_below_the_truth_and_at_most_12_percent_above() -> None:
    clock = Clock()
    deadline = Deadline(0.01, clock, clock.sleep)
    deadline.wait()
    for k in range(1000):
        clock.overshoot_ns = 105_000 if k < 980 else 900_000
        deadline.wait()
    timing = deadline.timing()
    assert 105e-6 <= timing.p50_s <= 105e-6 * 1.123
    assert 900e-6 <= timing.p99_s <= 900e-6 * 1.123 and timing.max_s == pytest.approx(900e-6)
    assert json.loads(json.dumps(timing.to_json()))["ticks"] == 1001


def test_the_fourth_stall_in_ten_seconds_wants_a_hold_and_time_takes_it_back() -> None:
    clock = Clock()
    deadline = Deadline(0.01, clock, clock.sleep)
    deadline.wait()
    for _ in range(4):
        assert not deadline.wants_hold
        clock.now += 150 * MS
        deadline.wait()
    assert deadline.wants_hold and deadline.timing().stalls == 4
    clock.now += 10_000 * MS
    assert not deadline.wants_hold


def test_four_stalls_in_a_longer_time_want_nothing() -> None:
    clock = Clock()
    deadline = Deadline(5.0, clock, clock.sleep)
    deadline.wait()
    for _ in range(6):
        clock.now += 5_150 * MS
        deadline.wait()
    assert not deadline.wants_hold


def test_a_real_clock_and_sleep_keep_the_grid_too() -> None:
    deadline = Deadline(0.002)
    assert all(deadline.wait() >= 0 for _ in range(20))
    assert deadline.tick == 19 + deadline.timing().skipped


def test_a_period_that_is_none_is_refused() -> None:
    with pytest.raises(BadInput, match="want a period above 0 and below 60 s, got 0"):
        Deadline(0.0)


def test_work_that_was_meant_to_take_long_is_neither_late_nor_a_stall() -> None:
    clock = Clock()
    deadline = Deadline(0.01, clock, clock.sleep)
    for _ in range(5):
        clock.now += 500 * MS
        deadline.restart()
        assert deadline.wait() == 0.0
    assert not deadline.wants_hold and deadline.timing().stalls == 0
    deadline.wait()
    assert clock.now == 5_000_000_000 + 2_510 * MS  # the grid begins where the work ended
