"""A gamepad through SDL (pygame), without a window: sticks are speeds, the right shoulder button is the dead-man.

left stick     forward, back, left, right       RB held   dead-man: nothing moves without it
right stick    up, down, turn about z           RT        closes the gripper as far as it is pressed
with LB held   right stick: pitch and roll      Y A X     success, failure, redo;  start   start or stop
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hardware._base import Kind
from robolearn.core import TeleopSample
from robolearn.errors import ConfigError, HardwareError, MissingDependency, nearest


@dataclass(frozen=True)
class Layout:
    """Which number SDL gives to what: axes left x, left y, right x, right y, right trigger; then buttons."""

    axes: tuple[int, int, int, int, int]
    shoulder_left: int
    shoulder_right: int
    events: tuple[tuple[int, str], ...]


LAYOUTS = {
    "xbox": Layout((0, 1, 3, 4, 5), 4, 5, ((3, "success"), (0, "failure"), (2, "redo"), (7, "start"))),
    "playstation": Layout((0, 1, 2, 3, 5), 9, 10, ((3, "success"), (0, "failure"), (2, "redo"), (6, "start"))),
}
"""As pygame's joystick page lists them; Y is the upper button, A the lower, X the left one."""


@dataclass(frozen=True)
class Config:
    """Which gamepad."""

    layout: str = "xbox"
    """xbox or playstation: how its axes and buttons are numbered."""
    index: int = 0
    """Which one, where several are plugged in."""
    deadman: bool = True
    """False: sticks move without the shoulder button, and it drives simulations only."""

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ConfigError(f"gamepad layout: unknown '{self.layout}'{nearest(self.layout, LAYOUTS)}")


class Pad:
    """SDL's events of one gamepad, from pygame with no display."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._joystick: Any = None
        self._pygame: Any = None

    def open(self) -> None:
        """Opens the gamepad; HardwareError where there is none with this index."""
        pygame = self.start()
        count = pygame.joystick.get_count()
        if self._index >= count:
            self.close()
            raise HardwareError(f"gamepad: want number {self._index}, {count} plugged in; plug one in, or name another index")
        self._joystick = pygame.joystick.Joystick(self._index)

    def start(self) -> Any:
        """Returns pygame with its event queue running: no window, no sound, events without focus."""
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS", "1")
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        try:
            import pygame
        except ImportError:
            raise MissingDependency("pygame", "the gamepad", "pip install 'robolearn[gamepad]'") from None
        pygame.display.init()
        pygame.joystick.init()
        self._pygame = pygame
        return pygame

    def events(self) -> list[tuple[str, int, float]]:
        """Returns ("axis", number, value), ("down", button, 1), ("up", button, 0) and ("gone", 0, 0), oldest first."""
        pygame = self._pygame
        mine = None if self._joystick is None else self._joystick.get_instance_id()
        out: list[tuple[str, int, float]] = []
        for event in pygame.event.get():
            if mine is not None and getattr(event, "instance_id", mine) != mine:
                continue
            if event.type == pygame.JOYAXISMOTION:
                out.append(("axis", event.axis, float(event.value)))
            elif event.type == pygame.JOYBUTTONDOWN:
                out.append(("down", event.button, 1.0))
            elif event.type == pygame.JOYBUTTONUP:
                out.append(("up", event.button, 0.0))
            elif event.type == pygame.JOYDEVICEREMOVED:
                out.append(("gone", 0, 0.0))
        return out

    def close(self) -> None:
        """Lets go of the gamepad and of SDL."""
        if self._pygame is not None:
            self._pygame.joystick.quit()
            self._pygame.display.quit()
        self._joystick, self._pygame = None, None


@dataclass
class Gamepad:
    """The driver: `pad` has open, events and close."""

    config: Config
    pad: Any
    clock: Callable[[], float] = time.monotonic
    kind: Kind = "delta"
    arms: int = 1
    _axes: dict[int, float] = field(default_factory=dict, init=False)
    _held: set[int] = field(default_factory=set, init=False)
    _open: bool = field(default=False, init=False)
    _said: bool = field(default=True, init=False)  # that it is at rest

    def __post_init__(self) -> None:
        self.deadman, self._layout = self.config.deadman, LAYOUTS[self.config.layout]

    def connect(self) -> None:
        """Opens the gamepad; HardwareError where there is none."""
        if not self._open:
            self._axes, self._held, self._said = {}, set(), True
            self.pad.open()
            self._open = True

    def read(self) -> Sequence[TeleopSample]:
        """Returns one sample of the present state when it changed or while something is held; HardwareError once unplugged."""
        if not self._open:
            return ()
        pressed, changed = self._take(self.pad.events())
        delta = self._delta()
        held = self._layout.shoulder_right in self._held if self.deadman else None
        active = bool(np.abs(delta).max() > 0.0) or bool(held)
        if not (changed or active or not self._said):
            return ()
        self._said = not active
        t_ns = round(self.clock() * 1e9)
        trigger = self._axes.get(self._layout.axes[4])  # rests at -1, but SDL says nothing of it before it is touched
        grip = None if trigger is None else float(np.clip((trigger + 1.0) / 2.0, 0.0, 1.0))
        return (TeleopSample(t_ns, t_ns, delta=delta, deadman=held, grip=grip, events=pressed),)

    def close(self) -> None:
        """Lets go of the gamepad."""
        if self._open:
            self._open = False
            self.pad.close()

    def _take(self, events: Iterable[tuple[str, int, float]]) -> tuple[tuple[str, ...], bool]:
        meaning, pressed, changed = dict(self._layout.events), [], False
        for what, number, value in events:
            changed = True
            if what == "axis":
                self._axes[number] = value
            elif what == "down":
                self._held.add(number)
                pressed += [meaning[number]] if number in meaning else []
            elif what == "up":
                self._held.discard(number)
            else:
                self.close()
                raise HardwareError("gamepad: it is gone; plug it in and connect again")
        return tuple(pressed), changed

    def _delta(self) -> np.ndarray:
        left_x, left_y, right_x, right_y = (
            float(np.clip(self._axes.get(axis, 0.0), -1.0, 1.0)) for axis in self._layout.axes[:4]
        )
        if self._layout.shoulder_left in self._held:
            return np.array([-left_y, -left_x, 0.0, right_x, -right_y, 0.0]) + 0.0
        return np.array([-left_y, -left_x, -right_y, 0.0, 0.0, -right_x]) + 0.0


def make(config: Config) -> Gamepad:
    """Returns the gamepad with number `config.index`."""
    return Gamepad(config, Pad(config.index))


@dataclass
class Feed:
    """A gamepad that `play` moves."""

    layout: Layout
    now_s: float = 1.0
    queue: list[tuple[str, int, float]] = field(default_factory=list)
    _k: int = 0

    def open(self) -> None:
        """Is there."""

    def close(self) -> None:
        """Has nothing to let go of."""

    def events(self) -> list[tuple[str, int, float]]:
        """Returns what happened since the last call."""
        taken, self.queue = self.queue, []
        return taken

    def play(self) -> None:
        """Holds the dead-man, pushes the left stick a little more and, every fourth time, says success."""
        self.now_s, self._k = self.now_s + 0.02, self._k + 1
        self.queue += [("down", self.layout.shoulder_right, 1.0), ("axis", self.layout.axes[1], -0.1 * (self._k % 9 + 1))]
        if self._k % 4 == 0:
            self.queue += [("down", self.layout.events[0][0], 1.0), ("up", self.layout.events[0][0], 0.0)]


def fake(config: Config) -> tuple[Gamepad, Feed]:
    """Returns the driver on a gamepad that `Feed.play` moves."""
    feed = Feed(LAYOUTS[config.layout])
    return Gamepad(config, feed, lambda: feed.now_s), feed
