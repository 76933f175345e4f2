"""Fetching verifies what it gets, never writes over something, and without a network says what would work."""

from __future__ import annotations

import json
import shutil
import urllib.error
from pathlib import Path

import pytest

from robolearn import cli
from robolearn.data import fetch
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, DatasetError


def test_robosuite_demonstrations_from_a_folder_are_verified_and_complete(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/robosuite_human_demos"
    assert "MIT License" in fetch.fetch_robosuite_human(tmp_path / "out", source)
    assert len(list((tmp_path / "out").glob("*/panda/demo.hdf5"))) == 6
    assert (tmp_path / "out/lift/panda/models/model_1.xml").is_file()
    changed = tmp_path / "changed"
    shutil.copytree(tmp_path / "out", changed)
    demo = changed / "stack/panda/demo.hdf5"
    demo.write_bytes(demo.read_bytes()[:-1] + b"x")
    with pytest.raises(DatasetError, match=r"stack/panda/demo\.hdf5: want sha256 6d5dc16f2f32fd87\.\.\., got"):
        fetch.fetch_robosuite_human(tmp_path / "again", changed)
    assert not (tmp_path / "again").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["changed", "out"]


def test_what_exists_is_never_replaced_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    for name in ("robosuite-human", "pusht"):
        assert cli.main(["data", "fetch", name, "--out", str(tmp_path / "out"), "--from", str(tmp_path)]) == 2
        assert "exists already; give --overwrite" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_without_the_demonstrations_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"want the wheel robosuite-1\.0\.1.* got a folder without it"):
        fetch.fetch_robosuite_human(tmp_path / "out", tmp_path / "empty")
    with pytest.raises(DatasetError, match=r"want pusht\.zip, .* got nothing \(no such path\)"):
        fetch.fetch_pusht(tmp_path / "out", lambda _: 0.0, tmp_path / "missing")


def test_pip_without_a_network_ends_in_one_line_that_says_what_would_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", ""), ("PIP_CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(name, value)
    assert cli.main(["data", "fetch", "robosuite-human", "--out", str(tmp_path / "out")]) == 2
    message = capfd.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("robolearn: pip could not fetch robosuite==1.0.1") and "--from WHEEL_OR_FOLDER" in message
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_fails_ends_in_one_line_that_names_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(fetch.urllib.request, "urlopen", refuse)
    with pytest.raises(BadInput, match=r"pusht\.zip cannot be downloaded \(Name or service not known\); .* --from PATH"):
        fetch.fetch_pusht(tmp_path / "out", lambda _: 0.0)
    assert list(tmp_path.iterdir()) == []


def test_another_set_is_not_taken_for_pusht(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="want 206 episodes with 25650 steps, got 3 with 165"):
        fetch.fetch_pusht(tmp_path / "out", lambda _: 0.0, root / "tests/fixtures/schema1_pusht.zarr")
    assert list(tmp_path.iterdir()) == []


def test_a_set_that_does_not_replay_is_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PUSHT_EPISODES", 3)
    monkeypatch.setattr(fetch, "PUSHT_STEPS", 165)
    source = root / "tests/fixtures/schema1_pusht.zarr"
    with pytest.raises(DatasetError, match=r"ends up 1\.5 px off its own states, want 0\.001"):
        fetch.fetch_pusht(tmp_path / "out", lambda _: 1.5, source)
    assert list(tmp_path.iterdir()) == []
    made, error = fetch.fetch_pusht(tmp_path / "out", lambda _: 1e-5, source)
    assert (
        error == 1e-5
        and made.hz == 10.0
        and made.keys["img"].dtype == "uint8"
        and made.episode_field("seed").tolist() == [0, 1, 2]
    )


def test_info_names_keys_shapes_units_and_rate(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "info", str(root / "tests/fixtures/schema1_pusht.zarr"), "--json", str(tmp_path / "o.json")]) == 0
    figures = json.loads((tmp_path / "o.json").read_text())
    assert (figures["episodes"], figures["steps"], figures["hz"]) == (3, 165, 10.0)
    assert figures["keys"]["state"] | {"shape": [5], "dtype": "float32", "unit": "px, rad"} == figures["keys"]["state"]
    assert "3 episodes, 165 steps, 10 Hz" in capsys.readouterr().out


def test_convert_says_what_it_could_not_carry(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(shared / "data/robosuite_human_demos/1.0.1/lift")
    assert cli.main(["data", "convert", source, str(tmp_path / "lift.zarr")]) == 0
    assert "not carried: array 'joint_torques'" in capsys.readouterr().out
    made = EpisodeSet.open(tmp_path / "lift.zarr")
    assert made.task == "lift" and made.read("sim_state").shape == (412, 32)
    assert made.episode_field("model_xml")[0].lstrip().startswith("<")
    assert cli.main(["data", "convert", source, str(tmp_path / "lift.zarr")]) == 2
    assert cli.main(["data", "convert", str(tmp_path / "lift.zarr"), str(tmp_path / "x"), "--to", "replay_bufer"]) == 2
    assert "did you mean 'replay_buffer'" in capsys.readouterr().err


def test_a_dry_run_says_from_where_to_where_and_writes_nothing(root: Path, tmp_path: Path, capsys) -> None:
    out, source = tmp_path / "out.zarr", root / "tests/fixtures/schema1_pusht.zarr"
    assert cli.main(["data", "fetch", "pusht", "--out", str(out), "--from", str(source), "--dry-run"]) == 0
    assert "would be written from" in capsys.readouterr().out and not list(tmp_path.iterdir())
    out.mkdir()
    assert cli.main(["data", "fetch", "pusht", "--out", str(out), "--dry-run"]) == 2
    assert cli.main(["data", "fetch", "pusht", "--out", str(tmp_path / "b"), "--from", str(tmp_path / "no"), "--dry-run"]) == 2
