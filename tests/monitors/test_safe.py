"""SAFE: its invariants and losses, padding, classes, the epoch that is kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from network_scores import LENGTH, SUPERVISED, WIDTH, each, episodes, equal, fitted_to, make, plans, usual

from robolearn.monitors import _networks, safe_lstm, safe_mlp


@given(seed=st.integers(0, 999), shift=st.floats(-5, 5))
def test_the_running_sum_never_falls_and_stays_between_zero_and_the_number_of_plans(seed, shift):
    scores = usual(safe_mlp).trace(plans(np.random.default_rng(seed), shift))
    assert (np.diff(scores) >= 0).all() and (scores >= 0).all() and (scores <= np.arange(1, LENGTH + 1)).all()


def test_the_probability_lies_between_zero_and_one():
    scores = usual(safe_lstm).trace(plans(np.random.default_rng(10), 1.0))
    assert (scores > 0).all() and (scores < 1).all()


@each("module", SUPERVISED)
def test_fitted_to_successes_alone_the_score_goes_to_zero(module):
    of = episodes(6)
    data = _networks.Labelled([torch.from_numpy(e.plans.features) for e in of], torch.zeros(6, dtype=torch.bool))
    highest = []
    for epochs in (1, 100):
        score = make(module, epochs=epochs, learning_rate=0.01, penalty=0.0)
        score.net = module.learn(score.config, data, torch.Generator().manual_seed(0))
        highest.append(max(score.trace(e.plans).max() / len(e) for e in of))
    assert highest[1] < 0.01 < 0.04 < highest[0]


def test_losses_are_those_of_the_paper():
    rates = torch.tensor([[0.5, 0.25, 1.0], [0.5, 0.25, 1.0]])
    real = torch.tensor([[True, True, True], [True, True, False]])
    lost, ok = torch.tensor([True, True]), torch.tensor([False, False])
    # s = .5, .75, 1.75; t - s = .5, 1.25, 1.25
    assert safe_mlp.losses(rates, real, lost).tolist() == [3.0, 1.75] and safe_mlp.losses(rates, real, ok).tolist() == [3.0, 1.25]
    soon = [5 * math.exp(-3 * t / 2) + 1 for t in (1, 2)]
    assert safe_mlp.losses(rates, real, lost, early=True)[1].item() == pytest.approx(0.5 * soon[0] + 1.25 * soon[1])
    assert safe_mlp.losses(rates, real, ok, early=True).tolist() == [3.0, 1.25]
    logits = torch.tensor([[0.0, 2.0, 9.0]])
    wanted = [math.log(2), math.log1p(math.exp(-2.0))]
    assert safe_lstm.losses(logits, real[1:], lost[1:]).item() == pytest.approx(sum(wanted) / 2)
    assert safe_lstm.losses(logits, real[1:], ok[1:]).item() == pytest.approx((wanted[0] + 2 + wanted[1]) / 2)
    weighed = (wanted[0] * soon[0] + wanted[1] * soon[1]) / 2
    assert safe_lstm.losses(logits, real[1:], lost[1:], early=True).item() == pytest.approx(weighed)


@each("module", SUPERVISED)
@pytest.mark.parametrize("early", [False, True])
def test_padding_changes_neither_loss_nor_gradient(module, early):
    net, of = usual(module).net, episodes(2, 2)
    data = _networks.Labelled.of(of, "test")
    grown, real, failed = data.batch(torch.arange(4))
    padded = torch.where(real[..., None], grown, 1e3)  # anything at all where nothing is
    longer = torch.cat([padded, torch.full((4, 5, WIDTH), -7.0)], 1)
    mask = torch.cat([real, torch.zeros(4, 5, dtype=torch.bool)], 1)
    alone = [
        module.losses(net(table[None]), torch.ones(1, len(table), dtype=torch.bool), failed[i : i + 1], early)
        for i, table in enumerate(data.tables)
    ]
    together = module.losses(net(longer), mask, failed, early)
    torch.testing.assert_close(together, torch.cat(alone))
    gradients = [torch.autograd.grad(value.sum(), list(net.parameters())) for value in (together, torch.cat(alone))]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@given(ok=st.integers(1, 30), lost=st.integers(1, 30))
def test_either_class_weighs_half_and_an_episode_one_on_average(ok, lost):
    failed = torch.tensor([False] * ok + [True] * lost)
    weights = _networks.Labelled([], failed).weights
    assert weights[failed].sum().item() == pytest.approx(weights[~failed].sum().item(), rel=1e-5)
    assert weights.mean().item() == pytest.approx(1.0, rel=1e-5)


@each("module", SUPERVISED)
def test_episodes_held_out_choose_the_epoch_where_that_is_asked_for(module):
    of = episodes(6, 6)
    last, best = (fitted_to(module, of, **more) for more in (dict(), dict(held_out=0.25, patience=2)))
    assert not equal(last, best)
