"""Rollouts as monitors see them, on disk: NAME.zarr, one row a plan, one episode a rollout; survives a crash in the middle.

An `EpisodeSet` like every other one: `action` is the chunk that was executed from, the rest are the keys of `Plans`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.core import ArraySpec, Spec
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError
from robolearn.monitors._base import Episode, Layout, Plans

KIND = "plans"
FACTS = ("success", "steps", "seed", "group", "kind", "score")


class Evidence:
    """A set of finished rollouts, open for reading or appending. attrs: what made them (weights, task, draws, layout)."""

    def __init__(self, inner: EpisodeSet) -> None:
        if inner.attrs.get("holds") != KIND:
            raise DatasetError(f"{inner.path}: holds no rollouts of a policy with their plans; make some with: monitor collect")
        self.inner, self.attrs = inner, inner.attrs
        self.layout = Layout.from_json(inner.attrs["layout"])

    @staticmethod
    def open(path: str | Path, writable: bool = False) -> Evidence:
        """Returns the rollouts in a folder; DatasetError where there are none."""
        return Evidence(EpisodeSet.open(path, writable))

    @staticmethod
    def create(path: Path, first: Plans, layout: Layout, facts: Mapping[str, Any], overwrite: bool = False) -> Evidence:
        """Returns a new, empty set for rollouts shaped like `first`; facts: attributes that say what made them."""
        samples = first.samples.shape[1:]
        extra = {
            "tick": ArraySpec((1,), "int32"),
            "features": ArraySpec(first.features.shape[1:]),
            "samples": ArraySpec(samples, names=layout.action),
        }
        if layout.n_past:
            extra["past_samples"] = ArraySpec(first.past_samples.shape[1:], names=layout.action)
            extra["executed"] = ArraySpec(first.executed.shape[1:], names=layout.action)
            extra["known"] = ArraySpec((1,), "int32")  # so many of the newest positions had been executed
        spec = Spec({}, ArraySpec(samples[1:], names=layout.action), layout.hz / layout.execute)
        meta = {"holds": KIND, "layout": {**vars(layout)}, **facts}
        inner = EpisodeSet.create(path, spec, task="", env={}, extra=extra, meta=meta, overwrite=overwrite)
        return Evidence(inner)

    def append(self, episode: Episode) -> None:
        """Adds one rollout; all of it or, after a crash, none."""
        plans = episode.plans
        rows = {
            "tick": plans.ticks[:, None].astype(np.int32),
            "features": plans.features,
            "samples": plans.samples,
            "action": plans.samples[:, 0],
        }
        if self.layout.n_past:
            known = np.isfinite(plans.executed).all(axis=2).sum(axis=1)
            rows["past_samples"] = plans.past_samples
            rows["executed"], rows["known"] = np.nan_to_num(plans.executed), known[:, None].astype(np.int32)
        self.inner.append(rows, **{name: getattr(episode, name) for name in FACTS})

    def seeds(self) -> list[int]:
        """Returns the seeds of the rollouts there are."""
        found = self.inner.episode_field("seed")
        return [] if found is None else [int(seed) for seed in found]

    def read(self, indices: Sequence[int] | None = None) -> list[Episode]:
        """Returns the rollouts (all, or these), in the order of their seeds where all are read."""
        whole = {key: self.inner.read(key) for key in self.inner.keys if key != "action"}
        facts = {name: self.inner.episode_field(name) for name in FACTS}
        chosen = range(self.inner.n_episodes) if indices is None else indices
        episodes = [self._episode(i, whole, facts) for i in chosen]
        return sorted(episodes, key=lambda episode: episode.seed) if indices is None else episodes

    def _episode(self, i: int, whole: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Episode:
        rows = slice(*self.inner.span(i))
        samples = whole["samples"][rows]
        if self.layout.n_past:
            past, executed = whole["past_samples"][rows], whole["executed"][rows].copy()
            late = np.arange(self.layout.n_past) < self.layout.n_past - whole["known"][rows]
            executed[late] = np.nan
        else:
            past = np.zeros((len(samples), samples.shape[1], 0, samples.shape[3]), np.float32)
            executed = np.zeros((len(samples), 0, samples.shape[3]), np.float32)
        plans = Plans(whole["tick"][rows, 0], whole["features"][rows], samples, past, executed)
        say = {name: values[i] for name, values in facts.items()}
        return Episode(
            plans,
            success=bool(say["success"]),
            steps=int(say["steps"]),
            seed=int(say["seed"]),
            group=str(say["group"]),
            kind=str(say["kind"]),
            score=float(say["score"]),
        )
