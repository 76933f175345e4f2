"""Tracks as steps: what a motion-track policy predicts. Works on numpy arrays and torch tensors alike."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace


def encode_deltas(normalised: Any, n_tracks: int) -> Any:
    """Returns (..., H, n) whose first `n_tracks` columns hold the change since the row before, 0 in row 0.

    normalised: (..., H, n) in the normaliser's units; the columns after the tracks (the grasp) stay absolute.
    """
    xp = array_namespace(normalised)
    tracks = normalised[..., :n_tracks]
    steps = tracks[..., 1:, :] - tracks[..., :-1, :]
    steps = xp.concat([xp.zeros_like(tracks[..., :1, :]), steps], axis=-2)
    return xp.concat([steps, normalised[..., n_tracks:]], axis=-1)


def decode_deltas(deltas: Any, start: Any) -> Any:
    """Returns the absolute rows (..., H, n) of `deltas` (..., H, n) from tracks `start` (..., n_tracks), normalised both.

    It is start + the sum of the steps up to and with each row, so that a predicted step 0 counts.
    """
    xp = array_namespace(deltas, start)
    n_tracks = start.shape[-1]
    tracks = start[..., None, :] + xp.cumulative_sum(deltas[..., :n_tracks], axis=-2)
    return xp.concat([tracks, deltas[..., n_tracks:]], axis=-1)
