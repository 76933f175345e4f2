"""The one-Euro filters: calm at rest, quick in motion, unmoved by bad input, always rotations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolearn import geometry
from robolearn.errors import BadInput
from robolearn.teleop.one_euro import OneEuro, RotationOneEuro, Tuning

ANGLES = st.lists(st.floats(-3.0, 3.0), min_size=3, max_size=3)


def test_noise_at_rest_is_calmed():
    rng = np.random.default_rng(0)
    noisy = 0.01 * rng.standard_normal((600, 3))
    filtered = OneEuro()
    out = np.array([filtered.step(k / 60, row) for k, row in enumerate(noisy)])
    assert np.diff(out[60:], axis=0).std() < 0.15 * np.diff(noisy[60:], axis=0).std()


def test_a_larger_beta_lags_less_in_motion():
    def lag(beta: float) -> float:
        filtered = OneEuro(Tuning(beta=beta))
        return max(abs(float(filtered.step(k / 60, np.array([k / 60]))[0]) - k / 60) for k in range(120))

    assert lag(2.0) < 0.5 * lag(0.0)


def test_a_step_follows_the_published_formula():
    filtered = OneEuro(Tuning(min_cutoff=1.0, beta=0.5, d_cutoff=1.0))
    filtered.step(0.0, np.array([0.0]))
    part = 1 / (1 + 1 / (2 * np.pi * 0.1))
    speed = part * 10.0
    cutoff = 1 + 0.5 * speed
    assert filtered.step(0.1, np.array([1.0]))[0] == pytest.approx(1 / (1 + 1 / (2 * np.pi * cutoff * 0.1)), abs=1e-12)


@pytest.mark.parametrize("bad", [(1.0, 2.0), (0.5, 2.0), (2.0, np.nan), (np.nan, 2.0)])
def test_repeated_old_and_not_finite_input_gives_the_last_output(bad):
    point, rotation = OneEuro(), RotationOneEuro()
    for t in (0.0, 1.0):
        last_point, last_rotation = point.step(t, np.full(3, t)), rotation.step(t, geometry.rotation_z(t))
    assert np.array_equal(point.step(bad[0], np.full(3, bad[1])), last_point)
    turned = geometry.rotation_z(bad[1]) if np.isfinite(bad[1]) else np.full((3, 3), np.nan)
    assert np.array_equal(rotation.step(bad[0], turned), last_rotation)


def test_frozen_input_stays_where_it_is():
    point, rotation = OneEuro(), RotationOneEuro()
    for k in range(50):
        assert np.array_equal(point.step(k / 60, np.ones(3)), np.ones(3))
        assert np.allclose(rotation.step(k / 60, geometry.rotation_z(1.0)), geometry.rotation_z(1.0), atol=1e-12)


@given(st.lists(ANGLES, min_size=2, max_size=8))
def test_filtered_rotations_are_rotations(turns):
    filtered = RotationOneEuro()
    for k, turn in enumerate(turns):
        out = filtered.step(k / 60, geometry.matrix_from_rotvec(turn))
        assert np.allclose(out @ out.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(out) > 0


def test_a_filtered_rotation_ends_at_the_rotation_that_stays():
    filtered = RotationOneEuro()
    filtered.step(0.0, np.eye(3))
    for k in range(1, 600):
        out = filtered.step(k / 60, geometry.rotation_z(3.0))
    assert float(geometry.angle_between(out, geometry.rotation_z(3.0))) < 1e-6


def test_bad_tunings_and_a_bad_first_value_are_refused():
    with pytest.raises(BadInput, match="min_cutoff > 0"):
        Tuning(min_cutoff=0.0)
    for filtered, value in ((OneEuro(), np.full(3, np.nan)), (RotationOneEuro(), np.full((3, 3), np.nan))):
        with pytest.raises(BadInput, match="finite"):
            filtered.step(0.0, value)
