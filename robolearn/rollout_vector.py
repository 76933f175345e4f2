"""The loop for many bodies at once: N streams through one network in one batch, with the outcomes of N single rollouts.

A round: every stream that has used up its chunk gets a new one (one batch), sends its executed part to its body, and the
steps that come back are booked and observed one by one, as `rollout` would. Streams end at different ticks; a free stream
takes the next seed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from robolearn.core import Ask, Chunk, Obs, Outcome, Spec
from robolearn.errors import SpecMismatch
from robolearn.rollout import Episode, check_action


class StreamPolicy(Protocol):
    """A mind that follows many episodes at once; stream i behaves like a `Policy` of its own."""

    spec: Spec

    def reset_stream(self, i: int, seed: int | None) -> None: ...
    def observe_stream(self, i: int, obs: Obs, applied: np.ndarray | None) -> None: ...
    def plan_streams(self, indices: list[int], ask: Ask = Ask()) -> list[Chunk]: ...


class Bodies(Protocol):
    """Many bodies with one spec, driven in rounds (`sim_envs._pool.Pool`)."""

    spec: Spec
    streams: int

    def ask(self, starts: Mapping[int, int | None], runs: Mapping[int, np.ndarray]) -> Mapping[int, Any]: ...


@dataclass(frozen=True)
class Record:
    """One finished episode: its outcome, the executed actions (steps, action) and, if kept, the states (steps + 1, state)."""

    outcome: Outcome
    actions: np.ndarray
    states: np.ndarray | None = None
    why: str = ""  # of an episode that crashed


@dataclass
class _Stream:
    """One running episode (number `job` of the list) and what it leaves."""

    job: int
    episode: Episode
    actions: list[np.ndarray] = field(default_factory=list)
    states: list[np.ndarray] = field(default_factory=list)

    why: str = ""

    def record(self, width: tuple[int, ...]) -> Record:
        """Returns what is kept of the finished episode; `width` is the shape of an action."""
        actions = np.stack(self.actions) if self.actions else np.zeros((0, *width), np.float32)
        return Record(self.episode.outcome(), actions, np.concatenate(self.states) if self.states else None, self.why)


def rollout_vector(
    bodies: Bodies,
    policy: StreamPolicy,
    seeds: Sequence[int],
    *,
    max_steps: int,
    retries: int = 2,
    on_record: Callable[[Record], object] = lambda record: None,
) -> list[Record]:
    """Returns one record a seed, in the order of `seeds`; `on_record` is told each as it ends.

    An episode whose body was lost (a killed worker, an exception in the simulator) is run again from its seed, alone, so
    that no neighbour in its worker is blamed for it; after `retries` more losses it counts as failed, with reason
    "crashed". Raises as `rollout` does.
    """
    bodies.spec.require(policy.spec, who=type(policy).__name__)
    records: dict[int, Record] = {}

    def end(job: int, record: Record) -> None:
        records[job] = record
        on_record(record)

    lost = _run(bodies, policy, dict(enumerate(seeds)), bodies.streams, max_steps, end)
    for job, stream in sorted(lost.items()):
        last = stream
        for _ in range(retries):
            again = _run(bodies, policy, {job: seeds[job]}, 1, max_steps, end)
            if job in records:
                break
            last = again[job]
        else:
            last.episode.success, last.episode.reason = False, "crashed"
            end(job, last.record(bodies.spec.action.shape))
    return [records[job] for job in range(len(seeds))]


def _run(
    bodies: Bodies,
    policy: StreamPolicy,
    jobs: Mapping[int, int],
    streams: int,
    max_steps: int,
    end: Callable[[int, Record], None],
) -> dict[int, _Stream]:
    """Runs the episodes `jobs` (number -> seed) on the first `streams` bodies; returns those that were lost."""
    queue = deque(jobs)
    running: dict[int, _Stream] = {}
    lost: dict[int, _Stream] = {}
    while queue or running:
        runs = _plan(bodies, policy, running, max_steps)
        starts: dict[int, int | None] = {}
        for stream in range(streams):
            if stream not in running and queue:
                job = queue.popleft()
                running[stream] = _Stream(job, Episode(jobs[job], max_steps))
                starts[stream] = jobs[job]
        for stream, reply in sorted(bodies.ask(starts, runs).items()):
            now = running[stream]
            if reply.lost:
                now.why = reply.lost
                lost[now.job] = running.pop(stream)
                continue
            _book(policy, stream, now, reply)
            if now.episode.reason:
                end(now.job, now.record(bodies.spec.action.shape))
                del running[stream]
    return lost


def _plan(bodies: Bodies, policy: StreamPolicy, running: Mapping[int, _Stream], max_steps: int) -> dict[int, np.ndarray]:
    """Returns the actions (n, action) that every running stream executes next, planned in one batch."""
    indices = sorted(running)
    if not indices:
        return {}
    runs = {}
    for stream, chunk in zip(indices, policy.plan_streams(indices), strict=True):
        episode = running[stream].episode
        if chunk.tick != episode.steps:
            raise SpecMismatch(f"{type(policy).__name__} planned for tick {chunk.tick}, want {episode.steps}")
        episode.chunk = chunk
        n = min(policy.spec.execute, len(chunk.actions), max_steps - episode.steps)
        runs[stream] = np.stack([check_action(action, bodies, policy) for action in chunk.actions[:n]])
    return runs


def _book(policy: StreamPolicy, stream: int, now: _Stream, reply: Any) -> None:
    """Books the first observation or the executed steps of one stream, and shows them to the policy, in order."""
    if reply.states is not None:
        now.states.append(reply.states)
    if reply.obs is not None:
        policy.reset_stream(stream, now.episode.seed)
        policy.observe_stream(stream, reply.obs, None)
    for step in reply.steps:
        now.actions.append(now.episode.action())
        policy.observe_stream(stream, step.obs, step.filtered)
        now.episode.count(step)
