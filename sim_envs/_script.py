"""Scripted experts: a list of phases, each with a target for the hand that follows the objects, tracked at human speed.

An expert is privileged: it reads the body's object poses. It is a Policy, so that what records people records it too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from robolearn import geometry
from robolearn.core import Ask, Chunk, Obs
from robolearn.errors import SpecMismatch
from sim_envs._robosuite import RobosuiteEnv

OPEN, CLOSED = -1.0, 1.0
LEAN = 0.1  # of the remaining gap, per tick
POINTING_DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])  # the hand at home, fingers open along world y
Target = Callable[[RobosuiteEnv], Sequence[np.ndarray]]  # world_from_eef (4, 4) for every arm


@dataclass(frozen=True)
class Phase:
    """Move to `target` until within `near` [m] and `turned` [rad] and for at least `ticks`; after `patience` ticks go on."""

    target: Target
    grip: float
    near: float = 0.01
    turned: float = 0.2
    ticks: int = 0
    patience: int = 60
    speed: float = 1.0  # of the expert's usual speed
    until: Callable[[RobosuiteEnv], bool] | None = None  # what ends the phase instead of being near
    sway: float = 0.0  # [m] standard deviation of where the hand goes instead, like a person's


@dataclass(frozen=True)
class Pace:
    """How fast an expert moves."""

    metres_per_tick: float = 0.014  # 0.28 m/s at 20 Hz
    radians_per_tick: float = 0.08
    varied_by: float = 0.25  # episodes are faster or slower by up to this share


class Script:
    """A Policy that goes through `phases`; its sway and pace come from `rng` and the episode's seed."""

    def __init__(self, env: RobosuiteEnv, phases: Sequence[Phase], rng: np.random.Generator, pace: Pace = Pace()) -> None:
        if env.config.action == "joint_abs":
            raise SpecMismatch(f"the expert of {env.task} gives poses; make the body with action pose_abs or osc_delta")
        self.env, self.spec, self.phases, self.pace = env, env.spec, tuple(phases), pace
        self._entropy = int(rng.integers(2**32))

    def reset(self, seed: int | None = None) -> None:
        """Starts an episode."""
        self._rng = np.random.default_rng((self._entropy, seed or 0))
        self._tempo = 1.0 + self._rng.uniform(-self.pace.varied_by, self.pace.varied_by)
        self._tick = -1

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        """Looks at the body, goes on to the next phase when this one is done, and moves the goal a little."""
        arms = range(len(self.env.arms))
        if self._tick < 0:
            self._goals = [self.env.eef_pose(k) for k in arms]
            self._bias = np.zeros((len(arms), 3))
            self._enter(0)
        elif self._done() and self._phase + 1 < len(self.phases):
            self._enter(self._phase + 1)
        self._tick += 1
        self._waited += 1
        step, turn = (
            self._phase_now().speed * self._tempo * each for each in (self.pace.metres_per_tick, self.pace.radians_per_tick)
        )
        targets = self._targets()
        self._goals = [_towards(goal, target, step, turn) for goal, target in zip(self._goals, targets, strict=True)]
        self._correct(targets)

    def plan(self, ask: Ask = Ask()) -> Chunk:
        """Returns the action (1, action) of this tick."""
        blocks = [self._block(k, geometry.pose(goal[:3, 3] + self._bias[k], goal[:3, :3])) for k, goal in enumerate(self._goals)]
        return Chunk(np.concatenate(blocks)[None].astype(np.float32), self._tick)

    def _correct(self, targets: Sequence[np.ndarray]) -> None:
        """Leans against what friction leaves of the way once a goal has arrived."""
        for k, (goal, target) in enumerate(zip(self._goals, targets, strict=True)):
            arrived = np.linalg.norm(goal[:3, 3] - target[:3, 3]) < 1e-3
            gap = target[:3, 3] - self.env.eef_pose(k)[:3, 3]
            self._bias[k] = np.clip(self._bias[k] + LEAN * gap, -0.02, 0.02) if arrived else 0.8 * self._bias[k]

    def _enter(self, phase: int) -> None:
        self._phase, self._waited = phase, 0
        self._sway = self._rng.normal(0.0, 1.0, (len(self.env.arms), 3)) * self.phases[phase].sway

    def _phase_now(self) -> Phase:
        return self.phases[self._phase]

    def _targets(self) -> list[np.ndarray]:
        targets = [np.array(target) for target in self._phase_now().target(self.env)]
        for target, sway in zip(targets, self._sway, strict=True):
            target[:3, 3] += sway
        return targets

    def _done(self) -> bool:
        phase = self._phase_now()
        if phase.until is not None:
            return phase.until(self.env) or self._waited >= phase.patience
        gaps = [np.linalg.norm(target[:3, 3] - self.env.eef_pose(k)[:3, 3]) for k, target in enumerate(self._targets())]
        turns = [geometry.angle_between(target[:3, :3], self.env.eef_pose(k)[:3, :3]) for k, target in enumerate(self._targets())]
        there = bool(max(gaps) < phase.near and max(turns) < phase.turned)
        return self._waited >= phase.ticks and (there or self._waited >= phase.patience)

    def _block(self, arm: int, goal: np.ndarray) -> np.ndarray:
        grip = [self._phase_now().grip]
        if self.env.config.action == "pose_abs":
            return np.concatenate([goal[:3, 3], geometry.rot6d_from_matrix(goal[:3, :3]), grip])
        return np.concatenate([self.env.arms[arm].relative(self.env.data, goal), grip])


def _towards(start: np.ndarray, end: np.ndarray, step: float, turn: float) -> np.ndarray:
    """Returns the pose (4, 4) on the way from `start` to `end`, at most `step` [m] and `turn` [rad] further."""
    gap, angle = end[:3, 3] - start[:3, 3], float(geometry.angle_between(start[:3, :3], end[:3, :3]))
    share = min(1.0, step / max(float(np.linalg.norm(gap)), 1e-9))
    rotation = geometry.slerp(start[:3, :3], end[:3, :3], np.array([min(1.0, turn / max(angle, 1e-9))]))[0]
    return geometry.pose(start[:3, 3] + share * gap, rotation)


def pointing_down(yaw: float) -> np.ndarray:
    """Returns the rotation (3, 3) of a hand that points down, turned by `yaw` [rad] from its home."""
    return geometry.rotation_z(np.array(yaw)) @ POINTING_DOWN


def nearest_yaw(yaw: float, symmetry: float) -> float:
    """Returns `yaw` [rad] moved by whole `symmetry` to lie nearest the hand's home."""
    return float((yaw + symmetry / 2) % symmetry - symmetry / 2)


def carried(env: RobosuiteEnv, name: str, world_from_wanted: np.ndarray, arm: int = 0) -> np.ndarray:
    """Returns where the hand must be so that the object it holds is at `world_from_wanted` (4, 4)."""
    object_from_eef = geometry.inverse(env.object_poses()[name]) @ env.eef_pose(arm)
    return world_from_wanted @ object_from_eef


def over(name: str, height: float, symmetry: float, turned: float = 0.0) -> Target:
    """Returns the target of a hand pointing down, `height` [m] over an object, fingers turned to it.

    turned: from the object's heading to the hand's; symmetry: turning the hand by this [rad] is as good.
    """

    def target(env: RobosuiteEnv) -> list[np.ndarray]:
        thing = env.object_poses()[name]
        yaw = nearest_yaw(float(geometry.yaw_of(thing[:3, :3])) + turned, symmetry)
        return [geometry.pose(thing[:3, 3] + [0, 0, height], pointing_down(yaw))]

    return target


def held_at(name: str, wanted: Callable[[RobosuiteEnv], np.ndarray]) -> Target:
    """Returns the target of a hand that brings the object it holds to the pose `wanted(env)` (4, 4)."""
    return lambda env: [carried(env, name, wanted(env))]


def raised(env: RobosuiteEnv, name: str, z: float) -> np.ndarray:
    """Returns the object's pose (4, 4) upright, where it is, but at height `z` [m]."""
    thing = env.object_poses()[name]
    return geometry.pose([*thing[:2, 3], z], geometry.rotation_z(geometry.yaw_of(thing[:3, :3])))
