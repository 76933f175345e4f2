"""Synchronous execution: run a chunk's steps, stand still while the next one is made, run that from its first step."""

from __future__ import annotations

from dataclasses import dataclass

from robolearn.core import Ask, Spec
from robolearn.runtime._slots import Kinds, Proposal
from robolearn.runtime.consumers._base import Consumer, ConsumerConfig, Merged, View, not_below


@dataclass(frozen=True)
class Config(ConsumerConfig):
    """Wait and hold."""

    execute: int = 0
    """Steps of a chunk that are run before the next is made; 0: what the policy was trained to execute."""

    def __post_init__(self) -> None:
        not_below(0, execute=self.execute)


class Sync(Consumer):
    """Asks when nothing is left. The body has stood still since the observation, so a chunk begins when it comes."""

    waits = True

    def __init__(self, execute: int, kinds: Kinds) -> None:
        self.execute, self.kinds = execute, kinds

    def wants(self, view: View) -> bool:
        """Returns true when the executed part of the chunk is used up."""
        return view.due

    def ask(self, view: View, plain: Ask) -> tuple[Ask, int]:
        """Returns the plain ask: nothing is fixed."""
        del view  # Unused.
        return plain, 0

    def merge(self, new: Proposal, view: View) -> Merged:
        """Returns the executed part of the chunk, from its first step on."""
        return Merged(view.commit, new.actions[: self.execute])


def make(config: Config, spec: Spec) -> Consumer:
    """Returns the consumer for a policy with this spec."""
    return Sync(config.execute or spec.execute, config.kinds(spec))
