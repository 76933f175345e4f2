"""Relay: one arm stands by while a disc is lit, hands over, and long after that the other arm must touch that disc.

The idea is that of the transport task of *Learning Long-Context Diffusion Policies via Past-Token Prediction* (Torne et al.,
2025), on the two facing arms of robosuite's TwoArmLift, its pot put away. The published order of the arms and the memory between
them are kept; the object that goes from gripper to gripper is left out, so that what fails here is memory and not a grasp.

One of three discs is lit for the first eight observations. The scene holds for `memory_steps` observations and lights the go
lamp: arm 0 brings its hand to the handing place in the middle, which lights up, and takes it back. With both hands home again the
scene holds once more, for as long, and after the second go the first disc that the hand of arm 1 comes down on decides. As either
hold begins, arms, grippers and physics are put into one recorded state, at home: from there on nothing differs between facts, nor
between seeds.

CHANCE: at the second go everything is the same for all three facts, which are equally likely, and one touch decides: 1/3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from robolearn import geometry
from robolearn.core import ArraySpec, Policy
from sim_envs import _memory_arm, _mujoco
from sim_envs._memory_arm import GO_LAMP, Mark, MemoryArm, Point
from sim_envs._memory_arm_expert import scripted, wait_for_go
from sim_envs._robosuite import Task
from sim_envs._script import CLOSED, Phase, Target, pointing_down

CHANCE = 1 / 3
N_FACTS = 3  # left, middle, right, as arm 1 sees them
CUE_STEPS = 8  # observations that show the cue
HANDING: Point = (0.0, 0.0, 0.92)
HANDED = 0.04  # [m] from the handing place, at which the hand of arm 0 touches it
HOME = 0.05  # [m] from its place at home, at which a hand is back
TOUCH = 0.03  # [m] from a place, at which the hand of arm 1 touches it
PLACES: tuple[Point, ...] = ((0.16, 0.12, 0.82), (0.0, 0.12, 0.82), (-0.16, 0.12, 0.82))  # of the grip site, 2 cm over the table
NAMES = ("left", "middle", "right")
ACTING = 160  # [ticks]
FACING = (np.pi / 2, -np.pi / 2)  # [rad], heading of each arm
TO_TOUCH, TO_RETURN, TO_CHOOSE = 0.0, 1.0, 2.0  # what `now.count` says is next

_MARKS = {
    **GO_LAMP,
    "handed": Mark(HANDING, 0.015, shape="sphere"),
    **{name: Mark((x, y, 0.8)) for name, (x, y, _) in zip(NAMES, PLACES, strict=True)},
}
TASK = Task(
    "relay",
    _memory_arm.scene("Relay", "TwoArmLift", _MARKS),
    things=(),
    arms=2,
    view=_mujoco.View((0.0, 0.0, 1.0), 1.7, 160, -30),
)
POT = ("pot_root", (0.0, 0.0, 0.08))  # TwoArmLift's pot has no part here: on the floor below


@dataclass(frozen=True)
class Config(_memory_arm.Config):
    """The body of the relay; memory_steps: each of the two holds."""

    memory_steps: int = 32

    def budget(self) -> int:
        """Returns the ticks of cue, both holds, handing over and one reach."""
        return CUE_STEPS + 2 * self.memory_steps + ACTING


class Relay(MemoryArm):
    """Three discs and a handing place between two arms; `now.count` says what is next."""

    shows: ClassVar[Mapping[str, ArraySpec]] = MappingProxyType(
        {"cue": ArraySpec((N_FACTS,), names=NAMES), "handed": ArraySpec((1,), names=("handed",))}
    )

    def __init__(self, config: Config) -> None:
        super().__init__(TASK, config)
        self._home = self.rest(*POT)
        self.hands_home = (self.eef_pose(0), self.eef_pose(1))  # world_from_eef (4, 4) [m] of each arm

    def begin(self, rng: np.random.Generator) -> None:
        """Draws the disc and holds the arms for cue and memory."""
        self.now.fact = float(rng.integers(N_FACTS))
        self.clear(*POT)
        self.hold(CUE_STEPS + self.config.memory_steps)

    def extras(self) -> dict[str, np.ndarray]:
        """Returns for each disc whether it is lit, and whether arm 0 has touched the handing place."""
        cue = np.zeros(N_FACTS, np.float32)
        if self.now.tick < CUE_STEPS:
            cue[fact(self)] = 1.0
        return {"cue": cue, "handed": np.array([self.now.count > TO_TOUCH], np.float32)}

    def judge(self) -> None:
        """Puts the arms home as a hold begins, notes the handing over, and ends at the first touch of a disc after it."""
        if self.now.tick == CUE_STEPS:
            self.put(self._home)
        if not self.free:
            return
        if self.now.count == TO_TOUCH and self.hand_is_at(HANDING, HANDED, arm=0):
            self.now.count = TO_RETURN
        elif self.now.count == TO_RETURN and all(self.hand_is_at(home[:3, 3], HOME, k) for k, home in enumerate(self.hands_home)):
            self.now.count = TO_CHOOSE
            self.put(self._home)
            self.hold(self.config.memory_steps)
        elif self.now.count == TO_CHOOSE:
            for k, place in enumerate(PLACES):
                if self.hand_is_at(place, TOUCH, arm=1):
                    self.finish(k == fact(self))


def make(config: Config) -> Relay:
    """Returns the body of the relay."""
    return Relay(config)


def fact(env: Relay) -> int:
    """Returns the hidden fact: 0 the left, 1 the middle, 2 the right disc, as arm 1 sees them."""
    return int(env.now.fact)


def expert(env: Relay, rng: np.random.Generator) -> Policy:
    """Returns a script that knows the fact: arm 0 touches the handing place and goes back, then arm 1 comes down on the disc."""
    home, patience = env.hands_home, env.config.max_steps

    def over_disc(height: float) -> Target:
        return lambda _: [home[0], _hand(1, np.array(PLACES[fact(env)]) + [0, 0, height])]

    def handed(_: object) -> bool:
        return env.now.count > TO_TOUCH

    phases = (
        wait_for_go(env, CLOSED),
        Phase(lambda _: [_hand(0, np.array(HANDING)), home[1]], CLOSED, until=handed, patience=patience, sway=0.008),
        Phase(lambda _: home, CLOSED, until=lambda _: not env.free, patience=patience, sway=0.008),
        wait_for_go(env, CLOSED),
        Phase(over_disc(0.1), CLOSED, near=0.03, sway=0.01),
        Phase(over_disc(0.0), CLOSED, near=0.0, sway=0.005),
    )
    return scripted(env, phases, rng)


def _hand(arm: int, position: np.ndarray) -> np.ndarray:
    """Returns the pose (4, 4) of that arm's hand pointing down at `position` (3,) [m]."""
    return geometry.pose(position, pointing_down(FACING[arm]))
