"""Shell: touch the cup under which a ball was shown, long after all three cups look alike again.

The shell game without the shuffling. In the cue a ball is visible at one of three cups; after the wait the cup
nearest to where the hand crosses the finish line decides.

CHANCE: at the go every observation is the same for all three facts, which are equally likely, and one crossing decides: 1/3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim_envs import _planar
from sim_envs._planar import LEG, Canvas, Point
from sim_envs._planar_expert import Walker

CHANCE = 1 / 3
N_FACTS = 3  # left, middle, right
CUPS: tuple[Point, ...] = ((-0.6, 0.4), (0.0, 0.4), (0.6, 0.4))
CUP_RADIUS = 0.26  # as drawn

_CUP, _RIM, _BALL = (222, 170, 90), (150, 105, 40), (204, 40, 40)


@dataclass(frozen=True)
class Config(_planar.Config):
    """As in every planar memory task."""

    def budget(self) -> int:
        """Returns the ticks of cue, wait and one way."""
        return self.cue_steps + self.longest_wait + LEG


class Shell(_planar.Planar):
    """Three cups, and for a while a ball."""

    task = "shell"
    shows = ("ball_left", "ball_middle", "ball_right")
    kinds = N_FACTS

    def extras(self) -> tuple[float, ...]:
        """Returns for each cup whether the ball is seen there."""
        return tuple(float(self.in_cue and cup == self.now.fact) for cup in range(len(CUPS)))

    def arrived(self) -> None:
        """Ends where the hand crosses the line."""
        cup = self.choice(CUPS)
        if cup is not None:
            self.finish(cup == self.now.fact)

    def goal(self) -> Point:
        """Returns the cup with the ball."""
        return CUPS[fact(self)]

    def scenery(self, canvas: Canvas, shown: dict[str, float]) -> None:
        """Draws the cups and the ball on the one where it is seen."""
        for place, name in zip(CUPS, self.shows, strict=True):
            canvas.disc(*place, CUP_RADIUS, _CUP)
            canvas.disc(*place, CUP_RADIUS, _RIM, line=0.03)
            if shown[name] > 0.5:
                canvas.disc(*place, 0.09, _BALL)


def make(config: Config) -> Shell:
    """Returns the body, ready to be reset."""
    return Shell(config)


def fact(env: Shell) -> int:
    """Returns the hidden fact: 0 the left, 1 the middle, 2 the right cup."""
    return int(env.now.fact)


def expert(env: Shell, rng: np.random.Generator) -> Walker:
    """Returns a scripted expert that knows the fact."""
    return Walker(env, rng)
