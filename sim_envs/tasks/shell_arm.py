"""Shell on an arm: touch the disc that was lit, long after all three look alike again.

The planar `shell` with a robosuite arm. One of three discs on the table is lit for the first eight observations; then the scene
holds the arm at home for `memory_steps` observations and lights the go lamp. The first disc that the hand comes down on decides.
Joints start where robosuite's noise puts them and are at home exactly, gripper and physics in one recorded state, when the cue
goes out: from there on nothing differs between facts, nor between seeds.

CHANCE: at the go everything is the same for all three facts, which are equally likely, and one touch decides: 1/3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from robolearn import geometry
from robolearn.core import ArraySpec, Policy
from sim_envs import _memory_arm
from sim_envs._memory_arm import GO_LAMP, Mark, MemoryArm, Point
from sim_envs._memory_arm_expert import scripted, wait_for_go
from sim_envs._robosuite import Task
from sim_envs._script import CLOSED, Phase, pointing_down

CHANCE = 1 / 3
N_FACTS = 3  # left, middle, right, as the arm sees them
CUE_STEPS = 8  # observations that show the cue
TOUCH = 0.03  # [m] from a place, at which the hand touches it
PLACES: tuple[Point, ...] = ((0.05, 0.18, 0.82), (0.05, 0.0, 0.82), (0.05, -0.18, 0.82))  # of the grip site, 2 cm over the table
NAMES = ("left", "middle", "right")
ACTING = 100  # [ticks]

_DISCS = {name: Mark((x, y, 0.8)) for name, (x, y, _) in zip(NAMES, PLACES, strict=True)}
TASK = Task("shell_arm", _memory_arm.scene("ShellArm", "Lift", {**GO_LAMP, **_DISCS}), things=())
CUBE = ("cube_main", (0.0, 0.0, 0.022))  # Lift's cube has no part here: on the floor below


@dataclass(frozen=True)
class Config(_memory_arm.Config):
    """The body of the shell game; memory_steps: from the last sight of the cue to the go lamp."""

    def budget(self) -> int:
        """Returns the ticks of cue, hold and one reach."""
        return CUE_STEPS + self.memory_steps + ACTING


class ShellArm(MemoryArm):
    """Three discs on an empty table."""

    shows: ClassVar[Mapping[str, ArraySpec]] = MappingProxyType({"cue": ArraySpec((N_FACTS,), names=NAMES)})

    def __init__(self, config: Config) -> None:
        super().__init__(TASK, config)
        self._home = self.rest(*CUBE)

    def begin(self, rng: np.random.Generator) -> None:
        """Draws the disc and holds the arm for cue and memory."""
        self.now.fact = float(rng.integers(N_FACTS))
        self.clear(*CUBE)
        self.hold(CUE_STEPS + self.config.memory_steps)

    def extras(self) -> dict[str, np.ndarray]:
        """Returns for each disc whether it is lit."""
        cue = np.zeros(N_FACTS, np.float32)
        if self.now.tick < CUE_STEPS:
            cue[fact(self)] = 1.0
        return {"cue": cue}

    def judge(self) -> None:
        """Puts the arm home as the cue goes out, and ends at the first touch."""
        if self.now.tick == CUE_STEPS:
            self.put(self._home)
        for k, place in enumerate(PLACES):
            if self.free and self.hand_is_at(place, TOUCH):
                self.finish(k == fact(self))


def make(config: Config) -> ShellArm:
    """Returns the body of the shell game."""
    return ShellArm(config)


def fact(env: ShellArm) -> int:
    """Returns the hidden fact: 0 the left, 1 the middle, 2 the right disc."""
    return int(env.now.fact)


def expert(env: ShellArm, rng: np.random.Generator) -> Policy:
    """Returns a script that knows the fact: it waits for the go and comes down on the disc from above."""

    def above(height: float) -> list[np.ndarray]:
        return [geometry.pose(np.array(PLACES[fact(env)]) + [0, 0, height], pointing_down(0.0))]

    phases = (
        wait_for_go(env, CLOSED),
        Phase(lambda _: above(0.1), CLOSED, near=0.03, sway=0.01),
        Phase(lambda _: above(0.0), CLOSED, near=0.0, sway=0.005),
    )
    return scripted(env, phases, rng)
