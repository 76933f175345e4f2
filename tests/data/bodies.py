"""Toy bodies and minds for the tests of the recorder: two cameras, clocks of their own, nothing to wait for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from robolearn.core import ArraySpec, Ask, Chunk, Flag, Obs, Spec, Step

SIZE = 48
SPEC = Spec(
    {
        "joints": ArraySpec((3,), unit="rad", names=("a", "b", "c")),
        "front": ArraySpec((SIZE, SIZE, 3), "uint8"),
        "wrist": ArraySpec((SIZE, SIZE, 3), "uint8"),
    },
    ArraySpec((3,), unit="rad"),
    20.0,
)
PERIOD = 50_000_000  # [ns]


@dataclass
class Ticking:
    """A clock that the test sets: 50 ms pass whenever a body steps."""

    monotonic: int = 10**12
    wall: int = 17 * 10**17

    def __call__(self) -> dict[str, int]:
        return {"monotonic": self.monotonic, "wall": self.wall}


@dataclass
class Arm:
    """A body whose joints follow what it is told; stalls: ticks at which the front camera has nothing new."""

    clock: Ticking = field(default_factory=Ticking)
    stalls: range = range(0)
    spec: Spec = SPEC
    k: int = 0

    def reset(self, seed: int | None = None) -> Obs:
        self.k, self.front = 0, 0
        return self.observe()

    def step(self, action: np.ndarray) -> Step:
        self.k += 1
        self.clock.monotonic += PERIOD
        self.clock.wall += PERIOD
        if self.k not in self.stalls:
            self.front = self.k
        now = self.clock.monotonic
        times = {"monotonic": now, "wall": self.clock.wall, "sim": self.k * PERIOD, "dev/wrist": now - 5_000_000}
        times["dev/front"] = now - (self.k - self.front) * PERIOD - 7_000_000
        flags = Flag.ENGAGED | (Flag.FRAME_REPEATED if self.front != self.k else Flag(0))
        return Step(self.observe(), action * 0.5, action * 0.25, times, score=self.k / 100, success=False, flags=int(flags))

    def close(self) -> None:
        pass

    def state(self) -> np.ndarray:
        return np.array([self.k, 2.0 * self.k])

    def observe(self) -> Obs:
        return {"joints": np.full(3, self.k, np.float32), "front": picture(self.front), "wrist": picture(self.k + 100)}


def picture(number: int) -> np.ndarray:
    """Returns a smooth picture (48, 48, 3) that differs from number to number."""
    ground = np.add.outer(np.arange(SIZE), 2 * np.arange(SIZE))[..., None] + np.array([0, 40, 80])
    return (80 + 60 * np.sin((ground + 7 * number) / 25)).astype(np.uint8)


@dataclass
class Mind:
    """Asks for its tick's number; events: what its device says at a tick."""

    spec: Spec = SPEC
    events: dict[int, tuple[str, ...]] = field(default_factory=dict)
    tick: int = 0

    def reset(self, seed: int | None = None) -> None:
        self.tick = 0

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        self.tick += applied is not None

    def plan(self, ask: Ask = Ask()) -> Chunk:
        return Chunk(np.full((1, 3), self.tick, np.float32), self.tick, events=self.events.get(self.tick, ()))
