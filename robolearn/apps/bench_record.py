"""Times recording at 20 Hz with 2 cameras of 224x224: what a tick costs, how many come late, how long saving an episode takes."""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from robolearn.apps._bench import machine, reference_per_s
from robolearn.apps._live import Paced
from robolearn.apps._report import write_json
from robolearn.core import ArraySpec, Ask, Chunk, Obs, Outcome, Spec, Step, Tick
from robolearn.data._codec import Codec, CodecName
from robolearn.data.journal import Journal
from robolearn.data.pack import pack
from robolearn.data.recorder import EpisodeWriter, Recording
from robolearn.data.store import EpisodeSet
from robolearn.rollout import rollout

HZ, CAMERAS = 20.0, ("front", "wrist")


@dataclass(frozen=True)
class Config:
    """What to record."""

    episodes: int = 5
    """Episodes in real time."""
    steps: int = 300
    """Ticks an episode."""
    size: int = 224
    """Of the pictures [px]."""
    load: int = 0
    """Processes that keep cores busy meanwhile."""
    codec: CodecName = "jpeg"
    """Of the pictures."""
    json: Path | None = None
    """Where to write the figures."""


class Filmed:
    """A body of seven joints and two noisy cameras that costs nothing to step."""

    def __init__(self, size: int) -> None:
        pictures = {name: ArraySpec((size, size, 3), "uint8") for name in CAMERAS}
        self.spec = Spec({"joints": ArraySpec((7,), unit="rad"), **pictures}, ArraySpec((7,)), HZ)
        rng = np.random.default_rng(0)
        ground = 96 + 64 * np.sin(np.add.outer(np.arange(size), np.arange(size)) / 23.0)[..., None] * [1.0, 0.7, 0.4]
        self._pictures = [np.clip(ground + rng.normal(0, 6, (size, size, 3)), 0, 255).astype(np.uint8) for _ in range(16)]
        self._k = 0

    def reset(self, seed: int | None = None) -> Obs:
        """Returns the first observation."""
        self._k = 0
        return self._observe()

    def step(self, action: np.ndarray) -> Step:
        """Moves nothing and returns the next observation."""
        self._k += 1
        return Step(self._observe(), filtered=action, sent=action, success=False)

    def close(self) -> None:
        """Frees nothing."""

    def _observe(self) -> Obs:
        joints = np.full(7, np.sin(self._k / 20), np.float32)
        return {"joints": joints, **{name: self._pictures[(self._k + i) % 16] for i, name in enumerate(CAMERAS)}}


class Still:
    """A mind that asks for the same joints at every tick."""

    def __init__(self, spec: Spec) -> None:
        self.spec, self._tick = spec, 0

    def reset(self, seed: int | None = None) -> None:
        """Starts at tick 0."""
        self._tick = 0

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        """Counts the ticks."""
        self._tick += applied is not None

    def plan(self, ask: Ask = Ask()) -> Chunk:
        """Returns one action."""
        return Chunk(np.zeros((1, 7), np.float32), self._tick)


@dataclass
class Timed:
    """A sink around the recorder that keeps how long it held up the loop [s]."""

    inner: EpisodeWriter
    ticks: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def begin(self, spec: Spec, meta: Any) -> None:
        """Begins an episode."""
        self.inner.begin(spec, meta)

    def record(self, tick: Tick) -> None:
        """Records a tick and its duration."""
        start = time.perf_counter()
        self.inner.record(tick)
        self.ticks.append(time.perf_counter() - start)

    def stream(self, name: str, t_ns: int, array: np.ndarray) -> None:
        """Hands a sample on."""
        self.inner.stream(name, t_ns, array)

    def end(self, outcome: Outcome) -> None:
        """Ends an episode and keeps how long it took until it was on the disk."""
        start = time.perf_counter()
        self.inner.end(outcome)
        self.ends.append(time.perf_counter() - start)


def run(cfg: Config) -> int:
    """Records in real time, then reads the clocks of what was recorded."""
    busy = [multiprocessing.get_context("spawn").Process(target=_spin, daemon=True) for _ in range(cfg.load)]
    for process in busy:
        process.start()
    try:
        with tempfile.TemporaryDirectory(prefix="robolearn-record-") as folder:
            figures = _record(cfg, Path(folder) / "set.zarr")
    finally:
        for process in busy:
            process.kill()
    print(
        f"{cfg.episodes} episodes of {cfg.steps} ticks at {HZ:g} Hz, {len(CAMERAS)} cameras of {cfg.size} px, {cfg.codec}, "
        f"{cfg.load} busy processes beside it"
    )
    for name, unit in (
        ("step_overhead_p50_ms", "ms"),
        ("step_overhead_p99_ms", "ms"),
        ("late_p99_ms", "ms"),
        ("late_ticks_share", ""),
        ("append_p50_ms", "ms"),
        ("append_max_ms", "ms"),
        ("pack_mean_ms", "ms"),
    ):
        print(f"  {name.removesuffix('_ms'):<20} {figures[name]:.3g} {unit}")
    write_json(cfg.json, {**figures, "reference_per_s": reference_per_s(), "machine": machine(cfg.load)}, seed=0)
    return 0


def _record(cfg: Config, path: Path) -> dict[str, Any]:
    body = Paced(Filmed(cfg.size))
    with EpisodeWriter(path, {"task": "toy"}, Recording(codec=Codec(cfg.codec), pack="never")) as recorder:
        timed = Timed(recorder)
        for seed in tqdm(range(cfg.episodes), desc="record", disable=not sys.stderr.isatty()):
            rollout(body, Still(body.spec), max_steps=cfg.steps, seed=seed, sinks=[timed])
        frames = cfg.episodes * cfg.steps * len(CAMERAS)
        journal = Journal(recorder.journal.folder)
        stored = sum(p.stat().st_size for p in journal.folder.glob("ep_*/cameras/*/bytes/c.0"))
        start = time.perf_counter()
        pack(journal, path)
        packing = (time.perf_counter() - start) / cfg.episodes
    dataset = EpisodeSet.open(path)
    late = dataset.read("late_ms")
    gaps = np.concatenate([np.diff(dataset.read("t_monotonic", *dataset.span(i))) for i in range(dataset.n_episodes)]) * 1e-6
    ticks, ends = 1e3 * np.array(timed.ticks), 1e3 * np.array(timed.ends)
    return {
        "episodes": dataset.n_episodes,
        "steps": dataset.n_steps,
        "frames_recorded": frames,
        "frames_lost": frames - sum(len(journal.episode(n).array(f"cameras/{c}/ends")) for n in journal.ids() for c in CAMERAS),
        "step_overhead_p50_ms": float(np.median(ticks)),
        "step_overhead_p99_ms": float(np.quantile(ticks, 0.99)),
        "step_overhead_max_ms": float(ticks.max()),
        "late_p99_ms": float(np.quantile(late, 0.99)),
        "late_max_ms": float(late.max()),
        "late_ticks_share": float((late > 500.0 / HZ).mean()),
        "gap_max_ms": float(gaps.max()),
        "append_p50_ms": float(np.median(ends)),
        "append_max_ms": float(ends.max()),
        "pack_mean_ms": 1e3 * packing,
        "bytes_a_frame": stored / frames,
        "load": cfg.load,
    }


def _spin() -> None:
    while True:
        sum(range(10000))
