"""The axis mode: exact on all branches, found again from nearby, honest about limits and bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest
from sew_targets import ARMS, gap, inside, rotations, units

from robolearn.errors import BadInput, UnknownName
from robolearn.teleop import robots
from robolearn.teleop._stage import Stage
from robolearn.teleop._subproblems import sp1, sp2, sp4, turned
from robolearn.teleop.arm import Arm
from robolearn.teleop.sew import Status, branches, solve

ANGLES = np.linspace(-np.pi, np.pi, 721)


def vector(v: np.ndarray) -> tuple[float, float, float]:
    return tuple(v.tolist())  # type: ignore[return-value]


@pytest.mark.parametrize("seed", range(20))
def test_the_subproblems_are_never_beaten_by_a_grid(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p1, p2, k1, k2, h = (vector(v) for v in units(rng, 5))
    spun = np.array([turned(k1, t, p1) for t in ANGLES])
    t, _ = sp1(p1, p2, k1)
    assert np.linalg.norm(np.array(turned(k1, t, p1)) - p2) <= np.linalg.norm(spun - p2, axis=1).min() + 1e-9
    d = rng.uniform(-1.5, 1.5)
    angles, residual = sp4(h, p1, k1, d)
    best = np.abs(spun @ np.array(h) - d).min()
    for t in angles:
        error = abs(np.dot(h, turned(k1, t, p1)) - d)
        assert error <= best + 1e-9 and error == pytest.approx(residual, abs=1e-9)
    other = np.array([turned(k2, t, p2) for t in ANGLES])
    nearest = np.sqrt(((spun[::4, None] - other[None, ::4]) ** 2).sum(-1).min())
    for t1, t2 in sp2(p1, p2, k1, k2):
        assert np.linalg.norm(np.subtract(turned(k1, t1, p1), turned(k2, t2, p2))) <= nearest + 1e-9


@pytest.mark.parametrize("seed", range(40))
def test_the_best_point_of_a_box_is_never_beaten_by_a_grid(seed: int) -> None:
    rng = np.random.default_rng(seed)
    arm = robots.arm(ARMS[seed % len(ARMS)])
    stage: Stage = replace(arm, exact=False).plan.stages[seed % 3]
    v = units(rng, 1)[0]
    low = rng.uniform(-3, 2, 2)
    high = low + rng.uniform(0.01, 2.5 if seed % 2 else 0.1, 2)
    near = rng.uniform(low, high)
    qa, qb = stage.best_in_box(vector(v), tuple(low), tuple(high), tuple(near))
    x, y, z = v @ np.array(stage.e1), v @ np.array(stage.k2), v @ np.array(stage.k1)

    def value(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.cos(b + stage.alpha) * z + np.sin(b + stage.alpha) * (x * np.cos(a) + y * np.sin(a))

    a, b = np.meshgrid(np.linspace(low[0], high[0], 201), np.linspace(low[1], high[1], 201))
    assert low[0] <= qa <= high[0] and low[1] <= qb <= high[1]
    assert value(np.array(qa), np.array(qb)) >= value(a, b).max() - 1e-12


@pytest.mark.parametrize("name", robots.names())
def test_the_arm_moves_as_mujoco_says(name: str) -> None:
    arm, model, entry = robots.arm(name), robots.model(name), robots.entry(name)
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    base, hand = model.body(entry.base).id, model.body(entry.hand).id
    for q in rng.uniform(-2.0, 2.0, (20, 7)):
        data.qpos[:] = model.qpos0
        for joint, angle in zip(entry.joints, q, strict=True):
            data.qpos[model.joint(joint).qposadr[0]] = angle
        mujoco.mj_kinematics(model, data)
        turn = data.xmat[base].reshape(3, 3).T
        np.testing.assert_allclose(arm.pose(q)[:3, :3], turn @ data.xmat[hand].reshape(3, 3), atol=1e-13)
        np.testing.assert_allclose(arm.pose(q)[:3, 3], turn @ (data.xpos[hand] - data.xpos[base]), atol=1e-13)


@pytest.mark.parametrize("name", ARMS)
def test_all_eight_branches_are_exact_and_different_where_nothing_limits(name: str) -> None:
    arm, rng = robots.arm(name).without_limits(), np.random.default_rng(1)
    for u, low, h in zip(units(rng, 60), units(rng, 60), rotations(rng, 60), strict=True):
        found = branches(arm, u, low, h)
        for q in found:
            upper, lower, hand = arm.directions(q)
            assert max(np.abs(upper - u).max(), np.abs(lower - low).max(), np.abs(hand - h).max()) < 1e-11
        assert all(gap(a, b) > 1e-6 for i, a in enumerate(found) for b in found[:i])


@pytest.mark.parametrize(("name", "bar"), [("kinova3", 2e-5), ("sawyer", 5e-6)])
def test_axes_rounded_in_the_file_leave_a_residual_that_the_exact_stage_removes(name: str, bar: float) -> None:
    arm, rng = robots.arm(name).without_limits(), np.random.default_rng(2)
    snapped = replace(arm, exact=False)
    for u, low, h in zip(units(rng, 100), units(rng, 100), rotations(rng, 100), strict=True):
        assert solve(snapped, u, low, h).residuals.max() < bar
        assert solve(arm, u, low, h).residuals.max() < 1e-9


@pytest.mark.parametrize("name", ARMS)
def test_a_pose_that_the_arm_had_is_found_again_from_nearby(name: str) -> None:
    arm, rng = robots.arm(name), np.random.default_rng(3)
    for q in inside(arm, rng, 150):
        result = solve(arm, *arm.directions(q), np.clip(q + rng.uniform(-0.02, 0.02, 7), arm.low, arm.high))
        assert result.status is Status.EXACT and gap(result.q, q) < 1e-6


@pytest.mark.parametrize("name", ARMS)
def test_whatever_is_asked_the_answer_is_inside_the_limits_and_says_whether_it_is_exact(name: str) -> None:
    arm, rng = robots.arm(name), np.random.default_rng(4)
    for u, low, h in zip(units(rng, 100), units(rng, 100), rotations(rng, 100), strict=True):
        result = solve(arm, u, low, h)
        assert (result.q >= arm.low).all() and (result.q <= arm.high).all()
        assert (result.status is Status.EXACT) == (result.residuals.max() < 1e-6)


def test_lengths_do_not_matter_but_directions_do() -> None:
    arm, rng = robots.arm("iiwa"), np.random.default_rng(5)
    q = inside(arm, rng, 1)[0]
    u, low, h = arm.directions(q)
    np.testing.assert_allclose(solve(arm, 0.3 * u, 7.0 * low, h, q).q, solve(arm, u, low, h, q).q, atol=1e-12)


NAN = np.array([np.nan, 0.0, 1.0])
UP = np.array([0.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("upper", "lower", "hand", "why"),
    [
        (NAN, UP, np.eye(3), "upper arm"),
        (UP, np.zeros(3), np.eye(3), "forearm"),
        (UP, UP, np.diag([1.0, 1.0, -1.0]), "determinant"),
        (UP, UP, np.full((3, 3), np.nan), "not a number"),
        (UP, UP, np.eye(2), "shape"),
        (UP, UP, np.eye(3) * 1.2, "orthonormal"),
    ],
)
def test_what_is_no_pose_holds_the_arm_and_says_why(upper: np.ndarray, lower: np.ndarray, hand: np.ndarray, why: str) -> None:
    arm = robots.arm("panda")
    q = arm.middle()
    result = solve(arm, upper, lower, hand, q)
    assert result.status is Status.HELD and why in result.why
    np.testing.assert_array_equal(result.q, q)
    with pytest.raises(BadInput, match=why):
        solve(arm, upper, lower, hand)


def test_a_rotation_that_is_nearly_one_is_mended() -> None:
    arm, rng = robots.arm("panda"), np.random.default_rng(6)
    u, low, h = arm.directions(arm.middle())
    assert solve(arm, u, low, h + rng.normal(0, 1e-4, (3, 3)), arm.middle()).status is not Status.HELD


def test_what_a_model_does_not_have_is_named() -> None:
    model, entry = robots.model("panda"), robots.entry("panda")
    with pytest.raises(BadInput, match="did you mean 'right_hand'"):
        Arm.from_mjcf(model, "right_hnd", entry.joints, entry.hand)
    with pytest.raises(BadInput, match="seven joints, got 6"):
        Arm.from_mjcf(model, entry.base, entry.joints[:6], entry.hand)
    with pytest.raises(BadInput, match="no such model file"):
        Arm.from_mjcf("nowhere.xml", entry.base, entry.joints, entry.hand)
    with pytest.raises(UnknownName, match="panda"):
        robots.arm("pandas")


def test_an_arm_without_perpendicular_axes_is_refused() -> None:
    joints = "".join(f'<body name="b{i}" pos="0 0 .1"><joint name="j{i}" axis="0 0 1"/><geom size=".01"/>' for i in range(7))
    text = f'<mujoco><worldbody><body name="base">{joints}<body name="hand"/>{"</body>" * 7}</body></worldbody></mujoco>'
    with pytest.raises(BadInput, match="not perpendicular"):
        Arm.from_mjcf(text, "base", [f"j{i}" for i in range(7)], "hand")


@pytest.mark.parametrize("r", [1e-3, 1e-5, 1e-7])
def test_near_a_pole_of_skewed_axes_the_answer_is_exact_or_does_not_say_so(r: float) -> None:
    arm, rng = robots.arm("kinova3"), np.random.default_rng(21)
    for q in inside(arm, rng, 60):
        q[1] = r * np.sign(q[1])
        result = solve(arm, *arm.directions(q), np.clip(q + rng.uniform(-0.02, 0.02, 7), arm.low, arm.high))
        assert result.residuals.max() < 1e-7
        assert (result.status is Status.EXACT) == (result.residuals.max() < 1e-6)


def test_an_arm_is_read_from_a_urdf_though_no_joint_moves_its_base_or_its_hand(tmp_path: Path) -> None:
    mass = '<inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'
    links = "".join(f'<link name="l{i}">{mass}</link>' for i in range(7))
    joints = "".join(
        f'<joint name="j{i}" type="revolute"><parent link="{f"l{i - 1}" if i else "base"}"/><child link="l{i}"/>'
        f'<origin xyz="0 0 0.2"/><axis xyz="0 {i % 2} {1 - i % 2}"/><limit lower="-2" upper="2" effort="1" velocity="1"/></joint>'
        for i in range(7)
    )
    fixed = '<joint name="f" type="fixed"><parent link="l6"/><child link="hand"/><origin xyz="0 0 0.1"/></joint>'
    text = f'<robot name="r"><link name="base"/>{links}<link name="hand"/>{joints}{fixed}</robot>'
    path = tmp_path / "arm.urdf"
    path.write_text(text)
    for given in (path, text):
        arm = Arm.from_mjcf(given, "base", [f"j{i}" for i in range(7)], "hand")
        np.testing.assert_allclose(arm.hand_position, [0, 0, 1.5], atol=1e-12)
        assert (arm.low == -2).all() and solve(arm, *arm.directions(np.full(7, 0.4)), np.full(7, 0.3)).status is Status.EXACT
