"""Self-verification: draw K plans, execute the one whose predicted past agrees best with what was executed.

Torne et al. (arXiv 2505.09561), test-time verification; for every policy that predicts past tokens (`Chunk.past`). The past is
aligned in time for strided histories; the released code compares strided predictions with the newest dense actions, which
`aligned=False` reproduces. A wrapper around `plan`: it needs no network, only draws.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from robolearn.core import Ask, Chunk, Obs, Spec
from robolearn.errors import BadInput
from robolearn.policies._streams import Streams


@dataclass(frozen=True)
class Verification:
    """How plans are verified.

    draws: K; first: so many are drawn at first, and no more where they agree: where their executed parts lie, root mean
    square over numbers, within `agree` of their mean (normalised action units; 0: always draw all); aligned: compare equal
    times; least: how many positions of the past must have been executed before plans are compared, on those there are (0: all,
    as published, which a past of many ticks reaches late).
    """

    draws: int = 10
    first: int = 3
    agree: float = 0.0
    aligned: bool = True
    least: int = 0

    def __post_init__(self) -> None:
        if min(self.draws, self.first) < 1 or self.agree < 0 or self.least < 0:
            raise ValueError(f"want draws >= 1, first >= 1, agree >= 0 and least >= 0, got {self}")


def disagreement(predicted: np.ndarray, executed: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Returns the mean squared difference (draws,) of predicted pasts (draws, n_past, action) and the executed one.

    executed: (n_past, action); scale: (action,), which makes actions normalised ones. All positions and numbers count alike.
    """
    return np.asarray(np.square((predicted - executed) * scale).mean(axis=(1, 2)))


class Verified(Streams):
    """A policy whose plans are the best of several draws. Stream 0 is the plain `core.Policy`."""

    def __init__(self, inner: Streams, how: Verification, scale: np.ndarray, streams: int = 1) -> None:
        self.inner, self.spec, self.how = inner, inner.spec, how
        self._scale = np.asarray(scale, np.float32)
        self._executed: list[deque[np.ndarray]] = [deque() for _ in range(streams)]
        self._reach = 0  # how many executed actions the predicted past reaches back, once known
        self._needed = 0  # and how many of them a comparison needs
        self.draws_taken = 0  # by all plans so far, for the cost of early cut-off

    def meet(self, body: Spec) -> None:
        """Tells the inner policy."""
        self.inner.meet(body)

    def tally(self) -> dict[str, int]:
        """Returns what the inner policy counts."""
        return self.inner.tally()

    def reset_stream(self, i: int, seed: int | None) -> None:
        """Begins a new episode in stream i."""
        self._executed[i] = deque()
        self.inner.reset_stream(i, seed)

    def observe_stream(self, i: int, obs: Obs, applied: np.ndarray | None) -> None:
        """Adds one observation, and the action that led to it, to stream i."""
        if applied is not None:
            self._executed[i].append(np.asarray(applied))
            while self._reach and len(self._executed[i]) > self._reach:
                self._executed[i].popleft()
        self.inner.observe_stream(i, obs, applied)

    def plan_streams(self, indices: Sequence[int], ask: Ask = Ask()) -> list[Chunk]:
        """Returns one chunk a stream; `samples` are all draws that were compared, the chosen one first.

        Before as much has been executed as a comparison needs, the plan is the plain one.
        """
        if ask.draws > 1:
            raise BadInput("self-verification chooses among draws of its own and gives no draws to a monitor")
        most = self.how.draws
        first = min(self.how.first, most) if self.how.agree else most
        ready = [i for i in indices if most > 1 and self._needed and len(self._executed[i]) >= self._needed]
        chunks = self._drawn([i for i in indices if i not in ready], ask, 1)
        for chunk in chunks.values():
            self._learn(chunk)
        drawn = self._drawn(ready, ask, first)
        drawn |= self._drawn([i for i in ready if first < most and not self._agree(drawn[i])], ask, most)
        chunks |= {i: self._best(i, chunk) for i, chunk in drawn.items()}
        return [chunks[i] for i in indices]

    def _drawn(self, indices: list[int], ask: Ask, draws: int) -> dict[int, Chunk]:
        self.draws_taken += draws * len(indices)
        return dict(zip(indices, self.inner.plan_streams(indices, replace(ask, draws=draws)), strict=True)) if indices else {}

    def _learn(self, chunk: Chunk) -> None:
        """Notes how far back the predicted past reaches, which the first plan of all tells."""
        if chunk.past is None:
            raise BadInput("self-verification needs a policy that predicts past actions (n_obs_steps or n_past_actions above 1)")
        self._reach = chunk.past_stride * len(chunk.past)
        self._needed = chunk.past_stride * min(self.how.least or len(chunk.past), len(chunk.past))

    def _agree(self, chunk: Chunk) -> bool:
        assert chunk.samples is not None
        run = chunk.samples[:, : self.spec.execute] * self._scale
        return bool(np.sqrt(np.square(run - run.mean(axis=0)).mean()) <= self.how.agree)

    def _best(self, i: int, chunk: Chunk) -> Chunk:
        if chunk.samples is None or chunk.past_samples is None:  # K = 1
            return chunk
        executed = self._past(i, chunk)
        predicted = chunk.past_samples[:, -len(executed) :]
        order = np.argsort(disagreement(predicted, executed, self._scale), kind="stable")
        samples, pasts = chunk.samples[order], chunk.past_samples[order]
        return replace(chunk, actions=samples[0], past=pasts[0], samples=samples, past_samples=pasts)

    def _past(self, i: int, chunk: Chunk) -> np.ndarray:
        """Returns the executed actions (n, action) at the times of the predicted ones, of the newest n that were executed."""
        assert chunk.past is not None
        executed, stride = self._executed[i], chunk.past_stride if self.how.aligned else 1
        n = min(len(chunk.past), len(executed) // chunk.past_stride)
        # executed[-1] moved the body from tick-1 to tick; token j of the past is for tick - stride * (n - j)
        return np.stack([executed[-stride * (n - j)] for j in range(n)])
