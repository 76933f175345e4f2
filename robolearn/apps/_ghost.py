"""The ghost of a reference scene: the first picture of a set, laid over the view so that a scene can be matched to it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import cv2
import numpy as np

from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError
from sim_envs import _base

SHARE = 0.4  # of the ghost in the blend


def first_picture(path: Path, episode: int = 0) -> np.ndarray:
    """Returns what an episode began with, (height, width, 3) uint8: its first state drawn, else its first camera's picture."""
    reference = EpisodeSet.open(path)
    if reference.n_episodes <= episode:
        raise DatasetError(f"{path}: has {reference.n_episodes} episodes, so none is number {episode}")
    first = reference.span(episode)[0]
    if "sim_state" in reference.keys and reference.task in _base.names():
        with closing(_base.make(reference.task, _base.with_cameras(reference.env, ()))) as body:
            body.restore(reference.read("sim_state", first, first + 1)[0])
            return np.array(body.render())
    for key, spec in reference.keys.items():
        if spec.is_image:
            return np.array(reference.read(key, first, first + 1)[0])
    raise DatasetError(f"{path}: holds neither pictures nor states of a known task, so there is no ghost to show")


def blend(view: np.ndarray, ghost: np.ndarray, share: float = SHARE) -> np.ndarray:
    """Returns the view (height, width, 3) uint8 with the ghost, brought to its size, at `share` over it."""
    height, width = view.shape[:2]
    same = ghost if ghost.shape == view.shape else cv2.resize(ghost, (width, height), interpolation=cv2.INTER_AREA)
    mixed = (1 - share) * view.astype(np.float32) + share * same.astype(np.float32)
    return np.asarray(np.rint(mixed), np.uint8)


def write_png(path: Path, picture: np.ndarray) -> None:
    """Writes a picture (height, width, 3) uint8 RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not done:
        raise DatasetError(f"{path}: a picture of shape {picture.shape} cannot be written as PNG")
    path.write_bytes(data.tobytes())
