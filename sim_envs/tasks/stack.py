"""Put the red cube on the green one and let go (robosuite Stack)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolearn import geometry
from robolearn.core import Policy
from sim_envs._robosuite import Body, RobosuiteEnv, Task, Thing
from sim_envs._script import CLOSED, OPEN, Phase, Script, held_at, over, raised

TASK = Task("stack", "Stack", things=(Thing("cube_a", "body", "cubeA_main"), Thing("cube_b", "body", "cubeB_main")))


@dataclass(frozen=True)
class Config(Body):
    """The Stack body."""

    max_steps: int = 300


def make(config: Config) -> RobosuiteEnv:
    """Returns the Stack body."""
    return RobosuiteEnv(TASK, config)


def expert(env: RobosuiteEnv, rng: np.random.Generator) -> Policy:
    """Returns a script that grasps cube A from above, carries it over cube B, puts it down and lets go."""
    quarter = np.pi / 2
    phases = (
        Phase(over("cube_a", 0.08, quarter), OPEN, near=0.02, sway=0.01),
        Phase(over("cube_a", 0.0, quarter), OPEN, near=0.008, sway=0.002),
        Phase(over("cube_a", 0.0, quarter), CLOSED, near=0.03, ticks=8),
        Phase(held_at("cube_a", lambda env: raised(env, "cube_a", 0.93)), CLOSED, near=0.02),
        Phase(held_at("cube_a", lambda env: _on_top(env, 0.05)), CLOSED, near=0.008, sway=0.002),
        Phase(held_at("cube_a", lambda env: _on_top(env, 0.002)), CLOSED, near=0.005, speed=0.5),
        Phase(held_at("cube_a", lambda env: _on_top(env, 0.002)), OPEN, near=0.05, ticks=5),
        Phase(over("cube_a", 0.12, quarter), OPEN),
    )
    return Script(env, phases, rng)


def _on_top(env: RobosuiteEnv, gap: float) -> np.ndarray:
    """Returns the pose (4, 4) of cube A (4 cm) `gap` [m] above cube B (5 cm), turned as it is."""
    below = env.object_poses()["cube_b"][:3, 3]
    yaw = geometry.yaw_of(env.object_poses()["cube_a"][:3, :3])
    return geometry.pose(below + [0, 0, 0.045 + gap], geometry.rotation_z(yaw))
