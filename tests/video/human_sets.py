"""Human motion-track sets with known truth: what an expert's gripper did, done by a hand of 21 points before two cameras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from robolearn import geometry
from robolearn.core import ArraySpec, Camera, Spec
from robolearn.data.store import EpisodeSet
from robolearn.video import _wrist_table, pinhole
from robolearn.video.noise import HandNoise
from sim_envs import _base

VIEWS = ("left", "right")
AFTER = 12  # ticks that a person goes on after the task is solved


def cameras_at(place: Sequence[float]) -> list[Camera]:
    """Returns the two cameras of the wrist table, moved so that they look at `place` [m]."""
    moved = geometry.pose(place, np.eye(3))
    found = []
    for camera in _wrist_table.cameras():
        pose = moved @ np.array(camera.world_from_camera)
        found.append(replace(camera, world_from_camera=tuple(map(tuple, pose.tolist()))))
    return found


def expert_motions(task: str, seeds: Sequence[int]) -> tuple[list[tuple[np.ndarray, np.ndarray, int]], float]:
    """Returns the poses (T, 4, 4) of an expert's hand and whether it was told to close (T,), by seed, and the rate [Hz]."""
    with closing(_base.make(task)) as body:
        return [(*_motion(body, seed), seed) for seed in seeds], body.spec.hz


def _motion(body: Any, seed: int) -> tuple[np.ndarray, np.ndarray]:
    obs = body.reset(seed)
    policy = _base.expert(body, seed)
    policy.reset(seed)
    policy.observe(obs, None)
    poses, closed, left = [], [], AFTER
    for _ in range(body.config.max_steps):
        action = policy.plan().actions[0]
        poses.append(body.eef_pose())
        closed.append(action[-1] > 0)
        step = body.step(action)
        left -= bool(step.success) or left < AFTER
        if left == 0:
            break
        policy.observe(step.obs, step.filtered)
    return np.stack(poses), np.array(closed)


def write(
    path: Path,
    clips: Sequence[tuple[np.ndarray, np.ndarray, int]],
    hz: float,
    cameras: Sequence[Camera],
    noise: HandNoise | None = None,
    pictures: int = 0,
    extra: Mapping[str, ArraySpec] = MappingProxyType({}),
) -> EpisodeSet:
    """Writes a human set of clips (tips' poses (T, 4, 4), closed (T,), seed) done by a right hand, as cameras see it.

    pictures: side of pictures of noise [px], 0: none; extra: vectors that hold ones.
    """
    obs = {f"{kind}/{view}": array for view in VIEWS for kind, array in (
        ("hand", ArraySpec((21, 2), unit="px")), ("tracks", ArraySpec((5, 2), unit="px")), ("valid", ArraySpec((1,), "uint8"))
    )}  # fmt: skip
    obs |= {f"{view}_image": ArraySpec((pictures, pictures, 3), "uint8") for view in VIEWS if pictures}
    spec = Spec(
        {**obs, **extra, "gripper_open": ArraySpec((1,))},
        ArraySpec((0,)),
        hz,
        {f"{view}_image": camera for view, camera in zip(VIEWS, cameras, strict=True)},
    )
    made = EpisodeSet.create(path, spec, task="", env={})
    for poses, closed, seed in clips:
        rng = np.random.default_rng([seed, 9])
        points = _wrist_table.hand(poses, np.where(closed, 0.0, 1.0))
        rows: dict[str, np.ndarray] = {"gripper_open": np.where(closed, 0.0, 1.0)[:, None].astype(np.float32)}
        for view, camera in zip(VIEWS, cameras, strict=True):
            pixels, valid = pinhole.project(camera, points), np.ones(len(points), bool)
            if noise is not None:
                pixels, valid = noise.apply(pixels, rng)
            rows[f"hand/{view}"] = np.nan_to_num(pixels).astype(np.float32)
            rows[f"tracks/{view}"] = rows[f"hand/{view}"][:, :5]
            rows[f"valid/{view}"] = valid[:, None].astype(np.uint8)
        rows |= {key: np.ones((len(points), *array.shape), np.float32) for key, array in extra.items()}
        for key, array in obs.items():
            if array.is_image:
                rows[key] = rng.integers(0, 255, (len(points), *array.shape), dtype=np.uint8)
        made.append(rows, seed=seed, right_hand=1, embodiment="human")
    return made
