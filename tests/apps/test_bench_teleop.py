"""`bench teleop`: mink's task is right, and the quick bench keeps the contract's keys and the claims that need no clock."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from robolearn.cli import main
from robolearn.teleop import robots

pytest.importorskip("mink")
pytest.importorskip("robosuite")

ARM_KEYS = {
    "max_residual_rad", "solves_per_s", "mink_same_objective_solves_per_s", "mink_converged_share", "cold_converged_share",
    "mink_cold_converged_share",
}  # fmt: skip


@pytest.mark.parametrize("name", ["panda", "kinova3", "gr1_right"])
def test_the_jacobian_of_axis_align_is_the_finite_difference_of_its_error(name: str) -> None:
    from robolearn.apps._teleop_mink import Mink

    arm, rng = robots.arm(name), np.random.default_rng(3)
    peer = Mink(arm)
    for task in peer.aligned:
        q = np.clip(rng.uniform(-1, 1, 7), arm.low, arm.high)
        peer.put(q)
        jacobian = task.compute_jacobian(peer.configuration)
        assert np.abs(jacobian).max() > 0.1
        for i, dof in enumerate(peer.qpos):
            ends = []
            for sign in (1, -1):
                peer.put(q + sign * 1e-6 * np.eye(7)[i])
                ends.append(task.compute_error(peer.configuration))
            np.testing.assert_allclose((ends[0] - ends[1]) / 2e-6, jacobian[:, dof], atol=1e-7)


@pytest.mark.parametrize("name", ["panda", "iiwa", "kinova3", "gr1_right", "sawyer"])
def test_mink_has_no_error_where_our_solution_has_none(name: str) -> None:
    from robolearn.apps import _teleop_streams as streams
    from robolearn.apps._teleop_mink import Mink

    arm = robots.arm(name)
    peer = Mink(arm)
    for q in streams.inside(arm, np.random.default_rng(4), 5):
        target = streams.target_at(arm, q)
        for found, converged, steps in (peer.same_objective(target, q), peer.hand_pose(target, q)):
            assert converged and steps == 0
            np.testing.assert_allclose(found, q)


def test_the_quick_bench_keeps_the_contract(tmp_path: Path) -> None:
    out = tmp_path / "teleop.json"
    assert main(["bench", "teleop", "--quick", "--arms", "panda", "--no-bimanual", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert {"meta", "arms", "batch_solves_per_s", "stream", "bimanual"} <= set(found)
    row = found["arms"]["panda"]
    assert set(row) >= ARM_KEYS | {"reference_per_s"}
    assert row["max_residual_rad"] <= 1e-9 and row["round_trip_share"] == 1.0 and row["cold_converged_share"] == 1.0
    sew = [each for each in found["stream"] if each["method"].startswith("sew")]
    assert sew and all(each["max_step_rad"] <= each["cap_rad"] for each in sew)
    assert all(fault["holds"] for fault in found["faults"].values())
