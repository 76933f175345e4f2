"""A delay that was put into an arm is found to 2 ms and kept in its file; nothing moves that should not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardware._errors import TransportTimeout
from hardware._records import Hosting
from hardware._stepped import SimulatedTime, Stepped
from hardware.emulators._delayed import Delayed
from hardware.emulators._plants import FirstOrder
from hardware.robots.virtual import Body, Config, Virtual
from robolearn import cli
from robolearn.apps import _robot_file, calibrate_latency
from robolearn.apps._guarded import MakeGuard
from robolearn.apps._sweep import Clock, Motion, check
from robolearn.errors import BadInput
from robolearn.runtime import latency_file
from robolearn.runtime.latency import Latency
from robolearn.runtime.limits import defaults

OFF = ("workspace", "collision", "effort", "temperature")


@dataclass
class World:
    """A simulated arm of two joints with a dead time, and a folder with its robot file."""

    folder: Path
    delay_s: float = 0.04
    q: tuple[float, float] = (0.0, 0.3)
    emulated: bool = True
    lossy: bool = False
    arm: Stepped | None = None

    def open_arm(self, robot: _robot_file.RobotFile) -> Stepped:
        time = SimulatedTime()
        plant = Delayed(FirstOrder(self.q, time_constant_s=1e-4, speed=50.0), self.delay_s)
        body = Body(plant, ("pan", "roll"), np.array([-2.0, -2.0]), np.array([2.0, 2.0]))
        driver = Virtual(Config(watchdog_s=0.0), lambda: body, time.now_ns)
        driver.exchange = losing(driver.exchange) if self.lossy else driver.exchange  # type: ignore[method-assign]
        self.arm = Stepped(
            robot.driver,
            driver,
            MakeGuard(robot.share),
            time,
            Hosting(1 / robot.hz, dither_s=calibrate_latency._DITHER / robot.hz),
        )
        connect = self.arm.connect
        self.arm.connect = lambda: replace(connect(), emulated=self.emulated)  # type: ignore[method-assign]
        calibrate_latency.CLOCK = Clock(time.now_ns, time.sleep)
        return self.arm

    def run(self, *more: str) -> int:
        return cli.main(
            ["calibrate", "latency", "--robot", str(self.folder / "two.yaml"), "--seconds", "4", "--slow-hz", "0.5", *more]
        )

    @property
    def file(self) -> Path:
        return self.folder / "data" / "calibration" / "two" / "latency.yaml"


def losing(exchange: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns a wire that takes every setpoint and loses both answers of a third of the cycles."""
    rng, left = np.random.default_rng(0), [0]

    def lossy(setpoint: Any) -> Any:
        state = exchange(setpoint)
        if setpoint is not None:
            left[0] = left[0] - 1 if left[0] else 2 * int(rng.random() < 0.5)
            if left[0]:
                raise TransportTimeout("virtual", "the answer was lost")
        return state

    return lossy


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    (tmp_path / "two.yaml").write_text("driver: virtual\ncameras: {front: {driver: synthetic, set: {size: [32, 24], hz: 60}}}\n")
    made = World(tmp_path)
    monkeypatch.setattr(calibrate_latency, "open_arm", made.open_arm)
    monkeypatch.setattr(calibrate_latency, "CLOCK", Clock())
    monkeypatch.chdir(tmp_path)
    return made


@pytest.mark.parametrize("delay_s", (0.005, 0.04, 0.12))
def test_an_injected_delay_is_recovered_to_2_ms_and_written(world: World, delay_s: float) -> None:
    world.delay_s = delay_s
    assert world.run("--json", "found.json") == 0
    figures = json.loads(Path("found.json").read_text())
    assert figures["latency"]["act_s"] == pytest.approx(delay_s, abs=0.002)
    low, high = figures["act"]["interval"]
    assert low - 0.001 <= delay_s <= high + 0.001 and high - low < 0.01
    assert figures["dead"]["seconds"] == pytest.approx(delay_s, abs=0.002) and figures["time_constant_s"] < 0.003
    assert figures["act"]["gain"] == pytest.approx(1.0, abs=0.02) and figures["joint"] == "roll" and figures["emulated"] is True
    assert figures["asked"]["interval"][1] > delay_s - 0.002 and figures["observe_unsure_s"] == 0
    assert latency_file.read(world.file).of("virtual").act_s == figures["latency"]["act_s"]


def test_lost_answers_do_not_make_an_arm_look_later(world: World) -> None:
    """The setpoint of a cycle without an answer went out all the same."""
    world.lossy = True
    assert world.run("--json", "found.json") == 0
    figures = json.loads(Path("found.json").read_text())
    assert figures["samples"] < 350
    assert figures["latency"]["act_s"] == pytest.approx(0.04, abs=0.002)
    assert figures["dead"]["seconds"] == pytest.approx(0.04, abs=0.002)


def test_what_was_measured_is_replaced_only_on_request_and_other_devices_stay(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for device in ("virtual", "front"):
        latency_file.write_device(world.file, device, Latency(0.5, 0.5), {"by": "hand"})
    assert world.run() == 2 and "--overwrite" in capsys.readouterr().err and world.arm is None
    monkeypatch.setattr(calibrate_latency, "open_camera", open_late(0.03))
    assert world.run("--camera", "front", "--overwrite") == 0
    found = latency_file.read(world.file)
    assert found.of("virtual") == Latency(0.5, 0.5) and found.of("front").observe_s == pytest.approx(0.03, abs=0.001)


def test_a_second_joint_is_added_and_the_arm_has_the_larger_delay(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    latency_file.write_device(world.file, "virtual", Latency(0.0, 0.08), {}, joint="roll")
    world.delay_s = 0.02
    assert world.run() == 2 and "latency of virtual: roll" in capsys.readouterr().err
    assert world.arm is not None and not world.arm.filters, "the joint that is meant was known, and nothing moved"
    assert world.run("--joint", "pan", "--json", "pan.json") == 0
    assert "act_s 0.08 (of roll, pan the largest)" in capsys.readouterr().out
    assert json.loads(Path("pan.json").read_text())["latency"]["act_s"] == pytest.approx(0.02, abs=0.002)
    assert latency_file.read(world.file).of("virtual").act_s == 0.08


def test_a_real_arm_does_not_move_before_somebody_has_said_yes(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.emulated = False
    assert world.run() == 2 and "--yes" in capsys.readouterr().err
    assert world.arm is not None and not world.arm.filters, "it was never activated"
    assert not world.file.exists()


@pytest.mark.parametrize(
    ("q", "more", "says"),
    [
        ((0.0, 1.94), (), "roll stands at 111.2 deg"),
        ((0.0, 0.0), ("--degrees", "10"), "want --degrees"),
        ((0.0, 0.0), ("--joint", "rol"), "did you mean 'roll'"),
        ((0.0, 0.0), ("--degrees", "0"), "degrees: want up to 20"),
        ((0.0, 0.0), ("--camera", "wrist"), "unknown camera 'wrist'"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    world: World, q: tuple[float, float], more: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world.q = q
    assert world.run(*more) == 2
    error = capsys.readouterr().err.strip()
    assert says in error and "\n" not in error and not world.file.exists()


def test_the_largest_motion_that_is_offered_is_accepted() -> None:
    limits = defaults(("a",), (-3.0,), (3.0,), (2.0,), share=0.25, without=OFF)
    with pytest.raises(BadInput, match="want --degrees") as caught:
        check(Motion(1.0), limits, 0, 0.0)
    check(Motion(math.radians(float(str(caught.value).split("--degrees ")[1].split()[0])) * 0.99), limits, 0, 0.0)


def test_a_camera_that_draws_its_time_is_measured_by_what_it_draws(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate_latency, "open_camera", open_late(0.03))
    assert world.run("--camera", "front") == 0
    model = latency_file.read(world.file)
    assert model.of("front").observe_s == pytest.approx(0.03, abs=0.001)
    assert _robot_file.RobotFile("virtual", latency=str(world.file)).latencies() == model, "the robot's file reads the same"


def open_late(delay_s: float) -> Callable[..., Any]:
    """Returns what opens a synthetic camera whose frames come so late, on a simulated clock."""
    from hardware.cameras import synthetic

    time = SimulatedTime()
    calibrate_latency.CLOCK = Clock(time.now_ns, time.sleep)

    class Late:
        """As much of a hosted camera as is asked of it."""

        name, size, alive = "front", (32, 24), True

        def __init__(self) -> None:
            self.source = synthetic.make(synthetic.Config((32, 24), 60.0), time.now_ns, time.sleep)

        def connect(self) -> Any:
            return self.source.connect()

        def newer(self, after: int, timeout_s: float) -> Any:
            frame = self.source.read(timeout_s)
            return None if frame is None else replace(frame, t_recv_ns=frame.t_capture_ns + round(delay_s * 1e9))

        def close(self) -> list[str]:
            return []

    return lambda robot, key: Late()
