"""Measures what a set of up to a million frames costs: open, append, info, windows, batch as it grows; then every verb on it."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from robolearn import cli, registry
from robolearn.apps import _scale_set
from robolearn.apps._bench import machine
from robolearn.apps._report import write_json
from robolearn.apps._scale_steps import STEPS
from robolearn.data._memory import as_size
from robolearn.errors import AlreadyExists, BadInput

_ROOM = 2.2  # bytes on the disk per byte of raw pictures, at the worst moment: the set, its cache; or the set and two copies
_REPEATS = 3  # of a step that takes less than a second; the median counts
_PEAK_MB = 1500  # what a command may hold in memory, pages of files that the system can take back left out
# Time must not grow faster than frames to this power between 10^4 frames and the largest set.
_MAY_GROW = {"open": 0.4, "append": 0.3, "info": 0.8, "batch": 0.4, "windows": 1.1, "windows_cold": 1.1, "windows_grown": 0.6}
_POLICY = """policy: {{name: bc, obs: [img, state], n_obs_steps: 2, horizon: 16, execute: 8, width: 64, depth: 2}}
dataset: {{path: {path}, workers: 2, val_ratio: 0}}
"""
_TRAIN = ("--steps", "10", "--batch-size", "16", "--precision", "fp32", "--device", "cpu", "--no-tensorboard")


@dataclass(frozen=True)
class Config:
    """How large a set, and where."""

    frames: int = 1_000_000
    """Frames of the largest set; smaller ones are measured at every power of ten from 1000 on."""
    size: int = 48
    """Side of the pictures [px]."""
    out: Path = Path("data/scale")
    """A folder to work in; it is made, and removed at the end whatever happens."""
    keep: bool = False
    """Leave it there."""
    verbs: bool = True
    """Measure split, merge, check and train on the largest set too."""
    json: Path | None = None
    """Where to write the figures."""


def run(cfg: Config) -> int:
    """Grows a set, measures it at every size, removes it; exit code 1 where something grows faster or holds more than it may."""
    if cfg.frames < 1000 or cfg.size < 16:
        raise BadInput(f"bench scale: want at least 1000 frames of 16 px, got {cfg.frames} of {cfg.size}")
    if cfg.out.exists():
        raise AlreadyExists(cfg.out, "folder")
    need = int(_ROOM * cfg.frames * cfg.size**2 * 3)
    parent = next(folder for folder in cfg.out.resolve().parents if folder.is_dir())
    if (free := shutil.disk_usage(parent).free) < need:
        raise BadInput(f"{cfg.out}: want {as_size(need)} of room on the disk, {as_size(free)} are free; try fewer --frames")
    with _removed_after(cfg.out, cfg.keep):
        figures = _measure(cfg)
    _show(figures)
    write_json(cfg.json, figures, seed=0)
    return 0 if figures["holds"] else 1


def _measure(cfg: Config) -> dict[str, Any]:
    path, rows, largest = cfg.out / "set.zarr", [], 0
    _scale_set.create(path, cfg.size)
    sizes = sorted({min(cfg.frames, 10**power) for power in range(3, 12) if 10 ** (power - 1) < cfg.frames})
    for frames in sizes:
        begin = time.perf_counter()
        _scale_set.grow(path, cfg.size, frames)
        print(f"{frames:>9,} frames: made in {time.perf_counter() - begin:.1f} s", file=sys.stderr)
        for step in STEPS:
            found = _step(step, path, cfg.size)
            rows.append({"frames": frames, "step": step, **found})
            print(f"  {step:<14} {_told(found)}", file=sys.stderr)
        largest = max(largest, _disk(cfg.out))
    growth = {step: _slopes(rows, step) for step in STEPS}
    verbs, most = _verbs(cfg, path) if cfg.verbs else ([], 0)
    fast = {step: slopes["from_10k"] for step, slopes in growth.items() if (slopes["from_10k"] or 0) > _MAY_GROW[step]}
    fat = [row for row in (*rows, *verbs) if (row.get("peak_anonymous_mb") or 0) > _PEAK_MB]
    failed = [row["verb"] for row in verbs if row.get("code") not in (0, None)]
    return {
        "frames": cfg.frames,
        "size": cfg.size,
        "episode_steps": _scale_set.STEPS,
        "rows": rows,
        "growth": growth,
        "may_grow": _MAY_GROW,
        "verbs": verbs,
        "most_disk_gb": max(largest, most) / 1e9,
        "raw_gb": cfg.frames * cfg.size**2 * 3 / 1e9,
        "grows_too_fast": fast,
        "too_much_memory": [row.get("verb") or row["step"] for row in fat],
        "failed": failed,
        "holds": not fast and not fat and not failed,
        "machine": machine(1),
    }


def _step(step: str, path: Path, size: int) -> dict[str, Any]:
    """Returns the median seconds and the peak memory of one step, each run in a process of its own."""
    found = []
    for _ in range(_REPEATS):
        done = _watched([sys.executable, "-m", "robolearn.apps._scale_steps", step, str(path), str(size)])
        if done["code"]:
            raise BadInput(f"bench scale: {step} ended with {done['code']}: {done['said'][-300:]}")
        found.append({**done, "seconds": json.loads(done["said"].splitlines()[-1])["seconds"]})
        if step == "windows_grown" or found[-1]["seconds"] > 1:
            break
    peaks = {name: max(row[name] for row in found) for name in ("peak_rss_mb", "peak_anonymous_mb")}
    return {"seconds": float(np.median([row["seconds"] for row in found])), "runs": len(found), **peaks}


def _verbs(cfg: Config, path: Path) -> tuple[list[dict[str, Any]], int]:
    """Returns time and memory of train, check, split and merge on the whole set, and the most bytes that lay on the disk."""
    halves, config, run = (cfg.out / "half_a.zarr", cfg.out / "half_b.zarr"), cfg.out / "train.yaml", cfg.out / "run"
    config.write_text(_POLICY.format(path=path))
    wanted = {
        "train": ["train", str(config), *_TRAIN, "--out", str(run)],
        "data check": ["data", "check", str(path)],
        "data split": ["data", "split", str(path), "--ratio", "0.5", "--out", *map(str, halves)],
        "data merge": ["data", "merge", *map(str, halves), "--out", str(cfg.out / "merged.zarr")],
    }
    known, rows, most = registry.names(cli.APPS), [], 0
    for verb, words in wanted.items():
        if verb.replace(" ", "_") not in known:
            rows.append({"verb": verb, "code": None, "why": "not there yet"})
            continue
        if verb == "data split":
            shutil.rmtree(path.with_suffix(".cache"), ignore_errors=True)  # room for the copies
        begin = time.perf_counter()
        done = _watched([sys.executable, "-m", "robolearn", *words])
        seconds = time.perf_counter() - begin
        fine = done["code"] in (0, 1) if verb == "data check" else done["code"] == 0  # 1: it has findings
        kept = {name: value for name, value in done.items() if name != "said" or not fine}  # it names places on this computer
        row = {"verb": verb, "seconds": seconds, **kept, "code": 0 if fine else done["code"]}
        rows.append(row)
        print(f"  {verb:<14} {_told(row)}", file=sys.stderr)
        most = max(most, _disk(cfg.out))
    return rows, most


def _watched(command: list[str]) -> dict[str, Any]:
    """Returns exit code, output, peak resident memory, and the peak of it that is no page of a file [MB], of a command."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    peaks, ended = {"VmHWM": 0.0, "RssAnon": 0.0}, threading.Event()

    def watch() -> None:  # not ru_maxrss: that of a child begins with its parent's
        while not ended.wait(0.02):
            for name, value in _memory_mb(child.pid).items():
                peaks[name] = max(peaks[name], value)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        said, _ = child.communicate()
    except BaseException:
        child.kill()
        child.wait()
        raise
    finally:
        ended.set()
        watcher.join()
    return {"code": child.returncode, "said": said, "peak_rss_mb": peaks["VmHWM"], "peak_anonymous_mb": peaks["RssAnon"]}


def _memory_mb(pid: int) -> dict[str, float]:
    try:
        rows = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    except OSError:
        return {}
    return {name: int(rows[name].split()[0]) / 1024 for name in ("VmHWM", "RssAnon") if name in rows}


def _slopes(rows: list[dict[str, Any]], step: str) -> dict[str, float | None]:
    """Returns the power of the number of frames with which the seconds grow: over all sizes, from 10^4 on, in the last step."""
    points = [(row["frames"], row["seconds"]) for row in rows if row["step"] == step]
    late = [point for point in points if point[0] >= 10_000]
    return {"all": _slope(points), "from_10k": _slope(late), "last": _slope(points[-2:])}


def _slope(points: list[tuple[int, float]]) -> float | None:
    if len(points) < 2:
        return None
    x, y = np.log10(np.array(points).T)
    return float(np.polyfit(x, y, 1)[0])


def _disk(folder: Path) -> int:
    """Returns the bytes of all files in a folder, as they lie on the disk."""
    seen = {}
    for root, _, names in os.walk(folder):
        for name in names:
            stat = os.lstat(os.path.join(root, name))
            seen[stat.st_ino] = stat.st_blocks * 512
    return sum(seen.values())


@contextmanager
def _removed_after(folder: Path, keep: bool) -> Iterator[None]:
    """Makes the folder and removes it at the end, after a failure, Ctrl-C or a TERM signal too."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    folder.mkdir(parents=True)
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _told(row: dict[str, Any]) -> str:
    code = "" if not row.get("code") else f", exit code {row['code']}: {row['said'].strip().splitlines()[-1:]}"
    return f"{row['seconds']:8.3f} s, {row['peak_rss_mb']:.0f} MB ({row['peak_anonymous_mb']:.0f} MB without file pages){code}"


def _show(figures: dict[str, Any]) -> None:
    sizes = sorted({row["frames"] for row in figures["rows"]})
    print("seconds".ljust(15) + "".join(f"{size:>11,}" for size in sizes) + "   frames^")
    for step, rows in itertools.groupby(
        sorted(figures["rows"], key=lambda row: list(STEPS).index(row["step"])), lambda r: r["step"]
    ):
        power = figures["growth"][step]["from_10k"]
        grows = "" if power is None or math.isnan(power) else f"{power:10.2f}"
        print(step.ljust(15) + "".join(f"{row['seconds']:>11.4f}" for row in sorted(rows, key=lambda r: r["frames"])) + grows)
    for row in figures["verbs"]:
        print(f"{row['verb']:<15}" + (_told(row) if "seconds" in row else row["why"]))
    print(f"most on the disk: {figures['most_disk_gb']:.2f} GB (raw pictures {figures['raw_gb']:.2f} GB)")
    for name in ("grows_too_fast", "too_much_memory", "failed"):
        if figures[name]:
            print(f"{name.replace('_', ' ')}: {figures[name]}")
