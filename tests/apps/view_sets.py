"""A small set with everything the viewer shows: cameras, action, observations, states of lift, bands, a clock, a flag."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robolearn.core import SOURCES, ArraySpec, Flag, Spec
from robolearn.data.store import EpisodeSet

STEPS = (40, 25, 25)
HZ = 20.0
_CAMERAS = ("front_image", "wrist_image")
_SPEC = Spec(
    {
        "eef_pos": ArraySpec((3,), names=("x", "y", "z"), unit="m", frame="world"),
        "gripper": ArraySpec((1,), names=("opening",), unit="m"),
        **{key: ArraySpec((24, 32, 3), "uint8") for key in _CAMERAS},
    },
    ArraySpec((4,), names=("x", "y", "z", "gripper")),
    HZ,
)


def make(path: Path, *, states: bool = True) -> EpisodeSet:
    """Returns a set of three short episodes; a picture of row k has the colour (k, episode, camera)."""
    extra = {
        "source": ArraySpec((1,), "int8"),
        "flags": ArraySpec((1,), "int32"),
        "t_monotonic": ArraySpec((1,), "int64", unit="ns"),
    }
    rows = _states()
    if states:
        extra["sim_state"] = ArraySpec(rows.shape[1:], "float64")
    task = "lift" if states else ""
    made = EpisodeSet.create(path, _SPEC, task=task, env={}, extra=extra, durable=False)
    rng = np.random.default_rng(0)
    for index, steps in enumerate(STEPS):
        data = _episode(index, steps, rng)
        if states:
            data["sim_state"] = rows[:steps]
        made.append(data, seed=index, success=index != 1)
    return made


def _states() -> np.ndarray:
    """Returns states of lift as robosuite stores them, [time, qpos, qvel]: the arm turns about its base."""
    arm, fingers, cube = [0, 0.2, 0, -2.6, 0, 2.9, 0.8], [0.02, -0.02], [0, 0, 0.83, 1, 0, 0, 0]
    states = np.zeros((max(STEPS), 1 + 16 + 15))
    states[:, 0] = np.arange(len(states)) / HZ
    states[:, 1:17] = [*arm, *fingers, *cube]
    states[:, 1] = 0.02 * np.arange(len(states))
    return states


def _episode(index: int, steps: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    row = np.arange(steps)
    walk = np.cumsum(rng.normal(0, 0.01, (steps, 3)), axis=0)
    data = {
        "eef_pos": walk.astype(np.float32),
        "gripper": (0.04 + 0.04 * np.sin(row / 5))[:, None].astype(np.float32),
        "action": np.concatenate([walk + 0.01, np.sign(np.sin(row / 5))[:, None]], axis=1).astype(np.float32),
        "source": np.where(row < steps // 2, SOURCES.index("policy"), SOURCES.index("operator"))[:, None].astype(np.int8),
        "flags": np.where((row > 10) & (row < 15), int(Flag.INTERVENTION), 0)[:, None].astype(np.int32),
        "t_monotonic": (row * 1e9 / HZ + (row >= 20) * 2e8)[:, None].astype(np.int64),  # late by 0.2 s at row 20
    }
    for camera, key in enumerate(_CAMERAS):
        picture = np.zeros((steps, 24, 32, 3), np.uint8)
        picture[:] = np.stack([60 + row, np.full(steps, 60 + index), np.full(steps, 60 + camera)], axis=1)[:, None, None]
        data[key] = picture
    return data
