"""A run directory holds what was logged, opens after any crash, and never holds up or throws at the loop that feeds it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robolearn.core import ArraySpec, Ask, Chunk, Flag, Obs, Sink, Spec, Step
from robolearn.errors import AlreadyExists, BadInput, DatasetError
from robolearn.rollout import rollout
from robolearn.runtime import _segments as seg
from robolearn.runtime.runlog import Logging, Run, RunLog, episodes, open_run
from robolearn.runtime.state import Facts, Machine

S, PERIOD_NS = 1_000_000_000, 20_000_000
OBS = {"q": ArraySpec((3,)), "cam": ArraySpec((16, 24, 3), "uint8")}
SPEC = Spec(OBS, ArraySpec((2,)), 50.0)
HOW = {"flush_s": 0.25, "box_s": 30.0, "box_mib": 1, "quality": 95}


class Body:
    """A body with a clock of its own, which stands for the machine's; the camera has a new picture every other tick."""

    spec = SPEC

    def __init__(self) -> None:
        self.now, self.tick = S, 0
        self.machine: Machine | None = None

    def clock(self) -> dict[str, int]:
        return {"monotonic": self.now, "wall": self.now + 5 * S}

    def obs(self) -> Obs:
        shade = np.full((16, 24, 3), 10 * (self.tick // 2), np.uint8)
        return {"q": np.full(3, self.tick, np.float32), "cam": shade}

    def reset(self, seed: int | None = None) -> Obs:
        self.tick, self.began = 0, self.now
        return self.obs()

    def step(self, action: np.ndarray) -> Step:
        self.now, self.tick = self.now + PERIOD_NS, self.tick + 1
        if self.machine is not None and self.tick == 7:
            self.machine.react("servo_lost", "cable", self.now)
        if self.machine is not None and self.tick == 9:
            self.machine.clear("servo_lost", "back", self.now)
            self.machine.on("recover", "operator", self.now, Facts(operator=True, schedule_empty=True))
        stamps = {"monotonic": self.now, "dev/cam": self.began + (self.tick // 2) * 2 * PERIOD_NS}
        flags = Flag.INTERVENTION if self.tick in (3, 4) else 0
        return Step(self.obs(), action, np.append(action, 0.0), stamps, flags=int(flags), success=self.tick == 12)

    def close(self) -> None:
        """Nothing to close."""


class Mind:
    """Plans four actions at a time: the tick it was asked at, and minus that."""

    spec = Spec(OBS, ArraySpec((2,)), 50.0, execute=4)

    def reset(self, seed: int | None = None) -> None:
        self.tick = -1

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        self.tick += 1

    def plan(self, ask: Ask = Ask()) -> Chunk:
        return Chunk(np.array([[self.tick, -self.tick]] * 4, np.float32), self.tick, events=("engage",))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a run of two episodes, with a raw stream, a fault in the first, and a policy."""
    body, path = Body(), tmp_path_factory.mktemp("runs") / "a run"
    with RunLog(path, {"config": {"hz": 50}, "git": "abc"}, emulated=True, clock=body.clock) as log:
        assert isinstance(log, Sink)
        body.machine = Machine(sink=log.change)
        for seed in range(2):
            rollout(body, Mind(), max_steps=12, seed=seed, sinks=[log], meta={"task": "cups", "where": Path("shelf")})
            body.machine = None
        for k in range(5):
            log.sample("arm/left", body.now + k, body.now + k + 7, np.array([k, 0.5], np.float32))
        log.stream("arm/right", 3, np.arange(4))
        log.event("timing", p50_s=np.float32(0.5), counts=np.arange(3))
        assert log.close() and log.healthy, log.reason
    return open_run(path)


def test_streams_come_back_with_both_stamps(run: Run) -> None:
    left = run.streams["arm/left"]
    assert left.values.dtype == np.float32 and left.values[:, 0].tolist() == [0, 1, 2, 3, 4]  # type: ignore[union-attr, call-overload]
    assert (left.t_recv_ns - left.t_ns).tolist() == [7] * 5
    assert run.streams["arm/right"].t_ns.tolist() == [3]
    assert not run.notes


def test_the_facts_of_a_run_are_in_one_file_with_its_versions_and_clocks(run: Run) -> None:
    assert run.about["emulated"] is True and run.about["git"] == "abc" and len(run.about["config_sha256"]) == 64
    assert run.about["versions"]["numpy"] == np.__version__
    assert run.about["clock"] == {"monotonic_ns": S, "wall_ns": 6 * S}


def test_an_episode_holds_every_tick_with_what_was_asked_filtered_and_sent(run: Run) -> None:
    first, second = episodes(run, emulated=True)
    arrays = first.arrays
    assert (first.index, second.index) == (0, 1) and first.spec == SPEC and first.meta["seed"] == 0
    assert first.meta["where"] == "shelf" and first.outcome is not None and first.outcome["reason"] == "success"
    assert arrays["obs/q"][:, 0].tolist() == list(range(12)) and arrays["k"].tolist() == list(range(12))
    assert arrays["asked"][:, 0].tolist() == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8] == arrays["filtered"][:, 0].tolist()
    assert arrays["sent"].shape == (12, 3) and arrays["success"].tolist() == [0] * 11 + [1]
    assert np.diff(arrays["t_ns"]).tolist() == [PERIOD_NS] * 11 and arrays["t_ns"][0] == S
    assert (arrays["t/wall"][0], arrays["source"][0]) == (6 * S, 1)


def test_pictures_are_stored_once_and_each_tick_shows_its_own(run: Run) -> None:
    assert run.streams["cam"].kind == "jpeg" and len(run.streams["cam"].t_ns) == len(set(run.streams["cam"].t_ns.tolist()))
    for episode in episodes(run, emulated=True):
        pictures = episode.arrays["obs/cam"]
        assert len(pictures) == 12
        for k in range(12):
            assert pictures[k].shape == (16, 24, 3) and abs(int(pictures[k].mean()) - 10 * (k // 2)) <= 2


def test_rows_whose_pictures_a_crash_has_taken_are_no_part_of_the_episode(run: Run) -> None:
    camera = run.streams["cam"]
    short = replace(camera, t_ns=camera.t_ns[:-2], values=camera.values[:-2])
    first, second = episodes(replace(run, streams={**run.streams, "cam": short}), emulated=True)
    assert len(first.arrays["asked"]) == 12 and len(second.arrays["asked"]) == len(second.arrays["obs/cam"]) == 8
    blind = {name: stream for name, stream in run.streams.items() if name != "cam"}
    assert not list(episodes(replace(run, streams=blind), emulated=True))


def test_chunks_are_kept_whole_and_ticks_point_at_them(run: Run) -> None:
    chunks = run.streams["chunks"]
    assert len(chunks.t_ns) == 6
    facts, arrays = seg.unpack(chunks.values[1])
    assert facts == {"tick": 4, "past_stride": 1, "events": ["engage"], "episode": 0}
    assert arrays["actions"].shape == (4, 2) and arrays["actions"].dtype == np.float32
    assert [episode.arrays["chunk"].tolist()[::4] for episode in episodes(run, emulated=True)] == [[0, 1, 2], [3, 4, 5]]


def test_interventions_and_faults_are_marked(run: Run) -> None:
    first, second = episodes(run, emulated=True)
    assert first.spans("intervention") == [(2, 4)] == second.spans("intervention")
    assert first.spans("fault") == [(7, 9)] and second.spans("fault") == []


def test_events_are_lines_with_both_clocks(run: Run) -> None:
    kinds = [event["event"] for event in run.events]
    assert kinds == ["begin", "mode", "mode", "mode", "end", "begin", "end", "timing", "close"]
    assert all(event["t_wall_ns"] - event["t_ns"] == 5 * S for event in run.events)
    assert run.events[7]["counts"] == [0, 1, 2]


def test_a_fault_leaves_a_black_box_that_opens_alone(run: Run) -> None:
    (box,) = (run.path / "black_box").iterdir()
    streams, notes = seg.read_streams(box)
    assert box.name == "000_servo_lost" and not notes
    assert len(streams["episode_0000"].t_ns) == 6  # all that had been recorded before the fault in the seventh step
    assert len(streams["cam"].t_ns) > 0


def test_emulated_runs_are_no_training_data_unless_asked_for(run: Run) -> None:
    with pytest.raises(BadInput, match="an emulated run, want one of a robot; pass emulated=True"):
        next(episodes(run))


def test_a_run_directory_is_never_begun_twice(run: Run, tmp_path: Path) -> None:
    with pytest.raises(AlreadyExists, match="this run directory exists already"):
        RunLog(run.path, {}, emulated=True)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="no run directory can be begun"):
        RunLog(tmp_path / "file" / "run", {}, emulated=True)


def test_what_is_no_run_is_refused(tmp_path: Path, run: Run) -> None:
    with pytest.raises(DatasetError, match=r"want a run directory with run\.json, got FileNotFoundError"):
        open_run(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(DatasetError, match="run format 99, this robolearn reads 1"):
        open_run(tmp_path)
    with pytest.raises(DatasetError, match="want a stream of a run log, got another kind of file"):
        seg.read_segment(run.path / "run.json")


# The files and the writer's process, without the process


def message(kind: int, body: bytes = b"", stream: int = 0, t_ns: int = 0) -> bytes:
    return seg.MESSAGE.pack(kind, stream, t_ns, t_ns + 1) + body


def writer(folder: Path, clock_s: Callable[[], float] = lambda: 0.0, **how: float) -> seg.Writer:
    (folder / "streams").mkdir(parents=True, exist_ok=True)
    made = seg.Writer(folder, {**HOW, **how}, clock_s)
    about = seg.header("arm", "rows", np.dtype("f8"), (2,), {})
    made.take(message(seg.DECLARE, seg.to_json(about)))
    return made


def row(k: int) -> bytes:
    return message(seg.ROW, np.array([k, -k], "f8").tobytes(), t_ns=k)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Returns the bytes of a stream of 20 rows."""
    folder = tmp_path_factory.mktemp("whole")
    made = writer(folder)
    for k in range(20):
        made.take(row(k))
    made.close()
    return (folder / "streams" / "arm.seg").read_bytes()


_RECORD = 8 + 16 + 16  # frame, stamps, two numbers


@given(cut=st.integers(0, 20 * _RECORD), zeros=st.integers(0, 40))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_wherever_a_stream_is_cut_off_all_whole_rows_before_are_read(whole: bytes, tmp_path: Path, cut: int, zeros: int) -> None:
    path = tmp_path / "arm.seg"
    path.write_bytes(whole[: len(whole) - cut] + bytes(zeros))  # a power cut may leave zeros too
    got = seg.read_segment(path)
    want = 20 - -(-cut // _RECORD)
    assert got.t_ns.tolist() == list(range(want)) and np.asarray(got.values)[:, 1].tolist() == [-k for k in range(want)]
    assert bool(got.note) is (cut % _RECORD > 0 or zeros > 0)


@given(at=st.integers(0, 20 * _RECORD - 1), bit=st.integers(0, 7))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_never_gives_a_wrong_row(whole: bytes, tmp_path: Path, at: int, bit: int) -> None:
    raw = bytearray(whole)
    raw[len(whole) - 1 - at] ^= 1 << bit
    path = tmp_path / "arm.seg"
    path.write_bytes(raw)
    got = seg.read_segment(path)
    assert set(map(tuple, np.asarray(got.values).tolist())) < {(k, -k) for k in range(20)} and "dropped" in got.note


def test_a_stream_whose_header_was_not_written_yet_is_left_out_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "streams").mkdir()
    (tmp_path / "run.json").write_text(json.dumps({"format": 1}))
    (tmp_path / "streams" / "a.seg").touch()
    (tmp_path / "streams" / "b.seg").write_bytes(seg.MAGIC + b"\x10")
    (tmp_path / "events.jsonl").write_text('{"event": "begin"}\n{"eve')
    got = open_run(tmp_path)
    assert not got.streams and len(got.notes) == 3 and [event["event"] for event in got.events] == ["begin"]
    said = capsys.readouterr().err
    assert "got an empty file" in said and "want a stream with a header" in said and "dropped 1 incomplete lines" in said


def test_rows_are_on_the_disk_a_quarter_second_after_they_came(tmp_path: Path) -> None:
    now = [0.0]
    made = writer(tmp_path, lambda: now[0])
    made.take(row(0))
    assert made.flush_if_due() is None
    assert (tmp_path / "streams" / "arm.seg").stat().st_size == 0
    now[0] = 0.26
    assert made.flush_if_due() == {"safe": 2, "why": ""}
    assert len(seg.read_segment(tmp_path / "streams" / "arm.seg").t_ns) == 1


def test_the_black_box_holds_the_last_seconds_and_no_more_than_its_share_of_memory(tmp_path: Path) -> None:
    now = [0.0]
    made = writer(tmp_path, lambda: now[0])
    for k in range(60):
        now[0] = float(k)
        made.take(row(k))
    made.take(message(seg.BOX, b"a/b"))
    assert seg.read_segment(tmp_path / "black_box" / "000_a%2Fb" / "arm.seg").t_ns.tolist() == list(range(29, 60))
    small = writer(tmp_path / "small", lambda: now[0], box_mib=0)
    small.take(row(0))
    small.take(message(seg.BOX, b"full"))
    assert len(seg.read_segment(tmp_path / "small" / "black_box" / "000_full" / "arm.seg").t_ns) == 0


def test_a_name_of_a_stream_never_leaves_its_folder(tmp_path: Path) -> None:
    made = writer(tmp_path)
    made.take(message(seg.DECLARE, seg.to_json(seg.header("../../arm", "rows", np.dtype("f8"), (2,), {})), stream=1))
    made.close()
    assert {path.parent for path in tmp_path.rglob("*.seg")} == {tmp_path / "streams"}
    assert "../../arm" in seg.read_streams(tmp_path / "streams")[0]


def test_rows_of_a_stream_whose_declaration_was_lost_harm_no_other(tmp_path: Path) -> None:
    made = writer(tmp_path)
    assert made.take(message(seg.ROW, b"12345678", stream=9)) and made.take(row(0))
    made.close()
    assert not made.failed and len(seg.read_segment(tmp_path / "streams" / "arm.seg").t_ns) == 1


# Crashes, with the process


def eventually(done: Callable[[], bool], what: str) -> None:
    """Waits for what other processes need some time for."""
    for _ in range(2000):
        if done():
            return
        time.sleep(0.01)
    pytest.fail(f"never came: {what}")


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
        seg.Feed(tmp_path / "missing", {**HOW, "buffer_mib": 1, "close_s": 1.0})


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


def test_a_killed_program_loses_a_second_at_most_and_its_run_opens(tmp_path: Path) -> None:
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
