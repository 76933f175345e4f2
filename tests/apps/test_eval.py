"""eval, compare and replay: what they write, that it adds up, and how they refuse bad input."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from robolearn import cli
from robolearn.apps import _evaluate
from robolearn.core import Outcome
from robolearn.data.store import EpisodeSet
from robolearn.rollout import rollout
from robolearn.rollout_vector import Record
from robolearn.training.checkpoint import load_policy
from sim_envs import _base as tasks

sys.path.insert(0, str(Path(__file__).parent))
from runs import untrained

SMALL = ["--episodes", "6", "--seed", "500", "--max-steps", "24", "--videos", "2", "--envs-per-worker", "2"]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval")
    untrained(folder / "run")
    states = ["--save-states", str(folder / "states.zarr"), "--json", str(folder / "out.json")]
    assert cli.main(["eval", str(folder / "run"), *SMALL, *states]) == 0
    return folder


def test_the_figures_are_those_of_single_rollouts(evaluated: Path) -> None:
    figures = json.loads((evaluated / "out.json").read_text())
    body, policy = tasks.make("pusht"), load_policy(evaluated / "run")
    for row in figures["episodes"][:3]:
        outcome = rollout(body, policy, max_steps=24, seed=row["seed"])
        assert (row["steps"], row["success"]) == (outcome.steps, outcome.success)
        assert row["score"] == pytest.approx(outcome.score, abs=1e-3)


def test_the_json_keeps_its_contract(evaluated: Path) -> None:
    figures = json.loads((evaluated / "out.json").read_text())
    assert figures["task"] == "pusht" and figures["n"] == 6
    assert figures["seeds"] == list(range(500, 506)) == [row["seed"] for row in figures["episodes"]]
    assert figures["success_rate"] == np.mean([row["success"] for row in figures["episodes"]])
    assert figures["score_mean"] == pytest.approx(np.mean([row["score"] for row in figures["episodes"]]))
    low, high = figures["score_interval95"]
    assert low <= figures["score_mean"] <= high
    assert len(figures["wilson95"]) == 2 and figures["physics"]["pymunk"]
    assert {"command", "commit", "seed", "versions"} <= figures["meta"].keys()
    assert re.fullmatch("[0-9a-f]{64}", figures["weights_sha256"])


def test_the_folder_holds_table_page_and_videos(evaluated: Path) -> None:
    folder = evaluated / "run" / "eval" / "500_6_max24"
    with (folder / "episodes.csv").open() as file:
        rows = list(csv.DictReader(file))
    figures = json.loads((evaluated / "out.json").read_text())
    assert [int(row["seed"]) for row in rows] == figures["seeds"]
    assert [float(row["score"]) for row in rows] == [row["score"] for row in figures["episodes"]]
    page = (folder / "report.html").read_text()
    assert page.count("<video") == 2 and "training loss" in page
    assert not re.search(r"(src|href)=.?https?:", page), "the page opens offline"
    videos = sorted((folder / "videos").glob("*.mp4"))
    assert len(videos) == 2
    worst = min((row for row in figures["episodes"] if not row["success"]), key=lambda row: row["score"])
    assert folder / "videos" / f"failure_{worst['seed']}.mp4" in videos
    with av.open(str(videos[0])) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt, stream.width) == ("h264", "yuv420p", 512)
        assert sum(1 for _ in video.decode(stream)) == 25 + 6


def test_the_scores_can_be_recomputed_from_the_saved_states(evaluated: Path) -> None:
    figures = json.loads((evaluated / "out.json").read_text())
    kept = EpisodeSet.open(evaluated / "states.zarr")
    body = tasks.make(kept.task, kept.env)
    final, scores = kept.episode_field("final_state"), kept.episode_field("score")
    for i, row in enumerate(figures["episodes"]):
        states = [*kept.episode(i)["sim_state"][1:], final[i]]
        covered = []
        for state in states[::6]:
            body.restore(state)
            covered.append(body.coverage())
        assert max(covered) / 0.95 <= row["score"] + 1e-12
        assert scores[i] == row["score"]
    body.restore(final[0])
    np.testing.assert_array_equal(body.state(), final[0])


def test_saved_states_replay_bit_by_bit(evaluated: Path, tmp_path: Path) -> None:
    out = tmp_path / "replay.json"
    film = ["--video", str(tmp_path / "a.mp4"), "--episode", "2"]
    assert cli.main(["replay", str(evaluated / "states.zarr"), "--json", str(out), *film]) == 0
    figures, wanted = json.loads(out.read_text()), json.loads((evaluated / "out.json").read_text())
    assert figures["from_seed"]["sim_state"] == {
        "max_error": 0.0,
        "max_angle_error_rad": 0.0,
        "equal_steps": figures["steps"],
        "worst_episode": -1,
    }
    assert figures["score_mean"] == wanted["score_mean"]
    assert (tmp_path / "a.mp4").stat().st_size > 1000


@pytest.mark.slow
def test_all_human_demonstrations_of_pusht_replay_exactly(shared: Path, tmp_path: Path) -> None:
    human = shared / "data" / "pusht_zarr" / "pusht_cchi_v7_replay.zarr"
    argv = ["replay", str(human), "--task", "pusht", "--max-error", "3", "--json", str(tmp_path / "out.json")]
    assert cli.main(argv) == 0
    figures = json.loads((tmp_path / "out.json").read_text())
    assert (figures["episodes"], figures["steps"]) == (206, 25650)
    assert figures["max_state_error_px"] <= 1e-3
    assert figures["max_error_from_state_px"] < 0.2
    assert figures["score_mean"] == pytest.approx(0.947, abs=5e-4)


def test_an_evaluation_is_not_replaced_unasked(evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (evaluated / "run" / "eval" / "500_6_max24" / "episodes.csv").read_text()
    assert cli.main(["eval", str(evaluated / "run"), *SMALL]) == 2
    assert "exists already; give --overwrite" in one_line(capsys)
    assert cli.main(["eval", str(evaluated / "run"), *SMALL, "--overwrite", "--videos", "0"]) == 0
    assert (evaluated / "run" / "eval" / "500_6_max24" / "episodes.csv").read_text() == before


def test_sampling_can_be_changed_and_has_its_own_folder(evaluated: Path) -> None:
    few = ["--episodes", "2", "--max-steps", "8", "--videos", "0", "--workers", "1"]
    assert cli.main(["eval", str(evaluated / "run"), *few, "--steps", "1", "--sampler", "heun", "--execute", "4"]) == 0
    assert (evaluated / "run" / "eval" / "100000_2_execute4_samplerheun_steps1_max8" / "report.html").is_file()


def test_compare_pairs_what_is_evaluated_already_and_runs_the_rest(evaluated: Path, tmp_path: Path) -> None:
    untrained(tmp_path / "other", seed=1)
    runs = [str(evaluated / "run"), str(tmp_path / "other")]
    seeds = ["--episodes", "4", "--seed", "501", "--max-steps", "24"]
    out = tmp_path / "cmp"
    assert cli.main(["compare", *runs, *seeds, "--out", str(out), "--json", str(tmp_path / "cmp.json")]) == 0
    figures = json.loads((tmp_path / "cmp.json").read_text())
    assert not (evaluated / "run" / "eval" / "501_4_max24").exists(), "seeds 501..504 were evaluated already"
    assert (tmp_path / "other" / "eval" / "501_4_max24" / "report.html").is_file()
    assert figures["both"] + figures["only_a"] + figures["only_b"] + figures["neither"] == 4
    assert figures["score_difference"] == pytest.approx(figures["b"]["score_mean"] - figures["a"]["score_mean"])
    low, high = figures["score_difference95"]
    assert low <= figures["score_difference"] <= high
    assert "exact McNemar" in (out / "report.html").read_text()
    again = [str(evaluated / "run" / "eval" / "500_6_max24"), str(tmp_path / "other" / "eval" / "501_4_max24")]
    assert cli.main(["compare", *again, *seeds, "--out", str(tmp_path / "again")]) == 0
    assert json.loads((tmp_path / "again" / "result.json").read_text())["rows"] == figures["rows"]


def test_compare_refuses_seeds_that_one_side_lacks(evaluated: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = str(evaluated / "run" / "eval" / "500_6_max24")
    assert cli.main(["compare", folder, folder, "--episodes", "9", "--seed", "500", "--out", str(tmp_path / "x")]) == 2
    assert "seed 506 was not evaluated" in one_line(capsys)


def test_a_policy_that_looks_gets_its_camera(tmp_path: Path) -> None:
    untrained(tmp_path / "run", obs=("state", "img"))
    few = ["--episodes", "1", "--max-steps", "9", "--videos", "0", "--workers", "1"]
    assert cli.main(["eval", str(tmp_path / "run"), *few]) == 0


def test_the_expert_is_evaluated_like_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["--episodes", "2", "--videos", "0", "--save-states", "s.zarr", "--json", "out.json"]
    assert cli.main(["eval", "expert:pusht", *few]) == 0
    figures = json.loads(Path("out.json").read_text())
    assert figures["run"] == "expert:pusht" and figures["weights_sha256"] is None
    assert EpisodeSet.open("s.zarr").n_steps == sum(row["steps"] for row in figures["episodes"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["eval", "nowhere"], "nowhere: no such run folder"),
        (["eval", "expert:pushtt"], "did you mean 'pusht'"),
        (["eval", "expert:pusht", "--episodes", "0"], "want at least one episode, got 0"),
        (["eval", "{run}", "--checkpoint", "step_1"], "did you mean 'step_000001'"),
        (["eval", "{run}", "--sampler", "eulr", "--max-steps", "9"], "did you mean 'euler'"),
        (["eval", "{run}", "--episode", "3"], "episode"),
        (["compare", "nowhere", "{run}"], "nowhere: no such run folder"),
        (["replay", "nowhere.zarr"], "nowhere.zarr"),
        (["replay", "{states}", "--task", "push"], "did you mean 'pusht'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    evaluated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([word.format(run=evaluated / "run", states=evaluated / "states.zarr") for word in argv]) == 2
    assert message in one_line(capsys)
    assert not list(tmp_path.iterdir())


def test_what_crashed_counts_as_failed_and_is_said() -> None:
    rows = [_evaluate.row(Outcome(1, 9, True, 1.0, "success")), _evaluate.row(Outcome(2, 4, False, 0.8, "crashed"))]
    figures = _evaluate.summary(rows)
    assert (figures["crashed"], figures["success_rate"], figures["score_mean"]) == (1, 0.5, 0.5)


def test_failures_come_first_the_worst_before_the_others() -> None:
    outcomes = [
        Outcome(1, 9, True, 1.0, ""),
        Outcome(2, 9, False, 0.8, ""),
        Outcome(3, 9, False, 0.1, ""),
        Outcome(4, 20, True, 1.0, ""),
    ]
    records = [Record(outcome, np.zeros((outcome.steps, 2))) for outcome in outcomes]
    assert [record.outcome.seed for record in _evaluate.failures_first(records)] == [3, 2, 4, 1]


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    return lines[0]
