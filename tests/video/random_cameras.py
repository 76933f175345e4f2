"""Cameras for property tests: any lens and any standpoint that sees the workspace."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from robolearn import geometry
from robolearn.core import Camera

LENS = (-0.28, 0.07, 0.0002, 0.00002, 0.0)  # the lens of a common stereo example


def camera_at(eye: np.ndarray, focal_px: float = 605.0, size: tuple[int, int] = (640, 480), **rest: object) -> Camera:
    """Returns the camera at `eye` (3,) [m], off the z axis, that looks at the origin, upright."""
    z = -eye / np.linalg.norm(eye)
    x = np.cross(z, (0.0, 0.0, 1.0))
    x = x / np.linalg.norm(x)
    pose = geometry.pose(eye, np.stack([x, np.cross(z, x), z], axis=-1))
    matrix = ((focal_px, 0.0, (size[0] - 1) / 2), (0.0, focal_px, (size[1] - 1) / 2), (0.0, 0.0, 1.0))
    return Camera(size, matrix, world_from_camera=tuple(map(tuple, pose.tolist())), **rest)


@st.composite
def camera_pairs(draw: st.DrawFn) -> tuple[Camera, Camera]:
    """Draws two cameras 0.6 to 2 m from the origin, 15 to 120 degrees apart, of their own focal lengths."""
    start = draw(st.floats(-np.pi, np.pi))
    apart = np.radians(draw(st.floats(15, 120)))
    found = []
    for azimuth in (start, start + apart):
        far, up, focal = draw(st.floats(0.6, 2.0)), draw(st.floats(-0.3, 0.8)), draw(st.floats(200, 1500))
        found.append(camera_at(np.array([far * np.cos(azimuth), far * np.sin(azimuth), up]), focal))
    return found[0], found[1]
