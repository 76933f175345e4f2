"""The first motion is slow, straight, checked before it begins, stops when the dead-man is let go, and is refused from afar."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn.errors import ArrayMismatch, BadInput
from robolearn.runtime.align import Align
from robolearn.runtime.limits import Limits, defaults

pytest.importorskip("ruckig")
DT = 0.01
OFF = ("workspace", "effort", "temperature")
HERE, THERE = np.array([0.1, -0.2, 0.0]), np.array([1.1, 0.3, 0.0])


def arm(**changes: Any) -> Limits:
    return defaults(("a", "b", "c"), (-2.0,) * 3, (2.0,) * 3, (2.0, 1.0, 3.0), **{"without": (*OFF, "collision"), **changes})


def walk(align: Align, held: Any = lambda k: True, ticks: int = 600) -> np.ndarray:
    """Returns the setpoints (ticks, 3) until it is done, the start first; held(tick) is the dead-man."""
    path = [align.start]
    for k in range(ticks):
        path.append(align.step(k * DT, held(k)))
        if align.done:
            break
    return np.array(path)


def test_a_first_command_1_rad_away_is_reached_at_a_fifth_of_the_speed() -> None:
    align = Align(arm(), DT, HERE, THERE)
    path = walk(align)
    np.testing.assert_array_equal(path[-1], THERE)
    speed = np.abs(np.diff(path, axis=0)).max(axis=0) / DT
    assert np.all(speed <= 0.2 * np.array([2.0, 1.0, 3.0]) * (1 + 1e-9)) and speed[0] == pytest.approx(0.4)
    for k, most in ((2, arm().bounds.acceleration), (3, arm().bounds.jerk)):
        assert np.all(np.abs(np.diff(path, k, axis=0)).max(axis=0) / DT**k <= most * (1 + 1e-6))
    # 1 rad at 0.4 rad/s and the ramps
    assert len(path) * DT == pytest.approx(2.5 + 0.4 / 10 + 10 / 100, abs=0.1)


def test_the_way_is_straight_and_never_goes_back() -> None:
    path = walk(Align(arm(), DT, HERE, THERE), held=lambda k: k % 70 < 45)
    share = (path - HERE)[:, 0] / (THERE - HERE)[0]
    np.testing.assert_allclose(path, HERE + share[:, None] * (THERE - HERE), atol=1e-12)
    assert np.all(np.diff(share) >= -1e-12) and share[-1] == 1.0


def test_a_dead_man_that_is_let_go_ramps_to_a_stop_and_held_again_goes_on() -> None:
    align = Align(arm(), DT, HERE, THERE)
    path = walk(align, held=lambda k: not 60 <= k < 160)
    np.testing.assert_allclose(path[100], path[160], atol=1e-12)
    assert 0 < path[100][0] - HERE[0] < 0.9, "it stood on the way"
    assert np.abs(np.diff(path, 2, axis=0)).max() / DT**2 <= 10 * (1 + 1e-6), "without a jolt"
    np.testing.assert_array_equal(path[-1], THERE)


def test_without_the_dead_man_nothing_moves() -> None:
    align = Align(arm(), DT, HERE, THERE)
    np.testing.assert_array_equal(walk(align, held=lambda k: False, ticks=50), np.tile(HERE, (51, 1)))
    assert align.at_rest and not align.done


def test_a_target_farther_than_max_align_is_refused_unless_confirmed() -> None:
    far = HERE + np.array([0.0, 1.2, 0.0])
    with pytest.raises(
        BadInput, match=r"align: b is 1.200 rad from the first target, want 1 at most: .* or confirm the longer way"
    ):
        Align(arm(), DT, HERE, far)
    path = walk(Align(arm(), DT, HERE, far, confirmed=True), ticks=900)
    np.testing.assert_array_equal(path[-1], far)
    assert np.abs(np.diff(path, axis=0)).max() <= 0.2 * 1.0 * DT * (1 + 1e-9)
    assert Align(arm(without=(*OFF, "collision", "align")), DT, HERE, far).q[1] == HERE[1]


def test_a_way_that_is_not_free_is_refused_before_anything_moves() -> None:
    limits = arm(without=OFF)
    asked = []

    def share(a: np.ndarray, b: np.ndarray) -> float:
        asked.append((a, b))
        return 0.37

    with pytest.raises(BadInput, match="align: the straight way to the first target is blocked after 37 % of it"):
        Align(limits, DT, HERE, THERE, share)
    np.testing.assert_array_equal(asked, [(HERE, THERE)])
    with pytest.raises(BadInput, match="blocked after nan %"):
        Align(limits, DT, HERE, THERE, lambda a, b: float("nan"))
    with pytest.raises(BadInput, match=r"align: the collision limit needs safe_share.*without: \[collision\]"):
        Align(limits, DT, HERE, THERE)
    assert walk(Align(limits, DT, HERE, THERE, lambda a, b: 1.0))[-1][0] == THERE[0]


@pytest.mark.parametrize(
    ("start", "target", "message"),
    [
        ([0, np.nan, 0], THERE, "align: measured pose: want 3 finite joint angles"),
        (HERE, [0, np.inf, 0], "align: first target: want 3 finite joint angles"),
        (HERE, [0, 0], "align: first target: want 3 finite joint angles"),
    ],
)
def test_what_is_no_pose_is_refused(start: Any, target: Any, message: str) -> None:
    with pytest.raises(ArrayMismatch, match=message):
        Align(arm(), DT, start, target)


def test_a_target_outside_the_hard_range_is_refused_and_a_start_outside_is_brought_in() -> None:
    with pytest.raises(BadInput, match=r"the first target of b is 2.100, outside its hard range -2.000 .. 2.000 rad"):
        Align(arm(), DT, np.array([0, 1.9, 0]), np.array([0, 2.1, 0]))
    assert walk(Align(arm(), DT, np.array([0, 2.1, 0]), np.array([0, 1.9, 0])))[-1][1] == 1.9


def test_an_arm_that_is_there_already_is_done_at_once() -> None:
    align = Align(arm(), DT, HERE, HERE)
    assert align.done
    np.testing.assert_array_equal(align.step(0.0, True), HERE)


def test_calls_in_a_burst_do_not_hurry_it() -> None:
    align = Align(arm(), DT, HERE, THERE)
    for k in range(1000):
        q = align.step(k * DT / 10, True)
    assert q[0] - HERE[0] <= 0.4 * (1.0 + 2 * DT)


@given(
    st.lists(st.floats(-0.33, 0.33), min_size=3, max_size=3), st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=6)
)
@settings(max_examples=12)
def test_no_dead_man_makes_it_faster_than_a_fifth(way: list[float], held: list[tuple[bool, int]]) -> None:
    align, now_s, path = Align(arm(), DT, HERE, HERE + 3 * np.array(way)), 0.0, [HERE]
    for down, ticks in [*held, (True, 650)]:
        for _ in range(ticks):
            path.append(align.step(now_s, down))
            now_s += DT
            if align.done:
                break
    speed = np.abs(np.diff(path, axis=0)).max(axis=0) / DT
    assert np.all(speed <= 0.2 * arm().bounds.velocity * (1 + 1e-6)) and align.done
