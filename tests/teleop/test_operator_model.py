"""The operator model: a person who sees late and trembles still gets there, the same every time, through a bad link too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn import geometry
from robolearn.core import TeleopSample
from robolearn.errors import BadInput
from robolearn.teleop.operator_model import (
    LOWER_M,
    SHOULDER,
    STRAIGHT,
    UPPER_M,
    Link,
    Operator,
    Packets,
    Part,
    Person,
    Wander,
    limb,
)

HOME = geometry.pose(np.array([0.5, 0.0, 1.0]), np.diag([1.0, -1.0, -1.0]))
CALM = Person(noise=0.0, tremor_m=0.0, drift_m=0.0, sensor_m=0.0, sensor_rad=0.0)


def way(far: float = 0.2) -> list[Part]:
    path = np.stack([geometry.pose(HOME[:3, 3] - [0, 0, z], HOME[:3, :3]) for z in np.linspace(0, far, 50)])
    return [Part(path, False, 0.05, 0.008, 0.1), Part(path[-1:], True, 0.05, 0.008, 0.3), Part(path[::-1], True, 0.05, 0.01, 9.0)]


def drive(operator: Operator, steps: int, lag: float = 0.0) -> tuple[np.ndarray, list[float], list[bool]]:
    """Lets a robot follow the hand's displacement with a lag (share kept a step); returns its way and what the hand said."""
    robot, start, places, grips, held = HOME.copy(), None, [], [], []
    latched = HOME.copy()
    for _ in range(steps):
        hand = operator.step(robot)
        if hand.held:
            if start is None:
                start, latched = hand.pose[:3, 3], robot.copy()
            wanted = latched[:3, 3] + hand.pose[:3, 3] - start
            robot = geometry.pose(lag * robot[:3, 3] + (1 - lag) * wanted, robot[:3, :3])
        else:
            start = None
        places.append(robot[:3, 3])
        grips.append(hand.grip)
        held.append(hand.held)
    return np.array(places), grips, held


@pytest.mark.parametrize("lag", [0.0, 0.8])
def test_the_person_reaches_the_end_closes_there_and_comes_back_whatever_the_robots_lag(lag: float) -> None:
    places, grips, _ = drive(Operator(way(), HOME, Person(), np.random.default_rng(1)), 600, lag)
    closing = grips.index(1.0)
    np.testing.assert_allclose(places[closing], HOME[:3, 3] - [0, 0, 0.2], atol=0.02)
    np.testing.assert_allclose(places[-1], HOME[:3, 3], atol=0.02)


def test_the_same_seed_gives_the_same_stream_and_another_seed_another() -> None:
    first, again, other = (drive(Operator(way(), HOME, Person(), np.random.default_rng(s)), 200)[0] for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_a_calm_person_shows_nothing_before_they_could_have_seen_it() -> None:
    """The robot is pushed aside at step 100: for the reaction time the hand moves as if nothing had happened."""

    def hands(push: float) -> np.ndarray:
        operator, out = Operator(way(), HOME, CALM, np.random.default_rng(0)), []
        for k in range(130):
            robot = HOME.copy()
            robot[1, 3] += push * (k >= 100)
            out.append(operator.step(robot).pose[:3, 3])
        return np.array(out)

    differ = np.flatnonzero(np.abs(hands(0.02) - hands(0.0)).max(axis=1) > 1e-12)
    assert 100 + round(CALM.reaction_s * CALM.hz) - 1 <= differ[0] < 115


def test_a_hand_at_rest_trembles_at_8_to_12_hertz() -> None:
    person = Person(noise=0.0, drift_m=0.0, sensor_m=0.0, wait_s=99.0)
    operator = Operator(way(), HOME, person, np.random.default_rng(3))
    x = np.array([operator.step(HOME).pose[0, 3] for _ in range(600)])
    loudest = np.fft.rfftfreq(600, 1 / person.hz)[1 + np.abs(np.fft.rfft(x - x.mean()))[1:].argmax()]
    assert 7.5 < loudest < 12.5
    assert 0.2e-3 < x.std() < 1e-3


def test_a_hand_that_lets_go_of_the_clutch_comes_back_and_still_gets_there() -> None:
    person = Person(clutch_every_s=0.7)
    places, _, held = drive(Operator(way(), HOME, person, np.random.default_rng(4)), 1200)
    assert not all(held[20:])
    np.testing.assert_allclose(places[-1], HOME[:3, 3], atol=0.03)


def test_no_way_is_refused() -> None:
    with pytest.raises(BadInput, match="at least one part"):
        Operator([], HOME, Person(), np.random.default_rng(0))


@settings(max_examples=60, deadline=None)
@given(st.floats(0.15, STRAIGHT * (UPPER_M + LOWER_M) - 1e-3), st.floats(-1.4, 1.4), st.floats(-1.4, 1.4), st.floats(-3.0, 3.0))
def test_a_persons_arm_keeps_its_lengths_and_its_hand_whatever_the_swivel(far: float, a: float, b: float, swivel: float) -> None:
    wrist = SHOULDER + far * np.array([np.cos(a) * np.cos(b), np.sin(b) * np.cos(a), np.sin(a)])
    shoulder, elbow, hand = limb(wrist, swivel)
    assert np.linalg.norm(elbow - shoulder) == pytest.approx(UPPER_M, abs=1e-9)
    assert np.linalg.norm(hand - elbow) == pytest.approx(LOWER_M, abs=1e-9)
    np.testing.assert_allclose(hand, wrist, atol=1e-9)


def test_a_right_elbow_hangs_down_and_positive_swivel_takes_it_outwards() -> None:
    wrist = SHOULDER + [0.35, 0.0, -0.1]
    hanging, out = limb(wrist, 0.0)[1], limb(wrist, 0.3)[1]
    assert hanging[2] < -0.15
    assert abs(hanging[1] - SHOULDER[1]) < 1e-9
    assert out[1] < hanging[1] - 0.03


def test_wander_has_unit_spread() -> None:
    wander = Wander(3000, 0.5, 1 / 60, np.random.default_rng(0))
    values = [wander.step() for _ in range(400)][-1]
    assert values.std() == pytest.approx(1.0, abs=0.06)


def sent(link: Link, n: int = 2000) -> list[tuple[float, TeleopSample]]:
    packets, out = Packets(link, np.random.default_rng(0)), []
    for k in range(n):
        packets.send(k / 60, TeleopSample(int(k / 60 * 1e9), 0))
        out += packets.ready(k / 60)
    return out


def test_a_bad_link_loses_its_share_and_never_delivers_out_of_order_or_early() -> None:
    got = sent(Link(delay_s=0.02, loss=0.05))
    assert 0.03 < 1 - len(got) / 2000 < 0.07
    jittered = sent(Link(delay_s=0.02, jitter_s=0.08, loss=0.05))
    made = [sample.t_dev_ns for _, sample in jittered]
    assert made == sorted(made)
    assert len(jittered) < len(got)  # late ones are overtaken
    late = [at - sample.t_dev_ns * 1e-9 for at, sample in jittered]
    assert min(late) >= 0.02 - 1e-6
    assert 0.05 < max(late) <= 0.1 + 1e-6


@pytest.mark.parametrize("bad", [{"delay_s": -1.0}, {"jitter_s": -0.1}, {"loss": 1.0}])
def test_an_impossible_link_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(BadInput, match="link"):
        Link(**bad)
