"""Limits of joints, from where a set tells them: its attribute `joint_limits`, or the MuJoCo model of its fact `model_xml`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolearn.data import _zarr
from robolearn.data._check_roles import Group
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError

_ARM = re.compile(
    r"^(robot\d*_)?(?!.*(grip|finger|obj|cube|door|peg|nut|latch|hinge)).*(joint|_j)_?\d+$|^(robot|panda|ur5e?|arm)"
)
_SITE = re.compile(r"<site\b[^>]*?/>")  # not needed for joints, and some robosuite versions wrote places that do not parse
_HINGE = 3  # mujoco.mjtJoint.mjJNT_HINGE
_SLIDE = 2
_FIRST = 8  # episodes: models are long, and the arm is the same in all
_NO_LIMITS = "joint limits: not checked, no limits known (attribute joint_limits, or fact model_xml)"


@dataclass(frozen=True)
class Range:
    """Lowest and highest allowed value of some numbers, (n,) each; infinite where there is no limit."""

    low: np.ndarray
    high: np.ndarray


def joints_of_states(dataset: EpisodeSet, model: Any) -> tuple[Group | None, Range | None]:
    """Returns the arm's joints inside `sim_state` ([time, qpos, qvel] of the fact `model_xml`) and their limits, where known."""
    if model is None or "sim_state" not in dataset.keys:
        return None, None
    if dataset.keys["sim_state"].shape != (1 + model.nq + model.nv,):
        return None, None
    arm = _arm(model)
    if not arm:
        return None, None
    columns = tuple(1 + int(model.jnt_qposadr[j]) for j in arm)
    names = tuple(model.joint(j).name for j in arm)
    turns = tuple(int(model.jnt_type[j]) == _HINGE for j in arm)
    return Group("sim_state", columns, "joint", names, turns, "rad"), _range(model, arm)


def ranges_of(
    dataset: EpisodeSet, body: Sequence[Group], model: Any, of_states: Range | None
) -> tuple[dict[str, Range], list[str]]:
    """Returns the limits of the groups of joints by key, and a note where there are joints without."""
    joints = [group for group in body if group.kind == "joint"]
    declared: Any = dataset.attrs.get("joint_limits")
    found: dict[str, Range] = {}
    for group in joints:
        known = _declared(declared, group)
        if known is None and group.key == "sim_state":
            known = of_states
        if known is None and group.unit.split(",")[0].strip() == "rad":
            known = _of_model(model, group)
        if known is not None:
            found[group.key] = known
    if found:
        return found, []
    return found, [_NO_LIMITS if joints else "joint limits: not checked, no joints known"]


def _declared(declared: Any, group: Group) -> Range | None:
    """Returns limits from the attribute: {key: [[low, high], ...]}, {joint name: [low, high]}, or [[low, high], ...]."""
    if isinstance(declared, Mapping):
        declared = declared.get(group.key, [declared.get(name) for name in group.names])
    try:
        values = np.asarray(declared, np.float64)
    except (TypeError, ValueError):
        return None
    return Range(values[:, 0], values[:, 1]) if values.shape == (len(group.columns), 2) else None


def model_of(dataset: EpisodeSet) -> Any:
    """Returns the MuJoCo model of the first episodes that have one (fact `model_xml`), None where none does or compiles."""
    if "model_xml" not in dataset.facts():
        return None
    rows = _zarr.read_rows(dataset._group["meta/episode_model_xml"], 0, _FIRST, f"{dataset.path}: meta/episode_model_xml")
    text = next((text for text in _zarr.decode_text(rows).tolist() if text.lstrip().startswith("<")), "")
    if not text:
        return None
    from robolearn.data.source import kinematic_model  # only such a set needs MuJoCo

    try:
        return kinematic_model(_SITE.sub("", text))
    except DatasetError:
        return None


def _arm(model: Any) -> list[int]:
    one = [j for j in range(model.njnt) if int(model.jnt_type[j]) in (_HINGE, _SLIDE)]
    return [j for j in one if _ARM.search(model.joint(j).name) and "grip" not in model.joint(j).name]


def _range(model: Any, joints: Sequence[int]) -> Range:
    limited = np.array([bool(model.jnt_limited[j]) for j in joints])
    low, high = (np.array([float(model.jnt_range[j][side]) for j in joints]) for side in (0, 1))
    return Range(np.where(limited, low, -np.inf), np.where(limited, high, np.inf))


def _of_model(model: Any, group: Group) -> Range | None:
    """Returns the limits of joints by their names, or, where the model's arm has as many joints, by their order."""
    if model is None:
        return None
    by_name = {model.joint(j).name: j for j in range(model.njnt)}
    joints = [next((j for full, j in by_name.items() if full == name or full.endswith(f"_{name}")), -1) for name in group.names]
    if not all(group.names) or -1 in joints:
        joints = _arm(model)
    return _range(model, joints) if len(joints) == len(group.columns) else None
