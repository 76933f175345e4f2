"""The detector's errors: of the promised size, slow and white, with gaps in bursts."""

from __future__ import annotations

import numpy as np
import pytest

from robolearn.video.noise import HandNoise, hand_size

STILL = np.random.default_rng(3).uniform(0, 100, (21, 2))
LONG = np.broadcast_to(STILL, (4000, 21, 2))


def test_the_error_is_the_promised_share_of_the_hand() -> None:
    noise = HandNoise(sigma_share=(0.08, 0.08), gap_share=(0.0, 0.0))
    noisy, valid = noise.apply(LONG, np.random.default_rng(0))
    assert valid.all()
    assert (noisy - LONG).std() / hand_size(STILL) == pytest.approx(0.08, rel=0.05)
    assert np.abs((noisy - LONG).mean()) < 0.01 * hand_size(STILL)
    twice = noise.apply(LONG, np.random.default_rng(0), hand_px=2 * hand_size(STILL))[0]
    assert np.allclose(twice - LONG, 2 * (noisy - LONG))


def test_each_clip_draws_an_error_and_a_gap_share_from_the_measured_range() -> None:
    shares, lost = [], []
    for seed in range(60):
        noisy, valid = HandNoise().apply(LONG[:600], np.random.default_rng(seed))
        shares.append(np.nanstd(noisy - STILL) / hand_size(STILL))
        lost.append(1 - valid.mean())
    assert 0.04 < min(shares) < 0.065 and 0.095 < max(shares) < 0.125
    assert min(lost) < 0.10 and 0.22 < max(lost) < 0.45
    assert np.mean(lost) == pytest.approx(0.175, abs=0.03)


def test_four_fifths_of_the_variance_last_ten_frames() -> None:
    noisy, _ = HandNoise(gap_share=(0.0, 0.0)).apply(LONG, np.random.default_rng(1))
    error = noisy - LONG
    for lag, expected in ((1, 0.8 * np.exp(-0.1)), (10, 0.8 * np.exp(-1.0)), (100, 0.0)):
        correlation = np.mean(error[lag:] * error[:-lag]) / np.mean(error**2)
        assert correlation == pytest.approx(expected, abs=0.05)


def test_gaps_come_in_bursts_and_are_nan() -> None:
    noisy, valid = HandNoise(gap_share=(0.2, 0.2), gap_frames=5).apply(LONG, np.random.default_rng(2))
    assert np.isnan(noisy[~valid]).all() and np.isfinite(noisy[valid]).all()
    starts = np.count_nonzero(valid[:-1] & ~valid[1:])
    assert (~valid).sum() / starts == pytest.approx(5, rel=0.2)
    assert 1 - valid.mean() == pytest.approx(0.2, abs=0.04)


def test_the_same_generator_gives_the_same_clip() -> None:
    first, second, other = (HandNoise().apply(LONG[:50], np.random.default_rng(seed))[0] for seed in (5, 5, 6))
    assert np.array_equal(first, second, equal_nan=True) and not np.array_equal(first, other, equal_nan=True)
