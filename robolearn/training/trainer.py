"""The training loop, top to bottom: batch, loss, backward, clip, step, average, log, validate, save.

A resumed run equals an uninterrupted one bit for bit on the CPU: weights, optimiser, average, learning rate, both random
generators and the place in the data are in the checkpoint. N processes (torchrun, accelerate launch), and a
batch accumulated in parts, compute what one process computes on the same batch: each part takes its rows of the same batch
and of the same noise.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor
from tqdm import tqdm

from robolearn import config
from robolearn.core import Spec
from robolearn.data.images import hold_images
from robolearn.data.normalize import Normalizer
from robolearn.data.stats import array_stats, compute_stats, merged
from robolearn.data.store import EpisodeSet
from robolearn.data.windows import Mirror, Windows
from robolearn.errors import AlreadyExists, BadInput, ConfigError, TrainingDiverged
from robolearn.policies._base import Batch, Draws, PolicyNet
from robolearn.policies._tracked import CODEC
from robolearn.training import checkpoint, embed, precision, predictability
from robolearn.training.episodes import pick_episodes
from robolearn.training.interrupt import FinishStep
from robolearn.training.logs import Logs
from robolearn.training.meter import Meter, shown
from robolearn.training.settings import TrainConfig
from robolearn.training.state import State

_MAY_CHANGE = {
    "rebuild_cache",
    "steps",
    "log_every",
    "val_every",
    "save_every",
    "keep_best",
    "tensorboard",
    "wandb",
    "threads",
    "device",
}
_VAL_WINDOWS = 256


def train(
    cfg: TrainConfig,
    dataset: EpisodeSet,
    spec: Spec,
    *,
    mirror: Mirror | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Path:
    """Trains the policy of `cfg` on `dataset` and returns the run folder.

    spec: of the body; its observations that the policy reads are selected here. mirror: gives every training episode a
    mirror image; validation stays as recorded. Raises TrainingDiverged when the loss is
    not finite (the last good checkpoint stays), AlreadyExists where the run folder exists.
    """
    accelerator = Accelerator(cpu=cfg.device == "cpu")
    rank, world, main = accelerator.process_index, accelerator.num_processes, accelerator.is_main_process
    run = Path(cfg.out)
    device = accelerator.device if world > 1 or cfg.device == "auto" else torch.device(cfg.device)
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    cfg = settled(cfg, world)

    spec = policy_spec(cfg, spec)
    frozen = embed.Frozen.load(cfg.encoder) if cfg.encoder else None
    with accelerator.main_process_first():  # the others find the cache it made
        frames = embed.frames(cfg, frozen, dataset, spec, device) if frozen else {}
    windows, val_windows = make_windows(cfg, dataset, spec, mirror, frames)
    normalizer = frozen.normalizer if frozen else fit_normalizer(cfg, dataset, windows)
    cfg = open_run(run, cfg, resume, overwrite) if main else cfg  # the data are fine: now something may be written
    accelerator.wait_for_everyone()

    def ready(net: PolicyNet) -> None:
        if frozen:
            frozen.install(net)
        net.prepare(windows, normalizer, cfg.seed)

    state = State.begin(cfg, spec, windows, device, ready)
    net, scale = state.net, Scale(normalizer, spec, device)
    first = state.restore(checkpoint.resolve(run)) if resume and (run / "checkpoints" / "last").exists() else 0
    if frozen and first and not frozen.is_in(net):
        raise ConfigError(f"{run}: its encoder is not that of {cfg.encoder} any more; start a new --out")
    parts, rows = world * cfg.accumulate, cfg.batch_size // world // cfg.accumulate
    if cfg.precision == "auto":
        chosen = pick_precision(net, scale(_first_rows(windows, rows)), device, cfg.steps, run, main)
        cfg = dataclasses.replace(cfg, precision=chosen)
    if main:
        (run / "config.yaml").write_text(config.to_yaml(cfg))
    if "compile" in cfg.precision:
        precision.compile_parts(net)
    model = accelerator.prepare(net) if world > 1 else net
    logs = Logs(run, cfg, first) if main else None
    meter, saved, batches = Meter(cfg.batch_size), first, iter(state.loader)

    with FinishStep() as interrupt, closing(logs) if logs else nullcontext():
        bar = tqdm(range(first + 1, cfg.steps + 1), initial=first, total=cfg.steps, disable=None if main else True)
        for step in bar:
            batch = scale(next(batches))
            meter.data()
            before = state.generator.get_state()
            for part in range(rank, parts, world):
                state.generator.set_state(before)  # every part draws for the whole batch and takes its rows
                draws = Draws(state.generator, part, parts)
                with torch.autocast(device.type, torch.bfloat16, enabled="bf16" in cfg.precision):
                    piece = _rows(batch, part * rows, (part + 1) * rows)
                    loss, state.memory[part] = model(piece, state.memory.get(part), draws)
                accelerator.backward(loss / cfg.accumulate)
                meter.add(loss)
            norm, rate = state.step(cfg.clip)
            meter.step()

            last = step == cfg.steps or interrupt.asked
            if step % cfg.log_every == 0 or last:
                row = meter.read(accelerator) | {"grad_norm": float(norm), "lr": rate}
                if not math.isfinite(row["loss"]) or not math.isfinite(row["grad_norm"]):
                    raise TrainingDiverged(diverged(step, row["loss"], run, saved))
                if logs:
                    logs.write(step, row)
                    bar.set_postfix_str(shown(row), refresh=False)
            if logs and val_windows is not None and (step % cfg.val_every == 0 or step == cfg.steps):
                logs.write(step, validate(state, scale, val_windows, cfg.seed))
            if step % cfg.save_every == 0 or last:
                _refuse_bad_weights(net, step, run, saved)
                if logs:
                    save(run, step, state, cfg, spec, normalizer)
                    logs.keep_best(run, cfg.keep_best)
                saved = step
            if interrupt.asked:
                raise KeyboardInterrupt
            meter.skip()
    return run


def save(run: Path, step: int, state: State, cfg: TrainConfig, spec: Spec, normalizer: Normalizer) -> None:
    """Writes the checkpoint of one step and makes it the last one."""
    kept, progress = state.snapshot(step)
    folder = run / "checkpoints" / f"step_{step:07d}"
    checkpoint.save(folder, weights=state.averaged(), cfg=cfg, spec=spec, normalizer=normalizer, state=kept, progress=progress)
    checkpoint.point(run, "last", folder)


def open_run(run: Path, cfg: TrainConfig, resume: bool, overwrite: bool) -> TrainConfig:
    """Makes the run folder, or refuses it; returns the config, with the stored precision when a run is resumed."""
    if resume and overwrite:
        raise BadInput("--resume and --overwrite exclude each other")
    if run.exists() and overwrite:
        shutil.rmtree(run)
    if run.exists() and not resume:
        raise AlreadyExists(run, "run folder", resume=True)
    if resume and (run / "config.yaml").exists():
        old, new = config.to_mapping(checkpoint.read_config(run)), config.to_mapping(cfg)
        if new["precision"] == "auto":
            cfg = dataclasses.replace(cfg, precision=old["precision"])
            new["precision"] = old["precision"]
        for values in (old, new):  # how the same batches are made
            values["dataset"] = {key: value for key, value in values["dataset"].items() if key not in ("workers", "cache")}
        changed = [key for key in new if key not in _MAY_CHANGE and new[key] != old.get(key)]
        if changed:
            key = changed[0]
            raise ConfigError(f"{run}: --resume cannot change '{key}' from {old.get(key)} to {new[key]}; start a new --out")
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    return cfg


def policy_spec(cfg: TrainConfig, spec: Spec) -> Spec:
    """Returns what the policy reads and gives: the config's observation keys, or all that are no images."""
    keys = cfg.policy.obs or tuple(key for key, array in spec.obs.items() if not array.is_image)
    cameras = {key: camera for key, camera in spec.cameras.items() if key in keys or spec.codec == CODEC}
    stride = 1 if cfg.policy.memory == "none" else cfg.policy.update_every
    return dataclasses.replace(spec.select(keys), execute=cfg.policy.execute, memory_stride=stride, cameras=cameras)


def settled(cfg: TrainConfig, world: int) -> TrainConfig:
    """Returns the config with its memory stride said in numbers; ConfigError where a batch does not divide as it must, or where
    something is set that nothing reads.
    """
    if not cfg.encoder and (cfg.cache_crops or cfg.rebuild_cache):
        raise ConfigError(
            "cache_crops and rebuild_cache are about the embeddings of `encoder`, and there is none; leave them out"
        )
    if cfg.encoder and (cfg.cache_crops < 0 or cfg.dataset.normalize):
        raise ConfigError("with `encoder`: want cache_crops >= 0, and no dataset.normalize: the encoder's normalizer is used")
    if cfg.batch_size % (world * cfg.accumulate):
        raise ConfigError(f"batch_size {cfg.batch_size} does not divide by {world} processes x {cfg.accumulate} parts")
    if cfg.policy.memory == "none":
        if (cfg.chain, tuple(cfg.reset_every), cfg.whole_chains) != (1, (0, 0), False):
            raise ConfigError("chain, reset_every and whole_chains are about a memory, and policy.memory is none; leave them out")
        return cfg
    if cfg.chain < 1 or cfg.batch_size % (cfg.chain * cfg.accumulate):
        raise ConfigError(f"batch_size {cfg.batch_size} does not divide by chains of {cfg.chain} x {cfg.accumulate} parts")
    if world > 1:
        raise ConfigError(f"memory '{cfg.policy.memory}': trains in one process so far, got {world}; its state is not gathered")
    return dataclasses.replace(cfg, policy=dataclasses.replace(cfg.policy, memory_stride=cfg.policy.update_every))


def make_windows(
    cfg: TrainConfig,
    dataset: EpisodeSet,
    spec: Spec,
    mirror: Mirror | None = None,
    frames: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> tuple[Windows, Windows | None]:
    """Returns training and validation windows (None where nothing is held out), split by episode.

    frames: what stands for the observations, row by row (`embed.frames`); the observations themselves are then not read.
    """
    if mirror is not None and frames:
        raise ConfigError("dataset.mirror: embeddings of a frozen encoder have no mirror image; leave it false")
    train_ids, val_ids = pick_episodes(cfg.dataset, dataset, cfg.seed)
    keys = (*(frames or spec.obs), *spec.goal)
    valid = cfg.policy.valid_key if cfg.policy.valid_key in dataset.keys else ""
    shape: dict[str, Any] = dict(obs=keys, layout=cfg.policy.layout, pad_after=cfg.policy.execute - 1, frames=frames, valid=valid)
    hold_images(dataset, [key for key in keys if key not in frames], cfg.dataset.cache)
    held_out = Windows(dataset, episodes=val_ids, **shape) if len(val_ids) else None
    return Windows(dataset, episodes=train_ids, mirror=mirror, **shape), held_out


def fit_normalizer(cfg: TrainConfig, dataset: EpisodeSet, windows: Windows) -> Normalizer:
    """Returns the normalizer of what is trained on: the recorded rows of these episodes, and their mirror images."""
    stats = compute_stats(dataset, tuple(windows.keys), episodes=windows.episodes)
    for key, found in stats.items():
        if len(twins := windows.mirrored_rows(key)):
            stats[key] = merged(found, array_stats(twins))
    return Normalizer.fit(stats, cfg.dataset.normalize)


def pick_precision(net: PolicyNet, batch: Batch, device: torch.device, steps: int, run: Path, main: bool) -> Any:
    """Returns the precision that the main process measured to be the fastest; all processes use the same."""

    def loss() -> Tensor:
        return net(batch, None, Draws(torch.Generator(device).manual_seed(0)))[0]

    chosen = [precision.pick(net, loss, device, steps, run / "precision.json") if main else "fp32"]
    broadcast_object_list(chosen)
    return chosen[0]


class Scale:
    """Turns a loader's raw batch into a normalised `Batch` on the device; images pass as uint8."""

    def __init__(self, normalizer: Normalizer, spec: Spec, device: torch.device) -> None:
        self.spec, self.device = spec, device
        self.affine = {
            key: (torch.from_numpy(normalizer.scale[key]).to(device), torch.from_numpy(normalizer.offset[key]).to(device))
            for key in normalizer.scale
        }

    def __call__(self, raw: Mapping[str, Any]) -> Batch:
        wanted = [key for key in raw["obs"] if key in self.spec.obs or key not in self.spec.goal]
        obs = {key: self._one(key, raw["obs"][key]) for key in wanted}
        goal = {key: self._one(key, raw["obs"][key])[:, -1] for key in self.spec.goal}
        reset = torch.as_tensor(raw["reset"]).to(self.device) if "reset" in raw else None
        group = torch.as_tensor(raw["group"]).to(self.device) if "group" in raw else None
        valid = torch.as_tensor(raw["valid"]).to(self.device) if "valid" in raw else None
        return Batch(obs, self._one("action", raw["action"]).flatten(2), goal, reset, group, valid)

    def _one(self, key: str, array: Any) -> Tensor:
        tensor = torch.as_tensor(array).to(self.device, non_blocking=True)
        if key not in self.affine:
            return tensor
        scale, offset = self.affine[key]
        return tensor * scale + offset


def validate(state: State, scale: Scale, windows: Windows, seed: int) -> dict[str, float]:
    """Returns what the averaged weights do on fixed held-out windows: loss, mean squared action error (normalised), and how
    predictable their plans are beside the expert's actions.
    """
    net, ema = state.net, state.ema
    batch = scale(_first_rows(windows, _VAL_WINDOWS) if net.memory is None else _first_chains(windows, net.config.update_every))
    draws = Draws(torch.Generator(batch.action.device).manual_seed(seed))
    if ema is not None:
        ema.store(net.parameters())
        ema.copy_to(net.parameters())
    net.eval()
    with torch.inference_mode(), precision.compiled(net, False):  # other shapes than in training: not worth compiling
        loss, _ = net.loss(batch, None, rng=draws)
        _, context = net.remember_chain(None, net.encode(batch.obs), batch.reset)
        context = net.with_goal(context, batch.goal, context.new_ones(len(batch)))
        noise = draws.normal((net.noise_draws() or 1, len(batch), net.config.horizon, net.action_dim))
        sampled = net.sample(context, noise)
        error = (sampled - batch.action).square().mean()
        future = slice(net.config.n_past, None)
        ratio = predictability.chunk_ratio(batch.action[:, future], sampled[:, future])
    net.train()
    if ema is not None:
        ema.restore(net.parameters())
    return {"val_loss": float(loss), "val_action_mse": float(error), "val_predictability": ratio}


def diverged(step: int, loss: float, run: Path, saved: int) -> str:
    """Returns the message for a loss that is not a number."""
    kept = f"the checkpoint of step {saved} is kept" if saved else "no checkpoint had been written yet"
    return f"{run}: the loss is {loss} at step {step}; {kept}. Try a lower --lr, or `robolearn data check` on the dataset"


def _refuse_bad_weights(net: PolicyNet, step: int, run: Path, saved: int) -> None:
    if not all(bool(torch.isfinite(p).all()) for p in net.parameters()):
        raise TrainingDiverged(diverged(step, math.nan, run, saved))


def _first_rows(windows: Windows, n: int) -> dict[str, Any]:
    """Returns the batch of `n` windows spread evenly over all (some twice, where there are fewer)."""
    return windows.batch(torch.linspace(0, len(windows) - 1, n).round().long().numpy())


def _first_chains(windows: Windows, stride: int) -> dict[str, Any]:
    """Returns the windows of whole episodes, `stride` ticks apart, as one chain with resets where they begin."""
    episodes = windows.chains()
    rows: list[int] = []
    begins: list[int] = []
    for first, count in episodes:
        if len(rows) >= _VAL_WINDOWS:
            break
        begins.append(len(rows))
        rows += range(first, first + count, stride)
    reset = np.zeros((1, len(rows)), bool)
    reset[0, begins] = True
    return windows.batch(np.array(rows)) | {"reset": reset}


def _rows(batch: Batch, begin: int, end: int) -> Batch:
    if begin == 0 and end == len(batch):
        return batch
    obs = {key: value[begin:end] for key, value in batch.obs.items()}
    goal = {key: value[begin:end] for key, value in batch.goal.items()}
    reset = None
    if batch.reset is not None:  # rows are chains, slot by slot
        chain = batch.reset.shape[1]
        reset = batch.reset[begin // chain : end // chain]
    group, valid = (None if part is None else part[begin:end] for part in (batch.group, batch.valid))
    return Batch(obs, batch.action[begin:end], goal, reset, group, valid)
