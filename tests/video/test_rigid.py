"""Kabsch: a rigid motion comes back, a mirror image never does, and unknown points give no pose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robolearn import geometry as g
from robolearn.video import rigid

vector = arrays(float, 3, elements=st.floats(-2, 2, allow_subnormal=False))
motion = st.tuples(vector, vector.map(lambda v: g.matrix_from_rotvec(2 * v))).map(lambda parts: g.pose(*parts))
CLOUD = np.random.default_rng(0).normal(size=(6, 3)) * 0.1


def moved(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ transform[:3, :3].T + transform[:3, 3]


@settings(max_examples=30)
@given(motion)
def test_a_rigid_motion_comes_back(target_from_source: np.ndarray) -> None:
    """T2 of the specification."""
    assert np.abs(rigid.kabsch(CLOUD, moved(target_from_source, CLOUD)) - target_from_source).max() < 1e-9


@settings(max_examples=30)
@given(motion)
def test_points_in_a_plane_are_enough(target_from_source: np.ndarray) -> None:
    flat = CLOUD * (1.0, 1.0, 0.0)
    assert np.abs(rigid.kabsch(flat, moved(target_from_source, flat)) - target_from_source).max() < 1e-9


@settings(max_examples=30)
@given(motion, st.permutations([-1.0, 1.0, 1.0]))
def test_a_mirror_image_still_gives_a_rotation(target_from_source: np.ndarray, mirror: list[float]) -> None:
    """T3 of the specification."""
    found = rigid.kabsch(CLOUD, moved(target_from_source, CLOUD * mirror))
    assert np.linalg.det(found[:3, :3]) == pytest.approx(1.0)
    assert np.allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3))


def test_no_rotation_fits_noisy_points_better() -> None:
    rng = np.random.default_rng(1)
    target = moved(g.pose([0.1, 0.2, 0.3], g.rotation_z(0.7)), CLOUD) + 0.02 * rng.normal(size=CLOUD.shape)

    def misfit(transform: np.ndarray) -> float:
        return float(np.sum((moved(transform, CLOUD) - target) ** 2))

    best = rigid.kabsch(CLOUD, target)
    nudges = [g.pose(1e-3 * rng.normal(size=3), g.matrix_from_rotvec(1e-2 * rng.normal(size=3))) for _ in range(200)]
    assert min(misfit(nudge @ best) for nudge in nudges) > misfit(best)


def test_batches_are_solved_one_by_one_and_an_unknown_point_gives_nan() -> None:
    motions = np.stack([g.pose([0.1 * t, 0, 0], g.rotation_z(0.2 * t)) for t in range(4)])
    targets = np.stack([moved(motion, CLOUD) for motion in motions])
    targets[2, 1, 0] = np.nan
    found = rigid.kabsch(CLOUD, targets)
    assert np.isnan(found[2]).all() and np.allclose(found[[0, 1, 3]], motions[[0, 1, 3]])


def test_a_point_without_weight_has_no_say_even_where_it_is_unknown() -> None:
    motion = g.pose([0.1, 0, 0], g.rotation_z(0.5))
    target = moved(motion, CLOUD)
    target[0] = np.nan
    assert np.allclose(rigid.kabsch(CLOUD, target, weights=np.array([0, 1, 1, 1, 1, 1.0])), motion)


def test_points_on_a_line_have_no_spread() -> None:
    line = np.linspace(0, 1, 5)[:, None] * np.array([1.0, 2.0, 3.0])
    assert rigid.spread(line) < 1e-12
    assert rigid.spread(CLOUD) > 0.02
