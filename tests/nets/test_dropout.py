"""Dropout drops what it says, keeps the mean, and is reproducible."""

from __future__ import annotations

import pytest
import torch

from robolearn.nets.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_it_drops_its_rate_and_keeps_the_mean(rate: float) -> None:
    torch.manual_seed(0)
    y = Dropout(rate)(torch.ones(1000, 1001))
    assert abs(float((y == 0).float().mean()) - rate) < 0.003
    assert abs(float(y.mean()) - 1) < 0.005
    assert torch.allclose(y[y != 0], torch.tensor(1 / (1 - rate)))


def test_neighbouring_entries_are_dropped_independently() -> None:
    torch.manual_seed(0)
    kept = (Dropout(0.3)(torch.ones(400_000)) != 0).float().view(-1, 4)
    assert (torch.corrcoef(kept.T) - torch.eye(4)).abs().max() < 0.01


def test_the_same_seed_drops_the_same() -> None:
    x = torch.ones(7, 9)
    torch.manual_seed(3)
    first = Dropout(0.3)(x)
    torch.manual_seed(3)
    assert torch.equal(first, Dropout(0.3)(x))


def test_gradients_pass_where_values_did() -> None:
    x = torch.ones(64, 5, requires_grad=True)
    y = Dropout(0.4)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_evaluation_changes_nothing() -> None:
    x = torch.randn(5, 5)
    assert Dropout(0.9).eval()(x) is x
