"""Rotations and transforms: round trips, orthonormality, the row convention of rot6d, the ends of slerp."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robolearn import geometry as g

number = st.floats(-10, 10, allow_subnormal=False)
vector = arrays(float, 3, elements=number)
rotation = arrays(float, 3, elements=st.floats(-4, 4, allow_subnormal=False)).map(g.matrix_from_rotvec)
transform = st.tuples(vector, rotation).map(lambda parts: g.pose(*parts))


def is_rotation(matrix: np.ndarray) -> bool:
    flat = matrix.reshape(-1, 3, 3)
    return np.allclose(flat @ flat.swapaxes(-1, -2), np.eye(3), atol=1e-9) and np.allclose(np.linalg.det(flat), 1.0)


@given(rotation)
def test_quaternions_come_back(matrix: np.ndarray) -> None:
    quat_wxyz = g.quat_wxyz_from_matrix(matrix)
    assert np.isclose(np.linalg.norm(quat_wxyz), 1) and quat_wxyz[0] >= 0
    assert np.allclose(g.matrix_from_quat_wxyz(quat_wxyz), matrix, atol=1e-9)
    assert np.allclose(g.matrix_from_quat_wxyz(-3 * quat_wxyz), matrix, atol=1e-9), "sign and length mean nothing"


def test_the_scalar_of_a_quaternion_comes_first() -> None:
    half = np.pi / 4
    assert np.allclose(g.quat_wxyz_from_matrix(g.rotation_z(np.pi / 2)), [np.cos(half), 0, 0, np.sin(half)])


@given(rotation)
def test_rot6d_comes_back(matrix: np.ndarray) -> None:
    assert np.allclose(g.matrix_from_rot6d(g.rot6d_from_matrix(matrix)), matrix, atol=1e-9)


def test_rot6d_is_the_first_two_rows() -> None:
    matrix = g.matrix_from_rotvec([0.3, -0.2, 0.9])
    assert np.array_equal(g.rot6d_from_matrix(matrix), np.concatenate([matrix[0], matrix[1]]))
    assert not np.allclose(g.rot6d_from_matrix(matrix), np.concatenate([matrix[:, 0], matrix[:, 1]]))


@given(arrays(float, 6, elements=number).filter(lambda r: np.linalg.norm(np.cross(r[:3], r[3:])) > 0.1))
def test_any_two_vectors_make_a_rotation(rot6d: np.ndarray) -> None:
    assert is_rotation(g.matrix_from_rot6d(rot6d))


@given(rotation)
def test_rotation_vectors_come_back(matrix: np.ndarray) -> None:
    rotvec = g.rotvec_from_matrix(matrix)
    assert np.linalg.norm(rotvec) <= np.pi + 1e-9
    assert np.allclose(g.matrix_from_rotvec(rotvec), matrix, atol=1e-7)


@given(transform)
def test_a_transform_times_its_inverse_is_the_identity(world_from_hand: np.ndarray) -> None:
    assert np.allclose(world_from_hand @ g.inverse(world_from_hand), np.eye(4), atol=1e-9)
    assert np.allclose(g.inverse(g.inverse(world_from_hand)), world_from_hand, atol=1e-9)


@given(rotation, rotation)
def test_slerp_begins_and_ends_where_it_should_and_stays_a_rotation(start: np.ndarray, end: np.ndarray) -> None:
    way = g.slerp(start, end, np.array([0.0, 0.25, 0.5, 1.0]))
    assert np.allclose(way[0], start, atol=1e-7) and np.allclose(way[-1], end, atol=1e-6)
    assert is_rotation(way)
    whole = g.angle_between(start, end)
    assert np.isclose(g.angle_between(start, way[2]), whole / 2, atol=1e-5), "half of the way is half of the angle"


@given(rotation, rotation)
def test_an_angle_between_is_symmetric_and_within_half_a_turn(a: np.ndarray, b: np.ndarray) -> None:
    assert 0 <= g.angle_between(a, b) <= np.pi
    assert np.isclose(g.angle_between(a, b), g.angle_between(b, a), atol=1e-6)
    assert g.angle_between(a, a) < 1e-6


@given(st.floats(-50, 50))
def test_yaw_comes_back_wrapped(yaw: float) -> None:
    assert np.isclose(np.exp(1j * g.yaw_of(g.rotation_z(yaw))), np.exp(1j * yaw)).all()


@given(st.floats(-1e4, 1e4))
def test_wrap_stays_within_half_a_turn_and_keeps_the_direction(angle: float) -> None:
    wrapped = g.wrap(angle)
    assert -np.pi <= wrapped < np.pi
    assert np.isclose(np.exp(1j * wrapped), np.exp(1j * angle), atol=1e-9)


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_leading_axes_pass_through(batch: tuple[int, ...]) -> None:
    rotvec = np.random.default_rng(0).normal(size=(*batch, 3))
    matrix = g.matrix_from_rotvec(rotvec)
    assert matrix.shape == (*batch, 3, 3) and is_rotation(matrix)
    assert g.quat_wxyz_from_matrix(matrix).shape == (*batch, 4)
    assert g.matrix_from_quat_wxyz(g.quat_wxyz_from_matrix(matrix)).shape == (*batch, 3, 3)
    assert g.rot6d_from_matrix(matrix).shape == (*batch, 6)
    assert np.allclose(g.matrix_from_rot6d(g.rot6d_from_matrix(matrix)), matrix)
    assert g.rotvec_from_matrix(matrix).shape == (*batch, 3)
    assert g.inverse(g.pose(rotvec, matrix)).shape == (*batch, 4, 4)
