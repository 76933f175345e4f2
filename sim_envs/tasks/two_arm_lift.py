"""Two arms lift a pot by its handles (robosuite TwoArmLift)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolearn import geometry
from robolearn.core import Policy
from sim_envs._mujoco import View
from sim_envs._robosuite import Body, RobosuiteEnv, Task, Thing
from sim_envs._script import CLOSED, OPEN, Phase, Script

HANDLES = ("handle_0", "handle_1")
TASK = Task(
    "two_arm_lift",
    "TwoArmLift",
    things=(
        Thing("pot", "body", "pot_root"),
        Thing("handle_0", "site", "pot_handle0"),
        Thing("handle_1", "site", "pot_handle1"),
    ),
    arms=2,
    view=View((0.0, 0.0, 1.0), 2.2, 160, -20),
)


@dataclass(frozen=True)
class Config(Body):
    """The TwoArmLift body: arm k takes handle k, and its block of an action comes k-th."""

    max_steps: int = 300


def make(config: Config) -> RobosuiteEnv:
    """Returns the TwoArmLift body."""
    return RobosuiteEnv(TASK, config)


def expert(env: RobosuiteEnv, rng: np.random.Generator) -> Policy:
    """Returns a script in which both hands take their handle from above and rise together."""
    phases = (
        Phase(lambda env: _over_handles(env, 0.1), OPEN, near=0.03, sway=0.01),
        Phase(lambda env: _over_handles(env, 0.0), OPEN, near=0.012, sway=0.002),
        Phase(lambda env: _over_handles(env, 0.0), CLOSED, near=0.05, ticks=8),
        Phase(lambda env: _over_handles(env, 0.1), CLOSED, speed=0.5, patience=200),
    )
    return Script(env, phases, rng)


def _over_handles(env: RobosuiteEnv, height: float) -> list[np.ndarray]:
    """Returns the hands [(4, 4)] pointing down over their handles, fingers across the bars."""
    hands = []
    for k, name in enumerate(HANDLES):
        handle = env.object_poses()[name]
        across = handle[:3, 1] * [1, 1, 0] / np.linalg.norm(handle[:2, 1])
        across *= np.copysign(1.0, across @ env.eef_pose(k)[:3, 0])
        rotation = np.stack([across, np.cross([0, 0, -1], across), [0, 0, -1]], axis=1)
        hands.append(geometry.pose(handle[:3, 3] + [0, 0, height], rotation))
    return hands
