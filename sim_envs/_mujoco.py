"""What every MuJoCo body needs: its whole state as one vector, pictures without a window, and calibrated cameras."""

from __future__ import annotations

import atexit
import contextlib
import ctypes.util
import importlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolearn.errors import ArrayMismatch, MissingDependency, UnknownName

if "MUJOCO_GL" not in os.environ:  # mujoco chooses its GL library when it is imported
    os.environ["MUJOCO_GL"] = next(
        (gl for gl, library in (("egl", "EGL"), ("osmesa", "OSMesa")) if ctypes.util.find_library(library)), "disabled"
    )

import mujoco

from robolearn.core import Camera

STATE = mujoco.mjtState.mjSTATE_INTEGRATION
HIDDEN = 5  # a geom group that is not drawn
CV_FROM_GL = np.diag([1.0, -1.0, -1.0])  # MuJoCo's camera looks along -z with y up


@dataclass(frozen=True)
class Look:
    """How pictures are drawn: what costs time on a software renderer can be left out (samples: 4 smooths edges)."""

    reflections: bool = True
    samples: int = 4


FAST = Look(reflections=False, samples=0)
SMOOTH = Look(reflections=False)
ROBOSUITE = Look()  # its default


@dataclass(frozen=True)
class View:
    """A camera that no model has: what it looks at [m], from how far [m] and from where [deg]."""

    lookat: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Runs a block with the global generators of numpy and python seeded, and puts them back as they were."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


def read_state(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    """Returns everything the integrator continues from (n,): time, qpos, qvel, warm start, controls, forces, mocap."""
    state = np.empty(mujoco.mj_stateSize(model, STATE))
    mujoco.mj_getState(model, data, state, STATE)
    return state


def write_state(model: mujoco.MjModel, data: mujoco.MjData, state: np.ndarray) -> None:
    """Puts a state (n,) of `read_state` back and computes what follows from it; ArrayMismatch when it is another model's."""
    if state.shape != (mujoco.mj_stateSize(model, STATE),):
        raise ArrayMismatch(f"simulator state: want ({mujoco.mj_stateSize(model, STATE)},), got {state.shape}")
    mujoco.mj_setState(model, data, state, STATE)
    mujoco.mj_forward(model, data)
    mujoco.mj_setState(model, data, state, STATE)  # forward moves the solver's warm start


def camera(model: mujoco.MjModel, data: mujoco.MjData, name: str, size: int) -> Camera:
    """Returns the calibration of one camera for square pictures of `size` px, where it is now; integers are pixels' centres."""
    index = camera_id(model, name)
    focal = 0.5 * size / np.tan(0.5 * np.deg2rad(model.cam_fovy[index]))
    world_from_camera = np.eye(4)
    world_from_camera[:3, :3] = data.cam_xmat[index].reshape(3, 3) @ CV_FROM_GL
    world_from_camera[:3, 3] = data.cam_xpos[index]
    middle = (size - 1) / 2
    K = ((focal, 0.0, middle), (0.0, focal, middle), (0.0, 0.0, 1.0))
    return Camera((size, size), K, world_from_camera=tuple(map(tuple, world_from_camera.tolist())))


def moves(model: mujoco.MjModel, name: str) -> bool:
    """Returns whether a camera is mounted on something that moves."""
    return bool(model.body_weldid[model.cam_bodyid[camera_id(model, name)]] != 0)


def camera_id(model: mujoco.MjModel, name: str) -> int:
    """Returns the index of a camera; UnknownName with the nearest one."""
    index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, name)
    if index < 0:
        raise UnknownName("camera", name, [model.camera(i).name for i in range(model.ncam)])
    return int(index)


class Renderer:
    """Draws pictures of one model, offscreen; the GL context is opened by the first picture."""

    def __init__(self, model: mujoco.MjModel, size: int, look: Look) -> None:
        self.model, self.size, self.look = model, size, look
        self._gl: Any = None

    def _open(self) -> None:
        model, size = self.model, self.size
        try:
            self._gl = _gl_class()(size, size)
            self._gl.make_current()
        except Exception as error:
            raise MissingDependency(
                f"a GL library ({type(error).__name__} with MUJOCO_GL={os.environ['MUJOCO_GL']})",
                "drawing pictures",
                "apt install libegl1 libgl1-mesa-dri libosmesa6",
            ) from error
        saved = model.vis.global_.offwidth, model.vis.global_.offheight, model.vis.quality.offsamples
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        model.vis.quality.offsamples = self.look.samples
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        model.vis.global_.offwidth, model.vis.global_.offheight, model.vis.quality.offsamples = saved
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=2000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = self.look.reflections
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = [0, 1, 0, 0, 0, 0]  # robosuite: group 0 is for collisions, 1 for the eye
        self._option.sitegroup[:] = 0
        self._camera = mujoco.MjvCamera()
        self._rect = mujoco.MjrRect(0, 0, size, size)
        atexit.register(self.close)  # before mujoco ends EGL, after which freeing fails aloud

    def draw(self, data: mujoco.MjData, camera: str | View) -> np.ndarray:
        """Returns the picture (size, size, 3) uint8 that a camera of the model, or a free one, takes now."""
        if self._gl is None:
            self._open()
        self._gl.make_current()
        self._aim(camera)
        model, groups = self.model, self.model.geom_group.copy()
        if not self.look.reflections and isinstance(camera, str):  # a mirror may show what is behind the camera
            model.geom_group[~in_view(model, data, self._camera.fixedcamid)] = HIDDEN
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, self._option, None, self._camera, everything, self._scene)
        model.geom_group[:] = groups
        mujoco.mjr_render(self._rect, self._scene, self._context)
        picture = np.empty((self.size, self.size, 3), np.uint8)
        mujoco.mjr_readPixels(picture, None, self._rect, self._context)
        return picture[::-1].copy()

    def _aim(self, camera: str | View) -> None:
        if isinstance(camera, View):
            self._camera.type = mujoco.mjtCamera.mjCAMERA_FREE
            self._camera.lookat[:], self._camera.distance = camera.lookat, camera.distance
            self._camera.azimuth, self._camera.elevation = camera.azimuth, camera.elevation
        else:
            self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            self._camera.fixedcamid = camera_id(self.model, camera)

    def close(self) -> None:
        """Frees the GL context."""
        if self._gl is not None:
            atexit.unregister(self.close)
            self._context.free()
            self._gl.free()
            self._gl = None


def in_view(model: mujoco.MjModel, data: mujoco.MjData, camera: int) -> np.ndarray:
    """Returns which geoms (ngeom,) may be seen: their bounding sphere reaches into a square picture of this camera."""
    right, up, back = ((data.geom_xpos - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)).T
    radius, slope = model.geom_rbound, np.tan(0.5 * np.deg2rad(model.cam_fovy[camera]))
    beside = (np.maximum(np.abs(right), np.abs(up)) + back * slope) / np.hypot(1.0, slope)  # [m] from the nearest side
    return (radius == 0) | ((back < radius) & (beside < radius))  # a plane has no bound


def _gl_class() -> type:
    """Returns mujoco's context for the library MUJOCO_GL names, also when mujoco was imported before it was named."""
    if os.environ["MUJOCO_GL"] in ("egl", "osmesa"):
        return importlib.import_module(f"mujoco.{os.environ['MUJOCO_GL']}").GLContext
    return mujoco.GLContext
