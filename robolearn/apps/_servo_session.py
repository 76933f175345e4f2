"""The calibration of a servo arm by hand, step by step: what was measured so far, and what follows from it; it asks nobody."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hardware._calibration import (
    MARGIN,
    ServoCalibration,
    ServoGripper,
    ServoJoint,
    homing_offset,
    measure_range,
    measure_zero,
    save,
    shortest,
)
from hardware._errors import HwError
from hardware._servo_bus import ServoBus, read_firmly, write_firmly
from robolearn import config
from robolearn.errors import BadInput, ConfigError

Array = np.ndarray
_LEAST = 0.5  # [rad] of a joint's range: less was not moved through it
_MOST = 2 * np.pi - 0.3  # [rad]: more is a turn, and then no tick is one angle
_OPEN = 0.03  # of a turn that a gripper moves at least
_STEP = 0.25  # of a turn between two reads: more, and the way round is not known
_SETTLED = 60  # [ticks] an arm that hangs free may move while homing offsets are written


@dataclass(frozen=True)
class Joint:
    """What one joint was moved through. sign: 1 or -1; zero: [ticks] at 0 rad; lower, upper: [rad]."""

    sign: int
    zero: int
    lower: float
    upper: float


@dataclass(frozen=True)
class Progress:
    """What was measured so far, kept beside the calibration while it is made.

    serial: of the adapter; found: of each servo, by id: model, firmware and the registers that its zero depends on; pose: [ticks]
    in the pose that was asked for, gripper shut; joints: in order; travel: [ticks] of the gripper, 0 before it was opened; rest:
    [ticks] in the pose of rest.
    """

    device: str
    ids: tuple[int, ...]
    serial: str
    found: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    pose: tuple[int, ...] = ()
    joints: tuple[Joint, ...] = ()
    travel: int = 0
    rest: tuple[int, ...] = ()


def keep(progress: Progress, path: Path) -> None:
    """Writes what was measured so far, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(config.to_yaml(progress))
    part.replace(path)


def go_on(path: Path, now: Progress) -> Progress:
    """Returns what was measured before an interruption; BadInput where other servos, or other settings of them, are there now."""
    before = config.from_mapping(Progress, config.read_yaml(path), where=str(path))
    if (before.device, before.ids, before.serial, before.found) != (now.device, now.ids, now.serial, now.found):
        raise BadInput(
            f"{path}: it was begun with other servos or homing offsets than are there now; begin anew with --overwrite"
        )
    return before


def joint_of(name: str, recording: Sequence[int], at_pose: int, pose: float, turn: int) -> Joint:
    """Returns what a joint's recording [ticks] says; it went to its positive end first and to its other end last.

    at_pose: [ticks] in the pose [rad]. BadInput, and it is to be done again, where it went through no range, through more than a
    turn, or faster than it was read.
    """
    ticks = _followed(name, recording, turn)
    way = np.unwrap(ticks.astype(float), period=turn) * (2 * np.pi / turn)
    span = float(np.ptp(way))
    if not _LEAST <= span <= _MOST:
        want = f"{np.degrees(_LEAST):.0f} to {np.degrees(_MOST):.0f} deg"
        raise BadInput(f"{name}: want a range of {want}, got {np.degrees(span):.1f}; move it from end to end, and no farther")
    high, low = (np.flatnonzero(near)[-1] for near in (way > way.max() - 0.1 * span, way < way.min() + 0.1 * span))
    sign = 1 if high < low else -1
    zero = measure_zero([at_pose], [pose], [sign], turn)[0]
    lower, upper = (round(float(end[0]), 4) for end in measure_range(ticks[:, None], [zero], [sign], turn))
    return Joint(sign, zero, lower, upper)


def travel_of(name: str, recording: Sequence[int], closed: int, turn: int) -> int:
    """Returns how far [ticks, either sign] a gripper was opened; BadInput where it was not, or faster than it was read."""
    way = np.unwrap(_followed(name, [closed, *recording], turn).astype(float), period=turn) - closed
    travel = round(float(way[np.argmax(np.abs(way))]))
    if abs(travel) < _OPEN * turn:
        raise BadInput(f"{name}: it moved by {360 * abs(travel) / turn:.1f} deg; open it as far as it goes")
    return travel


def check_rest(names: Sequence[str], progress: Progress, rest: Sequence[int], turn: int) -> None:
    """Raises BadInput where a joint lies beyond the range that it was moved through."""
    for name, joint, tick in zip(names, progress.joints, rest, strict=False):
        middle = (joint.lower + joint.upper) / 2
        angle = (
            middle
            + shortest(round(tick - joint.zero - joint.sign * middle * turn / (2 * np.pi)), turn) * 2 * np.pi / turn * joint.sign
        )
        if not joint.lower - MARGIN <= angle <= joint.upper + MARGIN:
            span = f"{np.degrees(joint.lower):.0f} to {np.degrees(joint.upper):.0f} deg"
            raise BadInput(f"rest: {name} reads {np.degrees(angle):.0f} deg, and was moved through {span}; lay it within")


def calibration_of(progress: Progress, names: Sequence[str], opening_m: float, turn: int) -> ServoCalibration:
    """Returns the calibration that was measured; ConfigError where it makes no sense. names: of the joints, and the gripper's."""
    said = [progress.found[str(servo)] for servo in progress.ids]
    known = [{"model": one["model"], "firmware": one["firmware"]} for one in said]
    registers = [{name: value for name, value in one.items() if name not in ("model", "firmware")} for one in said]
    joints = tuple(
        ServoJoint(name, servo, joint.sign, joint.zero, joint.lower, joint.upper, registers=there, **who)
        for name, servo, joint, there, who in zip(names, progress.ids, progress.joints, registers, known, strict=False)
    )
    closed = progress.pose[-1] % turn
    grip = ServoGripper(names[-1], progress.ids[-1], closed, progress.travel, opening_m, registers=registers[-1], **known[-1])
    calibration = ServoCalibration(progress.device, joints, grip, progress.serial, turn)
    rest = calibration.radians(np.array(progress.rest[:-1]))
    rested = tuple(replace(joint, rest=round(float(angle), 4)) for joint, angle in zip(joints, rest, strict=True))
    return replace(calibration, joints=rested)


def centred(calibration: ServoCalibration, homing_sign: int) -> ServoCalibration:
    """Returns the same calibration for homing offsets that put the middle of every range in the middle of the encoder's turn."""
    turn = calibration.turn
    joints = tuple(
        replace(joint, zero=(joint.zero + shift) % turn, registers={**joint.registers, "homing": homing})
        for joint in calibration.joints
        for homing, shift in [
            _homing(joint, joint.zero + joint.sign * (joint.lower + joint.upper) * turn / (4 * np.pi), turn, homing_sign)
        ]
    )
    grip = calibration.gripper
    if grip is not None:
        homing, shift = _homing(grip, grip.closed + grip.travel / 2, turn, homing_sign)
        grip = replace(grip, closed=(grip.closed + shift) % turn, registers={**grip.registers, "homing": homing})
    return replace(calibration, joints=joints, gripper=grip)


def commit(bus: ServoBus, before: ServoCalibration, after: ServoCalibration, path: Path) -> None:
    """Writes homing offsets that differ and then the file: all of it or, where something fails, nothing.

    HwError where a servo takes no offset, BadInput where it reads otherwise afterwards than it should.
    """
    ids = [servo.id for servo in after.servos]
    changed = [
        (new.id, old.registers["homing"], new.registers["homing"])
        for old, new in zip(before.servos, after.servos, strict=True)
        if new.registers["homing"] != old.registers["homing"]
    ]
    was, written = bus.sample(ids).position, []
    try:
        for servo, old, new in changed:
            written.append((servo, old))
            write_firmly(bus, servo, "homing", new)
        shift = {servo: bus.homing_sign * (new - old) for servo, old, new in changed}
        for servo, there, now in zip(ids, was.tolist(), bus.sample(ids).position.tolist(), strict=True):
            if abs(shortest(now - there - shift.get(servo, 0), after.turn)) > _SETTLED:
                raise BadInput(
                    f"servo {servo}: with its new homing offset it reads {now}, want {there + shift.get(servo, 0)}; try again"
                )
        path.parent.mkdir(parents=True, exist_ok=True)
        save(after, path)
    except BaseException:
        for servo, old in written:
            with contextlib.suppress(HwError):
                write_firmly(bus, servo, "homing", old)
        raise


def met(bus: ServoBus, ids: Sequence[int], versions: Mapping[int, tuple[int, int]]) -> dict[str, dict[str, int]]:
    """Returns what each servo says of itself: model, firmware, and the registers that its zero depends on."""
    return {
        str(servo): {"model": versions[servo][0], "firmware": versions[servo][1]}
        | {name: read_firmly(bus, servo, name) for name in bus.zero_registers}
        for servo in ids
    }


def _followed(name: str, recording: Sequence[int], turn: int) -> Array:
    """Returns a recording (steps,) [ticks] in which every step is known; BadInput where one is too large for that."""
    ticks = np.asarray(recording)
    apart = max((abs(shortest(int(step), turn)) for step in np.diff(ticks)), default=0)
    if apart > _STEP * turn:
        raise BadInput(f"{name}: it went {360 * apart / turn:.0f} deg between two reads, which way is not known; move it slower")
    return ticks


def _homing(servo: ServoJoint | ServoGripper, middle: float, turn: int, sign: int) -> tuple[int, int]:
    """Returns the homing offset with which a servo reads half a turn where it reads `middle`, and by how much that moves it."""
    if "homing" not in servo.registers:
        raise ConfigError(f"{servo.name}: its servo has no homing offset")
    old = servo.registers["homing"]
    homing = homing_offset(round(middle) - sign * old, turn // 2, sign, turn)
    return homing, sign * (homing - old)
