"""Square twice: put the nut on the peg, take it off, put it on again, then park; how often it was on is written nowhere.

The idea is that of the long-horizon square task of *Learning Long-Context Diffusion Policies via Past-Token Prediction* (Torne et
al., 2025), on robosuite's NutAssemblySquare. A hidden counter goes

    0 -> 1   the nut is on the peg (robosuite's own test)
    1 -> 2   the nut is off the peg, the hand within 9 cm of LIFT
    2 -> 3   the nut is on the peg again
    3 -> 4   the nut is on the peg, the hand within 3 cm of PARK: success

LIFT and PARK are the published points; their heights go with a table top at 0.82 m, which this robosuite's table has too.
What is added here: at 1 and at 3 the scene holds for `memory_steps` observations; parking at 1 and lifting at 3 end the episode
as failures; and the second hold puts everything, to the bit, into the state in which this episode's first hold began. So
nothing after an insertion tells which one it was.

CHANCE: before the first insertion the nut has never been on the peg, which can be seen. After an insertion everything is the
same both times, so a policy without memory lifts with one probability q and succeeds with q (1 - q), at most 1/4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolearn import geometry
from robolearn.core import Policy
from sim_envs import _memory_arm
from sim_envs._memory_arm import Mark, MemoryArm, Point
from sim_envs._memory_arm_expert import scripted, still, wait_for_go
from sim_envs._robosuite import RobosuiteEnv, Task
from sim_envs._script import CLOSED, OPEN, Phase, Script, Target, held_at, raised
from sim_envs.tasks import square

CHANCE = 1 / 4
N_FACTS = 3  # insertions so far: 0, 1, 2
TABLE = 0.82  # [m], height of its top
LIFT: Point = (0.0, 0.0, TABLE + 0.27)
PARK: Point = (0.0, 0.0, TABLE + 0.07)
NEAR_LIFT, NEAR_PARK = 0.09, 0.03  # [m]
WANTED = 2  # insertions
ACTING = 800  # [ticks]
DOWN = 0.84  # [m], of a nut all the way down the peg

_MARKS = {
    "go": Mark((0.18, 0.0, TABLE + 0.02), 0.02, shape="sphere"),
    "park": Mark((0.0, 0.0, TABLE), NEAR_PARK, rgba=(0.2, 0.4, 0.8, 1.0)),
}
TASK = Task(
    "square_twice",
    _memory_arm.scene("SquareTwice", "NutAssemblySquare", _MARKS),
    things=square.TASK.things,
    view=square.TASK.view,
)


@dataclass(frozen=True)
class Config(_memory_arm.Config):
    """The body of square twice; memory_steps: each of the two holds."""

    memory_steps: int = 16

    def budget(self) -> int:
        """Returns the ticks of two insertions and their holds, lifting and parking."""
        return ACTING + WANTED * self.memory_steps


class SquareTwice(MemoryArm):
    """A nut and a peg; `now.fact` counts insertions, `now.count` is 1 while the nut is out since the last, `kept` the first."""

    def __init__(self, config: Config) -> None:
        super().__init__(TASK, config)
        self.kept = np.zeros(len(self.inner.state()))

    def begin(self, rng: np.random.Generator) -> None:
        """Leaves the things where robosuite placed them."""
        del rng  # there is nothing to draw
        self.kept = np.zeros(len(self.kept))

    def extras(self) -> dict[str, np.ndarray]:
        """Returns nothing: what is counted cannot be seen."""
        return {}

    @property
    def counter(self) -> int:
        """The published counter, 0 to 3."""
        return max(0, 2 * fact(self) - 1 + int(self.now.count))

    def judge(self) -> None:
        """Moves the counter on, or ends the episode."""
        if not self.free:
            return
        on_peg = bool(self.inner.suite.on_peg(self.object_poses()["nut"][:3, 3], 0))
        if self.counter in (0, 2) and on_peg:
            self._inserted()
        elif self.counter in (1, 3) and on_peg and self.hand_is_at(PARK, NEAR_PARK):
            self.finish(self.counter == 3)
        elif self.counter == 1 and not on_peg and self.hand_is_at(LIFT, NEAR_LIFT):
            self.now.count = 1.0
        elif self.counter == 3 and not on_peg and self.hand_is_at(LIFT, NEAR_LIFT):
            self.finish(False)

    def _inserted(self) -> None:
        if self.now.fact == 0:
            self.kept = self.inner.state()
        self.put(self.kept)
        self.now.fact, self.now.count = self.now.fact + 1, 0.0
        self.hold(self.config.memory_steps)


def make(config: Config) -> SquareTwice:
    """Returns the body of square twice."""
    return SquareTwice(config)


def fact(env: SquareTwice) -> int:
    """Returns the hidden fact: how often the nut has been put on the peg, 0, 1 or 2."""
    return int(env.now.fact)


def expert(env: SquareTwice, rng: np.random.Generator) -> Policy:
    """Returns a script that knows the count: it inserts as the expert of `square` does, lifts, inserts again and parks."""
    patience = env.config.max_steps
    once = square.expert(env.inner, rng)
    assert isinstance(once, Script)
    fetch, to_peg, onto_peg = once.phases[:4], once.phases[4], once.phases[5]

    def insert(wanted: int) -> tuple[Phase, ...]:
        down = Phase(held_at("nut", _down), CLOSED, until=lambda _: fact(env) == wanted, speed=0.5, patience=100)
        return to_peg, onto_peg, down, wait_for_go(env, CLOSED)

    phases = (
        *fetch,
        *insert(1),
        Phase(held_at("nut", lambda inner: raised(inner, "nut", 1.02)), CLOSED, near=0.02),
        Phase(_loosely(LIFT), CLOSED, until=lambda _: env.counter == 2, patience=100, sway=0.01),
        *insert(2),
        Phase(still, OPEN, ticks=6),
        Phase(_rising, OPEN, near=0.02, ticks=8, patience=8),
        Phase(_loosely(PARK), OPEN, near=0.0, patience=patience, sway=0.004),
    )
    return scripted(env, phases, rng)


def _rising(env: RobosuiteEnv) -> list[np.ndarray]:
    hand = env.eef_pose()
    return [geometry.pose([*hand[:2, 3], TABLE + 0.2], hand[:3, :3])]


def _loosely(point: Point) -> Target:
    """Returns the target of a hand at `point`, turned as it comes.

    At the peg the Panda is stretched past its straight elbow: a hand that insists on pointing down does not come back from there.
    """
    return lambda env: [geometry.pose(np.array(point), env.eef_pose()[:3, :3])]


def _down(env: RobosuiteEnv) -> np.ndarray:
    """Returns the pose (4, 4) of the nut all the way down the peg, turned to its nearest side."""
    x, y, _ = env.model.body("peg1").pos
    yaw = float(geometry.yaw_of(env.object_poses()["nut"][:3, :3]))
    return geometry.pose([x, y, DOWN], geometry.rotation_z(np.array(np.round(yaw / (np.pi / 2)) * np.pi / 2)))
