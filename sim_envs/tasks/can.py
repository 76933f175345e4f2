"""Move a can from its bin into its compartment of the other bin (robosuite PickPlaceCan)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolearn import geometry
from robolearn.core import Policy
from sim_envs._mujoco import View
from sim_envs._robosuite import Body, RobosuiteEnv, Task, Thing
from sim_envs._script import CLOSED, OPEN, Phase, Script, held_at, over, raised

TASK = Task("can", "PickPlaceCan", things=(Thing("can", "body", "Can_main"),), view=View((0.05, 0.1, 0.95), 2.0, 150, -25))
ROUND = 0.01  # [rad] a can looks the same from every side


@dataclass(frozen=True)
class Config(Body):
    """The Can body."""

    max_steps: int = 400


def make(config: Config) -> RobosuiteEnv:
    """Returns the Can body."""
    return RobosuiteEnv(TASK, config)


def expert(env: RobosuiteEnv, rng: np.random.Generator) -> Policy:
    """Returns a script that grasps the can from above, carries it over the wall of the bins and drops it gently."""
    phases = (
        Phase(over("can", 0.1, ROUND), OPEN, near=0.02, sway=0.01),
        Phase(over("can", 0.01, ROUND), OPEN, near=0.01, sway=0.002),
        Phase(over("can", 0.01, ROUND), CLOSED, near=0.03, ticks=8),
        Phase(held_at("can", lambda env: raised(env, "can", 1.05)), CLOSED, near=0.03),
        Phase(held_at("can", lambda env: _over_compartment(env, 1.05)), CLOSED, near=0.05, turned=0.3, sway=0.01),
        Phase(held_at("can", lambda env: _over_compartment(env, 0.88)), CLOSED, near=0.05, turned=0.3),
        Phase(held_at("can", lambda env: _over_compartment(env, 0.88)), OPEN, near=0.1, ticks=5),
        Phase(over("can", 0.2, ROUND), OPEN),
    )
    return Script(env, phases, rng)


def _over_compartment(env: RobosuiteEnv, z: float) -> np.ndarray:
    """Returns the pose (4, 4) of the can at height `z` [m] in the middle of its compartment, turned as it is."""
    x, y, _ = env.model.body("VisualCan_main").pos
    return geometry.pose([x, y, z], geometry.rotation_z(geometry.yaw_of(env.object_poses()["can"][:3, :3])))
