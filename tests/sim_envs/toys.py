"""A body and a mind small enough to reason about, for the tests of the vectorised loop. Importable by worker processes."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from robolearn.core import ArraySpec, Ask, Chunk, Obs, Spec, Step

SPEC = Spec(obs={"x": ArraySpec((2,))}, action=ArraySpec((2,)), hz=10.0)


class Walk:
    """A point that must reach 3 + seed % 5 units from its start; how many ticks that takes depends on seed and mind."""

    task = "walk"
    spec = SPEC

    def __init__(self) -> None:
        self.x, self.goal, self.seed, self.ticks = np.zeros(2, np.float32), 0.0, 0, 0

    def versions(self) -> dict[str, str]:
        return {"toy": "1"}

    def reset(self, seed: int | None = None) -> Obs:
        self.seed, self.ticks = int(seed or 0), 0
        self.x = np.random.default_rng(seed).normal(size=2).astype(np.float32)
        self.goal = 3.0 + self.seed % 5
        return {"x": self.x.copy()}

    def step(self, action: np.ndarray) -> Step:
        self.x = (self.x + np.clip(action, -1, 1)).astype(np.float32)
        self.ticks += 1
        far = float(np.abs(self.x).max())
        done = far >= self.goal
        sent = np.clip(action, -1, 1).astype(np.float32)
        return Step({"x": self.x.copy()}, sent, sent, score=min(1.0, far / self.goal), success=done, terminated=done)

    def state(self) -> np.ndarray:
        return np.array([*self.x, self.goal, self.ticks])

    def restore(self, state: np.ndarray) -> Obs:
        self.x, self.goal, self.ticks = state[:2].astype(np.float32), float(state[2]), int(state[3])
        return {"x": self.x.copy()}

    def render(self, camera: str | None = None) -> np.ndarray:
        return np.zeros((16, 16, 3), np.uint8)

    def close(self) -> None:
        pass


class Deadly(Walk):
    """A walk that kills its own process (or raises) in the third tick of one seed, `times` times altogether."""

    def __init__(self, notes: Path, seed: int, times: int, kill: bool = True) -> None:
        super().__init__()
        self.notes, self.deadly_seed, self.times, self.kill = notes, seed, times, kill

    def step(self, action: np.ndarray) -> Step:
        deaths = len(list(self.notes.iterdir()))
        if self.seed == self.deadly_seed and self.ticks == 2 and deaths < self.times:
            (self.notes / str(deaths)).write_text(str(os.getpid()))
            if not self.kill:
                raise FloatingPointError("the simulation is unstable")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


class Hanging(Deadly):
    """A walk that sleeps for ever instead."""

    def __init__(self, notes: Path, seed: int, times: int) -> None:
        super().__init__(notes, seed, times, kill=False)

    def step(self, action: np.ndarray) -> Step:
        import time

        try:
            return super().step(action)
        except FloatingPointError:
            time.sleep(3600)
            raise


class Sleepy(Walk):
    """A walk that needs a minute a tick."""

    def step(self, action: np.ndarray) -> Step:
        import time

        time.sleep(60)
        return super().step(action)


@dataclass
class _Memory:
    seed: int = 0
    tick: int = -1
    past: list[np.ndarray] = field(default_factory=list)
    applied: list[np.ndarray] = field(default_factory=list)


class Wanderer:
    """A deterministic Policy and StreamPolicy: its plans depend on seed, tick, all observations and all applied actions."""

    def __init__(self, streams: int = 1, execute: int = 3, horizon: int = 5) -> None:
        self.spec = replace(SPEC, execute=execute)
        self.horizon = horizon
        self.streams = [_Memory() for _ in range(streams)]
        self.batches: list[int] = []

    def reset_stream(self, i: int, seed: int | None) -> None:
        self.streams[i] = _Memory(int(seed or 0))

    def observe_stream(self, i: int, obs: Obs, applied: np.ndarray | None) -> None:
        memory = self.streams[i]
        memory.past.append(obs["x"])
        memory.applied.append(np.zeros(2) if applied is None else applied)
        memory.tick += 1

    def plan_streams(self, indices: list[int], ask: Ask = Ask()) -> list[Chunk]:
        self.batches.append(len(indices))
        return [self._plan(self.streams[i]) for i in indices]

    def _plan(self, memory: _Memory) -> Chunk:
        noise = np.random.default_rng((memory.seed, memory.tick)).normal(size=(self.horizon, 2))
        drift = np.sign(np.mean(memory.past, axis=0)) + 0.1 * np.sum(memory.applied, axis=0)
        return Chunk((0.4 * drift + 0.8 * noise).astype(np.float32), memory.tick)

    def reset(self, seed: int | None = None) -> None:
        self.reset_stream(0, seed)

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        self.observe_stream(0, obs, applied)

    def plan(self, ask: Ask = Ask()) -> Chunk:
        return self.plan_streams([0], ask)[0]
