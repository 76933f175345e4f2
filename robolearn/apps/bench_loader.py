"""Times the loader: windows/s of 2 images and 16 actions in random order, beside zarr per sample, parquet with PNG, and video."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch.utils.data import DataLoader, Dataset, RandomSampler

from robolearn.apps import _peer_layouts as layouts
from robolearn.apps._bench import interleaved, machine, reference_per_s
from robolearn.apps._report import write_json
from robolearn.data.images import image_keys, load_frames
from robolearn.data.store import EpisodeSet
from robolearn.data.windows import Windows
from robolearn.errors import DatasetError, MissingDependency
from robolearn.training.loader import Loader

_WINDOW = layouts.Window(2, 16)
_BATCHES = {"ours": 400, "naive": 4, "png": 60, "video": 20, "lerobot_video": 12, "lerobot_images": 12}  # a timing
_PEERS = ("lerobot_video", "video")  # what the contract calls the peer: the first that can be timed here
_FACTOR = {"naive": 50, "peer": 10}  # ours has to be that many times as fast as zarr per sample, and as every other layout


@dataclass(frozen=True)
class Config:
    """What to time."""

    dataset: tyro.conf.Positional[Path] = Path("data/demos/pusht.zarr")
    """A set with images."""
    workers: int = 2
    """Of every loader: threads of ours, processes of the others."""
    batch_size: int = 64
    """Windows a batch."""
    repeats: int = 5
    """Interleaved rounds; the medians are kept."""
    rows: int = 4096
    """Rows of the set that the other layouts are built of (ours runs over all of it)."""
    json: Path | None = None
    """Where to write the figures."""


@dataclass(frozen=True)
class Variant:
    """One layout to time: what it is, what draws its batches, and how many a timing takes."""

    name: str
    run: Callable[[], None]
    batches: int


def run(cfg: Config) -> int:
    """Times all layouts in turn and prints windows/s; exit code 1 where ours misses a factor."""
    torch.set_num_threads(1)
    os.environ.update(SVT_LOG="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1", HF_HUB_OFFLINE="1")  # the others' chatter
    dataset = EpisodeSet.open(cfg.dataset)
    keys = image_keys(dataset)
    if not keys:
        raise DatasetError(f"{cfg.dataset}: want a set with images, got keys {', '.join(dataset.keys)}")
    with tempfile.TemporaryDirectory() as scratch:
        begin = time.perf_counter()
        windows = Windows(dataset, keys[:1], *_WINDOW, cache=Path(scratch) / "cache")
        next(iter(Loader(windows, cfg.batch_size, 0)))
        cold = time.perf_counter() - begin
        ours = Variant("our store: uint8 frames in a memory map", partial(_ours, windows, cfg), _BATCHES["ours"])
        others, missing, lossy = _others(cfg, dataset, keys[0], Path(scratch))
        variants = {"ours": ours, **others}
        seconds = interleaved({name: variant.run for name, variant in variants.items()}, cfg.repeats)
        reference = reference_per_s()
    rates = {name: variants[name].batches * cfg.batch_size / statistics.median(times) for name, times in seconds.items()}
    figures = _figures(cfg, dataset, keys[0], variants, rates, missing) | {
        "cold_start_s": cold,
        "video_psnr_db": lossy,
        "repeats": cfg.repeats,
        "reference_per_s": reference,
        "machine": machine(1),
    }
    for row in figures["rows"]:
        row["seconds"] = seconds[row["layout"]]
    _show(figures)
    write_json(cfg.json, figures, seed=0)
    return 0 if figures["holds"] else 1


def _figures(
    cfg: Config, dataset: EpisodeSet, key: str, variants: dict[str, Variant], rates: dict[str, float], missing: dict[str, str]
) -> dict[str, Any]:
    """Returns rates, and how many times as fast ours is as each."""
    peer = next((name for name in _PEERS if name in rates), None)
    times = {name: rates["ours"] / rate for name, rate in rates.items() if name != "ours"}
    shape = "x".join(map(str, dataset.keys[key].shape))
    return {
        "window": f"{_WINDOW.frames} uint8 {shape} frames, {_WINDOW.actions} actions, random order, "
        f"torch batch {cfg.batch_size}, {cfg.workers} workers",
        "ours_windows_per_s": rates["ours"],
        "naive_zarr_windows_per_s": rates["naive"],
        "ours_over_naive": times["naive"],
        "peer": variants[peer].name if peer else {"holds": None, "why": "; ".join(missing.values())},
        "peer_windows_per_s": rates[peer] if peer else None,
        "ours_over_peer": times[peer] if peer else None,
        "wanted": _FACTOR,
        "holds": all(ratio >= _FACTOR["naive" if name == "naive" else "peer"] for name, ratio in times.items()),
        "missing": missing,
        "rows": [
            {
                "layout": name,
                "what": variants[name].name,
                "windows_per_s": rate,
                "batches": variants[name].batches,
                "ours_over_it": times.get(name, 1.0),
            }
            for name, rate in rates.items()
        ],
    }


def _show(figures: dict[str, Any]) -> None:
    print(f"{figures['window']}\n  first batch from a cold start (decodes all images once): {figures['cold_start_s']:.1f} s")
    for row in figures["rows"]:
        ratio = "" if row["layout"] == "ours" else f"  ours is {row['ours_over_it']:,.1f} times as fast"
        print(f"  {row['windows_per_s']:>9,.0f} windows/s  {row['what']}{ratio}")
    for name, why in figures["missing"].items():
        print(f"  not measured: {name}: {why}")
    bars = f"{_FACTOR['naive']} times zarr per sample, {_FACTOR['peer']} times each of the others"
    print(f"  wanted: {bars}: {'holds' if figures['holds'] else 'missed'}")


def _others(cfg: Config, dataset: EpisodeSet, key: str, scratch: Path) -> tuple[dict[str, Variant], dict[str, str], float | None]:
    """Returns the other layouts, why one is missing, and the likeness of the pictures in the video [dB]."""
    count = min(cfg.rows, dataset.n_steps)
    ends = np.r_[dataset.episode_ends[dataset.episode_ends < count], count]
    frames = load_frames(dataset, key, scratch / "cache")[:count]
    rows = layouts.Rows(frames, dataset.read("action", 0, count).astype(np.float32), ends, dataset.hz or 10.0)
    made: dict[str, Variant] = {}
    missing: dict[str, str] = {}
    lossy: float | None = None
    wanted: dict[str, Callable[[], Any]] = {
        "naive": partial(layouts.ZarrPerSample, rows, _WINDOW, scratch),
        "png": partial(layouts.ParquetPng, rows, _WINDOW, scratch),
        "video": partial(layouts.ParquetVideo, rows, _WINDOW, scratch),
    }
    for name, video in (("lerobot_video", True), ("lerobot_images", False)):
        missing[name] = layouts.lerobot_why_not(video)
        if not missing[name]:
            wanted[name] = partial(layouts.LeRobotOwn, rows, _WINDOW, scratch, video)
    for name, make in wanted.items():
        try:
            layout = make()
        except MissingDependency as error:
            missing[name] = str(error)
            continue
        made[name] = Variant(layout.name, _theirs(layout, cfg, _BATCHES[name]), _BATCHES[name])
        if name == "video":
            lossy = layouts.read_back_psnr(frames, scratch / "video.mp4", layout.hz)
    return made, {name: why for name, why in missing.items() if why}, lossy


def _ours(windows: Windows, cfg: Config) -> None:
    _drain(iter(Loader(windows, cfg.batch_size, 0, workers=cfg.workers)), _BATCHES["ours"])


def _theirs(dataset: Dataset, cfg: Config, batches: int) -> Callable[[], None]:
    """Returns what draws `batches` random batches with torch's own loader, from processes that run already and make no others."""
    loader = DataLoader(
        dataset,
        cfg.batch_size,
        sampler=RandomSampler(dataset, num_samples=batches * cfg.batch_size),  # type: ignore[arg-type]
        num_workers=cfg.workers,
        multiprocessing_context="fork" if cfg.workers and sys.platform == "linux" else None,
        persistent_workers=cfg.workers > 0,
    )
    return lambda: _drain(iter(loader), batches + 1)  # asks once more, so that nothing is left over for the next round


def _drain(batches: Any, count: int) -> None:
    for _ in islice(batches, count):
        pass
