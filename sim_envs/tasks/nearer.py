"""Nearer: put the cube back on the pad that it lay nearer to, long after it has left its place.

The idea is that of the ALOHA task of *Learning Long-Context Diffusion Policies via Past-Token Prediction* (Torne et al., 2025).
In the cue a cube lies between a left and a right pad, somewhere in the near part of one half; in the last ticks of the cue the
scene carries it to the hand at home. After the wait the hand must take it to the pad that was nearer; the pad on whose side it
crosses the finish line decides.

CHANCE: at the go every observation is the same for both facts, which are equally likely, and one crossing decides: 1/2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim_envs import _planar
from sim_envs._planar import HOME, LEG, Canvas, Point
from sim_envs._planar_expert import Walker

CHANCE = 1 / 2
N_FACTS = 2  # left, right
PADS: tuple[Point, Point] = ((-0.7, 0.5), (0.7, 0.5))
PAD_RADIUS = 0.28  # as drawn
CARRY = 4  # [ticks] at the end of the cue in which the cube goes to the hand
NEAR, FAR = 0.15, 0.5  # of the cube's place from the middle, along the line between the pads
ACROSS = 0.2  # of the cube's place from that line, at most

_PAD, _LINE, _CUBE = (214, 220, 228), (205, 205, 200), (204, 60, 50)


@dataclass(frozen=True)
class Config(_planar.Config):
    """As in every planar memory task."""

    def budget(self) -> int:
        """Returns the ticks of cue, wait and one way."""
        return self.cue_steps + self.longest_wait + LEG


class Nearer(_planar.Planar):
    """Two pads and a cube."""

    task = "nearer"
    shows = ("cube_x", "cube_y")
    kinds = N_FACTS

    def extras(self) -> tuple[float, ...]:
        """Returns the cube's x, y: at its place, on the way to the hand, then with the hand."""
        now = self.now
        if not self.in_cue:
            return now.x, now.y
        x, y = self._place()
        share = max(0.0, now.tick - (self.config.cue_steps - CARRY)) / CARRY
        return x + share * (HOME[0] - x), y + share * (HOME[1] - y)

    def arrived(self) -> None:
        """Ends where the hand crosses the line."""
        side = self.choice(PADS)
        if side is not None:
            self.finish(side == self.now.fact)

    def goal(self) -> Point:
        """Returns the pad that was nearer."""
        return PADS[fact(self)]

    def scenery(self, canvas: Canvas, shown: dict[str, float]) -> None:
        """Draws the pads, the line between them and the cube."""
        canvas.box(0.0, PADS[0][1], PADS[1][0], _LINE, high=0.01)
        for pad in PADS:
            canvas.disc(*pad, PAD_RADIUS, _PAD)
            canvas.disc(*pad, PAD_RADIUS, (110, 120, 135), line=0.02)
        canvas.box(shown["cube_x"], shown["cube_y"], 0.13, _CUBE)

    def _place(self) -> Point:
        """Returns where the cube lies at first; the same draw, mirrored, for the other fact."""
        now = self.now
        x = NEAR + (FAR - NEAR) * now.place_x
        return (x if now.fact else -x), PADS[0][1] + ACROSS * (2 * now.place_y - 1)


def make(config: Config) -> Nearer:
    """Returns the body, ready to be reset."""
    return Nearer(config)


def fact(env: Nearer) -> int:
    """Returns the hidden fact: 0 the left pad was nearer, 1 the right one."""
    return int(env.now.fact)


def expert(env: Nearer, rng: np.random.Generator) -> Walker:
    """Returns a scripted expert that knows the fact."""
    return Walker(env, rng)
