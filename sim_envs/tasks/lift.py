"""Lift a cube four centimetres off the table (robosuite Lift)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolearn import geometry
from robolearn.core import Policy
from sim_envs._robosuite import Body, RobosuiteEnv, Task, Thing
from sim_envs._script import CLOSED, OPEN, Phase, Script, Target, nearest_yaw, pointing_down

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
    phases = (
        Phase(_over(0.08), OPEN, near=0.02, sway=0.01),
        Phase(_over(0.0), OPEN, near=0.008, sway=0.002),
        Phase(_over(0.0), CLOSED, near=0.03, ticks=8),
        Phase(_over(0.15), CLOSED),
    )
    return Script(env, phases, rng)


def _over(height: float) -> Target:
    def target(env: RobosuiteEnv) -> list[np.ndarray]:
        cube = env.object_poses()["cube"]
        yaw = nearest_yaw(float(geometry.yaw_of(cube[:3, :3])), np.pi / 2)
        return [geometry.pose(cube[:3, 3] + [0, 0, height], pointing_down(yaw))]

    return target
