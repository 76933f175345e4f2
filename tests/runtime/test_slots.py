"""Slots of body time, the mask of real-time chunking, and means of several opinions on one slot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolearn.core import ArraySpec, Spec
from robolearn.errors import BadInput
from robolearn.runtime._slots import Kinds, soft_mask

HZ = 10.0
WIDE = Spec({}, ArraySpec((7,), "float64", names=("x", "y", "qw", "qx", "qy", "qz", "gripper")), HZ)


@given(st.integers(1, 40), st.data())
def test_the_soft_mask_is_the_closed_form(horizon: int, data: st.DataObject) -> None:
    execute = data.draw(st.integers(0, horizon))
    delay = data.draw(st.integers(0, horizon - execute))
    want = []
    for i in range(horizon):
        c = (horizon - execute - i) / (horizon - execute - delay + 1)
        want.append(1.0 if i < delay else c * (np.e**c - 1) / (np.e - 1) if i < horizon - execute else 0.0)
    np.testing.assert_allclose(soft_mask(horizon, delay, execute), want, atol=1e-6)


def test_the_soft_mask_at_its_ends() -> None:
    assert not soft_mask(16, 0, 16).any()
    np.testing.assert_array_equal(soft_mask(8, 3, 5), [1, 1, 1, 0, 0, 0, 0, 0])
    with pytest.raises(BadInput, match="want 0 <= delay <= horizon - execute, got delay 4, horizon 8 and execute 5"):
        soft_mask(8, 4, 5)


def test_a_true_zero_is_an_opinion_like_any_other() -> None:
    kinds = Kinds()
    opinions = np.array([[[1.0]], [[0.0]], [[np.nan]]])
    np.testing.assert_allclose(kinds.average(opinions, np.array([[1.0], [1.0], [0.0]])), [[0.5]])


def test_kinds_lie_apart_and_within_the_action() -> None:
    assert Kinds.of(WIDE, (2,)) == Kinds((6,), (2,), ())
    for quaternions, binary in (((4,), None), ((2,), (5,)), ((), (7,))):
        with pytest.raises(BadInput, match=r"kinds: want quaternions of 4 and binary numbers apart and within 0\.\.6"):
            Kinds.of(WIDE, quaternions, binary)
