"""What is called free is free: MuJoCo sees no contact on any way that the checker leaves, and distances are those of geometry."""

from __future__ import annotations

from functools import cache

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from robolearn.errors import ArrayMismatch, BadInput
from robolearn.runtime.collision import Checker, colliding_goals, rehearse
from robolearn.teleop import robots

JOINTS = tuple(f"joint{i}" for i in range(1, 8))
REST = np.array([0.0, 0.196, 0.0, -2.618, 0.0, 2.942, 0.785])

GANTRY = """
<mujoco>
  <worldbody>
    <geom name="floor" type="plane" size="2 2 .1" pos="0 0 -.5"/>
    <geom name="wall" type="box" size=".1 1 1" pos=".7 0 0"/>
    <body name="cart">
      <joint name="x" type="slide" axis="1 0 0" range="-1 1" limited="true"/>
      <geom name="ball" type="sphere" size=".1"/>
      <body name="arm" pos="0 0 .3">
        <joint name="turn" type="hinge" axis="0 1 0"/>
        <geom name="rod" type="capsule" size=".02" fromto="0 0 0  0 0 .4"/>
        <geom name="ghost" type="sphere" size=".3" contype="0" conaffinity="0"/>
      </body>
    </body>
    <body name="cube" pos="-.5 0 -.45"><freejoint/><geom name="cube" type="box" size=".05 .05 .05"/></body>
  </worldbody>
</mujoco>
"""


@cache
def panda() -> mujoco.MjModel:
    """Returns a Panda at a table."""
    spec = mujoco.MjSpec.from_file(str(robots.path_of("panda")))
    table = spec.worldbody.add_geom()
    table.name, table.type, table.size, table.pos = "table", mujoco.mjtGeom.mjGEOM_BOX, [0.5, 0.6, 0.02], [0.65, 0, -0.1]
    return spec.compile()


@cache
def arm() -> Checker:
    return Checker(panda(), JOINTS, REST)


def gantry(**changes: object) -> Checker:
    given: dict = {"rest": np.zeros(2), **changes}
    return Checker(mujoco.MjModel.from_xml_string(GANTRY), ("x", "turn"), **given)


def test_no_way_to_a_colliding_goal_penetrates_at_a_margin_of_5_mm() -> None:
    model, rng = panda(), np.random.default_rng(7)
    goals = colliding_goals(arm(), *model.jnt_range.T, 40, rng)
    assert all(arm().penetration(goal) > 0 for goal in goals[:5]), "the goals do collide"
    found = rehearse(arm(), REST, goals, poses=12)
    assert (found.goals, found.cut, found.poses) == (40, 40, 480)
    assert found.penetrations == 0 and found.deepest_m == 0.0


def test_a_cut_way_ends_at_the_margin_and_never_came_nearer() -> None:
    model, rng = panda(), np.random.default_rng(8)
    for goal in colliding_goals(arm(), *model.jnt_range.T, 6, rng):
        share = arm().safe_share(REST, goal)
        assert arm().clearance(REST + share * (goal - REST)) >= 0.005
        assert min(arm().clearance(REST + s * (goal - REST)) for s in np.linspace(0, share, 60)) >= 0.004
        beyond = [arm().clearance(REST + (share + s) * (goal - REST)) for s in np.linspace(0, 0.02, 8)]
        assert min(beyond) < 0.005, "it was not cut too early"


def test_driven_tick_by_tick_into_the_table_it_slides_no_nearer_than_the_margin() -> None:
    q, down = REST.copy(), np.array([0, 0.02, 0, 0.004, 0, 0, 0.0])
    for _ in range(60):
        q = q + arm().safe_share(q, q + down) * down
    near = arm().nearest(q)
    assert 0.005 <= near.clearance_m < 0.006 and "table" in (near.first, near.second)
    assert arm().safe_share(q, q - down) == 1.0, "the way back is free"


def test_the_distance_of_two_meshes_is_that_of_their_hulls_also_where_mujoco_says_nought() -> None:
    model, rng = panda(), np.random.default_rng(3)
    data = mujoco.MjData(model)
    pairs = [pair for pair in arm().pairs if "table" not in pair and "link1_collision" not in pair]
    noughts = 0
    for pose in range(150):
        q = rng.uniform(*model.jnt_range.T)
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        arm()._place(q)
        for first, second in pairs:
            one, two = model.geom(first).id, model.geom(second).id
            nought = mujoco.mj_geomDistance(model, data, one, two, 0.3, None) == 0.0
            noughts += nought
            if pose < 3 or (nought and noughts < 8):
                found = arm()._distance(arm().pairs.index((first, second)), 0.3)
                want = min(hull_distance(model, data, one, two), 0.3)
                assert max(found, 0.0) == pytest.approx(want, abs=3e-4)
        if noughts >= 8:
            break


def hull_distance(model: mujoco.MjModel, data: mujoco.MjData, *geoms: int) -> float:
    """Returns the distance [m] of the convex hulls of two meshes: least squares over convex weights of their corners."""
    corners = []
    for geom in geoms:
        start, count = model.mesh_vertadr[model.geom_dataid[geom]], model.mesh_vertnum[model.geom_dataid[geom]]
        points = model.mesh_vert[start : start + count].astype(float)
        corners.append(points @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom])
    one, two = (np.concatenate([c.T, np.zeros((2, len(c)))]) for c in corners)
    one[3], two[4] = 1e3, 1e3
    weights, _ = nnls(np.concatenate([one, np.concatenate([-two[:3], two[3:]])], axis=1), np.array([0, 0, 0, 1e3, 1e3]))
    at = np.split(weights, [len(corners[0])])
    return float(np.linalg.norm(corners[0].T @ at[0] / at[0].sum() - corners[1].T @ at[1] / at[1].sum()))


@given(st.integers(0, 10_000), st.floats(0.001, 0.4))
@settings(max_examples=25)
def test_no_distance_changes_faster_than_its_bound(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    low, high = panda().jnt_range.T
    q = rng.uniform(low, high)
    step = size * rng.uniform(-1, 1, 7)
    checker, every = arm(), np.arange(len(arm().pairs))
    before, after = (checker._distances(pose, every, np.full(len(every), 9.0)) for pose in (q, q + step))
    apart = (before > 0) & (after > 0)
    assert np.all(np.abs(after - before)[apart] <= (checker._reach @ np.abs(step))[apart] + 1e-5)


def test_only_pairs_that_the_joints_can_bring_together_are_watched() -> None:
    watched = {frozenset(pair) for pair in gantry().pairs}
    want = [("ball", "wall"), ("ball", "cube"), ("rod", "wall"), ("rod", "floor"), ("rod", "cube"), ("ball", "floor")]
    assert watched == {frozenset(pair) for pair in want}, "not the neighbours ball and rod, not the ghost"
    assert not any("cube" in pair for pair in gantry(ignore=("cube",)).pairs)
    neighbours = [{f"link{i}_collision", f"link{i + 1}_collision"} for i in range(7)]
    assert not any(set(pair) in neighbours for pair in arm().pairs) and len(arm().pairs) == 28


def test_clearance_and_share_agree_with_what_one_computes_by_hand() -> None:
    checker = gantry()
    near = checker.nearest(np.zeros(2))
    assert near.clearance_m == pytest.approx(0.4) and {near.first, near.second} == {"ball", "floor"}
    assert checker.clearance(np.array([0.45, 0.0])) == pytest.approx(0.05)
    share = checker.safe_share(np.array([0.0, 0.0]), np.array([1.0, 0.0]))
    assert 0.494 <= share <= 0.495, "0.6 - 0.1 - the margin"
    assert checker.safe_share(np.array([0.0, 0.0]), np.array([0.49, 0.0])) == 1.0
    turned = checker.safe_share(np.array([0.3, 0.0]), np.array([0.3, np.pi / 2]))
    assert 0.3 + 0.4 * np.sin(turned * np.pi / 2) + 0.02 == pytest.approx(0.595, abs=2e-3)


def test_a_thin_wall_is_not_jumped_over_by_a_long_step() -> None:
    thin = GANTRY.replace('size=".1 1 1" pos=".7 0 0"', 'size=".001 1 1" pos=".5 0 0"')
    checker = Checker(mujoco.MjModel.from_xml_string(thin), ("x", "turn"), np.zeros(2))
    assert checker.clearance(np.array([1.0, 0.0])) > 0.3, "behind it all is free"
    assert checker.safe_share(np.zeros(2), np.array([1.0, 0.0])) < 0.4


def test_an_arm_inside_the_margin_may_leave_and_not_go_nearer() -> None:
    checker = gantry()
    near = np.array([0.498, 0.0])
    assert checker.clearance(near) == pytest.approx(0.002)
    assert checker.safe_share(near, np.array([0.4, 0.0])) == 1.0
    assert checker.safe_share(near, np.array([0.499, 0.0])) == 0.0
    inside = np.array([0.55, 0.0])
    assert checker.clearance(inside) < 0 and checker.safe_share(inside, np.array([0.3, 0.0])) == 1.0
    assert checker.safe_share(inside, np.array([0.6, 0.0])) == 0.0


def test_the_surroundings_stand_where_they_are_said_to_stand() -> None:
    qpos = np.zeros(9)
    qpos[2:9] = 0.0, 0.0, -0.2, 1, 0, 0, 0
    assert gantry(qpos=qpos).clearance(np.zeros(2)) == pytest.approx(0.05)


def test_what_the_checker_cannot_work_with_is_refused_in_one_line() -> None:
    model = mujoco.MjModel.from_xml_string(GANTRY)
    with pytest.raises(BadInput, match=r"the model has no joint 'trun'; did you mean 'turn'\?"):
        Checker(model, ("x", "trun"), np.zeros(2))
    with pytest.raises(BadInput, match=r"the model has no body 'cub'; did you mean 'cube'\?"):
        gantry(ignore=("cub",))
    with pytest.raises(BadInput, match=r"at rest wall is 50.0 mm inside ball: give a rest pose that is clear"):
        gantry(rest=np.array([0.55, 0.0]))
    with pytest.raises(BadInput, match=r"want a margin in \(0, 1\) m, got 0"):
        gantry(margin_m=0.0)
    with pytest.raises(BadInput, match="change the distance of no two shapes"):
        gantry(ignore=("cart",))
    with pytest.raises(ArrayMismatch, match="want 2 finite joint angles, got"):
        gantry().clearance(np.array([np.nan, 0.0]))
    free = GANTRY.replace('<joint name="turn" type="hinge" axis="0 1 0"/>', '<joint name="turn" type="ball"/>')
    with pytest.raises(BadInput, match="joint 'turn' is neither hinge nor slide"):
        Checker(mujoco.MjModel.from_xml_string(free), ("x", "turn"), np.zeros(2))
