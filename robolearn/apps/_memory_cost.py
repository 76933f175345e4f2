"""What training costs on frames that are encoded once, beside training end to end: steps, memory, time to an equal loss."""

from __future__ import annotations

import dataclasses
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robolearn.apps import _bench
from robolearn.apps.bench_train import peak_memory_mb, reset_peak_memory
from robolearn.apps.train import fit_task
from robolearn.core import ArraySpec, Spec
from robolearn.data._memory import fits, free_memory
from robolearn.data.normalize import Normalizer
from robolearn.data.stats import compute_stats
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput
from robolearn.nets.vision import Backbone
from robolearn.policies._base import Batch, Draws
from robolearn.policies.diffusion import Config as Diffusion
from robolearn.training import checkpoint, embed, trainer
from robolearn.training.logs import read_metrics
from robolearn.training.settings import DatasetConfig, TrainConfig
from robolearn.training.state import State

CPU = torch.device("cpu")
PATIENCE_S = 480.0  # for all repeats of a step end to end; fewer are taken where five would take longer
PARTS = (1, 2, 4, 8)  # that a batch may be split into, to fit in memory
ENCODER_SHARE = 0.4  # of the time on cached frames that the encoder's own training gets
POINTS = 30  # of a curve of validation losses
_PROBE = 5  # steps from which a run's pace is known
_LOW = "low_dim"


@dataclass(frozen=True)
class Sizes:
    """A training step: images [px], what a frame holds, the batch, the head; the published ones of PTP's square task."""

    image_net: Backbone = "resnet18"
    image: int = 84
    crop: int = 76
    cameras: int = 2
    low_dim: int = 9
    action: int = 10
    batch: int = 32
    n_obs: int = 16
    horizon: int = 32
    width: int = 256
    depth: int = 8
    frames: int = 256

    def config(self, path: Path) -> TrainConfig:
        """Returns the training config on the set at `path`."""
        policy = Diffusion(
            n_obs_steps=self.n_obs,
            horizon=self.horizon,
            execute=8,
            denoiser="transformer",
            width=self.width,
            depth=self.depth,
            dropout=0.3,
            crop=self.crop,
            image_net=self.image_net,
            obs=(_LOW, *(f"camera{k}" for k in range(self.cameras))),
        )
        rates: dict[str, Any] = dict(lr=1e-4, betas=(0.9, 0.95), weight_decay=1e-3, encoder_weight_decay=1e-6)
        return TrainConfig(DatasetConfig(str(path), val_ratio=0.0), policy, batch_size=self.batch, device="cpu", **rates)


QUICK = Sizes(image=24, crop=20, cameras=1, batch=4, n_obs=3, horizon=12, width=16, depth=1, frames=40)


@dataclass(frozen=True)
class Job:
    """One way to train: on the set at `path`, on cached frames or end to end, a batch in so many parts."""

    sizes: Sizes
    path: Path
    cached: bool
    parts: int = 1
    threads: int = 1


def beside(sizes: Sizes, repeats: int) -> dict[str, Any]:
    """Returns the medians of a step on cached frames and of one end to end, of encoding a frame, and both peaks of memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = random_set(Path(folder) / "random.zarr", sizes)
        job = Job(sizes, path, cached=False, threads=torch.get_num_threads())
        dataset = EpisodeSet.open(path)
        cached = make_step(
            dataclasses.replace(job, cached=True), dataset
        )  # writes the cache that its process of its own will read
        peaks = {"cached": alone(dataclasses.replace(job, cached=True))}
        job = dataclasses.replace(job, parts=parts_that_fit(job))
        peaks["end_to_end"] = alone(job)
        end_to_end = make_step(job, dataset)
        cached()
        begin = time.perf_counter()
        end_to_end()
        taken = time.perf_counter() - begin
        n = max(1, min(repeats, int(PATIENCE_S / taken)))
        times = _bench.interleaved({"cached": cached, "end_to_end": end_to_end, "encode": make_encode(job, dataset)}, n, warm=0)
    ms = {name: statistics.median(values) * 1e3 for name, values in times.items()}
    return {
        "cached_step_ms": ms["cached"],
        "end_to_end_step_ms": ms["end_to_end"],
        "ratio": ms["end_to_end"] / ms["cached"],
        "encode_frame_ms": ms["encode"] / sizes.frames,
        "step_repeats": n,
        "end_to_end_parts": job.parts,
        **{f"{name}_peak_memory_mb": peak["peak_mb"] for name, peak in peaks.items()},
        **{f"{name}_memory_before_mb": peak["before_mb"] for name, peak in peaks.items()},
        "sizes": dataclasses.asdict(sizes) | {"precision": "fp32"},
    }


def random_set(path: Path, sizes: Sizes) -> Path:
    """Returns `path`, where a set of four episodes of random frames now lies."""
    cameras = {f"camera{k}": ArraySpec((sizes.image, sizes.image, 3), "uint8") for k in range(sizes.cameras)}
    spec = Spec({_LOW: ArraySpec((sizes.low_dim,)), **cameras}, ArraySpec((sizes.action,)), hz=20.0)
    made, rng, n = EpisodeSet.create(path, spec, task="", env={}, durable=False), np.random.default_rng(0), sizes.frames // 4
    for _ in range(4):
        rows = {_LOW: rng.uniform(-1, 1, (n, sizes.low_dim)), "action": rng.uniform(-1, 1, (n, sizes.action))}
        pictures = {key: rng.integers(0, 256, (n, *array.shape), dtype=np.uint8) for key, array in cameras.items()}
        made.append({key: value.astype(np.float32) for key, value in rows.items()} | pictures)
    return path


def make_step(job: Job, dataset: EpisodeSet) -> Callable[[], None]:
    """Returns a function that takes one training step as the trainer takes it, from making the batch to the moving average."""
    cfg, spec, frozen = _untrained(job, dataset)
    frames = embed.frames(cfg, frozen, dataset, spec, CPU) if job.cached else {}
    windows, _ = trainer.make_windows(cfg, dataset, spec, frames=frames)
    state = State.begin(cfg, spec, windows, CPU, frozen.install if job.cached else None)
    scale, batches = trainer.Scale(frozen.normalizer, spec, CPU), iter(state.loader)

    def step() -> None:
        for piece in split(scale(next(batches)), job.parts):
            loss, _ = state.net(piece, None, Draws(state.generator))
            (loss / job.parts).backward()
        state.step(cfg.clip)

    return step


def split(batch: Batch, parts: int) -> list[Batch]:
    """Returns a batch without memory as `parts` equal ones."""
    rows = len(batch) // parts
    pieces = [slice(k * rows, (k + 1) * rows) for k in range(parts)]
    return [Batch({key: value[p] for key, value in batch.obs.items()}, batch.action[p], {}) for p in pieces]


def make_encode(job: Job, dataset: EpisodeSet) -> Callable[[], None]:
    """Returns a function that encodes all frames of the job's set once."""
    cfg, spec, frozen = _untrained(job, dataset)
    net = checkpoint.make_net(cfg, spec)
    frozen.install(net)

    def encode() -> None:
        for _ in embed.encode(cfg, frozen, net, dataset, spec):
            pass

    return encode


def _untrained(job: Job, dataset: EpisodeSet) -> tuple[TrainConfig, Spec, embed.Frozen]:
    """Returns config, spec and an encoder that was never trained, the same in every process."""
    cfg = job.sizes.config(job.path)
    assert dataset.spec is not None
    spec = trainer.policy_spec(cfg, dataset.spec)
    torch.manual_seed(0)
    weights = {key: value.clone() for key, value in checkpoint.make_net(cfg, spec).encoder.state_dict().items()}
    normalizer = Normalizer.fit(compute_stats(dataset, (_LOW, "action")))
    return cfg, spec, embed.Frozen(weights, normalizer, Path("untrained"))


def alone(job: Job) -> dict[str, float | None]:
    """Returns what `peak` finds in a process of its own, which has imported torch and done nothing else."""
    method = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"
    context = get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([__name__])  # importing torch takes longer than a small measurement
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(peak, job).result()
    except BrokenProcessPool as error:
        want = f"{job.sizes.image_net}, batch {job.sizes.batch} in {job.parts} parts"
        raise BadInput(
            f"bench memory: the process of {want} was killed, out of memory? Free some, or leave 'cached' out"
        ) from error


def peak(job: Job) -> dict[str, float | None]:
    """Returns the most memory [MB] resident in this process during two training steps, and what was resident before them.

    The second step is the first one with the optimiser's moments in memory.
    """
    torch.set_num_threads(job.threads)
    step = make_step(job, EpisodeSet.open(job.path))
    reset_peak_memory(CPU)
    before = peak_memory_mb(CPU)
    for _ in range(2):
        step()
    return {"before_mb": before, "peak_mb": peak_memory_mb(CPU)}


def parts_that_fit(job: Job) -> int:
    """Returns into how few parts a batch must be split to fit in memory, judged by the peak of an eighth of the batch."""
    eighth = max(1, job.sizes.batch // PARTS[-1])
    small = alone(dataclasses.replace(job, sizes=dataclasses.replace(job.sizes, batch=eighth)))
    if small["peak_mb"] is None or small["before_mb"] is None:
        return 1
    grown = small["peak_mb"] - small["before_mb"]
    for parts in PARTS[:-1]:
        if fits(int(1e6 * (small["before_mb"] + grown * job.sizes.batch / parts / eighth)), free_memory()):
            return parts
    return PARTS[-1]


def equal_validation(
    base: TrainConfig, path: Path, obs: tuple[str, ...], budget_s: float, points: int = POINTS
) -> dict[str, Any]:
    """Returns the validation losses of two runs against their training time [s], and when both first have the worse final one.

    end_to_end: the config `base` with pictures. cached: an encoder on two observations, the cache, the head of `base`; all three
    count. Both hold out the same windows. Validation and saving count for neither. The set is copied aside first.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        shutil.copytree(path, work / "set.zarr")
        dataset = EpisodeSet.open(work / "set.zarr")
        cfg, spec = fit_task(pictures_config(base, dataset, obs), dataset)
        whole = Run(cfg, dataset, spec, work / "end_to_end", points).train(budget_s)
        policy, future = cfg.policy, cfg.policy.layout.n_future
        short = dataclasses.replace(policy, n_obs_steps=2, history_stride=1, horizon=1 + future)
        encoder = Run(dataclasses.replace(cfg, policy=short), dataset, spec, work / "encoder", 1).train(ENCODER_SHARE * budget_s)
        head = dataclasses.replace(cfg, encoder=str(work / "encoder"))
        begin = time.perf_counter()
        embed.frames(head, embed.Frozen.load(head.encoder), dataset, trainer.policy_spec(head, spec), CPU)
        cache_s = time.perf_counter() - begin
        before = encoder[-1]["seconds"] + cache_s
        cached = Run(head, dataset, spec, work / "cached", points).train(budget_s - before, before)
    curves = {"cached": cached, "end_to_end": whole}
    stages = {"encoder_s": encoder[-1]["seconds"], "encoder_steps": encoder[-1]["step"], "cache_s": cache_s}
    facts = {"obs": list(cfg.policy.obs), "frames": dataset.n_steps, "budget_s": budget_s, "batch_size": cfg.batch_size, **stages}
    return {
        "time_to_equal_validation_s": equal_loss(curves),
        "curves": curves,
        "validation": facts | {"crop": policy.crop, "config": "memory_ptp", "image_net": policy.image_net},
    }


def pictures_config(base: TrainConfig, dataset: EpisodeSet, obs: tuple[str, ...]) -> TrainConfig:
    """Returns `base` for the pictures of a set (or `obs`), cropped as 84 px are to 76, a tenth of the episodes held out."""
    pictures = tuple(key for key, array in dataset.keys.items() if array.is_image)
    read = obs or pictures
    if not set(read) & set(pictures):
        raise BadInput(f"{dataset.path}: want a picture among {', '.join(read) or 'its keys'}; record it with --cameras")
    side = min(min(dataset.keys[key].shape[:2]) for key in pictures if key in read)
    policy = dataclasses.replace(base.policy, obs=read, crop=side * 76 // 84, image_net="small")
    data = dataclasses.replace(base.dataset, path=str(dataset.path), filter="", val_ratio=0.1, max_episodes=0)
    # The set says which body it is of; the config only lends its network and its rates.
    return dataclasses.replace(
        base, dataset=data, policy=policy, task="", env={}, precision="fp32", device="cpu", tensorboard=False
    )


@dataclass(frozen=True)
class Run:
    """A training that is to take a given time, with so many points on its curve of validation losses (or a few more)."""

    cfg: TrainConfig
    dataset: EpisodeSet
    spec: Spec
    out: Path
    points: int

    def train(self, budget_s: float, begin_s: float = 0.0) -> list[dict[str, float]]:
        """Trains for as many steps as a few first ones say the budget has, and returns the curve, which begins at `begin_s`."""
        blind = dataclasses.replace(self.cfg, dataset=dataclasses.replace(self.cfg.dataset, val_ratio=0.0))
        rows = read_metrics(self._trained(blind, self.out.with_name(f"{self.out.name}_probe"), _PROBE, 1))
        steps = max(2, int(budget_s / statistics.median(row["data_s"] + row["step_s"] for row in rows[1:])))
        return curve(read_metrics(self._trained(self.cfg, self.out, steps, max(1, steps // self.points))), begin_s)

    def _trained(self, cfg: TrainConfig, out: Path, steps: int, every: int) -> Path:
        often = dict(log_every=every, val_every=every, save_every=steps, warmup=min(cfg.warmup, steps // 10))
        cfg = dataclasses.replace(cfg, out=str(out), steps=steps, keep_best=0, **often)  # type: ignore[arg-type]
        return trainer.train(cfg, self.dataset, self.spec)


def curve(rows: Iterable[Mapping[str, float]], begin_s: float = 0.0) -> list[dict[str, float]]:
    """Returns step, seconds of training until then and validation loss, from the rows of a run's metrics.jsonl."""
    seconds, before, points = begin_s, 0.0, []
    for row in rows:
        if "step_s" in row:
            seconds, before = seconds + (row["data_s"] + row["step_s"]) * (row["step"] - before), row["step"]
        else:
            points.append({"step": row["step"], "seconds": seconds, "val_loss": row["val_loss"]})
    return points


def equal_loss(curves: Mapping[str, list[dict[str, float]]]) -> dict[str, float]:
    """Returns the worse of the final validation losses and when each curve first has it [s]."""
    loss = max(points[-1]["val_loss"] for points in curves.values())
    first = {
        name: min((p["seconds"] for p in points if p["val_loss"] <= loss), default=math.inf) for name, points in curves.items()
    }
    return {**first, "loss": loss}
