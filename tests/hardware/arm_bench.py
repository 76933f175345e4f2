"""What tests of arms against emulators share: a bench with one emulated controller, an emulator in a thread, and waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from queue import SimpleQueue as Queue
from typing import Any

import pytest

from hardware._base import ArmState, Sampled, Setpoint, State, Stop
from hardware._errors import HwError, NotReady, TransportLost, TransportTimeout
from hardware._life import Attended, Budget
from hardware.emulators._base import make_emulator
from hardware.emulators._process import Running


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"it did not come true in {seconds:g} s"
        time.sleep(0.005)


class Served:
    """An emulator in a thread of this process, which costs no start of one; used as `Running` is. address: for a driver."""

    def __init__(self, name: str, overrides: dict[str, Any]) -> None:
        self._emulator, self._asked, self._over = make_emulator(name, overrides), Queue[Any](), threading.Event()
        self.address = self._emulator.open()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Served:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10.0)
        self._emulator.close()

    def control(self, op: str, **args: Any) -> Mapping[str, Any]:
        """Does one op between two turns of the emulator."""
        answer: Future[Mapping[str, Any]] = Future()
        self._asked.put((op, args, answer))
        return answer.result(10.0)

    def _serve(self) -> None:
        while not self._over.is_set():
            self._emulator.turn(0.002)
            while not self._asked.empty():
                op, args, answer = self._asked.get()
                try:
                    answer.set_result(self._emulator.control(op, args))
                except Exception as error:  # for the test that asked
                    answer.set_exception(error)


class Bench:
    """One emulated controller and the arm connected to it; every test takes the arm from wherever the last one left it.

    robot: the emulator; driver: of the arm; arm: the same, attended; config: of the driver.
    """

    def __init__(self, robot: Running, make: Callable[[Any], Any], config: Any, period_s: float, budget: Budget) -> None:
        """make: a driver of a config; period_s, budget: of the attended arm; a busy machine is no broken wire."""
        self.robot, self.config = robot, config
        self._make, self._period_s, self._budget = make, period_s, budget
        self._renew()

    def _renew(self) -> None:
        self.driver = self._make(self.config)
        self.arm = Attended(self.driver, "arm", self._period_s, self._budget)

    def fresh(self) -> Attended:
        """Returns an arm that is not connected."""
        if self.arm.state is not State.CREATED:
            self.arm.disconnect()
            self._renew()
        return self.arm

    def resting(self) -> Attended:
        """Returns the arm connected and not active."""
        if self.arm.state in (State.CREATED, State.CLOSED):
            self.fresh().connect()
        if self.arm.state is State.FAULT:
            self.arm.clear_fault()
        if self.arm.state is State.ACTIVE:
            self.arm.deactivate(Stop.HOLD)
        return self.arm

    def active(self, tries: int = 3) -> Attended:
        """Returns the arm at work; on a busy machine a handshake may time out."""
        for left in reversed(range(tries)):
            try:
                return self._active()
            except (TransportLost, TransportTimeout, NotReady):
                if not left:
                    raise
                self.fresh()
        raise AssertionError("unreachable")

    def _active(self) -> Attended:
        if self.arm.state is not State.ACTIVE:
            self.resting()
        if self.arm.state is State.CONNECTED:
            self.arm.configure()
        if self.arm.state is State.CONFIGURED:
            self.arm.activate()
        self.cycle()
        return self.arm

    def cycle(self, setpoint: Setpoint | None = None) -> ArmState:
        """Returns a fresh sample; a busy machine may miss some."""
        for _ in range(200):
            try:
                state = self.arm.cycle(setpoint)
            except TransportTimeout:  # nothing to repeat yet
                continue
            if not state.flags & Sampled.STALE:
                return state
        raise AssertionError("no fresh sample in 200 cycles")

    def fault(self, setpoint: Setpoint | None = None) -> HwError:
        """Returns what ends the cycles."""
        with pytest.raises(HwError) as caught:
            for _ in range(2000):
                self.arm.cycle(setpoint)
                time.sleep(0.001)
        return caught.value

    def control(self, op: str, **args: Any) -> Mapping[str, Any]:
        """Does one op of the emulator."""
        return self.robot.control(op, **args)

    def stats(self) -> Any:
        """Returns what the emulator has seen."""
        return self.robot.control("stats")
