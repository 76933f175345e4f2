"""The editing verbs on the command line: a dry run writes nothing, old schemas pass through all, a filter trains."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from small_sets import make

from robolearn import cli, registry
from robolearn.data.edit import Selection, delete, filter_episodes, set_filter
from robolearn.data.store import EpisodeSet
from robolearn.training import checkpoint
from robolearn.training.episodes import pick_episodes
from robolearn.training.settings import DatasetConfig

VERBS = {
    "merge": ["a.zarr", "b.zarr", "--out", "m.zarr"],
    "split": ["a.zarr", "--ratio", "0.5"],
    "split_out": ["a.zarr", "--episodes", "0", "--out", "x.zarr", "y.zarr"],
    "filter": ["a.zarr", "short", "--where", "steps < 60"],
    "filter_remove": ["a.zarr", "kept", "--remove"],
    "delete": ["a.zarr", "--episodes", "1"],
    "undelete": ["b.zarr", "--all"],
    "rename_to": ["a.zarr", "--to", "c"],
    "rename_key": ["a.zarr", "--key", "img=camera"],
    "rename_task": ["a.zarr", "--task", "new"],
    "label": ["a.zarr", "--where", "success != 1", "--label", "failure", "--by", "anna"],
}


@pytest.fixture(scope="module")
def originals(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns folders with sets a and b (with something in its trash), of today and of schema 1."""
    folders = {kind: tmp_path_factory.mktemp("sets") for kind in ("own", "schema 1")}
    for kind, folder in folders.items():
        for name in ("a.zarr", "b.zarr"):
            if kind == "own":
                make(folder / name).set_fact("success", {0: True, 1: False})
            else:
                shutil.copytree(root / "tests/fixtures/schema1_pusht.zarr", folder / name)
            set_filter(EpisodeSet.open(folder / name, writable=True), "kept", np.array([0, 1]))
        delete(folder / "b.zarr", Selection(episodes="2"), time="now")
    return folders


@pytest.fixture
def folder(request: pytest.FixtureRequest, originals: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a copy of one of these folders, which is the working directory."""
    shutil.copytree(originals[getattr(request, "param", "own")], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fingerprint(folder: Path) -> dict[str, str]:
    """Returns a hash of every file below a folder, "" for a folder, by its path."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "" for p in folder.rglob("*")
    }


def run(name: str, *more: str) -> int:
    return cli.main(["data", name.split("_")[0], *VERBS[name], *more])


@pytest.mark.parametrize("folder", ["own", "schema 1"], indirect=True)
@pytest.mark.parametrize("name", VERBS)
def test_a_dry_run_says_what_would_happen_and_writes_nothing(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = fingerprint(folder)
    assert run(name, "--dry-run") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "nothing is written (--dry-run); without it:" and len(said) > 1
    assert fingerprint(folder) == before
    assert run(name, "--json", "out.json") == 0
    done = capsys.readouterr().out.splitlines()
    assert done == said[1:], "the dry run said something else than what was done"
    assert fingerprint(folder) != before
    assert set(json.loads((folder / "out.json").read_text())) >= {"meta", "dry_run"}


def test_every_verb_that_edits_can_run_dry() -> None:
    for verb in ("merge", "split", "filter", "delete", "undelete", "rename", "label"):
        assert "dry_run" in registry.load(cli.APPS, f"data_{verb}").Config.__dataclass_fields__


def test_existing_filters_and_sets_are_refused_without_overwrite(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("split") == 0 and run("merge") == 0
    for name in ("split", "merge"):
        assert run(name) == 2 and "exists already; give --overwrite to replace it" in capsys.readouterr().err
        assert run(name, "--overwrite") == 0
    assert cli.main(["data", "filter", "a.zarr", "kept", "--episodes", "2"]) == 2
    assert cli.main(["data", "filter", "a.zarr", "kept", "--episodes", "2", "--overwrite"]) == 0
    assert filter_episodes(EpisodeSet.open(folder / "a.zarr"), "kept").tolist() == [2]


def test_filters_are_listed_shown_and_counted_by_info(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "filter", "a.zarr"]) == 0 and cli.main(["data", "filter", "a.zarr", "kept"]) == 0
    assert capsys.readouterr().out.count("filter 'kept': 2 episodes") == 2
    assert cli.main(["data", "filter", "a.zarr", "kep"]) == 2
    assert "no filter 'kep'; did you mean 'kept'?" in capsys.readouterr().err
    assert run("label") == 0
    assert cli.main(["data", "info", "b.zarr", "--json", "info.json"]) == 0
    said = capsys.readouterr().out
    assert "filters: kept (2)" in said and "generation 1; 1 deleted episodes can be brought back" in said
    figures = json.loads((folder / "info.json").read_text())
    assert figures["filters"] == {"kept": 2} and figures["trash"] == 1 and "min" not in figures["keys"]["action"]
    assert figures["journal"]["episodes"] == 0
    assert cli.main(["data", "info", "a.zarr", "--ranges", "--json", "info.json"]) == 0
    figures = json.loads((folder / "info.json").read_text())
    assert "labels: failure" in capsys.readouterr().out and figures["keys"]["action"]["min"] < figures["keys"]["action"]["max"]


def test_the_trash_is_listed_and_emptied_by_id(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = EpisodeSet.open(folder / "a.zarr", writable=True)
    made.set_fact("id", {0: 4, 1: 5, 2: 6})
    assert cli.main(["data", "delete", "a.zarr", "--episodes", "0,2"]) == 0
    assert cli.main(["data", "undelete", "a.zarr"]) == 0
    assert "2 episodes, ids 4,6" in capsys.readouterr().out
    assert cli.main(["data", "undelete", "a.zarr", "--id", "5"]) == 2
    assert "no episode with id 5 in the trash" in capsys.readouterr().err
    assert cli.main(["data", "undelete", "a.zarr", "--id", "6", "--last"]) == 2
    assert cli.main(["data", "undelete", "a.zarr", "--id", "6"]) == 0
    assert EpisodeSet.open(folder / "a.zarr").episode_field("id").tolist() == [5, 6]
    assert cli.main(["data", "undelete", "a.zarr", "--last"]) == 0
    assert EpisodeSet.open(folder / "a.zarr").episode_field("id").tolist() == [4, 5, 6]
    capsys.readouterr()
    assert cli.main(["data", "undelete", "a.zarr", "--all"]) == 2 and "its trash is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("delete a.zarr", "of which episodes? give --episodes"),
        ("label a.zarr --label success --by x", "which episodes? give --episodes"),
        ("filter a.zarr --episodes 1", "want a name for the list"),
        ("filter a.zarr x --remove --episodes 1", "--remove takes the whole list away"),
        ("split a.zarr --names same same", "want two different names"),
        ("split a.zarr --where steps>1", "the selection takes 3 of 3 episodes"),
        ("rename a.zarr", "want one of --to NEW"),
        ("rename a.zarr --key img", "want old=new, got 'img'"),
        ("stats a.zarr --keys actoin", "unknown key 'actoin'; did you mean 'action'?"),
        ("stats a.zarr --where steps>1000", "the selection takes no episode"),
    ],
)
def test_what_is_unclear_is_refused_in_one_line(
    folder: Path, command: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = fingerprint(folder)
    assert cli.main(["data", *command.split()]) == 2
    said = capsys.readouterr().err.strip()
    assert says in said and "\n" not in said and fingerprint(folder) == before


def test_statistics_are_printed_by_element_and_never_decode_an_image(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for chunk in (folder / "a.zarr/data/img").glob("c.*"):
        if chunk.is_file():
            chunk.write_bytes(b"no image")
    assert cli.main(["data", "stats", "a.zarr", "--json", "out.json"]) == 0
    said, figures = capsys.readouterr().out, json.loads((folder / "out.json").read_text())
    assert "not read: img" in said and "state[" in said
    rows = EpisodeSet.open(folder / "a.zarr").read("action").astype(float)
    np.testing.assert_allclose(figures["keys"]["action"]["std"], rows.std(0))
    np.testing.assert_allclose(figures["keys"]["action"]["quantiles"]["0.5"], np.median(rows, axis=0))
    assert figures["keys"]["action"]["quantiles_are"] == "exact"


FAST = "--steps 3 --batch-size 8 --policy.width 16 --policy.depth 1 --policy.steps 2 --save-every 3 --val-every 3 --log-every 3"
FAST += " --precision fp32 --device cpu --no-tensorboard --warmup 1 --dataset.no-mirror"


def test_a_filter_trains_and_what_is_outside_it_is_not_looked_at(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.zarr"
    shutil.copytree(root / "tests/fixtures/schema1_pusht.zarr", path)
    made = EpisodeSet.open(path, writable=True)
    set_filter(made, "good", np.array([0, 2]))
    set_filter(made, "late", np.array([2]))
    zarr.open(path, mode="r+")["data/action"][made.span(1)[0] + 3] = np.nan
    command = ["train", "pusht_flow", "--dataset.path", str(path), *FAST.split()]
    assert cli.main([*command, "--out", str(tmp_path / "all")]) == 2
    assert "action: NaN or infinity in episode 1, row 3" in capsys.readouterr().err
    assert cli.main([*command, "--out", str(tmp_path / "run"), "--dataset.filter", "good", "--dataset.val-filter", "late"]) == 0
    kept = checkpoint.read_config(checkpoint.resolve(tmp_path / "run"))
    assert (kept.dataset.filter, kept.dataset.val_filter) == ("good", "late")
    stats = json.loads((checkpoint.resolve(tmp_path / "run") / "stats.json").read_text())
    used = made.episode(0)["action"]
    scale = np.array(stats["action"]["scale"])
    np.testing.assert_allclose(scale, 2 / np.ptp(used, axis=0), rtol=1e-5)
    for flag, says in (("goood", "no filter 'goood'; did you mean 'good'?"), ("empty", "filter 'empty' holds no episode")):
        made.set_fact("filter_empty", {0: np.int8(0)})
        capsys.readouterr()
        assert cli.main([*command, "--out", str(tmp_path / "no"), "--dataset.filter", flag]) == 2
        assert says in capsys.readouterr().err and not (tmp_path / "no").exists()


def test_the_validation_episodes_come_from_inside_the_filter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make(tmp_path / "a.zarr", lengths=(5,) * 10)
    set_filter(made, "good", np.arange(2, 9))
    set_filter(made, "val", np.array([0, 3]))
    train, val = pick_episodes(DatasetConfig(filter="good", val_ratio=0.3), made, seed=1)
    assert sorted([*train, *val]) == list(range(2, 9)) and len(val) == 2
    train, val = pick_episodes(DatasetConfig(val_filter="val"), made, seed=1)
    assert val.tolist() == [0, 3] and sorted([*train, *val]) == list(range(10))
    train, val = pick_episodes(DatasetConfig(filter="good", val_filter="val", max_episodes=3), made, seed=1)
    assert val.tolist() == [0, 3] and len(train) == 3 and set(train) <= {2, 4, 5, 6, 7, 8}
    assert "episodes 3 are in filter 'good' and in val_filter 'val'" in capsys.readouterr().err
    plain = [pick_episodes(DatasetConfig(val_ratio=0.2, max_episodes=4), made, seed=s)[0].tolist() for s in (0, 0, 1)]
    assert plain[0] == plain[1] != plain[2]
