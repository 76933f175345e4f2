"""A hand that follows a function of time: no hardware, the same samples at every run; no person, so it drives simulations only.

make(Config(motion="circle", hz=60.0))                                # by name
Scripted("pose", lambda t_s: (TeleopSample(0, 0, pose=...),), 60.0)   # any function of time
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hardware._base import Kind
from robolearn.core import TeleopSample
from robolearn.errors import ConfigError, nearest

Motion = Callable[[float], Sequence[TeleopSample]]
CATCH_UP_S = 0.5  # after a stall longer than this, what is older is gone


@dataclass(frozen=True)
class Config:
    """Which motion."""

    motion: str = "circle"
    """circle (in the y-z plane), line (along x), still."""
    size_m: float = 0.05
    """Radius of the circle, amplitude of the line [m]."""
    period_s: float = 4.0
    """Time of one round [s]; the gripper closes for its second half."""
    hz: float = 60.0
    """Samples a second."""
    arms: int = 1
    """Hands that move, 1 or 2; the left one mirrors the right one."""

    def __post_init__(self) -> None:
        if self.motion not in MOTIONS:
            raise ConfigError(f"scripted motion: unknown '{self.motion}'{nearest(self.motion, MOTIONS)}")
        if self.hz <= 0 or self.period_s <= 0:
            raise ConfigError(f"scripted: want hz and period_s above 0, got {self.hz:g} and {self.period_s:g}")
        if self.arms not in (1, 2):
            raise ConfigError(f"scripted arms: want 1 or 2, got {self.arms}")


def _circle(phase: float) -> tuple[float, float, float]:
    return 0.0, np.sin(phase), 1.0 - np.cos(phase)


def _line(phase: float) -> tuple[float, float, float]:
    return np.sin(phase), 0.0, 0.0


def _still(phase: float) -> tuple[float, float, float]:
    del phase
    return 0.0, 0.0, 0.0


MOTIONS = {"circle": _circle, "line": _line, "still": _still}


def motion(config: Config) -> Motion:
    """Returns the hands of `config` as a function of time [s], each from the identity on, without a dead-man."""

    def at(t_s: float) -> Sequence[TeleopSample]:
        phase = 2.0 * np.pi * t_s / config.period_s
        hands = []
        for arm in range(config.arms):
            pose = np.eye(4)
            pose[:3, 3] = config.size_m * np.array(MOTIONS[config.motion](phase)) * (1.0, 1.0 if arm == 0 else -1.0, 1.0)
            grip = float(phase % (2.0 * np.pi) >= np.pi)
            hands.append(TeleopSample(0, 0, arm, pose=pose, grip=grip))
        return hands

    return at


@dataclass
class Scripted:
    """The device: gives the samples that are due since `connect`, stamped with the time they were due."""

    kind: Kind
    at: Motion
    hz: float
    clock: Callable[[], float] = time.monotonic
    arms: int = 1
    deadman: bool = False
    _start_s: float | None = field(default=None, init=False)
    _next: int = field(default=0, init=False)

    def connect(self) -> None:
        """Starts the motion now."""
        self._start_s, self._next = self.clock(), 0

    def read(self) -> Sequence[TeleopSample]:
        """Returns the samples due since the last call, oldest first; after a stall the last half second."""
        if self._start_s is None:
            return ()
        now_s = self.clock()
        due = int(np.floor((now_s - self._start_s) * self.hz + 1e-9)) + 1
        samples = []
        for k in range(max(self._next, due - int(np.ceil(CATCH_UP_S * self.hz))), due):
            t_ns = round((self._start_s + k / self.hz) * 1e9)
            samples += [replace(hand, t_dev_ns=t_ns, t_recv_ns=round(now_s * 1e9)) for hand in self.at(k / self.hz)]
        self._next = max(self._next, due)
        return samples

    def close(self) -> None:
        """Stops the motion."""
        self._start_s = None


def make(config: Config) -> Scripted:
    """Returns the motion in real time."""
    return Scripted("pose", motion(config), config.hz, arms=config.arms)


@dataclass
class Feed:
    """A clock that `play` moves on."""

    period_s: float
    now_s: float = 1.0

    def play(self) -> None:
        """Lets one period of the samples pass."""
        self.now_s += self.period_s


def fake(config: Config) -> tuple[Scripted, Feed]:
    """Returns the device on a clock that `Feed.play` moves on."""
    feed = Feed(1.0 / config.hz)
    return Scripted("pose", motion(config), config.hz, lambda: feed.now_s, config.arms), feed
