"""A run log becomes a set: equal in every bit where the ticks kept their rate, brought onto the grid where they did not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolearn import cli, registry
from robolearn.core import Chunk, Flag, Outcome, Spec, Step
from robolearn.data.convert import _run_rows, run_log
from robolearn.data.convert._copy import Foreign, Piece
from robolearn.data.convert._run_rows import grid_of
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, DatasetError
from robolearn.rollout import rollout
from robolearn.runtime import _segments as seg
from robolearn.runtime import runlog
from robolearn.runtime.runlog import RunLog
from robolearn.runtime.runs import episodes, open_run
from robolearn.runtime.state import Machine
from tests.runtime.logged_body import PERIOD_NS, SPEC, Body, Mind

FACTS_OF_THE_SET = {"robot": "ur5e", "git": {"commit": "abc"}}
FACTS = {"task": "cups", "operator": "anna", **FACTS_OF_THE_SET}


class Direct:
    """A `Feed` that writes at once, in this process."""

    def __init__(self, folder: Path, how: Any, clock_s: Callable[[], float]) -> None:
        self.writer, self._clock_s, self.why, self.dropped = seg.Writer(folder, how, clock_s), clock_s, "", 0
        self.process = SimpleNamespace(poll=lambda: None)

    @property
    def heard_s(self) -> float:
        return self._clock_s()

    def offer(self, message: bytes) -> None:
        self.writer.take(message)
        self.why = self.writer.failed

    def close(self) -> None:
        self.writer.close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runlog, "Feed", Direct)


class Uneven(Body):
    """A body that comes so much later [periods] to some ticks."""

    def __init__(self, late: dict[int, float] | None = None, spec: Spec = SPEC) -> None:
        super().__init__()
        self.late, self.spec = late or {}, spec

    def step(self, action: np.ndarray) -> Step:
        self.now += round(self.late.get(self.tick + 1, 0.0) * PERIOD_NS)
        return super().step(action)


class Acting(Mind):
    """A mind whose every action tells its tick."""

    def __init__(self, spec: Spec = Mind.spec) -> None:
        self.spec = replace(spec, execute=1)

    def plan(self, ask: Any = None) -> Chunk:
        events = ("failure", "success") if self.tick == 2 else ()
        return Chunk(np.array([[self.tick, 1]], np.float32), self.tick, events=events)


def logged(path: Path, bodies: list[Body], emulated: bool = False, mind: Mind | None = None, fault: bool = False) -> Path:
    """Writes a run of one episode of 12 ticks for each body, one after the other."""
    with RunLog(path, FACTS, emulated=emulated, clock=lambda: now[0].clock()) as log:
        for seed, body in enumerate(bodies):
            body.now = max(body.now, now[0].now + 10 * PERIOD_NS) if seed else body.now
            now[:] = [body]
            body.machine = Machine(sink=log.change) if fault and not seed else None
            rollout(body, mind or Acting(), max_steps=12, seed=seed, sinks=[log], meta={"operator": ""} if seed else {})
            log.sample("arm/current", body.now - 20 * PERIOD_NS, body.now, np.array([0.0]))
            log.sample("arm/current", body.now, body.now, np.array([20.0]))
        assert log.healthy, log.reason
    return path


now: list[Body] = [Body()]


def rows_of(run: Path, hz: float | None = None) -> tuple[Foreign, dict[str, np.ndarray]]:
    """Returns what a set of a run is told and the rows of its first episode, without writing it."""
    foreign = run_log.scan(run, hz=hz)
    return foreign, foreign.rows(Piece(0, 0, int(foreign.ends[0])))


def test_what_kept_its_rate_comes_back_equal_in_every_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = logged(tmp_path / "cups_12", [Uneven({1: 0.3, 3: 0.3, 4: -0.3}), Uneven()], fault=True)
    words = ["data", "convert", str(path), str(tmp_path / "set.zarr"), "--verify", "--json", str(tmp_path / "figures.json")]
    assert cli.main(words) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["format"] == "run_log" and all(row["equal"] for row in figures["verified"]["keys"].values())
    made = EpisodeSet.open(tmp_path / "set.zarr")
    assert made.spec == SPEC and made.task == "cups" and made.episode_ends.tolist() == [12, 24]
    names = {"action": "asked", "action_filtered": "filtered", "action_sent": "sent", "q": "obs/q", "source": "source"}
    names |= {"t_monotonic": "t/monotonic", "t_wall": "t/wall", "t_dev_cam": "t/dev/cam", "step_success": "success"}
    for index, episode in enumerate(episodes(open_run(path))):
        rows = made.episode(index)
        for key, name in names.items():
            assert rows[key].dtype == episode.arrays[name].dtype and np.array_equal(rows[key], episode.arrays[name]), key
        assert np.array_equal(rows["cam"], np.stack([episode.arrays["obs/cam"][row] for row in range(12)]))
    assert not any("tick by tick" in line for line in figures["not_carried"])


def test_interventions_and_faults_are_marked_and_who_said_what_is_known(tmp_path: Path) -> None:
    foreign, rows = rows_of(logged(tmp_path / "cups_12", [Uneven(), Uneven()], fault=True))
    assert np.flatnonzero(rows["flags"] & Flag.INTERVENTION).tolist() == [2, 3]
    assert np.flatnonzero(rows["flags"] & Flag.FAULT).tolist() == [7, 8]
    assert not (foreign.rows(Piece(1, 0, 12))["flags"] & Flag.FAULT).any()
    assert foreign.facts == {
        "run": ["cups_12"] * 2, "run_episode": [0, 1], "seed": [0, 1], "success": [True, True], "label": ["success"] * 2,
        "label_by": ["operator"] * 2, "operator": ["anna"] * 2, "reason": ["success"] * 2,
    }  # fmt: skip
    assert {**foreign.meta, "config_sha256": ""} == {**FACTS_OF_THE_SET, "emulated": False, "config_sha256": ""}
    assert foreign.lost == ("stream 'chunks': 24 records", "3 events; those of faults are marked in `flags`")
    np.testing.assert_allclose(rows["stream_arm_current"][:, 0], np.arange(8, 20))  # a raw stream, at the times of the rows


def test_missed_periods_become_rows_that_hold_the_action_and_say_so(tmp_path: Path) -> None:
    foreign, rows = rows_of(logged(tmp_path / "run", [Uneven({6: 2.0})]))
    assert rows["action"][:, 0].tolist() == [0, 1, 2, 3, 4, 5, 5, 5, 6, 7, 8, 9, 10, 11]
    np.testing.assert_allclose(rows["q"][:, 0], [0, 1, 2, 3, 4, 5, 5 + 1 / 3, 5 + 2 / 3, 6, 7, 8, 9, 10, 11], atol=1e-6)
    assert np.flatnonzero(rows["flags"] & Flag.HELD).tolist() == [6, 7]
    assert np.diff(rows["t_monotonic"]).tolist() == [PERIOD_NS] * 13 == np.diff(rows["t_wall"]).tolist()
    assert [round(picture.mean(), -1) for picture in rows["cam"][5:9]] == [20, 20, 30, 30]  # of the nearer tick
    assert (np.diff(rows["t_dev_cam"][5:9]) > 0).tolist() == [False, True, False]
    assert "episode 0 tick by tick: 12 ticks became 14 rows, 2 of them in missed periods" in foreign.lost


def test_a_simulators_clock_counts_where_there_is_one(tmp_path: Path) -> None:
    class Simulated(Uneven):
        def step(self, action: np.ndarray) -> Step:
            step = super().step(action)
            return replace(step, t_ns={**step.t_ns, "sim": self.tick * PERIOD_NS})

    foreign, rows = rows_of(logged(tmp_path / "run", [Simulated({5: 7.0})]))
    assert foreign.ends.tolist() == [12] and rows["t_sim"].tolist() == [tick * PERIOD_NS for tick in range(12)]
    assert not any("tick by tick" in line for line in foreign.lost)


def test_turns_between_two_ticks_lie_on_the_great_circle() -> None:
    half = np.sqrt(0.5)
    grid = grid_of(np.array([0, 2, 4]) * 1_000_000, 1000.0, 1000.0)
    quats = np.array([[1, 0, 0, 0], [-half, 0, 0, -half], [0, 0, 0, 1]])  # 0, 90 and 180 degrees, one with the other sign
    got = _run_rows._observed(quats, "eef_quat_wxyz", grid, np.array([0, 2, 4]) * 1_000_000)
    angles = np.rad2deg(2 * np.arccos(np.abs(got[:, 0])))
    np.testing.assert_allclose(angles, [0, 45, 90, 135, 180], atol=1e-4)


def test_another_rate_keeps_every_mark(tmp_path: Path) -> None:
    path = logged(tmp_path / "run", [Uneven()])
    foreign, slow = rows_of(path, 25.0)
    assert foreign.spec == replace(SPEC, hz=25.0)
    assert slow["action"][:, 0].tolist() == [0, 2, 4, 6, 8, 10] == slow["q"][:, 0].tolist()
    assert np.flatnonzero(slow["flags"] & Flag.INTERVENTION).tolist() == [1, 2]  # ticks 2 and 3
    _, fast = rows_of(path, 100.0)
    assert fast["action"][:6, 0].tolist() == [0, 0, 1, 1, 2, 2] and not (fast["flags"] & Flag.HELD).any()
    np.testing.assert_allclose(fast["q"][:6, 0], [0, 0.5, 1, 1.5, 2, 2.5])


def test_displacements_are_not_done_twice_and_have_one_rate(tmp_path: Path) -> None:
    action = replace(SPEC.action, names=("dx", "gripper"))
    spec = replace(SPEC, action=action, codec="osc_delta")
    path = logged(tmp_path / "run", [Uneven({5: 1.0}, spec)], mind=Acting(spec))
    _, rows = rows_of(path)
    assert rows["action"][3:8].tolist() == [[3, 1], [4, 1], [0, 1], [5, 1], [6, 1]]
    with pytest.raises(BadInput, match=r"displacements a tick of 50 Hz, which 25 Hz have not; drop --hz") as refused:
        run_log.scan(path, hz=25.0)
    assert "\n" not in str(refused.value)


def test_an_emulated_run_is_refused_unless_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = logged(tmp_path / "run", [Uneven()], emulated=True), tmp_path / "set.zarr"
    for more in ([], ["--dry-run"]):
        assert cli.main(["data", "convert", str(path), str(out), *more]) == 2 and not out.exists()
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1 and "an emulated run, no robot did this; --emulated takes it all the same" in said[0]
    assert cli.main(["data", "convert", str(path), str(out), "--emulated"]) == 0
    assert EpisodeSet.open(out).attrs["emulated"] is True


def test_a_run_that_was_killed_gives_what_is_whole(tmp_path: Path) -> None:
    body = Uneven()
    log = RunLog(tmp_path / "run", FACTS, emulated=False, clock=body.clock)
    rollout(body, Acting(), max_steps=12, seed=0, sinks=[log])
    log.end = lambda outcome: None  # type: ignore[method-assign]
    rollout(body, Acting(), max_steps=12, seed=1, sinks=[log])
    log.feed.writer.flush()  # type: ignore[attr-defined]
    shutil.copytree(tmp_path / "run", tmp_path / "cut")
    for name, cut in (("episode_0001", 5), ("chunks", 3)):
        file = tmp_path / "cut" / "streams" / f"{name}.seg"
        file.write_bytes(file.read_bytes()[:-cut])
    lost = run_log.read(tmp_path / "cut", tmp_path / "set.zarr")
    made = EpisodeSet.open(tmp_path / "set.zarr")
    assert made.episode_ends.tolist() == [12, 23] and made.read("action")[-1, 0] == 10
    facts = {name: made.episode_field(name).tolist() for name in ("label", "reason", "success")}  # type: ignore[union-attr]
    assert facts == {"label": ["success", "partial"], "reason": ["success", "cut off"], "success": [1, -1]}
    assert any("episode_0001.seg: dropped an incomplete record" in line for line in lost)


def test_a_tick_that_saw_nothing_newer_costs_no_episode(tmp_path: Path) -> None:
    path = logged(tmp_path / "run", [Uneven({4: -1.0})])
    run_log.read(path, tmp_path / "set.zarr")
    made = EpisodeSet.open(tmp_path / "set.zarr")
    assert made.n_steps in (11, 12) and (np.diff(made.read("t_monotonic")) > 0).all()


def test_scores_that_some_ticks_have_not_are_left_out_aloud(tmp_path: Path) -> None:
    path = logged(tmp_path / "run", [Uneven()])
    found = run_log._opened(path, None)[-1][0]
    found |= {"score_rnd": np.array([1.0] * 11 + [np.nan]), "score_ace": np.ones(12)}
    foreign = run_log.scan(path)
    assert "score_ace" in foreign.keys and "score_rnd" not in foreign.keys and "step_score" not in foreign.keys
    assert "key 'score_rnd': not known of every tick" in foreign.lost and not any("step_score" in line for line in foreign.lost)


@pytest.mark.parametrize(
    ("bodies", "why"),
    [
        ([Uneven({4: -3.0})], "episode 0: its clock goes back at tick 4"),
        ([Uneven(), Uneven(spec=replace(SPEC, hz=60.0))], "want episodes of one spec, those of 0 and 1 differ"),
    ],
)
def test_runs_that_make_no_set_are_refused_in_one_line(bodies: list[Body], why: str, tmp_path: Path) -> None:
    with RunLog(tmp_path / "run", {}, emulated=False, clock=lambda: now[0].clock()) as log:
        for body in bodies:
            now[:] = [body]
            rollout(body, Acting(body.spec), max_steps=6, sinks=[log])
    with pytest.raises(DatasetError, match=why) as refused:
        run_log.read(tmp_path / "run", tmp_path / "set.zarr")
    assert "\n" not in str(refused.value) and not (tmp_path / "set.zarr").exists()


def test_episodes_of_several_tasks_need_to_be_told_one(tmp_path: Path) -> None:
    with RunLog(tmp_path / "run", {}, emulated=False, clock=(body := Uneven()).clock) as log:
        for task in ("cups", "plates"):
            rollout(body, Acting(), max_steps=3, sinks=[log], meta={"task": task})
    with pytest.raises(DatasetError, match=r"several tasks \(cups, plates\); give --task"):
        run_log.scan(tmp_path / "run")
    assert run_log.scan(tmp_path / "run", task="both").task == "both"


def test_a_run_without_a_whole_row_and_a_run_of_training_are_told_apart(tmp_path: Path) -> None:
    with RunLog(tmp_path / "run", {}, emulated=False) as log:
        log.begin(SPEC, {})
        log.end(Outcome(0, 0, None, None, "interrupted"))
    assert [name for name in registry.names("robolearn.data.convert") if _sniffs(name, tmp_path / "run")] == ["run_log"]
    with pytest.raises(DatasetError, match="want a run with an episode, got none with a whole row"):
        run_log.scan(tmp_path / "run")
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "run.json").write_text("[1")
    assert not run_log.sniff(tmp_path / "trained")


def _sniffs(name: str, path: Path) -> bool:
    return bool(registry.load("robolearn.data.convert", name).sniff(path))


@given(steps=st.lists(st.integers(1, 4), max_size=30), seed=st.integers(0, 2**32 - 1))
def test_every_tick_is_a_row_once_and_missed_periods_hold_the_one_before(steps: list[int], seed: int) -> None:
    slots = np.cumsum([0, *steps])
    jitter = np.random.default_rng(seed).integers(-200_000, 200_000, len(slots))  # less than a quarter of a period
    grid = grid_of(10**18 + slots * 1_000_000 + jitter, 1000.0, 1000.0)
    assert grid.exact == (len(slots) == slots[-1] + 1)
    assert len(grid.t_ns) == slots[-1] + 1 and np.array_equal(np.unique(grid.tick), np.arange(len(slots)))
    assert np.array_equal(grid.tick, np.searchsorted(slots, np.arange(slots[-1] + 1), side="right") - 1)
    assert grid.held.sum() == len(grid.t_ns) - len(slots)


def test_pictures_are_decoded_by_other_processes_too(tmp_path: Path) -> None:
    from multiprocessing.reduction import ForkingPickler

    foreign = run_log.scan(logged(tmp_path / "run", [Uneven()]))
    there = ForkingPickler.loads(ForkingPickler.dumps(foreign.rows))
    run_log._cached.cache_clear()  # as in another process
    assert np.array_equal(there(Piece(0, 0, 5))["cam"], foreign.rows(Piece(0, 0, 5))["cam"])
