"""The list that is gone through before anything moves: one line a thing, and beside what is missing the line that mends it."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hardware._base import CAMERAS, DEVICES, GRIPPERS, ROBOTS, Identity
from robolearn import registry
from robolearn.apps._deploy_people import HELD, OVER
from robolearn.apps._deploy_rig import Rig
from robolearn.apps._robot_file import Part, RobotFile
from robolearn.core import Spec
from robolearn.errors import RobolearnError
from robolearn.runtime.limits import Limits

_FREE_MIB = 500
_OLD_S = 0.25  # age of an input from which no plan is made


@dataclass(frozen=True)
class Check:
    """One line. ok: None where it is only said; blocks: nothing may move before it is mended."""

    name: str
    ok: bool | None
    said: str
    mend: str = ""

    @property
    def blocks(self) -> bool:
        """True where it is not fine."""
        return self.ok is False

    def text(self) -> str:
        """Returns the line."""
        sign = {True: "ok", False: "MISSING", None: "note"}[self.ok]
        return f"{sign:<8} {self.name:<14} {self.said}" + (f"; {self.mend}" if self.mend else "")


def libraries(robot: RobotFile) -> list[Check]:
    """Returns a line for each library that a driver needs and that is not here."""
    parts = [(ROBOTS, Part(robot.driver)), *((CAMERAS, part) for part in robot.cameras.values())]
    parts += [(GRIPPERS, robot.gripper)] if robot.gripper else []
    found = {}
    for package, part in parts:
        needs = registry.load(package, part.driver).NEEDS
        if needs and importlib.util.find_spec(needs[0]) is None:
            found[part.driver] = Check(part.driver, False, f"needs {needs[0]}", f"pip install 'robolearn[{needs[1]}]'")
    for device in (robot.deadman, robot.takeover):
        if device is not None:
            registry.load(DEVICES, device.driver, what="device")
    return list(found.values())


def connected(rig: Rig) -> list[Check]:
    """Returns a line for each part: who answered, or why nobody did."""
    told = [(part, not isinstance(said, RobolearnError), _who(said)) for part, said in rig.said.items()]
    return [Check(part, fine, said.removeprefix(f"{part}: ")) for part, fine, said in told]


def _who(said: Identity | RobolearnError) -> str:
    if isinstance(said, RobolearnError):
        return str(said)
    facts = [said.model, said.serial and f"serial {said.serial}", said.firmware and f"firmware {said.firmware}"]
    return ", ".join(fact for fact in facts if fact) + (" (EMULATED)" if said.emulated else "")


def fits(rig: Rig, spec: Spec) -> list[Check]:
    """Returns whether the robot shows all that the policy reads, and takes what it gives."""
    from robolearn.apps._deploy_rig import body_of

    try:
        body_of(rig, spec, lambda seed: None, dry=True)
    except RobolearnError as error:
        return [Check("policy", False, str(error))]
    keys = ", ".join(spec.obs)
    bare = rig.arm is not None and not rig.arm.caps.gripper
    lone = [Check("gripper", None, "none; what the policy says of one goes nowhere")] if bare else []
    return [
        *lone,
        Check(
            "policy",
            True,
            f"reads {keys}; gives {spec.action.shape[0]} numbers as '{spec.codec or 'joint_abs'}' at {spec.hz:g} Hz",
        ),
    ]


def stays(spec: Spec) -> list[Check]:
    """Returns a line where the last action, done again, would not stay: one of displacements that do not say that they are."""
    names = spec.action.names
    if spec.codec != "osc_delta" or (names and all(name.startswith(("d", "gripper")) for name in names)):
        return []
    said = f"gives displacements ({spec.codec}) that its names ({', '.join(names) or 'none'}) do not tell: it cannot be held"
    return [Check("policy", False, said, "train with actions named dx, dy, ... and gripper")]


def start(robot: RobotFile, declared: Limits) -> list[Check]:
    """Returns a line where the arm cannot go to the robot file's start."""
    q, low, high = np.array(robot.start), declared.bounds.soft_lower, declared.bounds.soft_upper
    if len(q) == 0 or (q.shape == low.shape and ((q >= low) & (q <= high)).all()):
        return []
    return [
        Check("start", False, f"want {len(low)} angles [rad] within the limits, got {list(robot.start)}", "mend the robot file")
    ]


def limits(declared: Limits) -> list[Check]:
    """Returns the limits that hold, and a line for those that do not."""
    bounds = declared.bounds
    slow, fast = float(bounds.velocity.min()), float(bounds.velocity.max())
    lines = [
        Check(
            "limits", True, f"joints at {slow:.2f} .. {fast:.2f} rad/s at most, {declared.soft_margin:g} rad inside their ranges"
        )
    ]
    if declared.without:
        lines.append(Check("limits off", None, ", ".join(declared.without)))
    return lines


def ages(rig: Rig) -> list[Check]:
    """Returns how old the newest sample of each input is."""
    lines = []
    for key, camera in rig.cameras.items():
        age = camera.age_s
        fine = bool(np.isfinite(age) and age <= _OLD_S)
        said = (
            f"{1000 * age:.0f} ms old, {camera.size[0]} x {camera.size[1]} at {camera.hz:g} Hz"
            if np.isfinite(age)
            else "no picture"
        )
        lines.append(Check(f"age {key}", fine, said, "" if fine else camera.why or "is it covered or starved?"))
    return lines


def latency(robot: RobotFile) -> list[Check]:
    """Returns what is known of the delays."""
    devices = robot.latencies().devices
    if not devices:
        return [Check("latency", None, "not calibrated: taken as 0", "robolearn calibrate latency")]
    said = ", ".join(f"{name} {1000 * one.observe_s:.0f} + {1000 * one.act_s:.0f} ms" for name, one in devices.items())
    return [Check("latency", True, f"observing + acting: {said}")]


def planning(took: Sequence[float], spec: Spec, horizon: int, waits: bool) -> list[Check]:
    """Returns whether plans come before the last one is used up. took: [s] a plan, without the warm-up."""
    slowest = max(took)
    ticks = int(np.ceil(slowest * spec.hz))
    fine = waits or ticks < horizon
    said = f"{1000 * slowest:.0f} ms, which is {ticks} of the {horizon} ticks of a plan"
    return [Check("planning", fine, said, "" if fine else "fewer sampling steps, a faster device, or --consumer sync")]


def people(robot: RobotFile, missing: Mapping[str, RobolearnError]) -> list[Check]:
    """Returns whether somebody must hold a dead-man, and can take over. missing: why a device of theirs is not open."""
    held, over = robot.deadman, robot.takeover
    said = {HELD: held and f"{held.driver}: held while anything moves", OVER: over and f"with {over.driver}"}
    mend = "connect it, or mend the robot file"
    absent = {part: Check(part, False, str(error), mend) for part, error in missing.items()}
    return [absent.get(part, Check(part, True if line else None, line or "none")) for part, line in said.items()]


def disk(out: Path) -> list[Check]:
    """Returns whether a run can be kept."""
    there = next(folder for folder in (out, *out.resolve().parents) if folder.exists())
    free = shutil.disk_usage(there).free >> 20
    return [Check("disk", free >= _FREE_MIB, f"{free} MiB free for {out}", "" if free >= _FREE_MIB else "make room")]


def to_json(checks: Sequence[Check]) -> list[Mapping[str, Any]]:
    """Returns the lines as plain values."""
    return [{"name": check.name, "ok": check.ok, "said": check.said, "mend": check.mend} for check in checks]
