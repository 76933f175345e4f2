"""What a view did not see is not learnt: steps that begin or end in a filled row add nothing to MT-pi's loss."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn.core import ArraySpec, Spec
from robolearn.data.layout import Layout
from robolearn.data.normalize import Normalizer
from robolearn.data.stats import compute_stats
from robolearn.data.store import EpisodeSet
from robolearn.data.windows import Windows
from robolearn.errors import DatasetError, SpecMismatch
from robolearn.policies import mt_pi
from robolearn.policies._base import Batch, Draws
from robolearn.training import trainer
from robolearn.training.loader import Loader
from robolearn.training.settings import DatasetConfig, TrainConfig

VIEWS = {
    1: Spec({"track": ArraySpec((10,))}, ArraySpec((11,)), 10.0),
    2: Spec({"track": ArraySpec((20,))}, ArraySpec((21,)), 10.0),
}
SMALL = dict(obs=("track",), denoiser="mlp", width=32, depth=2, execute=8, steps=2)


def make_net(views: int, **fields) -> mt_pi.Net:
    torch.manual_seed(0)
    net = mt_pi.Net(mt_pi.Config(**{**SMALL, **fields}), VIEWS[views])
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn(p.shape))
    return net


def make_batch(views: int, valid: torch.Tensor | None = None, rows: int = 6) -> Batch:
    action = torch.rand(rows, 16, 10 * views + 1, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Batch({"track": action[:, :1, :-1].clone()}, action, {}, valid=valid)


def loss_of(net: mt_pi.Net, batch: Batch) -> torch.Tensor:
    return net.loss(batch, None, rng=Draws(torch.Generator().manual_seed(3)))[0]


def weighted(net: mt_pi.Net, batch: Batch, counts: slice) -> torch.Tensor:
    """Returns the loss in which only some numbers of an action count, as they do in the whole one."""
    whole = net.inner.action_weight
    assert whole is not None
    net.inner.action_weight = torch.zeros_like(whole)
    net.inner.action_weight[counts] = whole[counts]
    found = loss_of(net, batch)
    net.inner.action_weight = whole
    return found


@pytest.mark.parametrize("objective", ["ddpm", "flow"])
def test_points_that_no_row_saw_add_nothing_and_the_grasp_is_left(objective: str) -> None:
    net = make_net(1, objective=objective, sampler="ddim" if objective == "ddpm" else "euler")
    unseen = torch.zeros(6, 16, 1)
    found, first = loss_of(net, make_batch(1, unseen)), torch.zeros(6, 16, 11)
    first[:, 0] = 1.0  # the step of the first row is 0 by definition and counts always
    first[..., 10] = 1.0
    assert net.seen_steps(unseen).equal(first)
    grasp = weighted(net, make_batch(1), slice(10, 11))
    assert grasp < found < loss_of(net, make_batch(1))
    torch.testing.assert_close(loss_of(net, make_batch(1, torch.ones(6, 16, 1))), loss_of(net, make_batch(1)))


def test_a_step_counts_where_both_of_its_ends_were_seen() -> None:
    net, valid = make_net(1), torch.ones(6, 16, 1)
    valid[0, 5], valid[1, 15] = 0.0, 0.0
    counted = net.seen_steps(valid)[..., 0]
    assert torch.nonzero(counted == 0).tolist() == [[0, 5], [0, 6], [1, 15]]


def test_in_a_joint_row_the_view_that_saw_its_points_still_counts() -> None:
    net, valid = make_net(2), torch.ones(6, 16, 2)
    valid[:, 1:, 1] = 0.0
    masked = net.seen_steps(valid)
    assert masked[:, 1:, :10].all() and not masked[:, 1:, 10:20].any() and masked[..., 20].all()
    whole, found = loss_of(net, make_batch(2)), loss_of(net, make_batch(2, valid))
    seen = weighted(net, make_batch(2), slice(0, 10)) + weighted(net, make_batch(2), slice(20, 21))
    assert seen < found < whole, "the second view's first step is all that is left of it"


def test_parts_of_a_batch_have_the_mean_of_the_whole_ones_loss() -> None:
    """However many rows of a part were seen: the divisor is the same for every part."""
    net = make_net(1)
    valid = (torch.rand(6, 16, 1, generator=torch.Generator().manual_seed(2)) > 0.4).float()
    valid[3:] = 0.0
    whole = loss_of(net, make_batch(1, valid))
    halves = []
    for rank in (0, 1):
        rows = slice(3 * rank, 3 * rank + 3)
        part = trainer._rows(make_batch(1, valid), rows.start, rows.stop)
        assert part.valid is not None and part.valid.equal(valid[rows])
        halves.append(net.loss(part, None, rng=Draws(torch.Generator().manual_seed(3), rank, 2))[0])
    torch.testing.assert_close(torch.stack(halves).mean(), whole)


def packed(folder: Path, n_valid: int = 1) -> EpisodeSet:
    """Returns a training set as `tracks pack` writes it, the third of five rows filled in."""
    extra = {"valid": ArraySpec((n_valid,), "uint8")} if n_valid else {}
    made = EpisodeSet.create(folder / "train.zarr", VIEWS[1], task="", env={}, extra=extra, durable=False)
    rng = np.random.default_rng(0)
    for kind in ("human", "robot") * 2:
        track = 10 + np.cumsum(rng.uniform(-1, 1, (30, 10)), axis=0).astype(np.float32)
        rows = {"track": track, "action": np.concatenate([track, np.ones((30, 1), np.float32)], axis=1)}
        seen = np.ones((30, max(n_valid, 1)), np.uint8)
        seen[2::5] = 0
        made.append(rows | ({"valid": seen} if n_valid else {}), embodiment=kind)
    return made


def config(folder: Path, **fields) -> TrainConfig:
    base = TrainConfig(dataset=DatasetConfig(val_ratio=0.25), policy=mt_pi.Config(**SMALL), steps=2, batch_size=8, warmup=1)
    quick = dict(precision="fp32", save_every=2, val_every=2, tensorboard=False, threads=1, out=str(folder / "run"))
    return dataclasses.replace(base, **quick, **fields)


def test_a_training_reads_where_points_were_seen_and_a_set_that_does_not_say_it_counts_all(tmp_path: Path) -> None:
    cfg, dataset = config(tmp_path), packed(tmp_path)
    windows, held_out = trainer.make_windows(cfg, dataset, VIEWS[1])
    assert held_out is not None and "valid" in held_out.batch(np.array([0])) and "valid" not in windows.keys
    batch = next(iter(Loader(windows, 8, seed=0)))
    normalizer = Normalizer.fit(compute_stats(dataset, ("track", "action")))
    given = trainer.Scale(normalizer, VIEWS[1], torch.device("cpu"))(batch)
    assert given.valid is not None and given.valid.shape == (8, 16, 1) and 0.7 < given.valid.mean() < 0.9
    assert (trainer.train(cfg, dataset, VIEWS[1]) / "checkpoints").is_dir()
    (tmp_path / "plain").mkdir()
    plain, _ = trainer.make_windows(cfg, packed(tmp_path / "plain", 0), VIEWS[1])
    assert plain.valid is None and "valid" not in plain.batch(np.array([0]))


def test_a_set_that_says_it_of_other_views_is_refused(tmp_path: Path) -> None:
    dataset = packed(tmp_path, 3)
    windows, _ = trainer.make_windows(config(tmp_path), dataset, VIEWS[1])
    normalizer = Normalizer.fit(compute_stats(dataset, ("track", "action")))
    with pytest.raises(SpecMismatch, match=r"want key 'valid' as \(1,\), a number a view, got \(3,\); `robolearn tracks pack`"):
        make_net(1).prepare(windows, normalizer, seed=0)
    with pytest.raises(DatasetError, match="mirror: want actions that were all seen"):
        Windows(dataset, ("track",), layout=Layout(1, 16, 0), pad_after=7, valid="valid", mirror=lambda rows: dict(rows))
