"""The masks, size and initialisation that Past-Token Prediction relies on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robolearn.nets.transformer import Transformer

HORIZON, N_OBS = 12, 5


@pytest.fixture(scope="module")
def net() -> Transformer:
    torch.manual_seed(0)
    net = Transformer(3, HORIZON, N_OBS, 7, width=32, layers=3, heads=4).eval()
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    return net


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(2, HORIZON, 3), torch.rand(2), torch.randn(2, N_OBS, 7)


@pytest.mark.parametrize("k", range(N_OBS))
def test_observation_k_is_seen_from_token_k_on_and_not_before(net: Transformer, k: int) -> None:
    x, t, cond = inputs()
    other = cond.clone()
    other[:, k] += 1
    before, after = net(x, t, cond), net(x, t, other)
    assert torch.equal(before[:, :k], after[:, :k])
    assert not torch.equal(before[:, k:], after[:, k:])


@pytest.mark.parametrize("h", range(HORIZON))
def test_a_noisy_token_is_seen_by_itself_and_later_ones_only(net: Transformer, h: int) -> None:
    x, t, cond = inputs()
    other = x.clone()
    other[:, h] += 1
    before, after = net(x, t, cond), net(other, t, cond)
    assert torch.equal(before[:, :h], after[:, :h])
    assert (before[:, h:] != after[:, h:]).any(dim=-1).all()


def test_every_token_sees_the_time(net: Transformer) -> None:
    x, t, cond = inputs()
    assert (net(x, t, cond) != net(x, t + 0.3, cond)).any(dim=-1).all()


def test_without_causality_every_token_sees_everything() -> None:
    torch.manual_seed(0)
    net = Transformer(3, HORIZON, N_OBS, 7, width=32, layers=1, heads=4, causal=False).eval()
    x, t, cond = inputs()
    other = cond.clone()
    other[:, -1] += 1
    assert (net(x, t, cond) != net(x, t, other)).any(dim=-1).all()


def test_the_published_setting_for_square_has_its_published_size() -> None:
    net = Transformer(action_dim=10, horizon=32, n_obs=16, cond_dim=137)
    assert sum(p.numel() for p in net.parameters()) == 9_006_858


def test_weights_and_positions_start_at_std_002_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    net = Transformer(action_dim=10, horizon=32, n_obs=16, cond_dim=137)
    for name, p in net.named_parameters():
        if "norm" in name:
            continue
        if name.endswith("bias"):
            assert (p == 0).all(), name
        else:
            assert abs(float(p.std()) - 0.02) < 0.002, name


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    net = Transformer(3, HORIZON, N_OBS, 7, width=32, layers=2, heads=4, dropout=0.3)
    x, t, cond = inputs()
    assert not torch.equal(net(x, t, cond), net(x, t, cond))
    net.eval()
    assert torch.equal(net(x, t, cond), net(x, t, cond))


def test_training_without_dropout_computes_what_evaluation_does() -> None:
    torch.manual_seed(0)
    net = Transformer(3, HORIZON, N_OBS, 7, width=32, layers=2, heads=4, dropout=1e-9)
    x, t, cond = inputs()
    torch.testing.assert_close(net.train()(x, t, cond), net.eval()(x, t, cond), rtol=1e-5, atol=1e-6)
