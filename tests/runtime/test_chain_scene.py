"""Scene, load, heat and gripper: the chain keeps the tool inside and the arm apart, and pushes no overloaded joint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from chain_loop import OFF, Loop, arm, planar

from robolearn.runtime.filters import Measured, Result
from robolearn.runtime.limits import Box, Plane

CALM = Measured(np.zeros(2), np.zeros(2), np.full(2, 30.0))


def test_no_point_of_the_tool_leaves_box_or_plane_however_it_is_driven() -> None:
    box, plane = Box((-2.0, -1.0, -2.0), (2.0, 1.0, 0.7)), Plane((0.0, 0.0, 2.0), -0.1)
    loop = Loop(arm(boxes=(box,), planes=(plane,), without=OFF[1:]), points=planar)
    for goal in ([1.4, 1.0], [-1.2, -1.0], [1.4, -1.4], [0.1, 1.4], [-1.4, 0.3]):
        for _ in range(60):
            loop.send(goal)
    heights = np.array([planar(q)[:, 2] for q in loop.q])
    assert heights.max() <= 0.7 + 1e-8 and heights.min() >= -0.1 - 1e-8, "the plane's normal needs no unit length"
    assert heights.max() > 0.65 and heights.min() < -0.08 and loop.chain.counts["workspace"] > 50


def test_a_point_that_is_outside_may_only_come_back() -> None:
    loop = Loop(arm(planes=(Plane((0, 0, 1), 0.2),), without=OFF[1:]), start=(0.1, 0.0), points=planar)
    assert planar(loop.q[0])[:, 2].min() < 0.2
    down = loop.send([0.05, 0.0])
    assert "workspace" in down.which and down.q[0] == pytest.approx(0.1, abs=1e-6)
    for _ in range(100):
        loop.send([0.9, 0.0])
    assert loop.q[-1][0] == pytest.approx(0.9)


def test_a_step_is_scaled_back_along_its_way_before_a_collision() -> None:
    wall = 0.5

    def share(a: np.ndarray, b: np.ndarray) -> float:
        return 1.0 if b[0] <= wall else (wall - a[0]) / (b[0] - a[0])

    loop = Loop(arm(without=OFF[:3]), safe_share=share)
    for _ in range(100):
        done = loop.send([1.5, 0.0])
    assert done.which[-1] == "collision" and done.q[0] == pytest.approx(wall)
    blocked = Loop(arm(without=OFF[:3]), safe_share=lambda a, b: float("nan"))
    np.testing.assert_array_equal(blocked.send([0.0001, 0.0]).q, [0.0, 0.0])


def test_a_brake_does_not_run_into_what_is_in_its_way() -> None:
    loop = Loop(arm(without=OFF[:3]), safe_share=lambda a, b: 1.0 if b[0] <= 0.4 else 0.0)
    while loop.q[-1][0] < 0.36:
        loop.send([1.9, 0.0])
    for _ in range(50):
        loop.send([np.nan, 0.0])
    assert max(q[0] for q in loop.q) <= 0.4


def test_an_overloaded_joint_may_give_way_but_not_push() -> None:
    limits = arm(max_effort=(10.0, 10.0), without=("workspace", "temperature", "collision"))
    pressed = Measured(np.array([0.1, 0.0]), np.array([-11.0, 0.0]))
    loop = Loop(limits, start=(0.2, 0.0))
    push = loop.send([0.2001, 0.0], measured=pressed)
    assert push.which == ("effort",) and push.result is Result.CLAMP
    np.testing.assert_array_equal(push.q, [0.2, 0.0])
    give = loop.send([0.1999, 0.0], measured=pressed)
    assert give.which == ("effort",) and give.q[0] == 0.1999
    assert loop.send([0.1998, 0.0], measured=Measured(np.zeros(2), np.full(2, 9.9))).result is Result.PASS


@pytest.mark.parametrize("effort", [None, np.array([np.nan, 0.0]), np.zeros(3)])
def test_a_load_that_nobody_measures_is_refused_and_not_assumed(effort: Any) -> None:
    limits = arm(max_effort=(10.0, 10.0), max_temperature=60.0, without=("workspace", "collision"))
    hot = Measured(np.zeros(2), np.zeros(2), effort)
    for measured in (None, Measured(np.zeros(2), effort, np.zeros(2))):
        done = Loop(limits).send([0, 0], measured=measured)
        assert done.which == ("effort",) and "switch the limit off by name, or measure it" in done.why
    done = Loop(limits).send([0, 0], measured=hot)
    assert done.which == ("temperature",) and "no temperature is measured" in done.why


def test_a_hot_joint_stops_the_arm_by_name() -> None:
    limits = arm(max_effort=(10.0, 10.0), max_temperature=60.0, without=("workspace", "collision"))
    assert Loop(limits).send([0, 0], measured=CALM).result is Result.PASS
    done = Loop(limits).send([0, 0], measured=Measured(np.zeros(2), np.zeros(2), np.array([30.0, 71.0])))
    assert done.result is Result.REJECT and done.why == "elbow is 71 deg C hot, want 60 at most"


def test_the_gripper_is_cut_to_its_range_and_speed_and_keeps_its_opening_when_nothing_is_asked() -> None:
    loop = Loop(arm(), aperture=0.5)
    opened = loop.send([0, 0], 7.0)
    assert opened.aperture == pytest.approx(0.52) and opened.which == ("aperture",)
    assert loop.send([0, 0]).aperture is None
    assert loop.send([0, 0], 0.53).aperture == 0.53
    assert loop.send([np.nan, 0], 0.0).aperture == 0.53, "a refused setpoint moves no finger"
    assert Loop(arm()).send([0, 0], 0.9).aperture == 0.9, "where nothing is known, it is sent as it comes"
    assert Loop(arm(without=(*OFF, "aperture")), aperture=0.5).send([0, 0], -1.0).aperture == 0.0
    assert Loop(arm(), aperture=float("nan")).send([0, 0]).result is Result.PASS
