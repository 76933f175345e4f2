"""Experts of the two-handed bench: a list of phases, each with a target for the hand, walked unsteadily like a person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from robolearn import geometry
from robolearn.core import Ask, Chunk, Obs
from sim_envs._two_hands import POINTING_DOWN, TwoHands
from sim_envs._two_hands_scene import FINGER_LENGTH

OPEN, CLOSED = -1.0, 1.0
METRES_PER_TICK, RADIANS_PER_TICK = 0.016, 0.10  # 0.16 m/s and 1 rad/s at 10 Hz
VARIED_BY = 0.2  # an episode's pace, by up to this share
SWAY, KEEP = 0.0025, 0.7  # [m] of the hand about its way: standard deviation, correlation from tick to tick
Target = Callable[[TwoHands], np.ndarray]  # world_from_hand (4, 4)


@dataclass(frozen=True)
class Phase:
    """Move to `target` until within `near` [m] and for at least `ticks`; go on after `patience` ticks anyway."""

    target: Target
    grip: float = OPEN
    near: float = 0.01
    ticks: int = 0
    patience: int = 25
    speed: float = 1.0  # of the expert's usual pace
    aside: float = 0.0  # [m] standard deviation of where the phase leads instead, like a person's


class Script:
    """A Policy that goes through `phases`; it is privileged, its sway and pace come from `rng` and the episode's seed."""

    def __init__(self, env: TwoHands, phases: Sequence[Phase], rng: np.random.Generator) -> None:
        self.env, self.phases = env, tuple(phases)
        self.spec = env.spec.select(("eef_pos",))
        self._entropy = int(rng.integers(2**32))
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Starts an episode."""
        self._rng = np.random.default_rng((self._entropy, seed or 0))
        self._pace = 1.0 + self._rng.uniform(-VARIED_BY, VARIED_BY)
        self._sway = SWAY * self._rng.normal(size=3)
        self._tick, self._aim = -1, np.eye(4)
        self._enter(0)

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        """Looks at the body, goes on to the next phase when this one is done, and moves the aim one tick on."""
        if self._tick < 0:
            self._aim = self.env.eef_pose()
        elif self._done() and self._phase + 1 < len(self.phases):
            self._enter(self._phase + 1)
        self._tick += 1
        self._waited += 1
        self._sway = KEEP * self._sway + SWAY * np.sqrt(1 - KEEP**2) * self._rng.normal(size=3)
        share = self._pace * self.phases[self._phase].speed
        self._aim = towards(self._aim, self._target(), share * METRES_PER_TICK, share * RADIANS_PER_TICK)

    def plan(self, ask: Ask = Ask()) -> Chunk:
        """Returns the action (1, 10) of this tick."""
        rotation = geometry.rot6d_from_matrix(self._aim[:3, :3])
        action = np.concatenate([self._aim[:3, 3] + self._sway, rotation, [self.phases[self._phase].grip]])
        return Chunk(action[None].astype(np.float32), self._tick)

    def _enter(self, phase: int) -> None:
        self._phase, self._waited = phase, 0
        self._aside = self._rng.normal(size=3) * self.phases[phase].aside

    def _target(self) -> np.ndarray:
        target = self.phases[self._phase].target(self.env).copy()
        target[:3, 3] += self._aside
        return target

    def _done(self) -> bool:
        phase = self.phases[self._phase]
        gap = float(np.linalg.norm(self._target()[:3, 3] - self.env.eef_pose()[:3, 3]))
        return self._waited >= phase.ticks and (gap < phase.near or self._waited >= phase.patience)


def towards(start: np.ndarray, end: np.ndarray, step: float, turn: float) -> np.ndarray:
    """Returns the pose (4, 4) on the way from `start` to `end`, at most `step` [m] and `turn` [rad] further."""
    gap, angle = end[:3, 3] - start[:3, 3], float(geometry.angle_between(start[:3, :3], end[:3, :3]))
    share = min(1.0, step / max(float(np.linalg.norm(gap)), 1e-9))
    rotation = geometry.slerp(start[:3, :3], end[:3, :3], np.array([min(1.0, turn / max(angle, 1e-9))]))[0]
    return geometry.pose(start[:3, 3] + share * gap, rotation)


def down(position: Sequence[float] | np.ndarray, yaw: float = 0.0) -> np.ndarray:
    """Returns world_from_hand (4, 4) of a flange at `position` [m], pointing down, fingers turned by `yaw` [rad] from home."""
    return geometry.pose(position, geometry.rotation_z(yaw) @ POINTING_DOWN)


def over(name: str, height: float) -> Target:
    """Returns the target of a hand pointing down at an object, fingertips `height` [m] above its middle, turned with it."""

    def target(env: TwoHands) -> np.ndarray:
        thing = env.object_poses()[name]
        tips = np.array([0.0, 0.0, height + FINGER_LENGTH])
        yaw = float(geometry.yaw_of(thing[:3, :3]))
        return down(thing[:3, 3] + tips, yaw)

    return target
