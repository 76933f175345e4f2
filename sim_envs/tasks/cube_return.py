"""Cube return: put the cube down at the place that it lay nearer to, long after it has left.

The idea is that of the ALOHA task of *Learning Long-Context Diffusion Policies via Past-Token Prediction* (Torne et al., 2025),
on robosuite's Lift. The cube lies nearer to the left or to the right of two discs; the arm picks it up and carries it to the
centre, 15 cm over the table. As soon as it is there, in the hand, the scene holds for `memory_steps` observations and puts arm,
cube and physics into one recorded state: a grasp, always the same, with the cube at the centre. From there on nothing differs
between facts, nor between seeds. After the go the cube must be let go on the table within 5 cm of the disc that was nearer;
the other one ends the episode.

CHANCE: at the go everything is the same for both facts, which are equally likely, and the first disc decides: 1/2.
"""

from __future__ import annotations

import functools
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from robolearn import geometry
from robolearn.core import Policy
from sim_envs import _memory_arm
from sim_envs._memory_arm import GO_LAMP, Mark, MemoryArm, Point, thing_to
from sim_envs._memory_arm_expert import scripted, wait_for_go
from sim_envs._robosuite import Body, RobosuiteEnv, Task, Thing
from sim_envs._script import CLOSED, OPEN, Pace, Phase, Script, held_at, over

CHANCE = 1 / 2
N_FACTS = 2  # left, right, as the arm sees them
TABLE = 0.8  # [m], height of its top
RESTING = TABLE + 0.021  # [m], of the middle of the cube on the table
PLACES: tuple[Point, Point] = ((0.0, 0.2, RESTING), (0.0, -0.2, RESTING))
NEAR_PLACE = 0.05  # [m], along the table
CENTRE: Point = (0.0, 0.0, TABLE + 0.15)
REACHED = 0.05  # [m] from the centre
IN_HAND = 0.03  # [m] from the grip site
ACTING = 300  # [ticks]
SETTLING = 30  # [ticks] that the recorded grasp is held for

_DISCS = {
    "left": Mark((*PLACES[0][:2], TABLE), NEAR_PLACE, rgba=(0.2, 0.4, 0.8, 1.0)),
    "right": Mark((*PLACES[1][:2], TABLE), NEAR_PLACE, rgba=(0.85, 0.6, 0.15, 1.0)),
}
TASK = Task(
    "cube_return", _memory_arm.scene("CubeReturn", "Lift", {**GO_LAMP, **_DISCS}), things=(Thing("cube", "body", "cube_main"),)
)


@dataclass(frozen=True)
class Config(_memory_arm.Config):
    """The body of the cube's return; memory_steps: from the cube's arrival at the centre to the go lamp."""

    def budget(self) -> int:
        """Returns the ticks of fetching, hold and putting down."""
        return self.memory_steps + ACTING


class CubeReturn(MemoryArm):
    """A cube and two discs; `now.count` is 1 from the hold on."""

    def __init__(self, config: Config) -> None:
        super().__init__(TASK, config)
        self._grasp = _recorded_grasp(config.robot, config.hz)

    def begin(self, rng: np.random.Generator) -> None:
        """Lays the cube down: the same draw, mirrored, for the other fact."""
        self.now.fact = float(rng.integers(N_FACTS))
        x, y, yaw = rng.uniform((-0.08, 0.04, -np.pi), (0.08, 0.14, np.pi))
        side = 1 - 2 * self.now.fact
        thing_to(self.inner, "cube_main", geometry.pose([x, side * y, RESTING], geometry.rotation_z(np.array(side * yaw))))

    def extras(self) -> dict[str, np.ndarray]:
        """Returns nothing: the fact is in where the cube lies at first."""
        return {}

    def judge(self) -> None:
        """Begins the hold when the hand has brought the cube to the centre, and ends at the first disc with the cube on it."""
        cube = self.object_poses()["cube"][:3, 3]
        if not self.now.count:
            brought = np.linalg.norm(cube - CENTRE) < REACHED and self.hand_is_at(cube, IN_HAND) and self.gripper_closed()
            if brought:
                self.now.count = 1.0
                self.put(self._grasp)
                self.hold(self.config.memory_steps)
        elif self.free and cube[2] < RESTING + 0.01 and not self.gripper_closed():
            for k, place in enumerate(PLACES):
                if np.linalg.norm(cube[:2] - place[:2]) < NEAR_PLACE:
                    self.finish(k == fact(self))


def make(config: Config) -> CubeReturn:
    """Returns the body of the cube's return."""
    return CubeReturn(config)


def fact(env: CubeReturn) -> int:
    """Returns the hidden fact: 0 the left, 1 the right disc was nearer."""
    return int(env.now.fact)


def expert(env: CubeReturn, rng: np.random.Generator) -> Policy:
    """Returns a script that knows the fact: it brings the cube to the centre, waits for the go and puts it on its disc."""
    quarter = np.pi / 2

    def on_disc(height: float) -> np.ndarray:
        return _upright(env.inner, np.array(PLACES[fact(env)]) + [0, 0, height])

    to_centre = held_at("cube", lambda inner: _upright(inner, np.array(CENTRE)))
    phases = (
        Phase(over("cube", 0.08, quarter), OPEN, near=0.02, sway=0.01),
        *_grasping(sway=0.002),
        Phase(to_centre, CLOSED, until=lambda _: env.now.count > 0, patience=env.config.max_steps, sway=0.01),
        wait_for_go(env, CLOSED),
        Phase(held_at("cube", lambda _: on_disc(0.08)), CLOSED, near=0.015, sway=0.008),
        Phase(held_at("cube", lambda _: on_disc(0.003)), CLOSED, near=0.006, speed=0.5, sway=0.004),
        Phase(held_at("cube", lambda _: on_disc(0.003)), OPEN, near=0.05, ticks=5),
        Phase(over("cube", 0.12, quarter), OPEN),
    )
    return scripted(env, phases, rng)


def _grasping(sway: float) -> tuple[Phase, Phase]:
    down = over("cube", 0.0, np.pi / 2)
    return Phase(down, OPEN, near=0.008, sway=sway), Phase(down, CLOSED, near=0.03, ticks=8)


def _upright(env: RobosuiteEnv, position: np.ndarray) -> np.ndarray:
    """Returns the pose (4, 4) of the cube upright at `position` (3,) [m], turned as it is."""
    return geometry.pose(position, geometry.rotation_z(geometry.yaw_of(env.object_poses()["cube"][:3, :3])))


@functools.cache
def _recorded_grasp(robot: str, hz: float) -> np.ndarray:
    """Returns the state (n,) of a body in which the hand has held the cube at the centre for a while."""
    with closing(RobosuiteEnv(TASK, Body(robot=robot, hz=hz))) as env:  # type: ignore[arg-type]
        env.reset(0)
        thing_to(env, "cube_main", geometry.pose([0.0, 0.0, RESTING], np.eye(3)))
        to_centre = held_at("cube", lambda inner: _upright(inner, np.array(CENTRE)))
        phases = (*_grasping(sway=0.0), Phase(to_centre, CLOSED, near=0.005), Phase(to_centre, CLOSED))
        script = Script(env, phases, np.random.default_rng(0), Pace(varied_by=0.0))
        script.reset(0)
        obs, settled = env.restore(env.state()), 0
        while settled < SETTLING:
            script.observe(obs, None)
            obs = env.step(script.plan().actions[0]).obs
            settled = settled + 1 if np.linalg.norm(env.object_poses()["cube"][:3, 3] - CENTRE) < 0.01 else 0
        state = env.state()
    state.flags.writeable = False
    return state
