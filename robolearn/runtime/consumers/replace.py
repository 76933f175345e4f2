"""The newest chunk replaces the rest of the older one from the first slot that may still change, as in UMI (arXiv 2402.10329)."""

from __future__ import annotations

from dataclasses import dataclass

from robolearn.core import Ask, Spec
from robolearn.runtime._slots import Kinds, Proposal
from robolearn.runtime.consumers._base import Consumer, ConsumerConfig, Merged, View, apart, from_commit, not_below


@dataclass(frozen=True)
class Config(ConsumerConfig):
    """The newest chunk counts."""

    execute: int = 0
    """Slots between two requests, at least; 0: what the policy was trained to execute."""

    def __post_init__(self) -> None:
        not_below(0, execute=self.execute)


class Replace(Consumer):
    """Asks every so many slots; steps that come too late are dropped."""

    def __init__(self, execute: int, kinds: Kinds) -> None:
        self.execute, self.kinds = execute, kinds

    def wants(self, view: View) -> bool:
        """Returns true when enough slots have passed since the last request, or little is left."""
        return apart(view, self.execute)

    def ask(self, view: View, plain: Ask) -> tuple[Ask, int]:
        """Returns the plain ask: nothing is fixed."""
        del view  # Unused.
        return plain, 0

    def merge(self, new: Proposal, view: View) -> Merged:
        """Returns the steps of the new chunk that are not too late."""
        return from_commit(new, view)


def make(config: Config, spec: Spec) -> Consumer:
    """Returns the consumer for a policy with this spec."""
    return Replace(config.execute or spec.execute, config.kinds(spec))
