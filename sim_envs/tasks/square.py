"""Put a square nut on a square peg (robosuite NutAssemblySquare)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolearn import geometry
from robolearn.core import Policy
from sim_envs._robosuite import Body, RobosuiteEnv, Task, Thing
from sim_envs._script import CLOSED, OPEN, Phase, Script, held_at, pointing_down, raised

TASK = Task("square", "NutAssemblySquare", things=(Thing("nut", "body", "SquareNut_main"),))


@dataclass(frozen=True)
class Config(Body):
    """The Square body."""

    max_steps: int = 400


def make(config: Config) -> RobosuiteEnv:
    """Returns the Square body."""
    return RobosuiteEnv(TASK, config)


GRASP = 0.06  # [m] from the middle of the nut to where its handle is held
PEG_TOP = 0.95  # [m]
CLEARANCE = 0.005  # [m] of the nut on the peg


def expert(env: RobosuiteEnv, rng: np.random.Generator) -> Policy:
    """Returns a script that grasps the nut's handle, turns the nut to the peg's sides, lowers it and lets go."""
    phases = (
        Phase(lambda env: _handle(env, 0.08), OPEN, near=0.02, sway=0.01),
        Phase(lambda env: _handle(env, 0.0), OPEN, near=0.008, sway=0.002),
        Phase(lambda env: _handle(env, 0.0), CLOSED, near=0.03, ticks=8),
        Phase(held_at("nut", lambda env: raised(env, "nut", 1.02)), CLOSED, near=0.03),
        Phase(held_at("nut", lambda env: _on_peg(env, 1.0)), CLOSED, near=0.006, turned=0.05),
        Phase(held_at("nut", lambda env: _on_peg(env, 0.9)), CLOSED, until=_is_on_peg, speed=0.3, patience=150),
        Phase(held_at("nut", lambda env: _on_peg(env, 0.9)), OPEN, near=0.1, ticks=5),
        Phase(lambda env: _handle(env, 0.2), OPEN),
    )
    return Script(env, phases, rng)


def _handle(env: RobosuiteEnv, height: float) -> list[np.ndarray]:
    """Returns the hand [(4, 4)] over the nut's handle, on the side from which the wrist can turn the nut to the peg."""
    nut = env.object_poses()["nut"]
    yaw = float(geometry.yaw_of(nut[:3, :3]))
    turned = 0.0 if _fitting(yaw) == np.pi / 2 else np.pi
    position = nut[:3, 3] + nut[:3, 0] * GRASP + [0, 0, height]
    return [geometry.pose(position, pointing_down(yaw + turned))]


def _fitting(yaw: float) -> float:
    """Returns the heading [rad] nearest `yaw` at which the nut fits the peg with its handle in the arm's reach: not ahead."""
    quarters = np.round(yaw / (np.pi / 2)) or np.copysign(1.0, yaw)
    return float(abs(quarters) * np.pi / 2 if abs(quarters) == 2 else quarters * np.pi / 2)


def _on_peg(env: RobosuiteEnv, z: float) -> np.ndarray:
    """Returns the pose (4, 4) of the nut at height `z` [m] on the peg; while it is not over the peg it stays above it."""
    nut, (x, y, _) = env.object_poses()["nut"], env.model.body("peg1").pos
    yaw = float(geometry.yaw_of(nut[:3, :3]))
    off = np.hypot(nut[0, 3] - x, nut[1, 3] - y) > CLEARANCE or abs(geometry.wrap(yaw - _fitting(yaw))) > 0.1
    height = max(z, PEG_TOP + 0.03) if off else z
    return geometry.pose([x, y, height], geometry.rotation_z(np.array(_fitting(yaw))))


def _is_on_peg(env: RobosuiteEnv) -> bool:
    return bool(env.object_poses()["nut"][2, 3] < PEG_TOP - 0.01)
