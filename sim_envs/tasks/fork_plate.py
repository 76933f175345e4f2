"""Fork on plate: pick the fork up by its handle and lay it down on the plate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolearn import geometry
from robolearn.core import Policy
from sim_envs._two_hands import Body, Task, TwoHands
from sim_envs._two_hands_expert import CLOSED, OPEN, Phase, Script, down, over
from sim_envs._two_hands_scene import FINGER_LENGTH, lying

HANDLE = np.array([0.050, 0.024, 0.013])  # [m] half sides; the fingers close on the width
HEIGHT = HANDLE[2]
PLATE_RADIUS, PLATE_HALF = 0.085, 0.006  # [m]
ON_PLATE = 0.035  # [m], most distance of the handle's middle from the plate's
LYING = 0.02  # [m], most height of the fork's middle above where it lies on the plate
LET_GO = 0.7  # gripper_open
MOST_TURNED = 0.5  # [rad]
FORK_AREA = (np.array([-0.20, -0.08]), np.array([-0.12, 0.08]))  # [m], from and to
PLATE_AREA = (np.array([0.10, -0.07]), np.array([0.19, 0.07]))

_STEEL = 'rgba="0.70 0.72 0.76 1"'
_TINES = "".join(
    f'<geom class="drawn" type="box" size="0.018 0.003 0.002" pos="0.098 {y} 0" {_STEEL}/>' for y in (-0.012, 0, 0.012)
)
OBJECTS = f"""
<body name="fork">
  <freejoint name="fork"/>
  <geom type="box" size="{HANDLE[0]} {HANDLE[1]} {HANDLE[2]}" rgba="0.86 0.52 0.16 1" mass="0.06"/>
  <geom class="drawn" type="box" size="0.012 0.005 0.003" pos="0.060 0 0" {_STEEL}/>
  <geom class="drawn" type="box" size="0.008 0.016 0.003" pos="0.076 0 0" {_STEEL}/>
  {_TINES}
</body>
<body name="plate" mocap="true">
  <geom type="cylinder" size="{PLATE_RADIUS} {PLATE_HALF}" rgba="0.94 0.95 0.97 1"/>
  <geom class="drawn" type="cylinder" size="{PLATE_RADIUS * 0.7} 0.0005" pos="0 0 {PLATE_HALF}" rgba="0.55 0.70 0.88 1"/>
</body>"""


@dataclass(frozen=True)
class Config(Body):
    """The bench's body."""

    max_steps: int = 100


def make(config: Config) -> TwoHands:
    """Returns the body."""
    return TwoHands(TASK, config)


def expert(env: TwoHands, rng: np.random.Generator) -> Policy:
    """Returns a script that grasps the handle from above, carries the fork over the plate, lowers it and lets go."""
    phases = (
        Phase(over("fork", 0.08), near=0.025, aside=0.006),
        Phase(over("fork", 0.004), near=0.008, aside=0.002),
        Phase(over("fork", 0.004), CLOSED, near=0.03, ticks=4),
        Phase(lambda env: _carried(env, 0.09), CLOSED, near=0.03, aside=0.006, patience=40),
        Phase(lambda env: _carried(env, 0.003), CLOSED, near=0.006, aside=0.003),
        Phase(lambda env: _carried(env, 0.003), OPEN, near=0.05, ticks=4),
        Phase(lambda env: _carried(env, 0.09), OPEN),
    )
    return Script(env, phases, rng)


def _carried(env: TwoHands, height: float) -> np.ndarray:
    """Returns the hand (4, 4) over the plate's middle, a held fork `height` [m] above where it lies; the heading stays."""
    plate, hand = env.object_poses()["plate"], env.eef_pose()
    yaw = float(geometry.yaw_of(hand[:3, :3] @ np.diag([-1.0, 1.0, -1.0])))
    return down((*plate[:2, 3], 2 * PLATE_HALF + HEIGHT + 0.004 + height + FINGER_LENGTH), yaw)


def _place(env: TwoHands, rng: np.random.Generator) -> np.ndarray:
    fork, plate = rng.uniform(*FORK_AREA), rng.uniform(*PLATE_AREA)
    yaw = rng.uniform(-MOST_TURNED, MOST_TURNED)
    env.data.joint("fork").qpos[:] = lying((*fork, HEIGHT), yaw)
    env.data.mocap_pos[env.model.body("plate").mocapid[0]] = (*plate, PLATE_HALF)
    return np.empty(0)


def _gap(env: TwoHands) -> tuple[float, float]:
    """Returns how far [m] the fork is from the plate's middle, along the table and above where it would lie."""
    poses = env.object_poses()
    between = poses["fork"][:3, 3] - poses["plate"][:3, 3]
    return float(np.hypot(between[0], between[1])), float(between[2] - PLATE_HALF - HEIGHT)


def _solved(env: TwoHands) -> bool:
    beside, above = _gap(env)
    return beside < ON_PLATE and above < LYING and env.gripper_open() > LET_GO


def _score(env: TwoHands) -> float:
    return float(np.clip(1.0 - _gap(env)[0] / 0.4, 0.0, 0.9))


TASK = Task("fork_plate", OBJECTS, ("fork", "plate"), _place, _solved, _score)
