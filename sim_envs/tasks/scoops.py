"""Scoops: take exactly as many scoops as a display once said, then go to the done place.

In the cue the display shows k = 1, 2 or 3. After the wait the hand may enter the bowl: a scoop, after which the scene takes it
home and turns the light on again. After k scoops the hand must go to the done place; going there at another count, or one scoop
too many, is wrong. The scoops done so far are hidden too. To enter or to be done is to cross the finish line on that side.

CHANCE: at every go everything observable is the same, for every k and after every scoop, so a policy without memory scoops with
one probability q each time and succeeds with the mean over k of q^k (1 - q) = (q - q^4) / 3, largest at q = 4^(-1/3), where it
is 4^(-4/3) = 0.1575. (One that counts its scoops but has forgotten the display reaches 1/3.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim_envs import _planar
from sim_envs._planar import LEG, Canvas, Point
from sim_envs._planar_expert import Walker

CHANCE = 4 ** (-4 / 3)
N_FACTS = 3  # scoops wanted: 1, 2, 3
BOWL: Point = (-0.6, 0.4)
DONE: Point = (0.6, 0.4)
BOWL_RADIUS, DONE_RADIUS = 0.28, 0.28  # as drawn
PAUSE = 2  # [ticks] at home after a scoop

_BOWL, _RICE, _DONE, _SCREEN, _DOT = (120, 130, 150), (250, 250, 250), (170, 215, 170), (45, 48, 56), (250, 210, 60)


@dataclass(frozen=True)
class Config(_planar.Config):
    """As in every planar memory task."""

    def budget(self) -> int:
        """Returns the ticks of cue, wait, three scoops with their ways home, and the way to the done place."""
        return self.cue_steps + self.longest_wait + N_FACTS * (LEG + _planar.ticks_home(BOWL) + PAUSE) + LEG


class Scoops(_planar.Planar):
    """A bowl, a done place and a display; `now.count` counts the scoops."""

    task = "scoops"
    shows = ("display",)
    kinds = N_FACTS

    def extras(self) -> tuple[float, ...]:
        """Returns what the display says, in thirds of 3; 0 when it is off."""
        return ((self.now.fact + 1) / N_FACTS if self.in_cue else 0.0,)

    def arrived(self) -> None:
        """Counts a scoop and sends the hand home, or judges the end."""
        now, wanted, where = self.now, self.now.fact + 1, self.choice((BOWL, DONE))
        if where == 1:
            self.finish(now.count == wanted)
        elif where == 0:
            now.count += 1
            if now.count > wanted:
                self.finish(False)
            else:
                self.send_home(BOWL, 0, PAUSE)

    def goal(self) -> Point:
        """Returns the bowl until there are enough scoops, then the done place."""
        return BOWL if self.now.count < self.now.fact + 1 else DONE

    def scenery(self, canvas: Canvas, shown: dict[str, float]) -> None:
        """Draws the bowl, the done place and the display with its dots."""
        canvas.disc(*BOWL, BOWL_RADIUS, _BOWL)
        canvas.disc(*BOWL, 0.7 * BOWL_RADIUS, _RICE)
        canvas.disc(*DONE, DONE_RADIUS, _DONE)
        canvas.disc(*DONE, DONE_RADIUS, (80, 140, 80), line=0.02)
        canvas.box(0.0, 0.4, 0.28, _SCREEN, high=0.12)
        for dot in range(round(N_FACTS * shown["display"])):
            canvas.disc(0.17 * (dot - 1), 0.4, 0.06, _DOT)


def make(config: Config) -> Scoops:
    """Returns the body, ready to be reset."""
    return Scoops(config)


def fact(env: Scoops) -> int:
    """Returns the hidden fact: scoops wanted less one, 0, 1 or 2."""
    return int(env.now.fact)


def expert(env: Scoops, rng: np.random.Generator) -> Walker:
    """Returns a scripted expert that knows the fact and the count."""
    return Walker(env, rng)
