"""The FR3's driver: on a library that raises what it is told, and (slow) on franky against franky_sim's control interface."""

from __future__ import annotations

import enum
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hardware._base import Sampled, Setpoint, State, Stop
from hardware._errors import (
    BadCommand,
    ConfigMismatch,
    DeviceFault,
    EStop,
    HwError,
    LimitViolation,
    NotReady,
    ProtectiveStop,
    TransportLost,
    TransportTimeout,
)
from hardware._life import Attended, Budget
from hardware.robots import fr3
from robolearn.errors import ConfigError, MissingDependency

REST = np.array([0.0, 0.0, 0.0, -1.57, 0.0, 1.57, 0.785])


class Mode(enum.Enum):
    """What a robot of libfranka can be in."""

    Other, Idle, Move, Guiding, Reflex, UserStopped, AutomaticErrorRecovery = range(7)


class Robot:
    """A robot whose arm is where it was sent at once, and that raises what `fails` holds."""

    def __init__(self, *args: Any, realtime_config: str) -> None:
        self.opened, self.realtime = args, realtime_config
        self.goals: list[np.ndarray] = []
        self.q, self.mode, self.ms, self.is_in_control = REST.copy(), Mode.Idle, 0, False
        self.errors: dict[str, bool] = {}
        self.fails: Exception | None = None
        self.heals = self.rests = True
        self.joint_velocity_limit = SimpleNamespace(max=np.full(7, 2.0))

    @property
    def state(self) -> SimpleNamespace:
        self.ms += 1
        errors, now = SimpleNamespace(**self.errors), SimpleNamespace(to_msec=lambda ms=self.ms: ms)
        return SimpleNamespace(
            q=self.q, dq=self.q * 0, tau_J=self.q * 0, robot_mode=self.mode, current_errors=errors,
            last_motion_errors=SimpleNamespace(), time=now,
        )  # fmt: skip

    def move(self, motion: Any, asynchronous: bool) -> None:
        assert asynchronous
        if self.fails is not None:
            raise self.fails
        self.mode, self.is_in_control = (Mode.Idle, False) if motion is None else (Mode.Move, True)
        if motion is not None:
            self.goals.append(motion)
            self.q = motion

    def poll_motion(self) -> bool:
        if self.fails is not None:
            raise self.fails
        return True

    def join_motion(self, timeout: float) -> bool:
        return self.rests

    def recover_from_errors(self) -> bool:
        self.mode, self.errors, self.fails = (Mode.Idle, {}, None) if self.heals else (self.mode, self.errors, self.fails)
        return self.heals

    def trip(self, mode: Mode, fails: Exception | None, **errors: bool) -> None:
        """Ends control for a reason."""
        self.mode, self.is_in_control, self.fails, self.errors = mode, False, fails, errors


def library() -> SimpleNamespace:
    """Returns what the driver uses of franky."""
    names = "IncompatibleVersion Realtime Network Control Command InvalidOperation"
    exceptions = {f"{name}Exception": type(f"{name}Exception", (Exception,), {}) for name in names.split()}
    return SimpleNamespace(
        Robot=Robot, RobotMode=Mode, RealtimeConfig=SimpleNamespace(Enforce="enforce", Ignore="ignore"),
        JointMotion=lambda q, return_when_finished: np.array(q), JointStopMotion=lambda: None, **exceptions,
    )  # fmt: skip


def active() -> tuple[Attended, fr3.FR3, Any]:
    """Returns an arm at work, its driver, and the robot under it."""
    driver = fr3.FR3(fr3.Config(host="172.16.0.2"), franky=library())
    arm = Attended(driver, "fr3", 1 / 100)
    arm.connect()
    arm.configure()
    arm.activate()
    return arm, driver, driver._robot


def test_connecting_moves_nothing_and_activating_takes_the_measured_pose_as_goal() -> None:
    driver = fr3.FR3(fr3.Config(), franky=library())
    assert driver.disconnect() == []
    arm = Attended(driver, "fr3", 1 / 100)
    assert not arm.connect().emulated and driver._robot.opened == ("172.16.0.2", 0.5, 20.0, 30.0)
    assert driver._robot.realtime == "enforce" and arm.configure() == {} == driver.configure()
    assert not driver._robot.goals and arm.cycle().seq == 1
    arm.activate()
    np.testing.assert_allclose(driver._robot.goals, [REST])
    np.testing.assert_allclose(arm.caps.velocity, 1.0)  # half of the robot's own
    state = arm.cycle(Setpoint(REST + 0.01))
    np.testing.assert_allclose(state.q, REST + 0.01)
    arm.deactivate(Stop.HOLD)
    assert not driver._robot.is_in_control and arm.disconnect() == []


def test_what_is_no_setpoint_never_reaches_the_library() -> None:
    arm, driver, robot = active()
    for q in (np.full(7, np.nan), np.full(7, np.inf), REST[:6]):
        with pytest.raises(BadCommand, match=r"want 7 finite numbers \[rad\]"):
            arm.cycle(Setpoint(q))
        with pytest.raises(BadCommand, match=r"want 7 finite numbers \[rad\]"):
            driver.exchange(Setpoint(q))
    with pytest.raises(LimitViolation, match="are these degrees"):
        arm.cycle(Setpoint(np.degrees(REST)))
    assert len(robot.goals) == 1


@pytest.mark.parametrize("name", ["joint_position_limits_violation", "communication_constraints_violation", "self_collision"])
def test_a_reflex_is_named_and_recovers(name: str) -> None:
    arm, driver, robot = active()
    robot.trip(
        Mode.Reflex, driver._franky.ControlException(f"motion aborted by reflex! [{name}]"), **{name: True, "other": False}
    )
    with pytest.raises(ProtectiveStop, match=f"reflex: {name}$"):
        arm.cycle(Setpoint(REST))
    assert arm.state is State.FAULT and driver.health().alarm["robot"] == (name,)
    arm.clear_fault()
    arm.configure()
    arm.activate()
    assert arm.cycle(Setpoint(REST)).flags == 0


def test_a_motion_that_ends_for_another_reason_says_it() -> None:
    arm, driver, robot = active()
    robot.trip(Mode.Idle, driver._franky.ControlException("libfranka: Move command rejected"))
    with pytest.raises(ProtectiveStop, match="control ended: libfranka: Move command rejected"):
        arm.cycle()
    arm, driver, robot = active()
    robot.trip(Mode.Idle, None)
    with pytest.raises(DeviceFault, match="control has ended without an error"):
        arm.cycle()


def test_the_user_stop_is_left_by_a_person_and_what_does_not_heal_is_said() -> None:
    arm, _, robot = active()
    robot.trip(Mode.UserStopped, None)
    with pytest.raises(EStop, match="the user stop is pressed"):
        arm.cycle()
    with pytest.raises(EStop, match="release it"):
        arm.clear_fault()
    robot.trip(Mode.Reflex, None, tau_j_range_violation=True)
    robot.heals = False
    with pytest.raises(NotReady, match=r"does not recover \(tau_j_range_violation\)"):
        arm.clear_fault()
    robot.trip(Mode.Guiding, None)
    robot.heals = True
    arm.clear_fault()
    robot.mode = Mode.Guiding
    arm.configure()
    with pytest.raises(NotReady, match="it must be idle"):
        arm.activate()


def test_every_error_of_the_library_is_one_of_ours() -> None:
    for name, kind in (
        ("NetworkException", TransportLost),
        ("ControlException", ProtectiveStop),
        ("CommandException", DeviceFault),
        ("InvalidOperationException", DeviceFault),
    ):
        _, driver, robot = active()
        robot.fails = getattr(driver._franky, name)("why")
        with pytest.raises(kind, match="why"):
            driver.exchange(Setpoint(REST))
        assert all(isinstance(error, HwError) for error in driver.disconnect())
    for name, wanted in (("NetworkException", TransportLost), ("IncompatibleVersionException", ConfigMismatch)):
        franky = library()

        def refuse(*_: Any, error: Exception = getattr(franky, name)("why"), **__: Any) -> None:
            raise error

        franky.Robot = refuse
        with pytest.raises(wanted, match="why"):
            fr3.FR3(fr3.Config(), franky=franky).connect()


def test_an_arm_that_we_set_going_is_stopped_at_the_end_whatever_went_wrong() -> None:
    for when in ("activate", "exchange"):
        driver = fr3.FR3(fr3.Config(), franky=library())
        driver.connect()
        robot: Any = driver._robot
        if when == "exchange":
            driver.activate()
        robot.mode, robot.is_in_control = Mode.Move, True  # the motion began, and then the call failed
        robot.fails = driver._franky.CommandException("why")
        with pytest.raises(DeviceFault, match="why"):
            driver.activate() if when == "activate" else driver.exchange(Setpoint(REST))
        robot.fails = None
        assert driver.disconnect() == [] and not robot.is_in_control


def test_an_arm_that_does_not_come_to_rest_is_said() -> None:
    arm, driver, robot = active()
    robot.rests = False
    with pytest.raises(TransportTimeout, match="does not come to rest within 2 s"):
        driver.deactivate(Stop.HOLD)
    robot.is_in_control, robot.rests = True, True
    assert arm.disconnect() == [] and not robot.is_in_control, "it is tried again"


def test_a_clock_that_stands_still_gives_no_sample() -> None:
    arm, driver, robot = active()
    arm.cycle()
    driver._robot = SimpleNamespace(state=robot.state, is_in_control=True)  # one state for ever
    assert driver.exchange(None).seq == 2
    with pytest.raises(TransportTimeout, match="clock has stood still for 5 ms"):
        driver.exchange(None)


def test_a_wrong_configuration_and_a_missing_library_say_what_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="dynamics: want more than 0 and at most 1, got 2"):
        fr3.Config(dynamics=2.0)
    with pytest.raises(ConfigError, match="above 0"):
        fr3.Config(rate_hz=0.0)
    monkeypatch.setitem(sys.modules, "franky", None)
    with pytest.raises(MissingDependency, match=r"pip install 'robolearn\[franka\]'"):
        fr3.make(fr3.Config()).connect()


@pytest.fixture(scope="module")
def simulator() -> Iterator[tuple[str, int]]:
    """Yields address and process of franky_sim's server."""
    pytest.importorskip("franky", reason="franky is not installed: pip install 'robolearn[franka]'")
    pytest.importorskip("franky_sim", reason="franky-sim is not installed: pip install franky-sim")
    server = [sys.executable, "-u", "-m", "franky_sim.run_server", "-s", "mujoco"]
    process = subprocess.Popen(server, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        found = next(found for line in process.stdout if (found := re.search(r"'(127[\d.]+)'", line)))
        yield found[1], process.pid
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_franky_moves_the_simulated_arm_and_a_paused_network_is_lost(simulator: tuple[str, int]) -> None:
    host, pid = simulator
    config = fr3.Config(host=host, dynamics=1.0, realtime=False, patience_s=0.05)
    arm = Attended(fr3.make(config), "fr3", 1 / 100, Budget(hard=100, hard_s=10.0))
    assert arm.connect().emulated and arm.configure() == {}
    here = arm.cycle().q
    time.sleep(0.1)
    np.testing.assert_allclose(arm.cycle().q, here, atol=1e-3)  # connecting moved nothing
    arm.activate()
    goal = here.copy()
    for _ in range(100):
        goal[[3, 6]] += 0.002
        assert arm.cycle(Setpoint(goal)).flags & Sampled.EMULATED
        time.sleep(0.01)
    end = time.monotonic() + 60.0  # on a busy machine the simulated second is long
    while np.abs((state := arm.cycle()).q - goal).max() > 0.02 and time.monotonic() < end:
        time.sleep(0.01)
    np.testing.assert_allclose(state.q, goal, atol=0.03)
    arm.deactivate(Stop.HOLD)
    arm.configure()
    arm.activate()
    for _ in range(50):
        arm.cycle()
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(TransportLost):
            for _ in range(1000):
                arm.cycle()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert all(isinstance(error, HwError) for error in arm.disconnect())
