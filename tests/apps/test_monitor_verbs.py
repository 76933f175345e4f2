"""`monitor fit|report`, `eval --monitor`, `study failure`, `bench monitor`: from rollouts on disk to promises and pages."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from robolearn import cli
from robolearn.apps import _failure, _failure_cases, bench_monitor, monitor_fit
from robolearn.apps._evaluate import Subject, find
from robolearn.apps._rollouts import Wanted, collect, layout_of
from robolearn.apps.monitor_fit import rollouts_of
from robolearn.monitors import _folder, _metrics
from robolearn.monitors._base import Episode, Plans
from robolearn.monitors._evidence import Evidence
from robolearn.monitors._watch import Watch
from robolearn.rollout import rollout
from robolearn.training.checkpoint import load_policy
from sim_envs import _base as tasks

sys.path.insert(0, str(Path(__file__).parent))
from runs import untrained

DRAWS, FIT, TEST = 4, 60, 40
PAIRED = ("ace", "variance", "stac")  # the scores of draws
SMALL = ["--draws", str(DRAWS), "--episodes"]


def like(real: Episode, seed: int) -> Episode:
    """Returns a rollout like a real one, solved or not by chance; where it is not, its embeddings drift away."""
    rng = np.random.default_rng(seed)
    success = bool(rng.random() < 0.7)
    p = real.plans
    drift = np.linspace(0, 0 if success else 3, len(p))[:, None].astype(np.float32)
    features = p.features + drift + 0.3 * rng.normal(size=p.features.shape).astype(np.float32)
    samples = p.samples + (5 * rng.normal(size=p.samples.shape)).astype(np.float32)
    plans = Plans(p.ticks, features, samples, p.past_samples, p.executed)
    return dataclasses.replace(real, plans=plans, success=success, seed=seed, kind="" if seed % 2 else "noise")


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """An untrained policy beside whose run lie rollouts as a trained one might leave them, so that none is made here."""
    made = find(str(untrained(tmp_path_factory.mktemp("one") / "run")))
    short = dataclasses.replace(made, env={"max_steps": 40})
    (real,) = collect(short, Wanted(1, 900, DRAWS), tmp_path_factory.mktemp("real") / "a.zarr").read()
    layout = layout_of(load_policy(made.checkpoint or ""))
    for first, n in ((300_000, FIT), (400_000, TEST)):
        wanted = Wanted(n, first, DRAWS)
        path = rollouts_of(made, wanted)
        there = Evidence.create(path, real.plans, layout, wanted.facts(made))
        for seed in range(first, first + n):
            there.append(like(real, seed))
    return made


@pytest.fixture(scope="module")
def run(subject: Subject) -> str:
    """The run folder, with a monitor `near` fitted by the command."""
    assert cli.main(["monitor", "fit", subject.label, "--name", "near", "--scores", "knn", *SMALL, str(FIT)]) == 0
    return subject.label


def test_fit_says_what_it_promises_and_the_folder_holds_it(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "fit.json"
    quick = ("ace", "clock", "knn", "mahalanobis", "pca_kmeans", "rnd", "stac", "variance")
    monkeypatch.setattr(monitor_fit, "usable", lambda layout: tuple(n for n in _failure.usable(layout) if n in quick))
    assert cli.main(["monitor", "fit", run, "--name", "best", *SMALL, str(FIT), "--json", str(out)]) == 0
    told, said = json.loads(out.read_text()), capsys.readouterr().out
    detector, facts = _folder.load(Path(run) / "monitors" / "best")
    n = told["n_calibrate"]
    assert told["episodes"] == FIT and told["successes"] == 39 and n == 16 == detector.n_calibrate[""]
    assert told["promised_fpr"] == detector.promised == pytest.approx(1 - 16 / 17) and "promised false-alarm rate 0.059" in said
    assert facts["seeds"] == [300_000, 300_000 + FIT - 1] and facts["weights_sha256"] == find(run).weights_sha256
    assert {"knn", "mahalanobis", "pca_kmeans", "rnd"} & set(detector.recipe.scores), "it is the embedding that drifts"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "--name", "near"], "near: this monitor exists already; give --overwrite to replace it, or another path"),
        (["fit", "--name", "fipr"], "unknown monitor 'fipr'"),
        (["fit", "--name", "../x"], "want a run folder and a plain name"),
        (["fit", "--scores", "fiper", "--name", "y"], "'fiper' is a combination of scores itself"),
        (["fit", "--name", "past_disagreement", "--disturb", "wind:1"], "wind"),
        (["report", "--name", "nothing"], "no such monitor"),
        (
            ["report", "--name", "near", "--seed", "300010"],
            "the monitor was fitted to seeds 300000..300059; measure it on others",
        ),
    ],
)
def test_what_cannot_be_is_said_in_a_line(run: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["monitor", words[0], run, *words[1:], "--episodes", "8"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in said


def test_a_report_can_be_made_again_from_its_episodes_and_shows_failures_first(run: str, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    words = ["monitor", "report", run, "--name", "near", "--episodes", str(TEST), "--videos", "3", "--json", str(out)]
    assert cli.main(words) == 0
    told, folder = json.loads(out.read_text()), Path(run) / "monitors" / "near.report"
    with (folder / "episodes.csv").open() as file:
        rows = list(csv.DictReader(file))
    success = [row["success"] == "1" for row in rows]
    alarms = [int(row["alarm_plan"]) for row in rows]
    again = _metrics.Rows.of(success, alarms, [int(row["plans"]) for row in rows])
    assert len(rows) == TEST and {told["n_success"], told["n_failure"]} == {sum(success), TEST - sum(success)}
    for mine, name in (("tpr", "tpr"), ("measured_fpr", "fpr"), ("twa", "twa")):
        assert told[mine] == pytest.approx(_metrics.value(name, again))
    assert told["tpr"] > told["measured_fpr"] and told["auroc_common_length"] > 0.8, "a drift of this size can be seen"
    films = sorted(path.name for path in (folder / "videos").iterdir())
    page = (folder / "report.html").read_text()
    assert len(films) == 3 and all(name.startswith("failure") for name in films)
    assert page.count("<video") == 3 and "Is the promise kept?" in page and 'aria-label="score over time' in page


def test_a_watched_evaluation_alarms_where_a_live_rollout_halts(run: str, tmp_path: Path) -> None:
    out = tmp_path / "eval.json"
    words = ["eval", run, "--monitor", "near", "--episodes", "3", "--seed", "70", "--max-steps", "60", "--workers", "0"]
    assert cli.main([*words, "--videos", "0", "--json", str(out)]) == 0
    told = json.loads(out.read_text())
    policy = load_policy(run)
    detector, _ = _folder.load(Path(run) / "monitors" / "near", find(run).weights_sha256)
    with closing(tasks.make("pusht", {"max_steps": 60})) as body:
        for row in told["episodes"]:
            outcome = rollout(body, policy, max_steps=60, seed=row["seed"], monitors={"near": Watch(detector, "pusht")})
            assert outcome.alarm_step == row["alarm_step"] and row["steps"] == 60, "watching stops nothing"
            assert (outcome.reason, outcome.steps) == (
                ("alarm:near", row["alarm_step"]) if row["alarm_step"] is not None else ("horizon", 60)
            )
    halted = sum(row["alarm_step"] is not None for row in told["episodes"])
    assert (told["monitor"], told["failures_halted"], told["successes_disturbed"]) == ("near", halted, 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "3"], "--steps changes the plans that monitor 'near' was calibrated on; leave it out"),
        (["--verify", "3"], "--verify chooses among draws of its own and gives none to a --monitor; want one of them"),
        (["--disturb", "delay2"], "mixture: want KIND=STRENGTH:SHARE such as delay=2:0.25, got 'delay2'"),
    ],
)
def test_what_a_monitor_was_not_calibrated_on_is_refused(
    run: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["eval", run, "--monitor", "near", "--episodes", "2", "--workers", "0", *words]) == 2
    assert message in capsys.readouterr().err
    assert cli.main(["eval", "expert:pusht", "--monitor", "near", "--episodes", "2"]) == 2


@pytest.fixture(scope="module")
def studied(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """`study failure` of a case whose policy and rollouts are those above."""
    folder = tmp_path_factory.mktemp("failure")
    patch = pytest.MonkeyPatch()
    patch.setattr(_failure_cases, "PLANAR", {"shell-64": ""})
    patch.setattr(_failure_cases.Case, "subject", lambda case, policies: subject)
    (folder / "out").mkdir()
    for name, first, n in (("calibration", 300_000, FIT), ("test", 400_000, TEST)):
        source = rollouts_of(subject, Wanted(n, first, DRAWS))
        (folder / "out" / f"shell-64_{name}.zarr").symlink_to(source)
    words = ["--tasks", "shell-64", "--calibrate", str(FIT), "--test", str(TEST), "--recipe.draws", str(DRAWS)]
    where = ["--out", str(folder / "out"), "--results", str(folder / "results"), "--json", str(folder / "table.json")]
    scores = ["--scores", "clock", "knn", "ace", "rnd"]
    try:
        assert cli.main(["study", "failure", *words, *where, *scores]) == 0
    finally:
        patch.undo()
    return folder / "results", folder / "table.json"


def test_every_detector_of_the_study_has_a_row_that_its_episodes_give_again(studied: tuple[Path, Path]) -> None:
    results, table = studied
    rows = json.loads(table.read_text())["rows"]
    assert [r["detector"] for r in rows] == ["clock", "knn", "ace", "rnd", "fiper", "fiper_apart", "best", "best_unsupervised"]
    with (results / "episodes.csv").open() as file:
        episodes = list(csv.DictReader(file))
    for r in rows:
        mine = [e for e in episodes if e["cell"] == f"shell-64/{r['detector']}"]
        made = _metrics.Rows.of(
            [e["success"] == "1" for e in mine], [int(e["alarm_plan"]) for e in mine], [int(e["plans"]) for e in mine]
        )
        for mine_name, name in (("tpr", "tpr"), ("measured_fpr", "fpr"), ("twa", "twa"), ("detection_time", "detection_time")):
            assert r[mine_name] == pytest.approx(_metrics.value(name, made)), (r["detector"], mine_name)
        assert r["predictive95"][0] <= r["predictive95"][1] and len(mine) == TEST
    clock = rows[0]
    assert clock["auroc_common_length"] == 0.5 and clock["tpr"] == clock["measured_fpr"] == 0, "all episodes are equally long"
    assert next(r for r in rows if r["detector"] == "fiper_apart")["promised_fpr"] is None, "apart, only alpha is promised"


def test_duels_official_choices_and_draws_are_there(studied: tuple[Path, Path]) -> None:
    read = {name: json.loads((studied[0] / f"{name}.json").read_text())["rows"] for name in ("duels", "official", "draws")}
    assert {("fiper", "clock"), ("fiper", "rnd"), ("best", "clock")} <= {(d["detector"], d["against"]) for d in read["duels"]}
    for duel in read["duels"]:
        low, high = duel["interval95"]
        assert low <= duel["difference"] <= high
        assert duel["verdict"] == ("wins" if low > 0 else "loses" if high < 0 else "undecided")
    assert {(o["detector"], o["chosen_on"]) for o in read["official"]} == {
        (name, on) for name in ("rnd", "ace", "fiper") for on in ("test", "calibration")
    }
    assert [(d["detector"], d["draws"]) for d in read["draws"]] == [("ace", DRAWS)]


def test_rates_calibrated_apart_are_inside_up_to_the_upper_end() -> None:
    assert _failure._inside(0.0, (0.05, 0.2), joint=False) and not _failure._inside(0.0, (0.05, 0.2), joint=True)
    assert not _failure._inside(0.3, (0.05, 0.2), joint=False) and _failure._inside(None, None, True) is None


def test_the_bench_gives_what_the_contract_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench_monitor, "score_names", lambda: ("ace", "clock", "knn"))
    for name, (sizes, of) in bench_monitor.FIPER.items():
        quick = {"rnd": {"hidden": (16,), "extra": (16,), "out": 8} | of["rnd"]}
        monkeypatch.setitem(bench_monitor.FIPER, name, (sizes, of if name == "fiper_small" else quick))
    out = tmp_path / "bench.json"
    words = ["bench", "monitor", "--denoisers", "mlp", "--repeats", "5", "--pairs", "9", "--results", str(tmp_path / "none.json")]
    assert cli.main([*words, "--json", str(out)]) in (0, 1)
    told = json.loads(out.read_text())
    for key in (
        "plan_b32_over_b1",
        "scorers_over_plan_b32",
        "scorers_32bit_over_plan_b32",
        "scorers_small_over_plan_b32",
        "half_steps_over_b1",
        "few_steps_over_b1",
        "budget_mode",
    ):
        assert list(told[key]) == ["mlp"] and told[key]["mlp"] > 0
    (plan,) = told["plans"]
    assert told["budget_mode"]["mlp"] == pytest.approx((1 + plan["plan_b32_over_b1"]) / 2) and told["rows"] == []
    assert {row["scorer"] for row in told["scorers"]} == {"ace", "clock", "knn", *bench_monitor.FIPER}
    assert {row["sizes"] for row in told["scorers"]} == {"small where learned", "published", "published, 8 bits", "small"}
    fiper = next(row for row in told["scorers"] if row["scorer"] == "fiper")
    assert told["scorers_over_plan_b32"] == fiper["over_plan_b32"] and told["reference_per_s"] > 0
    assert {(row["score"], row["draws"]) for row in told["pairs"]} == {(s, n) for s in PAIRED for n in (4, 8, 16, 32)}
