"""Stateful mini-batches: every slot of a batch walks along one episode, so that a memory can be carried from batch to batch.

SeedPolicy (arXiv 2603.05117), released sampler: a chain is one episode from a start offset in 0..stride-1 on, its windows
`stride` ticks apart, which is how often the memory moves when driving. A slot whose chain has ended takes the next one of a
shuffled list, with a reset flag. The list never ends: when every (episode, offset) has been dealt it is shuffled anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from robolearn.errors import ConfigError


@dataclass(frozen=True)
class ChainOrder:
    """How chains are walked: `slots` at once, `length` windows each in one batch, `stride` ticks apart.

    reset_every: (least, most) updates after which a slot is reset although its chain goes on, drawn anew each time; 0: never.
    whole: every batch begins new chains, so that no state and no gradient is cut but at a batch's end; what is left of a batch
    after a chain's end begins the next one, whose rest is then left out.
    """

    slots: int
    length: int
    stride: int
    reset_every: tuple[int, int] = (0, 0)
    whole: bool = False

    def __post_init__(self) -> None:
        """Refuses an order that cannot be walked; ConfigError."""
        if min(self.slots, self.length, self.stride) < 1:
            raise ConfigError(f"chains: want at least one slot, window and tick, got {self}")
        least, most = self.reset_every
        if not (least, most) == (0, 0) and not 1 <= least <= most:
            raise ConfigError(f"reset_every: want 1 <= least <= most, or 0, 0 for never, got {least}, {most}")


@dataclass
class _Slot:
    """Where a slot is: its next window, the end of its chain, updates since its last reset and how many it may make."""

    at: int = 0
    end: int = 0
    since: int = 0
    limit: int = 0


@dataclass
class Chains:
    """Deals window numbers and reset flags, batch by batch; what batch k holds depends on the seed and k only."""

    episodes: Sequence[tuple[int, int]]  # (first window, count) of every episode, at consecutive ticks
    order: ChainOrder
    seed: int
    _made: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Refuses to walk along nothing."""
        if not self.episodes:
            raise ConfigError("chains: want at least one episode to walk along, got none")
        self._begin()

    def _begin(self) -> None:
        self._rng = np.random.default_rng([self.seed, 1])
        self._slots = [_Slot() for _ in range(self.order.slots)]
        self._dealer = self._deal()
        self._made = 0

    def _deal(self) -> Iterator[tuple[int, int]]:
        """Yields (first, end) windows of chains for ever."""
        pairs = [(e, offset) for e, (_, count) in enumerate(self.episodes) for offset in range(min(self.order.stride, count))]
        while True:
            for k in self._rng.permutation(len(pairs)):
                episode, offset = pairs[k]
                first, count = self.episodes[episode]
                yield first + offset, first + count

    def batch(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns window numbers (slots * length,), slot by slot, and reset flags (slots, length) of batch `number`."""
        if number < self._made:
            self._begin()
        while True:
            windows, resets = self._walk()
            if self._made > number:
                return windows, resets

    def _walk(self) -> tuple[np.ndarray, np.ndarray]:
        """Moves every slot on by one batch."""
        windows = np.empty((self.order.slots, self.order.length), np.int64)
        resets = np.zeros((self.order.slots, self.order.length), bool)
        for s, slot in enumerate(self._slots):
            for k in range(self.order.length):
                if slot.at >= slot.end or (self.order.whole and k == 0):
                    slot.at, slot.end = next(self._dealer)
                    resets[s, k] = True
                elif slot.limit and slot.since >= slot.limit:
                    resets[s, k] = True
                if resets[s, k]:
                    slot.since, slot.limit = 0, self._limit()
                windows[s, k] = slot.at
                slot.at, slot.since = slot.at + self.order.stride, slot.since + 1
        self._made += 1
        return windows.ravel(), resets

    def _limit(self) -> int:
        least, most = self.order.reset_every
        return int(self._rng.integers(least, most + 1)) if most else 0
