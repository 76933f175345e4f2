"""`robolearn data convert`: any format to any other, told beforehand, compared afterwards; and the real files of others."""

from __future__ import annotations

import json
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from small_sets import make

from robolearn import cli, registry
from robolearn.data.convert import _folder_write as folders
from robolearn.data.convert import _lerobot_write as writer
from robolearn.data.convert._copy import Options
from robolearn.data.convert._lerobot_plan import make_plan
from robolearn.data.store import EpisodeSet


def convert(tmp_path: Path, *words: object) -> dict[str, Any]:
    """Runs the verb and returns its figures."""
    assert cli.main(["data", "convert", *map(str, words), "--json", str(tmp_path / "figures.json")]) == 0
    return json.loads((tmp_path / "figures.json").read_text())


def equal_in_every_bit(found: dict[str, Any]) -> bool:
    return (
        not found["verified"]["not_compared"]
        and found["verified"]["ends_equal"]
        and all(row["equal"] for row in found["verified"]["keys"].values())
    )


@pytest.mark.parametrize(("to", "suffix"), [("lerobot", ""), ("folder", ""), ("robomimic", ".hdf5"), ("replay_buffer", ".zarr")])
def test_a_dry_run_says_what_a_run_writes_and_writes_nothing(to, suffix, tmp_path) -> None:
    source = make(tmp_path / "set.zarr")
    out = tmp_path / f"out{suffix}"
    before = sorted(p.name for p in tmp_path.iterdir())
    planned = convert(tmp_path, source.path, out, "--to", to, "--dry-run")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "figures.json") == before
    done = convert(tmp_path, source.path, out, "--to", to, "--verify")
    assert planned["dry_run"] and planned["estimated_bytes"] > 0 and done["bytes"] > 0 and equal_in_every_bit(done)
    for key in ("episodes", "steps", "keys", "hz", "task", "not_carried", "from", "to", "length_min", "length_max"):
        assert planned[key] == done[key]


def test_one_foreign_format_becomes_another_in_one_command(tmp_path, capsys) -> None:
    source = make(tmp_path / "set.zarr")
    chain = [("lerobot", "a"), ("robomimic", "b.hdf5"), ("folder", "c"), ("replay_buffer", "d.zarr.zip"), ("", "e.zarr")]
    last = source.path
    for to, name in chain:
        words = ("--to", to) if to else ()
        planned = convert(tmp_path, last, tmp_path / name, *words, "--dry-run")
        done = convert(tmp_path, last, tmp_path / name, *words)
        assert planned["not_carried"] == done["not_carried"]
        last = tmp_path / name
    again = EpisodeSet.open(last)
    assert again.spec == source.spec and again.task == source.task and again.env == source.env
    for key in source.keys:
        np.testing.assert_array_equal(again.read(key), source.read(key))
    np.testing.assert_array_equal(again.episode_field("seed"), source.episode_field("seed"))
    hidden = [p.name for p in tmp_path.iterdir() if p.name.startswith(".") and p.suffix != ".lock"]
    assert not hidden, "the set in between was not removed"
    assert "nothing was written (--dry-run)" in capsys.readouterr().out


def test_workers_write_the_same_files(tmp_path) -> None:
    source = make(tmp_path / "set.zarr")
    for workers in (0, 2):
        folders.write_folders(source, tmp_path / f"f{workers}", Options("jpeg", workers))
    files = sorted(p.relative_to(tmp_path / "f0") for p in (tmp_path / "f0").rglob("*") if p.is_file())
    assert len(files) == 1 + 3 + source.n_steps
    for file in files:
        assert (tmp_path / "f0" / file).read_bytes() == (tmp_path / "f2" / file).read_bytes(), file


def test_what_workers_are_given_can_be_sent_to_them(tmp_path) -> None:
    source = make(tmp_path / "set.zarr")
    plan = make_plan(source, "video")
    clip = next(writer.clips_of(plan, source, tmp_path / "out"))
    assert ForkingPickler.dumps((writer.encode_clip, writer.encode_episode, plan, clip))
    for to, name in (("lerobot", "a"), ("robomimic", "b.hdf5"), ("folder", "c"), ("replay_buffer", "d.zarr")):
        module = registry.load("robolearn.data.convert", to)
        module.write(source, tmp_path / name)
        assert ForkingPickler.dumps(module.scan(tmp_path / name).rows)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--to", "lerobott"), "unknown format to write 'lerobott'; did you mean 'lerobot'?"),
        (("--to", "robomimic", "--images", "video"), "robomimic keeps"),
        (("--images", "png"), "add --to folder or --to lerobot"),
    ],
)
def test_flags_that_do_not_fit_are_refused_before_anything_is_read(words, message, tmp_path, capsys) -> None:
    source = make(tmp_path / "set.zarr")
    assert cli.main(["data", "convert", str(source.path), str(tmp_path / "out"), *words]) == 2
    shown = capsys.readouterr().err
    assert message in shown.replace("\n", " ") and not (tmp_path / "out").exists()


def test_what_exists_is_kept_and_a_failed_conversion_leaves_it(tmp_path) -> None:
    source = make(tmp_path / "set.zarr")
    convert(tmp_path, source.path, tmp_path / "out", "--to", "lerobot")
    kept = (tmp_path / "out/meta/info.json").read_bytes()
    assert cli.main(["data", "convert", str(source.path), str(tmp_path / "out"), "--to", "lerobot"]) == 2
    (tmp_path / "broken.hdf5").write_bytes(b"no")
    assert cli.main(["data", "convert", str(tmp_path / "broken.hdf5"), str(tmp_path / "out"), "--overwrite"]) == 2
    assert (tmp_path / "out/meta/info.json").read_bytes() == kept


def test_the_real_lerobot_pusht_equals_the_original_bit_for_bit(shared, tmp_path) -> None:
    found = convert(tmp_path, shared / "data/pusht_lerobot_v3_lowdim", tmp_path / "a.zarr", "--task", "pusht", "--verify")
    assert (found["from"], found["episodes"], found["steps"]) == ("lerobot", 206, 25650) and equal_in_every_bit(found)
    assert (found["length_min"], found["length_max"], found["hz"]) == (49, 246, 10.0)
    assert any("its videos are not in the dataset" in what for what in found["not_carried"])
    made = EpisodeSet.open(tmp_path / "a.zarr")
    original = zarr.open_group(str(shared / "data/pusht_zarr/pusht_cchi_v7_replay.zarr"), mode="r")
    np.testing.assert_array_equal(made.read("action"), original["data/action"][:])
    np.testing.assert_array_equal(made.read("observation.state"), original["data/state"][:, :2])
    np.testing.assert_array_equal(made.episode_ends, original["meta/episode_ends"][:])
    table = pq.read_table(shared / "data/pusht_lerobot_v3_lowdim/data/chunk-000/file-000.parquet")
    for key in ("timestamp", "next.reward", "next.done", "next.success"):
        np.testing.assert_array_equal(made.read(key), table[key].to_numpy())
        assert str(made.read(key).dtype) == {"timestamp": "float32", "next.reward": "float32"}.get(key, "bool")
    assert cli.main(["data", "check", str(tmp_path / "a.zarr")]) == 0
    back = convert(tmp_path, tmp_path / "a.zarr", tmp_path / "lr", "--to", "lerobot")  # compares every number by itself
    assert not back["not_carried"]


def test_every_real_robosuite_file_converts_checks_and_comes_back(shared, tmp_path) -> None:
    folders = sorted({p.parent for p in (shared / "data/robosuite_human_demos").rglob("demo.hdf5")})
    assert len(folders) == 10
    steps = 0
    for number, folder in enumerate(folders):
        found = convert(tmp_path, folder, tmp_path / f"{number}.zarr", "--verify")
        assert found["from"] == "robosuite_demo" and equal_in_every_bit(found)
        assert all(row["dtype"] == "float64" for row in found["verified"]["keys"].values())
        steps += found["steps"]
        assert cli.main(["data", "check", str(tmp_path / f"{number}.zarr")]) in (0, 1)
        to = ("robosuite_demo", "robomimic")[number % 2]
        assert equal_in_every_bit(
            convert(tmp_path, tmp_path / f"{number}.zarr", tmp_path / f"{number}.hdf5", "--to", to, "--verify")
        )
    assert steps == 3897 + 19635
