"""What each key of a set is to the check: picture, clock, joint, position, gripper, or something else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robolearn.core import ArraySpec
from robolearn.data.images import image_keys
from robolearn.data.store import EpisodeSet

BOOKS = ("flags", "source", "step_success", "step_score", "late_ms", "sim_state", "action_filtered", "action_sent")
_TIME = re.compile(r"(^|[_/.])(timestamps?|stamp|time|t_ns|t)$")
_SCALES = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
_JOINT = re.compile(r"joint|(^|[_/.])q(pos)?(\d|$|[_/.])")
_HAND = re.compile(
    r"(^|[_/.\d])(eef|ee|tcp|hand|tool|wrist|flange|agent|arm|gripper)([_/.]?(pos|pose|position|xyz)|[_/.][xyz])?$"
)
_NOT_PLACE = re.compile(r"vel|speed|torque|effort|force|current|wrench|accel|_sin|_cos|sin$|cos$|quat|rot|error")
_GRIP = re.compile(r"grip|finger|jaw")
_AXIS = re.compile(r"(^|[_/.])[xyz]$")
_ANGLE = re.compile(r"angle|yaw|pitch|roll|theta")
_OTHERS = re.compile(r"obj|block|cube|goal|target|keypoint|contact|reward|done|stage|success|score|index|_age|^age")
_MOST_COLUMNS = 32  # a wider key is no body state


@dataclass(frozen=True)
class Clock:
    """A key that holds time: kind is monotonic, wall, sim, device, or stamp (of another program); scale: its unit in seconds."""

    key: str
    kind: str
    scale: float


@dataclass(frozen=True)
class Group:
    """Columns of one key that move as one: kind "joint" (each column for itself) or "position" (one point in space)."""

    key: str
    columns: tuple[int, ...]
    kind: str
    names: tuple[str, ...]
    angular: tuple[bool, ...]
    unit: str = ""

    @property
    def series(self) -> tuple[str, ...]:
        """Names of the motions in it: one per joint, one for a position."""
        if self.kind == "position":
            return (f"{self.key}[{','.join(self.names)}]" if any(self.names) else self.key,)
        return tuple(f"{self.key}[{name or column}]" for name, column in zip(self.names, self.columns, strict=True))


@dataclass(frozen=True)
class Roles:
    """The keys of a set by what they are; vectors: all that is numeric and no picture; body: what a person or policy moves."""

    images: tuple[str, ...]
    vectors: tuple[str, ...]
    clocks: tuple[Clock, ...]
    body: tuple[Group, ...]
    grippers: tuple[tuple[str, int], ...]
    named: bool  # whether the body was known by its names, or is all there is

    def clock(self, kind: str) -> Clock | None:
        """Returns the first clock of a kind."""
        return next((clock for clock in self.clocks if clock.kind == kind), None)


def is_time(key: str) -> bool:
    """Returns whether a key holds time by its name."""
    return key.startswith("t_") or bool(_TIME.search(key))


def is_observation(key: str) -> bool:
    """Returns whether a key may be something the body shows: no action, no clock, no bookkeeping."""
    return not (key.startswith("action") or is_time(key) or key in BOOKS)


def roles_of(dataset: EpisodeSet, first_rows: Mapping[str, np.ndarray]) -> Roles:
    """Returns what the keys of a set are; `first_rows` (some rows of each key that is no picture) tell the unit of its clocks."""
    images = image_keys(dataset)
    vectors = tuple(key for key, rows in first_rows.items() if rows.dtype.kind in "fiub")
    clocks = tuple(_clock(dataset, key, first_rows[key]) for key in vectors if is_time(key) and first_rows[key].shape[1] == 1)
    body, grippers, rest = [], [], []
    for key in vectors:
        groups, grips = _groups(key, dataset.keys[key]) if is_observation(key) or key == "action" else ([], [])
        grippers += [(key, column) for column in grips]
        if key != "action" and first_rows[key].dtype.kind == "f":
            body += groups
            rest += _everything(key, dataset.keys[key], grips) if is_observation(key) else []
    return Roles(images, vectors, clocks, tuple(body or rest), tuple(grippers), bool(body))


def _clock(dataset: EpisodeSet, key: str, rows: np.ndarray) -> Clock:
    kind = {"t_monotonic": "monotonic", "t_wall": "wall", "t_sim": "sim"}.get(
        key, "device" if key.startswith("t_dev_") else "stamp"
    )
    unit = dataset.keys[key].unit
    if unit in _SCALES:
        return Clock(key, kind, _SCALES[unit])
    if key.startswith("t_") and rows.dtype.kind in "iu":
        return Clock(key, kind, 1e-9)
    steps = np.abs(np.diff(rows[:, 0].astype(np.float64)))
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    if rows.dtype.kind == "f" and (not step or step < 5):
        return Clock(key, kind, 1.0)
    wanted = dataset.hz or 20.0
    return Clock(key, kind, min(_SCALES.values(), key=lambda scale: abs(np.log10(max(step, 1e-12) * scale * wanted))))


def _groups(key: str, spec: ArraySpec) -> tuple[list[Group], list[int]]:
    """Returns the joints and positions of one key as groups, and its gripper columns."""
    width = int(np.prod(spec.shape, dtype=int))
    names = spec.names if len(spec.names) == width else ("",) * width
    if width > _MOST_COLUMNS or not width:
        return [], []
    if _GRIP.search(key):
        return [], list(range(width))
    grips = [c for c, name in enumerate(names) if _GRIP.search(name)]
    free = [c for c in range(width) if c not in grips]
    if _NOT_PLACE.search(key) or _OTHERS.search(key) or key == "action":
        return [], grips
    if _JOINT.search(key):
        return [_group(key, spec, names, free, "joint")] if free else [], grips
    if _HAND.search(key):
        place = [c for c in free if _AXIS.search(names[c])] or free[:3]
        return [_group(key, spec, names, place, "position")], grips
    mine = [c for c in free if _JOINT.search(names[c]) and not _NOT_PLACE.search(names[c])]
    found = [_group(key, spec, names, mine, "joint")] if mine else []
    points: dict[str, list[int]] = {}
    for c in free:
        if _HAND.search(names[c]) and _AXIS.search(names[c]):
            points.setdefault(names[c][:-1], []).append(c)
    return found + [_group(key, spec, names, columns, "position") for columns in points.values()], grips


def _everything(key: str, spec: ArraySpec, grips: list[int]) -> list[Group]:
    """Returns all columns of a key as if each were a joint: for sets whose names say nothing."""
    width = int(np.prod(spec.shape, dtype=int))
    names = spec.names if len(spec.names) == width else ("",) * width
    columns = [c for c in range(width) if c not in grips]
    if width > _MOST_COLUMNS or not columns or _OTHERS.search(key) or _NOT_PLACE.search(key):
        return []
    return [_group(key, spec, names, columns, "joint")]


def _group(key: str, spec: ArraySpec, names: tuple[str, ...], columns: list[int], kind: str) -> Group:
    mine = tuple(names[c] for c in columns)
    angular = tuple(kind == "joint" and (spec.unit.split(",")[0].strip() == "rad" or bool(_ANGLE.search(name))) for name in mine)
    return Group(key, tuple(columns), kind, mine, angular, spec.unit)
