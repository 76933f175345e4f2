"""The loader's order depends on seed and position only, and a restored loader goes on where it was."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn.data.store import EpisodeSet
from robolearn.data.windows import Windows
from robolearn.errors import CheckpointError, DatasetError
from robolearn.training.loader import Loader


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
