"""The person as a policy: the body rests until a hand is engaged, follows it, and is held when the input grows old."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from robolearn import geometry
from robolearn.core import Flag, SimEnv, TeleopSample
from robolearn.teleop.clutch import Clutch, Feel
from robolearn.teleop.drives import simple_drives
from robolearn.teleop.pilot import Pilot, Seat, as_numbers
from sim_envs import _base as tasks


class Hand:
    """A device in the hand of a test."""

    def __init__(self) -> None:
        self.now, self.waiting, self.at = 10.0, [], np.eye(4)

    def say(self, *events: str, held: bool = True, grip: float | None = None, confidence: float = 1.0) -> None:
        t_ns = round(self.now * 1e9)
        self.waiting.append(TeleopSample(t_ns, t_ns, 0, self.at, deadman=held, grip=grip, events=events, confidence=confidence))

    def read(self) -> list[TeleopSample]:
        out, self.waiting = self.waiting, []
        return out


@pytest.fixture
def seated() -> Iterator[tuple[SimEnv, Hand, Pilot]]:
    with closing(tasks.make("lift")) as body:
        hand = Hand()
        pilot = Pilot(body.spec, hand.read, [Seat(simple_drives(body.spec)[0], Clutch(Feel()))], lambda: hand.now)
        obs = body.reset(0)
        pilot.reset(0)
        pilot.observe(obs, None)
        yield body, hand, pilot


def tick(body: SimEnv, hand: Hand, pilot: Pilot) -> np.ndarray:
    step = body.step(pilot.plan().actions[0])
    hand.now += 0.05
    pilot.observe(step.obs, step.filtered)
    return step.obs["eef_pos"]


def test_nothing_moves_until_a_hand_is_engaged(seated: tuple) -> None:
    body, hand, pilot = seated
    start = tick(body, hand, pilot)
    for _ in range(10):
        hand.say(held=False)
        place = tick(body, hand, pilot)
    assert np.linalg.norm(place - start) < 0.01
    assert pilot.flags & Flag.DISENGAGED and not pilot.panel.engaged[0]


def test_the_body_follows_an_engaged_hand_and_plan_is_pure(seated: tuple) -> None:
    body, hand, pilot = seated
    start = tick(body, hand, pilot)
    for _ in range(30):
        hand.at = geometry.pose(hand.at[:3, 3] + [0, 0, 0.004], np.eye(3))
        hand.say()
        place = tick(body, hand, pilot)
        np.testing.assert_array_equal(pilot.plan().actions, pilot.plan().actions)
    assert 0.06 < place[2] - start[2] < 0.13
    assert pilot.flags & Flag.ENGAGED


def test_old_input_holds_the_arm_then_lets_go_and_says_so(seated: tuple) -> None:
    body, hand, pilot = seated
    for _ in range(5):
        hand.at = geometry.pose(hand.at[:3, 3] + [0, 0, 0.01], np.eye(3))
        hand.say()
        tick(body, hand, pilot)
    held = None
    for _ in range(12):
        tick(body, hand, pilot)
        action = pilot.plan().actions[0][:3]
        if pilot.flags & Flag.STALE and pilot.panel.age_s > 0.5:
            held = action if held is None else held
            np.testing.assert_allclose(action, held, atol=1e-6)
    assert pilot.flags & Flag.STALE and "no input" in pilot.panel.why
    hand.at = geometry.pose([0.5, 0.5, 0.5], np.eye(3))  # it comes back elsewhere
    hand.say()
    tick(body, hand, pilot)
    assert np.abs(pilot.plan().actions[0][:3] - held).max() < 0.03


def test_what_the_person_says_is_in_the_plan_once(seated: tuple) -> None:
    body, hand, pilot = seated
    hand.say("success")
    tick(body, hand, pilot)
    assert pilot.plan().events == ("success",)
    tick(body, hand, pilot)
    assert pilot.plan().events == ()


def test_a_hand_that_was_hardly_seen_moves_nothing(seated: tuple) -> None:
    body, hand, pilot = seated
    for _ in range(4):
        hand.say(confidence=0.2)
        tick(body, hand, pilot)
    assert not pilot.panel.engaged[0]


def test_a_sample_becomes_a_row_of_finite_length() -> None:
    row = as_numbers(TeleopSample(1_000_000_000, 2_000_000_000, pose=np.eye(4), deadman=True, grip=0.5))
    assert row.shape == (5 + 16,) and row[:4].tolist() == [1.0, 2.0, 1.0, 0.5]
