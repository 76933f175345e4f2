"""A memory moves when it observes, never when it plans, and is carried through streams, snapshots and threads."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from robolearn.core import ArraySpec, Ask, Spec
from robolearn.data.normalize import Normalizer
from robolearn.data.stats import Stats
from robolearn.policies import diffusion, flow
from robolearn.policies._learned import Learned
from robolearn.policies._verified import Verification, Verified, disagreement

SPEC = Spec(obs={"o": ArraySpec((3,))}, action=ArraySpec((2,)), hz=10, execute=4, memory_stride=2)
SMALL = dict(memory_width=16, memory_slots=4, memory_layers=2, memory_heads=2, width=16, depth=1, steps=2)
MEMORIES = ["sega", "gru"]


def policy(memory: str, streams: int = 1, module=flow, **fields) -> Learned:
    torch.manual_seed(0)
    shape = dict(n_obs_steps=2, horizon=8, execute=4, memory_stride=0 if memory == "none" else 2)
    net = module.Net(module.Config(memory=memory, **{**SMALL, **shape, **fields}), SPEC)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn(p.shape))
    one = Stats(-np.ones(3), np.ones(3), np.zeros(3), np.ones(3), 9)
    two = Stats(-np.ones(2), np.ones(2), np.zeros(2), np.ones(2), 9)
    return Learned(net, SPEC, Normalizer.fit({"o": one, "action": two}), streams=streams)


def see(p: Learned, ticks: range, stream: int = 0, first: float = 0.0) -> None:
    for k in ticks:
        value = np.sin([k + 1, 0.3 * k, first]).astype(np.float32)
        p.observe_stream(stream, {"o": value}, None if k == 0 else np.zeros(2, np.float32))


@pytest.mark.parametrize("memory", MEMORIES)
def test_the_state_moves_every_stride_ticks_and_never_in_plan(memory):
    p = policy(memory)
    p.reset(0)
    states = []
    for k in range(7):
        see(p, range(k, k + 1))
        before = p.streams[0].memory.clone()
        plans = [p.plan().actions, p.plan(Ask(draws=3)).actions, p.plan().actions]
        assert np.array_equal(plans[0], plans[2]) and torch.equal(p.streams[0].memory, before)
        states.append(before)
    moved = [not torch.equal(a, b) for a, b in itertools.pairwise(states)]
    assert moved == [False, True, False, True, False, True]


@pytest.mark.parametrize("memory", MEMORIES)
def test_what_was_seen_long_ago_changes_the_plan_and_a_reset_forgets_it(memory):
    plans = []
    for first in (0.0, 2.0):
        p = policy(memory)
        p.reset(0)
        p.observe({"o": np.array([first, 0, 0], np.float32)}, None)
        see(p, range(1, 9))
        plans.append(p.plan().actions)
    assert not np.allclose(plans[0], plans[1], atol=1e-4), "two observations ago is all that a window of two sees"
    p.reset(0)
    see(p, range(9))
    fresh = policy(memory)
    fresh.reset(0)
    see(fresh, range(9))
    assert np.array_equal(p.plan().actions, fresh.plan().actions)


@pytest.mark.parametrize("memory", MEMORIES)
def test_streams_of_different_ages_equal_single_ones(memory):
    together = policy(memory, streams=3)
    for i, ticks in enumerate((5, 2, 9)):
        together.reset_stream(i, i)
        see(together, range(ticks), i, first=i)
    for i, chunk in enumerate(together.plan_streams([0, 1, 2])):
        alone = policy(memory)
        alone.reset(i)
        see(alone, range((5, 2, 9)[i]), first=i)
        np.testing.assert_allclose(chunk.actions, alone.plan().actions, atol=1e-5)


@pytest.mark.parametrize("memory", [*MEMORIES, "none"])
def test_a_snapshot_plans_elsewhere_what_the_policy_would_have_planned_while_that_one_goes_on(memory):
    p, other = policy(memory), policy(memory)
    p.reset(3)
    see(p, range(6))
    wanted = p.plan()
    snapshot = p.snapshot()

    def plan_there():
        other.restore(snapshot)
        return other.plan()

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(plan_there)
        see(p, range(6, 12))
        np.testing.assert_array_equal(late.result().actions, wanted.actions)
    assert late.result().tick == 5 and p.plan().tick == 11
    p.restore(snapshot)
    see(p, range(6, 12))
    again = policy(memory)
    again.reset(3)
    see(again, range(12))
    np.testing.assert_array_equal(p.plan().actions, again.plan().actions)


def test_a_long_strided_history_is_seen_at_the_ticks_of_the_layout():
    p = policy("none", n_obs_steps=3, history_stride=4, horizon=8, n_past_actions=0)
    p.reset(0)
    see(p, range(9))
    rows = [p.streams[0].history[place]["o"][0] for place in p._places]
    np.testing.assert_allclose(rows, np.sin([1, 5, 9]), atol=1e-6)


def test_an_observation_is_encoded_once_however_long_the_window():
    p = policy("none", n_obs_steps=3, history_stride=2, horizon=8)
    rows = []
    encode = p.net.encode
    p.net.encode = lambda obs: (rows.append(len(obs["o"])), encode(obs))[1]
    p.reset(0)
    see(p, range(1))
    p.plan()
    see(p, range(1, 3))
    p.plan()
    p.plan()
    assert rows == [1, 1], "the first fills the history; two ticks later only the newest is new"


def test_memory_and_past_tokens_go_together():
    p = policy("sega", module=diffusion, n_obs_steps=3, n_past_actions=5, horizon=10, denoiser="transformer", heads=2)
    p.reset(0)
    see(p, range(5))
    chunk = p.plan(Ask(draws=2))
    assert chunk.past.shape == (5, 2) and chunk.actions.shape == (5, 2) and chunk.past_samples.shape == (2, 5, 2)


def test_verification_with_one_draw_is_the_plain_plan_and_chooses_among_the_draws_otherwise():
    def seen(p):
        p.reset(4)
        for k in range(7):
            p.observe({"o": np.sin([k, 0.3 * k, 1]).astype(np.float32)}, None if k == 0 else np.zeros(2, np.float32))
        return p

    def make():
        return policy("none", module=diffusion, n_obs_steps=3, horizon=8)

    plain = seen(make())
    one = seen(Verified(make(), Verification(draws=1), np.ones(2)))
    one.plan()
    np.testing.assert_array_equal(one.plan().actions, plain.plan().actions)
    many = Verified(make(), Verification(draws=5), np.ones(2))
    seen(many).plan()
    chosen, drawn = seen(many).plan(), plain.plan(Ask(draws=5))
    scores = disagreement(drawn.past_samples, np.zeros((2, 2)), np.ones(2))
    np.testing.assert_allclose(chosen.actions, drawn.samples[int(scores.argmin())], atol=1e-5)


def test_a_mixed_history_is_seen_at_its_ticks_when_driving():
    p = policy("none", n_obs_steps=4, history_stride=3, history_mixed=True, horizon=8, n_past_actions=0)
    p.reset(0)
    see(p, range(9))
    np.testing.assert_allclose([p.streams[0].history[place]["o"][0] for place in p._places], np.sin([2, 5, 8, 9]), atol=1e-6)
