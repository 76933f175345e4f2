"""How the operator's torso lies in the robot's base frame: `base_from_torso` (3, 3), one per arm.

    upright(yaw)          base z up: a humanoid whose arm base is the torso (GR1), and table arms in mode C with a clutch
    humanoid("right")     an arm mounted sideways: its base z points away from the body, so a hanging arm is off joint 1's pole
    calibrated(...)       TRIAD: the operator's rest pose becomes the robot's home; motion is then not congruent in space

A table arm cannot hang: u = -z lies outside the limits of joint 2 and on the pole. So a single table-top arm takes mode C
(exact hand pose, human elbow plane) with a relative clutch, and `calibrated` where axis mode is wanted all the same.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from robolearn import geometry
from robolearn.errors import BadInput

Array = np.ndarray
Side = Literal["right", "left"]
TIP_ALONG_Z = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
"""A robot hand whose z points to its tip (robosuite's grippers), in the human hand's frame: tip = fingers, y = y.

The target of the robot's hand body is base_from_torso @ hand @ TIP_ALONG_Z.
"""
_PARALLEL = 0.05  # [rad]: below this a straight arm leaves the turn about it open


def upright(yaw: float = 0.0) -> Array:
    """Returns base_from_torso (3, 3) of a base with z up, in which the operator faces `yaw` [rad]."""
    return geometry.rotation_z(yaw)


def humanoid(side: Side) -> Array:
    """Returns base_from_torso (3, 3) of a base whose x is forward and whose z points away from the body on that side."""
    if side not in ("right", "left"):
        raise BadInput(f"mount side: want right or left, got '{side}'")
    sign = 1.0 if side == "right" else -1.0
    return np.array([[1.0, 0.0, 0.0], [0.0, 0.0, sign], [0.0, -sign, 0.0]])


def triad(first: ArrayLike, second: ArrayLike) -> Array:
    """Returns the frame (3, 3) with x along `first` and z along first x second; BadInput where they are nearly parallel."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    normal = np.cross(a, b)
    size = np.linalg.norm(a) * np.linalg.norm(b)
    if not np.linalg.norm(normal) > np.sin(_PARALLEL) * size:
        raise BadInput("calibration: want a bent elbow (3 degrees or more), got upper and lower arm in one line; bend it")
    x, z = a / np.linalg.norm(a), normal / np.linalg.norm(normal)
    return np.stack([x, np.cross(z, x), z], axis=-1)


def calibrated(rest: tuple[Array, Array], home: tuple[Array, Array]) -> Array:
    """Returns base_from_torso (3, 3) that lays the operator's (upper, lower) at rest on the robot's at home (TRIAD).

    Upper arms agree exactly, and so do the elbow planes; lower arms do where both elbows are bent alike.
    """
    return triad(*home) @ triad(*rest).T
