"""Real-time chunking by guidance (Black, Galliker and Levine, arXiv 2506.07339): plan so that the new chunk continues the old.

The sampler is told the unexecuted rest of the schedule, step for step of the new chunk, and how firmly to keep to it
(`soft_mask`): wholly for the steps that will be executed before the plan is there, less and less after, not at all where the old
chunk has ended. With horizon H and expected delay d the requests are s slots apart, d <= s <= H - d.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from robolearn.core import Ask, Spec
from robolearn.runtime._slots import Kinds, Proposal, soft_mask
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
    """Guidance towards what is scheduled."""

    execute: int = 0
    """Slots between two requests, at least; 0: what the policy was trained to execute."""
    delay: int = -1
    """Slots a plan is expected to take before one was measured; -1: as long as the first one took."""
    beta: float = 5.0
    """The largest weight of the pull towards what is scheduled."""
    jacobian: Literal["full", "identity"] = "full"
    """Pull through the network, or past it, which is faster and less exact."""

    def __post_init__(self) -> None:
        not_below(0, execute=self.execute)
        not_below(-1, delay=self.delay)
        if not 0.0 <= self.beta < math.inf:
            raise ValueError(f"beta: want a finite number of at least 0, got {self.beta}")


class Guided(Consumer):
    """Asks s slots after the last request, with the rest of the schedule and the soft mask."""

    prefixes = True

    def __init__(self, config: Config, execute: int, kinds: Kinds) -> None:
        self.config, self.execute, self.kinds = config, execute, kinds

    def wants(self, view: View) -> bool:
        """Returns true s slots after the last request, or where little is left."""
        return apart_by_delay(view, self.execute, view.expected(self.config.delay))

    def ask(self, view: View, plain: Ask) -> tuple[Ask, int]:
        """Returns the ask with the rest of the schedule and its mask, which is 0 wherever the rest is only padding."""
        tail = view.tail(view.first)
        if tail is None:
            return plain, 0
        rest = min(len(tail), view.horizon)
        delay = min(view.expected(self.config.delay), rest)
        held = replace(
            plain,
            prefix=padded(tail, view.horizon),
            prefix_mask=soft_mask(view.horizon, delay, view.horizon - rest),
            prefix_beta=self.config.beta,
            prefix_jacobian=self.config.jacobian,
        )
        return held, delay

    def merge(self, new: Proposal, view: View) -> Merged:
        """Returns the new chunk from where the steps end that it was told are fixed."""
        return after_prefix(new, view)


def make(config: Config, spec: Spec) -> Consumer:
    """Returns the consumer for a policy with this spec."""
    return Guided(config, config.execute or spec.execute, config.kinds(spec))
