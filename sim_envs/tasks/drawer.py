"""Drawer: push the drawer that stands out of its chest, to the left or to the right, shut.

The two directions need different motions: the hand goes round to the side on which the drawer stands out, and pushes back to the
middle. Robot demonstrations of one direction and human ones of both is the test of "motion that only human data show"
(MT-pi, arXiv 2501.06994).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from robolearn.core import Policy
from sim_envs._two_hands import Body, Task, TwoHands
from sim_envs._two_hands_expert import Phase, Script, down
from sim_envs._two_hands_scene import PAD_WIDTH

HALF_LENGTH = 0.11  # [m] of chest and drawer, along the world's x
PLATE = 0.006  # [m] half thickness of the drawer's ends
FURTHEST, NEAREST = 0.14, 0.09  # [m], how far the drawer stands out
SHUT = 0.008  # [m]
ABOVE, PUSHING = 0.30, 0.178  # [m], heights of the flange: on the way, and while pushing
CLEAR = 0.045  # [m] from the drawer's end to the hand that comes down beside it
SIDES = {"left": -1.0, "right": 1.0}

OBJECTS = f"""
<body name="chest">
  <geom type="box" size="{HALF_LENGTH} 0.006 0.045" pos="0 0.082 0.045" rgba="0.45 0.30 0.20 1"/>
  <geom type="box" size="{HALF_LENGTH} 0.006 0.045" pos="0 -0.082 0.045" rgba="0.45 0.30 0.20 1"/>
  <geom type="box" size="{HALF_LENGTH} 0.088 0.005" pos="0 0 0.095" rgba="0.52 0.36 0.24 1"/>
</body>
<body name="drawer" pos="0 0 0.042">
  <joint name="drawer" type="slide" axis="1 0 0" range="-0.2 0.2" damping="12" frictionloss="1.5"/>
  <geom type="box" size="{HALF_LENGTH - 0.012} 0.066 0.026" pos="0 0 -0.008" rgba="0.80 0.68 0.30 1" mass="0.3"
        contype="0" conaffinity="0"/>
  <geom type="box" size="{PLATE} 0.072 0.036" pos="{HALF_LENGTH - PLATE} 0 0" rgba="0.82 0.22 0.18 1" mass="0.1" friction="0.3"/>
  <geom type="box" size="{PLATE} 0.072 0.036" pos="{PLATE - HALF_LENGTH} 0 0" rgba="0.20 0.62 0.32 1" mass="0.1" friction="0.3"/>
</body>"""


@dataclass(frozen=True)
class Config(Body):
    """direction: to which side the drawer stands out; "any": either, by the episode."""

    direction: Literal["left", "right", "any"] = "any"


def make(config: Config) -> TwoHands:
    """Returns the body."""
    return TwoHands(TASK, config)


def direction(env: TwoHands) -> float:
    """Returns 1 where this episode's drawer stands out to the right (the world's +x), -1 to the left."""
    return float(env.facts()[0])


def pulled_out(env: TwoHands) -> float:
    """Returns how far the drawer stands out [m]."""
    return abs(float(env.data.joint("drawer").qpos[0]))


def expert(env: TwoHands, rng: np.random.Generator) -> Policy:
    """Returns a script that goes round to the open end, comes down beside it and pushes."""

    def beside(gap: float, height: float) -> np.ndarray:
        end = direction(env) * (HALF_LENGTH + PAD_WIDTH + gap)
        return down((end, 0.0, height))

    def behind(env: TwoHands) -> np.ndarray:
        return beside(pulled_out(env) + CLEAR, ABOVE)

    def lowered(env: TwoHands) -> np.ndarray:
        return beside(pulled_out(env) + CLEAR, PUSHING)

    phases = (
        Phase(behind, near=0.02, aside=0.008),
        Phase(lowered, near=0.012, aside=0.004),
        Phase(lambda env: beside(-0.006, PUSHING), near=0.001, patience=40, aside=0.001),
    )
    return Script(env, phases, rng)


def _place(env: TwoHands, rng: np.random.Generator) -> np.ndarray:
    chosen: str = env.config.direction  # type: ignore[attr-defined]
    either = rng.choice((-1.0, 1.0))  # drawn even where it is given, so that the rest of the scene is the same
    side = SIDES.get(chosen, float(either))
    env.data.joint("drawer").qpos[0] = side * rng.uniform(NEAREST, FURTHEST)
    return np.array([side])


def _apply(env: TwoHands, facts: np.ndarray) -> None:
    """Lets the drawer stop where it is shut, which is where its way ends."""
    env.model.joint("drawer").range[:] = (0.0, 0.2) if facts[0] > 0 else (-0.2, 0.0)


def _solved(env: TwoHands) -> bool:
    return pulled_out(env) < SHUT


def _score(env: TwoHands) -> float:
    return float(np.clip(1.0 - pulled_out(env) / FURTHEST, 0.0, 1.0))


TASK = Task("drawer", OBJECTS, ("drawer",), _place, _solved, _score, joints=("drawer",), n_facts=1, apply=_apply)
