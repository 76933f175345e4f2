"""A policy with its monitor in vectorised evaluation: every stream is watched as a single rollout would be, none is stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from robolearn.core import Ask, Chunk, Obs
from robolearn.errors import SpecMismatch
from robolearn.monitors._base import Layout
from robolearn.monitors._detector import Detector
from robolearn.monitors._watch import Watch
from robolearn.policies import _driven
from robolearn.policies._streams import Streams
from robolearn.rollout_vector import Record


class Watched(Streams):
    """Plans as the inner policy does (the first of several draws is what it would plan alone) and notes the first alarms."""

    def __init__(self, inner: Any, detector: Detector, group: str, streams: int, who: str) -> None:
        self.inner, self.spec = inner, inner.spec
        self._watches = [Watch(detector, group, who) for _ in range(streams)]
        layout = layout_of(inner)
        self._watches[0].require(layout.action, layout.horizon)
        self._seeds: list[int | None] = [None] * streams
        self.alarms: dict[int | None, int] = {}  # seed -> tick of the first alarm

    def reset_stream(self, i: int, seed: int | None) -> None:
        """Begins a new episode in stream i."""
        self._watches[i].reset()
        self._seeds[i] = seed
        self.alarms.pop(seed, None)
        self.inner.reset_stream(i, seed)

    def observe_stream(self, i: int, obs: Obs, applied: np.ndarray | None) -> None:
        """Passes the observation on."""
        self.inner.observe_stream(i, obs, applied)

    def plan_streams(self, indices: Sequence[int], ask: Ask = Ask()) -> list[Chunk]:
        """Returns the inner policy's plans, after the monitor has looked at them."""
        draws = max([ask.draws, *(self._watches[i].needs.draws for i in indices)])
        chunks = self.inner.plan_streams(indices, replace(ask, draws=draws))
        for i, chunk in zip(indices, chunks, strict=True):
            if self._watches[i].update({}, chunk).alarm:
                self.alarms.setdefault(self._seeds[i], chunk.tick)
        return chunks

    def noted(self, records: Sequence[Record]) -> list[Record]:
        """Returns the records with the tick of the first alarm in their outcomes."""
        return [replace(r, outcome=replace(r.outcome, alarm_step=self.alarms.get(r.outcome.seed))) for r in records]


def layout_of(policy: Any) -> Layout:
    """Returns the layout of a trained policy's plans; SpecMismatch where they are of something that no body is driven with."""
    if policy.spec.codec in _driven.CODECS:
        raise SpecMismatch(
            f"monitor: plans of {policy.spec.codec} are not watched, only those that a body is driven with; "
            "want a policy whose actions are commands, such as flow, diffusion, act"
        )
    config, scale = policy.net.config, policy.normalizer.scale["action"]
    return Layout.of(policy.spec, config.horizon - config.n_past, config.n_past, np.ravel(scale).tolist())
