"""From named points of a body to limbs: MediaPipe pose, OpenXR/WebXR body joints, or points under our own names.

Points come in any right-handed frame, in metres; limbs leave in the torso frame (x forward, y left, z up), so that where the
person stands and how the camera is turned does not matter. Our names of one side, with "right_" or "left_" before each:
shoulder, elbow, wrist, index, pinky; and `below`, any point under the shoulders.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from robolearn import geometry
from robolearn.errors import ArrayMismatch, BadInput
from robolearn.teleop.human import Limb

Array = np.ndarray
Side = Literal["right", "left"]
PARTS = ("shoulder", "elbow", "wrist", "index", "pinky")
MEDIAPIPE = {"shoulder": 11, "elbow": 13, "wrist": 15, "pinky": 17, "index": 19, "hip": 23}
"""Places of the left side in MediaPipe's 33 pose landmarks; the right side comes one later."""
ROBOT_FROM_XR = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""OpenXR and WebXR axes (x right, y up, z back) in ours (x forward, y left, z up): x = -z, y = -x, z = y."""
XR = {
    "shoulder": "{}-arm-upper",
    "elbow": "{}-arm-lower",
    "wrist": "{}-hand-wrist",
    "index": "{}-hand-index-phalanx-proximal",
    "pinky": "{}-hand-little-phalanx-proximal",
}
"""Names of the WebXR body and hand joints; OpenXR's are the same in capitals with underscores."""


def limb(points: Mapping[str, ArrayLike], side: Side, confidence: float = 1.0) -> Limb:
    """Returns the limb of `side` in the torso frame; the hand follows the forearm where index and pinky are not given."""
    needed = ("right_shoulder", "left_shoulder", f"{side}_elbow", f"{side}_wrist", "below")
    for name in needed:
        if name not in points:
            raise BadInput(f"points of the {side} arm: no '{name}' (want {', '.join(needed)}; have {', '.join(points)})")
    torso_from_world = geometry.inverse(geometry.torso_frame(points["right_shoulder"], points["left_shoulder"], points["below"]))
    shoulder, elbow, wrist = (moved(torso_from_world, points[f"{side}_{part}"]) for part in PARTS[:3])
    if f"{side}_index" in points and f"{side}_pinky" in points:
        hand = geometry.hand_frame(wrist, *(moved(torso_from_world, points[f"{side}_{part}"]) for part in PARTS[3:]))
    else:
        hand = hand_of_forearm(elbow, wrist)
    return Limb(shoulder, elbow, wrist, hand, confidence)


def moved(b_from_a: Array, point: ArrayLike) -> Array:
    """Returns a point (3,) [m] of frame a in frame b."""
    return b_from_a[:3, :3] @ np.asarray(point, dtype=float) + b_from_a[:3, 3]


def hand_of_forearm(elbow: Array, wrist: Array) -> Array:
    """Returns the hand (3, 3) that goes on straight from the forearm, thumb up (forward where the forearm is upright)."""
    x = (wrist - elbow) / np.linalg.norm(wrist - elbow)
    thumb = np.array([0.0, 0.0, 1.0]) if abs(x[2]) < 0.95 else np.array([1.0, 0.0, 0.0])
    return geometry.hand_frame(np.zeros(3), x + 0.1 * thumb, x - 0.1 * thumb)


def limbs_from_mediapipe(landmarks: Array) -> tuple[Limb, Limb]:
    """Returns the right and the left limb of MediaPipe world landmarks (33, 4), x y z [m] and visibility.

    A limb's confidence is the least visibility of shoulder, elbow and wrist.
    """
    landmarks = np.asarray(landmarks, dtype=float)
    if landmarks.shape != (33, 4):
        raise ArrayMismatch(f"pose landmarks: want (33, 4) with x y z visibility, got {landmarks.shape}")
    points: dict[str, ArrayLike] = {
        f"{side}_{part}": landmarks[MEDIAPIPE[part] + later, :3] for later, side in enumerate(("left", "right")) for part in PARTS
    }
    hip = MEDIAPIPE["hip"]
    points["below"] = (landmarks[hip, :3] + landmarks[hip + 1, :3]) / 2
    seen = [[landmarks[MEDIAPIPE[part] + later, 3] for part in PARTS[:3]] for later in (0, 1)]
    return limb(points, "right", float(min(seen[1]))), limb(points, "left", float(min(seen[0])))


def limb_from_openxr(joints: Mapping[str, ArrayLike], side: Side) -> Limb:
    """Returns the limb of `side` from OpenXR or WebXR joint positions (3,) [m] by name, in any one reference space."""
    named = {name.lower().replace("_", "-"): ROBOT_FROM_XR @ np.asarray(place, dtype=float) for name, place in joints.items()}
    points: dict[str, ArrayLike] = {
        f"{each}_{part}": named[XR[part].format(each)]
        for each in ("right", "left")
        for part in PARTS
        if XR[part].format(each) in named
    }
    if "hips" in named:
        points["below"] = named["hips"]
    return limb(points, side)
