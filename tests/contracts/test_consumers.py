"""What every consumer of chunks keeps, on a simulated clock under injected delays; a new consumer is tested by being there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from robolearn import registry
from robolearn.core import ArraySpec, Ask, Chunk, Obs, Outcome, Policy, Spec, Step, Tick
from robolearn.errors import ConfigError, UnknownName
from robolearn.rollout import rollout
from robolearn.runtime._slots import Proposal, TickClock, soft_mask
from robolearn.runtime._trial import trial
from robolearn.runtime.consumers._base import CONSUMERS, Consumer, consumer_names, make_consumer
from robolearn.runtime.remote import Local
from robolearn.runtime.schedule import FLUSHED, UNDERRUN, Rules, Schedule, Scheduled

NAMES = consumer_names()
HZ, HORIZON, EXECUTE = 10.0, 12, 4
SPEC = Spec(
    {"agent_pos": ArraySpec((2,), "float64", names=("x", "y"))}, ArraySpec((2,), "float64", names=("x", "y")), HZ, execute=EXECUTE
)
KEEPING_UP = {"replace", "ensemble", "weighted_overlap", "rtc_guided", "rtc_trained"}


class Pointing:
    """A policy whose action for tick t is (t, number of the plan), both in hundredths; it keeps what is fixed."""

    def __init__(self, wrong: Callable[[int], float] = lambda plan: 0.0, horizon: int = HORIZON) -> None:
        self.spec, self.wrong, self.horizon, self.asks = SPEC, wrong, horizon, list[tuple[int, Ask]]()
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        self.tick, self.plans, self.shift = -1, 0, 0.0 if seed is None else seed * 0.001

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        self.tick += 1

    def plan(self, ask: Ask = Ask()) -> Chunk:
        self.plans += 1
        self.asks.append((self.tick, ask))
        ticks = self.tick + np.arange(self.horizon)
        actions = np.stack([ticks * 0.01 + self.shift, np.full(self.horizon, self.plans * 0.01)], axis=1)
        actions += self.wrong(self.plans)
        actions[: ask.prefix_fixed] = actions[:0] if ask.prefix is None else ask.prefix[: ask.prefix_fixed]
        return Chunk(actions, self.tick)


class Point:
    """A body that is wherever it was told to be, and a log of its ticks."""

    def __init__(self) -> None:
        self.spec, self.ticks, self.ended = SPEC, list[Tick](), list[Outcome]()

    def reset(self, seed: int | None = None) -> Obs:
        return {"agent_pos": np.zeros(2)}

    def step(self, action: np.ndarray) -> Step:
        return Step({"agent_pos": action.copy()}, action.copy(), action.copy())

    def close(self) -> None: ...
    def begin(self, spec: Spec, meta: Mapping[str, Any]) -> None: ...
    def stream(self, name: str, t_ns: int, array: np.ndarray) -> None: ...
    def record(self, tick: Tick) -> None:
        self.ticks.append(tick)

    def end(self, outcome: Outcome) -> None:
        self.ended.append(outcome)

    @property
    def actions(self) -> np.ndarray:
        return np.stack([tick.asked for tick in self.ticks])

    def held(self, tick: int) -> bool:
        chunk = self.ticks[tick].chunk
        return chunk is not None and UNDERRUN in chunk.events


def scheduled(
    name: str,
    slots: float | Callable[[], float] = 0.0,
    policy: Policy | None = None,
    config: Mapping[str, Any] | None = None,
    rules: Rules = Rules(),
) -> tuple[Scheduled, TickClock]:
    """Returns a mind with an injected delay of `slots`, and its clock."""
    clock = TickClock(HZ)
    delay = (lambda: slots() / HZ) if callable(slots) else slots / HZ
    planner = Local(policy or Pointing(), delay, clock)
    return Scheduled(planner, make_consumer(name, config or {}, SPEC), SPEC, clock, rules), clock


def episode(mind: Policy, clock: TickClock, ticks: int = 40, seed: int = 0) -> Point:
    body = Point()
    rollout(body, mind, max_steps=ticks, seed=seed, sinks=[clock, body])
    return body


@pytest.mark.parametrize("name", NAMES)
def test_a_consumer_has_a_frozen_config_and_refuses_settings_it_does_not_know(name: str) -> None:
    module = registry.load(CONSUMERS, name)
    config = module.Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.quaternions = (1,)
    assert isinstance(make_consumer(name, {}, SPEC), Consumer)
    with pytest.raises(ConfigError, match=f"consumer {name}: unknown field 'colour'"):
        make_consumer(name, {"colour": "red"}, SPEC)


def test_an_unknown_consumer_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown consumer 'replce'; did you mean 'replace'"):
        make_consumer("replce", {}, SPEC)


@pytest.mark.parametrize("slots", [0, 1, 3])
@pytest.mark.parametrize("name", sorted(KEEPING_UP))
def test_once_the_first_chunk_is_there_a_delay_shorter_than_the_chunk_costs_no_tick(name: str, slots: int) -> None:
    mind, clock = scheduled(name, slots)
    body = episode(mind, clock)
    assert [body.held(t) for t in range(40)] == [t < slots for t in range(40)]
    assert mind.statistics().underruns == slots and mind.statistics().idle_share == slots / 40
    np.testing.assert_allclose(body.actions[slots:, 0], np.arange(slots, 40) * 0.01, atol=1e-12)  # each in its own slot


@pytest.mark.parametrize("slots", [0, 1, 3, 8])
def test_waiting_costs_the_delay_of_each_plan_and_a_chunk_begins_when_it_comes(slots: int) -> None:
    mind, clock = scheduled("sync", slots)
    body = episode(mind, clock)
    cycle = slots + EXECUTE
    assert [body.held(t) for t in range(40)] == [t % cycle < slots for t in range(40)]
    started = np.array([t for t in range(40) if t % cycle >= slots])
    np.testing.assert_allclose(body.actions[started, 0], (started - slots) * 0.01, atol=1e-12)


def test_waiting_for_plans_without_delay_is_the_plain_rollout_exactly() -> None:
    mind, clock = scheduled("sync", 0)
    body = episode(mind, clock, seed=3)
    plain = Point()
    rollout(plain, Pointing(), max_steps=40, seed=3, sinks=[plain])
    np.testing.assert_array_equal(body.actions, plain.actions)


@pytest.mark.parametrize("name", NAMES)
def test_a_chunk_that_comes_when_its_slots_are_over_is_an_underrun(name: str) -> None:
    mind, clock = scheduled(name, HORIZON)
    body = episode(mind, clock)
    if make_consumer(name, {}, SPEC).waits:
        assert not body.held(HORIZON)  # it has stood still, so the chunk is not too late
        return
    assert all(body.held(t) for t in range(40)) and not body.actions.any()
    assert mind.statistics().underruns == 40 and mind.statistics().rejected == {"late": 3}
    assert mind.statistics().dropped == 3 * HORIZON


@pytest.mark.parametrize("name", NAMES)
def test_where_nothing_is_scheduled_the_body_stays_and_the_tick_says_so(name: str) -> None:
    policy = Pointing()
    mind, clock = scheduled(name, lambda: 0.0 if policy.plans < 2 else 30.0, policy)
    body = episode(mind, clock)
    held = [t for t in range(40) if body.held(t)]
    assert held and mind.statistics().underruns == len(held)
    for t in held:
        np.testing.assert_array_equal(body.actions[t], body.actions[t - 1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_chunk_with_nan_or_infinity_is_taken(name: str, value: float) -> None:
    mind, clock = scheduled(name, 1, Pointing(lambda plan: value))
    body = episode(mind, clock, ticks=12)
    assert not body.actions.any() and set(mind.statistics().rejected) == {"invalid"}
    mixed, clock = scheduled(name, 1, Pointing(lambda plan: value if plan % 3 == 0 else 0.0))
    body = episode(mixed, clock)
    assert np.isfinite(body.actions).all() and mixed.statistics().rejected["invalid"] > 0
    assert body.actions[-1, 0] > 0.2  # and it has gone on


@pytest.mark.parametrize("name", NAMES)
def test_three_bad_chunks_in_a_row_empty_the_schedule(name: str) -> None:
    mind, clock = scheduled(name, 0, Pointing(lambda plan: 0.0 if plan == 1 else np.nan))
    body = episode(mind, clock)
    flushed = [t for t in range(40) if FLUSHED in body.ticks[t].chunk.events]  # type: ignore[union-attr]
    assert flushed and all(body.held(t) for t in range(flushed[0], 40))


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_from_before_a_flush_is_dropped_and_counted(name: str) -> None:
    mind, clock = scheduled(name, 3)
    mind.reset(0)
    for t in range(8):
        mind.observe({"agent_pos": np.zeros(2)}, None if t == 0 else np.zeros(2))
        mind.plan()
        if t == 1:
            mind.flush()
        if t == 4:
            assert mind.current is None, "what was asked for at slot 0 came at slot 3, after the flush"
        clock.record()
    assert mind.statistics().rejected == {"epoch": 1}
    assert mind.current is not None


@pytest.mark.parametrize("name", NAMES)
def test_a_flush_leaves_nothing_to_do(name: str) -> None:
    mind, clock = scheduled(name, 0)
    episode(mind, clock, ticks=6)
    mind.flush()
    assert mind.current is None and FLUSHED in mind.plan().events
    assert mind.schedule.left(6) == 0


@pytest.mark.parametrize("name", NAMES)
def test_episodes_with_one_seed_are_equal_and_nothing_is_left_of_the_one_before(name: str) -> None:
    mind, clock = scheduled(name, 2)
    first, second = episode(mind, clock, seed=1), episode(mind, clock, seed=1)
    np.testing.assert_array_equal(first.actions, second.actions)
    other = episode(mind, clock, seed=2)
    assert (first.actions[2:] != other.actions[2:]).any()


@pytest.mark.parametrize("name", NAMES)
def test_planning_twice_gives_the_same_and_changes_nothing_later(name: str) -> None:
    (once, clock), (twice, other) = scheduled(name, 2), scheduled(name, 2)
    for t in range(25):
        obs, applied = {"agent_pos": np.zeros(2)}, None if t == 0 else once.plan().actions[0]
        once.observe(obs, applied)
        twice.observe(obs, applied)
        a, b, c = once.plan(), twice.plan(), twice.plan()
        np.testing.assert_array_equal(b.actions, c.actions)
        np.testing.assert_array_equal(a.actions, c.actions)
        assert a.tick == b.tick == c.tick == t and a.events == c.events
        clock.record()
        other.record()


@pytest.mark.parametrize("name", NAMES)
def test_a_loop_that_skips_a_period_skips_the_slot(name: str) -> None:
    mind, clock = scheduled(name, 0)
    slots = []
    for t in range(12):
        mind.observe({"agent_pos": np.zeros(2)}, None if t == 0 else np.zeros(2))
        assert mind.current is not None
        slots.append(mind.current.slot)
        for _ in range(2 if t in (1, 6) else 1):
            clock.record()
    assert slots == [0, 1, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13]
    assert mind.statistics().skipped == 2


@pytest.mark.parametrize("name", NAMES)
def test_a_tick_within_the_slot_of_the_one_before_does_nothing_again(name: str) -> None:
    mind, clock = scheduled(name, 0)
    for t in range(6):
        mind.observe({"agent_pos": np.zeros(2)}, None if t == 0 else mind.plan().actions[0])
        before = mind.plan().actions[0]
        mind.observe({"agent_pos": np.zeros(2)}, before)
        assert mind.current is None and "early" in mind.plan().events
        np.testing.assert_array_equal(mind.plan().actions[0], before)
        clock.record()
    assert mind.statistics().early == 5 and mind.statistics().underruns == 0


@settings(max_examples=120)
@given(st.sampled_from(NAMES), st.integers(0, 2**32))
def test_no_slot_comes_twice_time_does_not_go_back_and_no_step_is_too_fast(name: str, seed: int) -> None:
    assert trial(name, seed, ticks=30).broken == ()


def test_trials_meet_seams_blends_and_everything_that_goes_wrong() -> None:
    found = [trial(name, seed).statistics for name in NAMES for seed in range(6)]
    reasons = {reason for statistics in found for reason in statistics.rejected}
    assert {"invalid", "late", "seam", "epoch", "lost"} <= reasons
    assert sum(s.ticks - s.underruns for s in found) > 100 and sum(s.skipped for s in found) > 10


@pytest.mark.parametrize("name", ["rtc_guided", "rtc_trained"])
@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("early", [0, 1])
def test_the_steps_a_plan_was_told_are_fixed_are_executed_from_the_old_chunk_exactly(name: str, slots: int, early: int) -> None:
    policy = Pointing()
    mind, clock = scheduled(name, lambda: slots - early * (policy.plans % 3 == 0), policy)  # some come before they must
    body = episode(mind, clock)
    told = [(tick, ask) for tick, ask in policy.asks[2:] if ask.prefix is not None and tick + slots < 40]
    assert len(told) > 3
    for tick, ask in told:
        assert ask.prefix is not None and ask.prefix.shape == (HORIZON, 2)
        np.testing.assert_array_equal(body.actions[tick : tick + slots], ask.prefix[:slots])


def test_guidance_holds_to_the_rest_of_the_schedule_and_never_to_padding() -> None:
    policy = Pointing()
    mind, clock = scheduled("rtc_guided", 2, policy, {"beta": 7.0, "jacobian": "identity"})
    episode(mind, clock)
    for tick, ask in policy.asks[2:]:  # from the third on the delay was measured
        assert ask.prefix is not None and ask.prefix_mask is not None and ask.prefix_fixed == 0
        rest = int((ask.prefix[:, 0] > ask.prefix[:, 0].max() - 1e-9).argmax()) + 1  # then its last action repeats
        np.testing.assert_allclose(ask.prefix[:rest, 0], (tick + np.arange(rest)) * 0.01, atol=1e-12)
        np.testing.assert_allclose(ask.prefix_mask, soft_mask(HORIZON, 2, HORIZON - rest))
        assert (ask.prefix[rest:] == ask.prefix[rest - 1]).all(), "padding is the last action again, not an invented one"
        assert (ask.prefix_mask[rest:] == 0).all() and (ask.prefix_mask[:rest] > 0).all()
        assert ask.prefix_beta == 7.0 and ask.prefix_jacobian == "identity"
    gaps = np.diff([tick for tick, _ in policy.asks])
    assert (gaps[1:] == EXECUTE).all()


@pytest.mark.parametrize("name", ["replace", "weighted_overlap", "rtc_guided", "rtc_trained"])
def test_a_plan_is_asked_for_before_the_last_one_has_run_out(name: str) -> None:
    late = {"ask_at": 0.0} if name == "weighted_overlap" else {"execute": 1000}
    mind, clock = scheduled(name, 3, config=late)
    body = episode(mind, clock)
    assert [body.held(t) for t in range(40)] == [t < 3 for t in range(40)]


def test_a_slow_guided_plan_is_asked_for_no_more_often_than_plans_come() -> None:
    policy = Pointing()
    mind, clock = scheduled("rtc_guided", 5, policy, {"execute": 1})
    episode(mind, clock)
    assert (np.diff([tick for tick, _ in policy.asks])[1:] == 5).all()  # d <= s


def test_a_trained_prefix_is_refused_beyond_the_longest_delay_of_the_training() -> None:
    policy = Pointing()
    mind, clock = scheduled("rtc_trained", lambda: 2.0 if policy.plans != 4 else 5.0, policy, {"max_delay": 3})
    body = episode(mind, clock)
    assert mind.statistics().rejected == {"delay": 1} and not any(body.held(t) for t in range(2, 40))
    assert [ask.prefix_fixed for _, ask in policy.asks[1:4]] == [2, 2, 2]
    assert policy.asks[5][1].prefix_fixed == 3, "the expected delay is 5, and no more than 3 was trained"
    assert all(ask.prefix_mask is None for _, ask in policy.asks)
    with pytest.raises(ConfigError, match="delay: want -1 or 0 to 3, the longest that was trained, got 4"):
        make_consumer("rtc_trained", {"max_delay": 3, "delay": 4}, SPEC)


WIDE = Spec({}, ArraySpec((7,), "float64", names=("x", "y", "qw", "qx", "qy", "qz", "gripper")), HZ)


def unit(q: np.ndarray) -> np.ndarray:
    return q / np.linalg.norm(q, axis=-1, keepdims=True)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(-0.5, 0.5), st.integers(1, 7))
def test_an_ensemble_equals_brute_force(seed: int, m: float, count: int) -> None:
    rng = np.random.default_rng(seed)
    consumer = make_consumer("ensemble", {"m": m, "quaternions": [2]}, WIDE)
    schedule = Schedule(WIDE, consumer)
    chunks: list[Proposal] = []
    for k in range(count):
        actions = rng.normal(size=(int(rng.integers(6, 10)), 7)) * (rng.random((1, 7)) < 0.8)  # whole columns of true zeros
        actions[:, 2:6] = unit(rng.normal(size=4) * 0.2 + (1, 0, 0, 0)) * rng.choice([-1, 1], (len(actions), 1))
        actions[:, 6] = rng.choice([0.0, 1.0], len(actions))
        chunks.append(Proposal(actions, k, k, schedule.epoch, k / HZ))
        assert schedule.offer(chunks[-1], k, k / HZ).accepted
    for slot in range(count - 1, max(chunk.end for chunk in chunks)):
        held = schedule.at(slot)
        rows = [chunk.actions[slot - chunk.first] for chunk in chunks if chunk.first <= slot < chunk.end]
        assert held is not None and rows
        weights = [np.exp(-m * i) for i in range(len(rows))]
        for i in (0, 1):
            mean = sum(w * row[i] for w, row in zip(weights, rows, strict=True)) / sum(weights)
            assert abs(held.action[i] - mean) < 1e-9
        turn = Rotation.from_quat([row[2:6] for row in rows], scalar_first=True).mean(weights)
        ours = Rotation.from_quat(held.action[2:6], scalar_first=True)
        assert (ours * turn.inv()).magnitude() < 1e-6 and abs(np.linalg.norm(held.action[2:6]) - 1) < 1e-9
        assert held.action[6] == rows[-1][6]


def test_an_overlap_is_mixed_by_slot_seven_to_three() -> None:
    consumer = make_consumer("weighted_overlap", {}, WIDE)
    schedule = Schedule(WIDE, consumer)
    old, new = np.zeros((6, 7)), np.ones((6, 7))
    for first, actions in ((0, old), (2, new)):
        assert schedule.offer(Proposal(actions, first, first, schedule.epoch, first / HZ), first + 1, first / HZ).accepted
    found = [schedule.at(slot) for slot in range(3, 8)]
    np.testing.assert_allclose([held.action[0] for held in found if held], [0.7, 0.7, 0.7, 1.0, 1.0])
    assert [held.action[6] for held in found if held] == [1.0] * 5  # a grip is open or shut


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("sync", {"execute": -1}, "execute: want at least 0, got -1"),
        ("replace", {"execute": -1}, "execute: want at least 0, got -1"),
        ("ensemble", {"execute": 0}, "execute: want at least 1, got 0"),
        ("ensemble", {"m": float("nan")}, "m: want a finite number, got nan"),
        ("weighted_overlap", {"newest": 0.0}, "want newest above 0 up to 1 and ask_at from 0 to 1, got 0.0 and 0.5"),
        ("rtc_guided", {"delay": -2}, "delay: want at least -1, got -2"),
        ("rtc_guided", {"beta": -1.0}, "beta: want a finite number of at least 0, got -1.0"),
        ("rtc_trained", {"max_delay": 0}, "max_delay: want at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(name: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"consumer {name}: {message}"):
        make_consumer(name, config, SPEC)
