"""Frames in which the hand was not found: dropped at the ends, filled in the middle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Filled:
    """Tracks (T, ...) that are finite everywhere; keep [first:stop], outside it the nearest frame is repeated.

    filled: (T,) bool, True where a frame was not seen. Where no frame was, first == stop == 0 and the tracks are zero.
    """

    tracks: Array
    first: int
    stop: int
    filled: Array


def fill_gaps(tracks: Array, valid: Array) -> Filled:
    """Returns `tracks` (T, ...) with the frames that are not `valid` (T,), or not finite, filled linearly in time.

    Filled at alpha = (t - last) / (next - last). The authors run alpha from 0 to 1 over the missing frames only, which repeats
    the frame before and the frame after.
    """
    tracks = np.asarray(tracks, dtype=float)
    flat = tracks.reshape(len(tracks), -1)
    seen = np.asarray(valid, dtype=bool) & np.isfinite(flat).all(-1)
    known = np.flatnonzero(seen)
    if not len(known):
        return Filled(np.zeros_like(tracks), 0, 0, ~seen)
    time = np.arange(len(flat))
    whole = np.stack([np.interp(time, known, column) for column in flat[known].T], axis=-1)
    return Filled(whole.reshape(tracks.shape), int(known[0]), int(known[-1]) + 1, ~seen)


def longest_gap(valid: Array) -> int:
    """Returns the number of frames in the longest run of `valid` (T,) that is False."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], np.asarray(valid, dtype=bool), [True]]).astype(int)))
    return int((edges[1::2] - edges[::2]).max(initial=0))
