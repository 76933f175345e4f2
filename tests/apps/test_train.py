"""`robolearn train`: a preset and flags in, a run folder out; bad input is one line, exit code 2, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from robolearn.apps.train import mirror_of
from robolearn.cli import main
from robolearn.core import ArraySpec, Spec
from robolearn.data.store import EpisodeSet
from robolearn.errors import ConfigError
from robolearn.training import checkpoint
from robolearn.training.settings import DatasetConfig, TrainConfig

FAST = "--steps 4 --batch-size 8 --policy.width 16 --policy.depth 1 --policy.steps 2 --save-every 2 --val-every 2 --log-every 2"
FAST += " --precision fp32 --device cpu --no-tensorboard --warmup 1"


def make_set(path: Path, *, action: int = 2, state: int = 5, nan: bool = False) -> Path:
    spec = Spec(obs={"state": ArraySpec((state,)), "keypoint": ArraySpec((9, 2))}, action=ArraySpec((action,)), hz=10)
    made = EpisodeSet.create(path, spec, task="pusht", env={})
    rng = np.random.default_rng(0)
    for seed in range(3):
        rows = {key: rng.uniform(0, 512, (20, *array.shape)).astype(np.float32) for key, array in spec.obs.items()}
        rows["action"] = rng.uniform(0, 512, (20, action)).astype(np.float32)
        made.append(rows, seed=seed)
    if nan:  # the store refuses to append NaN: another program wrote this
        zarr.open(path, mode="r+")["data/action"][27] = np.nan
    return path


def train(dataset: Path, out: Path, more: str = "") -> int:
    return main(["train", "pusht_flow", "--dataset.path", str(dataset), "--out", str(out), *f"{FAST} {more}".split()])


def one_line(capsys) -> str:
    text = capsys.readouterr().err.strip().splitlines()
    assert len(text) == 1 and text[0].startswith("robolearn") and "Traceback" not in text[0]
    return text[0]


def test_a_preset_with_flags_trains_and_the_run_folder_is_complete(tmp_path):
    data, out = make_set(tmp_path / "a.zarr"), tmp_path / "run"
    assert train(data, out) == 0
    folder = checkpoint.resolve(out)
    names = {p.name for p in folder.iterdir()}
    assert names >= {"weights.safetensors", "config.yaml", "spec.json", "stats.json", "versions.json", "state.safetensors"}
    kept = checkpoint.read_config(folder)
    assert (kept.task, kept.steps, kept.policy.width, kept.dataset.path) == ("pusht", 4, 16, str(data))
    assert checkpoint.load_policy(out).spec.action.shape == (2,)


def test_an_existing_run_is_refused_resumed_or_overwritten(tmp_path, capsys):
    data, out = make_set(tmp_path / "a.zarr"), tmp_path / "run"
    assert train(data, out) == 0
    capsys.readouterr()
    before = (checkpoint.resolve(out) / "weights.safetensors").read_bytes()
    assert train(data, out) == 2
    assert "this run folder exists already; give --resume to continue it, --overwrite to replace it" in one_line(capsys)
    assert (checkpoint.resolve(out) / "weights.safetensors").read_bytes() == before
    assert train(data, out, "--resume") == 0
    assert train(data, out, "--overwrite") == 0


@pytest.mark.parametrize(
    ("make", "more", "says"),
    [
        (lambda p: p / "absent.zarr", "", "absent.zarr"),
        (lambda p: make_set(p / "wide.zarr", action=3), "", "action has shape (3,), the task takes (2,)"),
        (lambda p: make_set(p / "long.zarr", state=6), "", "observation 'state' has shape (6,), the task shows (5,)"),
        (lambda p: make_set(p / "nan.zarr", nan=True), "", "action: NaN or infinity in episode 1, row 7"),
        (lambda p: make_set(p / "a.zarr"), "--policy.obs stat", "no observation 'stat'; did you mean 'state'?"),
        (lambda p: make_set(p / "a.zarr"), "--task pushd", "unknown task 'pushd'; did you mean 'pusht'?"),
        (lambda p: make_set(p / "a.zarr"), "--policy.stepz 3", "unknown flag --policy.stepz; did you mean --policy.steps?"),
        (lambda p: make_set(p / "a.zarr"), "--policy.horizon 4", "horizon 4 is too short"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path, capsys, make, more, says):
    data = make(tmp_path)
    assert train(data, tmp_path / "run", more) == 2
    assert says in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_a_yaml_with_an_unknown_field_names_file_field_and_the_nearest(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("task: pusht\npolicy: {name: flow, horizons: 16}\n")
    assert main(["train", str(tmp_path / "mine.yaml")]) == 2
    line = one_line(capsys)
    assert "mine.yaml: policy: unknown field 'horizons'; did you mean 'horizon'?" in line
    assert main(["train", "pusht_flo"]) == 2
    assert "unknown train config 'pusht_flo'; did you mean 'pusht_flow'?" in one_line(capsys)
    (tmp_path / "bare.yaml").write_text("task: pusht\n")
    assert main(["train", str(tmp_path / "bare.yaml")]) == 2
    assert "policy.name is required" in one_line(capsys)


def test_mirrored_episodes_are_trained_on_and_a_task_without_a_mirror_is_refused(tmp_path):
    data = make_set(tmp_path / "a.zarr")
    assert train(data, tmp_path / "run", "--dataset.mirror") == 0
    assert checkpoint.read_config(checkpoint.resolve(tmp_path / "run")).dataset.mirror
    with pytest.raises(ConfigError, match="task 'lift' is not its own mirror image"):
        mirror_of(TrainConfig(task="lift", dataset=DatasetConfig(mirror=True)))
