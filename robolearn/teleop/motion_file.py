"""Motion-capture files as streams of limbs: BVH with the usual skeletons, and CSV.

    times, right, left = limbs_from_file("dance.bvh")            # times (n,) [s], two tuples of n limbs, torso frame

CSV: a head line with `time` [s] and, for each point, NAME_x, NAME_y, NAME_z [m] in one right-handed frame. Names as in
`landmarks` (right_shoulder, right_elbow, right_wrist, ..., below; right_index and right_pinky if there are any).
BVH: joints named as in CMU, LAFAN1 or Mixamo files (LeftArm, LeftForeArm, LeftHand, Hips). Lengths are in the file's own
unit (`unit_m`: centimetres unless said). A BVH hand points along its bone; its thumb is to the front in the rest pose, as in a
T-pose with palms down. A skeleton whose zero pose is another one gives a hand that is turned about its axis by a constant.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from robolearn import geometry
from robolearn.errors import BadInput
from robolearn.teleop import landmarks
from robolearn.teleop.human import Limb

Array = np.ndarray
BVH_NAMES = {
    "right_shoulder": ("RightArm", "RightUpArm", "RightUpperArm", "R_Shoulder"),
    "right_elbow": ("RightForeArm", "RightLowArm", "RightLowerArm", "R_Elbow"),
    "right_wrist": ("RightHand", "R_Wrist"),
    "left_shoulder": ("LeftArm", "LeftUpArm", "LeftUpperArm", "L_Shoulder"),
    "left_elbow": ("LeftForeArm", "LeftLowArm", "LeftLowerArm", "L_Elbow"),
    "left_wrist": ("LeftHand", "L_Wrist"),
    "below": ("Hips", "Pelvis", "Hip"),
}


@dataclass
class Joint:
    """One joint of a BVH skeleton: offset (3,) from its parent, the tip (3,) of its bone, its channels and their first column."""

    name: str
    parent: int
    offset: Array = field(default_factory=lambda: np.zeros(3))
    tip: Array | None = None
    channels: tuple[str, ...] = ()
    column: int = 0


@dataclass(frozen=True)
class Motion:
    """Joints, parents first; times (n,) [s]; world_from_joint position (n, joint, 3) [m] and rotation (n, joint, 3, 3)."""

    joints: tuple[Joint, ...]
    times: Array
    position: Array
    rotation: Array


def limbs_from_file(path: str | Path, unit_m: float = 0.01) -> tuple[Array, tuple[Limb, ...], tuple[Limb, ...]]:
    """Returns times (n,) [s] and the right and left limbs (n each) of a .bvh or .csv file; BadInput says what is wrong in it."""
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path}: no such motion file")
    if path.suffix.lower() == ".csv":
        return _limbs_from_csv(path)
    if path.suffix.lower() == ".bvh":
        return _limbs_from_bvh(read_bvh(path, unit_m), str(path))
    raise BadInput(f"{path}: want a motion file that ends in .bvh or .csv, got '{path.suffix}'")


def _limbs_from_csv(path: Path) -> tuple[Array, tuple[Limb, ...], tuple[Limb, ...]]:
    with path.open(newline="") as file:
        reader = csv.reader(file)
        head = [name.strip() for name in next(reader, [])]
        rows = [row for row in reader if row]
    if "time" not in head:
        raise BadInput(f"{path}: want a column 'time' [s], got {', '.join(head) or 'an empty file'}")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(head):
            raise BadInput(f"{path} line {number}: want {len(head)} values, got {len(row)}")
    try:
        table = np.array(rows, dtype=float).reshape(-1, len(head))
    except ValueError as error:
        raise BadInput(f"{path}: want numbers below the head line ({error})") from error
    names = [name[:-2] for name in head if name.endswith("_x")]
    for name in names:
        missing = [f"{name}_{axis}" for axis in "yz" if f"{name}_{axis}" not in head]
        if missing:
            raise BadInput(f"{path}: has {name}_x but no {missing[0]}")
    places = {name: table[:, [head.index(f"{name}_{axis}") for axis in "xyz"]] for name in names}
    frames = [{name: place[k] for name, place in places.items()} for k in range(len(table))]
    right = tuple(landmarks.limb(frame, "right") for frame in frames)
    left = tuple(landmarks.limb(frame, "left") for frame in frames)
    return table[:, head.index("time")], right, left


def read_bvh(path: str | Path, unit_m: float = 0.01) -> Motion:
    """Returns the skeleton and its motion by forward kinematics, lengths times `unit_m`; BadInput where it is no BVH."""
    path = Path(path)
    words = path.read_text(errors="replace").split()
    if not words or words[0] != "HIERARCHY" or "MOTION" not in words:
        raise BadInput(f"{path}: want a BVH file with HIERARCHY and MOTION, got '{' '.join(words[:3])}'")
    split = words.index("MOTION")
    try:
        joints = _skeleton(words[1:split], unit_m)
        count, dt = int(words[split + 2]), float(words[split + 5])
        values = np.array(words[split + 6 :], dtype=float)
    except (ValueError, IndexError, StopIteration) as error:
        raise BadInput(f"{path}: this BVH file ends early or holds a word where a number belongs ({error})") from error
    width = sum(len(joint.channels) for joint in joints)
    if values.size != count * width:
        raise BadInput(f"{path}: want {count} frames of {width} channels, got {values.size} numbers")
    position, rotation = _forward(joints, values.reshape(count, width), unit_m)
    return Motion(tuple(joints), dt * np.arange(count), position, rotation)


def _skeleton(words: list[str], unit_m: float) -> list[Joint]:
    """Returns the joints of the words between HIERARCHY and MOTION, parents first."""
    joints: list[Joint] = []
    open_joints: list[int] = []  # -1 for the end site
    columns, stream = 0, iter(words)
    for word in stream:
        if word in ("ROOT", "JOINT"):
            joints.append(Joint(next(stream).split(":")[-1], open_joints[-1] if open_joints else -1, column=columns))
            pending = len(joints) - 1
        elif word == "End":
            next(stream)
            pending = -1
        elif word == "{":
            open_joints.append(pending)
        elif word == "}":
            open_joints.pop()
        elif word == "OFFSET":
            offset = unit_m * np.array([float(next(stream)) for _ in range(3)])
            if open_joints[-1] >= 0:
                joints[open_joints[-1]].offset = offset
            else:
                joints[open_joints[-2]].tip = offset
        elif word == "CHANNELS":
            joint = joints[open_joints[-1]]
            joint.channels = tuple(next(stream) for _ in range(int(next(stream))))
            columns += len(joint.channels)
        else:
            raise ValueError(f"unknown word '{word}'")
    return joints


def _forward(joints: list[Joint], values: Array, unit_m: float) -> tuple[Array, Array]:
    """Returns position (n, joint, 3) [m] and rotation (n, joint, 3, 3) of the joints in the file's world."""
    count = len(values)
    position, rotation = np.zeros((count, len(joints), 3)), np.zeros((count, len(joints), 3, 3))
    for index, joint in enumerate(joints):
        here = np.tile(joint.offset, (count, 1))
        turn = np.tile(np.eye(3), (count, 1, 1))
        for place, channel in enumerate(joint.channels, start=joint.column):
            axis = "XYZ".index(channel[0])
            if channel.endswith("position"):
                # A position channel stands for the offset, as every file with six channels a joint means it.
                here[:, axis] = unit_m * values[:, place]
            else:
                turn = turn @ geometry.matrix_from_rotvec(np.deg2rad(values[:, place, None]) * np.eye(3)[axis])
        if joint.parent >= 0:
            parent = rotation[:, joint.parent]
            position[:, index] = position[:, joint.parent] + np.einsum("nij,nj->ni", parent, here)
            rotation[:, index] = parent @ turn
        else:
            position[:, index], rotation[:, index] = here, turn
    return position, rotation


def _limbs_from_bvh(motion: Motion, where: str) -> tuple[Array, tuple[Limb, ...], tuple[Limb, ...]]:
    names = [joint.name for joint in motion.joints]
    found: dict[str, int] = {}
    for part, known in BVH_NAMES.items():
        match = [names.index(name) for name in known if name in names]
        if not match:
            raise BadInput(f"{where}: no joint for {part} (want one of {', '.join(known)}; have {', '.join(names)})")
        found[part] = match[0]
    joints = list(motion.joints)
    width = sum(len(joint.channels) for joint in joints)
    rest, _ = _forward([Joint(j.name, j.parent, j.offset) for j in joints], np.zeros((1, width)), 1.0)
    torso_of_rest = geometry.torso_frame(*(rest[0, found[part]] for part in ("right_shoulder", "left_shoulder", "below")))
    sides: list[tuple[Limb, ...]] = []
    for side in ("right", "left"):
        wrist, elbow = found[f"{side}_wrist"], found[f"{side}_elbow"]
        bone = _bone(joints, wrist, rest[0, wrist] - rest[0, elbow])
        forward = torso_of_rest[:3, 0]  # where the thumb is in a T-pose with palms down
        if not np.linalg.norm(np.cross(bone, forward)) > 0.05:  # also where the zero pose has no torso frame
            forward = np.eye(3)[np.argmin(np.abs(bone))]
        limbs = []
        for k in range(len(motion.times)):
            points = {part: motion.position[k, index] for part, index in found.items()}
            turn = motion.rotation[k, wrist]
            tip = points[f"{side}_wrist"] + 0.1 * turn @ bone
            points[f"{side}_index"], points[f"{side}_pinky"] = tip + 0.03 * turn @ forward, tip - 0.03 * turn @ forward
            limbs.append(landmarks.limb(points, "right" if side == "right" else "left"))
        sides.append(tuple(limbs))
    return motion.times, sides[0], sides[1]


def _bone(joints: list[Joint], wrist: int, forearm: Array) -> Array:
    """Returns the unit direction (3,) of the hand in its own joint: to its tip or first finger, else on from the forearm."""
    fingers = [joint.offset for joint in joints if joint.parent == wrist]
    tip = joints[wrist].tip
    if tip is None:
        tip = np.mean(fingers, axis=0) if fingers else forearm
    if np.linalg.norm(tip) < 1e-6:
        tip = forearm
    return np.asarray(tip / np.linalg.norm(tip))
