"""A plain terminal's keyboard, also over SSH. It has no dead-man switch, so it drives simulations only.

    arrows    forward, back, left, right      space     open or close the gripper
    w, s      up, down                        1, 2, 3   slow, middle, fast
    a, d      turn left, right about z        tab       the other arm, where there are two
    i, k      pitch                           enter y f r backspace u q   the recording (see `record`)
    j, l      roll

A terminal tells of presses, not of releases: a press is a deflection of 150 ms, and a key held down repeats itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hardware._base import Kind
from hardware.devices._tty import SESSION_KEYS, Keys
from robolearn.core import TeleopSample

MOTIONS = {
    "up": (0, 1.0), "down": (0, -1.0), "left": (1, 1.0), "right": (1, -1.0), "w": (2, 1.0), "s": (2, -1.0),
    "l": (3, 1.0), "j": (3, -1.0), "i": (4, -1.0), "k": (4, 1.0), "a": (5, 1.0), "d": (5, -1.0),
}  # fmt: skip
SPEEDS = {"1": 0.3, "2": 0.6, "3": 1.0}


@dataclass(frozen=True)
class Config:
    """How the keyboard drives."""

    arms: int = 1
    """How many arms it drives, one at a time."""
    speed: float = 0.6
    """Share of the full speed at the start (keys 1, 2, 3: 0.3, 0.6, 1)."""
    hold_s: float = 0.15
    """How long a press lasts [s]."""


@dataclass
class Keyboard:
    """The driver: `source` gives the names of the keys pressed since the last call."""

    config: Config
    source: Callable[[], Iterable[str]] | None = None
    clock: Callable[[], float] = time.monotonic
    kind: Kind = "delta"
    deadman: bool = False
    _terminal: Keys | None = None
    _pressed: dict[int, tuple[float, float]] = field(default_factory=dict)  # axis -> (deflection, until [s])
    _arm: int = 0
    _moved: set[int] = field(default_factory=set)  # arms whose last sample was a deflection

    def __post_init__(self) -> None:
        self.arms, self._speed = self.config.arms, self.config.speed

    def connect(self) -> None:
        """Takes the terminal; HardwareError where standard input is none."""
        if self.source is None:
            self._terminal = Keys()
            self._terminal.__enter__()
            self.source = self._terminal.read

    def read(self) -> Sequence[TeleopSample]:
        """Returns one sample of the arm in hand while a key lasts, one more when it ends, and what else was pressed."""
        now_s = self.clock()
        events: list[str] = []
        moved_before = set(self._moved)
        for key in self.source() if self.source is not None else ():
            if key in MOTIONS:
                axis, sign = MOTIONS[key]
                self._pressed[axis] = (sign, now_s + self.config.hold_s)
            elif key in SPEEDS:
                self._speed = SPEEDS[key]
            elif key == "space":
                events.append("toggle_grip")
            elif key == "tab":
                self._arm = (self._arm + 1) % self.arms
                self._pressed.clear()
            elif key in SESSION_KEYS:
                events.append(SESSION_KEYS[key])
        self._pressed = {axis: (sign, until) for axis, (sign, until) in self._pressed.items() if until > now_s}
        delta = np.zeros(6)
        for axis, (sign, _) in self._pressed.items():
            delta[axis] = sign * self._speed
        samples = [self._sample(arm, np.zeros(6), (), now_s) for arm in sorted(moved_before - {self._arm})]
        if delta.any() or events or self._arm in moved_before:
            samples.append(self._sample(self._arm, delta, tuple(events), now_s))
        self._moved = {self._arm} if delta.any() else set()
        return samples

    def close(self) -> None:
        """Puts the terminal back as it was."""
        if self._terminal is not None:
            self._terminal.__exit__()
            self._terminal, self.source = None, None

    def _sample(self, arm: int, delta: np.ndarray, events: tuple[str, ...], now_s: float) -> TeleopSample:
        t_ns = round(now_s * 1e9)
        return TeleopSample(t_ns, t_ns, arm, delta=delta, events=events)


def make(config: Config) -> Keyboard:
    """Returns the keyboard of this terminal."""
    return Keyboard(config)


@dataclass
class Feed:
    """Presses keys on a keyboard that is none."""

    keys: list[str] = field(default_factory=list)
    now_s: float = 1.0

    def play(self) -> None:
        """Presses a few keys, one a call, half a hold apart."""
        script = ("up", "left", "space", "w", "y", "a")
        self.keys.append(script[round(self.now_s / 0.07) % len(script)])
        self.now_s += 0.07

    def take(self) -> list[str]:
        """Returns what was pressed since the last call."""
        taken, self.keys = self.keys, []
        return taken


def fake(config: Config) -> tuple[Keyboard, Feed]:
    """Returns the driver on keys that `Feed.play` presses."""
    feed = Feed()
    return Keyboard(config, source=feed.take, clock=lambda: feed.now_s), feed
