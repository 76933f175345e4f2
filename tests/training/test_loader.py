"""The loader's order depends on seed and position only, and a restored loader goes on where it was."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from robolearn.core import ArraySpec, Spec
from robolearn.data.normalize import Normalizer
from robolearn.data.stats import compute_stats
from robolearn.data.store import EpisodeSet
from robolearn.data.windows import Windows
from robolearn.errors import CheckpointError, DatasetError
from robolearn.training.loader import Loader
from robolearn.training.meter import shown
from robolearn.training.trainer import Scale

PICTURES = Spec({"img": ArraySpec((8, 8, 3), "uint8")}, ArraySpec((2,)), 10.0)


@pytest.fixture(scope="module")
def windows(root: Path) -> Windows:
    """Returns the windows of the three-episode fixture."""
    return Windows(EpisodeSet.open(root / "tests/fixtures/schema1_pusht.zarr"), ("state",))


def take(loader: Loader, n: int) -> list[torch.Tensor]:
    return [batch["action"].clone() for batch in islice(iter(loader), n)]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_order_is_the_same_for_any_number_of_workers(windows: Windows, workers: int) -> None:
    alone, many = take(Loader(windows, 32, 0), 11), take(Loader(windows, 32, 0, workers=workers), 11)
    assert all(torch.equal(a, b) for a, b in zip(alone, many, strict=True))


def test_another_seed_is_another_order(windows: Windows) -> None:
    assert not torch.equal(take(Loader(windows, 32, 0), 1)[0], take(Loader(windows, 32, 1), 1)[0])


def test_an_epoch_gives_no_window_twice_and_the_next_one_is_shuffled_anew(windows: Windows) -> None:
    loader = Loader(windows, 32, 0)
    first, second = (np.concatenate([loader.indices(loader.per_epoch * e + k) for k in range(loader.per_epoch)]) for e in (0, 1))
    assert len(set(first)) == len(first) == loader.per_epoch * 32 and len(windows) - len(first) < 32
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("given", [0, 3, 9])
def test_a_restored_loader_continues_exactly(windows: Windows, given: int, workers: int) -> None:
    whole = take(Loader(windows, 32, 0), 14)
    interrupted = Loader(windows, 32, 0, workers=workers)
    take(interrupted, given)
    resumed = Loader(windows, 32, 0, workers=workers)
    resumed.restore(interrupted.state())
    assert all(torch.equal(a, b) for a, b in zip(whole[given:], take(resumed, 14 - given), strict=True))


def test_a_batch_larger_than_the_set_is_filled(windows: Windows) -> None:
    batch = next(iter(Loader(windows, 1000, 0)))
    assert batch["action"].shape == (1000, 16, 2) and batch["obs"]["state"].shape == (1000, 2, 5)
    assert len(np.unique(Loader(windows, 1000, 0).indices(0))) == len(windows)


def test_a_state_of_another_run_is_refused(windows: Windows) -> None:
    state = Loader(windows, 32, 0).state()
    with pytest.raises(CheckpointError, match="trained with seed 0, this run has 1"):
        Loader(windows, 32, 1).restore(state)


def test_no_windows_no_loader(root: Path) -> None:
    dataset = EpisodeSet.open(root / "tests/fixtures/schema1_pusht.zarr")
    with pytest.raises(DatasetError, match="want at least one window"):
        Loader(Windows(dataset, ("state",), episodes=[]), 8, 0)


def test_images_stay_uint8_until_they_are_on_the_device(tmp_path: Path) -> None:
    dataset = EpisodeSet.create(tmp_path / "a.zarr", PICTURES, task="toy", env={}, durable=False)
    rows = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), np.uint8)
    dataset.append({"img": rows, "action": np.zeros((30, 2), np.float32)})
    windows = Windows(dataset, ("img",), 2, 4, 0)
    batch = next(iter(Loader(windows, 4, 0, workers=2, device="cpu")))
    assert batch["obs"]["img"].dtype == torch.uint8 and batch["obs"]["img"].shape == (4, 2, 8, 8, 3)
    normalizer = Normalizer.fit(compute_stats(dataset, ("img", "action")), {})
    placed = Scale(normalizer, PICTURES, torch.device("cpu"))(batch)
    assert placed.obs["img"].dtype == torch.uint8, "the network itself turns them into floats"


@pytest.mark.parametrize("workers", [0, 2])
def test_no_zarr_call_is_made_while_batches_come(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = EpisodeSet.create(tmp_path / "a.zarr", PICTURES, task="toy", env={}, durable=False)
    for seed in range(3):
        rows = np.random.default_rng(seed).integers(0, 256, (30, 8, 8, 3), np.uint8)
        dataset.append({"img": rows, "action": np.zeros((30, 2), np.float32)})
    windows = Windows(dataset, ("img",), 2, 4, 0)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("zarr was asked while training")

    for owner, name in ((zarr.Array, "__getitem__"), (zarr.storage.LocalStore, "get"), (zarr.storage.LocalStore, "get_sync")):
        monkeypatch.setattr(owner, name, never)
    assert len(take(Loader(windows, 8, 0, workers=workers), 25)) == 25


def test_a_log_line_says_seconds_of_data_and_hints_when_training_waits_for_it() -> None:
    row = {"loss": 0.5, "step_s": 0.09, "data_s": 0.01, "samples_per_s": 640.0}
    assert shown(row) == "loss 0.5000, step_s 0.0900, data_s 0.0100, 640 samples/s"
    assert "waits for data: try --dataset.workers 2" in shown({**row, "data_s": 0.09})
