"""Past-token prediction: masks, layout, loss slice, the linear toy (Torne et al., arXiv 2505.09561)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from robolearn.apps._memory_toy import toy
from robolearn.core import ArraySpec, Spec
from robolearn.data.layout import Layout
from robolearn.data.store import EpisodeSet
from robolearn.data.windows import Windows
from robolearn.nets.transformer import Transformer
from robolearn.policies import bc, diffusion, flow
from robolearn.policies._base import Batch, Draws

SPEC = Spec(obs={"o": ArraySpec((1,))}, action=ArraySpec((2,)), hz=10)
TO, H = 4, 9


def config(module, **fields):
    small = dict(n_obs_steps=TO, horizon=H, execute=2, denoiser="transformer", width=16, depth=2, heads=2)
    return module.Config(**{**small, **fields})


def batch(rows: int = 6, horizon: int = H, n_obs: int = TO) -> Batch:
    g = torch.Generator().manual_seed(0)
    return Batch({"o": torch.randn(rows, n_obs, 1, generator=g)}, torch.rand(rows, horizon, 2, generator=g) * 2 - 1, {})


@pytest.mark.parametrize(("n_past", "stride", "mixed"), [(TO - 1, 1, False), (TO - 1, 3, False), (2, 2, True), (0, 1, False)])
def test_a_token_sees_no_later_token_and_no_later_observation(n_past, stride, mixed):
    layout = Layout(TO, H, n_past, stride, mixed)
    torch.manual_seed(0)
    ticks = dict(obs_ticks=layout.obs_ticks, action_ticks=layout.action_ticks)
    net = Transformer(2, H, TO, 1, width=16, layers=2, heads=2, **ticks).eval()
    for p in net.parameters():
        p.data.add_(0.1 * torch.randn(p.shape))
    x, t, cond = torch.randn(1, H, 2), torch.tensor([0.3]), torch.randn(1, TO, 1)
    before = net(x, t, cond)
    for k, tick in enumerate(layout.obs_ticks):
        moved = cond.clone()
        moved[0, k] += 1
        changed = (net(x, t, moved) != before)[0].any(-1)
        assert not changed[[h for h, at in enumerate(layout.action_ticks) if at < tick]].any(), "bit for bit"
        assert changed[[h for h, at in enumerate(layout.action_ticks) if at >= tick]].any()
    for h in range(H):
        moved = x.clone()
        moved[0, h] += 1
        changed = (net(moved, t, cond) != before)[0].any(-1)
        assert not changed[:h].any() and changed[h:].all()
    assert (net(x, torch.tensor([0.7]), cond) != before).any(-1).all(), "every token sees the time"


@pytest.mark.parametrize("module", [diffusion, flow, bc])
def test_the_loss_counts_the_tokens_it_is_told_to(module, monkeypatch):
    for past_loss, first in ((-1, 0), (TO - 1, 0), (1, TO - 2), (0, TO - 1)):
        net = module.Net(config(module, past_loss=past_loss), SPEC)
        outputs = []
        head = net.head if module is bc else net.denoiser

        def keep(module, args, out, outputs=outputs):
            out.retain_grad()
            outputs.append(out)

        head.register_forward_hook(keep)
        net(batch(), None, Draws(torch.Generator().manual_seed(0)))[0].backward()
        counted = outputs[0].grad.abs().sum(dim=(0, 2)) > 0
        assert counted.tolist() == [h >= first for h in range(H)]


@pytest.mark.parametrize("module", [diffusion, flow])
def test_the_whole_loss_is_the_weighted_mean_of_past_and_future(module):
    losses = {}
    for past_loss in (-1, 0):
        torch.manual_seed(0)
        net = module.Net(config(module, past_loss=past_loss), SPEC).eval()
        losses[past_loss] = net(batch(), None, Draws(torch.Generator().manual_seed(3)))[0]
    torch.manual_seed(0)
    net = module.Net(config(module), SPEC).eval()
    net.counted = lambda tokens: tokens[:, : TO - 1]
    past = net(batch(), None, Draws(torch.Generator().manual_seed(3)))[0]
    torch.testing.assert_close(losses[-1], (TO - 1) / H * past + (H - TO + 1) / H * losses[0])


@pytest.mark.parametrize("module", [diffusion, flow, bc])
def test_with_one_observation_past_token_prediction_changes_nothing(module):
    losses = []
    for past_loss in (-1, 0):
        torch.manual_seed(0)
        net = module.Net(config(module, n_obs_steps=1, past_loss=past_loss), SPEC).eval()
        losses.append(net(batch(n_obs=1), None, Draws(torch.Generator().manual_seed(3)))[0])
    assert torch.equal(*losses)


@pytest.fixture(scope="module")
def counting(tmp_path_factory) -> EpisodeSet:
    """Two episodes whose action and observation are the time."""
    made = EpisodeSet.create(tmp_path_factory.mktemp("set") / "t.zarr", SPEC, task="", env={})
    for _ in range(2):
        ticks = np.arange(60, dtype=np.float32)
        made.append({"o": ticks[:, None], "action": np.stack([ticks, ticks], 1)})
    return EpisodeSet.open(made.path)


@pytest.mark.parametrize("stride", [1, 5])
def test_observations_and_past_tokens_are_strided_and_the_future_is_dense(counting, stride):
    layout = Layout(TO, H, TO - 1, stride)
    windows = Windows(counting, ["o"], layout=layout, pad_after=0)
    at = TO * stride - 1  # the raw window then begins at tick 0 and its newest observation is index To s - 1
    assert windows.place_of(np.array([at])) == at
    got = windows.batch(np.array([at]))
    wanted = [stride * (k + 1) - 1 for k in range(TO)]
    assert got["obs"]["o"][0, :, 0].tolist() == wanted
    assert got["action"][0, :, 0].tolist() == wanted + list(range(TO * stride, TO * stride + H - TO))
    assert not got["is_pad"].any()
    early = windows.batch(np.array([0]))
    assert early["obs"]["o"][0, :, 0].tolist() == [0] * TO, "before the episode the first frame is repeated"
    assert early["action"][0, :, 0].tolist() == [0] * (TO - 1) + list(range(H - TO + 1))
    assert early["is_pad"][0].tolist() == [True] * (TO - 1) + [False] * (H - TO + 1)


def test_a_mixed_history_is_strided_in_its_older_half_only(counting):
    windows = Windows(counting, ["o"], layout=Layout(5, H, 4, 7, mixed=True), pad_after=0)
    assert windows.batch(np.array([30]))["obs"]["o"][0, :, 0].tolist() == [30 - 2 - 14, 30 - 2 - 7, 28, 29, 30]


def test_without_past_tokens_the_sequence_begins_now(counting):
    windows = Windows(counting, ["o"], layout=Layout(TO, H, 0, 3), pad_after=0)
    got = windows.batch(np.array([20]))
    assert got["action"][0, :, 0].tolist() == list(range(20, 20 + H))
    assert got["obs"]["o"][0, :, 0].tolist() == [11, 14, 17, 20]


def test_more_past_tokens_than_observations_are_another_choice_than_a_window():
    net = flow.Net(config(flow, n_obs_steps=2, n_past_actions=5, horizon=H), SPEC)
    assert net.config.layout.action_ticks == (-5, -4, -3, -2, -1, 0, 1, 2, 3) and net.config.layout.obs_ticks == (-1, 0)
    loss, _ = net(batch(n_obs=2), None, Draws(torch.Generator()))
    assert torch.isfinite(loss)


@pytest.mark.parametrize("denoiser", ["mlp", "unet1d"])
def test_the_other_denoisers_predict_the_past_too(denoiser):
    net = diffusion.Net(dataclasses.replace(config(diffusion), denoiser=denoiser, horizon=8, dims=(16, 32), past_loss=0), SPEC)
    loss, _ = net(batch(horizon=8), None, Draws(torch.Generator()))
    assert torch.isfinite(loss) and net.counted(batch(horizon=8).action).shape[1] == 8 - (TO - 1)


def test_impossible_pasts_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"past_loss: want -1 \(all\) or 0 to 3"):
        config(flow, past_loss=4)
    with pytest.raises(ValueError, match="horizon 9 is too short: 8 past and 2 executed"):
        config(flow, n_past_actions=8)


def test_the_linear_toy_shows_what_noised_past_tokens_do_when_no_loss_counts_them():
    rng = np.random.default_rng(0)
    found = {arm: toy(arm, rng, samples=6000) for arm in ("ptp", "window_released", "window_clean")}
    assert found["ptp"] == pytest.approx(0.092, abs=0.006)
    assert found["window_released"] == pytest.approx(0.681, abs=0.02)
    assert found["window_clean"] == pytest.approx(0.089, abs=0.006)
