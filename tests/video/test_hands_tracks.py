"""Hands over time: told apart by where they are, named by what most pictures say, without single wrong pictures, smooth."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from robolearn.video import hand_tracks
from robolearn.video.hands import Hand

SHAPE = np.random.default_rng(3).uniform(-40, 40, (21, 2))


def hand(at: tuple[float, float], right: bool = True, score: float = 0.9) -> Hand:
    """Returns a hand of some 110 px around a place."""
    return Hand(SHAPE + at, None, right, score)


@given(st.lists(st.booleans(), min_size=30, max_size=30), st.integers(0, 2**32 - 1))
def test_hands_are_told_apart_by_their_places_whatever_single_pictures_call_them(wrong: list[bool], seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = []
    for t in range(30):
        # one goes right, one goes left, 150 px apart in height where they pass; each is named wrongly in some pictures
        pair = [hand((100 + 10 * t, 100), right=t % 3 != 0), hand((400 - 10 * t, 250), right=bool(wrong[t] and t % 3 == 1))]
        rng.shuffle(pair)
        frames.append(pair)
    tracks = hand_tracks.associate(frames, max_hands=2)
    assert [track.seen.sum() for track in tracks] == [30, 30]
    upper, lower = sorted(tracks, key=lambda track: track.landmarks_px[0, :, 1].mean())
    assert upper.right and not lower.right
    assert np.allclose(np.diff(upper.landmarks_px[:, 0, 0]), 10) and np.allclose(np.diff(lower.landmarks_px[:, 0, 0]), -10)


def test_a_hand_is_known_again_after_a_gap_and_a_third_one_is_not_taken() -> None:
    frames = [[hand((100, 100))] if t < 10 or t > 20 else [] for t in range(30)]
    frames[5] = [hand((100, 100)), hand((500, 400), right=False)]
    frames[25] = [hand((110, 100)), hand((300, 900))]
    tracks = hand_tracks.associate(frames, max_hands=2)
    assert len(tracks) == 2
    assert tracks[0].seen.sum() == 19 and tracks[1].seen.sum() == 1
    found = hand_tracks.chosen(tracks, "left")
    assert found is tracks[1] and hand_tracks.chosen(tracks[:1], "left") is None
    assert hand_tracks.chosen(tracks) is tracks[0]


def test_where_one_hand_was_asked_for_it_is_that_one_however_far_it_went() -> None:
    frames = [[hand((100, 100))], [], [hand((900, 700))]]
    (track,) = hand_tracks.associate(frames, max_hands=1)
    assert track.seen.tolist() == [True, False, True]
    assert np.isnan(track.landmarks_px[1]).all() and track.score[1] == 0


def test_a_picture_in_which_something_else_was_taken_for_the_hand_is_dropped_and_fast_motion_is_not() -> None:
    frames = [[hand((100 + 30 * t, 100))] for t in range(20)]  # a third of a hand a picture
    frames[8] = [hand((900, 600))]
    (track,) = hand_tracks.associate(frames, max_hands=1)
    kept = hand_tracks.without_jumps(track)
    assert np.flatnonzero(~kept.seen).tolist() == [8]
    (calm,) = hand_tracks.associate(frames[:8], max_hands=1)
    assert hand_tracks.without_jumps(calm).seen.all()


def test_smoothing_moves_nothing_in_time_and_calms_noise() -> None:
    rng = np.random.default_rng(0)
    at = np.arange(200) / 30
    path = np.stack([200 + 80 * np.sin(at), 100 + 50 * np.cos(at)], axis=-1)[:, None] + np.zeros((1, 21, 1))
    noisy = path + rng.normal(0, 3, path.shape)
    smooth = hand_tracks.smoothed(noisy, 30.0, 0.05)
    assert np.abs(smooth - path).std() < 0.6 * np.abs(noisy - path).std()
    assert np.abs(hand_tracks.smoothed(path, 30.0, 0.05)[10:-10] - path[10:-10]).max() < 0.3, "no lag"
    assert hand_tracks.smoothed(noisy, 30.0, 0.0) is noisy
