"""What an older robolearn wrote stays good: sets and journals of every released schema open, convert and train."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from robolearn.cli import main
from robolearn.core import Spec
from robolearn.data.journal import Journal
from robolearn.data.store import EpisodeSet
from robolearn.policies import flow
from robolearn.training import checkpoint, trainer
from robolearn.training.settings import DatasetConfig, TrainConfig

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
SETS = sorted(p.name for p in FIXTURES.glob("schema*_*.zarr"))
JOURNALS = sorted(p.name for p in FIXTURES.glob("schema*_*.episodes"))


def trains(dataset: EpisodeSet, keys: tuple[str, ...], out: Path) -> None:
    """Trains a tiny flow policy for three steps."""
    policy = flow.Config(obs=keys, width=16, depth=1, n_obs_steps=2, horizon=8, execute=4, steps=2)
    cfg = TrainConfig(
        dataset=DatasetConfig(path=str(dataset.path), val_ratio=0.3),
        policy=policy,
        out=str(out),
        steps=3,
        batch_size=8,
        warmup=1,
        precision="fp32",
        device="cpu",
        threads=1,
        tensorboard=False,
    )
    spec = dataset.spec
    assert spec is not None
    trainer.train(cfg, dataset, Spec(spec.select(keys).obs, spec.action, spec.hz))
    assert (checkpoint.resolve(out) / "weights.safetensors").is_file()


@pytest.mark.parametrize("name", SETS)
def test_sets_of_every_schema_open_convert_and_train(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    shutil.copytree(FIXTURES / name, path)
    opened = EpisodeSet.open(path)
    assert opened.n_episodes == 3 and main(["data", "info", str(path)]) == 0
    assert main(["data", "convert", str(path), str(tmp_path / "b.zarr"), "--to", "replay_buffer"]) == 0
    again = EpisodeSet.open(tmp_path / "b.zarr")
    for key in opened.keys:
        np.testing.assert_array_equal(again.read(key), opened.read(key))
    trains(opened, ("state",), tmp_path / "run")


@pytest.mark.parametrize("name", JOURNALS)
def test_journals_of_every_schema_open_pack_convert_and_train(name: str, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / name, tmp_path / name)
    journal, path = Journal(tmp_path / name), tmp_path / name.replace(".episodes", ".zarr")
    for number in journal.ids():
        journal.episode(number).verify()
    assert main(["data", "salvage", str(path)]) == 0
    made = EpisodeSet.open(path)
    assert made.episode_field("label").tolist() == ["failure", "success", "failure"]
    assert np.diff(made.episode_ends, prepend=0).tolist() == [20, 14, 17]
    np.testing.assert_allclose(made.read("joints", 0, 20)[:, 0], np.arange(20) / 10, atol=1e-6)
    assert made.read("front").std() > 10
    assert main(["data", "convert", str(path), str(tmp_path / "b.zarr"), "--to", "replay_buffer"]) == 0
    trains(made, ("joints",), tmp_path / "run")
