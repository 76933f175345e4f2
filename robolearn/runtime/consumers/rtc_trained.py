"""Real-time chunking by a policy that was trained on random delays: it is given the first d steps and plans what follows them.

The steps that will be executed before the plan is there are given as they are (`Ask.prefix_fixed`); nothing is said of later
ones. A plan that took more slots than any delay of the training is refused and counted ("delay"): no such prefix was learned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from robolearn.core import Ask, Spec
from robolearn.runtime._slots import Kinds, Proposal
from robolearn.runtime.consumers._base import (
    Consumer,
    ConsumerConfig,
    Merged,
    View,
    after_prefix,
    apart_by_delay,
    not_below,
    padded,
)


@dataclass(frozen=True)
class Config(ConsumerConfig):
    """A fixed prefix, which the policy was trained to continue."""

    execute: int = 0
    """Slots between two requests, at least; 0: what the policy was trained to execute."""
    max_delay: int = 4
    """The longest delay [slots] of the training (the policy's `rtc_max_delay`)."""
    delay: int = -1
    """Slots a plan is expected to take before one was measured; -1: as long as the first one took."""

    def __post_init__(self) -> None:
        not_below(0, execute=self.execute)
        not_below(1, max_delay=self.max_delay)
        if not -1 <= self.delay <= self.max_delay:
            raise ValueError(f"delay: want -1 or 0 to {self.max_delay}, the longest that was trained, got {self.delay}")


class Trained(Consumer):
    """Asks every so many slots, no faster than plans come, with the steps that are fixed."""

    prefixes = True

    def __init__(self, config: Config, execute: int, kinds: Kinds) -> None:
        self.config, self.execute, self.kinds = config, execute, kinds

    def wants(self, view: View) -> bool:
        """Returns true when enough slots have passed since the last request, or little is left."""
        return apart_by_delay(view, self.execute, view.expected(self.config.delay))

    def ask(self, view: View, plain: Ask) -> tuple[Ask, int]:
        """Returns the ask with the steps that are fixed; plain where there are none."""
        tail = view.tail(view.first)
        if tail is None:
            return plain, 0
        delay = min(view.expected(self.config.delay), self.config.max_delay, len(tail), view.horizon)
        return (replace(plain, prefix=padded(tail, view.horizon), prefix_fixed=delay), delay) if delay else (plain, 0)

    def merge(self, new: Proposal, view: View) -> Merged:
        """Returns the new chunk from where its prefix ends; refused where it was given one and took longer than was trained."""
        late = view.commit - new.first
        if new.asked and late > self.config.max_delay:
            return Merged(view.commit, new.actions[:0], refused="delay")
        return after_prefix(new, view)


def make(config: Config, spec: Spec) -> Consumer:
    """Returns the consumer for a policy with this spec."""
    return Trained(config, config.execute or spec.execute, config.kinds(spec))
