"""Cutting a demonstration, moving its parts to other object poses, and following a path by position."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn import geometry
from robolearn.data import adapt
from robolearn.data.source import Source, asked_poses, kinematic_model
from robolearn.errors import DatasetError

numbers = st.floats(-0.3, 0.3, allow_subnormal=False)
points = st.tuples(numbers, numbers, numbers)
poses = st.builds(
    lambda position, turn: geometry.pose(np.array(position), geometry.matrix_from_rotvec(3 * np.array(turn))), points, points
)
upright_poses = st.builds(
    lambda position, yaw: geometry.pose(np.array(position), geometry.rotation_z(yaw)), points, st.floats(-np.pi, np.pi)
)
paths = st.lists(poses, min_size=2, max_size=12).map(np.stack)
DOWN = np.diag([1.0, -1.0, -1.0])  # a hand that points at the table


def picked_up(reverse_gripper: bool = False) -> Source:
    """Returns a demonstration: down to a cube at the origin (rows 0-40), close (40-60), up (60-100), away (100-140), open."""
    rows = 160
    z = np.interp(np.arange(rows), [0, 40, 60, 100, 160], [0.2, 0.0, 0.0, 0.2, 0.2])
    x = np.interp(np.arange(rows), [0, 100, 140, 160], [0.0, 0.0, 0.3, 0.3])
    hand = geometry.pose(np.stack([x, np.zeros(rows), z], axis=1), np.broadcast_to(DOWN, (rows, 3, 3)))
    cube = hand.copy()
    cube[:60, :3, 3] = 0.0
    cube[:, :3, :3] = np.eye(3)
    cube[150:, 2, 3] = 0.0
    closing = (np.arange(rows) >= 40) & (np.arange(rows) < 150)
    return Source(hand, hand, closing ^ reverse_gripper, {"cube": cube}, "", 20.0)


def test_cuts_are_where_the_object_is_approached_held_lifted_and_let_go() -> None:
    cuts = adapt.find_cuts(picked_up(), "cube")
    assert 18 <= cuts.reach <= 22
    assert cuts.grasp == 40
    assert 40 < cuts.settled <= 60
    assert 66 <= cuts.carry <= 70
    assert cuts.carry < cuts.place < cuts.release == 150


def test_a_reversed_gripper_is_cut_at_the_same_rows() -> None:
    assert adapt.find_cuts(picked_up(reverse_gripper=True), "cube") == adapt.find_cuts(picked_up(), "cube")


def test_an_object_that_is_never_lifted_is_refused_by_name() -> None:
    source = picked_up()
    source.things["cube"][:] = np.eye(4)
    with pytest.raises(DatasetError, match="never lifts 'cube'"):
        adapt.find_cuts(source, "cube")
    with pytest.raises(DatasetError, match="never moves 'cube'"):
        adapt.find_contact(source, "cube")


def test_contact_begins_with_the_first_motion_of_the_part() -> None:
    cuts = adapt.find_contact(picked_up(), "cube")
    assert 60 <= cuts.grasp <= 62
    assert cuts.reach < cuts.grasp


def test_pauses_are_left_out_of_a_push() -> None:
    source = picked_up()
    asked = source.hand.copy()
    asked[100:120, 0, 3] += 0.01
    assert adapt.pushes(Source(source.hand, asked, source.closing, source.things, "", 20.0), 90).tolist() == list(range(100, 120))


def test_a_slip_of_the_finger_is_no_grasp() -> None:
    closing = np.repeat([False, True, False, True, False], [50, 3, 9, 100, 20])
    assert adapt.debounce(closing).tolist() == np.repeat([False, True, False], [62, 100, 20]).tolist()


@settings(deadline=None, max_examples=50)
@given(upright_poses)
def test_the_grasp_moves_with_the_object(now: np.ndarray) -> None:
    source = picked_up()
    cuts = adapt.find_cuts(source, "cube")
    way = adapt.grasp_path(source, cuts, "cube", now, 1, geometry.pose(np.zeros(3), DOWN), cuts.carry)
    then = source.hand[cuts.reach : cuts.carry]
    half_turned = then @ adapt.turns(2)[1]
    relative = geometry.inverse(now) @ way
    assert np.allclose(relative, then, atol=1e-9) or np.allclose(relative, half_turned, atol=1e-9)


@settings(deadline=None, max_examples=50)
@given(upright_poses, st.sampled_from([1, 2, 4, 360]))
def test_symmetry_chooses_the_smallest_turn(now: np.ndarray, order: int) -> None:
    source = picked_up()
    cuts = adapt.find_cuts(source, "cube")
    home = geometry.pose(np.zeros(3), DOWN)
    way = adapt.grasp_path(source, cuts, "cube", now, order, home, cuts.carry)
    turn = geometry.angle_between(way[cuts.grasp - cuts.reach, :3, :3], home[:3, :3])
    assert turn <= np.pi / max(order, 2) + 1e-6


@settings(deadline=None, max_examples=50)
@given(paths, poses, st.sampled_from([1, 4]))
def test_what_is_in_the_hand_goes_where_it_should(wanted: np.ndarray, hand_from_object: np.ndarray, order: int) -> None:
    way = adapt.place_path(wanted, hand_from_object, order, np.eye(4))
    carried = way @ hand_from_object
    assert np.allclose(carried[:, :3, 3], wanted[:, :3, 3], atol=1e-9)
    turned = geometry.inverse(wanted) @ carried
    assert any(np.allclose(turned, turn, atol=1e-6) for turn in adapt.turns(order))


@settings(deadline=None, max_examples=50)
@given(paths)
def test_a_filled_path_has_no_gaps_and_keeps_its_corners(path: np.ndarray) -> None:
    filled = adapt.fill(path)
    assert adapt.metric(filled[1:], filled[:-1]).max() <= adapt.GRID * 1.5
    for corner in path:
        assert adapt.metric(filled, corner).min() < 1e-6


@settings(deadline=None, max_examples=50)
@given(paths)
def test_thinning_keeps_the_ends_and_leaves_loops_out(path: np.ndarray) -> None:
    there_and_back = np.concatenate([path, path[::-1], path])
    for rows in (path, there_and_back):
        thin = adapt.thin(rows)
        assert np.array_equal(thin[0], rows[0])
        assert np.array_equal(thin[-1], rows[-1])
    assert len(adapt.thin(there_and_back)) <= len(path)


@settings(deadline=None, max_examples=50)
@given(paths)
def test_homing_only_comes_nearer_and_leaving_only_goes_further(path: np.ndarray) -> None:
    assert (np.diff(adapt.metric(adapt.homing(path), path[-1])) < 0).all()
    assert (np.diff(adapt.metric(adapt.leaving(path), path[0])) > 0).all()


@settings(deadline=None, max_examples=50)
@given(poses, poses, st.floats(0.0, 0.1))
def test_the_way_over_never_cuts_through_below(start: np.ndarray, end: np.ndarray, above: float) -> None:
    corners = adapt.over(start, end, above)
    assert np.array_equal(corners[0], start)
    assert np.allclose(corners[-1, :3, 3], end[:3, 3] + [0, 0, above])
    sideways = np.flatnonzero(np.linalg.norm(np.diff(corners[:, :2, 3], axis=0), axis=1) > 1e-12)
    assert all(corners[k, 2, 3] >= corners[-1, 2, 3] - 1e-12 for k in sideways)


@settings(deadline=None, max_examples=50)
@given(paths, st.floats(0.01, 0.05))
def test_pursuit_brings_an_obedient_hand_to_the_end_in_order(path: np.ndarray, lead: float) -> None:
    pursuit = adapt.Pursuit(adapt.fill(path), lead)
    hand, seen = path[0], [0]
    for _ in range(len(pursuit.path) + 1):
        hand = pursuit.aim(hand)
        seen.append(pursuit.k)
        if pursuit.arrived(hand, 0.001):
            break
    assert pursuit.arrived(hand, 0.001)
    assert seen == sorted(seen)


def test_pursuit_waits_for_a_hand_that_is_held_up() -> None:
    path = adapt.fill(np.stack([np.eye(4), adapt.lifted(np.eye(4), 0.3)]))
    pursuit = adapt.Pursuit(path, 0.02)
    assert all(pursuit.aim(np.eye(4))[2, 3] <= 0.02 for _ in range(100))
    assert not pursuit.arrived(np.eye(4), 0.01)


def test_what_a_person_asked_for_is_ahead_of_the_hand() -> None:
    hand = np.broadcast_to(np.eye(4), (2, 4, 4))
    actions = np.array([[1.0, 0, 0, 0, 0, 0, -1], [0, 0, -0.5, 0, 0, 0, 1]])
    assert np.allclose(asked_poses(hand, actions, "osc_delta")[:, :3, 3], [[0.05, 0, 0], [0, 0, -0.025]])
    assert np.array_equal(asked_poses(hand, actions, "joint_velocity"), hand)


def test_a_recorded_model_is_read_without_its_meshes() -> None:
    xml = """<mujoco><compiler meshdir="/nowhere"/><asset><mesh name="m" file="gone.stl"/></asset><worldbody>
    <body name="arm"><joint name="j" axis="0 0 1"/><geom type="mesh" mesh="m"/><site name="grip_site" pos="[0.1 0 0]"/></body>
    </worldbody></mujoco>"""
    model = kinematic_model(xml)
    assert model.nq == 1
    assert model.site("grip_site").pos.tolist() == [0.1, 0.0, 0.0]


def test_a_model_that_is_no_model_says_so() -> None:
    with pytest.raises(DatasetError, match="is not XML"):
        kinematic_model("<mujoco>")
    with pytest.raises(DatasetError, match="does not compile"):
        kinematic_model("<mujoco><worldbody><body><nonsense/></body></worldbody></mujoco>")
