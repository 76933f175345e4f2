"""Anchors of the drivers: what the vendors' own libraries reach on the emulated wires, and what happens when these break."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hardware._base import Driver, Sampled, Setpoint
from hardware._calibration import ServoCalibration, ServoGripper, ServoJoint, save
from hardware._errors import HwError, TransportLost
from hardware._life import Attended, Budget
from hardware.emulators._process import Running

SERVOS = (1, 2, 3, 4, 5, 6)
PATIENT = Budget(hard=10_000, hard_s=60.0)  # for rates: a busy machine is not a dead servo
PERIOD_S = 0.01


def bus_cycles_per_s(baud: int, seconds: float) -> float:
    """Returns cycles a second of one sync write and one sync read of six servos, positions, speeds and currents (H1, H2)."""
    from hardware._dynamixel import DynamixelBus

    with Running("dynamixel", {"baud": baud}) as box:
        bus = DynamixelBus("bench", box.address, reply_s=0.1)
        bus.open()
        try:
            for servo in SERVOS:
                bus.ping(servo)
                bus.configure(servo)

            def cycle() -> None:
                bus.goals(SERVOS, [2048] * len(SERVOS))
                bus.sample(SERVOS)

            return _rate(cycle, seconds)
        finally:
            bus.close()


def ur_figures(seconds: float) -> dict[str, float]:
    """Returns connect_s, samples_per_s, servo_per_s and move_error_rad of ur_rtde's own clients (H3)."""
    import rtde_control
    import rtde_receive

    with Running("ur") as box:
        began = time.monotonic()
        receive = rtde_receive.RTDEReceiveInterface(box.address)
        control = rtde_control.RTDEControlInterface(box.address)
        connect_s = time.monotonic() - began
        q, seen, calls, began = list(receive.getActualQ()), set(), 0, time.monotonic()
        while time.monotonic() - began < seconds:
            tick = time.monotonic()
            control.servoJ(q, 0.0, 0.0, 0.002, 0.1, 300.0)
            calls += 1
            while time.monotonic() - tick < 0.002:
                seen.add(receive.getTimestamp())
        passed = time.monotonic() - began
        control.servoStop()
        goal = [angle + 0.5 for angle in q]
        control.moveJ(goal, 2.0, 4.0)
        error = float(np.abs(np.array(receive.getActualQ()) - goal).max())
        control.stopScript()
    return {
        "connect_s": connect_s, "samples_per_s": len(seen) / passed, "servo_per_s": calls / passed, "move_error_rad": error,
    }  # fmt: skip


def xarm_calls_per_s(seconds: float) -> float:
    """Returns calls a second of the vendor's servo command (H5)."""
    from hardware.robots import xarm7

    with Running("xarm", {"port": 20502}) as box, _active(xarm7.make(xarm7.Config(host=box.address, port=20502))) as arm:
        q, driver = arm.cycle().q.tolist(), arm._driver
        return _rate(lambda: driver._arm.set_servo_angle_j(q, is_radian=True), seconds)  # type: ignore[attr-defined]


def robotiq_figures(seconds: float) -> tuple[float, float]:
    """Returns polls a second on an RTU line, and how far [m] from an object of 34 mm the fingers stop (H6)."""
    from hardware.grippers import robotiq_2f

    with Running("robotiq", {"object_m": 0.034}) as box, _active(robotiq_2f.make(robotiq_2f.Config(port=box.address))) as grip:
        rate = _rate(grip.cycle, seconds)
        end = time.monotonic() + 10.0
        state = grip.cycle(Setpoint(np.zeros(0), 0.0))
        while not grip._driver.status.holding and time.monotonic() < end:  # type: ignore[attr-defined]
            state = grip.cycle(Setpoint(np.zeros(0), 0.0))
            time.sleep(0.01)
    return rate, abs(state.aperture * 0.085 - 0.034)


def wrong_values(reads: int) -> tuple[int, int]:
    """Returns how many wrong values a wire with 2 % lost and 2 % damaged answers gave, and misses that nobody counted (H7).

    A read that misses hears all servos out: it may count for as many spoilt answers as there are servos, and for no more.
    """
    from hardware._dynamixel import DynamixelBus

    wrong = missed = 0
    with Running("dynamixel") as box:
        bus = DynamixelBus("bench", box.address, reply_s=0.02)
        bus.open()
        try:
            truth = bus.sample(SERVOS).position
            box.control("drop", p=0.02)
            box.control("corrupt", p=0.02)
            for _ in range(reads):
                try:
                    wrong += int((bus.sample(SERVOS).position != truth).any())
                except HwError as error:
                    missed += 1
                    if not error.transient:
                        raise
            stats = box.control("stats")
        finally:
            bus.close()
    return wrong, uncounted(int(stats["dropped"] + stats["corrupted"]), missed)


def uncounted(spoilt: int, missed: int) -> int:
    """Returns how many reads at least must have missed beside the counted ones, where so many answers were spoilt."""
    return max(0, -(-spoilt // len(SERVOS)) - missed)


def dead_servo_s() -> tuple[float, float]:
    """Returns the seconds from a servo's death until a sample says so, infinite where none does, and until it is a fault (H8).

    At 100 Hz.
    """
    with koch() as (box, arm):
        arm.cycle()  # what is stale needs a sample that was not
        box.control("dead", id=3)
        began, flagged = time.monotonic(), float("inf")
        try:
            while True:
                tick = time.monotonic()
                state = arm.cycle()
                if state.flags & Sampled.STALE:
                    flagged = min(flagged, time.monotonic() - began)
                time.sleep(max(0.0, PERIOD_S - (time.monotonic() - tick)))
        except TransportLost:
            return flagged, time.monotonic() - began


def unplugged_s() -> float:
    """Returns the seconds until a pulled cable is a fault (H9).

    Then it connects again in this process, in three attempts at most (a busy machine misses answers), or it raises why not.
    """
    with koch() as (box, arm):
        box.control("unplug")
        began = time.monotonic()
        try:
            while True:
                arm.cycle()
        except TransportLost:
            passed = time.monotonic() - began
        arm.disconnect()
        box.control("replug")
        for attempt in range(3):
            again = _koch(box)
            try:
                again.connect()
                break
            except HwError:
                if attempt == 2:
                    raise
            finally:
                again.disconnect()
        return passed


def goals_that_got_through() -> int:
    """Returns how many goals the wire saw of setpoints that are none: NaN, infinity, degrees, another shape (H10)."""
    with koch() as (box, arm):
        arm.cycle()
        before = box.control("stats")["goals"]["count"]
        for bad in (np.full(5, np.nan), np.full(5, np.inf), np.full(5, 57.3), np.zeros(4), np.full(5, 1e308)):
            with contextlib.suppress(HwError):
                arm.cycle(Setpoint(bad))
        return int(box.control("stats")["goals"]["count"] - before)


@contextlib.contextmanager
def koch() -> Iterator[tuple[Running, Attended]]:
    """Gives an emulated Koch arm at work, with the answers' own time-outs and budget."""
    with Running("dynamixel") as box:
        arm = _koch(box)
        arm.connect()
        arm.configure()
        arm.activate()
        try:
            yield box, arm
        finally:
            arm.disconnect()


def koch_calibration(path: Path) -> Path:
    """Writes the calibration of the emulated Koch arm and returns its path."""
    from hardware.robots import koch as robot

    registers = {"homing": 0, "drive_mode": 0}
    joints = tuple(ServoJoint(name, k, 1, 2048, -1.6, 1.6, 1200, 52, registers) for k, name in enumerate(robot.JOINTS, start=1))
    calibration = ServoCalibration("koch", joints, ServoGripper("gripper", 6, 2048, 600, 0.07, 1200, 52, registers))
    save(calibration, path)
    return path


def _koch(box: Running) -> Attended:
    from hardware.robots import koch as robot

    with tempfile.TemporaryDirectory() as folder:
        path = koch_calibration(Path(folder) / "koch.yaml")
        return Attended(robot.make(robot.Config(box.address, str(path))), "koch", PERIOD_S)


@contextlib.contextmanager
def _active(driver: Driver) -> Iterator[Any]:
    arm = Attended(driver, "bench", PERIOD_S, PATIENT)
    arm.connect()
    try:
        arm.configure()
        arm.activate()
        yield arm
    finally:
        arm.disconnect()


def _rate(call: Callable[[], object], seconds: float) -> float:
    began, calls = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        call()
        calls += 1
    return calls / (time.monotonic() - began)
