"""One observation of many clocks: same instants, nearest pictures, interpolated numbers, and what is late says so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from robolearn.core import Flag
from robolearn.errors import ArrayMismatch, BadInput
from robolearn.runtime.observing import Stream, Tolerance, align_observation

MS = 1_000_000


def stream(t_ms: np.ndarray | list[float], values: np.ndarray, maxlen: int = 512) -> Stream:
    filled = Stream(maxlen)
    for t, value in zip(t_ms, values, strict=True):
        assert filled.append(round(t * MS), value)
    return filled


def picture(number: int) -> np.ndarray:
    return np.full((2, 2, 3), number, np.uint8)


def setup(*without: str) -> dict[str, Stream]:
    """Returns two cameras out of step and joints at 100 Hz that move at 1 rad/s."""
    front, side = [0, 33, 66, 100], [10, 43, 76]
    streams = {
        "front": stream(front, np.array([picture(i) for i in range(4)])),
        "side": stream(side, np.array([picture(i) for i in range(3)])),
        "q": stream(np.arange(3, 110, 10), np.arange(3, 110, 10)[:, None] * 1e-3),
    }
    return {name: each for name, each in streams.items() if name not in without}


def test_the_last_instant_is_the_newest_that_all_cameras_have_reached() -> None:
    found = align_observation(setup(), ("front", "side"), 110 * MS)
    assert found.t_ref_ns == 76 * MS
    assert found.obs["front"][0, 0, 0, 0] == 2 and found.obs["side"][0, 0, 0, 0] == 2
    assert found.residual_s["front"] == pytest.approx([-0.010])
    assert found.obs["q"][0, 0] == pytest.approx(0.076)
    assert found.age_s == pytest.approx(0.034) and found.usable and not found.stale and found.flags == 0


def test_steps_lie_dt_apart_and_the_oldest_comes_first() -> None:
    found = align_observation(setup(), ("front",), 110 * MS, steps=3, dt_s=0.04)
    assert found.t_ref_ns == 100 * MS
    assert found.obs["q"][:, 0] == pytest.approx([0.020, 0.060, 0.100])
    assert found.obs["front"][:, 0, 0, 0].tolist() == [1, 2, 3]
    assert found.residual_s["front"] == pytest.approx([0.013, 0.006, 0.0])


def test_a_body_without_cameras_is_seen_when_all_its_streams_are_there() -> None:
    streams = {"a": stream([0, 10], np.zeros((2, 1))), "b": stream([0, 7], np.zeros((2, 1)))}
    assert align_observation(streams, (), 12 * MS).t_ref_ns == 7 * MS


@given(st.lists(st.integers(1, 40), min_size=2, max_size=30), st.floats(0, 1), st.integers(0, 2**31))
@settings(max_examples=25)
def test_numbers_that_move_evenly_are_right_at_any_instant(gaps: list[int], share: float, seed: int) -> None:
    t_ms = np.cumsum(gaps).astype(float)
    slope = np.random.default_rng(seed).normal(size=3)
    at_ns = round((t_ms[0] + share * (t_ms[-1] - t_ms[0])) * MS)
    found = align_observation({"q": stream(t_ms, t_ms[:, None] * slope)}, (), round(t_ms[-1] * MS), t_ref_ns=at_ns)
    assert found.obs["q"][0] == pytest.approx(at_ns / MS * slope, abs=1e-6)
    assert abs(found.residual_s["q"][0]) <= 0.5 * max(gaps) * 1e-3 + 1e-9


@pytest.mark.parametrize("key", ["eef_quat_wxyz", "eef_quat_xyzw"])
def test_turns_go_along_the_great_circle_whatever_the_signs(key: str) -> None:
    turn = Rotation.from_rotvec(np.linspace(0, 2.0, 5)[:, None] * np.array([0.0, 0.6, 0.8]))
    quats = turn.as_quat(scalar_first=key.endswith("wxyz")) * np.array([1, -1, 1, 1, -1])[:, None]
    found = align_observation({key: stream(np.arange(5) * 10.0, quats)}, (), 40 * MS, steps=4, dt_s=0.01, t_ref_ns=35 * MS)
    got = Rotation.from_quat(found.obs[key], scalar_first=key.endswith("wxyz"))
    assert got.magnitude() == pytest.approx([0.25, 0.75, 1.25, 1.75], abs=1e-9)
    assert np.linalg.norm(found.obs[key], axis=1) == pytest.approx(np.ones(4))
    assert (np.sum(found.obs[key][1:] * found.obs[key][:-1], axis=1) > 0).all()  # no jump of sign in the history


def test_nothing_goes_on_further_than_the_limit_beyond_its_newest_sample() -> None:
    streams = {"q": stream([0, 10, 20], np.array([[0.0], [0.01], [0.02]]))}
    within = align_observation(streams, (), 60 * MS, t_ref_ns=35 * MS, tolerance=Tolerance(ahead_s=0.02))
    assert within.obs["q"][0, 0] == pytest.approx(0.035) and within.residual_s["q"] == pytest.approx([-0.015])
    beyond = align_observation(streams, (), 60 * MS, t_ref_ns=90 * MS, tolerance=Tolerance(ahead_s=0.02))
    assert beyond.obs["q"][0, 0] == pytest.approx(0.04) and beyond.stale == ("q",)
    never = align_observation(streams, (), 60 * MS, t_ref_ns=35 * MS, tolerance=Tolerance(ahead_s=0.0))
    assert never.obs["q"][0, 0] == pytest.approx(0.02)


def test_two_samples_that_came_together_do_not_throw_a_number_away() -> None:
    streams = {"q": stream([0, 10, 19.9, 20], np.array([[0.0], [0.01], [0.02], [0.021]]))}  # noise of a milliradian in 0.1 ms
    found = align_observation(streams, (), 40 * MS, t_ref_ns=40 * MS)
    assert found.obs["q"][0, 0] == pytest.approx(0.042, abs=0.001)


def test_before_its_first_sample_a_stream_stands_still_and_is_not_stale() -> None:
    found = align_observation(setup(), ("front",), 110 * MS, steps=3, dt_s=0.08)
    assert found.obs["q"][0, 0] == pytest.approx(0.003) and not found.stale
    assert found.residual_s["q"][0] == pytest.approx(0.063)


@pytest.mark.parametrize(
    ("late_ms", "stale", "usable"), [(60, False, True), (150, True, True), (300, True, False), (2000, True, False)]
)
def test_a_camera_that_stalls_is_stale_and_then_unusable(late_ms: int, stale: bool, usable: bool) -> None:
    streams = setup("side")
    for t in range(113, 100 + late_ms, 10):
        streams["q"].append(t * MS, np.array([t * 1e-3]))
    found = align_observation(streams, ("front",), (100 + late_ms) * MS)
    assert found.obs["front"][0, 0, 0, 0] == 3  # the last picture is used again
    assert (found.stale == ("front",)) is stale and (found.flags == Flag.STALE) is stale
    assert found.usable is usable


def test_one_stream_may_have_a_limit_of_its_own() -> None:
    slow = Tolerance(late_of={"front": 0.3})
    streams = setup("side")
    streams["q"].append(180 * MS, np.array([0.18]))
    assert align_observation(streams, ("front",), 210 * MS).stale == ("front",)
    assert not align_observation(streams, ("front",), 210 * MS, tolerance=slow).stale


def test_whole_numbers_take_the_nearest_sample() -> None:
    streams = {"mode": stream([0, 10], np.array([[1], [5]]))}
    assert align_observation(streams, (), 10 * MS, t_ref_ns=6 * MS).obs["mode"].tolist() == [[5]]


def test_a_stream_keeps_its_newest_samples_and_copies_them() -> None:
    kept, value = Stream(3), np.zeros(2)
    for t in range(5):
        value[:] = t
        kept.append(t, value)
    assert len(kept) == 3 and kept.times().tolist() == [2, 3, 4]
    assert kept.take(np.arange(3))[:, 0].tolist() == [2, 3, 4]
    assert not kept.append(4, value) and kept.refused == 1 and kept.newest_ns == 4


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    kept = stream([0], np.zeros((1, 2)))
    with pytest.raises(ArrayMismatch, match=r"want float64\(2,\) as before, got float64\(3,\)"):
        kept.append(1, np.zeros(3))
    with pytest.raises(ArrayMismatch, match="want finite numbers, got"):
        kept.append(1, np.array([np.nan, 0]))
    with pytest.raises(BadInput, match="want room for 2 samples"):
        Stream(1)
    with pytest.raises(BadInput, match="want a sample, got none yet"):
        _ = Stream().newest_ns
    with pytest.raises(BadInput, match="got none of q; wait"):
        align_observation({"q": Stream()}, (), 0)
    with pytest.raises(BadInput, match="no stream of camera 'top'"):
        align_observation({"q": kept}, ("top",), 0)
    with pytest.raises(BadInput, match="want 1 step, or more of them some time apart"):
        align_observation({"q": kept}, (), 0, steps=2)
    with pytest.raises(ArrayMismatch, match="eef_quat_wxyz: want unit quaternions"):
        align_observation({"eef_quat_wxyz": stream([0], np.zeros((1, 4)))}, (), 0)
    with pytest.raises(BadInput, match="late_s: want seconds of 0 or more"):
        Tolerance(late_s=-1)
