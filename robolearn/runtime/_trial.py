"""Trials of a consumer on a simulated clock: random chunks, some broken, late or lost, under a loop that skips and stutters.

`trial(consumer, seed)` returns which promises were broken; a test asks for some hundred, a bench for ten thousand.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from robolearn.core import ArraySpec, Ask, Chunk, Obs, Spec
from robolearn.runtime._seam import Seam
from robolearn.runtime._table import Rules
from robolearn.runtime.consumers._base import make_consumer
from robolearn.runtime.remote import Local, Planned, Request
from robolearn.runtime.schedule import EARLY, UNDERRUN, Scheduled, Statistics

HZ, SPEED = 10.0, 1.0  # [1/s]; targets may move a tenth in a slot
SPEC = Spec(
    {"agent_pos": ArraySpec((2,), "float64", names=("x", "y"))},
    ArraySpec((3,), "float64", names=("x", "y", "gripper")),
    HZ,
    execute=4,
)


@dataclass(frozen=True)
class Trial:
    """The outcome of one trial: the promises that were broken (none, if all is well), and the statistics of its last episode."""

    broken: tuple[str, ...]
    statistics: Statistics


@dataclass
class Wanderer:
    """A policy whose chunks wander from where the body is; some jump, some are too fast, some hold NaN or have another shape."""

    rng: np.random.Generator
    horizon: int = 8
    broken: float = 0.05
    step: float = 0.07
    jump: float = 0.02
    spec: Spec = SPEC
    tick: int = -1
    here: np.ndarray = field(default_factory=lambda: np.zeros(2))
    drawn: tuple[int, np.ndarray] = (-1, np.zeros(0))

    def reset(self, seed: int | None = None) -> None:
        """Starts an episode."""
        del seed  # Unused: the generator goes on.
        self.tick, self.drawn = -1, (-1, np.zeros(0))

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        """Takes note of where the body is."""
        self.tick, self.here = self.tick + 1, obs["agent_pos"]

    def plan(self, ask: Ask = Ask()) -> Chunk:
        """Returns the tick's chunk, which begins with what the ask fixes."""
        if self.drawn[0] != self.tick:
            self.drawn = (self.tick, self._draw())
        actions = self.drawn[1].copy()
        if ask.prefix is not None and actions.shape == ask.prefix.shape:
            actions[: ask.prefix_fixed] = ask.prefix[: ask.prefix_fixed]
        return Chunk(actions, self.tick)

    def _draw(self) -> np.ndarray:
        steps = self.rng.uniform(-self.step, self.step, (self.horizon, 2))
        steps[0] += self.rng.normal(0.0, self.jump, 2)
        grip = self.rng.choice([-1.0, 1.0], (self.horizon, 1))
        actions = np.concatenate([self.here + steps.cumsum(axis=0), grip], axis=1)
        kind = self.rng.random() / max(self.broken, 1e-9)
        if kind < 0.4:
            actions[self.rng.integers(self.horizon), self.rng.integers(3)] = self.rng.choice([np.nan, np.inf])
        elif kind < 0.6:
            actions = actions[:, :2]
        elif kind < 0.8:
            actions[self.rng.integers(self.horizon)] += 1.0
        elif kind < 1.0:
            actions = actions[:0]
        return actions


@dataclass
class Lossy:
    """A planner that loses plans, each with a chance of `share`."""

    inner: Local
    rng: np.random.Generator
    share: float

    def __post_init__(self) -> None:
        self.spec = self.inner.spec
        self.reset, self.observe, self.close = self.inner.reset, self.inner.observe, self.inner.close
        self.poll: Callable[[], list[Planned]] = self.inner.poll

    def submit(self, ask: Ask, request: Request) -> None:
        """Hands the request on, or loses it."""
        if self.rng.random() >= self.share:
            self.inner.submit(ask, request)


def trial(consumer: str, seed: int, ticks: int = 40) -> Trial:
    """Returns what became of `ticks` ticks with one consumer; everything random in them follows from consumer and seed."""
    rng = np.random.default_rng([seed, zlib.crc32(consumer.encode())])
    time = [0.0]
    longest = int(rng.choice([0, 1, 3, 8]))
    wanderer = Wanderer(rng, int(rng.integers(2, 17)), float(rng.choice([0.0, 0.15])))
    local = Local(wanderer, lambda: float(rng.uniform(0, longest + 0.4)) / HZ, lambda: time[0])
    seam = Seam((SPEED, SPEED, np.inf), (40.0, 40.0, np.inf) if rng.random() < 0.3 else (), int(rng.integers(0, 6)))
    rules = Rules(0.0, float(rng.choice([0.0, 0.1])), int(rng.integers(0, 3)), float(rng.choice([0.5, 2.0])), seam)
    planner = Lossy(local, rng, float(rng.choice([0.0, 0.2])))
    mind = Scheduled(planner, make_consumer(consumer, {}, SPEC), SPEC, lambda: time[0], rules)
    watch = _Watch(mind)
    watch.begin()
    for _ in range(ticks):
        watch.tick()
        chance = rng.random()
        periods = 1.0 + float(rng.uniform(-0.2, 0.2)) + (int(rng.integers(1, 4)) if chance < 0.05 else 0)
        time[0] += (0.0 if chance > 0.97 else periods) / HZ
        if chance < 0.01:
            watch.begin()
        elif chance < 0.03:
            mind.flush()
    return Trial(tuple(watch.broken), mind.statistics())


class _Watch:
    """Drives one mind and notes which promises it breaks."""

    def __init__(self, mind: Scheduled) -> None:
        self.mind, self.broken, self._here = mind, list[str](), np.zeros(3)

    def begin(self) -> None:
        """Begins an episode where the body is."""
        self.mind.reset(0)
        self._slot, self._chunk, self._firsts = -1, -1, dict[int, int]()
        self._last: np.ndarray | None = None

    def tick(self) -> None:
        """Lets the mind act once."""
        self.mind.observe({"agent_pos": self._here[:2].copy()}, None if self._last is None else self._last.copy())
        chunk, again = self.mind.plan(), self.mind.plan()
        action, held = chunk.actions[0], self.mind.current
        self._firsts |= {new.id: new.first for new, offer in self.mind.news if offer.accepted}
        self._say("planning twice gives two answers", np.array_equal(action, again.actions[0]) and chunk.events == again.events)
        self._say("the action is not finite", action.shape == (3,) and bool(np.isfinite(action).all()))
        if held is None:
            stays = np.append(self._here[:2], 0.0) if self._last is None else self._last
            self._say("it moves without a plan", np.array_equal(action, stays))
            self._say("it stays and does not say why", UNDERRUN in chunk.events or EARLY in chunk.events)
        else:
            self._say("a slot comes twice, or time goes back", held.slot > self._slot)
            self._say("it goes back to an older chunk", held.chunk >= self._chunk)
            in_place = self.mind.consumer.waits or held.slot - held.index == self._firsts.get(held.chunk)
            self._say("an action is not in its slot", in_place)
            self._slot, self._chunk = held.slot, held.chunk
        if self._last is not None:
            self._say("too fast", bool((np.abs(action - self._last)[:2] * HZ <= SPEED * (1 + 1e-6)).all()))
        self._last = self._here = action

    def _say(self, wrong: str, holds: bool) -> None:
        if not holds:
            self.broken.append(wrong)
