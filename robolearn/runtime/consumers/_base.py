"""What a consumer decides: when a plan is asked for, what it is told of the steps already fixed, how it joins what is there.

A consumer holds no state: all that it may know is in `View`. A plug-in file holds a `Config` (frozen dataclass) and
`make(config, spec)`, which returns its `Consumer`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolearn import config, registry
from robolearn.core import Ask, Spec
from robolearn.runtime._slots import Held, Kinds, Proposal

CONSUMERS = "robolearn.runtime.consumers"


@dataclass(frozen=True)
class ConsumerConfig:
    """Fields that every consumer's config has."""

    quaternions: tuple[int, ...] = ()
    """The first index of each wxyz quaternion in an action."""
    binary: tuple[int, ...] | None = None
    """Indices that are never averaged; none: the grips, by name."""

    def kinds(self, spec: Spec) -> Kinds:
        """Returns which numbers of the policy's actions are no plain numbers."""
        return Kinds.of(spec, self.quaternions, self.binary)


@dataclass(frozen=True)
class View:
    """The schedule as a consumer sees it; it may change slot `commit` and those after it.

    first: the slot of the observation to plan from; commit: the first slot that may still change; left: how many slots from the
    next one on are filled without a gap; since: slots since the last request, None before there was one; horizon: of the last
    chunk that was accepted, 0 before; delay: slots the next plan is expected to take, None before any but the warm-up was
    measured; warm_up: the slots that the first one took; path: what lies in each slot, the executed ones too; proposals: the
    accepted chunks that still reach beyond `commit`, oldest first.
    """

    first: int
    commit: int
    left: int
    since: int | None
    horizon: int
    delay: int | None
    warm_up: int | None
    path: Mapping[int, Held]
    proposals: tuple[Proposal, ...]

    @property
    def due(self) -> bool:
        """True where nothing is left, or no request was made yet."""
        return self.left == 0 or self.since is None

    def expected(self, guess: int) -> int:
        """Returns the delay to plan for [slots]: as measured, before that `guess`, and where that is -1 what the warm-up took."""
        if self.delay is not None:
            return self.delay
        return guess if guess >= 0 else self.warm_up or 0

    def tail(self, slot: int) -> np.ndarray | None:
        """Returns the actions (n, action) that lie in `slot` and after without a gap; None where none of them can be changed."""
        rows: list[np.ndarray] = []
        while slot + len(rows) in self.path:
            rows.append(self.path[slot + len(rows)].action)
        return np.stack(rows) if slot + len(rows) > self.commit else None


@dataclass(frozen=True)
class Merged:
    """What should lie in slot `start` and after: actions (n, action), the first of them step `index` of the new chunk.

    Slots before `start` keep what they have, those after the last are emptied. refused: why nothing should change.
    """

    start: int
    actions: np.ndarray
    index: int = 0
    refused: str = ""


class Consumer(ABC):
    """A way to live on chunks that come late.

    kinds: of the policy's actions; prefixes: it tells plans of the steps before them; waits: its chunks begin when they come,
    so that none is too late; otherwise they begin at their observation.
    """

    kinds: Kinds
    prefixes: bool = False
    waits: bool = False

    @abstractmethod
    def wants(self, view: View) -> bool:
        """Returns whether an inference should begin with this tick's observation."""

    @abstractmethod
    def ask(self, view: View, plain: Ask) -> tuple[Ask, int]:
        """Returns `plain` with what the plan is told of the steps already fixed, and how many are executed before it comes."""

    @abstractmethod
    def merge(self, new: Proposal, view: View) -> Merged:
        """Returns what the schedule should hold now that `new` is there, which reaches beyond `view.commit`."""


def not_below(least: int, **values: int) -> None:
    """Raises ValueError, which a config's reader turns into its own error, for the first value that is below `least`."""
    for name, value in values.items():
        if value < least:
            raise ValueError(f"{name}: want at least {least}, got {value}")


def apart(view: View, slots: int) -> bool:
    """Returns true when so many slots have passed since the last request, or no more is left than a plan takes to come."""
    return view.due or (view.since or 0) >= slots or view.left <= view.expected(-1)


def apart_by_delay(view: View, least: int, delay: int) -> bool:
    """Returns true as `apart`, for requests s slots apart: at least `least` and the delay d, at most horizon - d (RTC)."""
    return apart(view, min(max(least, delay), max(view.horizon - delay, 1)))


def from_commit(new: Proposal, view: View) -> Merged:
    """Returns the merge that takes everything from the new chunk that is not too late."""
    late = view.commit - new.first
    return Merged(view.commit, new.actions[late:], late)


def after_prefix(new: Proposal, view: View) -> Merged:
    """Returns the merge that takes a chunk from where its prefix ends: the steps it was told are fixed stay what they are."""
    start = view.commit
    while start < min(new.first + new.prefix, new.end) and start in view.path:
        start += 1
    return Merged(start, new.actions[start - new.first :], start - new.first)


def padded(tail: np.ndarray, horizon: int) -> np.ndarray:
    """Returns the tail (n, action) with its last action repeated up to `horizon`, so that no invented target is ever in it."""
    return np.concatenate([tail, np.repeat(tail[-1:], max(horizon - len(tail), 0), axis=0)])[:horizon]


def consumer_names() -> tuple[str, ...]:
    """Returns the names of all consumers."""
    return registry.names(CONSUMERS)


def make_consumer(name: str, overrides: Mapping[str, Any], spec: Spec) -> Consumer:
    """Returns a consumer for a policy with this spec; UnknownName, or ConfigError that names the field that does not fit."""
    module = registry.load(CONSUMERS, name, what="consumer")
    made: Consumer = module.make(config.from_mapping(module.Config, overrides, where=f"consumer {name}"), spec)
    return made
