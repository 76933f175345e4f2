"""MT-pi's network: steps of tracks that add up, halves of the loss, the retargeting net, alignment, and sizes as published."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn.core import ArraySpec, Spec
from robolearn.data.layout import Layout
from robolearn.data.normalize import Normalizer
from robolearn.data.stats import array_stats, compute_stats
from robolearn.data.store import EpisodeSet
from robolearn.data.windows import Windows
from robolearn.errors import ConfigError, SpecMismatch
from robolearn.nets import keypoints
from robolearn.nets.photometric import augmented
from robolearn.nets.unet1d import UNet1d
from robolearn.nets.vision import VisionEncoder
from robolearn.policies import mt_pi
from robolearn.policies._base import Batch, Draws
from robolearn.policies._learned import Learned
from robolearn.training import checkpoint, trainer
from robolearn.training.settings import DatasetConfig, TrainConfig
from robolearn.video.codec import encode_deltas

SIDE = 32
SPEC = Spec({"image": ArraySpec((SIDE, SIDE, 3), "uint8"), "track": ArraySpec((10,))}, ArraySpec((11,)), 10.0, codec="tracks")
SMALL = dict(denoiser="mlp", width=32, depth=2, image_net="small", image_features=16, execute=8)


def make_net(spec: Spec = SPEC, seed: int = 0, **fields) -> mt_pi.Net:
    torch.manual_seed(seed)
    net = mt_pi.Net(mt_pi.Config(**{**SMALL, **fields}), spec)
    with torch.no_grad():  # denoisers start at zero: make their answer depend on everything
        for p in net.parameters():
            p.add_(0.05 * torch.randn(p.shape))
    return net


def make_batch(rows: int = 8, group: bool = False) -> Batch:
    g = torch.Generator().manual_seed(1)
    action = torch.rand(rows, 16, 11, generator=g) * 2 - 1
    picture = torch.randint(0, 256, (rows, 1, SIDE, SIDE, 3), dtype=torch.uint8, generator=g)
    obs = {"image": picture, "track": action[:, :1, :10].clone()}
    return Batch(obs, action, {}, group=torch.arange(rows) % 2 if group else None)


def test_what_is_denoised_are_steps_and_they_add_up_to_the_tracks_from_where_the_points_are() -> None:
    """T4: decode(encode(a)) = a, step 0 is 0, the grasp column is untouched."""
    net, batch = make_net(), make_batch()
    net.step_scale.copy_(torch.rand(10) + 0.5)
    steps = net.steps_of(batch.action)
    assert steps[:, 0, :10].eq(0).all() and steps[..., 10].equal(batch.action[..., 10])
    torch.testing.assert_close(net.tracks_of(steps, batch.action[:, 0, :10]), batch.action, atol=1e-5, rtol=0)


def test_a_plan_begins_exactly_where_the_points_are_now_whatever_the_network_says_of_row_0() -> None:
    net, batch = make_net(), make_batch()
    context = net.encode(batch.obs)
    sampled = net.sample(context, torch.randn(net.noise_draws(), 8, 16, 11))
    torch.testing.assert_close(sampled[:, 0, :10], batch.obs["track"][:, 0], atol=1e-5, rtol=0)
    assert (sampled[:, 1:, :10] - sampled[:, :1, :10]).abs().max() > 1e-3


@pytest.mark.parametrize("objective", ["ddpm", "flow"])
def test_tracks_and_grasp_are_half_of_the_loss_each(objective: str) -> None:
    """1b.8: L = 0.5 * (mean over the track numbers + mean over the grasp)."""
    net, batch = make_net(objective=objective, sampler="ddim" if objective == "ddpm" else "euler"), make_batch()
    weight = net.inner.action_weight
    assert weight is not None and weight.mean() == pytest.approx(1.0)
    found, _ = net.loss(batch, None, rng=Draws(torch.Generator().manual_seed(3)))
    parts = []
    for part in (slice(0, 10), slice(10, 11)):
        only = torch.zeros(11)
        only[part] = 11 / (part.stop - part.start)
        net.inner.action_weight = only
        parts.append(net.loss(batch, None, rng=Draws(torch.Generator().manual_seed(3)))[0])
    torch.testing.assert_close(found, 0.5 * (parts[0] + parts[1]))


def test_a_set_that_says_not_where_the_points_are_is_refused() -> None:
    with pytest.raises(SpecMismatch, match="reads where the points are from observation 'track', got image"):
        make_net(dataclasses.replace(SPEC, obs={"image": SPEC.obs["image"]}))
    with pytest.raises(SpecMismatch, match="want an action of the track's 10 numbers and the gripper's, got 10"):
        make_net(dataclasses.replace(SPEC, action=ArraySpec((10,))))
    with pytest.raises(ValueError, match="objective 'ddpm' has no sampler 'euler'"):
        mt_pi.Config(sampler="euler")
    with pytest.raises(ValueError, match="a crop moves the picture and leaves the points"):
        mt_pi.Config(crop=28)
    with pytest.raises(ValueError, match="want one row of now, and 16 executed ones"):
        mt_pi.Config(execute=16)


@pytest.mark.parametrize(
    ("backbone", "features", "dims", "millions"),
    [
        ("resnet18", 512, (256, 512, 1024), (11.2, 0.16, 67.2)),
        ("resnet18", 512, (64, 128, 256), (11.2, 0.16, 5.8)),
        ("resnet50", 2048, (256, 512, 1024), (23.5, 2.6, 72.7)),
        ("resnet50", 2048, (64, 128, 256), (23.5, 2.6, 7.1)),
    ],
)
def test_encoder_mlp_and_unet_have_the_published_sizes(backbone, features, dims, millions) -> None:
    """T13, table 1h.2: 12 numbers (its terminal one too), H = 16, a 256-d embedding of the step."""
    with torch.device("meta"):
        encoder = VisionEncoder((128, 128), None, features, backbone=backbone, head="average")
        unet = UNet1d(12, 16, 1, features // 4 + 10, dims, step_dim=256)
        spec = dataclasses.replace(SPEC, obs={**SPEC.obs, "image": ArraySpec((128, 128, 3), "uint8")})
        paper = dict(image_net=backbone, image_features=features, image_head="average", image_mlp=True)
        look = mt_pi.Net(mt_pi.Config(**paper, dims=(8, 16)), spec).look
    sizes = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (encoder, look, unet)]
    assert sizes == pytest.approx(millions, abs=0.05)


def test_shapes_of_the_paper_s_network() -> None:
    """T13: (B, 1, S, S, 3) and (B, 1, 10) in, (B, 16, 11) out, with the MLP over the picture's features."""
    net = make_net(denoiser="unet1d", dims=(16, 32), image_mlp=True, image_features=32)
    batch = make_batch(3)
    context = net.encode(batch.obs)
    assert context.shape == (3, 1, 10 + 32)
    cond, now = net._condition(context)
    assert cond.shape == (3, 1, 32 // 4 + 10) and now.shape == (3, 10)
    assert net.sample(context, torch.randn(1, 3, 16, 11)).shape == (3, 16, 11)


def test_the_retargeting_net_undoes_noise_around_zero_and_the_official_noise_is_one_sided() -> None:
    """1b.7: corrected noise is zero-mean and leaves the base point; passed through the normaliser 0 px becomes about -1."""
    scale, offset = torch.full((10,), 2 / SIDE), torch.full((10,), -1.0)
    drawn = keypoints.noise(4000, scale, offset, SIDE, torch.Generator().manual_seed(0))
    assert drawn[:, :2].eq(0).all() and drawn.mean().abs() < 2e-3 and drawn.abs().max() <= 4 * SIDE / 128 * 2 / SIDE
    official = keypoints.noise(4000, scale, offset, SIDE, torch.Generator().manual_seed(0), official=True)
    assert official[:, :2].eq(-1).all() and official.max() < -0.8
    g = torch.Generator().manual_seed(0)
    shapes = torch.rand(600, 1, generator=g) * torch.linspace(-0.5, 0.5, 10) + 0.4 * torch.rand(600, 1, generator=g) - 0.2
    torch.manual_seed(0)
    net = keypoints.Keypoints(10)

    def draw(rows: int, rng: torch.Generator) -> torch.Tensor:
        return keypoints.noise(rows, scale, offset, SIDE, rng)

    error = keypoints.fit(net, shapes, draw, 600, seed=0)
    raw = draw(4000, torch.Generator().manual_seed(1)).square().mean()
    assert error < 0.5 * raw, "what is left of the noise is less than half"


def toy_windows(folder: Path) -> tuple[Windows, Normalizer]:
    """Returns windows of a person's and a robot's episodes with steps of different size, and their normalizer."""
    path = folder / "train.zarr"
    if path.exists():
        made = EpisodeSet.open(path)
    else:
        made = EpisodeSet.create(path, SPEC, task="", env={}, durable=False)
        rng = np.random.default_rng(0)
        for kind, size in (("human", 0.5), ("robot", 1.0)) * 2:
            track = 10 + np.cumsum(rng.uniform(-size, size, (30, 10)), axis=0).astype(np.float32)
            action = np.concatenate([track, np.ones((30, 1), np.float32)], axis=1)
            made.append({"image": np.zeros((30, SIDE, SIDE, 3), np.uint8), "track": track, "action": action}, embodiment=kind)
    windows = Windows(made, ("image", "track"), layout=Layout(1, 16, 0), pad_after=7)
    return windows, Normalizer.fit(compute_stats(made, ("track", "action")))


def test_steps_are_measured_before_the_training_and_the_retargeting_net_is_frozen(tmp_path: Path) -> None:
    windows, normalizer = toy_windows(tmp_path)
    net = make_net(scale_steps=True, krn="corrected", krn_steps=50)
    before = {name: value.clone() for name, value in net.retarget.state_dict().items()}
    net.prepare(windows, normalizer, seed=0)
    actions = torch.from_numpy(normalizer.normalize("action", windows.actions(np.arange(len(windows)))))
    steps = encode_deltas(actions, 10)[..., :10]
    torch.testing.assert_close(net.step_scale, steps.abs().amax((0, 1)))
    assert any(not value.equal(before[name]) for name, value in net.retarget.state_dict().items())
    assert not any(p.requires_grad for p in net.retarget.parameters())
    assert "step_scale" in net.state_dict(), "a checkpoint keeps it"


def test_a_retargeting_net_without_people_is_refused(tmp_path: Path) -> None:
    windows, normalizer = toy_windows(tmp_path)
    robots = Windows(EpisodeSet.open(tmp_path / "train.zarr"), ("track",), layout=Layout(1, 16, 0), pad_after=7, episodes=[1])
    assert len(robots) < len(windows)
    with pytest.raises(ConfigError, match="krn learns from human tracks, and there are none"):
        make_net(krn="corrected").prepare(robots, normalizer, seed=0)


@pytest.mark.parametrize("weight", ["kl_weight", "moments_weight"])
def test_alignment_is_zero_for_equal_embodiments_and_pulls_others_together(weight: str) -> None:
    net, batch = make_net(**{weight: 1.0}), make_batch(8, group=True)
    same = {key: value[:1].expand_as(value) for key, value in batch.obs.items()}
    cond, _ = net._condition(net.encode(same))
    assert float(net._alignment(cond, batch.group)) == pytest.approx(0.0, abs=1e-6)
    cond, _ = net._condition(net.encode(batch.obs))
    assert float(net._alignment(cond, batch.group)) > 1e-4
    with pytest.raises(ConfigError, match=r"give dataset\.balance embodiment"):
        net.train().loss(make_batch(), None, rng=Draws(torch.Generator()))
    net.eval().loss(make_batch(), None, rng=Draws(torch.Generator()))


def test_augmentation_changes_most_pictures_a_little_and_all_frames_of_a_row_alike() -> None:
    torch.manual_seed(0)
    pictures = torch.randint(60, 200, (64, 1, 16, 16, 3), dtype=torch.uint8).expand(64, 2, 16, 16, 3)
    out = augmented(pictures)
    assert out.dtype == torch.uint8 and out[:, 0].equal(out[:, 1])
    changed = (out != pictures).flatten(1).any(1).float().mean()
    assert 0.8 < changed <= 1.0 and (out.float() - pictures.float()).abs().mean() < 25
    assert pictures.min() >= 60, "the batch itself stays as it was"


def test_one_episode_is_learnt_to_less_than_a_pixel() -> None:
    """T12: over-fit one episode in 200 steps; sampled tracks are off by less than 1 px of a 128 px picture.

    Of a network that predicts the steps: errors of 16 steps add up, and one that predicts noise is off by 15 px here.
    """
    time = np.linspace(0, 1, 40)[:, None]
    tracks = (64 + 40 * np.sin(2.5 * time + np.linspace(0, 6, 10))).astype(np.float32)  # px
    action = np.concatenate([tracks, (time > 0.5).astype(np.float32)], axis=1)
    future = action[np.minimum(np.arange(40)[:, None] + np.arange(16), 39)]
    spec = dataclasses.replace(SPEC, obs={"track": SPEC.obs["track"]})
    normalizer = Normalizer.fit({"track": array_stats(tracks), "action": array_stats(action)})
    torch.manual_seed(0)
    small = dict(denoiser="mlp", width=256, depth=1, prediction="sample", steps=4, scale_steps=True)
    net = mt_pi.Net(mt_pi.Config(obs=("track",), **small), spec)
    wanted = torch.from_numpy(normalizer.normalize("action", future))
    net.step_scale.copy_(encode_deltas(wanted, 10)[..., :10].abs().amax((0, 1)))
    now = torch.from_numpy(normalizer.normalize("track", tracks))[:, None]
    batch = Batch({"track": now.repeat(2, 1, 1)}, wanted.repeat(2, 1, 1), {})
    optimizer = torch.optim.Adam(net.parameters(), lr=8e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=200)
    draws = Draws(torch.Generator().manual_seed(0))
    for _ in range(200):
        loss, _ = net(batch, None, draws)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    policy = Learned(net, spec, normalizer, streams=40)
    for k in range(40):
        policy.reset_stream(k, k)
        policy.observe_stream(k, {"track": tracks[k]}, None)
    sampled = np.stack([chunk.actions for chunk in policy.plan_streams(range(40))])
    error = np.linalg.norm((sampled - future)[..., :10].reshape(40, 16, 5, 2), axis=-1)
    assert error.mean() < 1.0, f"{error.mean():.2f} px"
    assert ((sampled[..., 10] < 0.5) == (future[..., 10] < 0.5)).mean() > 0.97


def test_a_balanced_training_resumes_bit_for_bit_and_keeps_what_was_measured_before_it(tmp_path: Path) -> None:
    toy_windows(tmp_path)
    dataset = EpisodeSet.open(tmp_path / "train.zarr")
    policy = mt_pi.Config(**SMALL, scale_steps=True, krn="corrected", krn_steps=20, steps=2, moments_weight=0.1)
    base = TrainConfig(
        dataset=DatasetConfig(val_ratio=0.25, balance="embodiment"), policy=policy, steps=8, batch_size=8, warmup=2
    )
    base = dataclasses.replace(base, precision="fp32", save_every=4, val_every=4, keep_best=9, tensorboard=False, threads=1)

    def weights(name: str) -> dict[str, torch.Tensor]:
        return checkpoint.read_tensors(checkpoint.resolve(tmp_path / name) / "weights.safetensors")

    trainer.train(dataclasses.replace(base, out=str(tmp_path / "whole")), dataset, SPEC)
    trainer.train(dataclasses.replace(base, out=str(tmp_path / "parts")), dataset, SPEC)
    checkpoint.point(tmp_path / "parts", "last", tmp_path / "parts/checkpoints/step_0000004")
    trainer.train(dataclasses.replace(base, out=str(tmp_path / "parts")), dataset, SPEC, resume=True)
    whole, parts = weights("whole"), weights("parts")
    assert whole.keys() == parts.keys() and all(whole[name].equal(parts[name]) for name in whole)
    assert {"step_scale", "retarget.layers.0.weight"} <= whole.keys() and not whole["step_scale"].eq(1).all()
