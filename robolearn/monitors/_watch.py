"""A fitted detector at work: a `core.Monitor` that scores each new plan as it comes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from robolearn.core import Chunk, Needs, Obs, Verdict
from robolearn.errors import BadInput, SpecMismatch
from robolearn.monitors._base import Tail
from robolearn.monitors._book import Book
from robolearn.monitors._detector import Detector
from robolearn.monitors._recipe import needs_of


class Watch:
    """Watches one episode at a time; `raw` keeps every score's trace so far, for plots.

    group: whose threshold counts (a task's name); "": that of all. Between plans the last verdict stands.
    """

    def __init__(self, detector: Detector, group: str = "", who: str = "monitor") -> None:
        self.detector, self.group, self.who = detector, group, who
        self._all = needs_of(detector.scores)
        self.reset()

    @property
    def needs(self) -> Needs:
        """What the next plan must bring: many draws only where it will be scored."""
        scored = self._plans % self.detector.recipe.every == 0
        return self._all if scored else replace(self._all, draws=1)

    def require(self, action_names: tuple[str, ...], horizon: int) -> None:
        """Raises SpecMismatch unless the policy plans as the one did that this monitor was calibrated on."""
        layout = self.detector.layout
        if (action_names, horizon) != (layout.action, layout.horizon):
            want = f"{layout.horizon} ticks of {', '.join(layout.action)}"
            raise SpecMismatch(f"{self.who}: calibrated on plans of {want}, got {horizon} ticks of {', '.join(action_names)}")

    def reset(self) -> None:
        """Begins an episode."""
        self._book, self._plans, self._tick = Book(self.who), 0, -1
        self._tails = {name: Tail(score.reach) for name, score in self.detector.scores.items()}
        self.raw: dict[str, list[float]] = {name: [] for name in self.detector.scores}
        self._verdict = Verdict(-math.inf, self.detector.threshold(self.group), False)

    def update(self, obs: Obs, chunk: Chunk) -> Verdict:
        """Returns the verdict on the newest plan; BadInput where it lacks what a score needs."""
        del obs  # Unused: what the policy makes of it is in the chunk.
        if chunk.tick == self._tick:
            return self._verdict
        self._tick = chunk.tick
        plan = self._book.add(chunk)
        scored = self._plans % self.detector.recipe.every == 0
        self._plans += 1
        if scored:
            got = plan.samples.shape[1]
            if got < self._all.draws:
                raise BadInput(f"{self.who}: calibrated on {self._all.draws} draws a plan, got {got}")
            plan = plan.with_draws(self._all.draws)  # another monitor may have asked for more
            for name, score in self.detector.scores.items():
                self.raw[name].append(float(score.trace(self._tails[name].add(plan))[-1]))
            combined = self.detector.combine({name: np.array(trace) for name, trace in self.raw.items()})
            threshold = self.detector.threshold(self.group)
            over = int((combined > threshold).sum())
            self._verdict = Verdict(float(combined[-1]), threshold, over > self.detector.recipe.patience)
        return self._verdict
