"""The guide of real-time chunking: its strength, its pull, the linear toy (arXiv 2506.07339)."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robolearn.core import ArraySpec, Spec
from robolearn.nets.guide import Delays, Guide, placed, strength
from robolearn.policies import diffusion, flow
from robolearn.policies._base import PolicyNet

HORIZON, DELAY, EXECUTED, SEEDS = 16, 4, 8, 50


@pytest.mark.parametrize(
    ("tau", "want"), [(0.0, 5.0), (0.3, 0.58 / 0.21), (0.5, 2.0), (0.7, 0.58 / 0.21), (0.99, 5.0), (1.0, 5.0)]
)
def test_the_strength_has_the_published_values(tau, want):
    assert strength(tau, 5.0) == pytest.approx(want, abs=1e-6)
    assert round(strength(0.3, 5.0), 2) == 2.76


@settings(max_examples=50, deadline=None)
@given(st.floats(0.001, 0.999), st.floats(0.1, 100))
def test_the_strength_is_the_closed_form(tau, beta):
    r2 = (1 - tau) ** 2 / (tau**2 + (1 - tau) ** 2)
    assert strength(tau, beta) == pytest.approx(min(beta, (1 - tau) / (tau * r2)), abs=1e-6, rel=1e-9)


def test_the_full_pull_is_the_transposed_jacobian_of_the_promise_and_the_other_is_without_it():
    g = torch.Generator().manual_seed(0)
    mix, target, weight = torch.randn(5, 5, generator=g), torch.randn(5, 2, generator=g), torch.rand(5, 1, generator=g)
    x = torch.randn(3, 5, 2, generator=g)

    def promise(x):
        return 2 * x, torch.tanh(mix @ x)

    missing = (target - promise(x)[1]) * weight
    jacobian = torch.autograd.functional.jacobian(lambda x: promise(x)[1], x)
    with torch.inference_mode(), Guide(target, weight).sampling(x) as (own,):
        output, pulled = Guide(target, weight).pull(promise, own)
    torch.testing.assert_close(pulled, torch.einsum("abcdef,abc->def", jacobian, missing))
    assert torch.equal(output, 2 * x) and not pulled.requires_grad and not output.requires_grad
    assert torch.equal(Guide(target, weight, jacobian="identity").pull(promise, x)[1], missing)
    assert Guide(target).pull(promise, x)[1] is None


class _Exact(nn.Module):
    """A denoiser that knows its answer, in place of a network."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer

    def condition(self, cond):
        return cond

    def modulate(self, t, context):
        return t

    def denoise(self, x, t):
        return self.answer(x, float(t[0]))


SPEC = Spec(obs={"o": ArraySpec((1,))}, action=ArraySpec((1,)), hz=10)
AT = torch.arange(HORIZON, dtype=torch.float32)
COVARIANCE = 0.09 * torch.exp(-((AT[:, None] - AT) ** 2) / 18) + 1e-4 * torch.eye(HORIZON)


def expected(x: torch.Tensor, alpha: float, sigma: float) -> torch.Tensor:
    """E[action | x] for x = alpha action + sigma noise and smooth actions N(0, COVARIANCE): linear in x."""
    return alpha * torch.linalg.solve(alpha**2 * COVARIANCE + sigma**2 * torch.eye(HORIZON), COVARIANCE).T @ x


def exact_net(sampler: str, prediction: str = "epsilon", steps: int = 10) -> PolicyNet:
    small = dict(n_obs_steps=1, horizon=HORIZON, execute=2, width=8, depth=1, steps=steps, sampler=sampler)
    if sampler == "euler":
        net = flow.Net(flow.Config(**small), SPEC)
        net.denoiser = _Exact(lambda x, t: (expected(x, t, 1 - t) - x) / (1 - t))
        return net
    net = diffusion.Net(diffusion.Config(**small, prediction=prediction), SPEC)

    def answer(x, t):
        level = round(t * net.config.train_steps)
        alpha, sigma = float(net.alpha[level]), float(net.sigma[level])
        clean = expected(x, alpha, sigma)
        eps = (x - alpha * clean) / sigma
        return {"epsilon": eps, "sample": clean, "v_prediction": alpha * eps - sigma * clean}[prediction]

    net.denoiser = _Exact(answer)
    return net


def soft_mask() -> torch.Tensor:
    """W (horizon, 1) of the paper."""
    weight = torch.zeros(HORIZON, 1)
    for i in range(HORIZON - EXECUTED):
        c = (HORIZON - EXECUTED - i) / (HORIZON - EXECUTED - DELAY + 1)
        weight[i] = 1.0 if i < DELAY else c * math.expm1(c) / math.expm1(1)
    return weight


def toy(net: PolicyNet, beta: float = 5.0, jacobian: str = "full") -> tuple[float, float]:
    """Returns the mean error of the first DELAY actions over all seeds, each with a prefix, and the mean jump behind them."""
    shape = (1 + net.noise_draws(), HORIZON, 1)
    drawn = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in range(SEEDS)], dim=1)
    guide = Guide(torch.linalg.cholesky(COVARIANCE) @ drawn[0], soft_mask(), None, beta, jacobian)
    plan = net.sample_guided(torch.zeros(SEEDS, 1, 1), drawn[1:], guide)
    return float((plan - guide.target)[:, :DELAY].abs().mean()), float((plan[:, DELAY] - plan[:, DELAY - 1]).abs().mean())


@pytest.mark.parametrize("sampler", ["euler", "ddim", "ddpm"])
def test_on_the_linear_toy_both_pulls_halve_the_error_and_the_full_one_jumps_less_behind_the_prefix(sampler):
    net = exact_net(sampler)
    free, full, identity = toy(net, 0.0), toy(net), toy(net, jacobian="identity")
    assert full[0] <= free[0] / 2 and identity[0] <= free[0] / 2
    assert abs(full[0] - identity[0]) > 0.01 and full[1] < identity[1]


@pytest.mark.parametrize("sampler", ["euler", "ddim", "ddpm"])
def test_on_the_linear_toy_the_error_falls_with_beta(sampler):
    net = exact_net(sampler)
    errors = [toy(net, beta)[0] for beta in (0.0, 1.0, 5.0, 20.0)]
    assert all(later < 0.8 * before for before, later in pairwise(errors)), errors


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_guided_ddim_goes_where_the_guided_flow_goes_whatever_the_network_predicts(prediction):
    flowed, diffused = exact_net("euler", steps=50), exact_net("ddim", prediction, steps=50)
    for pull in ((5.0, "full"), (5.0, "identity")):
        assert toy(diffused, *pull)[0] == pytest.approx(toy(flowed, *pull)[0], rel=0.04)


@pytest.mark.parametrize("sampler", ["euler", "ddim", "ddpm"])
def test_given_tokens_stand_in_the_result_to_the_last_bit(sampler):
    net, target = exact_net(sampler), torch.full((HORIZON, 1), 0.3)
    noise = torch.randn(net.noise_draws(), 2, HORIZON, 1, generator=torch.Generator().manual_seed(0))
    plan = net.sample_guided(torch.zeros(2, 1, 1), noise, Guide(target, None, (AT < DELAY)[:, None]))
    assert torch.equal(plan == target, (AT < DELAY)[:, None].expand(2, -1, -1))


def test_given_tokens_are_the_first_of_the_plan_and_the_condition_tells_which():
    delays = Delays(most=3, n_past=2, horizon=7)
    tokens = delays.given(torch.tensor([0, 2, 3]))
    assert tokens[..., 0].int().tolist() == [[0] * 7, [0, 0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 0, 0]]
    cond = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    told = delays.tell(cond, tokens)
    assert told.shape == (3, 4, 8) and torch.equal(told[..., :5], cond)
    assert told[:, :, 5:].int().tolist() == [[bits] * 4 for bits in ([0, 0, 0], [1, 1, 0], [1, 1, 1])]
    assert torch.equal(delays.tell(cond, tokens[1])[0], delays.tell(cond[:1], tokens[1:2])[0]), "one answer for all rows"
    assert torch.equal(delays.tell(cond, None)[..., 5:], torch.zeros(3, 4, 3))
    assert Delays(0, 2, 7).tell(cond, None) is cond
    x = torch.zeros(3, 7, 1)
    assert torch.equal(placed(tokens, x + 1, x), tokens.float()) and placed(None, x + 1, x) is x
