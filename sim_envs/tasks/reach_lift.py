"""Reach and lift: grasp the block on the table and lift it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolearn import geometry
from robolearn.core import Policy
from sim_envs._two_hands import Body, Task, TwoHands
from sim_envs._two_hands_expert import CLOSED, Phase, Script, over
from sim_envs._two_hands_scene import lying

HALF = 0.025  # [m] of the block: held, the fingers are just closed
LIFTED = 0.12  # [m], height of the block's middle
AREA = np.array([0.14, 0.10])  # [m] to either side of the table's middle
MOST_TURNED = 0.5  # [rad]

OBJECTS = f"""
<body name="block">
  <freejoint name="block"/>
  <geom type="box" size="{HALF} {HALF} {HALF}" rgba="0.84 0.24 0.20 1" mass="0.08"/>
  <geom class="drawn" type="box" size="{HALF * 0.6} {HALF * 0.6} 0.001" pos="0 0 {HALF}" rgba="0.95 0.85 0.30 1"/>
</body>"""


@dataclass(frozen=True)
class Config(Body):
    """The bench's body."""


def make(config: Config) -> TwoHands:
    """Returns the body."""
    return TwoHands(TASK, config)


def expert(env: TwoHands, rng: np.random.Generator) -> Policy:
    """Returns a script that comes from above, grasps and lifts."""
    phases = (
        Phase(over("block", 0.09), near=0.025, aside=0.006),
        Phase(over("block", 0.0), near=0.008, aside=0.002),
        Phase(over("block", 0.0), CLOSED, near=0.03, ticks=4),
        Phase(over("block", 0.15), CLOSED, patience=40),
    )
    return Script(env, phases, rng)


def _place(env: TwoHands, rng: np.random.Generator) -> np.ndarray:
    xy, yaw = rng.uniform(-AREA, AREA), rng.uniform(-MOST_TURNED, MOST_TURNED)
    env.data.joint("block").qpos[:] = lying((*xy, HALF), yaw)
    return np.empty(0)


def _height(env: TwoHands) -> float:
    return float(env.data.body("block").xpos[2])


def _solved(env: TwoHands) -> bool:
    if _height(env) < LIFTED:
        return False
    between = geometry.inverse(env.eef_pose()) @ env.object_poses()["block"]
    return float(np.linalg.norm(between[:2, 3])) < 2 * HALF  # thrown up does not count


def _score(env: TwoHands) -> float:
    return float(np.clip((_height(env) - HALF) / (LIFTED - HALF), 0.0, 1.0))


TASK = Task("reach_lift", OBJECTS, ("block",), _place, _solved, _score)
