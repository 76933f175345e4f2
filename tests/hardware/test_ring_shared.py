"""Rings in shared memory: whole records only, newest first asked, nothing left behind."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Event

import numpy as np
import pytest

from hardware._ring import Beat, Layout, Ring, new_run, sweep
from robolearn.errors import BadInput

FRAMES = 50
PATIENCE_S = 60.0  # shared cores stall


@pytest.fixture
def run() -> Iterator[str]:
    name = new_run()
    yield name
    sweep(name)


def write_pattern(layout: Layout, enough: Event) -> None:
    """Writes without a pause until the reader has had enough."""
    ring, end = Ring(layout), time.monotonic() + PATIENCE_S
    while not enough.is_set() and time.monotonic() < end:
        k = ring.count + 1
        ring.write(np.full(layout.shape, k % 256, layout.dtype), k)


def test_records_come_back_in_order_with_their_times(run: str) -> None:
    ring = Ring(Layout(f"{run}-a", "<f8", (3,), 8), create=True)
    assert ring.newest() is None and ring.last(3) == []
    for k in range(1, 12):
        assert ring.write(np.full(3, k / 2), 10 * k) == k
    newest = ring.newest()
    assert newest is not None and (newest.count, newest.t_ns, newest.array[0]) == (11, 110, 5.5)
    assert [record.count for record in ring.last(3)] == [9, 10, 11]
    assert [record.count for record in ring.last(100)] == list(range(5, 12))  # one slot is the writer's
    ring.close(), ring.unlink()


def test_a_record_is_a_copy(run: str) -> None:
    ring = Ring(Layout(f"{run}-a", "<i4", (2,), 8), create=True)
    ring.write(np.array([1, 2], np.int32), 0)
    first = ring.newest()
    ring.write(np.array([3, 4], np.int32), 0)
    assert first is not None and first.array.tolist() == [1, 2]


def test_no_reader_sees_half_a_frame_of_a_writer_in_another_process(run: str) -> None:
    layout = Layout(f"{run}-a", "u1", (240, 320, 3), 8)
    ring = Ring(layout, create=True)
    context = multiprocessing.get_context("spawn")
    enough = context.Event()
    writer = context.Process(target=write_pattern, args=(layout, enough), daemon=True)
    writer.start()
    seen, end = set[int](), time.monotonic() + PATIENCE_S
    while len(seen) < FRAMES and time.monotonic() < end:
        record = ring.newest()
        if record is not None:
            assert record.array.min() == record.array.max() == record.count % 256 == record.t_ns % 256
            seen.add(record.count)
    enough.set()
    writer.join(PATIENCE_S)
    assert len(seen) == FRAMES and writer.exitcode == 0


def test_a_slot_that_is_being_written_is_left_out(run: str) -> None:
    ring = Ring(Layout(f"{run}-a", "<f8", (1,), 8), create=True)
    for k in range(4):
        ring.write(np.array([float(k)]), k)
    ring._views[1 + 2 * 2]["lock"][0] = 5  # record 3, as a writer leaves it half way
    assert [record.count for record in ring.last(4)] == [1, 2, 4]


def test_a_ring_overtaken_for_ever_says_so(run: str) -> None:
    ring = Ring(Layout(f"{run}-a", "<f8", (1,), 8), create=True)
    ring.write(np.zeros(1), 0)
    ring._views[1]["lock"][0] = 1
    with pytest.raises(BadInput, match="overtaken 100 times"):
        ring.newest()


def test_what_is_not_there_or_too_small_is_refused(run: str) -> None:
    with pytest.raises(BadInput, match="no such segment"):
        Ring(Layout(f"{run}-none", "<f8", (1,)))
    with pytest.raises(BadInput, match="depth of at least 2"):
        Layout("x", "<f8", (1,), 1)
    small = Ring(Layout(f"{run}-a", "<f8", (1,)), create=True)
    with pytest.raises(BadInput, match="layouts differ"):
        Ring(Layout(f"{run}-a", "<f8", (100_000,)))
    small.close()


def test_unlinking_twice_and_sweeping_a_strange_name(run: str) -> None:
    ring = Ring(Layout(f"{run}-a", "<f8", (1,)), create=True)
    ring.close(), ring.close(), ring.unlink(), ring.unlink()
    Ring(Layout(f"{run}-b", "<f8", (1,)), create=True).close()
    assert sweep(run) == [f"{run}-b"] and sweep(run) == []
    with pytest.raises(BadInput, match="want the name of a run"):
        sweep("")


def test_a_heart_that_stopped_grows_old(run: str) -> None:
    now = [0]
    beat = Beat(f"{run}-beat", create=True, clock_ns=lambda: now[0])
    assert beat.age_s() == float("inf")
    beat.beat()
    now[0] = 1_500_000_000
    assert beat.age_s() == 1.5
    beat.close(), beat.unlink()
