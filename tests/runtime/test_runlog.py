"""A run directory holds what was logged, and comes back as streams, events and episodes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from logged_body import PERIOD_NS, SPEC, Body, Mind, S

from robolearn.core import Sink
from robolearn.errors import AlreadyExists, BadInput, DatasetError
from robolearn.rollout import rollout
from robolearn.runtime import _segments as seg
from robolearn.runtime.runlog import RunLog
from robolearn.runtime.runs import Run, episodes, open_run
from robolearn.runtime.state import Machine


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


def test_rows_whose_pictures_a_crash_has_taken_are_left_out_aloud_and_the_outcome_with_them(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    camera = run.streams["cam"]
    short = replace(camera, t_ns=camera.t_ns[:-2], values=camera.values[:-2])
    first, second = episodes(replace(run, streams={**run.streams, "cam": short}), emulated=True)
    assert len(first.arrays["asked"]) == 12 and len(second.arrays["asked"]) == len(second.arrays["obs/cam"]) == 8
    assert first.outcome is not None and second.outcome is None
    assert "episode 1: 4 of 12 rows are left out, since a picture is missing" in capsys.readouterr().err
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
