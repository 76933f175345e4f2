"""The books of a running episode: chunks as the policy gives them in, plans as a score sees them out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from robolearn.core import Chunk
from robolearn.errors import BadInput
from robolearn.monitors._base import Plans


@dataclass
class Book:
    """Turns the chunks of one episode into plans; `who` stands in messages. One a stream, begun anew with every episode.

    What was executed is read off the chunks themselves: the part of each that was used up when the next one came.
    """

    who: str = "monitor"
    _last: Chunk | None = None
    _done: list[np.ndarray] = field(default_factory=list)

    def add(self, chunk: Chunk) -> Plans:
        """Returns the newest plan as a run of one (see `Plans`); BadInput where the chunk lacks what no score can do without."""
        if chunk.features is None:
            raise BadInput(f"{self.who}: the policy gives no embedding of its observations, so nothing can be scored")
        if self._last is not None:
            used = chunk.tick - self._last.tick
            if not 0 < used <= len(self._last.actions):
                raise BadInput(f"{self.who}: a plan for tick {chunk.tick} cannot follow one for tick {self._last.tick}")
            self._done += [np.asarray(action, np.float32).ravel() for action in self._last.actions[:used]]
        self._last = chunk
        samples = chunk.actions[None] if chunk.samples is None else chunk.samples
        samples = samples.reshape(*samples.shape[:2], -1).astype(np.float32)
        draws, _, width = samples.shape
        if chunk.past is None or not len(chunk.past):
            past = np.zeros((draws, 0, width), np.float32)
        else:
            past = chunk.past[None] if chunk.past_samples is None else chunk.past_samples
            past = past.reshape(*past.shape[:2], -1).astype(np.float32)
        executed = self._executed(past.shape[1], width, chunk.past_stride)
        features = np.asarray(chunk.features, np.float32).ravel()
        return Plans(np.array([chunk.tick]), features[None], samples[None], past[None], executed[None])

    def _executed(self, n_past: int, width: int, stride: int) -> np.ndarray:
        """Returns (n_past, action): token j of the past is for tick - stride (n_past - j); NaN before the episode began."""
        rows = np.full((n_past, width), np.nan, np.float32)
        for j in range(n_past):
            back = stride * (n_past - j)
            if back <= len(self._done):
                rows[j] = self._done[-back]
        return rows
