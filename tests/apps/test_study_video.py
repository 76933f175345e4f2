"""`study video`: arms run from their configs, the grid goes on where it stopped, and the table follows from the episodes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from robolearn.apps import _grid, _hands_rows, study_video
from robolearn.apps import _study_video as grid
from robolearn.cli import main
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput

SMALL = ["--robot-demos", "2", "--human-demos", "2", "--train-seeds", "1", "--episodes", "1", "--steps", "2"]


def test_the_grid_has_every_arm_in_both_directions_with_equal_trainings() -> None:
    cells = study_video.cells_of(study_video.Config())
    assert len(cells) == 24 and len({grid.run_folder(study_video.Config().plan, cell) for cell in cells}) == 12
    assert {cell.task for cell in cells} == {"drawer-left", "drawer-right"}
    assert all(grid.parse(cell.name) == cell for cell in cells)
    amounts = study_video.cells_of(study_video.Config(grid="amounts"))
    assert {cell.policy for cell in amounts} == {"dp", "act", "mt_pi"} and {cell.robot_demos for cell in amounts} == {20, 50}
    assert all(grid.parse(cell.name) == cell for cell in amounts)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("drawer-left/mt_pi/0", "want TASK/POLICY-ROBOT-HUMAN/SEED"),
        ("drawer-up/mt_pi-3-3/0", "no task 'drawer-up'; did you mean 'drawer-"),
        ("reach_lift/mtpi-3-3/0", "no policy 'mtpi'; did you mean 'mt_pi'"),
        ("reach_lift/dp-3-3/0", "learns from actions, which people's videos have not; want dp-3-0"),
        ("reach_lift/mt_pi-0-3/0", "want robot demonstrations"),
    ],
)
def test_a_cell_that_is_none_is_told_how_it_should_read(name: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        grid.parse(name)


def test_robots_show_one_side_and_people_both_and_a_table_comes_of_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--out", str(tmp_path / "out"), "--results", str(tmp_path / "res")]
    ran: list[str] = []
    run = grid.run_cell

    def counted(plan: grid.Plan, cell: grid.Cell) -> dict[str, Any]:
        ran.append(cell.name)
        return run(plan, cell)

    monkeypatch.setattr(grid, "run_cell", counted)
    monkeypatch.setattr(grid, "run_folder", lambda plan, cell: plan.out / cell.arm)
    wanted = [grid.Cell("drawer-left", "mt_pi", 2, 2, 0), grid.Cell("drawer-right", "mt_pi", 2, 2, 0)]
    monkeypatch.setattr(study_video, "cells_of", lambda cfg: wanted)
    assert main(["study", "video", *SMALL, *where]) == 0
    assert main(["study", "video", *SMALL, *where]) == 0
    assert ran == [cell.name for cell in wanted] and "2 of 2 cells done" in capsys.readouterr().out

    robot, human = (EpisodeSet.open(tmp_path / f"out/drawer_{kind}_2.zarr") for kind in ("robot", "human"))
    assert robot.env["direction"] == "right" and "direction" not in human.env and "action" not in human.keys
    table = json.loads((tmp_path / "res/summary.json").read_text())["rows"]
    with (tmp_path / "res/episodes.csv").open() as file:
        episodes = list(csv.DictReader(file))
    assert [row["task"] for row in table] == ["drawer-left", "drawer-right"] and len(episodes) == 2
    for row in table:
        mine = [int(e["success"]) for e in episodes if e["cell"] == f"{row['task']}/mt_pi-2-2"]
        assert row["success"] == sum(mine) / len(mine) and row["human_minutes"] > 0
    assert len({e["weights_sha256"] for e in episodes}) == 1, "both directions are tested with the same weights"
    shown = "".join(ElementTree.fromstring((tmp_path / "res/success.svg").read_text()).itertext())
    assert all(f"{row['task']}" in shown for row in table) and "mt_pi, 2 robot demos + 0.1 min of people" in shown
    assert main(["study", "video", "--episodes", "0", *where]) == 2
    assert main(["study", "video", *SMALL[:-4], "--episodes", "3", *where]) == 2, "other episodes are another table"
    assert set(_grid.read_cells(tmp_path / "res/cells.jsonl")) == {cell.name for cell in wanted}


def test_the_bench_writes_its_table_and_says_what_a_detector_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "video.json"
    assert main(["bench", "video", "--parts", "table", "--draws", "50", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["track_error"]
    assert all(row["position_mm"] >= 0 for row in rows) and "track error into pose error" in capsys.readouterr().out
    assert main(["bench", "video", "--draws", "5"]) == 2
    assert _hands_rows.against_stored(tmp_path / "none.mp4", rows) is None  # type: ignore[arg-type]
