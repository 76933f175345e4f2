"""What every registered policy promises; a new file in robolearn/policies is tested here by existing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from robolearn import registry
from robolearn.core import ArraySpec, Ask, Policy, Spec
from robolearn.data.normalize import Normalizer
from robolearn.data.stats import Stats
from robolearn.errors import ArrayMismatch, BadInput
from robolearn.policies._base import Batch, Draws
from robolearn.policies._learned import Learned

SPEC = Spec(
    obs={"state": ArraySpec((3,)), "points": ArraySpec((4, 2)), "track": ArraySpec((1,))},  # mt_pi goes on from its track
    action=ArraySpec((2,)),
    hz=10,
    goal={"target": ArraySpec((2,))},
    execute=3,
)
NAMES = registry.names("robolearn.policies")
DENOISERS = ("mlp", "unet1d", "transformer")


def make_net(name: str, denoiser: str = "mlp", spec: Spec = SPEC, **fields):
    module = registry.load("robolearn.policies", name)
    torch.manual_seed(0)
    small = dict(n_obs_steps=2, horizon=8, execute=3, denoiser=denoiser, width=32, depth=2, dims=(16, 32), heads=2)
    return module.Net(module.Config(**small, **fields), spec)


def make_batch(rows: int = 16, spec: Spec = SPEC) -> Batch:
    g = torch.Generator().manual_seed(1)
    obs = {key: torch.randn(rows, 2, *array.shape, generator=g) for key, array in spec.obs.items()}
    goal = {key: torch.randn(rows, *array.shape, generator=g) for key, array in spec.goal.items()}
    return Batch(obs, torch.rand(rows, 8, 2, generator=g) * 2 - 1, goal)


def unit_normalizer(spec: Spec = SPEC) -> Normalizer:
    shapes = {key: array.shape for key, array in {**spec.obs, **spec.goal, "action": spec.action}.items()}
    stats = {k: Stats(-2 * np.ones(s), 2 * np.ones(s), np.zeros(s), np.ones(s), 10) for k, s in shapes.items()}
    return Normalizer.fit(stats)


def make_policy(name: str, streams: int = 1, **fields) -> Learned:
    net = make_net(name, **fields)
    with torch.no_grad():  # denoisers start at zero: make their answer depend on everything
        for p in net.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return Learned(net, SPEC, unit_normalizer(), streams=streams)


def observation(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {key: rng.normal(size=array.shape).astype(np.float32) for key, array in SPEC.obs.items()}


UNCROPPED = {"mt_pi"}  # a crop moves the picture and leaves the points
WITHOUT_DENOISER = {"act", "bc_rnn"}  # they bring their own network, so one combination says all
COMBINATIONS = [(name, denoiser) for name in NAMES for denoiser in DENOISERS if name not in WITHOUT_DENOISER or denoiser == "mlp"]


@pytest.mark.parametrize(("name", "denoiser"), COMBINATIONS)
def test_loss_falls_and_every_parameter_learns(name, denoiser):
    net, batch = make_net(name, denoiser), make_batch()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    losses, touched = [], set()
    for step in range(24):
        loss, _ = net(batch, None, Draws(torch.Generator().manual_seed(step % 4)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        touched |= {n for n, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        optimizer.step()
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    assert np.mean(losses[-8:]) < np.mean(losses[:8])
    zero_fed = {n for n, _ in net.named_parameters() if name == "bc" and n.startswith("head.") and n not in touched}
    assert len(zero_fed) <= 2, "regression gives zeros to denoise: only the weights that read them may stay untouched"
    assert touched | zero_fed == {n for n, _ in net.named_parameters()}


@pytest.mark.parametrize("name", NAMES)
def test_is_a_policy_and_plans_the_chunk_it_promises(name):
    policy = make_policy(name)
    assert isinstance(policy, Policy)
    policy.reset(3)
    policy.observe(observation(0), None)
    chunk = policy.plan(Ask(draws=5))
    assert chunk.actions.shape == (7, 2) and chunk.past.shape == (1, 2) and chunk.samples.shape == (5, 7, 2)
    assert chunk.tick == 0 and chunk.actions.dtype == np.float32 and chunk.features.ndim == 1
    assert np.array_equal(chunk.actions, chunk.samples[0]), "the first draw is the one to execute"


@pytest.mark.parametrize("name", NAMES)
def test_plan_is_pure_and_draws_do_not_change_the_executed_one(name):
    policy = make_policy(name)
    policy.reset(3)
    policy.observe(observation(0), None)
    first, second, third = policy.plan(), policy.plan(Ask(draws=4)), policy.plan()
    assert np.array_equal(first.actions, third.actions)
    np.testing.assert_allclose(first.actions, second.actions, atol=1e-5)
    policy.observe(observation(1), first.actions[0])
    assert policy.plan().tick == 1 and not np.allclose(policy.plan().actions, first.actions, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_many_streams_equal_single_ones_whatever_is_planned_beside_them(name):
    together = make_policy(name, streams=3)
    for i in range(3):
        together.reset_stream(i, 100 + i)
        for k in range(i + 1):
            together.observe_stream(i, observation(10 * i + k), None)
    chunks = together.plan_streams([2, 0, 1])
    for i, chunk in zip([2, 0, 1], chunks, strict=True):
        alone = make_policy(name)
        alone.reset(100 + i)
        for k in range(i + 1):
            alone.observe(observation(10 * i + k), None)
        assert chunk.tick == i
        np.testing.assert_allclose(chunk.actions, alone.plan().actions, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_observation_fills_the_history(name):
    policy, twice = make_policy(name), make_policy(name)
    policy.reset(1)
    policy.observe(observation(5), None)
    twice.reset(1)
    twice.observe(observation(5), None)
    history = twice.streams[0].history
    assert len(history) == 2 and all(np.array_equal(history[0][k], history[1][k]) for k in SPEC.obs)
    assert np.array_equal(policy.plan().actions, twice.plan().actions)


@pytest.mark.parametrize("name", NAMES)
def test_bad_observations_are_refused_by_name(name):
    policy = make_policy(name)
    policy.reset(0)
    with pytest.raises(BadInput, match="observe before plan"):
        policy.plan()
    with pytest.raises(ArrayMismatch, match="observation 'state': want float32"):
        policy.observe({**observation(0), "state": np.zeros(4, np.float32)}, None)
    with pytest.raises(ArrayMismatch, match="observation 'state': want finite"):
        policy.observe({**observation(0), "state": np.full(3, np.nan, np.float32)}, None)
    policy.observe(observation(0), None)
    with pytest.raises(BadInput, match="prefix"):
        policy.plan(Ask(prefix=np.zeros((2, 2))))


@pytest.mark.parametrize("name", ["diffusion", "flow"])
def test_goal_and_guidance_reach_the_sampler(name):
    policy = make_policy(name)
    policy.reset(0)
    policy.observe(observation(0), None)
    goal = {"target": np.ones(2, np.float32)}
    free, aimed = policy.plan(), policy.plan(Ask(goal=goal))
    pushed, unpushed = policy.plan(Ask(goal=goal, guidance=3.0)), policy.plan(Ask(goal=goal, guidance=0.0))
    assert not np.allclose(free.actions, aimed.actions, atol=1e-4)
    assert not np.allclose(pushed.actions, aimed.actions, atol=1e-4)
    np.testing.assert_allclose(unpushed.actions, free.actions, atol=1e-5)
    with pytest.raises(ArrayMismatch, match="goal 'target'"):
        policy.plan(Ask(goal={"target": np.ones(3, np.float32)}))


@pytest.mark.parametrize("name", NAMES)
def test_two_halves_of_a_batch_compute_the_whole(name):
    net, batch = make_net(name), make_batch(16)
    parts = []
    net.eval()
    for rank in range(2):
        rows = slice(8 * rank, 8 * rank + 8)
        half = Batch({k: v[rows] for k, v in batch.obs.items()}, batch.action[rows], {k: v[rows] for k, v in batch.goal.items()})
        parts.append(net(half, None, Draws(torch.Generator().manual_seed(7), rank, 2))[0])
    whole, _ = net(batch, None, Draws(torch.Generator().manual_seed(7)))
    torch.testing.assert_close(whole, (parts[0] + parts[1]) / 2)


@pytest.mark.parametrize("name", NAMES)
def test_images_are_read_as_uint8(name):
    spec = dataclasses.replace(
        SPEC, obs={"state": ArraySpec((3,)), "track": ArraySpec((1,)), "camera": ArraySpec((40, 40, 3), "uint8")}, goal={}
    )
    crop = {} if name in UNCROPPED else {"crop": 36}
    net = make_net(name, spec=spec, image_features=16, **crop)
    obs = {
        "state": torch.randn(4, 2, 3),
        "track": torch.randn(4, 2, 1),
        "camera": torch.randint(0, 256, (4, 2, 40, 40, 3), dtype=torch.uint8),
    }
    loss, _ = net(Batch(obs, torch.rand(4, 8, 2), {}), None, Draws(torch.Generator()))
    loss.backward()
    assert torch.isfinite(loss) and net.encode(obs).shape == (4, 2, 3 + 1 + 16)
