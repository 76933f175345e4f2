"""Scripted experts of the memory tasks on an arm: scripts on the inner body that know the hidden fact and wait for the go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim_envs._memory_arm import MemoryArm
from sim_envs._robosuite import RobosuiteEnv
from sim_envs._script import Phase, Script


def scripted(env: MemoryArm, phases: Sequence[Phase], rng: np.random.Generator) -> Script:
    """Returns the expert that goes through `phases` on the body inside `env`, as a mind for `env`."""
    script = Script(env.inner, phases, rng)
    script.spec = env.spec
    return script


def still(env: RobosuiteEnv) -> list[np.ndarray]:
    """Returns every hand [(4, 4)] where it is."""
    return [env.eef_pose(k) for k in range(len(env.arms))]


def wait_for_go(env: MemoryArm, grip: float) -> Phase:
    """Returns the phase that stays where it is until commands move the arm again."""
    return Phase(still, grip, until=lambda _: env.free, patience=env.config.max_steps)
