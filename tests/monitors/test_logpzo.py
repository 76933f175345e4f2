"""The flow to noise: the analytic field, a learned one, one step and many."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from network_scores import LENGTH, WIDTH, episodes, far_and_near, fitted_to, plans, usual

from robolearn.monitors import _networks, logpzo


@pytest.mark.parametrize(
    ("steps", "drawn", "exact"),
    [(1, 0.0, 0.0), (2, 0.251, 0.25), (5, 0.596, 0.59367), (20, 0.882, 0.87928), (200, 0.991, 0.98723)],
)
def test_the_analytic_field_of_normal_embeddings_gives_the_lengths_of_the_specification(steps, drawn, exact):
    x = torch.randn(500, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = logpzo.integrate(lambda x, t: (2 * t - 1) / ((1 - t) ** 2 + t**2) * x, x, steps)
    # The field is linear, so the ratio does not depend on the draw; the specification's numbers hold one draw's error.
    ratio = (noise.square().sum() / x.square().sum()).item()
    assert ratio == pytest.approx(exact, abs=1e-5) and ratio == pytest.approx(drawn, rel=5e-3)


def test_one_step_of_a_perfect_field_gives_nothing_whatever_the_embedding():
    x = torch.randn(10, 5, generator=torch.Generator().manual_seed(0)) * 100
    assert not logpzo.integrate(lambda x, t: -x, x, 1).any()


@pytest.mark.parametrize("steps", [1, 20])
def test_a_learned_flow_puts_far_embeddings_above_near_ones_in_one_step_and_in_many(steps):
    far, near = far_and_near(fitted_to(logpzo, episodes(), euler_steps=steps))
    assert far > 1.5 * near > 0


def test_a_learned_velocity_leaves_the_embedding_at_first_and_points_at_the_noise_at_last():
    flow = fitted_to(logpzo, episodes(40), epochs=100, widths=(64,), learning_rate=3e-3).net
    x = torch.randn(500, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        along = [((flow.at(x, t) * x).sum() / x.square().sum()).item() for t in (0.0, 0.5, 1.0)]
    assert along == pytest.approx([-1, 0, 1], abs=0.35)  # as the field of normal embeddings, (2 t - 1) / ((1 - t)^2 + t^2)


def test_one_step_is_the_square_of_the_embedding_and_its_velocity_at_time_zero():
    score, whole = usual(logpzo), plans(np.random.default_rng(9))
    x = torch.from_numpy(whole.features)
    with torch.no_grad():
        wanted = (x + score.net(x, torch.zeros(LENGTH))).square().sum(-1)
    np.testing.assert_allclose(score.trace(whole), wanted.numpy(), rtol=1e-5)


@given(depth=st.integers(1, 4))
def test_a_flow_of_any_depth_keeps_the_width_and_knows_the_time(depth):
    config = logpzo.Config(widths=(8,) * depth, time=4)
    flow = _networks.empty(lambda: logpzo.Flow(config, WIDTH))
    _networks.draw(flow, torch.Generator().manual_seed(0))
    x = torch.ones(2, WIDTH)
    assert flow.at(x, 0.0).shape == x.shape and not torch.allclose(flow.at(x, 0.0), flow.at(x, 0.5))
