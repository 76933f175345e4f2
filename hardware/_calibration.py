"""Which tick of which encoder is which angle of which joint: the calibration of a servo arm, one versioned YAML file.

    q = sign (ticks - zero) 2 pi / turn, on the shortest arc about the middle of the joint's range

An encoder knows its place within one turn, so a joint's range must be less than a turn. Then every count of ticks is one angle,
wherever the encoder's own zero lies and however many whole turns the servo has counted since it was switched on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from hardware._errors import BadCommand, CalibrationMismatch
from robolearn import config
from robolearn.errors import ConfigError

FORMAT = 1
MARGIN = 0.1  # [rad] a joint may be found beyond its calibrated range before its zero counts as moved
_SPAN = (
    0.1,
    2 * np.pi - 2 * MARGIN,
)  # [rad] of a joint's range: less is no joint, more does not fit into a turn with the margins
_TRAVEL = 40  # [ticks] of a gripper at least


@dataclass(frozen=True)
class ServoJoint:
    """A joint and its servo. sign: 1 or -1, whether the joint turns as the servo counts; zero: tick (0 to a turn) at angle 0.

    lower, upper: hard limits [rad]; model, firmware: as the servo says, 0 if not to be compared; registers: those that the zero
    depends on (homing offset, direction), by name; rest: angle [rad] in the pose of rest, None if not known.
    """

    name: str
    id: int
    sign: int
    zero: int
    lower: float
    upper: float
    model: int = 0
    firmware: int = 0
    registers: Mapping[str, int] = field(default_factory=dict)
    rest: float | None = None


@dataclass(frozen=True)
class ServoGripper:
    """A gripper and its servo. closed: tick (0 to a turn) when closed; travel: ticks from there to open, of either sign.

    opening_m: widest opening [m]; the rest as in `ServoJoint`.
    """

    name: str
    id: int
    closed: int
    travel: int
    opening_m: float
    model: int = 0
    firmware: int = 0
    registers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What a servo on the bus says of itself: model and firmware, and the registers that a calibration asks for."""

    model: int
    firmware: int
    registers: Mapping[str, int]


@dataclass(frozen=True)
class ServoCalibration:
    """The calibration of one arm. device: its kind; joints: from the base on; serial: of the adapter, "" if not to be compared.

    ConfigError says which joint does not make sense, and why.
    """

    device: str
    joints: tuple[ServoJoint, ...]
    gripper: ServoGripper | None = None
    serial: str = ""
    turn: int = 4096
    format: int = FORMAT

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise ConfigError(f"calibration of {self.device}: {problem}")

    @property
    def hash(self) -> str:
        """Names this calibration in a run log: the same for equal content only."""
        return hashlib.sha256(config.to_yaml(self).encode()).hexdigest()[:16]

    @property
    def servos(self) -> tuple[ServoJoint | ServoGripper, ...]:
        """All servos, the gripper's last."""
        return self.joints + ((self.gripper,) if self.gripper else ())

    @cached_property
    def lower(self) -> np.ndarray:
        """Lower limits (n,) [rad]."""
        return np.array([joint.lower for joint in self.joints])

    @cached_property
    def upper(self) -> np.ndarray:
        """Upper limits (n,) [rad]."""
        return np.array([joint.upper for joint in self.joints])

    @cached_property
    def single_turn(self) -> np.ndarray:
        """(n,) bool: the joint's range, margins included, does not cross the encoder's end."""
        ends = np.stack([self._nominal(self.lower - MARGIN), self._nominal(self.upper + MARGIN)])
        return np.asarray(((ends >= 0) & (ends <= self.turn - 1)).all(axis=0))

    def radians(self, ticks: np.ndarray) -> np.ndarray:
        """Returns the angles (n,) [rad] of encoder counts (n,), whatever whole turns are in them."""
        q = self._sign * (np.asarray(ticks) - self._zero) * (2 * np.pi / self.turn)
        middle = (self.lower + self.upper) / 2
        return q - 2 * np.pi * np.round((q - middle) / (2 * np.pi))

    def ticks(self, q: np.ndarray, near: np.ndarray) -> np.ndarray:
        """Returns the counts (n,) of angles (n,) [rad], in the whole turn that the measured counts `near` (n,) are in.

        BadCommand for what is not finite.
        """
        q = np.asarray(q, dtype=float)
        if q.shape != self._zero.shape or not np.isfinite(q).all():
            shown = np.array2string(q, precision=3, threshold=8)
            raise BadCommand(self.device, f"goal: want {len(self.joints)} finite angles [rad], got {shown}")
        turns = np.round((near - self._nominal(self.radians(near))) / self.turn) * self.turn
        return np.rint(self._nominal(q) + turns).astype(np.int64)

    def servo_limits(self, joint: int) -> tuple[int, int]:
        """Returns the range [ticks] that the servo of a `single_turn` joint may keep by itself: the calibrated, and a margin."""
        ends = self._nominal(np.stack([self.lower - MARGIN, self.upper + MARGIN]))[:, joint]
        return int(np.ceil(ends.min())), int(np.floor(ends.max()))

    def aperture(self, ticks: int) -> float:
        """Returns 0 closed .. 1 open for the count of the gripper's servo; NaN without a gripper."""
        if self.gripper is None:
            return float("nan")
        way = ticks - self.gripper.closed
        way -= self.turn * round((way - self.gripper.travel / 2) / self.turn)
        return min(max(way / self.gripper.travel, 0.0), 1.0)

    def gripper_ticks(self, aperture: float, near: int) -> int:
        """Returns the count of the gripper's servo for an aperture, in the whole turn `near` is in; BadCommand beyond 0..1."""
        if self.gripper is None or not 0.0 <= aperture <= 1.0:
            wanted = "an aperture of 0 to 1" if self.gripper else "no aperture: there is no gripper"
            raise BadCommand(self.device, f"goal: want {wanted}, got {aperture}")
        middle = self.gripper.closed + self.gripper.travel / 2
        whole = self.turn * round((near - middle) / self.turn)
        return round(self.gripper.closed + aperture * self.gripper.travel) + whole

    def compare(self, found: Mapping[int, Found], serial: str = "") -> None:
        """Raises CalibrationMismatch at the first thing in which the servos on the bus (by id) are not those of this file."""
        if self.serial and serial and serial != self.serial:
            raise self._mismatch(f"want adapter {self.serial}, got {serial}; name the file of this arm")
        for servo in self.servos:
            there = found[servo.id]
            for what, want, got in (("model", servo.model, there.model), ("firmware", servo.firmware, there.firmware)):
                if want and want != got:
                    raise self._mismatch(f"servo {servo.id} ({servo.name}) has {what} {got}, the file {want}; calibrate again")
            for name, want in servo.registers.items():
                if there.registers[name] != want:
                    got = there.registers[name]
                    raise self._mismatch(f"servo {servo.id} ({servo.name}) has {name} {got}, the file {want}; calibrate again")

    def check_pose(self, q: np.ndarray, rest_tolerance: float = 0.0) -> None:
        """Raises CalibrationMismatch where a measured joint lies beyond its range and margin, or away from its pose of rest.

        rest_tolerance: [rad], 0 leaves the pose of rest alone.
        """
        for joint, angle in zip(self.joints, q, strict=True):
            if not joint.lower - MARGIN <= angle <= joint.upper + MARGIN:
                span = f"{joint.lower:.2f} to {joint.upper:.2f} rad"
                raise self._mismatch(f"{joint.name} reads {angle:.2f} rad, beyond its range of {span}; its zero has moved")
            if rest_tolerance and joint.rest is not None and abs(angle - joint.rest) > rest_tolerance:
                reads = f"{joint.name} reads {angle:.2f} rad at rest, the file says {joint.rest:.2f}"
                raise self._mismatch(f"{reads}; put the arm to rest, or calibrate again")

    def _nominal(self, q: np.ndarray) -> np.ndarray:
        return self._zero + self._sign * q * (self.turn / (2 * np.pi))

    @cached_property
    def _zero(self) -> np.ndarray:
        return np.array([joint.zero for joint in self.joints], dtype=float)

    @cached_property
    def _sign(self) -> np.ndarray:
        return np.array([joint.sign for joint in self.joints], dtype=float)

    def _mismatch(self, what: str) -> CalibrationMismatch:
        return CalibrationMismatch(self.device, what, phase="calibration")


def load(path: Path) -> ServoCalibration:
    """Returns the calibration in a YAML file; ConfigError names file and field."""
    try:
        return config.from_mapping(ServoCalibration, config.read_yaml(path), where="calibration")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such calibration; make one with robolearn calibrate servos") from None
    except ConfigError as error:
        raise ConfigError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def save(calibration: ServoCalibration, path: Path) -> None:
    """Writes a calibration, whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(config.to_yaml(calibration))
    part.replace(path)


def shortest(ticks: int, turn: int = 4096) -> int:
    """Returns the same place of the encoder as the nearest count to 0: -turn/2 to turn/2 - 1."""
    return (ticks + turn // 2) % turn - turn // 2


def homing_offset(actual: int, wanted: int, sign: int, turn: int = 4096, limit: int = 2047) -> int:
    """Returns the homing offset with which a servo that reads `actual` without one reads `wanted`, by the shortest arc.

    sign: 1 where a servo adds its offset, -1 where it subtracts it (`ServoBus.homing_sign`); limit: the largest offset that its
    register holds; half a turn exactly comes out one tick short of it.
    """
    return max(-limit, min(limit, sign * shortest(wanted - actual, turn)))


def measure_zero(ticks: Sequence[int], pose: Sequence[float], signs: Sequence[int], turn: int = 4096) -> tuple[int, ...]:
    """Returns the zeros of joints that read `ticks` while they are held in the pose `pose` [rad]."""
    zeros = np.asarray(ticks) - np.asarray(signs) * np.asarray(pose, dtype=float) * (turn / (2 * np.pi))
    return tuple(int(zero) % turn for zero in np.rint(zeros))


def measure_range(
    ticks: np.ndarray, zeros: Sequence[int], signs: Sequence[int], turn: int = 4096
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lowest and highest angles (n,) [rad] in a recording (steps, n) of joints that were moved through their ranges.

    The recording begins within half a turn of the zeros; from there it is followed over the encoder's end.
    """
    way = np.unwrap(np.asarray(ticks, dtype=float), period=turn, axis=0) - np.asarray(zeros)
    way -= turn * np.round(way[:1] / turn)
    angles = np.asarray(signs) * way * (2 * np.pi / turn)
    return angles.min(axis=0), angles.max(axis=0)


def _problems(calibration: ServoCalibration) -> Iterator[str]:
    """Yields what makes no sense."""
    if calibration.format != FORMAT:
        yield f"format {calibration.format} is not known; this version reads {FORMAT}"
    if not calibration.joints:
        yield "want at least one joint"
    names, ids = [servo.name for servo in calibration.servos], [servo.id for servo in calibration.servos]
    if len(set(names)) < len(names) or len(set(ids)) < len(ids):
        yield f"want every name and id once, got {', '.join(f'{n} {i}' for n, i in zip(names, ids, strict=True))}"
    for servo in calibration.servos:
        if not 0 <= servo.id <= 252:
            yield f"{servo.name}: want an id of 0 to 252, got {servo.id}"
        if any(type(value) is not int for value in servo.registers.values()):
            yield f"{servo.name}: want whole numbers in registers, got {dict(servo.registers)}"
    for joint in calibration.joints:
        yield from _joint_problems(joint, calibration.turn)
    if calibration.gripper is not None:
        yield from _gripper_problems(calibration.gripper, calibration.turn)


def _joint_problems(joint: ServoJoint, turn: int) -> Iterator[str]:
    if joint.sign not in (1, -1):
        yield f"{joint.name}: want a sign of 1 or -1, got {joint.sign}"
    if not 0 <= joint.zero < turn:
        yield f"{joint.name}: want a zero of 0 to {turn - 1} ticks, got {joint.zero}"
    span = joint.upper - joint.lower
    if not _SPAN[0] <= span <= _SPAN[1]:  # NaN is not within either
        yield f"{joint.name}: want a range of {_SPAN[0]:.1f} to {_SPAN[1]:.2f} rad, got {joint.lower:g} to {joint.upper:g}"
    if abs(joint.lower + joint.upper) > 4 * np.pi:
        yield f"{joint.name}: want a range within a turn of its zero, got {joint.lower:g} to {joint.upper:g} rad"
    if joint.rest is not None and not joint.lower - MARGIN <= joint.rest <= joint.upper + MARGIN:
        yield f"{joint.name}: want rest within {joint.lower:g} to {joint.upper:g} rad, got {joint.rest:g}"


def _gripper_problems(gripper: ServoGripper, turn: int) -> Iterator[str]:
    if not 0 <= gripper.closed < turn:
        yield f"{gripper.name}: want closed at 0 to {turn - 1} ticks, got {gripper.closed}"
    if not _TRAVEL <= abs(gripper.travel) <= turn - 2 * _TRAVEL:
        yield f"{gripper.name}: want a travel of {_TRAVEL} to {turn - 2 * _TRAVEL} ticks either way, got {gripper.travel}"
    if not gripper.opening_m > 0:
        yield f"{gripper.name}: want an opening above 0 m, got {gripper.opening_m:g}"
