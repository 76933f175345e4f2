"""Stateful batches: every slot walks along one episode, and a resumed memory goes on bit for bit."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn.core import ArraySpec, Spec
from robolearn.data.store import EpisodeSet
from robolearn.errors import ConfigError
from robolearn.policies import flow
from robolearn.training import checkpoint, trainer
from robolearn.training.chains import ChainOrder, Chains
from robolearn.training.settings import DatasetConfig, TrainConfig
from robolearn.training.state import State, groups

SPEC = Spec(obs={"o": ArraySpec((2,))}, action=ArraySpec((2,)), hz=10)
EPISODES = [(0, 20), (20, 7), (27, 33)]


def walk(chains: Chains, batches: int) -> list[list[tuple[int, bool]]]:
    """Returns (window, reset) of every slot, in order."""
    slots: list[list[tuple[int, bool]]] = [[] for _ in range(chains.order.slots)]
    for k in range(batches):
        windows, resets = chains.batch(k)
        rows = windows.reshape(resets.shape)
        for s, slot in enumerate(slots):
            slot += zip(rows[s].tolist(), resets[s].tolist(), strict=True)
    return slots


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 9), st.integers(0, 3))
def test_a_slot_stays_in_its_episode_and_every_episode_and_offset_is_dealt_before_any_is_dealt_again(slots, length, stride, seed):
    chains = Chains(EPISODES, ChainOrder(slots, length, stride), seed)
    begins: list[int] = []
    for slot in walk(chains, 60):
        assert slot[0][1], "a chain begins with a reset"
        for (before, _), (after, reset) in itertools.pairwise(slot):
            first, count = next((f, c) for f, c in EPISODES if f <= before < f + c)
            assert reset == (before + stride >= first + count), "a reset where the chain ends, and only there"
            assert reset or after == before + stride
        begins += [window for window, reset in slot if reset]
    pairs = {first + offset for first, count in EPISODES for offset in range(min(stride, count))}
    times = Counter(begins)
    assert set(times) <= pairs
    assert max(times.values()) - min(times.get(p, 0) for p in pairs) <= 1


def test_a_slot_is_reset_at_least_as_often_as_it_is_told_to():
    chains = Chains([(0, 400)], ChainOrder(2, 3, 2, (4, 4)), 0)
    for slot in walk(chains, 40):
        at = [k for k, (_, reset) in enumerate(slot) if reset]
        assert max(np.diff(at)) == 4
    random = Chains([(0, 4000)], ChainOrder(1, 1, 1, (3, 6)), 0)
    gaps = np.diff([k for k, (_, reset) in enumerate(walk(random, 900)[0]) if reset])
    assert set(gaps.tolist()) >= {3, 4, 5, 6} and max(gaps) == 6


def test_a_batch_depends_on_its_number_only():
    a, b = (Chains(EPISODES, ChainOrder(3, 2, 4), 5) for _ in range(2))
    late = [x.copy() for x in a.batch(17)]
    for k in range(17):
        b.batch(k)
    for x, y in zip(late, b.batch(17), strict=True):
        np.testing.assert_array_equal(x, y)
    for x, y in zip(a.batch(3), b.batch(3), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> EpisodeSet:
    made = EpisodeSet.create(tmp_path_factory.mktemp("set") / "toy.zarr", SPEC, task="", env={})
    rng = np.random.default_rng(0)
    for i in range(5):
        n = 30 + i
        made.append({"o": rng.normal(size=(n, 2)).astype(np.float32), "action": rng.uniform(-1, 1, (n, 2)).astype(np.float32)})
    return EpisodeSet.open(made.path)


def make_config(out, memory="sega", **changes) -> TrainConfig:
    small = dict(memory_width=16, memory_slots=4, memory_layers=2, memory_heads=2, width=16, depth=1)
    policy = flow.Config(memory=memory, n_obs_steps=2, horizon=8, execute=4, steps=2, **small)
    base = TrainConfig(
        dataset=DatasetConfig(val_ratio=0.2),
        policy=policy,
        out=str(out),
        steps=12,
        batch_size=8,
        chain=2,
        warmup=2,
        log_every=3,
        val_every=6,
        save_every=6,
        precision="fp32",
        device="cpu",
        tensorboard=False,
    )
    return dataclasses.replace(base, **changes)


def weights(run) -> dict[str, torch.Tensor]:
    return checkpoint.read_tensors(checkpoint.resolve(run) / "weights.safetensors")


@pytest.mark.parametrize("memory", ["sega", "gru"])
def test_a_resumed_run_with_a_memory_equals_an_uninterrupted_one_bit_for_bit(memory, dataset, tmp_path, monkeypatch):
    trainer.train(make_config(tmp_path / "whole", memory), dataset, SPEC)
    stop = trainer.Meter.step
    count = iter(range(1, 99))

    def stopping(meter):
        stop(meter)
        if next(count) == 7:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(trainer.Meter, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(make_config(tmp_path / "parts", memory), dataset, SPEC)
    monkeypatch.undo()
    kept = checkpoint.read_tensors(checkpoint.resolve(tmp_path / "parts") / "state.safetensors")
    assert kept["memory.0"].shape[0] == 4, "the state of four slots is in the checkpoint"
    trainer.train(make_config(tmp_path / "parts", memory), dataset, SPEC, resume=True)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_batch_of_chains_in_parts_computes_what_the_whole_computes(dataset, tmp_path):
    from robolearn.training.logs import read_metrics

    for name, accumulate in (("one", 1), ("two", 2)):
        trainer.train(make_config(tmp_path / name, accumulate=accumulate), dataset, SPEC)
    found = [[row["loss"] for row in read_metrics(tmp_path / name) if "loss" in row] for name in ("one", "two")]
    np.testing.assert_allclose(*found, rtol=1e-4)


def test_the_stride_of_training_is_the_stride_of_driving_and_cannot_be_changed_by_accident(dataset, tmp_path):
    run = trainer.train(make_config(tmp_path / "run"), dataset, SPEC)
    assert checkpoint.load_policy(run).spec.memory_stride == 4
    assert checkpoint.load_policy(run, sampling={"execute": 4}).spec.memory_stride == 4
    with pytest.raises(ConfigError, match=r"memory_stride: want a divisor of execute \(6\), got 4"):
        checkpoint.load_policy(run, sampling={"execute": 6})


def test_batches_that_are_no_whole_chains_are_refused(dataset, tmp_path):
    with pytest.raises(ConfigError, match="batch_size 8 does not divide by chains of 3"):
        trainer.train(make_config(tmp_path / "run", chain=3), dataset, SPEC)
    with pytest.raises(ValueError, match="memory_stride: want a divisor of execute"):
        make_config(tmp_path).policy.__class__(memory="gru", memory_stride=3, execute=4)


@pytest.mark.parametrize("memory", ["sega", "gru", "none"])
def test_every_parameter_that_learns_is_in_exactly_one_optimiser_group(memory, dataset, tmp_path):
    cfg = make_config(tmp_path, memory, chain=1)
    windows, _ = trainer.make_windows(cfg, dataset, SPEC)
    state = State.begin(cfg, SPEC, windows, torch.device("cpu"))
    times = Counter(id(p) for group in state.optimizer.param_groups for p in group["params"])
    assert times == Counter(id(p) for p in state.net.parameters())
    apart = groups(state.net, 1e-3, 1e-6)
    assert Counter(id(p) for g in apart for p in g["params"]) == times
    decays = {id(p) for g in apart if g["weight_decay"] for p in g["params"]}
    for name, p in state.net.named_parameters():
        if name.endswith(("bias", "position", "positions", "initial")):
            assert id(p) not in decays, name


def test_a_frozen_memory_stays_at_its_random_start_and_the_rest_learns(dataset, tmp_path):
    cfg = make_config(tmp_path / "frozen")
    cfg = dataclasses.replace(cfg, policy=dataclasses.replace(cfg.policy, memory_frozen=True))
    run = trainer.train(cfg, dataset, SPEC)
    windows, _ = trainer.make_windows(cfg, dataset, SPEC)
    start = State.begin(cfg, SPEC, windows, torch.device("cpu")).net.state_dict()
    after = weights(run)
    assert all(torch.equal(after[key], start[key]) for key in start if key.startswith("memory."))
    assert any(not torch.equal(after[key], start[key]) for key in start if key.startswith("denoiser."))


def test_forgetting_at_every_step_is_a_policy_without_memory_whose_layers_read_the_learned_start():
    cfg = make_config("x").policy
    net = flow.Net(cfg, SPEC).eval()
    features = net.encode({"o": torch.randn(6, 2, 2)})
    always = torch.ones(6, dtype=torch.bool)
    _, context = net.remember(torch.randn(6, 4, 16), features, always)
    _, alone, _ = net.memory.sega(net.memory.sega.initial.expand(6, -1, -1), features, ~always)
    torch.testing.assert_close(context, alone)


def test_whole_chains_begin_in_every_batch_and_are_never_cut_where_they_fit():
    chains = Chains(EPISODES, ChainOrder(4, 9, 4, whole=True), 0)
    for k in range(20):
        windows, resets = chains.batch(k)
        assert resets[:, 0].all()
        for row, reset in zip(windows.reshape(resets.shape), resets, strict=True):
            first, count = next((f, c) for f, c in EPISODES if f <= row[0] < f + c)
            length = len(range(row[0], first + count, 4))
            assert row[:length].tolist() == list(range(row[0], first + count, 4)) and not reset[1:length].any()


@pytest.mark.parametrize("pair", [(5, 2), (5, 0), (-3, 4), (0, 3)])
def test_impossible_limits_of_a_reset_are_refused(pair):
    with pytest.raises(ConfigError, match="reset_every: want 1 <= least <= most"):
        ChainOrder(1, 1, 1, pair)


def test_validation_walks_whole_episodes_and_forgets_between_them(dataset, tmp_path):
    cfg = make_config(tmp_path)
    windows, _ = trainer.make_windows(cfg, dataset, SPEC)
    batch = trainer._first_chains(windows, 4)
    counts = [len(range(0, count, 4)) for _, count in windows.chains()]
    begins = np.cumsum([0, *counts[:-1]])
    assert batch["reset"].shape == (1, sum(counts)) and np.flatnonzero(batch["reset"][0]).tolist() == begins.tolist()


def test_more_than_one_process_is_refused_for_a_memory(tmp_path):
    with pytest.raises(ConfigError, match="trains in one process so far, got 2"):
        trainer.settled(make_config(tmp_path), 2)
