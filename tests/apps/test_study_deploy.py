"""`study deploy` with a network that was never trained: cells, what is kept of them, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from robolearn.apps import _study_deploy as grid
from robolearn.cli import main
from robolearn.data.stats import Stats
from robolearn.runtime.schedule import Scheduled
from sim_envs import _base as tasks
from tests.apps.runs import untrained_for

KEYS = ("eef_pos", "eef_rot6d", "gripper", "object")


def _near(value: np.ndarray) -> Stats:
    here = np.asarray(value, float)
    return Stats(min=here - 0.05, max=here + 0.05, mean=here, std=0 * here + 0.03, count=10)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network for Lift whose actions lie near where the arm begins."""
    body = tasks.make("lift", {})
    obs = body.reset(0)

    stats = {key: _near(obs[key]) for key in KEYS}
    stats["action"] = _near(np.concatenate([obs["eef_pos"], obs["eef_rot6d"], [0.0]]))
    return untrained_for(tmp_path_factory.mktemp("runs") / "lift", body.spec.select(KEYS), stats, task="lift")


def test_cells_are_made_once_and_kept_by_episode(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "MAX_STEPS", 12)
    flags = [str(run), "--episodes", "2", "--consumers", "replace", "--delays-ms", "0", "150", "--results", str(tmp_path)]
    assert main(["study", "deploy", *flags]) == 0
    rows = json.loads((tmp_path / "closed_loop.json").read_text())["rows"]
    assert [(row["body"], row["scheduler"], row["delay_ms"]) for row in rows] == [
        ("sim", "sync", 0), ("virtual", "replace", 0), ("virtual", "replace", 150),
    ]  # fmt: skip
    late = rows[2]
    assert late["delay_ticks"] == 3 and late["idle_share"] > 0 and 0 < late["jerk"] < 1e4 and late["episodes"] == 2
    with (tmp_path / "episodes.csv").open() as file:
        assert [line["episode_seed"] for line in csv.DictReader(file)] == ["100000", "100001"] * 3
    before = (tmp_path / "closed_loop_cells.jsonl").read_bytes()
    assert main(["study", "deploy", *flags]) == 0 and (tmp_path / "closed_loop_cells.jsonl").read_bytes() == before
    again = ["--cell", "lift/virtual/replace/150", "--json", str(tmp_path / "one.json")]
    assert main(["study", "deploy", *flags, *again]) == 0
    made = json.loads((tmp_path / "one.json").read_text())
    assert made["rows"][0]["jerk"] == pytest.approx(late["jerk"]) and made["act_ms"] == 0


def test_a_policy_from_pictures_drives_the_virtual_arm_and_sees_the_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, env = ("eef_pos", "gripper", "wrist_image"), {"robot": "UR5e", "cameras": ["wrist", "agentview"], "image_size": 32}
    body = tasks.make("lift", env)
    near = {key: _near(np.zeros(body.spec.obs[key].shape)) for key in keys[:2]} | {"action": _near(np.zeros(10))}
    run = untrained_for(tmp_path / "seeing", body.spec.select(keys), near, task="lift", env=env)
    monkeypatch.setattr(grid, "MAX_STEPS", 6)
    seen: list[np.ndarray] = []
    plain = Scheduled.observe
    monkeypatch.setattr(
        Scheduled, "observe", lambda self, obs, applied: (seen.append(obs["wrist_image"]), plain(self, obs, applied))[1]
    )
    cell = ["--cell", "seeing/virtual/replace/0", "--episodes", "1", "--eval-seed", "0", "--json", str(tmp_path / "one.json")]
    assert main(["study", "deploy", str(run), *cell]) == 0
    row = json.loads((tmp_path / "one.json").read_text())["rows"][0]
    assert len(seen) == 7 and seen[0].shape == (32, 32, 3) and seen[0].std() > 5 and not np.array_equal(seen[0], seen[-1])
    assert 0 <= row["age_p50_ms"] <= row["age_p95_ms"] < 1000 / 30 + 10, "30 pictures a second, a cycle of 10 ms"
    assert row["cycle_late_p95_ms"] == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--bodies", "real"], "want some of sim, virtual, ur5e, viperx, got 'real'"),
        (["--cell", "lift/virtual/replace"], "want RUN/BODY/CONSUMER/DELAY of lift"),
        (["--cell", "other/virtual/replace/0"], "want RUN/BODY/CONSUMER/DELAY of lift"),
        (["--cell", "lift/ur5e/replace/0"], "the policy is for a Panda"),
    ],
)
def test_what_cannot_be_studied_is_one_line(
    run: Path, tmp_path: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "deploy", str(run), "--results", str(tmp_path), *flags]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
