"""The vocabulary: specs say what fits, refuse what does not, and survive a trip through JSON."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolearn.core import ArraySpec, Camera, Spec
from robolearn.errors import ArrayMismatch, SpecMismatch

STATE = ArraySpec((5,), names=("agent_x", "agent_y", "block_x", "block_y", "block_angle"), unit="px")
IMAGE = ArraySpec((96, 96, 3), "uint8")
CAMERA = Camera((640, 480), ((600.0, 0.0, 320.0), (0.0, 600.0, 240.0), (0.0, 0.0, 1.0)), (0.1, 0.0), hash="abc")
BODY = Spec({"state": STATE, "img": IMAGE}, ArraySpec((2,), unit="px"), hz=10.0, cameras={"img": CAMERA})


def test_an_array_that_fits_passes() -> None:
    STATE.check(np.zeros(5, np.float32), "state")
    IMAGE.check(np.zeros((96, 96, 3), np.uint8), "img")


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros(4, np.float32), "float32(4,)"),
        (np.zeros(5), "float64(5,)"),
        (np.array([0, 0, np.nan, 0, 0], np.float32), "finite"),
        (np.array([0, np.inf, 0, 0, 0], np.float32), "finite"),
    ],
)
def test_an_array_that_does_not_fit_is_named_with_what_came(array: np.ndarray, said: str) -> None:
    with pytest.raises(ArrayMismatch, match="state") as caught:
        STATE.check(array, "state")
    assert said in str(caught.value)


def test_only_uint8_pictures_are_images() -> None:
    assert IMAGE.is_image
    assert not STATE.is_image
    assert not ArraySpec((96, 96, 3)).is_image


def test_a_spec_survives_json() -> None:
    spec = dataclasses.replace(BODY, goal={"goal": STATE}, codec="pose_abs", execute=8, memory_stride=2)
    assert Spec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@given(st.lists(st.integers(0, 9), max_size=4), st.sampled_from(["float32", "uint8", "int64"]), st.text(max_size=5))
def test_any_array_spec_survives_json(shape: list[int], dtype: str, unit: str) -> None:
    spec = ArraySpec(tuple(shape), dtype, unit=unit)
    assert ArraySpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_mind_may_read_less_than_the_body_shows() -> None:
    BODY.require(BODY.select(("state",)), who="Blind")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"obs": {"stat": STATE}}, "did you mean 'state'"),
        ({"obs": {"state": ArraySpec((4,))}}, "the body shows float32(5,)"),
        ({"obs": {"state": ArraySpec((5,), "float64")}}, "float64(5,)"),
        ({"action": ArraySpec((3,))}, "the body takes (2,)"),
        ({"codec": "pose_abs"}, "pose_abs"),
        ({"hz": 20.0}, "20 Hz"),
    ],
)
def test_a_mind_that_does_not_fit_is_refused_by_name(change: dict, said: str) -> None:
    with pytest.raises(SpecMismatch, match="Flow") as caught:
        BODY.require(dataclasses.replace(BODY, **change), who="Flow")
    assert said in str(caught.value)


def test_select_keeps_the_order_and_names_what_is_missing() -> None:
    assert list(BODY.select(("img", "state")).obs) == ["img", "state"]
    with pytest.raises(SpecMismatch, match="did you mean 'img'"):
        BODY.select(("imge",))


def test_the_nouns_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        STATE.unit = "m"  # type: ignore[misc]
