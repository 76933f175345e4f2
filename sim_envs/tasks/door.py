"""Turn the handle of a door and pull it open (robosuite Door)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolearn import geometry
from robolearn.core import Policy
from sim_envs._mujoco import View
from sim_envs._robosuite import Body, RobosuiteEnv, Task, Thing
from sim_envs._script import CLOSED, OPEN, Phase, Script

TASK = Task(
    "door",
    "Door",
    things=(Thing("handle", "site", "Door_handle"),),
    joints=("Door_hinge", "Door_latch_joint"),
    placed=("Door_main",),
    view=View((-0.15, -0.15, 1.05), 1.8, 145, -18),
)
UNLATCHED = 1.45  # [rad]


@dataclass(frozen=True)
class Config(Body):
    """The Door body."""

    max_steps: int = 300


def make(config: Config) -> RobosuiteEnv:
    """Returns the Door body."""
    return RobosuiteEnv(TASK, config)


def expert(env: RobosuiteEnv, rng: np.random.Generator) -> Policy:
    """Returns a script that takes the handle from the front, turns it down and swings the door open."""
    phases = (
        Phase(lambda env: _grasp(env, 0.12), OPEN, near=0.02, sway=0.01),
        Phase(lambda env: _grasp(env, 0.0), OPEN, near=0.015, sway=0.002),
        Phase(lambda env: _grasp(env, 0.0), CLOSED, near=0.05, ticks=8),
        Phase(_turn, CLOSED, until=lambda env: env.data.joint("Door_latch_joint").qpos[0] > UNLATCHED - 0.1),
        Phase(_pull, CLOSED),
    )
    return Script(env, phases, rng)


def _grasp(env: RobosuiteEnv, before: float) -> list[np.ndarray]:
    """Returns the hand [(4, 4)] at the bar of the handle, or `before` it [m], fingers above and below."""
    site = env.object_poses()["handle"]
    along, outward = site[:3, 0], -site[:3, 1]
    rotation = np.stack([[0.0, 0.0, -1.0], np.cross(-outward, [0.0, 0.0, -1.0]), -outward], axis=1)
    return [geometry.pose(site[:3, 3] - 0.03 * along + before * outward, rotation)]


def _turn(env: RobosuiteEnv) -> list[np.ndarray]:
    """Returns the hand a little further down the handle's arc."""
    lacking = UNLATCHED - env.data.joint("Door_latch_joint").qpos[0]
    return [_about(env, "Door_latch_joint", env.eef_pose(), float(np.clip(lacking, 0.0, 0.5)))]


def _pull(env: RobosuiteEnv) -> list[np.ndarray]:
    """Returns the hand a little further along the door's arc, the handle kept turned."""
    return [_about(env, "Door_hinge", _turn(env)[0], 0.2)]


def _about(env: RobosuiteEnv, joint: str, pose: np.ndarray, angle: float) -> np.ndarray:
    """Returns a pose (4, 4) moved by `angle` [rad] about a joint."""
    anchor, axis = env.data.joint(joint).xanchor, env.data.joint(joint).xaxis
    turn = geometry.matrix_from_rotvec(axis * angle)
    return geometry.pose(anchor + turn @ (pose[:3, 3] - anchor), turn @ pose[:3, :3])
