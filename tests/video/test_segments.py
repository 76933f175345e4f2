"""The rule-based segmenter (spec 2, Super-Mimic): parts end where contact begins or ends and where the hand nearly stops."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn.errors import BadInput
from robolearn.video.segments import SegmentRule, segments

HZ = 20.0


def reach_stop_lift() -> tuple[np.ndarray, np.ndarray]:
    """Returns positions and gripper of a reach (2 s), a stop (1 s), a grasp in its middle, and a lift (2 s)."""
    ease = 0.5 - 0.5 * np.cos(np.linspace(0, np.pi, 40))
    x = np.concatenate([0.3 * ease, np.full(20, 0.3), np.full(40, 0.3)])
    z = np.concatenate([np.zeros(60), 0.2 * ease])
    return np.stack([x, np.zeros(100), z], axis=1), np.arange(100) >= 50


def test_a_grasp_is_cut_where_contact_begins() -> None:
    position, closed = reach_stop_lift()
    found = segments(position, closed, HZ)
    assert [(s.why, s.closed) for s in found][:1] == [("contact", False)] or found[0].why == "stop"
    assert any(s.stop == 50 and s.why == "contact" for s in found) and found[-1].why == "end" and found[-1].closed


def test_a_stop_without_contact_is_cut_too_and_even_motion_is_not() -> None:
    position, closed = reach_stop_lift()
    stops = segments(position, np.zeros_like(closed), HZ)
    assert len(stops) == 2 and stops[0].why == "stop" and 38 <= stops[0].stop <= 62
    even = np.linspace(0, 1, 100)[:, None] * np.ones(3)
    assert len(segments(even, np.zeros(100, bool), HZ)) == 1


def test_opening_and_closing_both_cut_and_are_told_apart() -> None:
    even = np.linspace(0, 1, 60)[:, None] * np.ones(3)
    closed = (np.arange(60) >= 20) & (np.arange(60) < 40)
    found = segments(even, closed, HZ)
    assert [(s.first, s.stop, s.why, s.closed) for s in found] == [
        (0, 20, "contact", False),
        (20, 40, "release", True),
        (40, 60, "end", False),
    ]


def test_a_hand_that_never_moves_is_one_part() -> None:
    assert len(segments(np.zeros((30, 3)), np.zeros(30, bool), HZ)) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 80), st.integers(0, 1000))
def test_every_row_is_in_exactly_one_part(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    closed = np.cumsum(rng.random(n) < 0.05) % 2 == 1
    found = segments(np.cumsum(rng.normal(size=(n, 3)), axis=0), closed, HZ)
    assert found[0].first == 0 and found[-1].stop == n
    assert all(a.stop == b.first for a, b in pairwise(found)) and all(s.stop > s.first for s in found)
    assert all(len(set(closed[s.first : s.stop])) == 1 for s in found)  # no part holds and lets go


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(BadInput, match="want positions"):
        segments(np.zeros((3, 3)), np.zeros(2, bool), HZ)
    with pytest.raises(BadInput, match=r"want slow in \[0, 1\)"):
        SegmentRule(slow=1.5)
