"""A limit is a number or a word in `without`, never an accident; a whole chunk is judged before any of it is merged."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn import config
from robolearn.errors import BadInput
from robolearn.runtime.limits import SWITCHES, Box, Limits, Plane, check_chunk, defaults

OFF = ("workspace", "effort", "temperature", "collision")
NAMES = ("shoulder", "elbow")


def arm(**changes: Any) -> Limits:
    given: dict[str, Any] = {"share": 0.5, "without": OFF, **changes}
    return defaults(NAMES, (-2.0, -1.5), (2.0, 1.5), (2.0, 4.0), **given)


def test_the_defaults_reach_top_speed_after_a_fifth_of_a_second_and_top_acceleration_after_a_tenth() -> None:
    limits = arm(share=0.25)
    assert limits.velocity == (0.5, 1.0)
    assert limits.acceleration == (2.5, 5.0) and limits.jerk == (25.0, 50.0)
    np.testing.assert_allclose(limits.bounds.soft_lower, [-1.95, -1.45])
    np.testing.assert_allclose(limits.bounds.soft_upper, [1.95, 1.45])


def test_nothing_is_off_unless_it_is_named_and_what_is_off_is_listed() -> None:
    full = arm(without=(), max_effort=(80.0, 40.0), max_temperature=70.0, boxes=(Box((-1, -1, 0), (1, 1, 1)),))
    assert full.switched_off() == () and all(full.on(word) for word in SWITCHES)
    assert arm().switched_off() == ("workspace", "collision", "effort", "temperature")
    assert np.isinf(arm(without=(*OFF, "jerk")).bounds.jerk).all(), "what is off has no number, even where one was given"


@pytest.mark.parametrize("word", ["position", "velocity", "acceleration", "jerk", "workspace", "effort", "temperature"])
def test_a_limit_without_a_number_is_refused_unless_it_is_switched_off(word: str) -> None:
    given: dict[str, Any] = {"lower": (-1.0,), "upper": (1.0,), "velocity": (1.0,), "acceleration": (5.0,), "jerk": (50.0,)}
    given |= {"max_effort": (10.0,), "max_temperature": 60.0, "planes": (Plane((0, 0, 1), 0.0),)}
    fields = {"position": ("lower", "upper"), "workspace": ("planes",), "effort": ("max_effort",)}
    fields["temperature"] = ("max_temperature",)
    less = {name: value for name, value in given.items() if name not in fields.get(word, (word,))}
    with pytest.raises(BadInput, match=f"limits: no {word}: give a number, or switch it off by name \\(without: \\[{word}\\]\\)"):
        Limits(("j",), **less)
    off = (word, "jerk") if word == "acceleration" else (word,)
    assert Limits(("j",), **less, without=off).switched_off()[0] == word


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"without": (*OFF, "jrek")}, "limits: without: unknown limit 'jrek'; did you mean 'jerk'?"),
        ({"without": (*OFF, "finite")}, "'finite' cannot be switched off"),
        ({"without": (*OFF, "acceleration")}, "jerk means nothing without acceleration"),
        ({"jerk": (50.0,)}, "jerk: want 2 finite numbers, one a joint, got \\[50.0\\]"),
        ({"jerk": (50.0, math.nan)}, "jerk: want 2 finite numbers"),
        ({"jerk": (50.0, 0.0)}, "jerk: want numbers above 0"),
        ({"soft_margin": 1.5}, "elbow: want upper - lower > 2 soft_margin = 3, got -1.5 .. 1.5"),
        ({"soft_margin": -0.1}, "soft_margin: want 0 or more"),
        ({"max_age_s": 0.0}, "max_age_s: want a finite number above 0, got 0"),
        ({"max_align": math.inf}, "max_align: want a finite number above 0"),
        ({"align_share": 1.5}, "align_share: want a share of the velocity in \\(0, 1\\], got 1.5"),
        ({"max_temperature": -3.0}, "max_temperature: want degrees Celsius above 0"),
        ({"share": 0.0}, "share: want a share of the velocity in \\(0, 1\\], got 0"),
    ],
)
def test_limits_that_make_no_sense_are_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        arm(**changes)
    assert "\n" not in str(error.value)


def test_half_a_range_no_joints_and_empty_boxes_and_planes_are_refused() -> None:
    with pytest.raises(BadInput, match="lower and upper belong together"):
        Limits(("j",), lower=(-1.0,), without=SWITCHES)
    with pytest.raises(BadInput, match="the name of at least one joint"):
        Limits(())
    with pytest.raises(BadInput, match="box: want 3 numbers, lower < upper"):
        Box((0, 0, 0), (1, 0, 1))
    with pytest.raises(BadInput, match="plane: want a normal that is not 0"):
        Plane((0, 0, 0), 0.1)


def test_limits_go_through_a_yaml_file_unchanged(tmp_path: Path) -> None:
    limits = arm(boxes=(Box((-0.5, -0.5, 0.0), (0.5, 0.5, 1.0)),), planes=(Plane((0, 0, 1), 0.02),), without=OFF[1:])
    (tmp_path / "limits.yaml").write_text(config.to_yaml(limits))
    read = config.from_mapping(Limits, config.read_yaml(tmp_path / "limits.yaml"), where="limits.yaml")
    assert dataclasses.asdict(read) == dataclasses.asdict(limits)


def test_what_is_switched_off_can_be_said_in_plain_yaml(tmp_path: Path) -> None:
    (tmp_path / "limits.yaml").write_text("names: [a]\nwithout: [" + ", ".join(SWITCHES) + "]\n")
    assert config.from_mapping(Limits, config.read_yaml(tmp_path / "limits.yaml"), where="x").switched_off() == SWITCHES


def test_a_chunk_inside_the_hard_range_that_begins_near_is_accepted() -> None:
    assert check_chunk(np.tile([0.3, -1.49], (5, 1)), arm(), np.array([0.0, -1.0])) == (True, "", "")


@pytest.mark.parametrize(
    ("actions", "which", "why"),
    [
        ([[0, 0], [0, np.nan]], "finite", "action 1 is not finite"),
        ([[0, np.inf]], "finite", "action 0 is not finite"),
        ([[0, 0, 0]], "shape", "want \\(horizon, 2\\), got \\(1, 3\\)"),
        (np.zeros((0, 2)), "shape", "got \\(0, 2\\)"),
        ([0.0, 0.0], "shape", "got \\(2,\\)"),
        ([[0, 0], [0]], "shape", "want numbers \\(horizon, 2\\), got list"),
        ("open", "shape", "got str"),
        ([[0, 0], [90, -45]], "unit", "action 1: shoulder is 90, .* are these degrees\\? want radians"),
        ([[0, 0], [0, 1.6]], "position", "action 1: elbow 1.600 is outside -1.500 .. 1.500 rad"),
        ([[1.5, 0]], "align", "begins 1.500 rad away, want 1 at most: align first"),
    ],
)
def test_a_bad_chunk_is_refused_whole_by_name(actions: Any, which: str, why: str) -> None:
    found = check_chunk(actions, arm(), np.zeros(2))
    assert (found.accepted, found.which) == (False, which)
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(found.why)


def test_the_farthest_beginning_of_a_chunk_can_be_switched_off() -> None:
    assert check_chunk([[1.5, 0]], arm(without=(*OFF, "align")), np.zeros(2)).accepted


@given(st.lists(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=2, max_size=2), min_size=1, max_size=4))
@settings(max_examples=60)
def test_an_accepted_chunk_is_finite_and_inside_whatever_came(rows: list[list[float]]) -> None:
    limits = arm(without=(*OFF, "align"))
    found = check_chunk(rows, limits, np.zeros(2))
    inside = np.isfinite(rows).all() and np.all(np.abs(np.array(rows)) <= limits.bounds.upper + 1e-9)
    assert found.accepted == bool(inside)
    assert bool(found.which) != found.accepted
