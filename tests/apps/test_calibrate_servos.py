"""Servo arms are calibrated by hand: the pose comes back to the tick, nothing is written half, nonsense is refused."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardware._calibration import load
from hardware.emulators._base import Emulator, make_emulator
from hardware.robots import koch, so101
from robolearn import cli
from robolearn.apps import _guide, _servo_session, calibrate_servos
from robolearn.apps._servo_session import joint_of, travel_of
from robolearn.errors import BadInput

TICK = 2 * np.pi / 4096
SIGNS = np.array([1, -1, 1, -1, 1, -1])  # which way each joint turns in the arm's model
BASE = np.array([0.4, 2.9, -2.8, 1.0, 0.0, 3.0])  # where the plant's joints are at 0 rad of the model: some at an encoder's end
LOW, HIGH = np.array([-1.5, -1.9, -1.6, -1.2, -2.9, 0.0]), np.array([1.7, 1.4, 1.5, 1.6, 2.8, 1.3])  # the last: the gripper
REST = np.array([0.1, -1.0, 1.1, 0.2, -0.4, 0.0])


class Posed:
    """A plant that is wherever somebody puts it."""

    def __init__(self) -> None:
        self.q = BASE.copy()
        self.torque = np.ones(6, dtype=bool)

    def put(self, q: np.ndarray) -> None:
        """Puts it to angles (6,) [rad] of the arm's model."""
        self.q = BASE + SIGNS * q

    def command(self, target: np.ndarray) -> None:
        """Goes nowhere."""

    def advance(self, seconds: float) -> None:
        """Stays."""

    def measure(self) -> dict[str, np.ndarray]:
        return {"q": self.q.copy(), "qd": np.zeros(6), "effort": np.zeros(6)}


class Hand:
    """A person who does what the command says. clumsy: tasks that fail once; stops: at this task Ctrl-C is pressed."""

    def __init__(self, plant: Posed) -> None:
        self.plant, self.q, self.tasks = plant, np.zeros(6), list[str]()
        self.clumsy: dict[str, Callable[[], None]] = {}
        self.stops = ""

    def until_enter(self, task: str, look: Callable[[], str]) -> None:
        self.tasks.append(task)
        assert len(self.tasks) < 40, "it asks for the same thing for ever"
        name = task.split(":")[0]
        if self.stops and name == self.stops:
            raise KeyboardInterrupt
        if name in self.clumsy:
            self.clumsy.pop(name)()
            time.sleep(0.0015)
            look()
        elif task.startswith("Bring"):
            self.go(np.zeros(6), look)
        elif task.startswith("Lay"):
            self.go(REST, look)
        else:
            joint = [*so101.JOINTS, "gripper"].index(name)
            for end in (HIGH[joint], LOW[joint] if joint < 5 else HIGH[joint]):
                self.go(np.where(np.arange(6) == joint, end, self.q), look)

    def go(self, q: np.ndarray, look: Callable[[], str]) -> None:
        way = np.abs(q - self.q).max()
        for share in np.linspace(0, 1, 2 + int(way / 0.6))[1:]:
            self.plant.put(self.q + share * (q - self.q))
            time.sleep(0.0015)  # the emulator of a Dynamixel bus looks at its plant once in a millisecond
            look()
        self.q = q.copy()


@pytest.fixture(params=["so101", "koch"])
def arm(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Returns an emulated arm nobody has calibrated, and a person beside it."""
    plant = Posed()
    fields: dict[str, Any] = {"homing": [7, 0, -300, 0, 0, 90]}
    box: Emulator = make_emulator("feetech" if request.param == "so101" else "dynamixel", fields, plant)
    place, over = box.open(), threading.Event()

    def serve() -> None:
        while not over.is_set():
            box.turn(0.01)

    thread = threading.Thread(target=serve)
    thread.start()
    (tmp_path / "arm.yaml").write_text(
        f"driver: {request.param}\nset: {{port: {place}, calibration: {tmp_path / 'servos.yaml'}}}\n"
    )
    slow = {"timeout_s": 3.0} if request.param == "so101" else {"reply_s": 3.0}  # a shared core may stall
    module = {"so101": so101, "koch": koch}[request.param]
    there = module.Config(port=place, calibration=str(tmp_path / "servos.yaml"), **slow)
    hand = Hand(plant)
    monkeypatch.setattr(_guide, "until_enter", hand.until_enter)
    monkeypatch.chdir(tmp_path)
    lines = (tmp_path / "arm.yaml").read_text().replace("}", "".join(f", {key}: {value}" for key, value in slow.items()) + "}")
    (tmp_path / "arm.yaml").write_text(lines)
    yield {
        "name": request.param,
        "hand": hand,
        "plant": plant,
        "module": module,
        "there": there,
        "file": tmp_path / "servos.yaml",
    }
    over.set()
    thread.join()
    box.close()


def calibrate(*more: str) -> int:
    return cli.main(["calibrate", "servos", "--robot", "arm.yaml", "--opening-m", "0.07", "--yes", *more])


def test_an_arm_that_was_calibrated_by_hand_reads_the_pose_of_its_model(arm: dict[str, Any]) -> None:
    assert calibrate() == 0
    made = load(arm["file"])
    assert [joint.sign for joint in made.joints] == SIGNS[:5].tolist()
    np.testing.assert_allclose(made.lower, LOW[:5], atol=2 * TICK)
    np.testing.assert_allclose(made.upper, HIGH[:5], atol=2 * TICK)
    assert [joint.rest for joint in made.joints] == pytest.approx(REST[:5].tolist(), abs=2 * TICK)
    driver = arm["module"].make(arm["there"])
    driver.connect()
    try:
        for share in (0.05, 0.5, 0.95):
            q = LOW + share * (HIGH - LOW)
            arm["plant"].put(q)
            time.sleep(0.0015)
            state = driver.exchange(None)
            np.testing.assert_allclose(state.q, q[:5], atol=2 * TICK)
            assert state.aperture == pytest.approx(share, abs=0.01)
    finally:
        driver.disconnect()
    centred = (
        arm["name"] == "so101"
    )  # its servos cannot count over an encoder's end, so each gets an offset; a Dynamixel keeps its own
    assert (made.joints[2].registers["homing"] != -300) == centred


def test_an_interrupted_calibration_writes_nothing_and_goes_on_where_it_stopped(
    arm: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    arm["hand"].stops = "wrist_flex"
    assert calibrate() == 130 and not arm["file"].exists()
    assert calibrate() == 2 and "--resume" in capsys.readouterr().err
    arm["hand"].stops, done = "", len(arm["hand"].tasks)
    assert calibrate("--resume") == 0
    assert [task.split(":")[0] for task in arm["hand"].tasks[done:]][:2] == ["wrist_flex", "wrist_roll"]
    assert load(arm["file"]).joints[0].sign == SIGNS[0] and not list(arm["file"].parent.glob("*.unfinished"))
    assert calibrate() == 2 and "--overwrite" in capsys.readouterr().err


def test_a_step_that_went_wrong_is_done_again(arm: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    hand, plant = arm["hand"], arm["plant"]
    hand.clumsy = {"shoulder_pan": lambda: None, "elbow_flex": lambda: plant.put(hand.q + np.array([0, 0, -1.59, 0, 0, 0]))}
    assert calibrate() == 0
    said = capsys.readouterr().err
    assert "shoulder_pan: want a range of" in said and "elbow_flex: it went" in said
    assert load(arm["file"]).joints[2].upper == pytest.approx(HIGH[2], abs=2 * TICK)


def test_where_the_file_cannot_be_written_the_servos_keep_their_offsets(
    arm: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = read_homing(arm)
    monkeypatch.setattr(_servo_session, "save", full)
    monkeypatch.setattr(
        calibrate_servos.Arm, "_refusal", lambda self, made: "" if made.joints[2].registers["homing"] != -300 else "no"
    )
    assert calibrate() == 2
    assert read_homing(arm) == before and not arm["file"].exists()


def read_homing(arm: dict[str, Any]) -> list[int]:
    bus = arm["module"].bus(arm["there"])
    bus.open()
    try:
        return [bus.read(servo, "homing") for servo in arm["module"].IDS]
    finally:
        bus.close()


def test_going_on_with_other_servos_is_refused(tmp_path: Path) -> None:
    begun = _servo_session.Progress("koch", (1, 2), "usb-A", {"1": {"model": 1, "homing": 0}}, pose=(5, 6))
    _servo_session.keep(begun, tmp_path / "draft")
    same = replace(begun, pose=())
    assert _servo_session.go_on(tmp_path / "draft", same) == begun
    with pytest.raises(BadInput, match="begin anew with --overwrite"):
        _servo_session.go_on(tmp_path / "draft", replace(same, serial="usb-B"))


def recording(*ends: float, step: float = 0.5) -> list[int]:
    """Returns ticks on a way through some angles [rad], over the encoder's end or not."""
    way = np.concatenate([np.linspace(a, b, 1 + math.ceil(abs(b - a) / step))[:-1] for a, b in pairwise(ends)])
    return [round(angle / TICK) % 4096 for angle in [*way, ends[-1]]]


@pytest.mark.parametrize("sign", (1, -1))
@pytest.mark.parametrize("start", (0.0, 1.2, -1.0))
def test_the_end_that_is_visited_last_is_the_negative_one_wherever_the_joint_begins(sign: int, start: float) -> None:
    found = joint_of("j", recording(*(sign * end for end in (start, 1.2, -1.0, -0.9))), 0, 0.0, 4096)
    assert found.sign == sign and found.zero == 0
    assert (found.lower, found.upper) == (pytest.approx(-1.0, abs=TICK), pytest.approx(1.2, abs=TICK))


def test_a_pose_that_is_not_zero_gives_the_zero_all_the_same() -> None:
    found = joint_of("j", recording(0.3, 1.2, -1.0), round(0.3 / TICK), 0.5, 4096)
    assert (found.sign, found.zero) == (1, round(-0.2 / TICK) % 4096)
    assert (found.lower, found.upper) == (pytest.approx(-0.8, abs=2 * TICK), pytest.approx(1.4, abs=2 * TICK))


@pytest.mark.parametrize(
    ("ends", "says"),
    [((0.0, 0.2, -0.1), "want a range of"), ((0.0, 3.5, -3.5), "want a range of"), ((0.0, 0.0), "want a range of")],
)
def test_what_is_no_range_is_refused(ends: tuple[float, ...], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        joint_of("j", recording(*ends), 0, 0.0, 4096)


def test_a_way_that_was_not_seen_is_not_guessed() -> None:
    with pytest.raises(BadInput, match="which way is not known"):
        joint_of("j", recording(0.0, 1.8, -1.0, step=1.8), 0, 0.0, 4096)
    with pytest.raises(BadInput, match="open it as far as it goes"):
        travel_of("gripper", recording(0.0, 0.05), 0, 4096)
    assert travel_of("gripper", recording(3.0, 4.4), round(3.0 / TICK), 4096) == pytest.approx(1.4 / TICK, abs=1)


def test_a_robot_without_servos_and_a_pose_of_another_arm_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("arm.yaml").write_text("driver: virtual\n")
    assert calibrate() == 2 and "has no servos to calibrate" in capsys.readouterr().err
    Path("arm.yaml").write_text("driver: so101\nset: {port: /dev/robolearn-no-such-port}\n")
    assert calibrate("--ids", "1", "2") == 2 and "want 6 ids" in capsys.readouterr().err
    assert cli.main(["calibrate", "servos", "--robot", "arm.yaml", "--opening-m", "7"]) == 2
    assert "opening_m: want metres" in capsys.readouterr().err
