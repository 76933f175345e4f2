"""`study memory`: every arm runs from its config, the grid goes on where it stopped, the table follows from the episodes."""

from __future__ import annotations

import csv
import dataclasses
import difflib
import json

import pytest

from robolearn import cli, config
from robolearn.apps import _grid, study_memory
from robolearn.apps import _study_memory as grid
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput
from robolearn.training import precision, settings, trainer

SMALL = ["--demos", "6", "--episodes", "4", "--steps", "4", "--train-seeds", "1", "--tasks", "shell-16", "--grid", "tasks"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A tiny grid over every arm, in this process, without torch.compile: it computes the same."""
    folder = tmp_path_factory.mktemp("study")
    where = ["--out", str(folder / "out"), "--results", str(folder / "results")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "why_not_compile", lambda device: "it takes half a minute")
        assert cli.main(["study", "memory", *SMALL, *where, "--json", str(folder / "table.json")]) == 0
        yield folder, where


def test_every_arm_of_the_contract_has_a_row_with_its_interval_and_chance(done):
    table = json.loads((done[0] / "table.json").read_text())
    assert [row["arm"] for row in table["rows"]] == list(study_memory.ARMS) and len(study_memory.ARMS) == 11
    for row in table["rows"]:
        low, high = row["interval95"]
        assert low <= row["success"] <= high and row["chance"] == pytest.approx(1 / 3)
        assert (row["task"], row["memory_steps"], row["train_seeds"], row["episodes"]) == ("shell", 16, 1, 4)
        assert row["arm"] == "oracle" or row["params"] < 1_000_000
    assert table["meta"]["command"] and json.loads((done[0] / "results" / "summary.json").read_text())["rows"] == table["rows"]


def test_the_table_can_be_recomputed_from_the_episodes(done):
    with (done[0] / "results" / "episodes.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = {row["arm"]: row["success"] for row in json.loads((done[0] / "table.json").read_text())["rows"]}
    for arm, success in table.items():
        mine = [int(row["success"]) for row in rows if row["cell"] == f"shell-16/{arm}"]
        assert len(mine) == 4 and sum(mine) / 4 == success
    weights = {row["cell"]: row["weights_sha256"] for row in rows}
    assert weights["shell-16/ptp"] == weights["shell-16/ptp_verified"] != weights["shell-16/gru"]


def test_a_grid_goes_on_where_it_stopped_and_a_line_cut_off_does_not_count(done, monkeypatch):
    folder, where = done
    path = folder / "results" / "cells.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:30])
    ran = []
    run = grid.run_cell
    monkeypatch.setattr(grid, "run_cell", lambda plan, cell: (ran.append(cell.name), run(plan, cell))[1])
    assert cli.main(["study", "memory", *SMALL, *where]) == 0
    assert ran == ["shell-16/oracle/0"]
    ran.clear()
    assert cli.main(["study", "memory", *SMALL, *where]) == 0
    assert ran == [] and set(_grid.read_cells(path)) == {json.loads(line)["cell"] for line in lines}


def test_one_cell_repeats_what_the_grid_found(done, tmp_path):
    folder, _ = done
    where = ["--out", str(tmp_path), "--demos", "6", "--episodes", "4", "--steps", "4"]
    assert cli.main(["study", "memory", "--cell", "shell-16/sega_bptt/0", *where, "--json", str(tmp_path / "cell.json")]) == 0
    again = json.loads((tmp_path / "cell.json").read_text())
    first = _grid.read_cells(folder / "results" / "cells.jsonl")["shell-16/sega_bptt/0"]
    assert again["weights_sha256"] == first["weights_sha256"] and again["success"] == first["success"]
    assert again["rows"][0]["arm"] == "sega_bptt"


@pytest.mark.parametrize(("why_not", "precisions"), [("", ["fp32", "compile"]), ("no compiler", ["fp32", "fp32"])])
def test_an_arm_that_learns_through_whole_episodes_is_compiled_where_that_works(done, tmp_path, monkeypatch, why_not, precisions):
    asked = []

    def train(cfg, dataset, spec, resume):
        asked.append(cfg.precision)
        raise InterruptedError

    monkeypatch.setattr(precision, "why_not_compile", lambda device: why_not)
    monkeypatch.setattr(trainer, "train", train)
    made = EpisodeSet.open(done[0] / "out" / "shell-16.zarr")
    (tmp_path / "shell-16.zarr").symlink_to(made.path)
    for arm in ("sega_k1", "sega_bptt"):
        with pytest.raises(InterruptedError):
            grid.train(grid.Plan(tmp_path, 6, 4, 0), grid.Cell("shell-16", arm, 0))
    assert asked == precisions


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("shell-64/ptq/0", "no arm 'ptq'; did you mean 'ptp'"),
        ("shell-64/ptp", "want TASK/ARM/SEED"),
        ("shall-64/ptp/0", "want a task and its memory_steps"),
        ("shell/ptp/0", "want a task and its memory_steps"),
    ],
)
def test_a_cell_that_is_none_is_refused_in_one_line(cell, why):
    with pytest.raises(BadInput, match=why):
        grid.parse(cell)


def test_the_files_of_two_arms_differ_only_in_what_the_arms_are_about():
    texts = {arm: config.find("train", f"memory_{arm}").read_text().splitlines()[1:] for arm in grid.TRAINED}
    seen = ("n_obs_steps", "history_stride", "horizon", "n_past_actions", "past_loss", "memory")
    about = (*seen, "chain", "whole_chains", "batch_size", "steps:")
    for arm, text in texts.items():
        for other in texts.values():
            changed = [line[2:].strip() for line in difflib.ndiff(text, other) if line[0] in "+-"]
            assert all(line.startswith(about) for line in changed), (arm, changed)


def test_the_arms_are_what_their_names_say():
    arms = {arm: settings.load(config.find("train", f"memory_{arm}")) for arm in grid.TRAINED}
    policies = {arm: cfg.policy for arm, cfg in arms.items()}
    assert policies["ptp"].n_past == 15 and policies["ptp"].first_counted == 0
    assert policies["window_released"] == dataclasses.replace(policies["ptp"], past_loss=0)
    assert policies["window_clean"].n_past == 0 and policies["window_clean"].layout.n_future == policies["ptp"].layout.n_future
    assert policies["sega_frozen"] == dataclasses.replace(policies["sega_k1"], memory_frozen=True)
    assert policies["sega_bptt"] == policies["sega_k1"] and (arms["sega_k1"].chain, arms["sega_bptt"].chain > 1) == (1, True)
    assert policies["sega_ptp"].n_obs_steps == 3 and policies["sega_ptp"].n_past == 15
    assert all(cfg.policy.steps == 10 for cfg in arms.values())
