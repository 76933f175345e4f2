"""A mind that follows many episodes at once, stream by stream; stream 0 is the plain `core.Policy`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from robolearn.core import Ask, Chunk, Obs, Spec


class Streams(ABC):
    """Stream i behaves like a policy of its own; what is planned together is one batch."""

    spec: Spec

    @abstractmethod
    def reset_stream(self, i: int, seed: int | None) -> None:
        """Begins a new episode in stream i."""

    @abstractmethod
    def observe_stream(self, i: int, obs: Obs, applied: np.ndarray | None) -> None:
        """Adds one observation, and the action that led to it, to stream i."""

    @abstractmethod
    def plan_streams(self, indices: Sequence[int], ask: Ask = Ask()) -> list[Chunk]:
        """Returns one chunk a stream."""

    def meet(self, body: Spec) -> None:
        """Tells the mind of the body that it will drive, before anything moves; most need nothing of it but what they see."""
        del body  # Unused: a policy of the body's own observations knows all of it.

    def tally(self) -> dict[str, int]:
        """Returns what the mind has counted since it was made, by name; most count nothing."""
        return {}

    def reset(self, seed: int | None = None) -> None:
        """Forgets stream 0."""
        self.reset_stream(0, seed)

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        """Adds one observation, and the action that led to it, to stream 0."""
        self.observe_stream(0, obs, applied)

    def plan(self, ask: Ask = Ask()) -> Chunk:
        """Plans for stream 0; the same answer however often it is asked."""
        return self.plan_streams([0], ask)[0]
