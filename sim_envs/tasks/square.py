"""Put a square nut on a square peg (robosuite NutAssemblySquare)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolearn import geometry
from robolearn.core import Policy
from sim_envs._robosuite import Body, RobosuiteEnv, Task, Thing
from sim_envs._script import CLOSED, OPEN, Phase, Script, held_at, over, raised

TASK = Task("square", "NutAssemblySquare", things=(Thing("nut", "body", "SquareNut_main"),))


@dataclass(frozen=True)
class Config(Body):
    """The Square body."""

    max_steps: int = 400


def make(config: Config) -> RobosuiteEnv:
    """Returns the Square body."""
    return RobosuiteEnv(TASK, config)


GRASP = 0.06  # [m] from the middle of the nut to where its handle is held


def expert(env: RobosuiteEnv, rng: np.random.Generator) -> Policy:
    """Returns a script that grasps the nut's handle, turns the nut to the peg's sides, lowers it and lets go."""
    phases = (
        Phase(lambda env: _handle(env, 0.08), OPEN, near=0.02, sway=0.01),
        Phase(lambda env: _handle(env, 0.0), OPEN, near=0.008, sway=0.002),
        Phase(lambda env: _handle(env, 0.0), CLOSED, near=0.03, ticks=8),
        Phase(held_at("nut", lambda env: raised(env, "nut", 1.02)), CLOSED, near=0.03),
        Phase(held_at("nut", lambda env: _on_peg(env, 1.0)), CLOSED, near=0.004, patience=80),
        Phase(held_at("nut", lambda env: _on_peg(env, 0.9)), CLOSED, near=0.01, speed=0.5),
        Phase(held_at("nut", lambda env: _on_peg(env, 0.9)), OPEN, near=0.1, ticks=5),
        Phase(lambda env: _handle(env, 0.2), OPEN),
    )
    return Script(env, phases, rng)


def _handle(env: RobosuiteEnv, height: float) -> list[np.ndarray]:
    (hand,) = over("nut", height, np.pi, turned=np.pi / 2)(env)
    hand[:3, 3] += env.object_poses()["nut"][:3, 0] * GRASP
    return [hand]


def _on_peg(env: RobosuiteEnv, z: float) -> np.ndarray:
    """Returns the pose (4, 4) of the nut at height `z` [m] on the peg, turned the least that fits its sides."""
    yaw = geometry.yaw_of(env.object_poses()["nut"][:3, :3])
    fitting = np.round(yaw / (np.pi / 2)) * np.pi / 2
    x, y, _ = env.model.body("peg1").pos
    return geometry.pose([x, y, z], geometry.rotation_z(fitting))
