"""Disturbances: a body that is an ordinary one until, in some episodes, a sensor, a motor or the world misbehaves.

What is drawn (whether, which kind, when, in which direction) follows from the seed of an episode alone, through a generator of
its own: the same seed gives the same start and the same disturbance. Strength 0 is the bare body, bit for bit.
Effects on actions lie behind the driver, as a worn joint or a slow bus does: `Step.filtered` holds what the driver passed on,
which is what a policy remembers, `Step.sent` what became of it. `state`, `restore` and `render` are the bare body's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from robolearn.core import Env, Obs, SimEnv, Step
from robolearn.errors import BadInput, UnknownName
from sim_envs import _base
from sim_envs._perturb_kinds import KINDS, Body, Effect, Rng, Spread

_DRAW = 0xD157  # keeps these draws apart from all others that take the same seed
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
_PART = re.compile(rf"(?P<kind>\w+)(=(?P<strength>{_NUMBER}))?(@(?P<at>{_NUMBER}))?:(?P<share>{_NUMBER})")


@dataclass(frozen=True)
class Disturbance:
    """What may happen to an episode: kind and strength as in KINDS; share: of the episodes that meet it, 0 to 1.

    at: the latest beginning [s]; it is drawn uniformly from 0 to `at` (mass and friction hold from the reset on).
    """

    kind: str = "none"
    strength: float = 0.0
    share: float = 1.0
    at: float = 2.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownName("disturbance", self.kind, KINDS)
        kind, strength = KINDS[self.kind], self.strength
        if not kind.low <= strength <= kind.high or (kind.unit.startswith("whole") and strength % 1):
            raise BadInput(f"{self.kind}: want as strength {kind.unit}, got {strength:g}")
        if not (0 <= self.share <= 1 and 0 <= self.at < math.inf):
            raise BadInput(f"{self.kind}: want a share from 0 to 1 and at >= 0 s, got {self.share:g} and {self.at:g}")

    def __str__(self) -> str:
        strength, at, share = (repr(float(value)).removesuffix(".0") for value in (self.strength, self.at, self.share))
        return f"{self.kind}={strength}@{at}:{share}"


@dataclass(frozen=True)
class Mixture:
    """Several disturbances, of which each episode meets at most one, drawn by their shares; where these end, nothing happens."""

    parts: tuple[Disturbance, ...] = ()

    def __post_init__(self) -> None:
        if (total := math.fsum(part.share for part in self.parts)) > 1 + 1e-9:
            raise BadInput(f"mixture: want shares of at most 1 together, got {total:g}")

    def __str__(self) -> str:
        return ",".join(map(str, self.parts))

    def draw(self, seed: int, hz: float) -> tuple[Disturbance, int | None, Rng]:
        """Returns what the episode of `seed` meets, the tick at which it begins (None: never), and the generator of the rest."""
        rng = np.random.default_rng((_DRAW, seed))
        which, share = rng.random(2).tolist()
        reached = np.cumsum([part.share for part in self.parts])
        met = (*self.parts, Disturbance())[int(np.searchsorted(reached, which, side="right"))]
        begins = 0 if KINDS[met.kind].from_reset else int(share * met.at * hz)
        return met, begins if met.strength else None, rng

    def happened(self, seed: int, steps: int, hz: float) -> str:
        """Returns what `Perturbed.happened` says after an episode that ended by itself in `steps` ticks, without a body."""
        met, begins, _ = self.draw(seed, hz)
        return met.kind if begins is not None and begins < steps else ""


def parse(text: str) -> Mixture:
    """Returns the mixture written as KIND=STRENGTH@AT:SHARE,... with shares that are 1 together; "@AT" may be left out.

    Such as "none:0.5,delay=2:0.25,noise=0.3@1.5:0.25". BadInput names the part that does not fit.
    """
    parts = []
    for written in map(str.strip, text.split(",")):
        if (found := _PART.fullmatch(written)) is None:
            raise BadInput(f"mixture: want KIND=STRENGTH:SHARE such as delay=2:0.25, got '{written}'")
        facts = {key: float(value) for key, value in found.groupdict().items() if key != "kind" and value}
        parts.append(Disturbance(found["kind"], **facts))
    if abs((total := math.fsum(part.share for part in parts)) - 1) > 1e-9:
        raise BadInput(f"mixture: want shares that are 1 together, got {total:g} in '{text}'; name the rest as none:SHARE")
    return Mixture(tuple(parts))


class Perturbed:
    """A body with a disturbance; what else the bare body has (`config`, poses for a scripted expert, ...) is looked up there.

    drawn: what the running episode meets; happened: its kind from its beginning on, "" before. Raises SpecMismatch at once
    where a kind wants what the body lacks. spread: see `noise`. After a `restore` the disturbance goes on as it was.
    """

    def __init__(self, inner: Env, disturbance: Disturbance | Mixture, spread: Spread | None = None) -> None:
        self.inner, self.spec = inner, inner.spec
        self.mixture = disturbance if isinstance(disturbance, Mixture) else Mixture((disturbance,))
        self._body, self._effect, self.happened, self.drawn = Body(inner, spread), Effect(), "", Disturbance()
        for part in self.mixture.parts:
            if part.strength:
                KINDS[part.kind].effect(self._body, part.strength, np.random.default_rng(0))  # refuses what cannot be
        vars(self).update({a: getattr(inner, a) for a in ("state", "restore", "render", "versions") if hasattr(inner, a)})

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self).get("inner"), name)  # a copy that is being made has none yet

    def reset(self, seed: int | None = None) -> Obs:
        """Returns the first observation of the episode of `seed` (None: fresh entropy, for the disturbance too)."""
        self._effect.end()
        entropy = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self.drawn, self._begins, rng = self.mixture.draw(entropy, self.spec.hz)
        kind = KINDS[self.drawn.kind if self._begins is not None else "none"]
        self._effect, self.happened, self._tick, self._lag = kind.effect(self._body, self.drawn.strength, rng), "", 0, 0
        self._told: np.ndarray | None = None
        self._shown: Obs | None = None
        return self._show(self.inner.reset(seed), over=False)

    def step(self, action: np.ndarray) -> Step:
        """Runs one tick of the body with what the disturbance leaves of `action`; shows what it leaves of the outcome."""
        asked = np.asarray(action)
        told = self._effect.act(asked, self._told).astype(asked.dtype, copy=False) if self.happened else asked
        step = self.inner.step(told)
        self._told, self._tick = told, self._tick + 1
        if self.happened:
            self._effect.settle()
            step = self._as_told(step, asked, told)
        obs = self._show(step.obs, over := step.terminated or step.truncated)
        if over:
            self._effect.end()
        return step if obs is step.obs else replace(step, obs=obs)

    def close(self) -> None:
        """Undoes what was done to the body and closes it."""
        self._effect.end()
        self.inner.close()

    def _show(self, obs: Obs, over: bool) -> Obs:
        if self._tick == self._begins and not over:
            self.happened, self._lag = self.drawn.kind, self._tick if self._effect.rewinds else 0
            self._effect.begin()
        if self.happened and self._begins is not None:
            obs = self._effect.see(obs, self._shown, self._tick - self._begins)
        self._shown = obs
        return obs

    def _as_told(self, step: Step, asked: np.ndarray, told: np.ndarray) -> Step:
        if told is not asked and np.array_equal(step.filtered, told.astype(step.filtered.dtype)):  # no limit changed it
            step = replace(step, filtered=asked.astype(step.filtered.dtype))
        if self._lag:
            sim = step.t_ns["sim"] + round(self._lag * 1e9 / self.spec.hz)
            late = self._tick >= self.config.max_steps and not step.terminated
            step = replace(step, t_ns={**step.t_ns, "sim": sim}, truncated=step.truncated or late)
        return step


def make(task: str, env: Mapping[str, Any], mixture: Disturbance | Mixture, spread: Spread | None = None) -> SimEnv:
    """Returns the body of a task (`env`: overrides of its Config) under a mixture of disturbances: a `Perturbed`."""
    return cast(SimEnv, Perturbed(_base.make(task, env), mixture, spread))
