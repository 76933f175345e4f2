"""Samplers against closed forms and against diffusers' own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from robolearn.core import ArraySpec, Spec
from robolearn.policies import bc_rnn, diffusion, flow

SPEC = Spec(obs={"state": ArraySpec((1,))}, action=ArraySpec((1,)), hz=10)
SMALL = dict(n_obs_steps=1, horizon=4, execute=2, width=16, depth=1)


class _Known(torch.nn.Module):
    """A denoiser with a known answer, in place of a network."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer

    def condition(self, cond):
        return cond

    def modulate(self, t, context):
        return t

    def denoise(self, x, t):
        return self.answer(x, t)


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_flow_solvers_converge_at_their_order(sampler, order):
    def velocity(x, t):
        return -2.0 * x * (1 + t)  # x(1) = x(0) exp(-3)

    errors = []
    for steps in (20, 40):
        x = flow.integrate(velocity, torch.ones(1, dtype=torch.float64), steps, sampler)
        errors.append(abs(float(x) - math.exp(-3)))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("sampler", ["euler", "midpoint", "heun"])
def test_flow_transports_a_gaussian_exactly_where_the_field_is_known(sampler):
    mean, std = 0.4, 0.2
    net = flow.Net(flow.Config(**SMALL, sampler=sampler, steps=200), SPEC)

    def velocity(x, t):  # E[action - noise | x_t] for action ~ N(mean, std), noise ~ N(0, 1)
        t = t[:, None, None]
        var = t**2 * std**2 + (1 - t) ** 2
        return mean + (t * std**2 - (1 - t)) / var * (x - t * mean)

    net.denoiser = _Known(velocity)
    noise = torch.randn(1, 4000, 4, 1, generator=torch.Generator().manual_seed(0))
    actions = net.sample(torch.zeros(4000, 1, 1), noise)
    torch.testing.assert_close(actions, mean + std * noise[0], atol=0.02, rtol=0)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_ddpm_equals_diffusers_given_the_same_noise(prediction, monkeypatch):
    config = diffusion.Config(**SMALL, prediction=prediction, sampler="ddpm", steps=20, train_steps=20)
    net = diffusion.Net(config, SPEC)
    net.denoiser = _Known(lambda x, t: torch.tanh(2 * x + t[:, None, None]))
    noise = torch.randn(net.noise_draws(), 3, 4, 1, generator=torch.Generator().manual_seed(0))
    ours = net.sample(torch.zeros(3, 1, 1), noise)

    theirs = DDPMScheduler(20, beta_schedule="squaredcos_cap_v2", prediction_type=prediction, variance_type="fixed_small")
    theirs.set_timesteps(20)
    queue = iter(noise[1:])
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *args, **kwargs: next(queue))
    x = noise[0]
    for level in theirs.timesteps:
        out = torch.tanh(2 * x + float(level) / 20)
        x = theirs.step(out, level, x).prev_sample
    torch.testing.assert_close(ours, x, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_an_exact_denoiser_returns_the_only_action_there_is(sampler, prediction):
    config = diffusion.Config(**SMALL, prediction=prediction, sampler=sampler, steps=25)
    net, action = diffusion.Net(config, SPEC), 0.3

    def exact(x, t):
        level = (t * config.train_steps).round().long()
        alpha, sigma = net.alpha[level][:, None, None], net.sigma[level][:, None, None]
        eps = (x - alpha * action) / sigma
        return {"epsilon": eps, "sample": torch.full_like(x, action), "v_prediction": alpha * eps - sigma * action}[prediction]

    net.denoiser = _Known(exact)
    noise = torch.randn(net.noise_draws(), 8, 4, 1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net.sample(torch.zeros(8, 1, 1), noise), torch.full((8, 4, 1), action), atol=0.02, rtol=0)


def test_the_mixture_is_a_density_over_chunks_and_is_sampled_by_its_weights():
    net = bc_rnn.Net(bc_rnn.Config(n_obs_steps=1, horizon=1, execute=1, width=8, depth=1, modes=3), SPEC)
    with torch.no_grad():
        net.logits.weight.zero_()
        net.logits.bias.copy_(torch.tensor([0.2, 0.3, 0.5]).log())
    from robolearn.policies._base import Batch, Draws

    grid = torch.linspace(-6, 6, 4001)[:, None, None]
    obs = {"state": torch.zeros(len(grid), 1, 1)}
    density = [
        math.exp(-float(net.loss(Batch({"state": torch.zeros(1, 1, 1)}, x[None], {}), None, rng=Draws(torch.Generator()))[0]))
        for x in grid[::20]
    ]
    assert np.trapezoid(density, dx=20 * 12 / 4000) == pytest.approx(1.0, abs=0.01)
    noise = torch.randn(1, 4001, 1, 1, generator=torch.Generator().manual_seed(0))
    drawn = net.sample(net.encode(obs), noise)
    weight, mean, _ = net._mixture(net.encode(obs))
    shares = [(drawn[:, 0, 0] == mean[:, k, 0, 0]).float().mean().item() for k in range(3)]
    np.testing.assert_allclose(shares, weight[0].exp().detach().numpy(), atol=0.03)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
def test_a_small_error_of_the_network_does_not_lead_out_of_what_it_was_trained_on(sampler):
    """At the noisiest level of the cosine schedule an action is thousands of the network's errors away."""
    net = diffusion.Net(diffusion.Config(**SMALL, sampler=sampler, steps=10), SPEC)
    seen = []

    def epsilon(x, t):
        seen.append(float(x.abs().max()))
        level = (t * net.config.train_steps).round().long()
        return (x - net.alpha[level][:, None, None] * 0.3) / net.sigma[level][:, None, None] + 0.05

    net.denoiser = _Known(epsilon)
    noise = torch.randn(net.noise_draws(), 16, 4, 1, generator=torch.Generator().manual_seed(0))
    net.sample(torch.zeros(16, 1, 1), noise)
    assert max(seen) < 6.0
