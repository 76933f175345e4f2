"""Small sets for the tests of robolearn.data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robolearn.core import ArraySpec, Spec
from robolearn.data.store import EpisodeSet

SPEC = Spec(
    {"state": ArraySpec((3,), names=("x", "y", "yaw"), unit="m"), "img": ArraySpec((8, 8, 3), "uint8")}, ArraySpec((2,)), 10.0
)
LENGTHS = (12, 30, 7)


def episode(steps: int, seed: int, spec: Spec = SPEC) -> dict[str, np.ndarray]:
    """Returns random rows of `spec`; state[:, 0] counts the steps."""
    rng = np.random.default_rng(seed)
    data = {"action": rng.standard_normal((steps, *spec.action.shape)).astype(np.float32)}
    for key, array in spec.obs.items():
        shape = (steps, *array.shape)
        data[key] = rng.integers(0, 256, shape, np.uint8) if array.is_image else rng.standard_normal(shape).astype(np.float32)
    if "state" in data:
        data["state"][:, 0] = np.arange(steps)
    return data


def make(path: Path, lengths: tuple[int, ...] = LENGTHS, spec: Spec = SPEC, **options: Any) -> EpisodeSet:
    """Returns a set of random episodes, their index as seed."""
    made = EpisodeSet.create(path, spec, task="toy", env={"max_steps": 50}, meta={"robot": "none"}, durable=False, **options)
    for seed, steps in enumerate(lengths):
        made.append(episode(steps, seed, spec), seed=seed)
    return made
