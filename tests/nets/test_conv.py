"""The convolutions laid out time first equal the library's, in values and in gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robolearn.nets import conv


def relative(got: Tensor, want: Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


def time_first(x: Tensor) -> Tensor:
    return x.permute(2, 0, 1).contiguous()


@pytest.mark.parametrize("length", [4, 8, 16, 32])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("how", ["tiled", "unfolded"])
def test_a_convolution_equals_nn_conv1d_in_values_and_gradients(length: int, kernel: int, how: str) -> None:
    torch.manual_seed(length * kernel)
    theirs, ours = nn.Conv1d(48, 64, kernel, padding=kernel // 2, bias=False), conv.Conv(48, 64, kernel, length)
    ours.weight.data = theirs.weight.data.permute(2, 1, 0).contiguous()
    x = torch.randn(40, 48, length, requires_grad=True)
    x_first = time_first(x.detach()).requires_grad_()
    grad = torch.randn(40, 64, length)
    want, got = theirs(x), getattr(ours, how)(x_first)
    want.backward(grad)
    got.backward(time_first(grad))
    assert relative(got, time_first(want)) < 1e-5
    assert relative(x_first.grad, time_first(x.grad)) < 1e-5
    assert relative(ours.weight.grad, theirs.weight.grad.permute(2, 1, 0)) < 1e-5


def test_a_large_batch_takes_the_tiles_and_a_small_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, taken = conv.Conv(3, 5, 5, 8), []
    monkeypatch.setattr(layer, "tiled", lambda x: taken.append("tiled"))
    monkeypatch.setattr(layer, "unfolded", lambda x: taken.append("unfolded"))
    layer(torch.zeros(8, conv.FEW, 3))
    layer(torch.zeros(8, conv.FEW - 1, 3))
    with torch.autocast("cpu", torch.bfloat16):  # the tiles' sums would lose bf16's few digits
        layer(torch.zeros(8, conv.FEW, 3))
    assert taken == ["tiled", "unfolded", "unfolded"]


def test_lengths_without_tiles_are_unfolded() -> None:
    torch.manual_seed(0)
    layer, x = conv.Conv(6, 7, 5, 10), torch.randn(10, 64, 6)
    want = F.conv1d(x.permute(1, 2, 0), layer.weight.permute(2, 1, 0), padding=2)
    assert not layer.has_tiles
    assert relative(layer(x), time_first(want)) < 1e-5


@pytest.mark.parametrize(("outputs", "taps"), [(4, 5), (4, 3), (4, 4)])
def test_cook_toom_is_exact_in_float64(outputs: int, taps: int) -> None:
    gather, filters, spread = conv.cook_toom(outputs, taps)
    rng = np.random.default_rng(0)
    f, x = rng.standard_normal(taps), rng.standard_normal(outputs + taps - 1)
    want = [f @ x[i : i + taps] for i in range(outputs)]
    np.testing.assert_allclose(gather @ ((filters @ f) * (spread @ x)), want, rtol=1e-11, atol=1e-12)


def test_shrink_equals_a_strided_convolution() -> None:
    torch.manual_seed(0)
    theirs, ours, x = nn.Conv1d(12, 12, 3, stride=2, padding=1), conv.Shrink(12), torch.randn(5, 12, 16)
    ours.load_state_dict({"weight": theirs.weight.permute(2, 1, 0), "bias": theirs.bias})
    assert relative(ours(time_first(x)), time_first(theirs(x))) < 1e-5


def test_grow_equals_a_transposed_convolution() -> None:
    torch.manual_seed(0)
    theirs, ours, x = nn.ConvTranspose1d(12, 12, 4, stride=2, padding=1), conv.Grow(12), torch.randn(5, 12, 8)
    ours.load_state_dict({"weight": theirs.weight.permute(2, 0, 1)[[3, 1, 2, 0]], "bias": theirs.bias})
    assert relative(ours(time_first(x)), time_first(theirs(x))) < 1e-5


@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_norm_mish_equals_group_norm_and_mish_in_values_and_gradients(shift: float) -> None:
    torch.manual_seed(0)
    x = (torch.randn(9, 64, 16) + shift).requires_grad_()
    bias, weight, offset = (torch.randn(64, requires_grad=True) for _ in range(3))
    grad = torch.randn(9, 64, 16)
    want = F.mish(F.group_norm(x + bias[:, None], 8, weight, offset))
    want.backward(grad)
    wanted = [time_first(x.grad), bias.grad, weight.grad, offset.grad]
    ours = [time_first(x.detach()).requires_grad_(), *(p.detach().clone().requires_grad_() for p in (bias, weight, offset))]
    got = conv.norm_mish(*ours, groups=8)
    got.backward(time_first(grad))
    assert relative(got, time_first(want)) < 2e-5
    for mine, theirs in zip(ours, wanted, strict=True):
        assert relative(mine.grad, theirs) < 2e-5
    with torch.no_grad():
        assert relative(conv.norm_mish(*ours, groups=8), time_first(want)) < 2e-5


def test_norm_mish_stays_finite_far_from_zero() -> None:
    x = torch.zeros(4, 2, 16, requires_grad=True)
    weight, shift = torch.ones(16), torch.linspace(-200, 200, 16)
    y = conv.norm_mish(x, torch.zeros(16), weight, shift, 8)
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()
    torch.testing.assert_close(y[0, 0], F.mish(shift), rtol=1e-5, atol=1e-4)
