"""Future wrist poses as ZeroMimic's policy gives them (arXiv 2503.23877): seen by the camera of now, relative to the hand of now.

The published code subtracts component by component, Euler angles included, which jumps where an angle wraps and is no rotation
where the hand is turned. Here a step is the difference of the places along the camera's axes and the turn between the two
rotations about the same axes, as its first two rows: 9 numbers, and the way back is exact. Each place in the chunk is
normalised by its own mean and spread, because late poses lie further away than early ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolearn import geometry
from robolearn.errors import BadInput

Array = np.ndarray
NUMBERS = 9  # a place [m] and two rows of a rotation
LEAST_SPREAD = 1e-4  # what varies less than this [m, or of a rotation's rows] is only centred


def vector(camera_from_hand: Array) -> Array:
    """Returns poses (..., 4, 4) as numbers (..., 9): place [m] and two rows of the rotation."""
    rows = geometry.rot6d_from_matrix(camera_from_hand[..., :3, :3])
    return np.concatenate([camera_from_hand[..., :3, 3], rows], axis=-1)


def encode(camera_from_hand: Array, now: Array) -> Array:
    """Returns poses (..., H, 4, 4) relative to the pose `now` (..., 4, 4), both seen by one camera, as (..., H, 9)."""
    place = camera_from_hand[..., :3, 3] - now[..., None, :3, 3]
    turn = camera_from_hand[..., :3, :3] @ np.swapaxes(now[..., None, :3, :3], -1, -2)
    return np.concatenate([place, geometry.rot6d_from_matrix(turn)], axis=-1)


def decode(relative: Array, now: Array) -> Array:
    """Returns the poses (..., H, 4, 4) of `encode`'s numbers (..., H, 9) and the pose `now` (..., 4, 4)."""
    turn = geometry.matrix_from_rot6d(relative[..., 3:])
    return geometry.pose(relative[..., :3] + now[..., None, :3, 3], turn @ now[..., None, :3, :3])


def futures(world_from_hand: Array, world_from_camera: Array, horizon: int) -> tuple[Array, Array]:
    """Returns (now (T, 4, 4), then (T, horizon, 4, 4)): each frame's hand and the following ones, all in that frame's camera.

    world_from_hand, world_from_camera: (T, 4, 4) [m]; a head camera moves, so the later poses must be put into the frame of now.
    At the end the last pose is repeated.
    """
    n = len(world_from_hand)
    if n < 1 or horizon < 1 or len(world_from_camera) != n:
        raise BadInput(
            f"futures: want as many cameras as hands and a horizon of 1 or more, got {len(world_from_camera)}, {n}, {horizon}"
        )
    camera_from_world = geometry.inverse(world_from_camera)
    rows = np.minimum(np.arange(n)[:, None] + np.arange(1, horizon + 1), n - 1)
    return camera_from_world @ world_from_hand, camera_from_world[:, None] @ world_from_hand[rows]


@dataclass(frozen=True)
class ChunkScale:
    """Mean and spread of relative poses (H, 9), each place in the chunk its own."""

    mean: Array
    spread: Array

    @classmethod
    def fit(cls, chunks: Array) -> ChunkScale:
        """Returns the scale of chunks (n, H, 9)."""
        spread = chunks.std(axis=0)
        return cls(chunks.mean(axis=0), np.where(spread < LEAST_SPREAD, 1.0, spread))

    def normalize(self, chunks: Array) -> Array:
        """Returns chunks (..., H, 9) with mean 0 and spread 1 at each place."""
        return (chunks - self.mean) / self.spread

    def denormalize(self, chunks: Array) -> Array:
        """Returns the chunks (..., H, 9) of which these are the normalised form."""
        return chunks * self.spread + self.mean
