"""The calibration file: one JSON with every view's lens and place, what they came from and how well they fit.

    {"format": "robolearn cameras", "version": 1, "date": ..., "world": "robot base", "board": {...},
     "views": {"left": {"size": [640, 480], "K": [[...], ...], "dist": [...], "world_from_camera": [[...], ...],
                        "rms_px": 0.24, "pictures": [{"name": "left01.jpg", "corners": 54, "rms_px": 0.19}, ...],
                        "gripper_from_camera": [[...], ...]}},
     "found": {"left": {...}}}

A camera's `hash` is the beginning of the SHA-256 of the file that it was read from; every episode keeps it with its cameras, so
that it can be told which calibration a picture belongs to. Files of other programs are read by `foreign`.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.core import Camera
from robolearn.errors import AlreadyExists, BadInput
from robolearn.video import pinhole
from robolearn.video.calibration import foreign
from robolearn.video.calibration.boards import Board

FORMAT, VERSION = "robolearn cameras", 1
_SAME_SHAPE = 0.005  # by which width / height of two pictures may differ and still be the same picture scaled


@dataclass(frozen=True)
class Picture:
    """A picture that was used. corners: how many it showed; rms_px: of their residuals."""

    name: str
    corners: int
    rms_px: float


@dataclass(frozen=True)
class View:
    """One camera. rms_px: of its lens, None where the file does not say; gripper_from_camera: rows, empty: not on a hand."""

    camera: Camera
    rms_px: float | None = None
    pictures: tuple[Picture, ...] = ()
    gripper_from_camera: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Calibration:
    """All views. world: what the frame is that poses are in ("camera left", "robot base"); found: how each place was measured."""

    views: Mapping[str, View]
    world: str = ""
    board: Board | None = None
    found: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    date: str = ""
    hash: str = ""

    @property
    def cameras(self) -> dict[str, Camera]:
        """Returns the cameras by view."""
        return {name: view.camera for name, view in self.views.items()}


def load_cameras(path: Path, trust: bool = False, size: tuple[int, int] | None = None) -> dict[str, Camera]:
    """Returns the cameras in a calibration file by view, each with the file's hash; see `load`."""
    return load(path, trust, size).cameras


def load(path: Path, trust: bool = False, size: tuple[int, int] | None = None) -> Calibration:
    """Returns a calibration: ours, OpenCV's, or the pickled ones of MT-pi and Point Policy, which are read with `trust` only.

    size: (width, height) [px] of the pictures it was made with, for files that do not say it.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput(f"{path}: there is no such calibration; `robolearn calibrate cameras` makes one")
    if path.is_file() and path.suffix == ".json":
        calibration = _ours(path)
    else:
        read = foreign.read(path, trust, size)
        calibration = Calibration({name: View(camera) for name, camera in read.cameras.items()}, read.world)
    mark = hash_of(path)
    views = {name: replace(view, camera=replace(view.camera, hash=mark)) for name, view in calibration.views.items()}
    for name, view in views.items():
        _check(view.camera, f"{path}: {name}")
    return replace(calibration, views=views, hash=mark)


def save(path: Path, calibration: Calibration, overwrite: bool = False) -> Calibration:
    """Writes a calibration and returns it as it is read back, with its hash; AlreadyExists unless `overwrite`."""
    path = Path(path)
    if path.exists() and not overwrite:
        raise AlreadyExists(path, "calibration")
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(_to_json(replace(calibration, date=calibration.date or now)), indent=1, allow_nan=False) + "\n")
    os.replace(part, path)
    return load(path)


def save_cameras(path: Path, cameras: Mapping[str, Camera], world: str = "", overwrite: bool = False) -> Calibration:
    """Writes cameras that are known otherwise (a simulator's), and returns the calibration with its hash."""
    return save(path, Calibration({name: View(camera) for name, camera in cameras.items()}, world), overwrite)


def fitted(camera: Camera, size: tuple[int, int], who: str) -> tuple[Camera, str]:
    """Returns the camera for pictures of `size` (width, height) [px], and what was done, "" where nothing was.

    A picture of another size but the same shape is the same picture scaled; one of another shape was cut or squeezed: BadInput.
    """
    if tuple(size) == tuple(camera.size):
        return camera, ""
    ratio = size[0] / size[1] * camera.size[1] / camera.size[0]
    was, came = ("{} x {}".format(*pixels) for pixels in (camera.size, size))
    if abs(ratio - 1) > _SAME_SHAPE:
        raise BadInput(f"{who}: want pictures of {was}, as calibrated, or of the same shape, got {came}; calibrate for this size")
    return pinhole.resized(camera, size), f"{who}: calibrated at {was}, scaled to {came}"


def hash_of(path: Path) -> str:
    """Returns the first 16 hex digits of the SHA-256 of a file, or of the files of a folder in the order of their names."""
    digest = hashlib.sha256()
    for part in sorted(path.glob("*.npy")) if path.is_dir() else [path]:
        digest.update(part.read_bytes())
    return digest.hexdigest()[:16]


def _ours(path: Path) -> Calibration:
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise BadInput(f"{path}: want the JSON of a calibration, got text that is none ({error})") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise BadInput(
            f'{path}: want {{"format": "{FORMAT}", ...}}, as `robolearn calibrate cameras` writes it, got another file'
        )
    if values.get("version", 0) > VERSION:
        raise BadInput(f"{path}: want version {VERSION} or older, got {values['version']}; update robolearn")
    try:
        views = {name: _view(view) for name, view in values["views"].items()}
        board = values.get("board")
        made = Board(**{**board, "size": tuple(board["size"])}) if board else None
        return Calibration(views, values.get("world", ""), made, values.get("found", {}), values.get("date", ""))
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: want views with size and K, and a board, got a file without {error}") from error


def _view(values: Mapping[str, Any]) -> View:
    pictures = tuple(Picture(**picture) for picture in values.get("pictures", ()))
    grip = tuple(tuple(row) for row in values.get("gripper_from_camera", ()))
    return View(Camera.from_json(values), values.get("rms_px"), pictures, grip)


def _to_json(calibration: Calibration) -> dict[str, Any]:
    views = {}
    for name, view in calibration.views.items():
        lens = view.camera.to_json()
        lens.pop("hash")  # a file cannot hold its own
        extra = {"rms_px": view.rms_px, "pictures": [vars(picture) for picture in view.pictures]}
        grip = {"gripper_from_camera": [list(row) for row in view.gripper_from_camera]} if view.gripper_from_camera else {}
        views[name] = {**lens, **extra, **grip}
    return {
        "format": FORMAT,
        "version": VERSION,
        "date": calibration.date,
        "world": calibration.world,
        "board": None if calibration.board is None else vars(calibration.board),
        "views": views,
        "found": {name: dict(values) for name, values in calibration.found.items()},
    }


def _check(camera: Camera, where: str) -> None:
    """Raises BadInput where a camera read from disk is none."""
    matrix = np.array(camera.K, dtype=float)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or min(matrix[0, 0], matrix[1, 1]) <= 0:
        raise BadInput(f"{where}: want K as 3 x 3 with focal lengths above 0, got {matrix.tolist()}")
    if len(camera.size) != 2 or min(camera.size) < 1:
        raise BadInput(f"{where}: want a size (width, height) above 0, got {camera.size}")
    if camera.world_from_camera:
        pose = np.array(camera.world_from_camera, dtype=float)
        turn = pose[:3, :3] if pose.shape == (4, 4) else np.zeros((3, 3))
        if np.linalg.norm(turn @ turn.T - np.eye(3)) > 1e-3 or np.linalg.det(turn) < 0:
            raise BadInput(f"{where}: want world_from_camera as a rigid 4 x 4, got {pose.tolist()}")
