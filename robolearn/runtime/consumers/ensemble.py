"""Temporal ensembling (ACT, Zhao et al., arXiv 2304.13705): a slot's action is the mean of all chunks that reach it.

With opinions i = 0..n on a slot, the oldest first, the weights are exp(-m i): the oldest has the largest, as in ACT's code. Which
chunks reach a slot is counted, not guessed from the numbers, so a true zero is an opinion like any other. Averaging blurs ways of
doing a task that differ, and a smooth motion wants an inference in each slot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolearn.core import Ask, Spec
from robolearn.runtime._slots import Kinds, Proposal
from robolearn.runtime.consumers._base import Consumer, ConsumerConfig, Merged, View, apart, not_below


@dataclass(frozen=True)
class Config(ConsumerConfig):
    """The mean of all chunks that reach a slot."""

    execute: int = 1
    """Slots between two requests, at least."""
    m: float = 0.01
    """How fast weights fall from the oldest opinion to the newest."""

    def __post_init__(self) -> None:
        not_below(1, execute=self.execute)
        if not np.isfinite(self.m):
            raise ValueError(f"m: want a finite number, got {self.m}")


class Ensemble(Consumer):
    """Asks every `execute` slots and averages, rotations on SO(3); of binary numbers the newest counts."""

    def __init__(self, execute: int, m: float, kinds: Kinds) -> None:
        self.execute, self.m, self.kinds = execute, m, kinds

    def wants(self, view: View) -> bool:
        """Returns true when enough slots have passed since the last request, or little is left."""
        return apart(view, self.execute)

    def ask(self, view: View, plain: Ask) -> tuple[Ask, int]:
        """Returns the plain ask: nothing is fixed."""
        del view  # Unused.
        return plain, 0

    def merge(self, new: Proposal, view: View) -> Merged:
        """Returns the means of the slots that any chunk reaches."""
        chunks = [*view.proposals, new]
        slots = np.arange(view.commit, max(chunk.end for chunk in chunks))
        opinions = np.zeros((len(chunks), len(slots), new.actions.shape[1]), new.actions.dtype)
        there = np.zeros(opinions.shape[:2], bool)
        for k, chunk in enumerate(chunks):
            there[k] = (chunk.first <= slots) & (slots < chunk.end)
            opinions[k, there[k]] = chunk.actions[slots[there[k]] - chunk.first]
        rank = np.cumsum(there, axis=0) - 1  # 0 for the oldest opinion that there is
        weights = np.where(there, np.exp(-self.m * rank), 0.0)
        return Merged(view.commit, self.kinds.average(opinions, weights), view.commit - new.first)


def make(config: Config, spec: Spec) -> Consumer:
    """Returns the consumer for a policy with this spec."""
    return Ensemble(config.execute, config.m, config.kinds(spec))
