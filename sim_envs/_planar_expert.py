"""The expert of the planar memory tasks: it knows the fact, waits at home and walks unsteadily, like a person."""

from __future__ import annotations

import math

import numpy as np

from robolearn.core import Ask, Chunk, Obs
from sim_envs._planar import HOME, SPEED, Planar, Point

SWAY, KEEP = 0.025, 0.8  # of the expert's commands: standard deviation, correlation from tick to tick
SLOW, FAST = 0.6, 1.0  # pace of the expert, of SPEED
REACTION = (1, 10)  # [ticks] of the expert after a go, least and most
BOW = 0.24  # how far, at most, the middle point that bends the expert's path lies aside


class Walker:
    """The scripted expert: waits at home and after each go walks a bent path to the task's goal, unsteadily, like a person.

    It is privileged. What it draws for cue and wait does not depend on the fact: with equal seeds it commands the same there.
    """

    def __init__(self, env: Planar, rng: np.random.Generator) -> None:
        self.env, self.spec = env, env.spec.select(("state",))
        self._entropy = int(rng.integers(2**32))
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Starts an episode: draws its pace."""
        self._rng = np.random.default_rng((self._entropy, seed or 0))
        self._pace = SPEED * self._rng.uniform(SLOW, FAST)
        self._sway_x, self._sway_y = (SWAY * self._rng.normal(size=2)).tolist()
        self._tick = -1
        self._aim: Point = HOME
        self._goal: Point | None = None
        self._path: tuple[Point, Point, Point] = (HOME, HOME, HOME)
        self._share, self._length, self._delay = 0.0, 1.0, 0
        self._command: Point = (0.0, 0.0)

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        """Looks at the body (hidden facts too) and moves its aim one tick on."""
        self._tick += 1
        fresh = SWAY * math.sqrt(1 - KEEP**2) * self._rng.normal(size=2)
        self._sway_x, self._sway_y = (KEEP * self._sway_x + float(fresh[0]), KEEP * self._sway_y + float(fresh[1]))
        if self.env.free:
            self._advance()
        else:
            self._aim, self._goal = HOME, None
        hand = (self.env.now.x, self.env.now.y) if self.env.free else HOME
        gap = (self._aim[0] + self._sway_x - hand[0], self._aim[1] + self._sway_y - hand[1])
        scale = max(SPEED, math.hypot(*gap))
        self._command = (gap[0] / scale, gap[1] / scale)

    def plan(self, ask: Ask = Ask()) -> Chunk:
        """Returns the action (1, 2) of this tick."""
        return Chunk(np.array([self._command], np.float32), self._tick)

    def _advance(self) -> None:
        """Moves the aim one tick along the way to the goal."""
        goal = self.env.goal()
        if goal != self._goal:
            self._depart(goal)
        if self._delay > 0:
            self._delay -= 1
            return
        self._share = min(1.0, self._share + self._pace / self._length)
        self._aim = self._on_path(self._share)

    def _depart(self, goal: Point) -> None:
        """Chooses a quadratic Bezier curve from the hand to `goal`; a go is answered after a moment, a new goal at once."""
        low, high = REACTION
        self._delay = int(self._rng.integers(low, high + 1)) if self._goal is None else 0
        start = self._aim = (self.env.now.x, self.env.now.y)
        gap_x, gap_y = goal[0] - start[0], goal[1] - start[1]
        gap = max(math.hypot(gap_x, gap_y), 1e-9)
        aside = float(self._rng.uniform(-BOW, BOW))
        middle = ((start[0] + goal[0]) / 2 - aside * gap_y / gap, (start[1] + goal[1]) / 2 + aside * gap_x / gap)
        self._goal, self._path, self._share = goal, (start, middle, goal), 0.0
        self._length = math.hypot(gap, 2 * aside)  # the curve's largest speed: no tick is longer than the pace

    def _on_path(self, share: float) -> Point:
        a, b, c = (1 - share) ** 2, 2 * share * (1 - share), share**2
        start, middle, goal = self._path
        return a * start[0] + b * middle[0] + c * goal[0], a * start[1] + b * middle[1] + c * goal[1]
