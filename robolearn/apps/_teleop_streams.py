"""Targets for `bench teleop`: random poses, and streams of a moving human arm at 60 Hz, bent or through every pole."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from robolearn import geometry
from robolearn.teleop.arm import Arm

Array = np.ndarray
HZ = 60.0


class Target(NamedTuple):
    """What an arm is asked for: directions (3,), hand rotation (3, 3) and position (3,) [m], all in the arm's base frame."""

    upper: Array
    lower: Array
    hand: Array
    position: Array


def inside(arm: Arm, rng: np.random.Generator, n: int) -> Array:
    """Returns joint angles (n, 7) inside the limits, within 3 rad where there are none."""
    return rng.uniform(np.maximum(arm.low, -3.0), np.minimum(arm.high, 3.0), (n, 7))


def target_at(arm: Arm, q: Array) -> Target:
    """Returns what an arm shows at q (7,)."""
    return Target(*arm.directions(q), arm.pose(q)[:3, 3])


def random_targets(rng: np.random.Generator, n: int) -> tuple[Array, Array, Array]:
    """Returns directions (n, 3) twice and rotations (n, 3, 3), uniform."""
    u, low = rng.normal(size=(2, n, 3))
    quat = rng.normal(size=(n, 4))
    rotations = geometry.matrix_from_quat_wxyz(quat / np.linalg.norm(quat, axis=1, keepdims=True))
    return u / np.linalg.norm(u, axis=1, keepdims=True), low / np.linalg.norm(low, axis=1, keepdims=True), rotations


def bent(arm: Arm, rng: np.random.Generator, seconds: float) -> list[Target]:
    """Returns a stream that stays away from poles: the arm's own motion around its middle, with 10 mrad of noise."""
    t = np.arange(0, seconds, 1 / HZ)[:, None]
    middle = arm.middle()
    middle = np.where(np.abs(middle) < 0.5, np.array([0.3, 0.7, 0.3, 1.2, 0.3, 0.8, 0.2]), middle)
    middle = np.clip(middle, arm.low + 0.4, arm.high - 0.4)
    rates, phases = rng.uniform(0.3, 1.0, 7), rng.uniform(0, 2 * np.pi, 7)
    path = middle + 0.3 * np.sin(2 * np.pi * rates * t * 0.5 + phases)
    return [noisy(target_at(arm, q), rng) for q in path]


def through_poles(arm: Arm, rng: np.random.Generator, seconds: float) -> list[Target]:
    """Returns a stream whose upper arm passes the first axis and whose elbow straightens, with 10 mrad of noise."""
    h1, h2 = arm.axes[0], arm.axes[1]
    out = []
    for s in 2 * np.pi * np.arange(0, seconds, 1 / HZ) / 20.0:  # one round in 20 s, however long it is followed
        swing, bend = 1.3 * np.sin(2 * s), 0.8 * np.sin(3 * s)
        upper = np.cos(swing) * h1 + np.sin(swing) * np.cross(h1, h2)
        lower = np.cos(bend) * upper + np.sin(bend) * np.cross(h2, upper)
        turn = geometry.matrix_from_rotvec(np.array([0.4 * np.sin(3 * s), 0.3 * np.sin(s), 0.2 * np.cos(2 * s)]))
        out.append(noisy(Target(upper, lower, turn @ arm.hand_rotation, np.zeros(3)), rng))
    return out


def noisy(target: Target, rng: np.random.Generator, rad: float = 0.01) -> Target:
    """Returns a target with `rad` of noise on both directions and on the hand."""
    turns = geometry.matrix_from_rotvec(rng.normal(0.0, rad, (3, 3)))
    return Target(turns[0] @ target.upper, turns[1] @ target.lower, turns[2] @ target.hand, target.position)


def errors_deg(arm: Arm, target: Target, q: Array) -> Array:
    """Returns the angles (3,) [deg] left of upper arm, forearm and hand at q."""
    upper, lower, hand = arm.directions(q)
    angles = [np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b) for a, b in ((upper, target.upper), (lower, target.lower))]
    return np.degrees([*angles, np.linalg.norm(geometry.rotvec_from_matrix(hand.T @ target.hand))])
