"""Hold: keep a button pressed for as long as a lamp was once lit.

In the cue the lamp is lit for d = 8, 16 or 24 ticks. After the wait the hand must go to the button, stay on it for d ticks (3
more or fewer are fine) and leave it; pressing longer is wrong at once. A hand on the button lies at its middle for as long as
the command does not leave the button, so the pose does not say how long it has been pressed.

CHANCE: until it ends, everything observable after the cue is the same for all three facts, which are equally likely. Any time of
pressing fits one of the three at most (5..11, 13..19, 21..27): 1/3, even for a policy with a clock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim_envs import _planar
from sim_envs._planar import HOME, LEG, Canvas, Point
from sim_envs._planar_expert import Walker

CHANCE = 1 / 3
N_FACTS = 3
LIT = (8, 16, 24)  # [ticks]
TOLERANCE = 3  # [ticks]
BUTTON: Point = (0.6, 0.4)
BUTTON_RADIUS = 0.12  # less than the hand moves in a tick: a command beyond it leaves it
LAMP: Point = (-0.6, 0.4)

_PLATE, _BUTTON, _LAMP, _OFF = (190, 190, 195), (204, 60, 50), (255, 214, 40), (110, 110, 110)


@dataclass(frozen=True)
class Config(_planar.Config):
    """As in every planar memory task; the lamp goes on 24 ticks before the end of the cue."""

    cue_steps: int = 28

    @property
    def shortest_cue(self) -> int:
        """The least `cue_steps` [ticks]: the longest light after the hand has come home."""
        return _planar.SLOWEST_CUE + max(LIT)

    def budget(self) -> int:
        """Returns the ticks of cue, wait, one way and the longest press."""
        return self.cue_steps + self.longest_wait + LEG + max(LIT) + TOLERANCE


class Hold(_planar.Planar):
    """A lamp and a button; `now.count` counts the ticks on the button."""

    task = "hold"
    shows = ("lamp",)
    kinds = N_FACTS
    finish_line = False

    def extras(self) -> tuple[float, ...]:
        """Returns whether the lamp is lit."""
        since = self.now.tick - (self.config.cue_steps - max(LIT))
        return (float(0 <= since < LIT[fact(self)]),)

    def arrived(self) -> None:
        """Counts the ticks on the button, and judges when the hand leaves it or stays too long."""
        now, wanted = self.now, LIT[fact(self)]
        if self.on(BUTTON, BUTTON_RADIUS):
            now.x, now.y = BUTTON
            now.count += 1
            if now.count > wanted + TOLERANCE:
                self.finish(False)
        elif now.count:
            self.finish(abs(now.count - wanted) <= TOLERANCE)

    def goal(self) -> Point:
        """Returns the button until it was pressed long enough, then home."""
        return BUTTON if self.now.count < LIT[fact(self)] else HOME

    def scenery(self, canvas: Canvas, shown: dict[str, float]) -> None:
        """Draws lamp and button."""
        canvas.disc(*LAMP, 0.16, _LAMP if shown["lamp"] > 0.5 else _OFF)
        canvas.disc(*LAMP, 0.16, (80, 80, 80), line=0.02)
        canvas.box(*BUTTON, 0.2, _PLATE)
        canvas.disc(*BUTTON, BUTTON_RADIUS, _BUTTON)


def make(config: Config) -> Hold:
    """Returns the body, ready to be reset."""
    return Hold(config)


def fact(env: Hold) -> int:
    """Returns the hidden fact: 0, 1, 2 for a light of 8, 16, 24 ticks."""
    return int(env.now.fact)


def expert(env: Hold, rng: np.random.Generator) -> Walker:
    """Returns a scripted expert that knows the fact and the count."""
    return Walker(env, rng)
