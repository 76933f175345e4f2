"""The CUDA paths: device flag, mixed precision, compile, resume, CUDA-graph sampling. `make test-gpu` runs them.

ROBOLEARN_GPU_TESTS_ON=cpu rehearses them without a GPU: the same calls, and graphs that are not captured.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn import cli
from robolearn.core import ArraySpec, Ask, Spec
from robolearn.data.store import EpisodeSet
from robolearn.nets.replay import Replayed
from robolearn.policies import diffusion, flow
from robolearn.training import checkpoint, precision, trainer
from robolearn.training.logs import read_metrics
from robolearn.training.settings import DatasetConfig, TrainConfig

sys.path.insert(0, str(Path(__file__).parent.parent / "apps"))
from runs import untrained

DEVICE = os.environ.get("ROBOLEARN_GPU_TESTS_ON", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device"),
]
SPEC = Spec(obs={"state": ArraySpec((3,))}, action=ArraySpec((2,)), hz=10)
POLICIES = {
    "flow, mlp": flow.Config(width=32, depth=2, horizon=8, execute=4, steps=4),
    "diffusion, unet1d": diffusion.Config(denoiser="unet1d", dims=(16, 32), horizon=8, execute=4, steps=4),
    "flow, sega": flow.Config(
        memory="sega",
        memory_width=16,
        memory_slots=4,
        memory_layers=2,
        memory_heads=2,
        width=32,
        depth=2,
        horizon=8,
        execute=4,
        steps=4,
    ),
    "diffusion, gru, past tokens": diffusion.Config(
        memory="gru", memory_width=16, memory_layers=1, n_past_actions=3, width=32, depth=2, horizon=8, execute=4, steps=4
    ),
    "flow, transformer": flow.Config(denoiser="transformer", width=32, depth=2, horizon=8, execute=4, steps=4),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> EpisodeSet:
    made = EpisodeSet.create(tmp_path_factory.mktemp("set") / "toy.zarr", SPEC, task="", env={})
    rng = np.random.default_rng(0)
    for i in range(6):
        state = rng.uniform(-1, 1, size=(40, 3)).astype(np.float32)
        made.append({"state": state, "action": state[:, :2] ** 2}, seed=i)
    return EpisodeSet.open(made.path)


def make_config(out: Path, name: str, **changes) -> TrainConfig:
    every = dict(warmup=2, log_every=5, val_every=20, save_every=20, tensorboard=False, device=DEVICE, precision="fp32")
    base = TrainConfig(
        dataset=DatasetConfig(val_ratio=0.2), policy=POLICIES[name], out=str(out), steps=60, lr=3e-3, batch_size=32
    )
    return dataclasses.replace(base, **every | changes)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("how", ["fp32", "bf16", "compile", "auto"])
def test_training_lowers_the_loss_in_every_precision(dataset, tmp_path, name, how):
    if how == "compile" and (why := precision.why_not_compile(DEVICE)):
        pytest.skip(why)
    run = trainer.train(make_config(tmp_path / "run", name, precision=how), dataset, SPEC)
    losses = [row["loss"] for row in read_metrics(run) if "loss" in row]
    assert np.isfinite(losses).all() and np.mean(losses[-3:]) < np.mean(losses[:3])


@pytest.mark.parametrize("name", POLICIES)
def test_a_run_resumes_and_its_checkpoint_plans_the_same_on_both_devices(dataset, tmp_path, name):
    run = trainer.train(make_config(tmp_path / "run", name, steps=20), dataset, SPEC)
    trainer.train(make_config(run, name, steps=40), dataset, SPEC, resume=True)
    assert read_metrics(run)[-1]["step"] == 40
    chunks = []
    for device in ("cpu", DEVICE):
        policy = checkpoint.load_policy(run, device)
        policy.reset(0)
        for k in range(3):  # a captured graph must follow new observations
            policy.observe({"state": np.full(3, 0.1 * k, np.float32)}, None)
            chunks.append(policy.plan(Ask(draws=3)).samples)
    for here, there in zip(chunks[:3], chunks[3:], strict=True):
        np.testing.assert_allclose(there, here, atol=5e-3)
    assert not np.allclose(chunks[3], chunks[5], atol=1e-4)


def test_sampling_on_the_device_goes_through_captured_graphs(dataset, tmp_path):
    policy = checkpoint.load_policy(trainer.train(make_config(tmp_path / "run", "flow, mlp", steps=20), dataset, SPEC), DEVICE)
    policy.reset(0)
    policy.observe({"state": np.zeros(3, np.float32)}, None)
    first, second = policy.plan(), policy.plan()
    assert np.array_equal(first.actions, second.actions)
    if DEVICE == "cuda":
        assert isinstance(policy.net.denoiser, Replayed) and len(policy.net.denoiser.captured) == 1


def test_eval_takes_the_device_flag(tmp_path):
    untrained(tmp_path / "run")
    small = ["--episodes", "4", "--seed", "500", "--max-steps", "16", "--videos", "0", "--workers", "1"]
    assert cli.main(["eval", str(tmp_path / "run"), *small, "--device", DEVICE, "--json", str(tmp_path / "out.json")]) == 0
    assert len(json.loads((tmp_path / "out.json").read_text())["episodes"]) == 4
