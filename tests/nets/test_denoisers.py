"""What holds for every denoiser, and what holds for one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robolearn.errors import ConfigError
from robolearn.nets.denoiser import AtTimes
from robolearn.nets.mlp import MLP
from robolearn.nets.replay import Replayed
from robolearn.nets.transformer import Transformer
from robolearn.nets.unet1d import UNet1d
from tests.nets import reference_unet

SHAPE = dict(action_dim=3, horizon=16, n_obs=2, cond_dim=5)
MAKE = {
    "mlp": lambda: MLP(**SHAPE, width=32, blocks=2),
    "unet1d": lambda: UNet1d(**SHAPE, dims=(16, 32), step_dim=16),
    "transformer": lambda: Transformer(**SHAPE, width=32, layers=2, heads=2, dropout=0.0),
}


def inputs(batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(batch, 16, 3), torch.rand(batch), torch.randn(batch, 2, 5)


def stirred(name: str) -> nn.Module:
    """Returns a denoiser whose zero-initialised weights are random, so that every path shows in the output."""
    torch.manual_seed(0)
    net = MAKE[name]()
    for p in net.parameters():
        nn.init.normal_(p, std=0.2)
    return net


@pytest.mark.parametrize("name", MAKE)
def test_output_has_the_shape_of_the_chunk(name: str) -> None:
    x, t, cond = inputs(3)
    assert MAKE[name]()(x, t, cond).shape == x.shape


@pytest.mark.parametrize("name", MAKE)
def test_condition_then_denoise_is_forward(name: str) -> None:
    net = stirred(name)
    x, t, cond = inputs(3)
    torch.testing.assert_close(net.denoise(x, net.modulate(t, net.condition(cond))), net(x, t, cond), rtol=0, atol=0)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("rows", [1, 3, 200])  # 200: too many to be prepared together
def test_times_prepared_together_equal_times_one_by_one(name: str, rows: int) -> None:
    net = stirred(name).eval()
    x, _, cond = inputs(rows)
    with torch.no_grad():
        denoise = AtTimes(net, cond, [0.0, 0.5, 0.9])
        for t in (0.9, 0.0, 0.25):  # the last one was not announced
            want = net(x, torch.full((rows,), t), cond)
            assert float((denoise(x, t) - want).abs().max() / want.abs().max()) < 1e-5


@pytest.mark.parametrize("name", MAKE)
def test_without_a_time_it_is_a_regression_at_time_zero(name: str) -> None:
    net = stirred(name)
    x, _, cond = inputs(3)
    torch.testing.assert_close(net(x, None, cond), net(x, torch.zeros(3), cond), rtol=0, atol=0)


@pytest.mark.parametrize("name", MAKE)
def test_every_input_and_every_weight_matters(name: str) -> None:
    net = stirred(name)
    x, t, cond = (v.requires_grad_() for v in inputs(3))
    net(x, t, cond).square().sum().backward()
    for what, grad in {"x": x.grad, "t": t.grad, "cond": cond.grad, **{n: p.grad for n, p in net.named_parameters()}}.items():
        assert grad is not None and grad.abs().sum() > 0, what


@pytest.mark.parametrize("name", MAKE)
def test_a_batch_of_plans_equals_single_plans(name: str) -> None:
    net = stirred(name).eval()
    x, t, cond = inputs(40)  # above and below the batch at which the U-Net's products change
    with torch.no_grad():
        together = net(x, t, cond)
        alone = torch.cat([net(x[i : i + 1], t[i : i + 1], cond[i : i + 1]) for i in range(40)])
    assert float((together - alone).abs().max() / alone.abs().max()) < 1e-5


@pytest.mark.parametrize("name", MAKE)
def test_it_fits_a_chunk_that_depends_on_the_first_observation(name: str) -> None:
    torch.manual_seed(0)
    net = MAKE[name]()
    cond = torch.randn(32, 2, 5)
    target = torch.tanh(cond[:, 0] @ torch.randn(5, 48) / 2).view(32, 16, 3)
    x, t = torch.zeros(32, 16, 3), torch.zeros(32)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    first = last = nn.functional.mse_loss(net(x, t, cond), target)
    for _ in range(100 if name == "transformer" else 40):
        optimizer.zero_grad()
        last.backward()
        optimizer.step()
        last = nn.functional.mse_loss(net(x, t, cond), target)
    assert last < 0.6 * first


@pytest.mark.parametrize("name", MAKE)
def test_bf16_autocast_is_near_fp32(name: str) -> None:
    net = stirred(name)
    x, t, cond = inputs(40)
    want = net(x, t, cond)
    with torch.autocast("cpu", torch.bfloat16):
        got = net(x, t, cond).float()
    assert float((got - want).norm() / want.norm()) < 0.1


def test_the_unet_equals_one_of_library_layers_in_values_and_gradients() -> None:
    torch.manual_seed(0)
    net = UNet1d(2, 16, 2, 20)
    x, t, cond = torch.randn(40, 16, 2), torch.rand(40), torch.randn(40, 2, 20)
    want = reference_unet.denoise(net, x, t, cond)
    wanted = torch.autograd.grad(want.square().mean(), list(net.parameters()))
    got = net(x, t, cond)
    grads = torch.autograd.grad(got.square().mean(), list(net.parameters()))
    assert float((got - want).abs().max() / want.abs().max()) < 1e-4
    for name, mine, theirs in zip(dict(net.named_parameters()), grads, wanted, strict=False):
        assert float((mine - theirs).norm() / theirs.norm()) < 1e-4, name


def test_the_unet_has_the_size_of_the_published_layout() -> None:
    assert 4.5e6 < sum(p.numel() for p in UNet1d(2, 16, 2, 20).parameters()) < 4.6e6


def test_a_horizon_that_the_unet_cannot_halve_is_refused() -> None:
    with pytest.raises(ConfigError, match="horizon must be a multiple of 4, got 18"):
        UNet1d(2, 18, 2, 20)


@pytest.mark.parametrize("name", MAKE)
def test_a_traced_denoiser_computes_what_the_denoiser_computes(name: str) -> None:
    net = stirred(name).eval()
    replayed = Replayed(net)
    with torch.inference_mode():
        for rows in (1, 1, 1, 2):  # a trace's first calls are its warm-up; two rows are not traced
            x, t, cond = inputs(rows)
            torch.testing.assert_close(replayed(x, t, cond), net(x, t, cond), rtol=1e-6, atol=1e-6)
    assert len(replayed.captured) == 1
    x, t, cond = inputs(1)
    replayed(x, t, cond).sum().backward()
    assert all(p.grad is not None for p in net.parameters()), "with gradients it is the denoiser itself"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", MAKE)
def test_a_captured_denoiser_replays_what_the_denoiser_computes(name: str) -> None:
    net = stirred(name).cuda().eval()
    replayed = Replayed(net)
    with torch.no_grad():
        for _ in range(3):
            x, t, cond = (v.cuda() for v in inputs(1))
            torch.testing.assert_close(replayed(x, t, cond), net(x, t, cond), rtol=1e-4, atol=1e-5)
    assert len(replayed.captured) == 1
