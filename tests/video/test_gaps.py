"""Frames without a hand: dropped at the ends, filled in the middle."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robolearn.video.gaps import fill_gaps, longest_gap


def test_the_ends_are_dropped_and_the_middle_is_filled() -> None:
    """T9 of the specification: leading, inner and trailing gaps."""
    valid = np.array([0, 0, 1, 1, 0, 0, 0, 1, 1, 0], dtype=bool)
    line = np.arange(10.0)[:, None, None] * np.ones((1, 5, 2))
    found = fill_gaps(np.where(valid[:, None, None], line, np.nan), valid)
    assert (found.first, found.stop) == (2, 9)
    assert np.allclose(found.tracks[2:9], line[2:9]), "a hand in even motion is filled where it was"
    assert np.array_equal(found.tracks[:2], line[[2, 2]]) and np.array_equal(found.tracks[9], line[8])
    assert np.array_equal(found.filled, ~valid)


def test_a_filled_frame_repeats_neither_neighbour() -> None:
    """The authors' alpha runs from 0 to 1 over the missing frames, which would give 0, 0, 9, 9."""
    tracks = np.array([0.0, np.nan, np.nan, 9.0])[:, None]
    assert np.allclose(fill_gaps(tracks, np.ones(4, dtype=bool)).tracks[:, 0], [0, 3, 6, 9])


@settings(max_examples=30)
@given(arrays(float, (12, 3, 2), elements=st.floats(-1e3, 1e3)), arrays(bool, 12))
def test_what_was_seen_is_kept_and_the_rest_is_finite(tracks: np.ndarray, valid: np.ndarray) -> None:
    found = fill_gaps(np.where(valid[:, None, None], tracks, np.nan), valid)
    assert np.isfinite(found.tracks).all() and np.array_equal(found.tracks[valid], tracks[valid])
    if valid.any():
        assert valid[found.first] and valid[found.stop - 1]
        assert not valid[: found.first].any() and not valid[found.stop :].any()
    else:
        assert found.first == found.stop == 0


@given(st.lists(st.booleans(), min_size=0, max_size=30))
def test_the_longest_gap_is_counted(valid: list[bool]) -> None:
    runs = "".join("x" if good else "o" for good in valid).split("x")
    assert longest_gap(np.array(valid, dtype=bool)) == max(len(run) for run in runs)
