"""Calibrate an arm of servos by hand: its zero pose, directions and ranges, into the file that its driver asks for."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from hardware._base import ROBOTS
from hardware._calibration import ServoCalibration, load, save, shortest
from hardware._errors import HwError
from hardware._servo_bus import ServoBus, adapter_serial, firmly, meet, write_firmly
from robolearn import config, registry
from robolearn.apps import _guide, _robot_file, _servo_session
from robolearn.apps._report import write_json
from robolearn.apps._servo_session import Progress
from robolearn.errors import AlreadyExists, BadInput, ConfigError

GRIPPER = "gripper"
_SLOW_S = 0.02  # an answer that takes longer at best: the bus is looked at before any driver has set it up


@dataclass(frozen=True)
class Config:
    """Flags of `robolearn calibrate servos`."""

    robot: str
    """A robot file, or the name of a shipped one; its driver is an arm of servos."""
    opening_m: float
    """How wide the gripper opens [m]; measure it with a ruler."""
    pose: tuple[float, ...] = ()
    """Angle of each joint [deg] in the pose that the arm is brought to first; empty: all 0, the middle of every range."""
    ids: tuple[int, ...] = ()
    """Of the servos, from the base on, the gripper's last; empty: as the arm is sold."""
    out: Path | None = None
    """The calibration; without it the file that the robot's file names, or data/calibration/ROBOT/servos.yaml."""
    resume: bool = False
    """Go on where an interrupted calibration stopped."""
    overwrite: bool = False
    """Replace the calibration, or one that was interrupted."""
    yes: bool = False
    """Torque goes off without asking first, and what was measured is written."""
    json: Path | None = None
    """Write what was measured to this file."""

    def __post_init__(self) -> None:
        """Refuses numbers that make no sense; ValueError names the field."""
        if not 0 < self.opening_m < 1:
            raise ValueError(f"opening_m: want metres, up to 1, got {self.opening_m:g}")


def run(cfg: Config) -> int:
    """Leads a person through the calibration and writes it; until then nothing but the torque is changed."""
    robot, name = _robot_file.read(cfg.robot), config.find("robot", cfg.robot).stem
    module = registry.load(ROBOTS, robot.driver)
    if not hasattr(module, "IDS"):
        raise BadInput(f"calibrate servos: {robot.driver} has no servos to calibrate; want a robot such as so101, koch, viperx")
    path = cfg.out or Path(robot.set.get("calibration") or f"data/calibration/{name}/servos.yaml")
    draft = path.with_name(path.name + ".unfinished")
    if path.exists() and not cfg.overwrite:
        raise AlreadyExists(path, "calibration")
    if draft.exists() and not (cfg.resume or cfg.overwrite):
        raise AlreadyExists(draft, "calibration", resume=True)
    there = config.from_mapping(module.Config, {**robot.set, "calibration": str(path)}, where=f"robot {robot.driver}")
    arm = Arm(module, there, cfg.ids or module.IDS)
    try:
        begun = arm.open()
        progress = _servo_session.go_on(draft, begun) if cfg.resume and draft.exists() else begun
        _guide.consent(f"{robot.driver}: its torque goes off, and it falls. Hold it.", cfg.yes)
        arm.let_go()
        progress = measure(arm, progress, pose_of(cfg, arm), draft)
        measured = _servo_session.calibration_of(progress, arm.names, cfg.opening_m, arm.bus.ticks_per_turn)
        calibration = arm.fitting(measured)
        tell(calibration, load(path) if path.exists() else None)
        _guide.consent(f"Write it to {path}{homing_said(measured, calibration)}?", cfg.yes)
        _servo_session.commit(arm.bus, measured, calibration, path)
        draft.unlink(missing_ok=True)
    finally:
        arm.bus.close()
    arm.check(path)
    print(f"{path}: {len(calibration.joints)} joints and the gripper, calibration {calibration.hash}")
    if robot.set.get("calibration") != str(path):
        print(f"To use it, put into the robot's file: set: {{calibration: {path}}}")
    write_json(cfg.json, {"file": str(path), "hash": calibration.hash, "calibration": config.to_mapping(calibration)})
    return 0


class Arm:
    """The servos of an arm that is not calibrated yet. names: of its joints, and the gripper's."""

    def __init__(self, module: ModuleType, there: Any, ids: Sequence[int]) -> None:
        """module: the driver; there: its Config."""
        self.names = (*module.JOINTS, GRIPPER)
        if len(ids) != len(self.names):
            raise ConfigError(f"calibrate servos: want {len(self.names)} ids, for {', '.join(self.names)}, got {list(ids)}")
        self._module, self._config, self.ids = module, there, tuple(ids)
        self.bus: ServoBus = module.bus(there)
        self._all = (*self.ids, *dict(getattr(there, "shadows", ())))

    def open(self) -> Progress:
        """Meets every servo and returns a calibration that has only begun."""
        self.bus.open()
        named = dict(zip(self.ids, self.names, strict=True))
        named |= {servo: f"shadow {servo}" for servo in self._all if servo not in named}
        device = self._module.__name__.rsplit(".", 1)[1]
        versions = meet(self.bus, named, device, _SLOW_S, time.monotonic_ns)
        found = _servo_session.met(self.bus, self.ids, versions)
        return Progress(device, self.ids, adapter_serial(self._config.port), found)

    def let_go(self) -> None:
        """Switches the torque of every servo off; raises the first error after each of them was tried."""
        errors = []
        for servo in self._all:
            try:
                write_firmly(self.bus, servo, "torque", 0)
            except HwError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def ticks(self) -> tuple[int, ...]:
        """Returns what every servo reads, within a turn."""
        position = firmly(lambda: self.bus.sample(self.ids)).position
        return tuple(int(tick) % self.bus.ticks_per_turn for tick in position)

    def fitting(self, measured: ServoCalibration) -> ServoCalibration:
        """Returns the calibration that the driver takes: as it was measured or, where ranges cross an encoder's end, centred."""
        if not self._refusal(measured):
            return measured
        other = _servo_session.centred(measured, self.bus.homing_sign)
        if refusal := self._refusal(other):
            raise ConfigError(refusal)
        return other

    def check(self, path: Path) -> None:
        """Opens the arm as its driver does, with the new file; CalibrationMismatch where the servos are not those of the file."""
        driver = self._module.make(replace(self._config, calibration=str(path)))
        try:
            driver.connect()
        finally:
            driver.disconnect()

    def _refusal(self, calibration: ServoCalibration) -> str:
        """Returns why the driver does not take a calibration, "" where it does."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "servos.yaml"
            save(calibration, path)
            try:
                self._module.make(replace(self._config, calibration=str(path)))
            except ConfigError as error:
                return str(error)
        return ""


def measure(arm: Arm, progress: Progress, pose: Sequence[float], draft: Path) -> Progress:
    """Returns everything measured; each step is kept in `draft`, and done again until it makes sense. pose: [rad]."""
    turn, last = arm.bus.ticks_per_turn, len(arm.names) - 1
    if not progress.pose:
        shown = ", ".join(f"{name} {np.degrees(angle):g}" for name, angle in zip(arm.names, pose, strict=False))
        task = f"Bring every joint to its pose ({shown} deg), the {GRIPPER} shut, and hold it there."
        progress = replace(progress, pose=follow(arm, last, task)[-1])
        _servo_session.keep(progress, draft)
    while (k := len(progress.joints)) < last:
        task = f"{arm.names[k]}: move it to its end in the positive direction, then to its other end."
        recording = [row[k] for row in follow(arm, k, task)]
        try:
            joint = _servo_session.joint_of(arm.names[k], recording, progress.pose[k], pose[k], turn)
        except BadInput as error:
            config.warn(f"{error}. Once more.")
            continue
        progress = replace(progress, joints=(*progress.joints, joint))
        _servo_session.keep(progress, draft)
    while not progress.travel:
        recording = [row[last] for row in follow(arm, last, f"{GRIPPER}: open it as far as it goes.")]
        try:
            progress = replace(progress, travel=_servo_session.travel_of(GRIPPER, recording, progress.pose[last], turn))
        except BadInput as error:
            config.warn(f"{error}. Once more.")
            continue
        _servo_session.keep(progress, draft)
    while not progress.rest:
        rest = follow(arm, last, "Lay the arm down in its pose of rest.")[-1]
        try:
            _servo_session.check_rest(arm.names, progress, rest, turn)
        except BadInput as error:
            config.warn(f"{error}. Once more.")
            continue
        progress = replace(progress, rest=rest)
        _servo_session.keep(progress, draft)
    return progress


def follow(arm: Arm, shown: int, task: str) -> list[tuple[int, ...]]:
    """Returns what the servos read [ticks] while a person does something; shown: the one of which lowest and highest are seen."""
    rows = [arm.ticks()]
    turn, way = arm.bus.ticks_per_turn, [0]

    def look() -> str:
        rows.append(arm.ticks())
        way.append(way[-1] + shortest(rows[-1][shown] - rows[-2][shown], turn))
        now, low, high = (360 * ticks / turn for ticks in (way[-1], min(way), max(way)))
        return f"{arm.names[shown]:<14} {now:7.1f} deg   {low:7.1f} .. {high:.1f}"

    _guide.until_enter(task, look)
    rows.append(arm.ticks())
    return rows


def pose_of(cfg: Config, arm: Arm) -> tuple[float, ...]:
    """Returns the angles [rad] of the first pose; BadInput where there are not as many as joints."""
    joints = len(arm.names) - 1
    if cfg.pose and len(cfg.pose) != joints:
        raise BadInput(f"calibrate servos: pose: want {joints} angles, for {', '.join(arm.names[:-1])}, got {len(cfg.pose)}")
    return tuple(np.radians(cfg.pose or (0.0,) * joints).tolist())


def homing_said(measured: ServoCalibration, calibration: ServoCalibration) -> str:
    """Returns which homing offsets will be written, as the end of a sentence."""
    pairs = zip(measured.servos, calibration.servos, strict=True)
    changed = [(new.name, old.registers, new.registers) for old, new in pairs if old.registers != new.registers]
    if not changed:
        return ""
    return (
        ", and homing offsets to the servos ("
        + ", ".join(f"{name} {was['homing']} to {to['homing']}" for name, was, to in changed)
        + ")"
    )


def tell(calibration: ServoCalibration, before: ServoCalibration | None) -> None:
    """Prints a calibration, and how far its zeros are from those of the one it replaces."""
    olds: Mapping[str, Any] = {} if before is None else {joint.name: joint for joint in before.joints}
    print(f"{'joint':<16}{'id':>4}{'sign':>6}{'zero':>7}{'lower':>9}{'upper':>9}{'rest':>9}")
    for joint in calibration.joints:
        lower, upper, rest = np.degrees([joint.lower, joint.upper, joint.rest or 0.0])
        line = f"{joint.name:<16}{joint.id:>4}{joint.sign:>6}{joint.zero:>7}{lower:>9.1f}{upper:>9.1f}{rest:>9.1f} deg"
        old = olds.get(joint.name)
        if old is not None and old.registers == joint.registers:
            moved = 360 * shortest(joint.zero - old.zero, calibration.turn) / calibration.turn
            line += f"   zero was {moved:+.1f} deg from here" + (", TURNED ROUND" if old.sign != joint.sign else "")
        print(line)
    grip = calibration.gripper
    if grip is not None:
        print(f"{grip.name:<16}{grip.id:>4}   shut at {grip.closed}, open {grip.travel:+d} ticks on, {grip.opening_m:g} m")
