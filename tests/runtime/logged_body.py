"""A body with a clock of its own and a mind that says what it sees, for runs that are logged."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from robolearn.core import ArraySpec, Ask, Chunk, Flag, Obs, Spec, Step
from robolearn.runtime import _segments as seg
from robolearn.runtime.state import Facts, Machine

S, PERIOD_NS = 1_000_000_000, 20_000_000
OBS = {"q": ArraySpec((3,)), "cam": ArraySpec((16, 24, 3), "uint8")}
SPEC = Spec(OBS, ArraySpec((2,)), 50.0)
HOW = {"flush_s": 0.25, "box_s": 30.0, "box_mib": 1, "quality": 95}


class Body:
    """A body with a clock of its own, which stands for the machine's; the camera has a new picture every other tick."""

    spec = SPEC

    def __init__(self) -> None:
        self.now, self.tick = S, 0
        self.machine: Machine | None = None

    def clock(self) -> dict[str, int]:
        return {"monotonic": self.now, "wall": self.now + 5 * S}

    def obs(self) -> Obs:
        shade = np.full((16, 24, 3), 10 * (self.tick // 2), np.uint8)
        return {"q": np.full(3, self.tick, np.float32), "cam": shade}

    def reset(self, seed: int | None = None) -> Obs:
        self.tick, self.began = 0, self.now
        return self.obs()

    def step(self, action: np.ndarray) -> Step:
        self.now, self.tick = self.now + PERIOD_NS, self.tick + 1
        if self.machine is not None and self.tick == 7:
            self.machine.react("servo_lost", "cable", self.now)
        if self.machine is not None and self.tick == 9:
            self.machine.clear("servo_lost", "back", self.now)
            self.machine.on("recover", "operator", self.now, Facts(operator=True, schedule_empty=True))
        stamps = {"monotonic": self.now, "dev/cam": self.began + (self.tick // 2) * 2 * PERIOD_NS}
        flags = Flag.INTERVENTION if self.tick in (3, 4) else 0
        return Step(self.obs(), action, np.append(action, 0.0), stamps, flags=int(flags), success=self.tick == 12)

    def close(self) -> None:
        """Nothing to close."""


class Mind:
    """Plans four actions at a time: the tick it was asked at, and minus that."""

    spec = Spec(OBS, ArraySpec((2,)), 50.0, execute=4)

    def reset(self, seed: int | None = None) -> None:
        self.tick = -1

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        self.tick += 1

    def plan(self, ask: Ask = Ask()) -> Chunk:
        return Chunk(np.array([[self.tick, -self.tick]] * 4, np.float32), self.tick, events=("engage",))


def message(kind: int, body: bytes = b"", stream: int = 0, t_ns: int = 0) -> bytes:
    return seg.MESSAGE.pack(kind, stream, t_ns, t_ns + 1) + body


def eventually(done: Callable[[], bool], what: str) -> None:
    """Waits for what other processes need some time for."""
    for _ in range(2000):
        if done():
            return
        time.sleep(0.01)
    pytest.fail(f"never came: {what}")
