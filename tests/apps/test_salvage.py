"""`robolearn data salvage`: what a crash left becomes an episode, on request and never behind anybody's back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robolearn.cli import main
from robolearn.data._codec import Codec
from robolearn.data._files import locked
from robolearn.data.journal import Journal
from robolearn.data.store import EpisodeSet

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "schema1_journal.episodes"


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """Returns a set with three saved episodes and one that was cut off after eleven steps."""
    import shutil

    shutil.copytree(FIXTURE, tmp_path / "a.episodes")
    journal = Journal(tmp_path / "a.episodes")
    _, stage = journal.stage(Codec("png"))
    source = journal.episode(0)
    (stage.folder / "begin.json").write_text(json.dumps({k: v for k, v in source.attrs.items() if k != "sha256"}))
    for k in range(11):
        stage.frame("front", k, source.frame("front", k))
        for name in source.names("rows"):
            stage.append(f"rows/{name}", source.array(f"rows/{name}")[k], source.attributes(f"rows/{name}"))
        stage.append("states", source.array("states")[k])
    stage.abandon()
    return tmp_path / "a.zarr"


def test_whole_steps_are_kept_labelled_partial_and_packed(crashed: Path, tmp_path: Path, capsys) -> None:

    before = sorted(str(p) for p in tmp_path.rglob("*"))
    assert main(["data", "salvage", str(crashed), "--dry-run"]) == 0
    assert "episode 3: 11 complete steps would be kept" in capsys.readouterr().out and not crashed.exists()
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before
    assert main(["data", "salvage", str(crashed), "--json", str(tmp_path / "s.json")]) == 0
    made = EpisodeSet.open(crashed)
    assert made.episode_field("label").tolist()[3] == "partial" and made.span(3)[1] - made.span(3)[0] == 11
    assert json.loads((tmp_path / "s.json").read_text())["salvaged"] == {"3": 11}


def test_a_journal_that_is_being_written_is_left_alone(crashed: Path, capsys) -> None:
    with locked(crashed.with_name("a.episodes"), "journal"):
        assert main(["data", "salvage", str(crashed)]) == 2
    assert "is writing to this journal" in capsys.readouterr().err


def test_a_set_without_a_journal_is_one_line(tmp_path: Path, capsys) -> None:
    assert main(["data", "salvage", str(tmp_path / "b.zarr")]) == 2
    assert "there is no journal for" in capsys.readouterr().err
