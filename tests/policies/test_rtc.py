"""Real-time chunking: plans held to a prefix, while sampling and by training (arXiv 2506.07339, 2512.05964)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from robolearn import registry
from robolearn.core import ArraySpec, Ask, Spec
from robolearn.data.normalize import Normalizer
from robolearn.data.stats import Stats
from robolearn.errors import BadInput
from robolearn.nets.guide import Guide
from robolearn.policies._base import Batch, Draws, PolicyNet
from robolearn.policies._learned import Learned
from robolearn.policies._verified import Verification, Verified

SPEC = Spec(obs={"o": ArraySpec((1,))}, action=ArraySpec((2,)), hz=10, goal={"g": ArraySpec((1,))}, execute=2)
PLAN, PAST = 8, 2  # actions of a plan, tokens before it
SAMPLERS = [("flow", "euler"), ("flow", "midpoint"), ("flow", "heun"), ("diffusion", "ddim"), ("diffusion", "ddpm")]


def make_net(name: str = "flow", spec: Spec = SPEC, **fields) -> PolicyNet:
    module = registry.load("robolearn.policies", name)
    torch.manual_seed(0)
    small = dict(n_obs_steps=PAST + 1, horizon=PLAN + PAST, execute=2, width=16, depth=1, dims=(8, 16), heads=2)
    net = module.Net(module.Config(**{**small, **fields}), spec)
    with torch.no_grad():  # denoisers start at zero: make their answer depend on everything
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return net


def make_policy(name: str = "flow", streams: int = 1, **fields) -> Learned:
    unit = Stats(-np.ones(1), np.ones(1), np.zeros(1), np.ones(1), 10)
    actions = Stats(np.array([2.0, -30.0]), np.array([4.0, 10.0]), np.array([3.0, -10.0]), np.ones(2), 10)
    normalizer = Normalizer.fit({"o": unit, "g": unit, "action": actions})
    policy = Learned(make_net(name, **fields), SPEC, normalizer, streams=streams)
    for i in range(streams):
        policy.reset_stream(i, 3 + i)
        policy.observe_stream(i, {"o": np.array([0.3 * (i + 1)], np.float32)}, None)
    return policy


def prefix() -> np.ndarray:
    return np.stack([np.linspace(2.2, 3.8, PLAN), np.linspace(5, -25, PLAN)], axis=1).astype(np.float32)


def mask(hard: int = 0) -> np.ndarray:
    return (np.arange(PLAN) < hard).astype(np.float32)


def normalised(actions: np.ndarray) -> np.ndarray:
    return (actions - [3, -10]) / [1, 20]


@pytest.mark.parametrize(("name", "sampler"), SAMPLERS)
def test_a_hard_prefix_with_a_large_beta_is_what_the_plan_begins_with(name, sampler):
    policy = make_policy(name, sampler=sampler, steps=40)
    free = policy.plan()
    held = policy.plan(Ask(prefix=prefix(), prefix_mask=mask(3), prefix_beta=30.0))
    assert np.abs(normalised(free.actions) - normalised(prefix()))[:3].max() > 0.3
    assert np.abs(normalised(held.actions) - normalised(prefix()))[:3].max() < 0.1
    assert held.past.shape == (PAST, 2) and held.actions.shape == (PLAN, 2)


@pytest.mark.parametrize(("name", "sampler"), SAMPLERS)
def test_a_mask_of_zeros_changes_no_bit_of_a_plan(name, sampler):
    policy = make_policy(name, sampler=sampler)
    free, held = policy.plan(Ask(draws=3)), policy.plan(Ask(draws=3, prefix=prefix() * np.nan, prefix_mask=mask()))
    assert np.array_equal(free.samples, held.samples) and np.array_equal(free.actions, held.actions)


@pytest.mark.parametrize("jacobian", ["full", "identity"])
def test_a_weight_of_zeros_changes_no_bit_inside_the_sampler_either(jacobian):
    net = make_net(horizon=8, n_obs_steps=1).eval()
    g = torch.Generator().manual_seed(0)
    context, noise = torch.randn(3, 1, net.cond_dim, generator=g), torch.randn(1, 3, 8, 2, generator=g)
    guide = Guide(torch.ones(8, 2), torch.zeros(8, 1), None, 5.0, jacobian)
    with torch.inference_mode():
        assert torch.equal(net.sample_guided(context, noise, guide), net.sample(context, noise))


@pytest.mark.parametrize("name", ["flow", "diffusion"])
def test_held_plans_are_pure_leave_nothing_behind_and_differ_by_the_jacobian(name):
    policy = make_policy(name)
    asks = [Ask()] + [Ask(prefix=prefix(), prefix_mask=mask(3), prefix_jacobian=jacobian) for jacobian in ("full", "identity")]
    before = torch.get_rng_state()
    plans, again = ([normalised(policy.plan(ask).actions) for ask in asks] for _ in range(2))
    assert np.array_equal(plans, again) and torch.equal(before, torch.get_rng_state())
    assert all(np.abs(plans[i] - plans[j]).max() > 1e-3 for i, j in ((0, 1), (0, 2), (1, 2)))
    assert all(p.grad is None for p in policy.net.parameters())


@pytest.mark.parametrize(("name", "sampler"), SAMPLERS)
def test_every_draw_and_every_stream_is_held_and_the_first_draw_is_the_plan_alone(name, sampler):
    policy = make_policy(name, streams=2, sampler=sampler, rtc_max_delay=1)
    ask = dict(prefix=prefix(), prefix_mask=mask(4), prefix_fixed=1)
    together = policy.plan_streams([1, 0], Ask(draws=3, **ask))
    for i, chunk in zip((1, 0), together, strict=True):
        alone = policy.plan_streams([i], Ask(**ask))[0]
        assert chunk.samples.shape == (3, PLAN, 2) and np.array_equal(chunk.samples[0], chunk.actions)
        np.testing.assert_allclose(normalised(chunk.actions), normalised(alone.actions), atol=1e-4)
        assert (chunk.samples[:, 0] == prefix()[0]).all() and not np.allclose(chunk.samples[0], chunk.samples[1])
        free = policy.plan_streams([i], Ask(draws=3))[0]
        off = [np.abs(normalised(c.samples) - normalised(prefix()))[:, 1:4].mean() for c in (chunk, free)]
        assert off[0] < off[1] / 2


GRU = dict(memory="gru", memory_width=8, memory_layers=1)


@pytest.mark.parametrize("fields", [{"denoiser": d} for d in ("mlp", "unet1d", "transformer")] + [GRU])
def test_every_denoiser_and_a_memory_can_be_held_beside_a_goal(fields):
    policy = make_policy(n_obs_steps=1, n_past_actions=0, horizon=PLAN, **fields)
    goal = dict(goal={"g": np.ones(1, np.float32)}, guidance=2.0, draws=2)
    free = policy.plan(Ask(**goal))
    for jacobian in ("full", "identity"):
        ask = dict(prefix=prefix(), prefix_mask=mask(3), prefix_beta=12.0, prefix_jacobian=jacobian)
        held, other = policy.plan(Ask(**ask, **goal)), policy.plan(Ask(**ask, draws=2))
        off = [np.abs(normalised(c.samples) - normalised(prefix()))[:, :3].mean() for c in (held, free)]
        assert off[0] < off[1] / 3
        assert not np.allclose(other.actions[3:], held.actions[3:], atol=1e-3), "the goal counts too"


@pytest.mark.parametrize(("name", "sampler"), SAMPLERS)
@pytest.mark.parametrize("soft", [False, True])
def test_fixed_actions_are_the_prefix_at_every_step_and_to_the_last_bit_in_the_plan(name, sampler, soft):
    policy = make_policy(name, sampler=sampler, rtc_max_delay=4)
    seen: list[torch.Tensor] = []
    inner = policy.net.denoiser.inner.denoise
    policy.net.denoiser.denoise = lambda x, modulation: (seen.append(x.detach()), inner(x, modulation))[1]
    ask = Ask(draws=2, prefix=prefix(), prefix_fixed=3, prefix_mask=mask(6) if soft else None)
    held, free = policy.plan(ask), policy.plan(Ask(draws=2))
    assert (held.samples[:, :3] == prefix()[:3]).all() and (held.actions[:3] == prefix()[:3]).all()
    asked = torch.stack(seen[: len(seen) // 2])[:, :, PAST : PAST + 3].numpy()
    assert np.allclose(asked, normalised(prefix())[:3], atol=1e-5)
    assert not np.allclose(held.samples[:, 3:], free.samples[:, 3:], atol=1e-3), "the network is told, and goes on from them"
    assert (free.samples[:, :3] != prefix()[:3]).all()
    plain, pulled = (policy.plan(Ask(prefix=prefix(), prefix_fixed=3, prefix_mask=m)) for m in (None, mask(3)))
    assert np.array_equal(plain.actions, pulled.actions), "what is fixed pulls at nothing"


def test_verified_plans_are_chosen_among_held_ones():
    verified = Verified(make_policy(rtc_max_delay=2), Verification(draws=4, least=1), np.ones(2))
    verified.plan()
    verified.observe({"o": np.array([0.1], np.float32)}, np.zeros(2, np.float32))
    held = verified.plan(Ask(prefix=prefix(), prefix_fixed=2))
    assert held.samples.shape[0] == 4 and (held.samples[:, :2] == prefix()[:2]).all()


def test_what_a_prefix_holds_nothing_of_is_not_read():
    torn = prefix()
    torn[4:] = np.nan
    policy = make_policy(rtc_max_delay=2)
    for ask in (dict(prefix_mask=mask(4)), dict(prefix_fixed=2)):
        assert np.array_equal(*(policy.plan(Ask(prefix=p, **ask)).actions for p in (prefix(), torn)))


@pytest.mark.parametrize(
    ("name", "fields", "ask", "says"),
    [
        ("bc", {}, dict(prefix_mask=mask(2)), "policy 'bc' takes no prefix: it has no real-time chunking"),
        ("act", {}, dict(prefix_mask=mask(2)), "policy 'act' takes no prefix"),
        (
            "diffusion",
            {"sampler": "dpm_solver"},
            dict(prefix_mask=mask(2)),
            "sampler 'dpm_solver' takes no prefix.*ddim and ddpm do",
        ),
        ("flow", {}, {}, "nothing says what of it holds; give prefix_mask, or prefix_fixed"),
        (
            "flow",
            {},
            dict(prefix=None, prefix_mask=mask(2)),
            "prefix_mask and prefix_fixed say what of a prefix holds, and there is no",
        ),
        ("flow", {}, dict(prefix=None, prefix_fixed=2), "there is no prefix"),
        (
            "flow",
            {},
            dict(prefix=np.zeros((3, 2)), prefix_mask=mask(2)),
            r"prefix: want \(8, 2\), the shape of a plan's actions, got",
        ),
        ("flow", {}, dict(prefix_mask=np.zeros(3)), r"prefix_mask: want 8 numbers in \[0, 1\], got .* of shape \(3,\)"),
        ("flow", {}, dict(prefix_mask=2 * mask(2)), r"prefix_mask: want 8 numbers in \[0, 1\]"),
        ("flow", {}, dict(prefix_mask=np.nan * mask(2)), r"prefix_mask: want 8 numbers in \[0, 1\]"),
        ("flow", {}, dict(prefix=np.nan * prefix(), prefix_mask=mask(2)), "prefix: want finite numbers wherever it holds"),
        ("flow", {}, dict(prefix_fixed=1), "prefix_fixed: want 0 to 0, the rtc_max_delay this policy was trained with, got 1"),
        ("flow", {"rtc_max_delay": 3}, dict(prefix_fixed=4), "prefix_fixed: want 0 to 3, the rtc_max_delay"),
        ("flow", {"rtc_max_delay": 3}, dict(prefix_fixed=-1, prefix_mask=mask(2)), "prefix_fixed: want 0 to 3"),
        ("flow", {}, dict(prefix_mask=mask(2), prefix_beta=-1.0), "prefix_beta: want a finite number of at least 0, got -1.0"),
        ("flow", {}, dict(prefix_mask=mask(2), prefix_beta=math.nan), "prefix_beta: want a finite number"),
        ("flow", {}, dict(prefix_mask=mask(2), prefix_jacobian="half"), "prefix_jacobian: want 'full' or 'identity', got 'half'"),
    ],
)
def test_a_prefix_that_cannot_hold_is_refused_in_one_line(name, fields, ask, says):
    policy = make_policy(name, **fields)
    with pytest.raises(BadInput, match=says) as refusal:
        policy.plan(Ask(**{"prefix": prefix(), **ask}))
    assert "\n" not in str(refusal.value)


def test_a_net_without_real_time_chunking_refuses_to_be_guided():
    for name, fields in (("bc_rnn", {}), ("diffusion", {"sampler": "dpm_solver"})):
        net = make_net(name, **fields)
        with pytest.raises(BadInput, match="takes no prefix"):
            net.sample_guided(torch.zeros(1, 3, net.cond_dim), torch.zeros(1, 1, 10, 2), Guide(torch.zeros(10, 2)))


def test_a_delay_is_trained_only_where_there_is_one_and_an_action_left():
    for name in ("bc", "act", "bc_rnn"):
        with pytest.raises(ValueError, match=f"rtc_max_delay: policy '{name}' has no real-time chunking"):
            make_net(name, rtc_max_delay=1)
    for wrong in (PLAN, -1):
        with pytest.raises(ValueError, match=f"rtc_max_delay: want 0 to {PLAN - 1}, so that an action is left, got {wrong}"):
            make_net(rtc_max_delay=wrong)


def make_batch(rows: int = 12) -> Batch:
    g = torch.Generator().manual_seed(1)
    obs = {"o": torch.randn(rows, PAST + 1, 1, generator=g)}
    return Batch(obs, torch.rand(rows, PLAN + PAST, 2, generator=g) * 2 - 1, {"g": torch.randn(rows, 1, generator=g)})


@pytest.mark.parametrize("name", ["flow", "diffusion"])
def test_without_a_delay_the_loss_draws_what_it_always_drew_and_is_the_same_to_the_last_bit(name):
    net, batch, rng = make_net(name), make_batch(), Draws(torch.Generator().manual_seed(5))
    cond, _ = net.training_context(batch, None, rng)
    noise = rng.normal(tuple(batch.action.shape))
    if name == "flow":
        t = rng.uniform((len(batch),))
        x, wanted = torch.lerp(noise, batch.action, t[:, None, None]), batch.action - noise
    else:
        level = rng.integers(100, len(batch))
        t, wanted = level / 100, noise
        x = net.alpha[level][:, None, None] * batch.action + net.sigma[level][:, None, None] * noise
    by_hand = nn.functional.mse_loss(net.denoiser(x, t, cond), wanted)
    again = Draws(torch.Generator().manual_seed(5))
    assert torch.equal(net.loss(batch, None, rng=again)[0], by_hand)
    assert torch.equal(again.generator.get_state(), rng.generator.get_state()), "and draws nothing more"


@pytest.mark.parametrize("name", ["flow", "diffusion"])
def test_in_training_the_first_actions_are_given_without_noise_and_no_loss_counts_them(name):
    net, batch = make_net(name, rtc_max_delay=3), make_batch(64)
    calls: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def keep(module, args, output):
        output.retain_grad()
        calls.append((args[0], args[2], output))

    net.denoiser.register_forward_hook(keep)
    net.loss(batch, None, rng=Draws(torch.Generator().manual_seed(0)))[0].backward()
    x, cond, output = calls[0]
    clean = (x == batch.action).all(-1)
    delay = clean.sum(1)
    assert set(delay.tolist()) == {0, 1, 2, 3} and not clean[:, :PAST].any()
    place = torch.arange(PLAN + PAST) - PAST
    assert torch.equal(clean, (place >= 0) & (place < delay[:, None]))
    assert torch.equal(output.grad.abs().sum(-1) > 0, ~clean)
    assert torch.equal(cond[:, 0, -3:].sum(-1), delay.float()), "the condition says how many"


@pytest.mark.parametrize("name", ["flow", "diffusion"])
def test_with_a_delay_two_halves_of_a_batch_still_compute_the_whole(name):
    net, batch = make_net(name, rtc_max_delay=3).eval(), make_batch(16)
    parts = []
    for rank in range(2):
        rows = slice(8 * rank, 8 * rank + 8)
        half = Batch({"o": batch.obs["o"][rows]}, batch.action[rows], {"g": batch.goal["g"][rows]})
        parts.append(net(half, None, Draws(torch.Generator().manual_seed(7), rank, 2))[0])
    whole, _ = net(batch, None, Draws(torch.Generator().manual_seed(7)))
    torch.testing.assert_close(whole, (parts[0] + parts[1]) / 2)


def test_a_policy_trained_with_delays_goes_on_the_way_it_was_given():
    """Demonstrations go left or right throughout; which way is settled by the first two actions alone."""
    spec = Spec(obs={"o": ArraySpec((1,))}, action=ArraySpec((1,)), hz=10)
    net = make_net(spec=spec, n_obs_steps=1, horizon=8, rtc_max_delay=2, width=32)
    optimizer, rng = torch.optim.Adam(net.parameters(), lr=5e-3), Draws(torch.Generator().manual_seed(0))
    for _ in range(200):
        way = 0.6 * torch.sign(rng.normal((32, 1, 1))).expand(-1, 8, -1)
        loss, _ = net.loss(Batch({"o": torch.zeros(32, 1, 1)}, way, {}), None, rng=rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    net.eval()
    context, noise = net.encode({"o": torch.zeros(32, 1, 1)}), rng.normal((1, 32, 8, 1))
    first = (torch.arange(8) < 2)[:, None]
    with torch.inference_mode():
        ways = torch.cat([net.sample_guided(context, noise, Guide(torch.full((8, 1), way), None, first)) for way in (-0.6, 0.6)])
        free = net.sample(context, noise)[:, 2:].mean((1, 2))
    right = ways[:, 2:].mean((1, 2)).reshape(2, 32)
    assert (right[0] < 0).float().mean() > 0.9 and (right[1] > 0).float().mean() > 0.9
    assert (free < -0.3).any() and (free > 0.3).any()
