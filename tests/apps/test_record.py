"""`robolearn record`: what the expert did, as a set that replays; the same however many processes made it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from robolearn.apps import _live
from robolearn.cli import main
from robolearn.core import SOURCES, Flag
from robolearn.data.store import EpisodeSet
from sim_envs import _base as tasks

FAST = ["record", "pusht", "--seed", "30"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    assert main([*FAST, "--out", str(folder / "a.zarr"), "--episodes", "2", "--json", str(folder / "a.json")]) == 0
    return folder


def test_what_is_recorded_replays_exactly_from_its_seeds(recorded: Path) -> None:
    made = EpisodeSet.open(recorded / "a.zarr")
    assert made.n_episodes == 2 and made.task == "pusht" and list(made.episode_field("seed")) == [30, 31]
    assert {"state", "keypoint", "action", "sim_state"} <= set(made.keys)
    report = json.loads((recorded / "a.json").read_text())
    assert (report["attempts"], report["successes"], report["driver"]) == (2, 2, "expert")
    out = recorded / "replay.json"
    assert main(["replay", str(recorded / "a.zarr"), "--json", str(out)]) == 0
    assert json.loads(out.read_text())["max_state_error_px"] == 0.0


def test_a_resumed_recording_is_the_uninterrupted_one(recorded: Path, tmp_path: Path) -> None:
    part = str(tmp_path / "b.zarr")
    assert main([*FAST, "--out", part, "--episodes", "1"]) == 0
    assert main([*FAST, "--out", part, "--episodes", "2"]) == 2, "an existing set is refused"
    assert main([*FAST, "--out", part, "--episodes", "2", "--resume"]) == 0
    one, two = EpisodeSet.open(recorded / "a.zarr"), EpisodeSet.open(part)
    for key in one.keys:
        np.testing.assert_array_equal(one.read(key), two.read(key))
    assert main(["record", "pusht", "--out", part, "--episodes", "3", "--resume"]) == 2, "another first seed"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--seed 100000", "are for evaluation"),
        ("--episodes 0", "want at least 1"),
        ("--robot UR5e", "unknown field 'robot'"),
        ("--cameras side", "unknown camera 'side'"),
    ],
)
def test_what_cannot_be_recorded_is_one_line_and_writes_nothing(tmp_path: Path, capsys, flags: str, said: str) -> None:
    out = tmp_path / "c.zarr"
    assert main(["record", "pusht", "--out", str(out), *flags.split()]) == 2
    text = capsys.readouterr().err.strip().splitlines()
    assert len(text) == 1 and said in text[0] and not out.exists()


def test_a_live_recording_is_labelled_keeps_real_clocks_and_can_be_resumed(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(_live.Deadline, "wait", lambda deadline: 0.0)  # its pace is not what is tested
    out = str(tmp_path / "a.zarr")
    live = ["record", "pusht", "--live", "--out", out]
    assert main([*live, "--episodes", "1"]) == 0
    assert main([*live, "--episodes", "2"]) == 2 and "--resume" in capsys.readouterr().err
    assert main([*live, "--episodes", "2", "--resume"]) == 0
    made = EpisodeSet.open(out)
    assert made.episode_field("id").tolist() == [0, 1] and made.episode_field("seed").tolist() == [0, 1]
    assert made.episode_field("label").tolist() == ["success", "success"] and made.attrs["device"] == "scripted expert"
    assert (np.diff(made.episode(0)["t_monotonic"]) > 0).all() and set(made.read("source")) == {SOURCES.index("expert")}
    assert main(["replay", out, "--json", str(tmp_path / "r.json")]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["max_state_error_px"] == 0.0


def test_a_paced_body_keeps_its_rate_and_flags_what_came_late() -> None:
    body = _live.Paced(tasks.make("pusht"))
    waits = iter([0.0, 0.0, 0.2])
    body.reset(0)
    body._rate = SimpleNamespace(wait=lambda: next(waits))  # type: ignore[assignment]
    flags = [body.step(np.full(2, 200.0, np.float32)).flags for _ in range(3)]
    assert [bool(flag & Flag.LATE) for flag in flags] == [False, False, True]
