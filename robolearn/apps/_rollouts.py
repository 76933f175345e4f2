"""Rollouts of a trained policy with what a monitor sees of them; `monitor fit`, `monitor report` and the failure study use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.apps._evaluate import BODIES_PER_WORKER, Subject
from robolearn.apps._watched import layout_of
from robolearn.core import Ask, Chunk, Obs
from robolearn.errors import BadInput
from robolearn.monitors._base import Episode, Plans
from robolearn.monitors._book import Book
from robolearn.monitors._evidence import Evidence
from robolearn.policies._streams import Streams
from robolearn.rollout_vector import Record, rollout_vector
from sim_envs import _base as tasks
from sim_envs import perturb
from sim_envs._pool import Here, Pool


class Recorder(Streams):
    """A policy that draws `draws` plans each time and keeps what a monitor would have seen, by the episode's seed."""

    def __init__(self, inner: Streams, draws: int, streams: int) -> None:
        self.inner, self.spec, self.draws = inner, inner.spec, draws
        self._books = [Book("rollouts") for _ in range(streams)]
        self._now: list[list[Plans]] = [[] for _ in range(streams)]
        self.plans: dict[int, list[Plans]] = {}

    def reset_stream(self, i: int, seed: int | None) -> None:
        """Begins a new episode in stream i."""
        if seed is None:
            raise BadInput("rollouts: want a seed for every episode, got none")
        self._books[i], self._now[i] = Book("rollouts"), []
        self.plans[seed] = self._now[i]
        self.inner.reset_stream(i, seed)

    def observe_stream(self, i: int, obs: Obs, applied: np.ndarray | None) -> None:
        """Passes the observation on."""
        self.inner.observe_stream(i, obs, applied)

    def plan_streams(self, indices: Sequence[int], ask: Ask = Ask()) -> list[Chunk]:
        """Returns the plans that the policy would execute anyway (the first draw), and notes the others."""
        chunks = self.inner.plan_streams(indices, replace(ask, draws=max(self.draws, ask.draws)))
        for i, chunk in zip(indices, chunks, strict=True):
            self._now[i].append(self._books[i].add(chunk))
        return chunks


@dataclass(frozen=True)
class Wanted:
    """Which rollouts: seeds seed .. seed + episodes - 1, each with so many draws a plan, disturbed as `mixture` says."""

    episodes: int
    seed: int
    draws: int = 32
    mixture: str = ""  # of disturbances, as `sim_envs.perturb.parse` reads it; "": none
    workers: int = 0  # processes that simulate; 0: this one
    device: str = "cpu"

    def facts(self, subject: Subject) -> dict[str, Any]:
        """Returns what a set of these rollouts says of itself."""
        return {
            "policy_task": subject.task,
            "policy_env": dict(subject.env),
            "weights_sha256": subject.weights_sha256,
            "draws": self.draws,
            "mixture": self.mixture,
        }


def collect(subject: Subject, wanted: Wanted, path: Path, on_episode: Callable[[], object] = lambda: None) -> Evidence:
    """Returns the rollouts at `path`, those that are missing made now; each is on disk as soon as it ends.

    BadInput where the set there is of another policy, task, disturbance or number of draws.
    """
    if subject.checkpoint is None:
        raise BadInput(f"{subject.label}: only a trained policy has plans to watch; give a run folder")
    facts = wanted.facts(subject)
    there = Evidence.open(path, writable=True) if path.exists() else None
    if there is not None:
        other = [key for key, value in facts.items() if there.attrs.get(key) != value]
        if other:
            key = other[0]
            raise BadInput(f"{path}: holds rollouts with {key} {there.attrs.get(key)}, want {facts[key]}; give another path")
    have = set(there.seeds()) if there is not None else set()
    todo = [seed for seed in range(wanted.seed, wanted.seed + wanted.episodes) if seed not in have]
    for _ in range(wanted.episodes - len(todo)):
        on_episode()
    if todo:
        there = _roll(subject, wanted, todo, path, there, facts, on_episode)
    assert there is not None
    return there


def _roll(
    subject: Subject,
    wanted: Wanted,
    seeds: Sequence[int],
    path: Path,
    there: Evidence | None,
    facts: Mapping[str, Any],
    on_episode: Callable[[], object],
) -> Evidence:
    from robolearn.training.checkpoint import load_policy

    assert subject.checkpoint is not None
    workers = max(1, wanted.workers)
    each = min(BODIES_PER_WORKER, -(-len(seeds) // workers))
    policy = load_policy(subject.checkpoint, wanted.device, workers * each)
    layout = layout_of(policy)
    env = tasks.with_cameras(subject.env, [key for key, array in policy.spec.obs.items() if array.is_image])
    max_steps = tasks.configure(subject.task, env).max_steps
    mixture = perturb.parse(wanted.mixture) if wanted.mixture else perturb.Mixture()
    make = partial(perturb.make, subject.task, env, mixture)
    recorder = Recorder(policy, wanted.draws, workers * each)
    kept: list[Evidence] = [] if there is None else [there]

    def end(record: Record) -> None:
        seed = record.outcome.seed
        assert seed is not None
        seen = recorder.plans.pop(seed, [])
        if not seen or record.outcome.reason == "crashed":  # the simulator's failure, not the policy's
            on_episode()
            return
        plans = Plans.join(seen)
        if not kept:
            kept.append(Evidence.create(path, plans, layout, facts))
        kept[0].append(
            Episode(
                plans,
                bool(record.outcome.success),
                record.outcome.steps,
                seed,
                subject.task,
                mixture.happened(seed, record.outcome.steps, policy.spec.hz),
                float(record.outcome.score if record.outcome.score is not None else bool(record.outcome.success)),
            )
        )
        on_episode()

    with Pool(make, workers, each) if wanted.workers else Here(make, each) as bodies:
        rollout_vector(bodies, recorder, seeds, max_steps=max_steps, on_record=end)
    if not kept:
        raise BadInput(f"{subject.label}: no rollout came to an end, all crashed in the simulator")
    return kept[0]
