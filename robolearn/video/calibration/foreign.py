"""Calibrations of other programs: OpenCV's FileStorage (YAML, XML), and the numpy files of MT-pi and Point Policy.

MT-pi (arXiv 2501.06994): a folder with agent{v}_intrinsics.npy (3x3) and transforms_both.npy, a pickled
{agent{v}: {"trc": 3x4 camera_from_robot, "tcr": its inverse}}. Point Policy (arXiv 2502.20391): calib.npy, a pickled
{cam_k: {"int": K, "dist_coeff": D, "ext": 4x4 camera_from_world}}. A pickle is a program, so both want the caller's trust,
and then are read by the restricted unpickler, which runs nothing of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from robolearn import geometry
from robolearn.core import Camera
from robolearn.data.convert import _restricted_unpickle
from robolearn.errors import AlreadyExists, BadInput

_OPENCV = (".yml", ".yaml", ".xml")
_MT_PI = "transforms_both.npy"
_LENS = (("camera_matrix", "K", "M"), ("distortion_coefficients", "dist_coeffs", "D"))
_MAX_BYTES = 1 << 20  # of a calibration
Size = tuple[int, int]


@dataclass(frozen=True)
class Read:
    """What was read. world: whose frame poses are in, "" where there are none."""

    cameras: Mapping[str, Camera]
    world: str = ""


def read(path: Path, trust: bool, size: Size | None) -> Read:
    """Returns the cameras of a foreign file or folder; BadInput lists what can be read."""
    if path.is_file() and path.suffix in _OPENCV:
        return _opencv(path, size)
    if path.is_dir() or path.suffix == ".npy":
        folder = path if path.is_dir() else path.parent
        if not trust:
            raise BadInput(f"{path}: it is a pickle, which may hold a program; want --trust if you know where it comes from")
        if path.is_dir() and not (path / _MT_PI).is_file():
            raise BadInput(f"{path}: want {_MT_PI} in the folder of an MT-pi calibration, got none")
        return _mt_pi(folder, size) if path.is_dir() or path.name == _MT_PI else _point_policy(path, size)
    raise BadInput(
        f"{path}: want a calibration as .json (ours), {', '.join(_OPENCV)} (OpenCV), calib.npy (Point Policy) or a folder with "
        f"{_MT_PI} (MT-pi), got another file"
    )


def save_opencv(path: Path, camera: Camera, overwrite: bool = False) -> None:
    """Writes one camera as OpenCV's FileStorage, its pose (if any) as camera_from_world."""
    if path.exists() and not overwrite:
        raise AlreadyExists(path, "calibration")
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", int(camera.size[0]))
    storage.write("image_height", int(camera.size[1]))
    storage.write("camera_matrix", np.array(camera.K))
    storage.write("distortion_coefficients", np.array(camera.dist or (0.0,) * 5).reshape(1, -1))
    if camera.world_from_camera:
        storage.write("camera_from_world", geometry.inverse(np.array(camera.world_from_camera)))
    storage.release()


def _opencv(path: Path, size: Size | None) -> Read:
    try:
        storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)
    except (cv2.error, SystemError) as error:  # which of them depends on what is wrong
        raise BadInput(f"{path}: want OpenCV's FileStorage, got text that is none") from error
    matrices: dict[str, np.ndarray] = {}
    for name in storage.root().keys() if storage.isOpened() else ():
        node = storage.getNode(name)
        if node.isMap() and node.mat() is not None:
            matrices[name] = np.asarray(node.mat(), float)
    width, height = (storage.getNode(key) for key in ("image_width", "image_height"))
    if not width.empty() and not height.empty():
        size = (int(width.real()), int(height.real()))
    storage.release()
    single, one, two = (_lens(matrices, number) for number in ("", "1", "2"))
    if single is None and (one is None or two is None):
        raise BadInput(
            f"{path}: want camera_matrix and distortion_coefficients (or M1, D1, M2, D2), got {', '.join(matrices) or 'neither'}"
        )
    size = _known(size, path)
    if single is not None:
        pose = matrices.get("camera_from_world")
        where = geometry.inverse(pose) if pose is not None else None
        return Read({"camera": _camera(size, *single, where)}, "world" if pose is not None else "")
    assert one is not None and two is not None
    stereo = "R" in matrices and "T" in matrices
    second = geometry.inverse(geometry.pose(np.ravel(matrices["T"]), matrices["R"])) if stereo else None
    cameras = {"first": _camera(size, *one, np.eye(4) if stereo else None), "second": _camera(size, *two, second)}
    return Read(cameras, "camera first" if stereo else "")


def _lens(matrices: Mapping[str, np.ndarray], number: str) -> tuple[np.ndarray, np.ndarray] | None:
    found = [next((matrices[name + number] for name in names if name + number in matrices), None) for names in _LENS]
    if found[0] is None:
        return None
    return found[0], np.zeros(0) if found[1] is None else found[1]


def _mt_pi(folder: Path, size: Size | None) -> Read:
    transforms = _boxed(folder / _MT_PI)
    cameras = {}
    for name, values in transforms.items():
        lens = folder / f"{name}_intrinsics.npy"
        if not lens.is_file():
            raise BadInput(f"{folder}: want {lens.name} beside {_MT_PI}, got none")
        camera_from_robot = _matrix(values, "trc", (3, 4), f"{folder / _MT_PI}: {name}")
        where = geometry.inverse(np.vstack([camera_from_robot, (0, 0, 0, 1)]))
        cameras[str(name)] = _camera(_known(size, folder), np.load(lens, allow_pickle=False), np.zeros(0), where)
    return Read(cameras, "robot base")


def _point_policy(path: Path, size: Size | None) -> Read:
    cameras = {}
    for name, values in _boxed(path).items():
        where = f"{path}: {name}"
        camera_from_world = _matrix(values, "ext", (4, 4), where)
        lens = _matrix(values, "int", (3, 3), where), np.ravel(values.get("dist_coeff", ()))
        cameras[str(name)] = _camera(_known(size, path), *lens, geometry.inverse(camera_from_world))
    return Read(cameras, "robot base")


def _boxed(path: Path) -> dict[Any, Any]:
    """Returns the dict that `np.save` pickled into a .npy file, without running anything of it."""
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, kind = header(file)
        except (ValueError, EOFError) as error:
            raise BadInput(f"{path}: want a .npy file, got another ({error})") from error
        if shape != () or not kind.hasobject:
            raise BadInput(f"{path}: want a pickled dict of cameras, got an array {kind}{shape}")
        raw = file.read(_MAX_BYTES + 1)
    try:
        held = _restricted_unpickle.load(raw, max_bytes=_MAX_BYTES)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    if not isinstance(held, dict) or not all(isinstance(view, dict) for view in held.values()):
        raise BadInput(f"{path}: want a dict of cameras, each a dict, got {type(held).__name__}")
    return held


def _matrix(values: Mapping[Any, Any], key: str, shape: tuple[int, int], where: str) -> np.ndarray:
    if key not in values:
        raise BadInput(f"{where}: want '{key}', got {', '.join(map(str, values))}")
    try:
        matrix = np.asarray(values[key], dtype=float)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{where}: want '{key}' as numbers ({error})") from error
    if matrix.shape != shape:
        raise BadInput(f"{where}: want '{key}' as {shape[0]} x {shape[1]}, got {matrix.shape}")
    return matrix


def _known(size: Size | None, where: Path) -> Size:
    if size is None:
        raise BadInput(f"{where}: it does not say how large its pictures are; want --size WIDTH HEIGHT, such as --size 640 480")
    return size


def _camera(size: Size, matrix: np.ndarray, dist: np.ndarray, world_from_camera: np.ndarray | None) -> Camera:
    pose = () if world_from_camera is None else tuple(tuple(row) for row in world_from_camera.tolist())
    rows = tuple(tuple(row) for row in np.asarray(matrix, float).tolist())
    return Camera((int(size[0]), int(size[1])), rows, tuple(np.ravel(dist).tolist()), pose)
