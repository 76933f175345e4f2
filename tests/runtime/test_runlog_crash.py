"""A run directory opens after any crash, and its log never holds up or throws at the loop that feeds it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logged_body import HOW, Body, Mind, S, eventually

from robolearn.data.convert import run_log
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput
from robolearn.rollout import rollout
from robolearn.runtime._feed import Feed
from robolearn.runtime.runlog import Logging, RunLog
from robolearn.runtime.runs import episodes, open_run


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RunLog]:
    """Returns a log with little memory for what the writer has not taken, and little patience."""
    made = RunLog(tmp_path / "run", {}, emulated=False, how=Logging(buffer_mib=1, close_s=5.0, flush_s=0.02))
    yield made
    made.close()


def test_a_killed_writer_costs_nothing_that_it_had_flushed_and_the_loop_goes_on(log: RunLog) -> None:
    for k in range(50):
        log.sample("arm", k, k, np.array([k]))
    eventually(lambda: log.feed.safe >= 51, "the rows on the disk")
    os.kill(log.feed.process.pid, signal.SIGKILL)
    eventually(lambda: not log.healthy, "the end of the writer")
    for k in range(50, 100):
        log.sample("arm", k, k, np.array([k]))
        log.event("tick")
    assert "the writer's process" in log.reason
    assert not log.close()
    assert open_run(log.path).streams["arm"].t_ns.tolist()[:50] == list(range(50))


def test_a_writer_that_hangs_is_unhealthy_and_holds_nobody_up(tmp_path: Path) -> None:
    now = [0]
    how = Logging(buffer_mib=1, close_s=0.1)
    log = RunLog(tmp_path / "run", {}, emulated=False, how=how, clock=lambda: {"monotonic": now[0], "wall": now[0]})
    os.kill(log.feed.process.pid, signal.SIGSTOP)
    try:
        assert log.healthy

        def silent() -> bool:  # what it said before it was stopped may still be read
            now[0] += 3 * S
            return log.reason == "the writer is silent since 3.0 s"

        eventually(silent, "the news of its silence")
        for k in range(40):
            log.sample("big", k, k, np.zeros(8192))  # 2.5 MiB
        assert log.feed.dropped > 0 and log.reason == "the writer is behind by more than 1 MiB"
        assert not log.close()  # does not hang either
    finally:
        log.feed.process.kill()
    assert open_run(tmp_path / "run").about["emulated"] is False


def test_a_writer_that_cannot_begin_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the writer of the run log did not begin"):
        Feed(tmp_path / "missing", {**HOW, "buffer_mib": 1, "close_s": 1.0})


def test_a_log_that_closes_while_its_thread_looks_elsewhere_is_whole(log: RunLog) -> None:
    log.sample("arm", 1, 1, np.zeros(3))
    log.feed._done = True  # what `close` does first; the thread may look just then
    time.sleep(0.05)
    log.feed._bytes_in += log.feed._most  # and however far behind the writer is
    log.feed.close()
    assert log.feed.process.returncode == 0 and not log.feed.why
    assert open_run(log.path).streams["arm"].t_ns.tolist() == [1]


def test_a_writer_that_dies_while_the_log_closes_is_named(log: RunLog) -> None:
    log.feed._done = True
    log.feed.process.kill()
    eventually(lambda: log.feed._gone, "the end of the writer")
    assert not log.close() and log.reason == "the writer's process ended (-9)"


def test_a_full_disk_is_told_and_the_loop_goes_on(log: RunLog) -> None:
    (log.path / "streams" / "arm.seg").symlink_to("/dev/full")
    log.sample("arm", 1, 2, np.zeros(3))
    eventually(lambda: not log.healthy, "the news of a full disk")
    assert log.reason == "No space left on device"
    log.sample("arm", 2, 3, np.zeros(3))
    assert not log.close()


def test_what_cannot_be_logged_is_unhealthy_and_no_error(log: RunLog) -> None:
    log.sample("arm", 1, 1, np.zeros(3))
    log.sample("arm", 2, 2, np.zeros(4))
    assert log.reason == "stream 'arm': want float64(3,), got float64(4,)"
    log.sample("odd", 1, 1, np.array([object()]))
    log.event("odd", value=object())
    log.sample("leg", None, 1, np.zeros(3))  # type: ignore[arg-type]
    log.sample("leg", 1, 1, np.zeros(3))  # goes on
    log.close()
    assert set(open_run(log.path).streams) == {"arm", "leg"}


def test_a_tick_of_another_layout_is_unhealthy_and_no_error(log: RunLog) -> None:
    body, mind = Body(), Mind()
    rollout(body, mind, max_steps=2, sinks=[log])
    body.obs = lambda: {"q": np.zeros(5, np.float32), "cam": np.zeros((16, 24, 3), np.uint8)}  # type: ignore[method-assign]
    rollout(body, mind, max_steps=2, sinks=[log])
    assert log.healthy  # an episode of its own has a layout of its own
    made = iter(range(3, 9))
    body.obs = lambda: {"q": np.zeros(next(made), np.float32)}  # type: ignore[method-assign]
    rollout(body, mind, max_steps=2, sinks=[log])
    assert log.reason == "tick 1: obs/q: want shape (3,), got (4,)"


CHILD = """
import sys, time
from pathlib import Path
import numpy as np
from robolearn.core import ArraySpec, Outcome, Spec, Step, Tick
from robolearn.runtime.runlog import RunLog

spec = Spec({"q": ArraySpec((3,)), "cam": ArraySpec((16, 24, 3), "uint8")}, ArraySpec((2,)), 100.0)
log = RunLog(Path(sys.argv[1]), {}, emulated=False)
log.begin(spec, {})
for k in range(100_000):
    obs = {"q": np.full(3, k, np.float32), "cam": np.zeros((16, 24, 3), np.uint8)}
    now = time.monotonic_ns()
    log.record(Tick(k, obs, np.zeros(2), Step(obs, np.zeros(2), np.zeros(2), {"monotonic": now}), "policy", None))
    print(now, flush=True)
    time.sleep(0.002)
"""


def test_a_killed_program_loses_a_second_at_most_and_its_run_opens_and_makes_a_set(tmp_path: Path) -> None:
    path = tmp_path / "run"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = [int(child.stdout.readline()) for _ in range(150)]
    child.kill()
    said += [int(line) for line in child.stdout.read().split("\n")[:-1]]
    child.wait()
    child.stdout.close()
    eventually(lambda: (path / "black_box" / "000_parent_gone" / "episode_0000.seg").is_file(), "the black box")
    (episode,) = episodes(open_run(path))
    kept: Any = episode.arrays["t_ns"]
    assert episode.outcome is None and len(kept) == len(episode.arrays["obs/cam"]) > 100
    assert (
        kept[1:].tolist() == said[: len(kept) - 1]
    )  # nothing is missing in between; a tick's step is the next one's observation
    assert said[-1] - kept[-1] < S
    assert open_run(path).events[-1]["event"] == "parent_gone"
    run_log.read(path, tmp_path / "set.zarr")
    made = EpisodeSet.open(tmp_path / "set.zarr")
    assert made.n_episodes == 1 and abs(made.n_steps - 100 * (kept[-1] - kept[0]) / S) < 2
