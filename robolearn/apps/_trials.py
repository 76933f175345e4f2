"""Attempts at one task, here or in worker processes, always in the order of their seeds."""

from __future__ import annotations

import multiprocessing
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from robolearn.apps import _expand
from robolearn.apps._expand import RECIPES
from robolearn.data.convert.robosuite_demo import read_demo
from robolearn.data.source import read_source
from sim_envs import _base

FIRST_TEST_SEED = 100_000  # seeds from here on are for evaluation and never put into a training set
HOPELESS = 20  # so many attempts without one success end a command


@dataclass(frozen=True, kw_only=True)
class Attempts:
    """What every command that makes a set out of attempts can be told."""

    out: Path
    """The dataset to write."""
    episodes: int = 200
    """Successes wanted."""
    seed: int = 0
    """Of the first reset; attempt i uses seed + i."""
    attempts: int = 0
    """Resets tried at most; 0: 20 + 5 per episode."""
    cameras: tuple[str, ...] = ()
    """Pictures to record."""
    workers: int = 1
    """Processes; the set is the same whatever their number."""
    json: Path | None = None
    """Write yield and reasons to this file."""
    resume: bool = False
    """Go on with a set that was interrupted."""
    overwrite: bool = False
    """Replace an existing set."""

    def __post_init__(self) -> None:
        """Refuses what cannot be made; ValueError names the field."""
        for name in ("episodes", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: want at least 1, got {getattr(self, name)}")
        last = self.seed + self.most_attempts - 1
        if self.seed < 0 or last >= FIRST_TEST_SEED:
            raise ValueError(
                f"seed: attempts use the seeds {self.seed} to {last}, want them in [0, {FIRST_TEST_SEED}), "
                f"because those from {FIRST_TEST_SEED} on are for evaluation"
            )

    @property
    def most_attempts(self) -> int:
        """How many resets are tried at most."""
        return self.attempts or 20 + 5 * self.episodes


@dataclass(frozen=True)
class Trial:
    """What came of one attempt: an episode's arrays by key with its transforms, or a reason."""

    seed: int
    cpu_s: float
    reason: str = ""
    rows: dict[str, np.ndarray] | None = None
    transforms: dict[str, Any] | None = None


class Tries:
    """Attempts at one task from one source, here or in worker processes; picklable, the body is made where it is used."""

    def __init__(self, path: Path, task: str, env: dict[str, Any], noise: float) -> None:
        self.path, self.task, self.env, self.noise = path, task, env, noise
        self.recipe = RECIPES[task]
        self.source = read_source(read_demo(path), self.recipe.all_bodies)
        self.cuts = _expand.find_cuts(self.source, self.recipe)

    def open(self) -> Any:
        """Returns the body that the attempts run on."""
        return _base.make(self.task, self.env)

    def attempt(self, body: Any, seed: int) -> Trial:
        """Returns what came of one reset of the body."""
        started = time.process_time()
        try:
            episode = _expand.attempt(body, self.source, self.recipe, self.cuts, seed, self.noise)
        except _expand.Failed as failure:
            return Trial(seed, time.process_time() - started, str(failure))
        rows = {key: np.stack([row[key] for row in episode.rows]) for key in episode.rows[0]}
        return Trial(seed, time.process_time() - started, rows=rows, transforms=episode.transforms)


class Job(Protocol):
    """What `in_order` runs: picklable, its body is made in the process that uses it."""

    def open(self) -> Any:
        """Returns the body."""

    def attempt(self, body: Any, seed: int) -> Trial:
        """Returns what came of one reset of the body."""


def in_order(job: Job, seeds: range, workers: int) -> Iterator[Trial]:
    """Yields the trial of every seed, in the order of the seeds whatever the number of workers."""
    if workers <= 1:
        body = job.open() if workers else None
        yield from (job.attempt(body, seed) for seed in seeds if body)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(job,)) as pool:
        waiting: deque[Future[Trial]] = deque()
        try:
            for seed in seeds:
                waiting.append(pool.submit(_attempt, seed))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_in_worker: list[tuple[Job, Any]] = []


def _start(job: Job) -> None:
    _in_worker.append((job, job.open()))


def _attempt(seed: int) -> Trial:
    job, body = _in_worker[0]
    return job.attempt(body, seed)
