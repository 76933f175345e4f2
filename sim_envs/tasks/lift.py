"""Lift a cube four centimetres off the table (robosuite Lift)."""

from __future__ import annotations

from dataclasses import dataclass

from sim_envs._robosuite import Body, RobosuiteEnv, Task, Thing

TASK = Task("lift", "Lift", things=(Thing("cube", "body", "cube_main"),))


@dataclass(frozen=True)
class Config(Body):
    """The Lift body."""

    max_steps: int = 200


def make(config: Config) -> RobosuiteEnv:
    """Returns the Lift body."""
    return RobosuiteEnv(TASK, config)
