"""A body that troubles can be caused in, a planner that can be lost, and a clock of our own: for tests of the supervisor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robolearn.core import ArraySpec, Ask, Chunk, Flag, Obs, Outcome, Spec, Step, Tick
from robolearn.errors import HardwareError
from robolearn.rollout import rollout
from robolearn.runtime.align import Align
from robolearn.runtime.consumers._base import make_consumer
from robolearn.runtime.limits import defaults
from robolearn.runtime.parties import Manners
from robolearn.runtime.remote import Local
from robolearn.runtime.schedule import Scheduled
from robolearn.runtime.state import Change, DeadMan, Machine
from robolearn.runtime.supervisor import Supervised

HZ = 20.0
SPEC = Spec({"agent_pos": ArraySpec((2,), names=("x", "y"))}, ArraySpec((2,), names=("x", "y")), HZ, execute=4)
OFF = ("workspace", "collision", "effort", "temperature")
LIMITS = defaults(("x", "y"), (-2.0, -2.0), (2.0, 2.0), (1.0, 1.0), share=1.0, without=OFF)


class Gone(HardwareError):
    """A trouble of the kind that a test wants."""

    def __init__(self, message: str, trouble: str, kind: str = "") -> None:
        super().__init__(message)
        self.trouble, self.kind = trouble, kind


@dataclass
class World:
    """The clock [ns] of everything in a test; wall_ns may jump."""

    now: int = 10**12
    wall: int = 0

    def ns(self) -> int:
        return self.now

    def s(self) -> float:
        return self.now * 1e-9

    def wall_ns(self) -> int:
        return self.now + self.wall

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


@dataclass
class Point:
    """A body of two joints that goes where it is told. raises: what calls raise; extra_s: how much longer the next tick takes."""

    world: World
    spec: Spec = SPEC
    q: np.ndarray = field(default_factory=lambda: np.zeros(2, np.float32))
    age_s: float = 0.0
    late: tuple[str, ...] = ()
    raises: Exception | None = None
    extra_s: float = 0.0
    stands: bool = False  # as an arm whose driver holds by itself
    sent: list[np.ndarray] = field(default_factory=list)  # one row a tick: where it was told to be
    calls: list[str] = field(default_factory=list)

    def reset(self, seed: int | None = None) -> Obs:
        del seed
        self.q = np.zeros(2, np.float32)
        return {"agent_pos": self.q.copy()}

    def step(self, action: np.ndarray) -> Step:
        return self._tick("step", action)

    def still(self) -> Step:
        return self._tick("still", self.q)

    def toward(self, q: np.ndarray) -> Step:
        return self._tick("toward", q)

    def where(self) -> np.ndarray:
        return self.q.astype(float)

    def target(self, action: np.ndarray) -> np.ndarray:
        return np.asarray(action, float)

    def close(self) -> None:
        self.calls.append("close")

    def _tick(self, call: str, q: np.ndarray) -> Step:
        if self.raises is not None:
            self.calls.append("raise")
            raise self.raises
        self.world.sleep(1.0 / HZ + self.extra_s)
        self.extra_s = 0.0
        self.calls.append(call)
        self.q = self.q if self.stands else np.asarray(q, np.float32).copy()
        self.sent.append(self.q)
        flags = (Flag.STALE if self.late else Flag(0)) | (Flag.HELD if self.stands else Flag(0))
        return Step({"agent_pos": self.q.copy()}, self.q.copy(), self.q.copy(), {"monotonic": self.world.now}, flags=int(flags))


@dataclass
class Walker:
    """A policy that walks along x; its plans can be made wrong (`broken`), and begin farther on (`begin`)."""

    spec: Spec = SPEC
    horizon: int = 8
    speed: float = 0.02
    broken: bool = False
    tick: int = -1
    x: float = 0.0
    y: float = 0.0
    begin: float = 0.0

    def reset(self, seed: int | None = None) -> None:
        del seed
        self.tick = -1

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        del applied
        self.tick, (self.x, self.y) = self.tick + 1, map(float, obs["agent_pos"])

    def plan(self, ask: Ask = Ask()) -> Chunk:
        del ask
        actions = np.full((self.horizon, 2), self.y, np.float32)
        actions[:, 0] = self.begin + self.x + self.speed * np.arange(1, self.horizon + 1)
        if self.broken:
            actions[3] = np.nan
        return Chunk(actions, self.tick)


@dataclass
class Mending:
    """A recovery that takes so many ticks and then does its work, unless it was asked to end before."""

    work: Callable[[], object]
    ticks: int = 0
    stopped: bool = False

    def ended(self) -> bool:
        if self.stopped:
            raise HardwareError("ended before it was done")
        self.ticks -= 1
        if self.ticks < 0:
            self.work()
        return self.ticks < 0

    def stop(self) -> None:
        self.stopped = True


class Trip:
    """One supervised episode on a clock of its own. `at`: tick -> what to do then; `modes`: one a tick; `changes`: all.

    recover: the work of a recovery, which takes `mending` ticks.
    """

    def __init__(
        self,
        at: dict[int, Any] | None = None,
        *,
        manners: Manners = Manners(attended=True),
        deadman: DeadMan | None = None,
        consumer: str = "replace",
        delay_s: float = 0.0,
        person: Any = None,
        recover: Callable[[], object] | None = None,
        mending: int = 0,
        revive: Any = None,
        begin: float = 0.0,
    ) -> None:
        self.world, self.at = World(), at or {}
        self.body, self.policy = Point(self.world), Walker(begin=begin)
        self.delay_s, self.words = delay_s, deque[str]()
        self.changes, self.modes, self.ticks = list[Change](), list[str](), list[Tick]()
        self.machine = Machine(self.changes.append)
        self.planner = Local(self.policy, lambda: self.delay_s, self.world.s)
        self.mind = Scheduled(self.planner, make_consumer(consumer, {}, SPEC), SPEC, self.world.s)
        self.deadman, self.recovered, self.mending, self.recover = deadman, 0, mending, recover or self._recover
        self.env = Supervised(
            self.body, self.mind, self.machine, lambda q, to: Align(LIMITS, 1.0 / HZ, q, to), manners, deadman, self.hear,
            person or (lambda: False), lambda: Mending(self.recover, self.mending), revive or (lambda: False),
            self.world.ns, self.world.wall_ns, self.world.sleep,
        )  # fmt: skip

    def _recover(self) -> None:
        self.recovered += 1

    def hear(self) -> list[str]:
        """Does what is due in this tick, and returns what the operator says."""
        do = self.at.get(len(self.modes))
        if do is not None:
            do(self)
        words = list(self.words)
        self.words.clear()
        return words

    def run(self, ticks: int = 60, **more: Any) -> Outcome:
        """Runs the episode."""
        return rollout(self.env, self.mind, max_steps=ticks, sinks=[self, self.env], **more)

    def begin(self, spec: Spec, meta: Any) -> None:
        """Begins to note modes."""

    def record(self, tick: Tick) -> None:
        """Notes the mode of the tick."""
        self.modes.append(str(self.machine.mode))
        self.ticks.append(tick)

    def stream(self, name: str, t_ns: int, array: np.ndarray) -> None:
        """Ignores streams."""

    def end(self, outcome: Outcome) -> None:
        """Ignores the end."""

    def said(self, trigger: str) -> list[Change]:
        """Returns the changes that an event made."""
        return [change for change in self.changes if change.event == trigger]

    def path(self) -> list[str]:
        """Returns the modes in the order they came, each once."""
        return [mode for k, mode in enumerate(self.modes) if k == 0 or self.modes[k - 1] != mode]
