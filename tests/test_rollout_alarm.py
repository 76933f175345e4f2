"""What the loop does with monitors: asks for their draws plan by plan, and on the first alarm holds, calls or is taken over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from robolearn.core import SOURCES, ArraySpec, Ask, Chunk, Needs, Obs, Outcome, Spec, Step, Tick, Verdict
from robolearn.errors import ArrayMismatch, SpecMismatch
from robolearn.monitors._base import Episode, Layout, Plans
from robolearn.monitors._book import Book
from robolearn.monitors._fit import fit
from robolearn.monitors._recipe import Recipe
from robolearn.monitors._watch import Watch
from robolearn.rollout import HOLD, RECOVERY, rollout
from robolearn.runtime.reactions import Hold, Retreat

SPEC = Spec({"x": ArraySpec((2,), names=("agent_x", "agent_y"))}, ArraySpec((2,), names=("dx", "dy")), hz=10.0)


class Slide:
    """A point that moves by what it is told; `told` keeps it."""

    def __init__(self, goal: float = np.inf) -> None:
        self.spec, self.goal, self.resets = SPEC, goal, 0
        self.told: list[np.ndarray] = []

    def reset(self, seed: int | None = None) -> Obs:
        self.x, self.told, self.resets = np.zeros(2, np.float32), [], self.resets + 1
        return {"x": self.x.copy()}

    def step(self, action: np.ndarray) -> Step:
        self.told.append(action.copy())
        self.x = self.x + action
        done = bool(self.x[0] >= self.goal)
        return Step({"x": self.x.copy()}, 0.5 * action, action, success=done, terminated=done)

    def close(self) -> None:
        pass


class Mind:
    """Moves by `speed` at every tick; keeps how many draws each plan was asked for, and every observation and action it saw."""

    def __init__(self, speed: float = 1.0, execute: int = 3, horizon: int = 5, wild: Callable[[int], float] = lambda tick: 1.0):
        self.spec, self.speed, self.horizon, self.wild = replace(SPEC, execute=execute), speed, horizon, wild
        self.late = 0  # for how wrong a tick it plans
        self.asked: list[int] = []

    def reset(self, seed: int | None = None) -> None:
        self.seed, self.tick, self.asked = int(seed or 0), -1, []
        self.seen: list[float] = []
        self.applied: list[Any] = []

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        self.tick += 1
        self.seen.append(float(obs["x"][0]))
        self.applied.append(applied)

    def plan(self, ask: Ask = Ask()) -> Chunk:
        self.asked.append(ask.draws)
        rng = np.random.default_rng([self.seed, self.tick])
        samples = np.stack([self.speed + self.wild(self.tick) * rng.normal(size=(self.horizon, 2)) for _ in range(ask.draws)])
        samples[0] = self.speed
        features = rng.normal(size=4) * self.wild(self.tick)
        return Chunk(samples[0].astype(np.float32), self.tick - self.late, samples=samples, features=features)


class Bell:
    """Alarms at some ticks; needs so many draws for every plan."""

    def __init__(self, at: Collection[int] = (), draws: int = 1) -> None:
        self.at, self.needs, self.resets = at, Needs(draws=draws), 0

    def reset(self) -> None:
        self.heard: list[tuple[int, float]] = []
        self.resets += 1

    def update(self, obs: Obs, chunk: Chunk) -> Verdict:
        k = len(self.heard)
        self.heard.append((chunk.tick, float(obs["x"][0])))
        return Verdict(float(k), 0.5, k in self.at)


class Notes:
    """A sink that keeps ticks and the outcome."""

    def begin(self, spec: Spec, meta: Mapping[str, Any]) -> None:
        self.ticks: list[Tick] = []
        self.outcomes: list[Outcome] = []

    def record(self, tick: Tick) -> None:
        self.ticks.append(tick)

    def stream(self, name: str, t_ns: int, array: np.ndarray) -> None:
        pass

    def end(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


class Person:
    """Is called at an alarm, keeps what it was told, and goes on or not."""

    def __init__(self, goes_on: bool) -> None:
        self.goes_on = goes_on
        self.told: list[tuple[str, Tick]] = []

    def __call__(self, name: str, tick: Tick) -> bool:
        self.told.append((name, tick))
        return self.goes_on


def run(on_alarm: Any = HOLD, at: Collection[int] = (4,), steps: int = 9, **bodies: Any) -> tuple[Outcome, Slide, Mind, Notes]:
    body, mind, notes = bodies.get("body", Slide()), bodies.get("mind", Mind()), Notes()
    monitors = bodies.get("monitors", {"bell": Bell(at)})
    seed = bodies.get("seed", 3)
    outcome = rollout(body, mind, max_steps=steps, seed=seed, monitors=monitors, sinks=[notes], on_alarm=on_alarm)
    assert notes.outcomes == [outcome]
    return outcome, body, mind, notes


# Hold.


@pytest.mark.parametrize("tick", [0, 1, 4])
def test_an_alarm_comes_before_the_motors_and_holding_sends_nothing_more(tick: int) -> None:
    outcome, body, _, notes = run(at={tick, tick + 1})
    assert outcome == Outcome(3, tick, False if tick else None, None, "alarm:bell", alarm_step=tick)
    assert len(body.told) == len(notes.ticks) == tick
    assert all(not t.verdicts["bell"].alarm and t.source == "policy" for t in notes.ticks)


def test_without_an_alarm_nothing_is_different() -> None:
    outcome, body, _, notes = run(at=set())
    assert outcome.alarm_step is None and outcome.reason == "horizon" and len(body.told) == len(notes.ticks) == 9
    assert [t.verdicts["bell"].score for t in notes.ticks] == list(range(9))


def test_monitors_hear_every_tick_with_the_chunk_that_is_executed_and_are_reset_for_each_episode() -> None:
    bell = Bell()
    for resets in (1, 2):
        run(monitors={"bell": bell})
        assert bell.resets == resets
        assert bell.heard == [(k - k % 3, float(k)) for k in range(9)]


def test_of_two_alarms_at_once_the_first_monitor_is_named_and_all_verdicts_are_there() -> None:
    person = Person(goes_on=False)
    outcome, *_ = run(person, monitors={"quiet": Bell(), "one": Bell({2}), "two": Bell({2})})
    assert outcome.reason == "alarm:one" and outcome.alarm_step == 2
    ((name, tick),) = person.told
    assert name == "one" and {key: v.alarm for key, v in tick.verdicts.items()} == {"quiet": False, "one": True, "two": True}


def test_two_monitors_of_one_class_both_watch_where_they_are_given_in_a_row() -> None:
    early, late = Bell({2}), Bell({6})
    outcome, *_ = run(monitors=[early, late])
    assert early.resets == late.resets == 1
    assert outcome.alarm_step == 2


# A callback.


def test_a_callback_is_told_the_tick_before_anything_moved_and_says_whether_to_go_on() -> None:
    person = Person(goes_on=False)
    outcome, body, _, _ = run(person)
    ((name, tick),) = person.told
    assert name == "bell" and tick.k == 4 and tick.source == "policy" and tick.verdicts["bell"] == Verdict(4.0, 0.5, True)
    assert tick.obs["x"][0] == 4.0 and np.array_equal(tick.asked, [1, 1]) and tick.chunk is not None and tick.chunk.tick == 3
    assert np.isnan(tick.step.filtered).all() and np.isnan(tick.step.sent).all()
    assert outcome.reason == "alarm:bell" and len(body.told) == 4


def test_after_a_callback_that_goes_on_the_episode_is_what_it_would_have_been_and_it_is_not_asked_again() -> None:
    person = Person(goes_on=True)
    outcome, body, mind, notes = run(person, at={4, 5, 7})
    plain, other, same, _ = run(at=set())
    assert [tick.k for _, tick in person.told] == [4] and outcome == replace(plain, alarm_step=4)
    assert np.array_equal(body.told, other.told) and mind.asked == same.asked and mind.seen == same.seen
    assert [t.k for t in notes.ticks if t.verdicts["bell"].alarm] == [4, 5, 7], "the verdicts are in the ticks recorded"
    assert {t.source for t in notes.ticks} == {"policy"}


# A reaction.


def test_a_reaction_takes_the_body_over_at_the_tick_of_the_alarm_to_the_end() -> None:
    bell, reaction = Bell({4, 6}), Mind(speed=-2.0, execute=2)
    outcome, body, mind, notes = run(reaction, monitors={"bell": bell})
    assert outcome.reason == "horizon" and outcome.steps == 9 and outcome.alarm_step == 4
    assert [float(action[0]) for action in body.told] == [1.0] * 4 + [-2.0] * 5
    assert [t.source for t in notes.ticks] == ["policy"] * 4 + [RECOVERY] * 5 and RECOVERY in SOURCES
    assert [t.k for t in notes.ticks] == list(range(9))
    for tick, told in zip(notes.ticks, body.told, strict=True):
        assert np.array_equal(tick.asked, told), "what is recorded as asked is what the one in charge asked"
    assert [t.chunk.tick for t in notes.ticks if t.chunk] == [0, 0, 0, 3, 4, 4, 6, 6, 8], "it plans as its own spec says"
    assert notes.ticks[4].verdicts["bell"].alarm and all(not t.verdicts for t in notes.ticks[5:])
    assert len(bell.heard) == 5 and reaction.asked == [1, 1, 1], "whoever watched the policy has nothing to say any more"
    assert len(mind.seen) == 5 and mind.asked == [1, 1]


def test_a_reaction_has_observed_the_episode_from_its_start() -> None:
    reaction = Mind(speed=0.0)
    run(reaction)
    assert reaction.seed == 3
    assert reaction.seen == [0, 1, 2, 3, 4, 4, 4, 4, 4, 4]
    assert reaction.applied[0] is None and [float(a[0]) for a in reaction.applied[1:]] == [0.5] * 4 + [0.0] * 5


def test_a_reaction_without_an_alarm_only_watches() -> None:
    reaction = Mind(speed=-2.0)
    outcome, body, _, notes = run(reaction, at=set())
    assert reaction.asked == [] and outcome.alarm_step is None and float(body.x[0]) == 9.0
    assert {t.source for t in notes.ticks} == {"policy"}


def test_what_a_reaction_achieves_counts_and_the_alarm_is_still_told() -> None:
    outcome, *_ = run(Mind(speed=3.0), body=Slide(goal=8.0))
    assert outcome == Outcome(3, 6, True, None, "success", alarm_step=4)
    outcome, body, _, notes = run(Mind(speed=-1.0), at={0})
    assert outcome.alarm_step == 0 and {t.source for t in notes.ticks} == {RECOVERY} and float(body.x[0]) == -9.0


def test_a_body_that_is_held_stays_and_one_that_retreats_goes_back() -> None:
    _, body, _, notes = run(Hold(SPEC))
    assert float(body.x[0]) == 4.0 and all(not t.step.sent.any() for t in notes.ticks[4:])
    _, body, _, notes = run(Retreat(SPEC, 2))
    assert [float(t.step.sent[0]) for t in notes.ticks[4:]] == [-0.5, -0.5, 0.0, 0.0, 0.0], "it undoes what was applied"


def test_a_reaction_that_does_not_fit_the_body_is_refused_before_anything_moves() -> None:
    reaction, body = Mind(), Slide()
    reaction.spec = replace(SPEC, hz=20.0)
    with pytest.raises(SpecMismatch, match=r"^Mind runs at 20 Hz, the body at 10 Hz$"):
        run(reaction, body=body)
    assert body.resets == 0


def test_an_action_of_a_reaction_that_is_not_finite_never_reaches_the_motors() -> None:
    body = Slide()
    with pytest.raises(ArrayMismatch, match=r"^Mind gave action \[nan nan\], want finite numbers of shape \(2,\)$"):
        run(Mind(speed=np.nan), body=body)
    assert len(body.told) == 4


@pytest.mark.parametrize("late", [1, -1])
def test_a_reaction_that_plans_for_another_tick_is_refused_as_a_policy_is(late: int) -> None:
    mind, body = Mind(), Slide()
    mind.late = late
    with pytest.raises(SpecMismatch, match=f"^Mind planned for tick {-late}, want 0$"):
        run(at=set(), mind=mind)
    reaction = Mind(speed=-1.0, execute=5)
    reaction.late = late
    with pytest.raises(SpecMismatch, match=f"^Mind planned for tick {4 - late}, want 4$"):
        run(reaction, body=body)
    assert len(body.told) == 4


# Draws, and a monitor that was fitted.


def test_every_plan_is_asked_for_as_many_draws_as_the_neediest_monitor_wants_just_then() -> None:
    assert run(monitors={})[2].asked == [1, 1, 1]
    assert run(monitors={"a": Bell(draws=3), "b": Bell(draws=8), "c": Bell()})[2].asked == [8, 8, 8]

    class Thrifty(Bell):
        def update(self, obs: Obs, chunk: Chunk) -> Verdict:
            self.needs = Needs(draws=4 if len(self.heard) % 2 else 2)
            return super().update(obs, chunk)

    assert run(monitors={"a": Thrifty(draws=4), "b": Bell(draws=3)}, steps=12)[2].asked == [4, 3, 4, 3]


def finished(mind: Mind, seed: int, draws: int, success: bool) -> Episode:
    book, (*_, notes) = Book(), run(steps=24, seed=seed, mind=mind, monitors={"asks": Bell(draws=draws)})
    plans = Plans.join([book.add(t.chunk) for t in notes.ticks if t.chunk and t.chunk.tick == t.k])
    return Episode(plans, success, 24, seed)


@pytest.mark.parametrize("every", [1, 2])
def test_a_fitted_monitor_alarms_in_the_loop_at_the_plan_where_it_alarms_afterwards(every: int) -> None:
    calm, wild = Mind(), Mind(wild=lambda tick: 1.0 if tick < 9 else 4.0)
    episodes = [finished(wild if seed >= 25 else calm, seed, 6, seed < 25) for seed in range(40)]
    recipe = Recipe(("knn", "variance"), draws=6, windows=(2,), alpha=0.2, every=every)
    detector = fit(recipe, Layout.of(calm.spec, calm.horizon), episodes)
    found = []
    for seed in range(60, 72):
        mind = wild if seed % 2 else calm
        alarm = detector.alarm(finished(mind, seed, 6, True))
        outcome, *_ = run(steps=24, seed=seed, mind=mind, monitors={"fiper": Watch(detector)})
        assert outcome.alarm_step == (3 * alarm if alarm >= 0 else None)
        assert mind.asked == [6 if i % every == 0 else 1 for i in range(len(mind.asked))]
        found.append((seed % 2, alarm >= 0))
    assert all(alarmed for strays, alarmed in found if strays) and not all(alarmed for _, alarmed in found)
