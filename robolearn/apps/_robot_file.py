"""`configs/robot/NAME.yaml`: which driver, gripper and cameras a robot is made of, how a policy sees it, and what it may do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from hardware._base import CAMERAS, DEVICES, GRIPPERS, ROBOTS
from hardware.robots.virtual import robosuite_model
from robolearn import config, geometry, registry
from robolearn.apps._guarded import MakeGuard, safe_share_of
from robolearn.errors import BadInput, ConfigError, nearest
from robolearn.runtime.kinematics import Hand
from robolearn.runtime.latency import LatencyModel
from robolearn.runtime.limits import Box, Limits, Plane

_NOT_GIVEN = ("names", "velocity", "without")  # of the limits: the arm says them, or a field of their own
TOOL = "robolearn_tool"  # the site that is added to the model where the tool is


@dataclass(frozen=True)
class Part:
    """A gripper, camera or input device: its driver's name and the fields of its config."""

    driver: str
    set: Mapping[str, Any] = field(default_factory=dict)
    wants: str = ""
    """Of a camera: crop (default) cuts the picture to the policy's shape and scales it; stretch scales it only."""

    def __post_init__(self) -> None:
        """Refuses another word; ValueError names the field."""
        if self.wants not in ("", "crop", "stretch"):
            raise ValueError(f"wants: want crop or stretch, got '{self.wants}'")


@dataclass(frozen=True)
class Kinematics:
    """Where the hand is at joint angles.

    model: an MJCF file, or a folder of robosuite's arms (panda, ur5e, ...); joints: in the driver's order, empty: all hinges;
    tip: the site or body that carries the tool; tool_m, tool_rotvec: the tool in the tip's frame; base_m, base_rotvec: the arm's
    base in the world that policy and limits speak of.
    """

    model: str
    tip: str
    joints: tuple[str, ...] = ()
    tool_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tool_rotvec: tuple[float, float, float] = (0.0, 0.0, 0.0)
    base_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    base_rotvec: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        """Refuses what is no place; ValueError names the field."""
        for name in ("tool_m", "tool_rotvec", "base_m", "base_rotvec"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"{name}: want 3 finite numbers, got {list(getattr(self, name))}")

    def path(self) -> Path:
        """Returns the MJCF file."""
        return Path(self.model) if self.model.endswith(".xml") else robosuite_model(self.model)


@dataclass(frozen=True)
class RobotFile:
    """One robot as a policy and its guard know it."""

    driver: str
    """A file of hardware/robots."""
    set: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the driver's config."""
    gripper: Part | None = None
    """One with a driver of its own; none where the arm's driver has it."""
    cameras: Mapping[str, Part] = field(default_factory=dict)
    """By the policy's observation key."""
    kinematics: Kinematics | None = None
    """Needed by policies that speak of the hand's pose, and by the workspace and collision limits."""
    hz: float = 100.0
    """Of the driver's loop [1/s]."""
    share: float = 0.25
    """Of the device's own top speed."""
    without: tuple[str, ...] = ("workspace", "collision", "effort", "temperature")
    """Limits that do not hold; each is said before every run."""
    limits: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of robolearn.runtime.limits.Limits, such as boxes, planes, max_effort."""
    may_touch: tuple[str, ...] = ()
    """Bodies of the model that the collision limit leaves out."""
    start: tuple[float, ...] = ()
    """Where episodes begin [rad]; empty: where the arm is."""
    deadman: Part | None = None
    """The input device whose dead-man must be held while anything moves; none: the run says so."""
    takeover: Part | None = None
    """The input device with which a person may overrule the policy."""
    latency: str = ""
    """What `robolearn calibrate latency` wrote."""

    def __post_init__(self) -> None:
        """Refuses what is no robot; ValueError names the field."""
        if not 1 <= self.hz <= 1000:
            raise ValueError(f"hz: want 1 to 1000 cycles a second, got {self.hz:g}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share: want a share of the top speed above 0 and at most 1, got {self.share:g}")
        if not np.isfinite(self.start).all():
            raise ValueError(f"start: want finite joint angles [rad], got {list(self.start)}")
        for key, value in self.limits.items():
            known = {each.name: each.default for each in fields(Limits) if each.name not in _NOT_GIVEN}
            if key not in known:
                raise ValueError(f"limits: unknown field '{key}'{nearest(key, known)}")
            if isinstance(known[key], tuple) is not isinstance(value, list | tuple):
                raise ValueError(f"limits: {key}: want {'a list' if isinstance(known[key], tuple) else 'a number'}, got {value}")
        if self.deadman is not None and self.deadman.driver == "keyboard":
            raise ValueError("deadman: a keyboard sends presses and no level; use a pedal, trigger or clutch")

    def check(self) -> None:
        """Raises UnknownName for a driver that does not exist, and ConfigError for a field of one; nothing is opened."""
        parts = [(ROBOTS, Part(self.driver, self.set)), *((CAMERAS, part) for part in self.cameras.values())]
        parts += [(GRIPPERS, self.gripper)] if self.gripper is not None else []
        parts += [(DEVICES, part) for part in (self.deadman, self.takeover) if part is not None]
        for package, part in parts:
            module = registry.load(package, part.driver, what=package.rsplit(".", 1)[1].rstrip("s"))
            config.from_mapping(module.Config, dict(part.set), where=part.driver)

    def make_guard(self) -> MakeGuard:
        """Returns what makes the guard in the driver's process."""
        more = dict(self.limits)
        for name, kind in (("boxes", Box), ("planes", Plane)):
            if name in more:
                more[name] = tuple(config.from_mapping(kind, one, where=f"limits: {name}") for one in more[name])
        more = {key: tuple(value) if isinstance(value, list) else value for key, value in more.items()}
        points = safe = None
        if "workspace" not in self.without or "collision" not in self.without:
            where = self._where("the workspace and collision limits")
            names = self.hand.joints
            points = partial(points_at, self, names) if "workspace" not in self.without else None
            rest = self.start or tuple(0.5 * (self.hand.lower + self.hand.upper))
            model = str(where.path())
            safe = partial(safe_share_of, model, names, rest, self.may_touch) if "collision" not in self.without else None
        return MakeGuard(self.share, more, self.without, points, safe)

    @cached_property
    def hand(self) -> Hand:
        """The arm's kinematics, its tool included; BadInput without a `kinematics` block."""
        where = self._where("a policy that speaks of poses")
        spec = _placed(where)
        model = spec.compile()
        hinges = [j for j in range(model.njnt) if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_HINGE]
        joints = where.joints or tuple(model.joint(j).name for j in hinges)
        ranges = np.array([model.joint(name).range for name in joints])
        limited = np.array([bool(model.joint(name).limited[0]) for name in joints])
        free = np.array([-2 * np.pi, 2 * np.pi])
        return Hand(model, joints, TOOL, *np.where(limited[:, None], ranges, free).T)

    def latencies(self) -> LatencyModel:
        """Returns what was calibrated; an empty model where nothing was."""
        if not self.latency:
            return LatencyModel()
        return LatencyModel.from_json(config.read_yaml(Path(self.latency)).get("devices", {}), where=self.latency)

    def _where(self, wanted_by: str) -> Kinematics:
        if self.kinematics is None:
            raise BadInput(f"robot {self.driver}: {wanted_by} needs `kinematics`: model, tip, base_m, tool_m; add the block")
        return self.kinematics


def read(path: str) -> RobotFile:
    """Returns the robot of a file, or of a shipped one by its name; ConfigError names file and field."""
    found = config.find("robot", path)
    try:
        robot = config.from_mapping(RobotFile, config.read_yaml(found), where=str(found))
        robot.check()
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{found}: {error}") from None
    return robot


def points_at(robot: RobotFile, joints: tuple[str, ...]) -> Any:
    """Returns q (n,) [rad] -> the tool (1, 3) [m] in the robot's world, for the workspace limit."""
    del joints  # Unused: the hand knows them.
    hand = robot.hand
    return lambda q: hand.pose(q)[None, :3, 3]


def _placed(where: Kinematics) -> mujoco.MjSpec:
    """Returns the model with its base where it stands in the world, and a site at the tool."""
    try:
        spec = mujoco.MjSpec.from_file(str(where.path()))
    except (ValueError, OSError) as error:
        raise ConfigError(f"kinematics model: {where.model}: {str(error).splitlines()[0]}") from None
    base = geometry.quat_wxyz_from_matrix(geometry.matrix_from_rotvec(np.array(where.base_rotvec)))
    for body in spec.worldbody.bodies:
        pose = geometry.pose(np.array(body.pos), geometry.matrix_from_quat_wxyz(np.array(body.quat)))
        world = geometry.pose(np.array(where.base_m), geometry.matrix_from_quat_wxyz(base)) @ pose
        body.pos, body.quat = world[:3, 3], geometry.quat_wxyz_from_matrix(world[:3, :3])
    turn = geometry.quat_wxyz_from_matrix(geometry.matrix_from_rotvec(np.array(where.tool_rotvec)))
    body, site = spec.body(where.tip), spec.site(where.tip)
    if body is None and site is None:
        raise ConfigError(f"kinematics tip: {where.model} has no body or site '{where.tip}'")
    if body is not None:
        body.add_site(name=TOOL, pos=list(where.tool_m), quat=list(turn))
    else:
        at = geometry.pose(np.array(site.pos), geometry.matrix_from_quat_wxyz(np.array(site.quat)))
        at = at @ geometry.pose(np.array(where.tool_m), geometry.matrix_from_quat_wxyz(turn))
        site.parent.add_site(name=TOOL, pos=at[:3, 3], quat=geometry.quat_wxyz_from_matrix(at[:3, :3]))
    return spec
