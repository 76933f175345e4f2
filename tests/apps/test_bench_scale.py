"""The scale bench makes the set it says, leaves nothing behind, and refuses what does not fit on the disk."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from robolearn.apps import _scale_set, bench_scale
from robolearn.cli import main
from robolearn.data.store import EpisodeSet


def test_the_made_set_grows_on_the_grid_of_its_files_and_is_what_its_seeds_say(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    _scale_set.create(path, 16)
    for frames in (1000, 5400):
        _scale_set.grow(path, 16, frames)
        made = EpisodeSet.open(path)
        assert made.n_steps == frames and made.episode_field("label").tolist()[:2] == ["failure", "success"]
    assert not made.notes
    for index in (0, 4, 5, 20, 26):
        want = _scale_set.episode(index, 16)
        for key, rows in made.episode(index).items():
            np.testing.assert_array_equal(rows, want[key])
    pictures = sum(p.stat().st_size for p in (path / "data" / "img").rglob("*") if p.is_file())
    assert 0.2 < pictures / (5400 * 16 * 16 * 3) < 0.8, "compressible, not trivial"


def test_a_set_is_measured_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_scale, "_REPEATS", 1)
    out, told = tmp_path / "work", tmp_path / "out.json"
    assert main(["bench", "scale", "--frames", "1000", "--size", "16", "--no-verbs", "--out", str(out), "--json", str(told)]) == 0
    assert not out.exists() and "windows_cold" in capsys.readouterr().out
    figures = json.loads(told.read_text())
    assert {row["step"] for row in figures["rows"]} == {*bench_scale.STEPS} and figures["most_disk_gb"] > 0
    assert all(row["peak_rss_mb"] > 10 for row in figures["rows"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    def fail(*_: object) -> None:
        assert (tmp_path / "work" / "set.zarr").is_dir()
        raise error

    monkeypatch.setattr(_scale_set, "grow", fail)
    with pytest.raises(error):
        bench_scale.run(bench_scale.Config(frames=1000, size=16, out=tmp_path / "work"))
    assert not (tmp_path / "work").exists()


def test_a_disk_that_is_too_small_and_a_folder_that_exists_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 10**9))
    assert main(["bench", "scale", "--out", str(tmp_path / "work")]) == 2
    assert "want 14.2 GiB of room on the disk, 954 MiB are free; try fewer --frames" in capsys.readouterr().err
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "mine").write_text("")
    assert main(["bench", "scale", "--out", str(tmp_path / "work")]) == 2
    assert (tmp_path / "work" / "mine").exists()


def test_powers_of_growth_are_those_of_the_times() -> None:
    rows = [{"frames": n, "step": "open", "seconds": 2e-6 * n} for n in (10**3, 10**4, 10**5)]
    assert bench_scale._slopes(rows, "open") == pytest.approx({"all": 1.0, "from_10k": 1.0, "last": 1.0})
    assert bench_scale._slopes(rows[:1], "open") == {"all": None, "from_10k": None, "last": None}
