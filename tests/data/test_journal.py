"""The journal: what is saved is on the disk before it has its name, and what a crash leaves can be cut to its last whole row."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from bodies import picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robolearn.data import _files
from robolearn.data._codec import Codec, decode
from robolearn.data.journal import CRASHED, STAGING, Journal
from robolearn.errors import DatasetError, MissingDependency

STEPS = 9


def staged(journal: Journal, codec: str = "png") -> int:
    """Stages an episode of nine rows with a camera, a state and a stream, and lets go of it as a crash would."""
    number, stage = journal.stage(Codec(codec))
    (stage.folder / "begin.json").write_text('{"task": "t"}')
    stage.append("states", np.array([0.0, 1.0]))
    for k in range(STEPS):
        place = stage.frame("front", 100 + k, picture(k))
        stage.append("rows/front@frame", np.array(place, np.int64))
        stage.append("rows/joints", np.full(3, k, np.float32), {"unit": "rad"})
        stage.append("rows/t_monotonic", np.array(1000 + k, np.int64), {"unit": "ns"})
        stage.append("states", np.array([k + 1.0, 1.0]))
        stage.append("streams/force/values", np.array([k], np.float64))
        stage.append("streams/force/t", np.array(1000 + k, np.int64))
    stage.flush()
    stage.abandon()
    return number


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    journal = Journal(tmp_path_factory.mktemp("crashed") / "a.episodes")
    staged(journal)
    return journal.folder


def test_everything_is_flushed_before_the_episode_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, str]] = []
    real_replace, real_sync = Path.replace, _files.os.fsync

    def note(descriptor: int) -> None:
        done.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        real_sync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        done.append(("rename", str(target)))
        return real_replace(self, target)

    monkeypatch.setattr(_files.os, "fsync", note)
    monkeypatch.setattr(Path, "replace", replace)
    journal = Journal(tmp_path / "a.episodes")
    number, stage = journal.stage()
    stage.append("rows/joints", np.zeros(3))
    stage.frame("front", 0, picture(0))
    journal.save(number, stage, {})
    at = done.index(("rename", str(journal.path(number))))
    before = [path for kind, path in done[:at] if kind == "fsync"]
    for file in (p for p in journal.path(number).rglob("*") if p.is_file()):
        there = str(stage.folder / file.relative_to(journal.path(number)))
        assert there in before or any(path.startswith(os.path.dirname(there) + "/.") for path in before), file
    assert str(stage.folder) in before, "the staging folder itself"
    after = [path for kind, path in done[at:] if kind == "fsync"]
    assert str(journal.folder) in after[:1], "the parent, right after the rename"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_recording_cut_off_anywhere_is_salvaged_up_to_its_last_whole_row(crashed: Path, tmp_path: Path, data) -> None:
    folder = Path(tempfile.mkdtemp(dir=tmp_path)) / "a.episodes"
    shutil.copytree(crashed, folder)
    raw = sorted(str(p.relative_to(folder)) for p in folder.glob(f"{STAGING}/ep_000000/**/c.0*"))
    for name in data.draw(st.lists(st.sampled_from(raw), max_size=4, unique=True)):
        os.truncate(folder / name, round((folder / name).stat().st_size * data.draw(st.floats(0, 1), label=name)))
    journal = Journal(folder)
    journal.recover()
    rows = journal.crashed()[0]
    if not rows:
        with pytest.raises(DatasetError, match="no complete step"):
            journal.salvage(0)
        return
    saved = journal.salvage(0)
    episode = journal.episode(0)
    episode.verify()
    assert saved.steps == rows == len(episode.array("rows/joints")) == len(episode.array("rows/t_monotonic"))
    np.testing.assert_array_equal(episode.array("rows/joints")[:, 0], np.arange(rows))
    for k, place in enumerate(episode.array("rows/front@frame")):
        np.testing.assert_array_equal(episode.frame("front", int(place)), picture(k))
    assert episode.attrs["labels"][-1]["label"] == "partial" and episode.attrs["task"] == "t"
    shutil.rmtree(folder)


def test_zeros_that_a_power_cut_left_where_rows_were_promised_are_cut_off(crashed: Path, tmp_path: Path) -> None:
    shutil.copytree(crashed, tmp_path / "a.episodes")
    journal = Journal(tmp_path / "a.episodes")
    clock = journal.path(0, STAGING) / "rows/t_monotonic/c.0"
    clock.write_bytes(clock.read_bytes()[: 8 * 4] + bytes(8 * 5))
    journal.recover()
    assert journal.crashed() == {0: 4}


def test_a_salvage_that_is_cut_off_itself_can_be_done_again(crashed: Path, tmp_path: Path, monkeypatch) -> None:
    shutil.copytree(crashed, tmp_path / "a.episodes")
    journal = Journal(tmp_path / "a.episodes")
    journal.recover()
    monkeypatch.setattr(journal, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        journal.salvage(0)
    again = Journal(journal.folder)
    again.recover()
    assert again.crashed() == {0: STEPS} and again.salvage(0).steps == STEPS and again.ids() == [0]


def test_ids_are_never_given_twice_whatever_becomes_of_their_episodes(crashed: Path, tmp_path: Path) -> None:
    shutil.copytree(crashed, tmp_path / "a.episodes")
    journal = Journal(tmp_path / "a.episodes")
    assert journal.next_id() == 1
    journal.recover()
    assert journal.next_id() == 1
    journal.salvage(0)
    journal.trash(0)
    assert journal.next_id() == 1 and journal.ids() == [] and journal.trashed() == [0]
    shutil.rmtree(journal.path(0, ".trash"))  # somebody emptied the trash
    assert journal.next_id() == 1
    with pytest.raises(DatasetError, match="not there"):
        journal.episode(0)


def test_a_lost_or_cut_off_index_is_rebuilt_from_the_folders(crashed: Path, tmp_path: Path) -> None:
    shutil.copytree(crashed, tmp_path / "a.episodes")
    journal = Journal(tmp_path / "a.episodes")
    journal.recover()
    journal.salvage(0)
    before = journal.index()
    index = journal.folder / "index.jsonl"
    index.write_text(index.read_text()[:-20])
    assert journal.index() == []
    Journal(journal.folder).recover()
    assert journal.index() == before


def test_a_row_of_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    _, stage = Journal(tmp_path / "a.episodes").stage()
    stage.append("rows/joints", np.zeros(3))
    with pytest.raises(DatasetError, match=r"rows/joints: want float64\(3,\) as in the rows before, got float64\(4,\)"):
        stage.append("rows/joints", np.zeros(4))
    stage.abandon()


@pytest.mark.parametrize("name", ["png", "jxl"])
def test_lossless_codecs_give_back_every_bit(name: str) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)
    try:
        raw = Codec(name).encoder()(frame)  # type: ignore[arg-type]
    except MissingDependency as missing:
        pytest.skip(str(missing))
    np.testing.assert_array_equal(decode(raw, name), frame)


def test_a_damaged_picture_is_one_line() -> None:
    with pytest.raises(DatasetError, match="want a jpeg picture, got 3 bytes"):
        decode(b"abc", "jpeg")


def test_an_episode_of_a_newer_schema_is_refused(crashed: Path, tmp_path: Path) -> None:
    shutil.copytree(crashed, tmp_path / "a.episodes")
    journal = Journal(tmp_path / "a.episodes")
    journal.recover()
    journal.salvage(0)
    root = journal.path(0) / "zarr.json"
    root.write_text(root.read_text().replace('"journal_schema": 1', '"journal_schema": 9'))
    with pytest.raises(DatasetError, match="journal schema 9, this robolearn reads up to 1"):
        journal.episode(0)
    assert not list((journal.folder / CRASHED).iterdir())
