"""The UR5e's driver over a library that does what it is told: who is stopped when, and what hangs or lies is found out."""

from __future__ import annotations

import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hardware._base import Setpoint, Stop
from hardware._errors import (
    ConfigMismatch,
    DeviceFault,
    EStop,
    HwError,
    NotReady,
    ProtectiveStop,
    TransportLost,
    TransportTimeout,
)
from hardware.robots import _ur_link, ur5e

HERE = [0.1, -1.5, 1.5, -1.5, -1.5, 0.0]


class Controller:
    """A controller and ur_rtde's three clients of it in one. log: what was called, in order; fails: calls that raise."""

    FLAG_UPLOAD_SCRIPT = FLAG_NO_EXT_FT = 0

    def __init__(self) -> None:
        self.log: list[str] = []
        self.fails: set[str] = set()
        self.hangs: set[str] = set()
        self.over = threading.Event()
        self.program, self.obeys, self.takes, self.bits, self.mode, self.t_s = False, True, True, 1, 7, 0.0

    def _do(self, call: str) -> None:
        self.log.append(call)
        if call in self.hangs:
            self.over.wait(5.0)
        if call in self.fails:
            raise RuntimeError(f"{call}: Broken pipe")

    def __call__(self, *_: Any) -> Controller:  # the constructor of the control client
        self._do("construct")
        self.program = True
        return self

    def reuploadScript(self) -> bool:  # the names are the library's
        self._do("reuploadScript")
        self.program = True
        return True

    def servoStop(self, a: float) -> bool:
        self._do(f"servoStop {a:g}")
        return True

    def stopScript(self) -> None:
        self._do("stopScript")
        self.program = self.program and not self.obeys

    def setWatchdog(self, hz: float) -> bool:
        self._do("setWatchdog")
        return self.takes

    def servoJ(self, q: list[float], *_: float) -> bool:
        self._do("servoJ")
        return self.program

    def kickWatchdog(self) -> bool:
        return True

    def isConnected(self) -> bool:
        return True

    def isProgramRunning(self) -> bool:
        return self.program

    def getRobotStatus(self) -> int:
        return 1

    def getRobotMode(self) -> int:
        return self.mode

    def getSafetyStatusBits(self) -> int:
        return self.bits

    def getActualQ(self) -> list[float]:
        return HERE

    getActualQd = getActualCurrent = getActualQ

    def getTimestamp(self) -> float:
        self.t_s += 0.0005
        return round(self.t_s, 3)

    def send(self, line: str) -> None:
        self._do(line.strip())
        self.mode = 3 if "power off" in line else self.mode

    def receive(self) -> str:
        return "UR5"

    def disconnect(self) -> None:
        self.log.append("closed")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns a driver, as connected, and the controller under it."""
    controller = Controller()
    monkeypatch.setitem(sys.modules, "rtde_control", SimpleNamespace(RTDEControlInterface=controller))
    driver = ur5e.make(ur5e.Config())
    driver._link.receive, driver._link._dashboard = controller, controller
    monkeypatch.setattr(driver._link, "_answers", lambda timeout_s: None)
    yield driver, controller
    controller.over.set()


def test_an_arm_that_we_set_going_is_stopped_at_the_end_whatever_went_wrong(made: Any) -> None:
    driver, controller = made
    controller.takes = False
    with pytest.raises(ConfigMismatch, match=r"the watchdog of 0\.1 s did not take"):
        driver.activate()
    assert controller.program
    assert driver.disconnect() == [] and not controller.program
    assert controller.log[-3:] == ["servoStop 10", "stopScript", "closed"]


def test_an_arm_in_fault_is_stopped_at_the_end_too(made: Any) -> None:
    driver, controller = made
    driver.activate()
    controller.bits = 1 << 4
    with pytest.raises(ProtectiveStop):
        driver.exchange(None)
    assert controller.program
    assert driver.disconnect() == [] and not controller.program
    controller.log.clear()
    assert driver.disconnect() == [] and controller.log == [], "once"


def test_an_arm_that_is_not_ours_is_left_alone(made: Any) -> None:
    driver, controller = made
    driver._link.control, controller.program = controller, True  # somebody else's
    assert driver.disconnect() == [] and controller.program and controller.log == ["closed"]


@pytest.mark.parametrize("broken", ["servoStop 10", "stopScript"])
def test_each_step_of_a_stop_is_tried_whatever_the_one_before_it_did(made: Any, broken: str) -> None:
    driver, controller = made
    driver.activate()
    controller.log.clear()
    controller.fails = {broken}
    with pytest.raises(TransportLost, match=rf"{broken}: Broken pipe"):
        driver.deactivate(Stop.RELEASE)
    assert controller.log == ["servoStop 10", "stopScript", "power off"]
    controller.fails.clear()
    assert driver.disconnect() == [] and not controller.program, "it is still ours"


def test_a_program_that_does_not_end_is_said(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, controller = made
    driver.activate()
    controller.obeys = False
    monkeypatch.setattr(_ur_link, "_PROGRAM_S", 0.02)
    with pytest.raises(NotReady, match="the control program does not end within"):
        driver.deactivate(Stop.HOLD)
    assert [type(error) for error in driver.disconnect()] == [NotReady]


def test_a_setpoint_that_the_library_refuses_is_a_program_that_has_ended(made: Any) -> None:
    """isProgramRunning may be some packets behind; servoJ says it at once."""
    driver, _ = made
    driver.activate()
    driver._link.control = SimpleNamespace(isConnected=lambda: True, isProgramRunning=lambda: True, servoJ=lambda *_: False)
    with pytest.raises(DeviceFault, match="the control program has ended"):
        driver.exchange(Setpoint(np.array(HERE)))


@pytest.mark.parametrize(
    ("bits", "kind", "name"),
    [
        (1 << 2, ProtectiveStop, "protective stop"), (1 << 4, ProtectiveStop, "safeguard stop"),
        (1 << 6, EStop, "robot emergency stop"), (1 << 8, DeviceFault, "violation"),
        (1 << 10, ProtectiveStop, "stopped for safety"),
    ],
)  # fmt: skip
def test_every_bit_of_the_safety_system_stops_us(made: Any, bits: int, kind: type[HwError], name: str) -> None:
    driver, controller = made
    driver.activate()
    controller.bits = bits
    with pytest.raises(kind, match=name):
        driver.exchange(Setpoint(np.array(HERE)))
    assert controller.log.count("servoJ") == 1, "activate's own"


@pytest.mark.parametrize("call", ["construct", "reuploadScript"])
def test_starting_a_program_that_hangs_has_an_end(made: Any, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    driver, controller = made
    if call == "reuploadScript":
        driver.activate()
        controller.program = False  # it has ended, and is to be uploaded again
    controller.hangs = {call}
    monkeypatch.setattr(_ur_link, "_START_S", 0.02)
    with pytest.raises(TransportTimeout, match=r"did not finish a command in 0\.02 s"):
        driver.activate()
    assert controller.log[-1] == call


def test_a_program_that_cannot_start_says_why(made: Any) -> None:
    driver, controller = made
    controller.fails = {"construct"}
    with pytest.raises(NotReady, match=r"the control program did not start: .*construct: Broken pipe"):
        driver.activate()


def test_a_controller_that_goes_while_it_is_asked_who_it_is_leaves_nothing_open(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, controller = made
    controller.fails = {"get robot model"}
    monkeypatch.setattr(driver._link, "open", lambda timeout_s: None)
    with pytest.raises(TransportLost, match="dashboard: 'get robot model'"):
        driver.connect()
    assert controller.log[-1] == "closed" and driver._link.receive is None


def test_a_sample_waits_for_the_controllers_clock(made: Any) -> None:
    driver, controller = made
    began = controller.t_s
    states = [driver.exchange(None) for _ in range(5)]
    assert [state.seq for state in states] == [1, 2, 3, 4, 5] and len({state.t_sample_ns for state in states}) == 5
    assert controller.t_s > began + 0.004
    controller.getTimestamp = lambda: 1.0
    driver.exchange(None)
    with pytest.raises(TransportTimeout, match="clock has stood still for 5 ms"):
        driver.exchange(None)
    assert time.monotonic_ns() > states[-1].t_recv_ns
