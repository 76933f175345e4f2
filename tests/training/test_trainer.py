"""Training: resumes bit for bit, computes the same in two processes, refuses what it should and loses nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from robolearn import config
from robolearn.core import ArraySpec, Spec
from robolearn.data.store import EpisodeSet
from robolearn.errors import AlreadyExists, ArrayMismatch, BadInput, CheckpointError, ConfigError, TrainingDiverged
from robolearn.policies import flow
from robolearn.training import checkpoint, settings, trainer
from robolearn.training.logs import read_metrics
from robolearn.training.settings import DatasetConfig, TrainConfig

SPEC = Spec(obs={"state": ArraySpec((3,)), "points": ArraySpec((2, 2))}, action=ArraySpec((2,)), hz=10)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> EpisodeSet:
    made = EpisodeSet.create(tmp_path_factory.mktemp("set") / "toy.zarr", SPEC, task="", env={})
    rng = np.random.default_rng(0)
    for i in range(6):
        n = 30 + i
        made.append(
            {
                "state": rng.normal(size=(n, 3)).astype(np.float32),
                "points": rng.normal(size=(n, 2, 2)).astype(np.float32),
                "action": rng.uniform(-1, 1, size=(n, 2)).astype(np.float32),
            },
            seed=i,
        )
    return EpisodeSet.open(made.path)


def make_config(out: Path, **changes) -> TrainConfig:
    policy = flow.Config(width=16, depth=2, n_obs_steps=2, horizon=8, execute=4, steps=2, dropout=0.1)
    base = TrainConfig(
        dataset=DatasetConfig(val_ratio=0.2),
        policy=policy,
        out=str(out),
        steps=12,
        batch_size=16,
        warmup=2,
        log_every=3,
        val_every=6,
        save_every=6,
        precision="fp32",
        device="cpu",
        tensorboard=False,
    )
    return dataclasses.replace(base, **changes)


def weights(run: Path, which: str = "last") -> dict[str, torch.Tensor]:
    return checkpoint.read_tensors(checkpoint.resolve(run, which) / "weights.safetensors")


def losses(run: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in read_metrics(run) if "loss" in row]


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(dataset, tmp_path, monkeypatch):
    trainer.train(make_config(tmp_path / "whole"), dataset, SPEC)
    monkeypatch.setattr(trainer.Meter, "step", _stop_at(trainer.Meter.step, 9))
    with pytest.raises(KeyboardInterrupt):
        trainer.train(make_config(tmp_path / "parts"), dataset, SPEC)
    monkeypatch.undo()
    assert checkpoint.resolve(tmp_path / "parts").name == "step_0000009", "Ctrl-C keeps the step that was done"
    trainer.train(make_config(tmp_path / "parts"), dataset, SPEC, resume=True)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert losses(tmp_path / "whole")[-1] == losses(tmp_path / "parts")[-1]


def test_a_run_killed_between_checkpoints_resumes_bit_for_bit(dataset, tmp_path):
    trainer.train(make_config(tmp_path / "whole", keep_best=9), dataset, SPEC)
    trainer.train(make_config(tmp_path / "parts", keep_best=9), dataset, SPEC)
    checkpoint.point(tmp_path / "parts", "last", tmp_path / "parts" / "checkpoints" / "step_0000006")
    trainer.train(make_config(tmp_path / "parts", keep_best=9), dataset, SPEC, resume=True)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


def test_a_run_whose_moments_are_numbered_as_they_once_were_resumes_bit_for_bit(dataset, tmp_path):
    """Until 2026-11-26 moments were kept by number: all matrices, learned positions among them, then all vectors."""
    deep = dataclasses.replace(make_config(tmp_path).policy, denoiser="transformer", heads=2)
    for name in ("whole", "parts"):
        trainer.train(make_config(tmp_path / name, keep_best=9, policy=deep), dataset, SPEC)
    folder = tmp_path / "parts" / "checkpoints" / "step_0000006"
    checkpoint.point(tmp_path / "parts", "last", folder)
    kept = checkpoint.read_tensors(folder / "state.safetensors")
    named = list(checkpoint.load_policy(folder).net.named_parameters())
    order = [name for name, p in named if p.ndim >= 2] + [name for name, p in named if p.ndim < 2]
    order = [name.replace("denoiser.inner.", "denoiser.") for name in order]
    old = {key: value for key, value in kept.items() if not key.startswith("moments.")}
    for key in kept.keys() - old.keys():
        name, what = key.removeprefix("moments.").rsplit(":", 1)
        old[f"optimizer.{order.index(name)}.{what}"] = kept[key]
    save_file(old, folder / "state.safetensors")
    trainer.train(make_config(tmp_path / "parts", keep_best=9, policy=deep), dataset, SPEC, resume=True)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(a[key], b[key]) for key in a)


def _stop_at(method, step):
    def stopping(meter):
        method(meter)
        stopping.count += 1
        if stopping.count == step:
            os.kill(os.getpid(), signal.SIGINT)

    stopping.count = 0
    return stopping


def test_a_batch_accumulated_in_parts_computes_what_the_whole_computes(dataset, tmp_path):
    plain = dataclasses.replace(make_config(tmp_path).policy, dropout=0.0)
    for name, accumulate in (("one", 1), ("four", 4)):
        trainer.train(make_config(tmp_path / name, accumulate=accumulate, policy=plain), dataset, SPEC)
    np.testing.assert_allclose(losses(tmp_path / "four"), losses(tmp_path / "one"), rtol=1e-4)


TWO_PROCESSES = """
import dataclasses, os, sys
from pathlib import Path
from accelerate import PartialState
sys.path.insert(0, sys.argv[1])
import test_trainer as t
from robolearn.data.store import EpisodeSet
from robolearn.training import trainer

cfg = t.make_config(Path(sys.argv[3]))
cfg = dataclasses.replace(cfg, policy=dataclasses.replace(cfg.policy, dropout=0.0))
other = os.fork()  # after the imports, which take most of the time, and before anything is computed
os.environ["RANK"] = os.environ["LOCAL_RANK"] = "0" if other else "1"
try:
    trainer.train(cfg, EpisodeSet.open(sys.argv[2]), t.SPEC)
    assert PartialState().num_processes == 2
finally:
    code = os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) if other else 0
sys.exit(code)
"""


def test_two_processes_compute_what_one_computes(dataset, tmp_path):
    plain = dataclasses.replace(make_config(tmp_path).policy, dropout=0.0)
    trainer.train(make_config(tmp_path / "one", policy=plain), dataset, SPEC)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    env |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # as torchrun does
    command = [sys.executable, "-c", TWO_PROCESSES, str(Path(__file__).parent), str(dataset.path), str(tmp_path / "two")]
    made = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-4)
    a, b = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key in a:
        torch.testing.assert_close(a[key], b[key], atol=2e-4, rtol=1e-3)


def test_a_nan_loss_stops_and_keeps_the_last_good_checkpoint(dataset, tmp_path):
    trainer.train(make_config(tmp_path / "run", steps=6), dataset, SPEC)
    before = weights(tmp_path / "run")
    cfg = make_config(tmp_path / "run", steps=12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow.Net, "loss", lambda net, batch, state, *, rng: (next(net.parameters()).sum() * float("nan"), None))
        with pytest.raises(TrainingDiverged, match="loss is nan at step 9; the checkpoint of step 6 is kept"):
            trainer.train(cfg, dataset, SPEC, resume=True)
    after = weights(tmp_path / "run")
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_an_existing_run_is_refused_and_untouched(dataset, tmp_path):
    trainer.train(make_config(tmp_path / "run", steps=3), dataset, SPEC)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    with pytest.raises(AlreadyExists, match="--resume to continue it, --overwrite to replace it"):
        trainer.train(make_config(tmp_path / "run"), dataset, SPEC)
    with pytest.raises(ConfigError, match="--resume cannot change 'lr'"):
        trainer.train(make_config(tmp_path / "run", lr=1.0), dataset, SPEC, resume=True)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    trainer.train(make_config(tmp_path / "run", steps=3), dataset, SPEC, overwrite=True)


def test_best_checkpoints_are_kept_and_named(dataset, tmp_path):
    trainer.train(make_config(tmp_path / "run", steps=12, val_every=2, save_every=2, keep_best=2), dataset, SPEC)
    errors = {row["step"]: row["val_action_mse"] for row in read_metrics(tmp_path / "run") if "val_action_mse" in row}
    best = sorted(errors, key=errors.get)[:2]
    kept = sorted(int(p.name.split("_")[1]) for p in (tmp_path / "run" / "checkpoints").glob("step_*"))
    assert set(kept) == {*best, 12}
    assert checkpoint.resolve(tmp_path / "run", "best").name == f"step_{best[0]:07d}"


def test_a_checkpoint_alone_plans_and_its_settings_may_be_resampled(dataset, tmp_path):
    trainer.train(make_config(tmp_path / "run"), dataset, SPEC)
    alone = tmp_path / "moved"
    checkpoint.resolve(tmp_path / "run").rename(alone)
    policy = checkpoint.load_policy(alone, sampling={"steps": 5, "sampler": "heun"})
    assert policy.net.config.steps == 5 and policy.spec.execute == 4
    policy.reset(0)
    policy.observe({"state": np.zeros(3, np.float32), "points": np.zeros((2, 2), np.float32)}, None)
    assert policy.plan().actions.shape == (7, 2)
    with pytest.raises(ArrayMismatch):
        policy.observe({"state": np.zeros(4, np.float32), "points": np.zeros((2, 2), np.float32)}, None)


def test_broken_checkpoints_are_refused_in_one_line(dataset, tmp_path):
    run = trainer.train(make_config(tmp_path / "run"), dataset, SPEC)
    folder = checkpoint.resolve(run)
    with pytest.raises(CheckpointError, match="a pickle can run code"):
        checkpoint.load_policy(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="no such run folder; did you mean 'run'"):
        checkpoint.load_policy(tmp_path / "rum")
    with pytest.raises(CheckpointError, match="holds no checkpoint 'step_9'"):
        checkpoint.resolve(run, "step_9")
    with pytest.raises(BadInput, match="'sampler_' cannot be changed after training; did you mean"):
        checkpoint.load_policy(run, sampling={"sampler_": "x"})
    data = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        checkpoint.load_policy(run)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"'weights.safetensors' is missing"):
        checkpoint.load_policy(folder.parent.parent)


def test_every_shipped_preset_loads_and_is_complete():
    for name in config.shipped("train"):
        cfg = settings.load(config.find("train", name))
        study = name.startswith(("memory_", "drawer_"))  # an arm of a study is named for what differs
        recipe = name.startswith(("mt_pi", "point_policy", "zeromimic"))  # a paper's, of people's video: bound to no body
        assert (study or recipe or cfg.policy.name in name) and (recipe or cfg.task) and cfg.out == f"data/runs/{name}"
        assert not study or len(config.find("train", name).read_text().splitlines()) < 40


def test_metrics_of_a_crashed_run_are_read_up_to_the_broken_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 2.0}) + '\n{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}]
