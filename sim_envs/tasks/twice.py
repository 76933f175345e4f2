"""Twice: put the peg into the hole twice, then park; how often it has been in is written nowhere.

The idea is that of the long-horizon square task of *Learning Long-Context Diffusion Policies via Past-Token Prediction* (Torne
et al., 2025). There is no cue: the hand starts below home with the light on. At each of two entries the scene keeps the peg in
the hole for `cue_steps` ticks, takes the hand home and holds it for the wait; then the light goes on. After the second the hand
must park. Parking earlier, or a third entry, is wrong. To enter or to park is to cross the finish line on that side.

CHANCE: the start can be told from the rest (the hand is not at home), so the first entry is free. After the first and after the
second entry everything observable is the same, so a policy without memory enters again with one probability q both times and
succeeds with q (1 - q), at most 1/4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim_envs import _planar
from sim_envs._planar import LEG, Canvas, Point
from sim_envs._planar_expert import Walker

CHANCE = 1 / 4
N_FACTS = 3  # entries so far: 0 (before the first), 1, 2
HOLE: Point = (-0.6, 0.4)
PARK: Point = (0.6, 0.4)
HOLE_RADIUS, PARK_RADIUS = 0.26, 0.28  # as drawn
WANTED = 2  # entries

_PEG, _PLATE, _DEPTH, _BAY = (230, 190, 70), (170, 165, 160), (50, 50, 55), (150, 190, 225)


@dataclass(frozen=True)
class Config(_planar.Config):
    """As in every planar memory task; cue_steps: how long the peg stays in the hole, memory_steps: each of the two waits."""

    def budget(self) -> int:
        """Returns the ticks of three ways and two times hole, way home and wait."""
        return (WANTED + 1) * LEG + WANTED * (self.cue_steps + _planar.ticks_home(HOLE) + self.longest_wait)


class Twice(_planar.Planar):
    """A hole and a parking place; `now.fact` counts the entries."""

    task = "twice"
    starts_free = True

    def extras(self) -> tuple[float, ...]:
        """Returns nothing: hand and light are all there is to see."""
        return ()

    def arrived(self) -> None:
        """Counts an entry and sends the hand home, or judges the parking."""
        now, where = self.now, self.choice((HOLE, PARK))
        if where == 1:
            self.finish(now.fact == WANTED)
        elif where == 0:
            jitter = now.next_jitter if now.fact else now.jitter
            now.fact += 1
            if now.fact > WANTED:
                self.finish(False)
            else:
                self.send_home(HOLE, self.config.cue_steps, self.config.memory_steps + int(jitter))

    def goal(self) -> Point:
        """Returns the hole until it has been entered twice, then the parking place."""
        return HOLE if fact(self) < WANTED else PARK

    def scenery(self, canvas: Canvas, shown: dict[str, float]) -> None:
        """Draws the hole, the parking place and the peg in the hand."""
        canvas.box(*HOLE, 0.32, _PLATE)
        canvas.disc(*HOLE, HOLE_RADIUS, _DEPTH)
        canvas.disc(*PARK, PARK_RADIUS, _BAY)
        canvas.disc(*PARK, PARK_RADIUS, (70, 110, 150), line=0.02)
        canvas.box(shown["hand_x"], shown["hand_y"], 0.12, _PEG)


def make(config: Config) -> Twice:
    """Returns the body, ready to be reset."""
    return Twice(config)


def fact(env: Twice) -> int:
    """Returns the hidden fact: how often the peg has been in the hole, 0, 1 or 2."""
    return min(int(env.now.fact), WANTED)


def expert(env: Twice, rng: np.random.Generator) -> Walker:
    """Returns a scripted expert that knows the count."""
    return Walker(env, rng)
