"""What a failure predictor sees and gives: plans of an episode in, one score a plan out. numpy only.

One agreement: `trace(plans) -> scores (T,)`, a pure function of the plans seen so far, so that a score computed live is the
score computed afterwards. Thresholds, windows and combinations are not a score's business: they are in `_detector.py`.
A plug-in file holds a `Config` (frozen dataclass with its `name`) and a `Predictor(Score)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from robolearn.core import Needs, Spec
from robolearn.errors import BadInput, SpecMismatch

POSITIONS = (("x", "y", "z"), ("dx", "dy", "dz"))  # action names of an end effector's position, and of its displacement
EMPTY = 1e-6  # added to every score before windows are summed, as published (a threshold of zero would alarm at rounding)


@dataclass(frozen=True)
class Plans:
    """What a policy planned over an episode, or its end; T plans.

    ticks: (T,) int, when each was made; features: (T, feature), the policy's own embedding of the observation; samples:
    (T, draws, horizon, action) in body units, the first draw is the one executed; past_samples: (T, draws, n_past, action),
    the past as each draw predicts it (n_past 0: the policy predicts none); executed: (T, n_past, action), what was executed
    at those positions, NaN where the episode had not begun.
    """

    ticks: np.ndarray
    features: np.ndarray
    samples: np.ndarray
    past_samples: np.ndarray
    executed: np.ndarray

    def __len__(self) -> int:
        return len(self.ticks)

    def __getitem__(self, which: slice) -> Plans:
        """Returns some of the plans."""
        return Plans(*(getattr(self, name)[which] for name in ARRAYS))

    def with_draws(self, draws: int) -> Plans:
        """Returns the plans with the first `draws` samples of each."""
        return replace(self, samples=self.samples[:, :draws], past_samples=self.past_samples[:, :draws])

    @staticmethod
    def join(parts: Sequence[Plans]) -> Plans:
        """Returns all plans of several episodes as one run of plans."""
        return Plans(*(np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS))


ARRAYS = ("ticks", "features", "samples", "past_samples", "executed")


@dataclass(frozen=True)
class Episode:
    """One finished episode as a monitor sees it.

    steps: its length in ticks; group: whatever thresholds are kept apart for (a task's name); kind: what was disturbed
    ("" nothing); score: the task's own, 0 to 1.
    """

    plans: Plans
    success: bool
    steps: int
    seed: int = 0
    group: str = ""
    kind: str = ""
    score: float = 0.0

    def __len__(self) -> int:
        return len(self.plans)

    def with_draws(self, draws: int) -> Episode:
        """Returns the episode as it would have been seen with fewer draws."""
        if draws > self.plans.samples.shape[1]:
            raise BadInput(f"episode {self.seed}: holds {self.plans.samples.shape[1]} draws a plan, want {draws}")
        return replace(self, plans=self.plans.with_draws(draws))


@dataclass(frozen=True)
class Layout:
    """What a policy gives, as far as a score must know it: names of its action's numbers, its chunk, its rate.

    action: names (action,) of the last axis of samples; horizon, execute: ticks of a chunk, and how many are executed;
    n_past: positions of the past each draw predicts; hz: ticks a second; scale: (action,) that normalises an action.
    """

    action: tuple[str, ...]
    horizon: int
    execute: int
    n_past: int = 0
    hz: float = 10.0
    scale: tuple[float, ...] = ()

    @staticmethod
    def of(spec: Spec, horizon: int, n_past: int = 0, scale: Sequence[float] = ()) -> Layout:
        """Returns the layout of a policy with this spec; actions of several axes are flattened."""
        width = int(np.prod(spec.action.shape))
        names = spec.action.names or tuple(f"a{i}" for i in range(width))
        return Layout(tuple(names), horizon, spec.execute, n_past, spec.hz, tuple(float(s) for s in scale))

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Layout:
        """Returns the layout that `vars` wrote."""
        plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return Layout(**plain)

    def positions(self, who: str) -> tuple[list[int], bool]:
        """Returns which numbers of an action are an end effector's position, and whether they are displacements.

        SpecMismatch where the policy commands no position (joint angles need a codec that this policy does not bring).
        """
        for names, moving in zip(POSITIONS, (False, True), strict=True):
            found = [i for i, name in enumerate(self.action) if name.rpartition(".")[2].split("_")[0] in names]
            if found:
                return found, moving
        raise SpecMismatch(f"{who}: needs end-effector positions, got actions named {', '.join(self.action)}")


def positions_of(samples: np.ndarray, layout: Layout, who: str) -> np.ndarray:
    """Returns end-effector positions (..., horizon, 2 or 3) of samples (..., horizon, action); displacements are summed."""
    columns, moving = layout.positions(who)
    chosen = samples[..., columns].astype(np.float64)
    return chosen.cumsum(axis=-2) if moving else chosen


def scale_of(layout: Layout, who: str) -> np.ndarray:
    """Returns what an action (action,) is multiplied with to be normalised; ones where the layout does not say.

    SpecMismatch where the layout names another number of action numbers than it scales.
    """
    if layout.scale and len(layout.scale) != len(layout.action):
        raise SpecMismatch(
            f"{who}: scale: want one number for each of {len(layout.action)} of an action, got {len(layout.scale)}"
        )
    return np.asarray(layout.scale or np.ones(len(layout.action)), np.float64)


class Score(ABC):
    """A failure score: higher is more suspicious. Fitted once, then `trace` is pure.

    reach: how many earlier plans the score of a plan looks at (0: none; -1: all). supervised: it wants failures to fit to.
    """

    reach: int = 0
    supervised: bool = False

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What a policy must give: draws, features, names of action numbers."""

    @abstractmethod
    def fit(self, episodes: Sequence[Episode], rng: np.random.Generator) -> None:
        """Learns from episodes of the fit split (successes only, unless `supervised`)."""

    @abstractmethod
    def trace(self, plans: Plans) -> np.ndarray:
        """Returns one finite score a plan (T,), each from the plans up to it."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Returns what was fitted, for the monitor's folder."""

    @abstractmethod
    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back what `arrays` gave."""


@dataclass(frozen=True)
class ScoreConfig:
    """Fields that every score's config has."""

    name: str = ""


@dataclass
class Tail:
    """The newest plans of a running episode, as many as a score looks back; grows one plan at a time."""

    reach: int
    plans: list[Plans] = field(default_factory=list)

    def add(self, plan: Plans) -> Plans:
        """Returns what a score must see to score the newest plan."""
        self.plans.append(plan)
        if self.reach >= 0:
            del self.plans[: -(self.reach + 1)]
        return Plans.join(self.plans)


def checked(plans: Plans, who: str, draws: int = 1, features: int = 0) -> Plans:
    """Returns `plans` if a score can be made of them; BadInput names what is missing or not finite."""
    got = plans.samples.shape[1]
    if got < draws:
        raise BadInput(f"{who}: needs {draws} draws a plan, got {got}")
    if features and plans.features.shape[1] != features:
        raise BadInput(f"{who}: was fitted to embeddings of {features} numbers, got {plans.features.shape[1]}")
    for name in ("features", "samples"):
        if not np.isfinite(getattr(plans, name)).all():
            raise BadInput(f"{who}: {name} hold NaN or infinity")
    return plans
