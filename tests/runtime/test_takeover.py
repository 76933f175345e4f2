"""A person who takes over: from where the arm is, marked, and nothing of the plans of before is left afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from robolearn import geometry
from robolearn.apps import _cockpit
from robolearn.core import ArraySpec, Ask, Chunk, Flag, Obs, Spec, TeleopSample
from robolearn.errors import SpecMismatch
from robolearn.runtime.takeover import TakeOver
from tests.runtime.deployed import SPEC, Gone, Trip

POSES = {"eef_pos": ArraySpec((3,)), "eef_rot6d": ArraySpec((6,))}


class Hand:
    """An input device that says one sample a read."""

    arms, deadman = 1, True

    def __init__(self, kind: str) -> None:
        self.kind, self.t_ns, self.held = kind, 10**10, False

    def read(self) -> Sequence[TeleopSample]:
        self.t_ns += 50_000_000
        value: dict[str, Any] = {"delta": np.zeros(6)} if self.kind == "delta" else {"pose": np.eye(4)}
        return (TeleopSample(self.t_ns, self.t_ns, deadman=self.held, **value),)


class Policy:
    """A policy that is not asked here."""

    lost, paused = "", False
    current = None

    def __init__(self, spec: Spec) -> None:
        self.spec, self.news = spec, list[Any]()

    def reset(self, seed: int | None = None) -> None:
        pass

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        pass

    def plan(self, ask: Ask = Ask()) -> Chunk:
        return Chunk(np.zeros((1, *self.spec.action.shape), np.float32), 0)

    def flush(self) -> None:
        pass


def seen(x: float, angle: float) -> Obs:
    turn = geometry.matrix_from_rotvec(np.array([0.0, 0.0, angle]))
    return {"eef_pos": np.array([x, 0.0, 0.3], np.float32), "eef_rot6d": geometry.rot6d_from_matrix(turn).astype(np.float32)}


@pytest.mark.parametrize("kind", ["delta", "pose"])
def test_a_hand_that_engages_begins_where_the_policy_brought_the_arm_and_keeps_the_grip(kind: str) -> None:
    spec = Spec(POSES, ArraySpec((10,)), 20.0, codec="pose_abs")
    hand = Hand(kind)
    person = _cockpit.pilot(SimpleNamespace(spec=spec), hand, clock=lambda: hand.t_ns * 1e-9)  # type: ignore[arg-type]
    mind = TakeOver(Policy(spec), person)
    mind.reset(0)
    closed = np.append(np.zeros(9), 1.0)
    for k in range(20):  # the policy moves the arm by 0.4 m and a radian, and grips
        mind.observe(seen(0.02 * k, 0.05 * k), closed if k else None)
    assert not mind.engaged
    hand.held = True
    mind.observe(seen(0.4, 1.0), closed)
    (action,) = mind.plan().actions
    here = seen(0.4, 1.0)
    assert mind.engaged and np.allclose(action[:9], np.concatenate([here["eef_pos"], here["eef_rot6d"]]), atol=1e-5)
    assert action[9] == 1.0


class Wanderer:
    """A person who pushes the body along y in some ticks; silent: afterwards their device says nothing any more."""

    def __init__(self, trip: Trip, ticks: range, silent: bool = False) -> None:
        self.spec, self.trip, self.ticks, self.silent, self.flags = SPEC, trip, ticks, silent, Flag(0)
        self.y = 0.0

    def reset(self, seed: int | None = None) -> None:
        self.tick = -1

    def moved(self, obs: Obs, applied: np.ndarray) -> None:
        pass

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        self.tick, self.obs = self.tick + 1, obs
        on = self.tick in self.ticks
        self.flags = Flag.ENGAGED if on else Flag.STALE if self.silent else Flag(0)

    def plan(self, ask: Ask = Ask()) -> Chunk:
        x, y = self.obs["agent_pos"]
        return Chunk(np.array([[x, y + 0.05]], np.float32), self.tick)


def taken_over(ticks: range, silent: bool = False, **how: Any) -> Trip:
    trip = Trip(**how)
    mind = TakeOver(trip.mind, Wanderer(trip, ticks, silent))
    trip.env.mind, trip.env._person = mind, lambda: mind.engaged
    hear = trip.env._hear
    trip.env._hear = lambda: [*hear(), *(["hold"] if mind.silent else [])]
    trip.mind = mind  # type: ignore[assignment]
    trip.run(50)
    return trip


def test_the_person_drives_marked_and_the_policy_plans_anew_from_where_they_leave_the_body() -> None:
    trip = taken_over(range(10, 20))
    assert trip.path() == ["run", "hold", "run"] and trip.machine.mode == "idle"
    marked = [k for k, tick in enumerate(trip.ticks) if tick.step.flags & Flag.INTERVENTION]
    assert marked == list(range(10, 20))
    sent = np.array(trip.body.sent)
    assert np.ptp(sent[:10, 1]) == 0 and sent[19, 1] == pytest.approx(0.5, abs=1e-6)
    assert np.ptp(sent[10:20, 0]) == 0 and np.diff(sent[19:, 0]).max() < 0.021  # no plan of before is caught up with
    assert trip.modes[-1] == "run" and sent[-1, 0] > sent[19, 0]


def test_a_device_that_goes_silent_while_its_person_drives_holds_until_somebody_says_so() -> None:
    trip = taken_over(range(10, 20), silent=True)
    assert trip.path() == ["run", "hold"]
    assert np.ptp(np.array(trip.body.sent)[20:], axis=0).max() == 0.0


def test_nobody_drives_in_a_fault() -> None:
    def alert(trip: Trip) -> None:
        trip.body.raises = Gone("elbow: overload", "servo_alert")

    def well(trip: Trip) -> None:
        trip.body.raises = None

    trip = taken_over(range(20, 30), at={10: alert, 15: well})
    assert trip.path() == ["run", "fault"] and not any(tick.step.flags & Flag.INTERVENTION for tick in trip.ticks)
    assert np.ptp(np.array(trip.body.sent)[10:], axis=0).max() == 0.0


def test_a_person_whose_actions_are_of_another_kind_is_refused() -> None:
    spec = Spec(POSES, ArraySpec((10,)), 20.0, codec="pose_abs")
    person = _cockpit.pilot(SimpleNamespace(spec=spec), Hand("delta"))  # type: ignore[arg-type]
    with pytest.raises(SpecMismatch):
        TakeOver(Policy(SPEC), person)
