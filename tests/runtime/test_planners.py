"""Planners: in this thread with a delay, and in a process of their own that may die."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from robolearn.core import ArraySpec, Ask, Chunk, Obs, Spec
from robolearn.errors import BadInput, HardwareError
from robolearn.runtime._planning import packed, packed_fields, unpacked, unpacked_fields
from robolearn.runtime.remote import InProcess, Local, Planned, Planner, Request

SPEC = Spec({"x": ArraySpec((2,), "float32")}, ArraySpec((2,), "float32"), 10.0, execute=2)


class Remembering:
    """A policy whose chunk is made of all that it was shown: sums of observations and of applied actions, and its seed."""

    def __init__(self) -> None:
        self.spec = SPEC
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        self.tick, self.keys, self.seen, self.seed = -1, 0, np.zeros(2, np.float32), seed or 0

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        self.tick, self.keys, self.seen = (
            self.tick + 1,
            len(obs),
            self.seen + obs["x"] + (0 if applied is None else 100 * applied),
        )

    def plan(self, ask: Ask = Ask()) -> Chunk:
        if ask.guidance == -1.0:
            raise ValueError("this is a test")
        if ask.guidance == -2.0:
            os._exit(7)
        actions = np.stack([self.seen, np.full(2, self.seed, np.float32)])
        if ask.prefix is not None:
            actions[: ask.prefix_fixed] = ask.prefix[: ask.prefix_fixed]
        features = np.arange(3.0) * ask.goal.get("cup", np.ones(1))
        return Chunk(actions, self.tick, past_stride=self.keys, features=features, events=("success",))


def make_remembering() -> Remembering:
    return Remembering()


def make_nothing() -> Remembering:
    raise FileNotFoundError("no such run")


def until(done: Callable[[], Any], patience_s: float = 20.0) -> Any:
    """Returns what `done` gives as soon as it is true."""
    end = time.monotonic() + patience_s
    while not (found := done()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)
    return found


def tell(planner: Planner, ticks: int, seed: int) -> None:
    planner.reset(seed)
    for t in range(ticks):
        planner.observe({"x": np.full(2, t, np.float32), "unread": np.zeros(9)}, None if t == 0 else np.ones(2, np.float32))


@pytest.fixture(scope="module")
def process() -> Iterator[InProcess]:
    planner = InProcess(make_remembering)
    yield planner
    planner.close()
    planner.close()  # twice is as good as once


def test_another_process_plans_as_this_one_does(process: InProcess) -> None:
    here = Remembering()
    here.reset(5)
    for t in range(4):
        here.observe({"x": np.full(2, t, np.float32)}, None if t == 0 else np.ones(2, np.float32))
    tell(process, 4, seed=5)
    ask = Ask(goal={"cup": np.full(1, 2.0)}, prefix=np.full((2, 2), 7, np.float32), prefix_fixed=1)
    process.submit(ask, Request(3, 8, 3))
    (planned,) = until(process.poll)
    want = here.plan(ask)
    assert (planned.request, planned.epoch, planned.chunk.tick) == (3, 8, 3) and planned.seconds > 0
    assert planned.chunk.events == ("success",) and planned.chunk.samples is None
    assert planned.chunk.past_stride == 1, "what the policy does not read is not sent"
    np.testing.assert_array_equal(planned.chunk.actions, want.actions)
    np.testing.assert_array_equal(planned.chunk.features, want.features)
    assert planned.chunk.actions.dtype == np.float32 and process.spec == SPEC


def test_an_observation_after_a_request_does_not_change_its_plan(process: InProcess) -> None:
    tell(process, 2, seed=0)
    process.submit(Ask(), Request(1, 1, 1))
    process.observe({"x": np.full(2, 9, np.float32)}, None)
    (planned,) = until(process.poll)
    np.testing.assert_array_equal(planned.chunk.actions[0], [101, 101])


def test_of_requests_that_wait_together_only_the_newest_is_planned(process: InProcess) -> None:
    tell(process, 1, seed=0)
    pid = process._process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # it reads nothing for a while, and nobody here waits for it
    try:
        for k in range(300):
            process.observe({"x": np.zeros(2, np.float32)}, None)
            process.submit(Ask(), Request(k, 0, k))
        assert process.poll() == []
    finally:
        os.kill(pid, signal.SIGCONT)
    found: list[Planned] = []

    def come() -> bool:
        found.extend(process.poll())
        return bool(found) and found[-1].request == 299

    until(come)
    assert len(found) < 300 and [planned.request for planned in found] == sorted(planned.request for planned in found)
    assert found[-1].chunk.tick == 300, "the observations between were all shown"


def test_a_process_that_dies_is_named_at_every_poll_and_at_the_next_reset_and_never_waited_for() -> None:
    planner = InProcess(make_remembering)
    tell(planner, 1, seed=0)
    planner.submit(Ask(guidance=-2.0), Request(1, 1, 0))
    until(lambda: planner.lost)
    planner.observe({"x": np.zeros(2, np.float32)}, None)
    planner.submit(Ask(), Request(2, 1, 1))
    for _ in range(2):
        with pytest.raises(HardwareError, match=r"planner: its process has ended \(exit code 7\); start it anew"):
            planner.poll()
    with pytest.raises(HardwareError, match="exit code 7"):
        planner.reset(0)
    planner.close()


def test_a_policy_that_fails_says_why_and_one_that_hangs_is_ended_by_force() -> None:
    planner = InProcess(make_remembering)
    tell(planner, 1, seed=0)
    planner.submit(Ask(guidance=-1.0), Request(1, 1, 0))
    until(lambda: planner.lost)
    with pytest.raises(HardwareError, match="planner: its policy failed: ValueError: this is a test"):
        planner.poll()
    planner.close()


def test_one_that_reads_no_more_is_gone_and_closing_it_does_not_hang() -> None:
    planner = InProcess(make_remembering)
    assert planner._process.pid is not None
    os.kill(planner._process.pid, signal.SIGSTOP)
    big = {"x": np.zeros(2, np.float32)}
    for _ in range(20_000):
        planner.observe(big, None)
        if planner.lost:
            break
    with pytest.raises(HardwareError, match="planner: it has left 1024 messages unread"):
        planner.poll()
    planner.close()
    assert not planner._process.is_alive()


def test_a_policy_that_cannot_be_made_is_said_at_once() -> None:
    with pytest.raises(HardwareError, match="planner: its policy could not be made: FileNotFoundError: no such run"):
        InProcess(make_nothing)


def test_a_process_that_does_not_begin_in_time_is_ended() -> None:
    with pytest.raises(
        HardwareError, match="planner: not ready after 0 s; a policy that loads for longer wants a larger start_s"
    ):
        InProcess(make_remembering, start_s=0.0)


def test_a_delayed_plan_is_of_its_own_observation_and_comes_when_the_delay_is_over() -> None:
    now, delays = [0.0], iter([0.25, 0.1])
    planner = Local(Remembering(), lambda: next(delays), lambda: now[0])
    tell(planner, 2, seed=1)
    planner.submit(Ask(), Request(1, 1, 1))
    planner.observe({"x": np.full(2, 50, np.float32)}, None)
    planner.submit(Ask(), Request(2, 1, 2))
    seen = []
    for k in range(6):
        now[0] = k * 0.05
        seen.append([(p.request, float(p.chunk.actions[0, 0]), p.seconds) for p in planner.poll()])
    assert seen == [[], [], [(2, 151.0, 0.1)], [], [], [(1, 101.0, 0.25)]]
    planner.close()


def test_a_plan_that_waits_when_an_episode_begins_is_not_handed_out() -> None:
    now = [0.0]
    planner = Local(Remembering(), 1.0, lambda: now[0])
    tell(planner, 1, seed=1)
    planner.submit(Ask(), Request(1, 1, 0))
    planner.reset(1)
    now[0] = 5.0
    assert planner.poll() == []


@pytest.mark.parametrize("delay", [-0.1, float("nan")])
def test_a_delay_that_is_none_is_refused(delay: float) -> None:
    planner = Local(Remembering(), delay, lambda: 0.0)
    tell(planner, 1, seed=0)
    with pytest.raises(BadInput, match="delay_s: want a finite number of at least 0 s, got"):
        planner.submit(Ask(), Request(1, 1, 0))


def test_messages_keep_every_number_shape_and_kind() -> None:
    arrays = {
        "whole": np.arange(6, dtype=np.uint8).reshape(1, 2, 3),
        "turned": np.arange(6.0).reshape(2, 3).T,
        "one": np.array(3.5, np.float16),
        "none": np.zeros((0, 4), np.int64),
        "yes": np.array([True, False]),
    }
    kind, plain, found = unpacked(packed("plan", {"tick": np.int64(3), "name": "é"}, arrays))
    assert kind == "plan" and plain == {"tick": 3, "name": "é"}
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)
        found[name][...] = 0  # may be written to


def test_an_ask_comes_back_as_it_went() -> None:
    ask = Ask(3, np.ones((2, 1)), np.ones(2), {"cup": np.zeros(3)}, 2.0)
    back = unpacked_fields(Ask, *packed_fields(ask))
    assert back.draws == 3 and back.guidance == 2.0 and list(back.goal) == ["cup"]
    np.testing.assert_array_equal(back.prefix, ask.prefix)
    empty = unpacked_fields(Ask, *packed_fields(Ask()))
    assert empty.prefix is None and not empty.goal


def test_only_numbers_cross_to_the_other_process() -> None:
    with pytest.raises(BadInput, match="obs/x: want numbers, got object"):
        packed("observe", {}, {"obs/x": np.array([object()])})
