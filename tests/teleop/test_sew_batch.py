"""Many targets at once equal one after the other, in numpy and torch; whole trajectories avoid what greedy choice walks into."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sew_targets import ARMS, gap, inside, rotations, units

from robolearn.errors import ArrayMismatch, BadInput
from robolearn.teleop import robots
from robolearn.teleop.branches import solve_trajectory
from robolearn.teleop.sew import solve, solve_batch


@pytest.mark.parametrize("name", ARMS)
def test_a_batch_equals_one_after_the_other(name: str) -> None:
    arm, rng = robots.arm(name), np.random.default_rng(0)
    U, L, H = units(rng, 120), units(rng, 120), rotations(rng, 120)
    batch = solve_batch(arm, U, L, H)
    for k in np.flatnonzero(batch.fits.any(axis=1)):
        np.testing.assert_allclose(batch.q[k], solve(arm, U[k], L[k], H[k]).q, atol=1e-9)
    assert (batch.q >= arm.low).all() and (batch.q <= arm.high).all()


@pytest.mark.parametrize(("kind", "most"), [(torch.float64, 1e-12), (torch.float32, 2e-3)])
def test_torch_tensors_pass_through(kind: torch.dtype, most: float) -> None:
    arm, rng = robots.arm("iiwa").without_limits(), np.random.default_rng(1)
    U, L, H = units(rng, 50), units(rng, 50), rotations(rng, 50)
    got = solve_batch(arm, *(torch.asarray(each, dtype=kind) for each in (U, L, H)))
    assert isinstance(got.q, torch.Tensor) and got.q.dtype == kind
    want = solve_batch(arm, U, L, H)
    assert np.median(np.abs(got.branches.numpy() - want.branches)) < most
    for q, u in zip(got.q.numpy().astype(float), U, strict=True):
        assert np.abs(arm.directions(q)[0] - u).max() < max(most, 1e-5)


def test_a_target_that_is_no_number_spoils_its_own_row_only() -> None:
    arm, rng = robots.arm("panda"), np.random.default_rng(2)
    U, L, H = units(rng, 5), units(rng, 5), rotations(rng, 5)
    U[2] = np.nan
    batch = solve_batch(arm, U, L, H)
    assert np.isnan(batch.q[2]).all() and np.isfinite(np.delete(batch.q, 2, axis=0)).all()


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ArrayMismatch, match=r"\(4, 2\)"):
        solve_batch(robots.arm("panda"), np.zeros((4, 2)), np.zeros((4, 3)), np.zeros((4, 3, 3)))


def sweep(arm_name: str, seed: int, n: int = 60) -> tuple[np.ndarray, ...]:
    """Returns a smooth joint path inside the limits and its targets."""
    arm, rng = robots.arm(arm_name), np.random.default_rng(seed)
    a, b = inside(arm, rng, 2)
    q = a + (b - a) * (0.5 - 0.5 * np.cos(np.linspace(0, np.pi, n)))[:, None]
    targets = [arm.directions(each) for each in q]
    return q, np.stack([t[0] for t in targets]), np.stack([t[1] for t in targets]), np.stack([t[2] for t in targets])


@pytest.mark.parametrize("name", ["panda", "iiwa", "kinova3"])
@pytest.mark.parametrize("seed", range(4))
def test_a_path_of_the_arm_is_followed_without_a_jump(name: str, seed: int) -> None:
    arm = robots.arm(name)
    q, U, L, H = sweep(name, seed)
    found = solve_trajectory(arm, U, L, H, q[0])
    least = np.abs(np.diff(q, axis=0)).sum()
    assert found.fits.all()
    assert np.abs(np.diff(found.q, axis=0)).sum() <= least * (1 + 1e-6)
    if np.abs(np.diff(found.q, axis=0)).max() < 0.5 and gap(found.q[0], q[0]) < 1e-9:
        np.testing.assert_allclose(found.q[-1], q[-1], atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_looking_at_all_targets_never_costs_more_than_the_nearest_branch_each_time(seed: int) -> None:
    arm = robots.arm("iiwa")
    q, U, L, H = sweep("iiwa", seed, 30)
    found, greedy = solve_trajectory(arm, U, L, H, q[0]), [q[0]]
    for k in range(len(U)):
        result = solve(arm, U[k], L[k], H[k], greedy[-1])
        if result.residuals.max() > 1e-6:
            pytest.skip("greedy choice left the exact branches")
        greedy.append(result.q)
    cost = np.abs(np.diff(np.vstack([q[:1], found.q]), axis=0)).sum()
    assert cost <= np.abs(np.diff(greedy, axis=0)).sum() + 1e-9


def test_no_target_and_no_pose_are_refused() -> None:
    arm = robots.arm("iiwa")
    with pytest.raises(BadInput, match="at least one"):
        solve_trajectory(arm, np.empty((0, 3)), np.empty((0, 3)), np.empty((0, 3, 3)))
    with pytest.raises(BadInput, match="target 1"):
        solve_trajectory(arm, np.array([[0, 0, 1.0], [0, 0, 0]]), np.ones((2, 3)), np.stack([np.eye(3)] * 2))
