"""`study failure --runs`, its ledger, `--cell` and `--live`: other bodies than the planar ones, and alarms that halt."""

from __future__ import annotations

import dataclasses
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robolearn import cli
from robolearn.apps import _failure_cases, _failure_ledger, _failure_live
from robolearn.apps._evaluate import Subject, find
from robolearn.apps._failure_live import Halting, Trace, compared
from robolearn.apps._rollouts import Wanted, collect, layout_of
from robolearn.core import ArraySpec, Outcome, Spec
from robolearn.data.stats import Stats
from robolearn.errors import BadInput
from robolearn.monitors._base import Episode, Plans
from robolearn.monitors._detector import Detector
from robolearn.monitors._evidence import Evidence
from robolearn.monitors._fit import fit
from robolearn.monitors._recipe import Recipe
from robolearn.monitors._watch import Watch
from robolearn.rollout import rollout
from robolearn.rollout_vector import Record, rollout_vector
from robolearn.runtime.reactions import Hold
from robolearn.training.checkpoint import load_policy
from robolearn.video import points3d
from sim_envs import _base as tasks
from sim_envs._pool import Here

sys.path.insert(0, str(Path(__file__).parent))
from runs import untrained, untrained_for

DRAWS, FIT, TEST, STEPS = 4, 40, 30, 40
MIXTURE = "none:0.5,offset=20@1:0.5"


def like(real: Episode, seed: int) -> Episode:
    """Returns a rollout like a real one, solved or not by chance; where it is not, its embeddings drift away."""
    rng = np.random.default_rng(seed)
    success = bool(rng.random() < 0.6)
    p = real.plans
    drift = np.linspace(0, 0 if success else 3, len(p))[:, None].astype(np.float32)
    features = p.features + drift + 0.3 * rng.normal(size=p.features.shape).astype(np.float32)
    plans = Plans(p.ticks, features, p.samples, p.past_samples, p.executed)
    return dataclasses.replace(real, plans=plans, success=success, seed=seed)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """An untrained run whose episodes are short."""
    made = find(str(untrained(tmp_path_factory.mktemp("one") / "pusht_small")))
    return dataclasses.replace(made, env={"max_steps": STEPS})


@pytest.fixture(scope="module")
def folder(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where rollouts lie as a trained policy might leave them, so that the study makes none."""
    where = tmp_path_factory.mktemp("failure")
    (real,) = collect(subject, Wanted(1, 900, DRAWS), where / "a.zarr").read()
    layout = layout_of(load_policy(subject.checkpoint or ""))
    for name, first, n in (("calibration", 300_000, FIT), ("test", 400_000, TEST)):
        facts = Wanted(n, first, DRAWS, MIXTURE).facts(dataclasses.replace(subject, env={}))
        there = Evidence.create(where / "out" / f"pusht_small_{name}.zarr", real.plans, layout, facts)
        for seed in range(first, first + n):
            there.append(like(real, seed))
    return where


def study(folder: Path, subject: Subject, *more: str) -> int:
    """Runs the study of that run; returns its exit code."""
    sizes = ["--calibrate", str(FIT), "--test", str(TEST), "--recipe.draws", str(DRAWS), "--scores", "clock", "knn", "ace"]
    where = ["--out", str(folder / "out"), "--results", str(folder / "results"), "--no-official"]
    return cli.main(["study", "failure", "--runs", subject.label, "--disturb", MIXTURE, *sizes, *where, *more])


def test_a_run_folder_is_a_case_beside_those_that_are_there(
    folder: Path, subject: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study(folder, subject) == 0
    read = _failure_ledger.read(folder / "results", {"alpha": 0.1, "draws": DRAWS, "split_seed": 0})
    assert read.done == {"pusht_small"} and read.cases == {"pusht_small": MIXTURE}
    other = [{**row, "task": "other"} for row in read.summary]
    read.summary += other
    _failure_ledger.write(folder / "results", read, 0)
    before = (folder / "results" / "episodes.csv").read_text()
    assert study(folder, subject) == 0
    assert "pusht_small: in" in capsys.readouterr().err, "what is there is not measured again"
    assert study(folder, subject, "--overwrite") == 0
    again = json.loads((folder / "results" / "summary.json").read_text())
    assert [row for row in again["rows"] if row["task"] == "other"] == other, "rows of other cases stay"
    assert [row for row in again["rows"] if row["task"] != "other"] == [r for r in read.summary if r["task"] != "other"]
    assert (folder / "results" / "episodes.csv").read_text() == before, "the same rollouts give the same figures"
    assert again["sets"][0]["policy"] == subject.label and again["sets"][0]["weights_sha256"] == subject.weights_sha256


def test_tables_of_another_promise_are_not_mixed(folder: Path, subject: Subject, capsys: pytest.CaptureFixture[str]) -> None:
    assert study(folder, subject) == 0 and study(folder, subject, "--recipe.alpha", "0.2") == 2
    assert "holds figures with alpha 0.1, want 0.2; give another --results" in capsys.readouterr().err


def test_one_cell_repeats_the_row_of_the_table(folder: Path, subject: Subject, tmp_path: Path) -> None:
    assert study(folder, subject) == 0
    out = tmp_path / "cell.json"
    assert study(folder, subject, "--cell", "pusht_small/knn/0", "--episodes", str(TEST), "--json", str(out)) == 0
    told = json.loads(out.read_text())
    rows = json.loads((folder / "results" / "summary.json").read_text())["rows"]
    assert told["rows"] == [row for row in rows if row["detector"] == "knn" and row["task"] == "pusht_small"]
    assert len(told["episodes"]) == TEST and {row["cell"] for row in told["episodes"]} == {"pusht_small/knn"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "shel-64"], "no case 'shel-64'"),
        (["--runs", "RUN", "--disturb", "none:1", "none:1"], "want one mixture for each of 1 runs, got 2"),
        (["--runs", "RUN", "RUN"], "'pusht_small' is asked for twice; want folders of different names"),
        (["--runs", "RUN", "--cell", "pusht/knn/0"], "want CASE/DETECTOR/SPLIT_SEED, CASE one of pusht_small, got 'pusht/knn/0'"),
    ],
)
def test_cases_that_cannot_be_are_said_in_a_line(
    words: list[str], message: str, subject: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["study", "failure", *(subject.label if word == "RUN" else word for word in words)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("task", sorted(_failure_cases.TASKS))
def test_the_disturbances_of_every_task_can_befall_it(task: str) -> None:
    mixture = _failure_cases.perturb.parse(_failure_cases.TASKS[task])
    with closing(_failure_cases.perturb.make(task, {}, mixture)):  # refuses what the body cannot suffer
        assert {part.kind for part in mixture.parts} > {"none"}


def suspicious(subject: Subject, folder: Path) -> Detector:
    """Returns a detector that alarms in some episodes of the untrained policy: a threshold amid what it will say."""
    there = Evidence.open(folder / "out" / "pusht_small_calibration.zarr")
    detector = fit(Recipe(("knn",), draws=DRAWS, windows=(2,), bands=("constant",)), there.layout, there.read(), 0)
    policy, peaks = load_policy(subject.checkpoint or ""), []
    with closing(tasks.make("pusht", subject.env)) as body:
        for seed in range(6):
            watch = Watch(dataclasses.replace(detector, thresholds={"": np.inf}), "pusht")
            rollout(body, policy, max_steps=STEPS, seed=seed, monitors={"m": watch})
            peaks.append(max(detector.combine({name: np.array(trace) for name, trace in watch.raw.items()})))
    return dataclasses.replace(detector, thresholds={"": float(np.median(peaks))})


def test_halting_many_streams_equals_single_rollouts_that_hold(subject: Subject, folder: Path) -> None:
    detector, seeds = suspicious(subject, folder), range(6)
    with Here(_failure_live.body_maker("pusht", subject.env, ""), 3) as bodies:
        halting = Halting(load_policy(subject.checkpoint or "", "cpu", 3), detector, "pusht", 3)
        many = rollout_vector(bodies, halting, seeds, max_steps=STEPS)
    policy = load_policy(subject.checkpoint or "")
    with closing(tasks.make("pusht", subject.env)) as body:
        for seed, record in zip(seeds, many, strict=True):
            watch = {"m": Watch(detector, "pusht")}
            one = rollout(body, policy, max_steps=STEPS, seed=seed, monitors=watch, on_alarm=Hold(policy.spec))
            assert halting.traces[seed].alarm == one.alarm_step
            assert (record.outcome.steps, record.outcome.success) == (one.steps, one.success)
            assert record.outcome.score == pytest.approx(one.score, abs=1e-4), "one batch and another round differently"
            if one.alarm_step is not None:
                held = record.actions[one.alarm_step :]
                assert len(held) == STEPS - one.alarm_step and (held == held[0]).all(), "the body stays"
    alarms = [trace.alarm for trace in halting.traces.values()]
    assert None in alarms and any(alarm is not None for alarm in alarms), "the test sees both"


def test_live_counts_failures_halted_before_their_end_and_successes_disturbed(subject: Subject, folder: Path) -> None:
    def record(success: bool, steps: int) -> Record:
        return Record(Outcome(0, steps, success, float(success), "success" if success else "horizon"), np.zeros((steps, 2)))

    def row(off: bool, alarm: int | None, on: bool) -> dict[str, Any]:
        return compared(record(off, 20), record(on, 40), Trace([0], [0.0], alarm))

    rows = [row(False, 8, False), row(False, None, False), row(True, None, True), row(True, 16, False), row(True, 8, True)]
    assert [r["ticks_before"] for r in rows] == [12, None, None, 4, 12] and all(r["differs_before"] == 0 for r in rows)
    there = Evidence.open(folder / "out" / "pusht_small_calibration.zarr")
    detector = fit(Recipe(("clock",), draws=DRAWS), there.layout, there.read(), 0)
    told = _failure_live.figures(_failure_live.Done(rows, {}, {}, {}), detector)
    assert (told["failures"], told["failures_halted"], told["successes"], told["successes_disturbed"]) == (2, 1, 3, 2)
    assert told["successes_lost"] == 1 and told["ticks_before"] == [12, 12, 12]
    assert told["failures_halted_wilson95"] == pytest.approx([0.0945, 0.9055], abs=1e-4)
    none = _failure_live.figures(_failure_live.Done(rows[2:3], {}, {}, {}), detector)
    assert none["failures_halted_share"] is None and none["ticks_before"] is None


def test_one_command_runs_both_and_films_what_was_halted(
    folder: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_failure_live, "fitted", lambda *_: suspicious(subject, folder))
    monkeypatch.setattr(_failure_live.tasks, "with_cameras", lambda env, images: subject.env)
    out = tmp_path / "live.json"
    assert study(folder, subject, "--live", "6", "--monitor", "knn", "--json", str(out)) == 0
    told, kept = json.loads(out.read_text()), json.loads((folder / "results" / "live.json").read_text())
    assert told["rows"] == kept["rows"] and told["episodes"] == kept["episodes"]
    (row,) = told["rows"]
    assert (row["task"], row["detector"], row["n"], row["failures"]) == ("pusht_small", "knn", 6, 6)
    assert row["failures_halted"] == sum(e["alarm_step"] is not None for e in told["episodes"]) and row["differs_before"] < 0.1
    assert [e["seed"] for e in told["episodes"]] == list(range(_failure_live.SEED, _failure_live.SEED + 6))
    films = sorted((folder / "out" / "live" / "pusht_small").glob("halted_*.mp4"))
    assert len(films) == min(3, row["failures_halted"]) and "failures halted in time" in capsys.readouterr().out


def test_a_monitor_that_is_none_of_the_tables_is_refused(subject: Subject, folder: Path) -> None:
    there = Evidence.open(folder / "out" / "pusht_small_calibration.zarr")
    with pytest.raises(BadInput, match=r"monitor: no detector 'kn'.*knn"):
        _failure_live.fitted(Recipe(("clock", "knn"), draws=DRAWS), there.layout, there.read(), "kn", 0)


@pytest.mark.parametrize("words", [["monitor", "fit"], ["study", "failure", "--disturb", "none:1", "--runs"]], ids=" ".join)
def test_a_policy_of_tracks_or_points_is_refused_in_one_line(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = Spec({"points": ArraySpec((27,))}, ArraySpec((28,)), 10.0, codec=points3d.CODEC, execute=4)
    wide = {key: Stats(-np.ones(n), np.ones(n), np.zeros(n), np.ones(n), 10) for key, n in (("points", 27), ("action", 28))}
    run = untrained_for(tmp_path / "run", spec, wide, task="drawer")
    here = [] if words[0] == "monitor" else ["--out", str(tmp_path / "out"), "--results", str(tmp_path / "results")]
    assert cli.main([*words, str(run), *here]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert told[-1].startswith("robolearn: monitor: plans of points3d are not watched") and "Traceback" not in "".join(told)
