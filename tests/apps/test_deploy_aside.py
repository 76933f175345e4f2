"""What brings an arm back works in a thread that lasts, one thing at a time, and ends before its next step when asked to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hardware._base import ArmState, State
from hardware._errors import TransportLost
from hardware._records import Sample
from robolearn.apps._deploy_aside import Aside
from robolearn.apps._deploy_rig import Rig
from robolearn.errors import HardwareError
from tests.apps.deploys import PANDA

NONE = np.zeros(7)
SAMPLE = Sample(ArmState(NONE, NONE, NONE, 0, 0, 0, 0), NONE, np.nan, 0, 0.0, True, State.FAULT, 1)


class Arm:
    """An arm in FAULT whose calls are noted; `during` is called in each."""

    alive = True

    def __init__(self, during: Callable[[str], object] = lambda call: None, life: State = State.FAULT) -> None:
        self.calls, self.during, self.life, self.cycle, self.silent = list[str](), during, life, 1, False

    def read(self) -> Sample:
        self.cycle += not self.silent
        return replace(SAMPLE, life=self.life, cycle=self.cycle)

    def read_fresh(self, after: int, timeout_s: float) -> Sample:
        if self.silent:
            raise TransportLost("virtual", f"no new cycle in {timeout_s:g} s")
        return self.read()

    def __getattr__(self, call: str) -> Any:
        def called(*arguments: object, **more: object) -> list[str]:
            self.calls.append(call)
            self.during(call)
            self.life = {"clear_fault": State.CONNECTED, "activate": State.ACTIVE}.get(call, self.life)
            return []

        return called


def rig_of(arm: Arm) -> Rig:
    rig = Rig(PANDA)
    rig.arm = arm  # type: ignore[assignment]
    return rig


def test_every_job_runs_in_the_same_thread_and_in_order() -> None:
    aside, threads, order = Aside(), set[int](), list[int]()

    def work(k: int) -> Callable[[Callable[[], bool]], None]:
        def do(stopped: Callable[[], bool]) -> None:
            threads.add(threading.get_ident())
            order.append(k)

        return do

    jobs = [aside.start(work(k)) for k in range(3)]
    for job in jobs:
        job.wait()
    assert order == [0, 1, 2] and len(threads) == 1 and threads != {threading.get_ident()} and jobs[-1].ended()
    aside.close()
    assert not aside.busy


def test_what_a_job_raises_is_raised_where_it_is_asked_for() -> None:
    aside = Aside()

    def fail(stopped: Callable[[], bool]) -> None:
        raise HardwareError("elbow: no answer")

    job = aside.start(fail)
    job.wait()
    with pytest.raises(HardwareError, match="elbow: no answer"):
        job.ended()
    aside.close()


def test_an_arm_is_cleared_and_switched_on_beside_the_loop() -> None:
    rig = rig_of(arm := Arm())
    job = rig.recover()
    job.wait()
    assert job.ended() and arm.calls == ["clear_fault", "configure", "activate"] and not rig.busy
    assert rig.close() == [] and arm.calls[-1] == "close"


def test_a_recovery_that_is_stopped_while_it_clears_the_fault_switches_no_motor_on() -> None:
    reached, go_on = threading.Event(), threading.Event()

    def wait(call: str) -> None:
        if call == "clear_fault":
            reached.set()
            go_on.wait(5.0)

    rig = rig_of(arm := Arm(wait))
    job = rig.recover()
    assert reached.wait(5.0) and rig.busy and not job.ended()
    job.stop()
    go_on.set()
    job.wait()
    with pytest.raises(HardwareError, match="virtual: it was stopped before it was ready"):
        job.ended()
    assert arm.calls == ["clear_fault"] and rig.arm is arm
    rig.close()


def test_closing_waits_for_the_recovery_and_closes_after_it() -> None:
    rig = rig_of(arm := Arm(lambda call: threading.Event().wait(0.1)))
    rig.recover()
    rig.close()
    assert arm.calls[-1] == "close" and arm.calls.count("activate") <= 1 and not rig.busy


def test_an_arm_that_is_silent_is_opened_anew_and_not_taken_as_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    rig, new = rig_of(old := Arm(life=State.ACTIVE)), Arm(life=State.CONNECTED)
    old.silent = True
    monkeypatch.setattr(rig, "_open_arm", lambda: setattr(rig, "arm", new))
    rig.make_ready()
    assert old.calls == ["close"] and new.calls == ["configure", "activate"]
