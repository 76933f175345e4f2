"""A policy that needs no network, in a file of its own: the process that plans with it starts in a third of a second."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolearn.core import ArraySpec, Ask, Chunk, Obs, Spec

HOME = np.array([0.0, 0.0, 0.0, -1.57, 0.0, 1.57, 0.785])
NAMES = tuple(f"q{i}" for i in range(7))
OBS = {"joint_pos": ArraySpec((7,), names=NAMES, unit="rad"), "gripper": ArraySpec((1,), names=("opening",), unit="m")}
SPEC = Spec(OBS, ArraySpec((8,), names=(*NAMES, "gripper")), 20.0, codec="joint_abs", execute=4)


@dataclass
class Waver:
    """A policy that turns the first joint to and fro; from a tick on, `bad` makes its plans NaN, `ill` ends its process.

    drift: where its actions are poses, it moves the hand along y by so much a tick [m].
    """

    spec: Spec = SPEC
    bad: int = -1
    ill: int = -1
    drift: float = 0.0
    tick: int = -1

    def reset(self, seed: int | None = None) -> None:
        del seed
        self.tick = -1

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        del applied
        self.tick, self.obs = self.tick + 1, obs

    def plan(self, ask: Ask = Ask()) -> Chunk:
        del ask
        if 0 <= self.ill <= self.tick:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.drift:
            actions = np.tile(np.concatenate([self.obs["eef_pos"], self.obs["eef_rot6d"], [-1.0]]).astype(np.float32), (12, 1))
            actions[:, 1] += self.drift * np.arange(1, 13)
            return Chunk(actions, self.tick)
        actions = np.tile(np.append(HOME, -1.0).astype(np.float32), (12, 1))
        actions[:, 0] += 0.1 * np.sin(0.1 * (self.tick + 1 + np.arange(12))).astype(np.float32)
        if 0 <= self.bad <= self.tick < self.bad + 20:
            actions[5] = np.nan
        return Chunk(actions, self.tick)


def waver(**fields: Any) -> Waver:
    """Returns the policy; a function of a module, as another process wants it."""
    return Waver(**fields)
