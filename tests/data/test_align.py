"""Streams of their own rates on the ticks of a controller: interpolation, slots, delays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from robolearn.data.align import interpolate, interpolate_quat_wxyz, latency, nearest, slots
from robolearn.errors import ArrayMismatch

T = np.arange(0, 10 * 10**9, 5 * 10**6)  # 10 s at 200 Hz [ns]


def test_a_known_latency_is_taken_off() -> None:
    late = interpolate(T + 37_000_000, np.sin(2 * np.pi * T * 1e-9)[:, None], T[100:-100], latency_s=0.037)
    np.testing.assert_allclose(late[:, 0], np.sin(2 * np.pi * T[100:-100] * 1e-9), atol=1e-6)


@given(st.floats(0.0, 0.2), st.floats(0.4, 1.5))  # slower waves are flat: 1.01 ms off at 0.39 Hz
def test_the_delay_of_a_sinusoid_is_found_within_a_millisecond(delay_s: float, hz: float) -> None:
    def wave(t: np.ndarray) -> np.ndarray:
        return np.sin(2 * np.pi * hz * t) + 0.5 * np.sin(2 * np.pi * 1.7 * hz * t + 1)

    asked, measured = wave(T * 1e-9), 3 + 0.2 * wave(T * 1e-9 - delay_s)
    found, correlation = latency((T, asked), (T, measured), most_s=0.25)
    assert found == pytest.approx(delay_s, abs=1e-3) and correlation > 0.99


def test_half_way_between_two_turns_is_half_the_angle() -> None:
    turn = Rotation.from_rotvec([[0, 0, 0], [0.3, -0.9, 0.4]])
    quats = turn.as_quat(scalar_first=True)
    half = interpolate_quat_wxyz(np.array([0, 100]), quats * [[1.0], [-1.0]], np.array([50]))  # -q is the same turn
    got = Rotation.from_quat(half[0], scalar_first=True).magnitude()
    assert got == pytest.approx(turn[1].magnitude() / 2, abs=1e-9)


@given(st.integers(1, 40), st.integers(0, 10**6))
def test_interpolation_is_exact_at_the_samples_and_clamped_outside(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.integers(1, 10**6, n)).astype(np.int64)
    values = rng.normal(size=(n, 2))
    np.testing.assert_allclose(interpolate(times, values, times), values, atol=1e-12)
    ends = interpolate(times, values, np.array([times[0] - 5, times[-1] + 5]))
    np.testing.assert_allclose(ends, values[[0, -1]], atol=1e-12)


def test_integers_take_the_nearest_sample() -> None:
    assert interpolate(np.array([0, 10]), np.array([[1], [2]], np.uint8), np.array([4, 6]))[:, 0].tolist() == [1, 2]
    assert nearest(np.array([0, 10, 20]), np.array([-3, 5, 16, 99])).tolist() == [0, 0, 2, 2]


def test_a_sample_on_the_grid_lies_in_its_own_slot_and_empty_slots_repeat() -> None:
    times = 3.0 + 0.05 * np.arange(8)
    assert slots(times, 3.0, 0.05, 8).tolist() == list(range(8))
    assert slots(np.delete(times, [3, 4]), 3.0, 0.05, 8).tolist() == [0, 1, 2, 2, 2, 3, 4, 5]
    assert slots(np.sort(np.concatenate([times, times + 0.01])), 3.0, 0.05, 8).tolist() == list(range(0, 16, 2)), "the first"


@pytest.mark.parametrize("times", [[3, 3], [4, 2], []])
def test_times_that_do_not_rise_are_refused(times: list[int]) -> None:
    with pytest.raises(ArrayMismatch, match="times that rise"):
        interpolate(np.array(times), np.zeros((len(times), 1)), np.array([1]))
    with pytest.raises(ArrayMismatch, match="overlap"):
        latency((T[:10], np.zeros(10)), (T[:10], np.zeros(10)))
