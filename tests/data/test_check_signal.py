"""The numbers of a motion are what their definitions say: SPARC, jerk, lag, stretches."""

from __future__ import annotations

import numpy as np
import pytest
from check_sets import minimum_jerk, path_of
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn.data._check_signal import lag_of, rms_jerk, runs, sparc, unwrapped


def bell(hz: float, seconds: float = 1.0) -> np.ndarray:
    """Returns the speed profile (steps, 1) of a movement of least jerk."""
    t = np.linspace(0, 1, round(hz * seconds) + 1)
    return (30 * t**2 - 60 * t**3 + 30 * t**4)[:, None]


def tremor(hz: float, amplitude: float, frequency: float = 5.0) -> np.ndarray:
    t = np.arange(len(bell(hz))) / hz
    return np.abs(bell(hz) + amplitude * np.sin(2 * np.pi * frequency * t)[:, None])


def sparc_by_definition(speed: np.ndarray, hz: float) -> float:
    """Returns SPARC by a sum over a very fine Fourier integral instead of the fast transform."""
    frequency = np.arange(0, min(10.0, hz / 2), 0.002)
    spectrum = np.abs(np.exp(-2j * np.pi * np.outer(frequency, np.arange(len(speed)) / hz)) @ speed)
    spectrum = spectrum / spectrum[0]
    last = np.flatnonzero(spectrum >= 0.05)[-1]
    return -float(np.sqrt((1 / last) ** 2 + np.diff(spectrum[: last + 1]) ** 2).sum())


def test_sparc_of_a_gaussian_is_the_one_its_authors_give() -> None:
    t = np.arange(-1, 1, 0.01)
    assert sparc(np.exp(-5 * t**2)[:, None], 100)[0] == pytest.approx(-1.41403, abs=1e-5)


def test_sparc_of_a_minimum_jerk_movement_is_the_published_one() -> None:
    assert sparc(bell(100), 100)[0] == pytest.approx(-1.41, abs=0.03)


@pytest.mark.parametrize("hz", [20.0, 50.0, 100.0])
def test_sparc_equals_its_definition(hz: float) -> None:
    rng = np.random.default_rng(0)
    rough = np.abs(np.cumsum(rng.normal(size=(int(3 * hz), 1)), axis=0))
    for speed in (bell(hz), tremor(hz, 0.5), rough):
        assert sparc(speed, hz)[0] == pytest.approx(sparc_by_definition(speed[:, 0], hz), rel=0.02)


@given(st.floats(1e-3, 1e3), st.floats(0.0, 1.0))
@settings(max_examples=30)
def test_sparc_does_not_depend_on_the_amplitude(scale: float, amplitude: float) -> None:
    speed = tremor(50, amplitude)
    assert sparc(scale * speed, 50)[0] == pytest.approx(sparc(speed, 50)[0], rel=1e-9)


@given(st.floats(0.5, 4.0))
@settings(max_examples=20)
def test_sparc_of_one_movement_does_not_depend_on_its_duration(seconds: float) -> None:
    assert sparc(bell(100, seconds), 100)[0] == pytest.approx(sparc(bell(100), 100)[0], abs=0.03)


@given(st.floats(1.0, 3.0), st.floats(5.0, 8.0))
@settings(max_examples=30)
def test_a_tremor_makes_sparc_and_jerk_worse(amplitude: float, frequency: float) -> None:
    assert sparc(tremor(50, amplitude, frequency), 50)[0] < sparc(bell(50), 50)[0] - 0.1
    smooth = minimum_jerk(np.zeros(1), np.ones(1), 50)
    shaking = smooth + 0.05 * amplitude * np.sin(2 * np.pi * frequency * np.arange(50) / 50)[:, None]
    assert rms_jerk(shaking, 50)[0] > 2 * rms_jerk(smooth, 50)[0]


def test_sparc_of_no_motion_is_not_a_number_and_columns_are_independent() -> None:
    both = np.concatenate([np.zeros_like(bell(50)), bell(50)], axis=1)
    assert np.isnan(sparc(both, 50)[0]) and sparc(both, 50)[1] == pytest.approx(sparc(bell(50), 50)[0])


def test_jerk_of_a_cubic_is_six() -> None:
    t = np.arange(50) / 20
    assert rms_jerk((t**3)[:, None], 20)[0] == pytest.approx(6, rel=1e-6)
    assert np.isnan(rms_jerk(np.zeros((3, 1)), 20)[0])


def delayed(path: np.ndarray, lag: float) -> np.ndarray:
    rows = np.arange(len(path))
    return np.stack([np.interp(rows - lag, rows, column) for column in path.T], axis=1)[30:-30]


@given(st.integers(-8, 15), st.integers(0, 1000))
@settings(max_examples=40)
def test_a_lag_of_whole_ticks_is_recovered(lag: int, seed: int) -> None:
    path = path_of(200, np.random.default_rng(seed))
    found, correlation = lag_of(path[30:-30], delayed(path, lag), 20)
    assert found == pytest.approx(lag, abs=0.05) and correlation > 0.95


@given(st.floats(-4, 10), st.integers(0, 1000))
@settings(max_examples=40)
def test_a_lag_between_ticks_is_recovered_to_a_quarter_of_one_under_noise(lag: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = path_of(200, rng)
    answer = delayed(path, lag)
    found, _ = lag_of(path[30:-30], answer + rng.normal(0, 1e-3, answer.shape), 20)
    assert found == pytest.approx(lag, abs=0.25)


def test_a_constant_offset_and_another_column_that_stands_do_not_move_the_lag() -> None:
    path = path_of(200, np.random.default_rng(3))
    answer = delayed(path, 4) + 0.5
    found, _ = lag_of(np.c_[path[30:-30], np.zeros(140)], np.c_[answer, np.ones(140)], 20)
    assert found == pytest.approx(4, abs=0.05)


def test_a_body_that_stands_or_a_series_that_is_too_short_has_no_lag() -> None:
    path = path_of(100, np.random.default_rng(3))
    assert np.isnan(lag_of(path, np.zeros_like(path), 20)[0])
    assert np.isnan(lag_of(path[:3], path[:3], 20)[0])


def test_runs_are_the_stretches_of_true() -> None:
    assert runs(np.array([1, 1, 0, 1, 0, 0, 1], bool)) == [(0, 2), (3, 4), (6, 7)]
    assert runs(np.zeros(3, bool)) == []


def test_only_angles_are_unwrapped() -> None:
    turned = np.array([[3.1, 3.1], [-3.1, -3.1]])
    out = unwrapped(turned, np.array([True, False]))
    assert out[1, 0] == pytest.approx(2 * np.pi - 3.1) and out[1, 1] == -3.1
