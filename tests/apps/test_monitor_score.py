"""`monitor score`: a set in FIPER's published format, as pickles and converted, gives the table of the study."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robolearn import cli
from robolearn.apps import monitor_score
from robolearn.data.convert import _fiper_rollouts as fiper
from robolearn.monitors import _metrics

B, H, A, D, E = 8, 6, 3, 5, 2


def publish(folder: Path, split: str, number: int, good: bool, robots: int = 1) -> None:
    """Writes one episode as it is published; in a failure draws spread and the embedding drifts away from half time on."""
    rng = np.random.default_rng([number, split == "test"])
    steps: list[dict[str, Any]] = []
    for k in range(14):
        late = 0.0 if good or k < 7 else 1.0
        samples = rng.normal(size=(B, H, A)) * (0.01 + late) + np.linspace(0, 1, H)[:, None]
        features = rng.normal(size=D) + 6 * late
        steps.append({"action": samples[0], "action_pred": samples, "obs_embedding": features, "timestamp": 0.2 * k, "step": k})
    meta = {"task": "toy", "num_robots": robots, "successful": good, "rollout_subtype": "id" if number % 2 else "eb"}
    meta |= {"action_prediction_horizon": H, "action_execution_horizon": E, "action_mappings": {"pos": [0, 1, 2]}}
    path = folder / "rollouts" / split / f"episode_{'s' if good else 'f'}_{number:04d}.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({"metadata": meta, "rollout": steps}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task with 40 calibration and 30 test episodes, a third of the latter failures."""
    made = tmp_path_factory.mktemp("fiper") / "toy"
    for number in range(40):
        publish(made, "calibration", number, good=True)
    for number in range(30):
        publish(made, "test", number, good=number % 3 > 0)
    return made


def test_pickles_and_the_converted_set_give_the_same_table(folder: Path, tmp_path: Path) -> None:
    tabled = []
    scores = ["--scores", "clock", "knn", "ace", "rnd"]
    for name, source, more in (
        ("pickles", folder, ["--out", str(tmp_path / "toy.zarr"), "--csv", str(tmp_path / "rows.csv")]),
        ("set", tmp_path / "toy.zarr", []),
    ):
        out = tmp_path / f"{name}.json"
        assert cli.main(["monitor", "score", str(source), *scores, *more, "--json", str(out)]) == 0
        tabled.append(json.loads(out.read_text()))
    assert tabled[0]["rows"] == tabled[1]["rows"] and tabled[0]["sets"] == {"calibration": [40, 40], "test": [20, 30]}
    rows = {row["detector"]: row for row in tabled[0]["rows"]}
    assert list(rows) == ["clock", "knn", "ace", "rnd", "fiper", "fiper_apart"] and tabled[0]["draws"] == B
    assert rows["clock"]["tpr"] == 0 and rows["clock"]["auroc_common_length"] == 0.5
    for name in ("knn", "ace", "fiper"):
        assert rows[name]["tpr"] == 1.0 and rows[name]["measured_fpr"] <= 0.3 and 0.5 <= rows[name]["detection_time"] < 0.7, name
    with (tmp_path / "rows.csv").open() as file:
        mine = [row for row in csv.DictReader(file) if row["cell"] == "toy/knn"]
    again = _metrics.Rows.of(
        [r["success"] == "1" for r in mine], [int(r["alarm_plan"]) for r in mine], [int(r["plans"]) for r in mine]
    )
    assert _metrics.value("twa", again) == pytest.approx(rows["knn"]["twa"]) and {r["kind"] for r in mine} == {"", "eb"}


def test_velocities_count_as_displacements_and_time_comes_from_the_stamps(folder: Path) -> None:
    first = next(fiper.read(folder))
    layout = monitor_score.layout_of(first)
    assert (layout.action, layout.horizon, layout.execute, layout.hz) == (("x", "y", "z"), H, E, 10.0)
    moving = monitor_score.layout_of(fiper.replace(first, parts={"vel": (1, 2)}))
    assert moving.action == ("a0", "dx", "dy") and moving.positions("test") == ([1, 2], True)


@pytest.mark.parametrize("case", ["one split", "two robots", "there"])
def test_what_cannot_be_scored_is_said_in_a_line(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish(tmp_path / "toy", "calibration", 0, good=True, robots=2 if case == "two robots" else 1)
    (tmp_path / "rows.csv").write_text("")
    more = ["--csv", str(tmp_path / "rows.csv")] if case == "there" else []
    assert cli.main(["monitor", "score", str(tmp_path / "toy"), *more]) == 2
    message = {
        "one split": "want calibration and test episodes with plans of one layout, got no test episodes",
        "two robots": "want the rollout of one robot, got 2",
        "there": "rows.csv: this file exists already",
    }[case]
    assert message in capsys.readouterr().err
