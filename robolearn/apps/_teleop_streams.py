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
    """Returns a reachable stream through the poles: upper arm along axis 1, elbow nearly straight, hand along the forearm.

    10 mrad of noise decides on which side of a pole each frame lies.
    """
    middle, out = arm.middle(), []
    inwards = -1.0 if middle[3] < 0 else 1.0  # the way the elbow bends, where it bends one way only
    for s in 2 * np.pi * np.arange(0, seconds, 1 / HZ) / 20.0:  # one round in 20 s, however long it is followed
        bend = inwards * (0.08 + 0.5 * (1 - np.cos(3 * s)))
        q = [0.0, 1.2 * np.sin(2 * s), 0.0, bend, 0.3 * np.sin(3 * s), middle[5] + 0.6 * np.sin(2 * s), 0.2 * np.cos(2 * s)]
        out.append(noisy(target_at(arm, np.clip(q, arm.low, arm.high)), rng))
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
