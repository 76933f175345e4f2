"""The drawn human hand of the bench: 21 landmarks of a real hand, posed so that thumb and index hold what the gripper holds.

The template is a mean of MediaPipe's world landmarks of a real clip (assets/hand_landmarks.json says which), its last three
fingers curled. Wrist, thumb and index are laid on the gripper's five points as well as a rigid motion can, then thumb and index
bend until their tips are at the fingertips (FABRIK, Aristidou and Lasenby 2011). A left hand is the mirrored right one.
"""

from __future__ import annotations

import json
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

import mujoco
import numpy as np

from robolearn import geometry
from sim_envs._two_hands_scene import FINGER_LENGTH, OPEN_HALF, TIGHTEST_HALF, Bone

TEMPLATE = Path(__file__).parent / "assets" / "hand_landmarks.json"
SCALE = 1.3  # of the template: a wrist to middle fingertip of 0.22 m
SIZE_VARIES, OFFSET, TILT = 0.06, 0.004, 0.12  # share, [m], [rad]: how an episode's hand may differ, at most
N_FACTS = 7  # right hand (1 or 0), then in [0, 1): size, offset x, y, z, tilt, skin
N_KNOTS = 17  # openings for which the fingers are bent; between them the landmarks are on straight lines
CURL = (0.9, 1.2, 0.8)  # [rad] of the three joints of a curled finger
WRIST, INDEX_BASE = 0, 5
FINGER, PALM, FOREARM = 0.0115, 0.0155, 0.028  # [m] radii
FOREARM_LENGTH = 0.24  # [m]
CORRESPONDING = (0, 2, 6, 4, 8)  # landmarks of a right hand for the gripper's base, right1, left1, right2, left2
_LIGHT, _DARK = np.array([0.95, 0.78, 0.68]), np.array([0.45, 0.29, 0.20])
_SLEEVE = np.array([0.25, 0.30, 0.42, 1.0])

BONES: tuple[Bone, ...] = (
    *(Bone(a, b, FINGER) for first in (1, 5, 9, 13, 17) for a, b in pairwise(range(first, first + 4))),
    *(Bone(a, b, PALM) for a, b in ((0, 1), (0, 5), (0, 9), (0, 13), (0, 17), (5, 9), (9, 13), (13, 17), (1, 5), (1, 9))),
    Bone(WRIST, -1, FOREARM),  # -1: the elbow's end
)


def drawn_facts(rng: np.random.Generator, hand: Literal["right", "left", "any"]) -> np.ndarray:
    """Returns the numbers (7,) that make an episode's hand: whether it is the right one, then shares in [0, 1)."""
    either = float(rng.integers(2))
    right = {"right": 1.0, "left": 0.0}.get(hand, either)
    return np.concatenate([[right], rng.uniform(size=N_FACTS - 1)])


def gripper_points(half: float) -> np.ndarray:
    """Returns the five points (5, 3) [m] of a gripper in its own frame: base, right1, left1, right2, left2 (MT-pi's layout)."""
    near, far = FINGER_LENGTH / 2, FINGER_LENGTH
    return np.array([[0.0, 0.0, 0.0], [0.0, -half, near], [0.0, half, near], [0.0, -half, far], [0.0, half, far]])


def posed(half: float, facts: np.ndarray) -> np.ndarray:
    """Returns the 21 landmarks (21, 3) [m] in the gripper's frame, fingertips `half` [m] from the middle."""
    right, size, *offset, tilt, _ = facts.tolist()
    knots, shapes = _bent(SCALE * (1.0 + SIZE_VARIES * (2.0 * size - 1.0)))
    place = np.clip((half - knots[0]) / (knots[1] - knots[0]), 0.0, N_KNOTS - 1.001)
    below, share = int(place), place - int(place)
    points = (1.0 - share) * shapes[below] + share * shapes[below + 1]
    middle = np.array([0.0, 0.0, FINGER_LENGTH])  # the tips stay about where they are
    lean = geometry.matrix_from_rotvec([0.0, TILT * (2.0 * tilt - 1.0), 0.0])
    points = (points - middle) @ lean.T + middle + OFFSET * (2.0 * np.array(offset) - 1.0)
    return points if right > 0.5 else points * np.array([1.0, -1.0, 1.0])


def place(model: mujoco.MjModel, data: mujoco.MjData, points: np.ndarray) -> None:
    """Puts the capsules between the landmarks (21, 3) [m], for the next picture."""
    straight, up = _unit(points[WRIST] - points[9]), np.array([0.0, 0.0, 1.0])  # a wrist bends, and people keep the elbow up
    elbow = points[WRIST] + FOREARM_LENGTH * _unit(straight + 2.0 * up)
    ends = np.vstack([points, elbow])
    first = model.geom("bone_0").id
    for k, bone in enumerate(BONES):
        start, end = ends[bone.start], ends[bone.end]
        length = float(np.linalg.norm(end - start))
        model.geom_size[first + k, 1] = length / 2
        model.geom_rbound[first + k] = length / 2 + bone.radius
        data.geom_xpos[first + k] = (start + end) / 2
        data.geom_xmat[first + k] = _along(end - start).ravel()


def colour(model: mujoco.MjModel, facts: np.ndarray) -> None:
    """Gives the capsules the skin of this episode, and the forearm a sleeve."""
    first = model.geom("bone_0").id
    model.geom_rgba[first : first + len(BONES), :3] = _LIGHT + facts[-1] * (_DARK - _LIGHT)
    model.geom_rgba[first + len(BONES) - 1] = _SLEEVE


@lru_cache(maxsize=256)
def _bent(scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns openings (n,) [m] and the right hand's landmarks (n, 21, 3) [m] in the gripper's frame at each of them."""
    points = _template() * scale
    targets = gripper_points(OPEN_HALF)
    for _ in range(8):  # bending moves what the fit stands on
        points = _laid_on(points, targets)
        points = _pinched(points, OPEN_HALF)
    knots = np.linspace(TIGHTEST_HALF, OPEN_HALF, N_KNOTS)
    return knots, np.stack([_pinched(points, half) for half in knots])


@lru_cache(maxsize=1)
def _template() -> np.ndarray:
    """Returns the landmarks (21, 3) [m] of a right hand, middle, ring and little finger curled."""
    points = np.array(json.loads(TEMPLATE.read_text())["landmarks"])
    along, across = points[9] - points[WRIST], points[17] - points[INDEX_BASE]
    axis = _unit(np.cross(along, np.cross(along, across)))  # fingers turn about it towards the palm
    for first in (9, 13, 17):
        for joint, angle in enumerate(CURL, start=first):
            rest = slice(joint + 1, first + 4)
            points[rest] = (points[rest] - points[joint]) @ geometry.matrix_from_rotvec(angle * axis).T + points[joint]
    return points


def _laid_on(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns the landmarks moved rigidly so that the five corresponding ones are nearest `targets` (5, 3) (Kabsch 1976)."""
    source = points[list(CORRESPONDING)]
    from_middle, to_middle = source.mean(axis=0), targets.mean(axis=0)
    u, _, vt = np.linalg.svd((source - from_middle).T @ (targets - to_middle))
    turn = vt.T @ np.diag([1.0, 1.0, np.sign(np.linalg.det(vt.T @ u.T))]) @ u.T
    return (points - from_middle) @ turn.T + to_middle


def _pinched(points: np.ndarray, half: float) -> np.ndarray:
    """Returns the landmarks with thumb and index bent until their tips are at the gripper's, where they reach that far."""
    points, targets = points.copy(), gripper_points(half)
    points[1:5] = _reach(points[1:5], targets[3])
    points[5:9] = _reach(points[5:9], targets[4])
    return points


def _reach(chain: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the joints (n, 3) of a chain with the same bones and the last joint at `target`, or as near as it reaches."""
    chain, lengths = chain.copy(), np.linalg.norm(np.diff(chain, axis=0), axis=1)
    root, reach = chain[0].copy(), 0.999 * lengths.sum()
    if np.linalg.norm(target - root) > reach:
        target = root + reach * _unit(target - root)
    for _ in range(30):
        chain[-1] = target
        for i in range(len(chain) - 2, -1, -1):
            chain[i] = chain[i + 1] + lengths[i] * _unit(chain[i] - chain[i + 1])
        chain[0] = root
        for i in range(1, len(chain)):
            chain[i] = chain[i - 1] + lengths[i - 1] * _unit(chain[i] - chain[i - 1])
    return chain


def _along(direction: np.ndarray) -> np.ndarray:
    """Returns a rotation (3, 3) whose z is the direction (3,), as a capsule's axis."""
    z = _unit(direction)
    x = _unit(np.cross((0.0, 1.0, 0.0) if abs(z[1]) < 0.9 else (1.0, 0.0, 0.0), z))
    return np.stack([x, np.cross(z, x), z], axis=1)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.sqrt(vector @ vector)), 1e-12)
