"""Three-stage training: the cache says what the encoder says, the encoder stays as it is, and one command does all of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from robolearn.core import ArraySpec, Spec
from robolearn.data.store import EpisodeSet
from robolearn.errors import ConfigError, DatasetError
from robolearn.policies import flow
from robolearn.policies._base import EMBEDDING, Draws
from robolearn.training import checkpoint, embed, trainer
from robolearn.training.settings import DatasetConfig, TrainConfig
from robolearn.training.state import State

SPEC = Spec(obs={"o": ArraySpec((2,)), "cam_image": ArraySpec((32, 32, 3), "uint8")}, action=ArraySpec((2,)), hz=10)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> EpisodeSet:
    made = EpisodeSet.create(tmp_path_factory.mktemp("set") / "toy.zarr", SPEC, task="", env={})
    rng = np.random.default_rng(0)
    for _ in range(4):
        rows = {"o": rng.normal(size=(25, 2)), "action": rng.uniform(-1, 1, (25, 2))}
        rows = {key: value.astype(np.float32) for key, value in rows.items()}
        made.append({**rows, "cam_image": rng.integers(0, 256, (25, 32, 32, 3), dtype=np.uint8)})
    return EpisodeSet.open(made.path)


def make_config(out, n_obs: int = 2, **changes) -> TrainConfig:
    images = dict(obs=("o", "cam_image"), crop=28, image_features=8, image_net="small")
    policy = flow.Config(n_obs_steps=n_obs, horizon=n_obs + 5, execute=4, steps=2, width=16, depth=1, **images)
    base = dict(steps=4, batch_size=8, warmup=1, log_every=2, val_every=4, save_every=4)
    quiet = dict(precision="fp32", device="cpu", tensorboard=False)
    return dataclasses.replace(TrainConfig(DatasetConfig(val_ratio=0.25), policy, str(out), **base, **quiet), **changes)


@pytest.fixture(scope="module")
def encoder(dataset, tmp_path_factory):
    return trainer.train(make_config(tmp_path_factory.mktemp("runs") / "encoder"), dataset, SPEC)


def test_the_cache_holds_what_the_frozen_encoder_says_when_driving(dataset, encoder, tmp_path):
    cfg = make_config(tmp_path / "head", n_obs=5, encoder=str(encoder))
    run = trainer.train(cfg, dataset, SPEC)
    frozen = embed.Frozen.load(encoder)
    kept = embed.frames(cfg, frozen, dataset, SPEC, torch.device("cpu"))[EMBEDDING][0]
    policy = checkpoint.load_policy(run)
    policy.reset(0)
    rows = dataset.episode(2)
    for k in range(9):
        policy.observe({key: rows[key][k] for key in SPEC.obs}, None)
    policy.plan()
    low, _ = dataset.span(2)
    for place, feature in zip(policy._places, range(4, 9), strict=True):
        online = policy.streams[0].encoded[place].numpy()
        assert np.linalg.norm(online - kept[low + feature]) < 1e-3 * np.linalg.norm(online)


def test_the_loss_on_cached_frames_is_the_loss_on_the_frames_themselves(dataset, encoder, tmp_path):
    cfg = make_config(tmp_path, n_obs=3, encoder=str(encoder))
    frozen = embed.Frozen.load(encoder)
    frames = embed.frames(cfg, frozen, dataset, SPEC, torch.device("cpu"))
    losses = []
    for given in (frames, {}):
        windows, _ = trainer.make_windows(cfg, dataset, SPEC, frames=given)
        state = State.begin(cfg, SPEC, windows, torch.device("cpu"), frozen.install)
        state.net.eval()
        batch = trainer.Scale(frozen.normalizer, SPEC, torch.device("cpu"))(windows.batch(np.arange(0, 60, 7)))
        assert (EMBEDDING in batch.obs) == bool(given)
        losses.append(float(state.net.loss(batch, None, rng=Draws(torch.Generator().manual_seed(0)))[0]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_training_the_head_moves_no_weight_of_the_encoder_and_every_other_one(dataset, encoder, tmp_path):
    cfg = make_config(tmp_path / "head", n_obs=3, encoder=str(encoder))
    windows, _ = trainer.make_windows(cfg, dataset, SPEC)
    before = State.begin(cfg, SPEC, windows, torch.device("cpu"), embed.Frozen.load(encoder).install).net.state_dict()
    run = trainer.train(cfg, dataset, SPEC)
    state = checkpoint.read_tensors(checkpoint.resolve(run) / "state.safetensors")
    moved = {key for key in before if not torch.equal(before[key], state[f"net.{key}"])}
    assert not [key for key in moved if key.startswith("encoder.")]
    assert {key for key in before if key.startswith("denoiser.")} - moved == set()
    trained = embed.Frozen.load(encoder).weights
    assert all(torch.equal(trained[key.removeprefix("encoder.")], before[key]) for key in before if key.startswith("encoder."))


def test_random_crops_in_the_cache_differ_and_windows_draw_among_them(dataset, encoder, tmp_path):
    cfg = make_config(tmp_path, n_obs=3, encoder=str(encoder), cache_crops=3)
    frames = embed.frames(cfg, embed.Frozen.load(encoder), dataset, SPEC, torch.device("cpu"))
    assert frames[EMBEDDING].shape == (3, 100, 10) and not np.array_equal(frames[EMBEDDING][0], frames[EMBEDDING][1])
    np.testing.assert_array_equal(frames[EMBEDDING][0][:, :2], frames[EMBEDDING][1][:, :2], "vectors are not cropped")
    windows, _ = trainer.make_windows(cfg, dataset, SPEC, frames=frames)
    seen = np.stack([windows.batch(np.array([5]), draw)["obs"][EMBEDDING][0, -1] for draw in range(40)])
    assert len(np.unique(seen, axis=0)) == 3
    np.testing.assert_array_equal(windows.batch(np.array([5]), 7)["obs"][EMBEDDING][0, -1], seen[7])


def test_a_stale_cache_is_refused_and_rebuilt_when_told_to(dataset, encoder, tmp_path):
    import shutil

    moved = tmp_path / "moved.zarr"
    shutil.copytree(dataset.path, moved)
    cfg = make_config(tmp_path / "a", n_obs=3, encoder=str(encoder))
    trainer.train(cfg, EpisodeSet.open(moved), SPEC)
    grown = EpisodeSet.open(moved, writable=True)
    grown.append({key: value for key, value in dataset.episode(0).items()})
    with pytest.raises(DatasetError, match="stale: it is of 100 frames, the dataset now has 125"):
        trainer.train(dataclasses.replace(cfg, out=str(tmp_path / "b")), EpisodeSet.open(moved), SPEC)
    assert not (tmp_path / "b").exists(), "refused before anything is written"
    trainer.train(dataclasses.replace(cfg, out=str(tmp_path / "b"), rebuild_cache=True), EpisodeSet.open(moved), SPEC)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_features": 16}, "was trained with image_features 8, this policy has 16"),
        ({"image_net": "resnet18"}, "was trained with image_net small, this policy has resnet18"),
        ({"crop": 20}, "was trained with crop 28, this policy has 20"),
        ({"obs": ("cam_image",)}, r"was trained with obs \('o', 'cam_image'\), this policy has \('cam_image',\)"),
        ({"obs": ("cam_image", "o")}, "was trained with obs"),
        ({"memory": "sega", "memory_width": 16}, "was trained with obs_width 0, this policy has 16"),
    ],
)
def test_a_head_that_reads_otherwise_than_its_encoder_is_refused_in_one_line(dataset, encoder, tmp_path, changes, said):
    cfg = make_config(tmp_path / "a", encoder=str(encoder))
    with pytest.raises(ConfigError, match=said):
        trainer.train(dataclasses.replace(cfg, policy=dataclasses.replace(cfg.policy, **changes)), dataset, SPEC)
    assert not (tmp_path / "a").exists()


def test_actions_far_outside_of_the_encoders_normalizer_are_refused(dataset, encoder, tmp_path):
    far = EpisodeSet.create(tmp_path / "far.zarr", SPEC, task="", env={})
    rows = dataset.episode(0)
    far.append({**rows, "action": 10 * rows["action"]})
    with pytest.raises(ConfigError, match=r"makes actions up to 1.*want -1 to 1; train the encoder on this set"):
        trainer.train(make_config(tmp_path / "a", encoder=str(encoder)), EpisodeSet.open(far.path), SPEC)


def test_a_head_is_not_resumed_on_another_encoder_of_the_same_name(dataset, tmp_path):
    trainer.train(make_config(tmp_path / "encoder"), dataset, SPEC)
    cfg = make_config(tmp_path / "head", n_obs=3, encoder=str(tmp_path / "encoder"))
    trainer.train(cfg, dataset, SPEC)
    trainer.train(make_config(tmp_path / "encoder", seed=5), dataset, SPEC, overwrite=True)
    with pytest.raises(ConfigError, match=r"its encoder is not that of .* any more; start a new --out"):
        trainer.train(dataclasses.replace(cfg, steps=8), dataset, SPEC, resume=True)


def test_a_memory_learns_on_cached_frames(dataset, encoder, tmp_path):
    cfg = make_config(tmp_path / "head", n_obs=2, encoder=str(encoder), chain=2)
    cfg = dataclasses.replace(cfg, policy=dataclasses.replace(cfg.policy, memory="gru", memory_width=8, memory_layers=1))
    policy = checkpoint.load_policy(trainer.train(cfg, dataset, SPEC))
    policy.reset(0)
    policy.observe({key: dataset.episode(0)[key][0] for key in SPEC.obs}, None)
    assert np.isfinite(policy.plan().actions).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cache_crops": 2}, "there is none; leave them out"),
        ({"chain": 4}, "policy.memory is none; leave them out"),
        ({"reset_every": (4, 4)}, "policy.memory is none; leave them out"),
    ],
)
def test_what_nothing_would_read_is_refused(dataset, tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        trainer.train(make_config(tmp_path / "a", **changes), dataset, SPEC)
