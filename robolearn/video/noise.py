"""A hand detector's errors on exact tracks: the size measured for MediaPipe, a slow part and a white part, and gaps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class HandNoise:
    """How a hand detector errs; a pair is a range from which each clip draws.

    sigma_share: standard deviation per coordinate as a share of the hand's size (its diagonal); slow_share: of the variance,
    the part that stays from frame to frame; slow_frames: for how many; gap_share: of the frames, without a detection;
    gap_frames: mean length of a gap.
    """

    sigma_share: tuple[float, float] = (0.05, 0.11)
    slow_share: float = 0.8
    slow_frames: float = 10.0
    gap_share: tuple[float, float] = (0.05, 0.30)
    gap_frames: float = 5.0

    def apply(self, tracks: Array, rng: np.random.Generator, hand_px: Array | float | None = None) -> tuple[Array, Array]:
        """Returns noisy tracks (T, n, 2) [px], NaN in gaps, and valid (T,) bool.

        hand_px: (T,) or one size of the hand [px]; where none is given the diagonal of the points' box, which for fewer than
        the 21 landmarks is too small.
        """
        tracks = np.asarray(tracks, dtype=float)
        size_px = hand_size(tracks) if hand_px is None else np.broadcast_to(np.asarray(hand_px, dtype=float), len(tracks))
        sigma = rng.uniform(*self.sigma_share)
        slow = _stationary(tracks.shape, math.exp(-1.0 / self.slow_frames) if self.slow_frames > 0 else 0.0, rng)
        white = rng.standard_normal(tracks.shape)
        unit = math.sqrt(self.slow_share) * slow + math.sqrt(1.0 - self.slow_share) * white
        valid = _bursts(len(tracks), rng.uniform(*self.gap_share), self.gap_frames, rng)
        noisy = tracks + sigma * size_px[:, None, None] * unit
        return np.where(valid[:, None, None], noisy, np.nan), valid


def hand_size(landmarks_px: Array) -> Array:
    """Returns the diagonal (...) [px] of the box around landmarks (..., n, 2)."""
    return np.linalg.norm(np.max(landmarks_px, axis=-2) - np.min(landmarks_px, axis=-2), axis=-1)


def _stationary(shape: tuple[int, ...], keep: float, rng: np.random.Generator) -> Array:
    """Returns noise of unit variance whose neighbours along axis 0 correlate by `keep`."""
    fresh = rng.standard_normal(shape)
    fresh[1:] *= math.sqrt(1.0 - keep**2)
    for t in range(1, shape[0]):
        fresh[t] += keep * fresh[t - 1]
    return fresh


def _bursts(n: int, share: float, mean_frames: float, rng: np.random.Generator) -> Array:
    """Returns valid (n,) bool in which gaps of `mean_frames` on average take `share` of the frames (two-state chain)."""
    leave = 1.0 / max(mean_frames, 1.0)
    enter = leave * share / (1.0 - share)
    draws = rng.random(n)
    valid = np.empty(n, dtype=bool)
    for t in range(n):
        lost = share if t == 0 else (enter if valid[t - 1] else 1.0 - leave)
        valid[t] = draws[t] >= lost
    return valid
