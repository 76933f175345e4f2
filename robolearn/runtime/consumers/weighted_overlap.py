"""Where two chunks overlap the newer counts 0.7 and what was scheduled 0.3, slot by slot (LeRobot's asynchronous inference)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolearn.core import Ask, Spec
from robolearn.runtime._slots import Kinds, Proposal
from robolearn.runtime.consumers._base import Consumer, ConsumerConfig, Merged, View, from_commit


@dataclass(frozen=True)
class Config(ConsumerConfig):
    """A weighted mean of the new chunk and what was scheduled."""

    newest: float = 0.7
    """Weight of the newer chunk; what was scheduled has the rest."""
    ask_at: float = 0.5
    """Share of a chunk that is left when the next plan is asked for."""

    def __post_init__(self) -> None:
        if not 0.0 < self.newest <= 1.0 or not 0.0 <= self.ask_at <= 1.0:
            raise ValueError(f"want newest above 0 up to 1 and ask_at from 0 to 1, got {self.newest} and {self.ask_at}")


class WeightedOverlap(Consumer):
    """Asks when a share of the chunk is left, and takes the mean where both have something to say."""

    def __init__(self, newest: float, ask_at: float, kinds: Kinds) -> None:
        self.newest, self.ask_at, self.kinds = newest, ask_at, kinds

    def wants(self, view: View) -> bool:
        """Returns true when the share is reached, or no more is left than a plan takes to come."""
        return view.due or view.left <= max(self.ask_at * view.horizon, view.expected(-1))

    def ask(self, view: View, plain: Ask) -> tuple[Ask, int]:
        """Returns the plain ask: nothing is fixed."""
        del view  # Unused.
        return plain, 0

    def merge(self, new: Proposal, view: View) -> Merged:
        """Returns the new chunk, mixed with what was scheduled as far as that reaches."""
        merged = from_commit(new, view)
        old = view.tail(view.commit)
        if old is None:
            return merged
        both = min(len(old), len(merged.actions))
        opinions = np.stack([old[:both].astype(new.actions.dtype), merged.actions[:both]])
        mixed = self.kinds.average(opinions, np.outer((1.0 - self.newest, self.newest), np.ones(both)))
        return Merged(merged.start, np.concatenate([mixed, merged.actions[both:]]), merged.index)


def make(config: Config, spec: Spec) -> Consumer:
    """Returns the consumer for a policy with this spec."""
    return WeightedOverlap(config.newest, config.ask_at, config.kinds(spec))
