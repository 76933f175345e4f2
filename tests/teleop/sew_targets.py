"""Random targets for the retargeting tests."""

from __future__ import annotations

import numpy as np

from robolearn import geometry
from robolearn.teleop.arm import Arm

ARMS = ("panda", "iiwa", "kinova3", "gr1_right", "gr1_left", "sawyer", "baxter_right")


def rotations(rng: np.random.Generator, n: int) -> np.ndarray:
    quat = rng.normal(size=(n, 4))
    return geometry.matrix_from_quat_wxyz(quat / np.linalg.norm(quat, axis=-1, keepdims=True))


def units(rng: np.random.Generator, n: int) -> np.ndarray:
    v = rng.normal(size=(n, 3))
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def inside(arm: Arm, rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.uniform(np.maximum(arm.low, -3.0), np.minimum(arm.high, 3.0), (n, 7))


def gap(q: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(geometry.wrap(q - want)).max())
