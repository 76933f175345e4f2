"""Lift a cube four centimetres off the table (robosuite Lift)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolearn.core import Policy
from sim_envs._robosuite import Body, RobosuiteEnv, Task, Thing
from sim_envs._script import CLOSED, OPEN, Phase, Script, over

TASK = Task("lift", "Lift", things=(Thing("cube", "body", "cube_main"),))


@dataclass(frozen=True)
class Config(Body):
    """The Lift body."""

    max_steps: int = 200


def make(config: Config) -> RobosuiteEnv:
    """Returns the Lift body."""
    return RobosuiteEnv(TASK, config)


def expert(env: RobosuiteEnv, rng: np.random.Generator) -> Policy:
    """Returns a script that grasps the cube from above and lifts it."""
    quarter = np.pi / 2
    phases = (
        Phase(over("cube", 0.08, quarter), OPEN, near=0.02, sway=0.01),
        Phase(over("cube", 0.0, quarter), OPEN, near=0.008, sway=0.002),
        Phase(over("cube", 0.0, quarter), CLOSED, near=0.03, ticks=8),
        Phase(over("cube", 0.15, quarter), CLOSED),
    )
    return Script(env, phases, rng)
