"""Where the gripper was in each picture: a file beside the pictures of a hand-eye calibration.

    JSON: {"poses": [{"picture": "left_001.png", "base_from_gripper": [[...], [...], [...], [0, 0, 0, 1]]},
                     {"picture": "left_002.png", "position": [x, y, z], "quat_wxyz": [w, x, y, z]}, ...]}
    NPZ:  picture (n,) text, base_from_gripper (n, 4, 4)

Metres. A pose belongs to the pictures of every view whose names end in the same number.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robolearn import geometry
from robolearn.apps._board_flags import Shots, moment
from robolearn.errors import BadInput
from robolearn.video.calibration.boards import Sighting

_SKEW = 1e-3  # by which a rotation may miss being one


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns base_from_gripper (4, 4) [m] by moment; BadInput names the pose that is none."""
    if not path.is_file():
        raise BadInput(f"{path}: want the gripper's poses, got no such file")
    rows = _from_npz(path) if path.suffix == ".npz" else _from_json(path)
    found: dict[str, np.ndarray] = {}
    for picture, pose in rows:
        key, turn = moment(picture), pose[:3, :3]
        if pose.shape != (4, 4) or not np.isfinite(pose).all() or np.abs(turn @ turn.T - np.eye(3)).max() > _SKEW:
            raise BadInput(f"{path}: {picture}: want base_from_gripper as a rigid 4 x 4 in metres, got {pose.tolist()}")
        if np.linalg.det(turn) < 0:
            raise BadInput(f"{path}: {picture}: want a rotation, got a mirror image: is one axis turned round?")
        if key in found:
            raise BadInput(f"{path}: {picture}: want one pose for each picture, got two for number {key}")
        found[key] = pose
    return found


def together(poses: Mapping[str, np.ndarray], shots: Shots, path: Path, least: int = 6) -> tuple[np.ndarray, list[Sighting]]:
    """Returns poses (n, 4, 4) and sightings of the n pictures that have a pose and show at least so many corners."""
    keys = [key for key, seen in shots.sightings.items() if key in poses and len(seen) >= least]
    if not keys:
        some = ", ".join(list(shots.sightings)[:3])
        raise BadInput(f"{path}: want poses for pictures that show the board (numbers {some}, ...), got none that fit")
    return np.stack([poses[key] for key in keys]), [shots.sightings[key] for key in keys]


def _from_json(path: Path) -> list[tuple[str, np.ndarray]]:
    try:
        values = json.loads(path.read_text())
        return [(str(row["picture"]), _pose(row)) for row in values["poses"]]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f'{path}: want {{"poses": [{{"picture": ..., "base_from_gripper": 4 x 4}}, ...]}}, or position and quat_wxyz, '
            f"got another file ({type(error).__name__}: {error})"
        ) from error


def _pose(row: Mapping[str, Any]) -> np.ndarray:
    if "base_from_gripper" in row:
        return np.array(row["base_from_gripper"], dtype=float)
    return geometry.pose(row["position"], geometry.matrix_from_quat_wxyz(np.array(row["quat_wxyz"], dtype=float)))


def _from_npz(path: Path) -> list[tuple[str, np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as held:
            pictures, poses = held["picture"], held["base_from_gripper"]
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise BadInput(
            f"{path}: want an .npz with picture (n,) and base_from_gripper (n, 4, 4), got another ({error})"
        ) from error
    return [(str(picture), np.asarray(pose, float)) for picture, pose in zip(pictures, poses, strict=True)]
