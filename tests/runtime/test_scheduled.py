"""A scheduled mind: it keeps the clock's time, asks and waits for plans, and stays where there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from robolearn.core import ArraySpec, Ask, Chunk, Obs, Spec
from robolearn.errors import BadInput, HardwareError, SpecMismatch
from robolearn.runtime._seam import Seam
from robolearn.runtime._slots import TickClock
from robolearn.runtime.consumers._base import make_consumer
from robolearn.runtime.remote import Local, Planned, Request
from robolearn.runtime.schedule import Relative, Rules, Scheduled

HZ = 10.0
SPEC = Spec({"agent_pos": ArraySpec((1,), "float64", names=("x",))}, ArraySpec((1,), "float64", names=("x",)), HZ, execute=4)


def rows(*values: float) -> np.ndarray:
    return np.array(values, float)[:, None]


class Counting:
    """A policy whose chunk at tick t is t, t + 1, ... in hundredths."""

    def __init__(self, horizon: int = 8) -> None:
        self.spec, self.horizon = SPEC, horizon
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        self.tick, self.asks = -1, list[Ask]()

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        self.tick += 1

    def plan(self, ask: Ask = Ask()) -> Chunk:
        self.asks.append(ask)
        return Chunk(
            rows(*(self.tick + np.arange(self.horizon)) * 0.01), self.tick, events=("success",) if self.tick == 4 else ()
        )


class Fake:
    """A planner that gives what it is told to give."""

    def __init__(self, poll: Callable[[], list[Planned]] = list) -> None:
        self.spec, self.poll, self.asked, self.seen, self.closed = SPEC, poll, list[tuple[Ask, Request]](), 0, False

    def reset(self, seed: int | None = None) -> None: ...
    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        self.seen += 1

    def submit(self, ask: Ask, request: Request) -> None:
        self.asked.append((ask, request))

    def close(self) -> None:
        self.closed = True


def driven(mind: Scheduled, clock: TickClock, ticks: int) -> list[float]:
    """Returns the actions of `ticks` ticks, each applied as it was asked."""
    actions: list[float] = []
    for _ in range(ticks):
        mind.observe({"agent_pos": np.array(actions[-1:] or [0.0])}, np.array(actions[-1:]) if actions else None)
        actions.append(float(mind.plan().actions[0, 0]))
        clock.record()
    return actions


def scheduled(planner: Any, clock: TickClock, name: str = "replace", **more: Any) -> Scheduled:
    mind = Scheduled(planner, make_consumer(name, {}, SPEC), SPEC, clock, **more)
    mind.reset(0)
    return mind


def test_a_request_is_made_once_and_given_up_when_its_plan_would_be_too_old() -> None:
    planner, clock = Fake(), TickClock(HZ)
    mind = scheduled(planner, clock, rules=Rules(max_age_s=0.5))
    driven(mind, clock, 6)
    assert [request.slot for _, request in planner.asked] == [0]
    driven(mind, clock, 5)
    assert [request.slot for _, request in planner.asked] == [0, 6] and mind.statistics().rejected == {"lost": 1}
    assert planner.seen == 11 and mind.statistics().busy_share == 1.0


def test_an_answer_to_another_request_is_dropped_and_counted() -> None:
    clock = TickClock(HZ)
    mind = scheduled(Fake(lambda: [Planned(99, 0, Chunk(rows(1.0), 0), 0.1)]), clock)
    assert driven(mind, clock, 3) == [0.0] * 3
    assert mind.statistics().rejected == {"epoch": 4}  # the planner is looked at again where a request was made


def test_a_planner_that_is_gone_is_named_and_what_is_scheduled_is_executed_to_its_end() -> None:
    clock, policy = TickClock(HZ), Counting()
    planner = Local(policy, 0.0, clock)
    mind = scheduled(planner, clock)
    driven(mind, clock, 2)

    def gone() -> list[Planned]:
        raise HardwareError("planner: its process has ended (exit code -9); start it anew")

    planner.poll = gone  # type: ignore[method-assign]
    assert driven(mind, clock, 8) == pytest.approx([0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.07, 0.07])
    assert mind.lost.startswith("planner: its process has ended")
    assert mind.plan().events == ("planner_lost", "underrun") and mind.statistics().underruns == 1


def test_an_action_is_sent_so_early_that_it_moves_the_body_in_its_slot() -> None:
    clock = TickClock(HZ)
    mind = scheduled(Local(Counting(), 0.0, clock), clock, rules=Rules(act_s=0.15))
    assert driven(mind, clock, 6) == pytest.approx([0.02, 0.03, 0.04, 0.05, 0.06, 0.07])
    assert mind.statistics().delays[0] == 2 and mind.statistics().skipped == 0


def test_a_plan_begins_when_its_observation_was_measured() -> None:
    clock = TickClock(HZ)
    mind = scheduled(Local(Counting(), 0.0, clock), clock, rules=Rules(observe_s=0.1))
    assert driven(mind, clock, 4) == pytest.approx([0.01, 0.02, 0.03, 0.04])
    assert mind.current is not None and mind.current.index == 4


def test_relative_actions_are_resolved_against_the_observation_they_were_asked_with() -> None:
    def resolve(actions: np.ndarray, obs: Obs) -> np.ndarray:
        return actions + obs["agent_pos"]

    def relate(actions: np.ndarray, obs: Obs) -> np.ndarray:
        return actions - obs["agent_pos"]

    clock, policy = TickClock(HZ), Counting()
    mind = scheduled(Local(policy, 0.2, clock), clock, "rtc_guided", relative=Relative(resolve, relate))
    mind.observe({"agent_pos": np.array([5.0])}, None)
    clock.record()
    clock.record()
    mind.observe({"agent_pos": np.array([9.0])}, np.array([5.0]))
    assert mind.plan().actions[0, 0] == pytest.approx(5.02)
    for k in range(3):
        clock.record()
        mind.observe({"agent_pos": np.array([4.03 + k * 0.01])}, mind.plan().actions[0])
    ask = policy.asks[1]
    assert ask.prefix is not None and ask.prefix[:2, 0] == pytest.approx([1.0, 1.01])


def test_a_consumer_that_tells_plans_of_the_schedule_wants_both_ways_of_relative_actions() -> None:
    clock = TickClock(HZ)
    with pytest.raises(BadInput, match="`relative` cannot make them relative"):
        scheduled(Local(Counting(), 0.0, clock), clock, "rtc_trained", relative=Relative(lambda actions, obs: actions))


def test_a_policy_that_does_not_fit_the_body_is_refused_before_anything_moves() -> None:
    clock = TickClock(HZ)
    planner = Fake()
    planner.spec = Spec(SPEC.obs, ArraySpec((2,)), HZ)
    with pytest.raises(SpecMismatch, match="the planner's policy gives actions of shape"):
        scheduled(planner, clock)


def test_goal_and_guidance_are_asked_for_with_every_plan() -> None:
    clock, planner = TickClock(HZ), Fake()
    mind = scheduled(planner, clock, ask=Ask(goal={"cup": np.ones(3)}, guidance=2.0))
    driven(mind, clock, 1)
    assert planner.asked[0][0].guidance == 2.0 and list(planner.asked[0][0].goal) == ["cup"]
    mind.close()
    assert planner.closed


@pytest.mark.parametrize("ask", [Ask(draws=2), Ask(prefix=np.zeros((2, 1))), Ask(goal={"cup": np.ones(3)})])
def test_what_was_planned_ahead_cannot_be_asked_for_otherwise(ask: Ask) -> None:
    mind = scheduled(Fake(), TickClock(HZ))
    mind.observe({"agent_pos": np.zeros(1)}, None)
    with pytest.raises(BadInput, match="its plans are made ahead of time"):
        mind.plan(ask)


def test_planning_before_the_first_observation_is_refused() -> None:
    with pytest.raises(BadInput, match="it has seen no observation yet"):
        scheduled(Fake(), TickClock(HZ)).plan()


def test_where_nothing_says_how_to_stay_nothing_is_invented() -> None:
    blind = Spec({}, SPEC.action, HZ)
    planner = Fake()
    planner.spec = blind
    mind = Scheduled(planner, make_consumer("replace", {}, blind), blind, TickClock(HZ))
    mind.reset()
    mind.observe({}, None)
    with pytest.raises(BadInput, match="hold: nothing was applied yet"):
        mind.plan()


def test_after_skipped_slots_what_no_longer_fits_is_emptied_and_the_body_stays() -> None:
    clock = TickClock(HZ)
    planner = Local(Counting(), 0.0, clock)
    mind = scheduled(planner, clock, rules=Rules(seam=Seam((0.15,), blend=0)))  # 0.015 a slot
    driven(mind, clock, 5)
    planner.poll = list  # type: ignore[method-assign]
    clock.record()  # the loop skips slot 5: from 0.04 in slot 4 to 0.06 in slot 6 is two steps at once
    mind.observe({"agent_pos": np.zeros(1)}, np.array([0.04]))
    assert mind.plan().actions[0, 0] == 0.04 and mind.plan().events == ("underrun",)
    assert mind.statistics().rejected == {"skip": 1}


def test_what_a_plan_says_besides_its_actions_is_passed_on_and_offers_can_be_read() -> None:
    clock = TickClock(HZ)
    mind = scheduled(Local(Counting(), 0.0, clock), clock)
    driven(mind, clock, 4)
    assert mind.news == [] and mind.plan().events == ()
    mind.observe({"agent_pos": np.zeros(1)}, np.array([0.03]))
    assert mind.plan().events == ("success",)
    ((new, found),) = mind.news
    assert new.first == 4 and found.accepted
    assert mind.statistics().seam_max == pytest.approx(0.01)
