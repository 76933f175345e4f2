"""Emulated robots that live in one scene: the vendors' wires outwards, one simulated world behind them, one process.

    stage("ur5e", {"task": "lift", "seed": 0})      a UR5e controller and a Robotiq gripper
    stage("viperx", {"task": "lift"})               nine Dynamixel servos; the arm behind them has the links of a UR5e

What is simulated is robosuite's arm and Panda hand, whatever the wire says: forces and fingers are theirs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hardware._calibration import ServoCalibration, ServoGripper, ServoJoint, save
from hardware.emulators._base import Emulator, make_emulator
from hardware.robots import viperx
from robolearn import config, geometry
from robolearn.apps._scene import ArmPlant, FingerPlant, Scene, SceneConfig, ServoPlant
from robolearn.apps._scene_body import joints_of, limits_of
from robolearn.apps._scene_link import SceneServer
from robolearn.core import Plant
from robolearn.errors import BadInput, UnknownName

_SERVOS = (1, 2, 4, 6, 7, 8)  # ids of a ViperX' joints; 3 and 5 follow 2 and 4, 9 is the gripper
_SIGNS = (1, -1, 1, 1, -1, 1)  # how its servos are mounted here, and at which tick they read 0 rad
_ZEROS = (2048, 1500, 2900, 2048, 600, 3100)
_REACH = 2.9  # [rad] to either side of the pose at the beginning: a calibrated range is less than a turn
_CLOSED, _TRAVEL = 1000, 800  # ticks of the gripper's servo
_SLICE_S = 0.002  # how long the robot's traffic may hold up the gripper's
_REPLY_S = 0.02  # what an answer may take: the physics shares a machine with everything else


@dataclass(frozen=True)
class Options:
    """What `stage` is told beside the robot. fields: of the robot's emulator; overrides: of the task's Config."""

    task: str = "lift"
    seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    stiffness: float = 900.0


@dataclass
class Cast:
    """The emulators of one robot, by part, and what its file in configs/robot says of them once their addresses are known."""

    parts: Mapping[str, Emulator]
    file: Callable[[Mapping[str, str], Path], dict[str, Any]]


class Stage:
    """An `Emulator` of emulators: the robot is served first, and all of them move one scene.

    open returns the robot's address; `addresses` has all of them: robot, gripper if it is another, scene (its referee);
    image_size: of the task's pictures [px].
    """

    def __init__(self, scene: Scene, cast: Cast) -> None:
        self._scene, self._cast = scene, cast
        self._folder = tempfile.TemporaryDirectory(prefix="robolearn-scene-")
        self._server: SceneServer | None = None
        self.joints: tuple[str, ...] = joints_of(scene.env)
        self.addresses: dict[str, str] = {}
        self.image_size = scene.env.config.image_size

    def open(self) -> str:
        """Opens every port and returns the robot's address."""
        self.addresses = {part: emulator.open() for part, emulator in self._cast.parts.items()}
        self._server = SceneServer(self._scene, self._fault)
        self.addresses["scene"] = self._server.address
        return self.addresses["robot"]

    def turn(self, timeout_s: float) -> None:
        """Waits at most so long for the robot's traffic, answers everybody, and moves the scene up to now."""
        first, *others = self._cast.parts.values()
        until = time.monotonic() + timeout_s
        while True:
            first.turn(max(0.0, min(_SLICE_S, until - time.monotonic())))
            for emulator in others:
                emulator.turn(0.0)
            if time.monotonic() >= until:
                return

    def control(self, op: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Does an op of an emulator (`on`: robot or gripper), or says addresses, robot_file, reset (seed) or go."""
        if op == "addresses":
            return self.addresses
        if op == "robot_file":
            return self.robot_file()
        if op == "reset":
            self._scene.reset(int(args["seed"]))
        elif op == "go":
            self._scene.go()
        else:
            return self._fault(str(args.get("on", "robot")), op, {key: value for key, value in args.items() if key != "on"})
        return {}

    def robot_file(self) -> dict[str, Any]:
        """Returns what a file of configs/robot says of this robot, as JSON takes it; files that it names live as long as this."""
        file = self._cast.file(self.addresses, Path(self._folder.name))
        return {**file, "share": 1.0, "kinematics": kinematics(self._scene)}  # nothing can break

    def close(self) -> None:
        """Closes everything; may be called twice."""
        for emulator in self._cast.parts.values():
            emulator.close()
        if self._server is not None:
            self._server.close()
            self._server = None
        self._folder.cleanup()

    def _fault(self, on: str, op: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
        if on not in self._cast.parts:
            raise UnknownName("part", on, self._cast.parts)
        return self._cast.parts[on].control(op, args)


def stage(name: str, overrides: dict[str, Any], plant: Plant | None = None) -> Stage:
    """Returns a robot in a scene, not open yet. overrides: of `Options`. UnknownName for a robot that has no part here."""
    if plant is not None:
        raise BadInput("scene: it has its own plant")
    if name not in ROBOTS:
        raise UnknownName("robot in a scene", name, ROBOTS)
    options = config.from_mapping(Options, overrides, where="scene")
    model, cast = ROBOTS[name]
    task = {**options.overrides, "robot": options.overrides.get("robot", model), "cameras": ()}
    damping = 2 * float(np.sqrt(options.stiffness))
    scene = Scene(SceneConfig(options.task, task, options.seed, options.stiffness, damping))
    return Stage(scene, cast(scene, options))


def kinematics(scene: Scene) -> dict[str, Any]:
    """Returns the `kinematics` of a robot file for the arm of a scene: base and tool as they are in the task's world."""
    env = scene.env
    robot = env.suite.robots[0].robot_model
    base, tip = env.data.body(robot.root_body), env.data.body(robot.eef_name["right"])
    world_from_base = geometry.pose(base.xpos, base.xmat.reshape(3, 3))
    world_from_tip = geometry.pose(tip.xpos, tip.xmat.reshape(3, 3))
    tip_from_tool = geometry.inverse(world_from_tip) @ env.eef_pose()
    prefix = robot.naming_prefix

    def placed(pose: np.ndarray) -> tuple[list[float], list[float]]:
        rounded = np.round([pose[:3, 3], geometry.rotvec_from_matrix(pose[:3, :3])], 9) + 0.0  # [m], [rad]; no -0
        return rounded[0].tolist(), rounded[1].tolist()

    base_m, base_rotvec = placed(world_from_base)
    tool_m, tool_rotvec = placed(tip_from_tool)
    return {
        "model": env.config.robot.lower(), "tip": robot.eef_name["right"].removeprefix(prefix),
        "joints": [name.removeprefix(prefix) for name in joints_of(env)],
        "base_m": base_m, "base_rotvec": base_rotvec, "tool_m": tool_m, "tool_rotvec": tool_rotvec,
    }  # fmt: skip


def _ur5e(scene: Scene, options: Options) -> Cast:
    if len(scene.q) != 6:
        raise BadInput(f"scene: a UR5e has 6 joints, {scene.env.config.robot} has {len(scene.q)}")
    opening_m = scene.opening_m
    parts = {
        "robot": make_emulator("ur", dict(options.fields), ArmPlant(scene)),
        "gripper": make_emulator("robotiq", {"opening_m": opening_m, "activated": True}, FingerPlant(scene)),
    }

    def file(addresses: Mapping[str, str], folder: Path) -> dict[str, Any]:
        del folder  # Unused: this robot needs no file.
        wired = {"port": addresses["gripper"], "opening_m": opening_m, "timeout_s": 5 * _REPLY_S}
        gripper = {"driver": "robotiq_2f", "set": wired}
        return {"driver": "ur5e", "set": {"host": addresses["robot"]}, "gripper": gripper}

    return Cast(parts, file)


def _viperx(scene: Scene, options: Options) -> Cast:
    if len(scene.q) != 6:
        raise BadInput(f"scene: a ViperX has 6 joints, {scene.env.config.robot} has {len(scene.q)}")
    by_servo = dict(zip(_SERVOS, range(6), strict=True)) | {3: 1, 5: 2}
    ids, fingers = tuple(range(1, 10)), 2 * np.pi / 4096 * _TRAVEL
    given = {
        "ids": list(ids), "joints": [by_servo.get(number, 6) for number in ids],
        "zeros": [_ZEROS[by_servo[number]] if number in by_servo else _CLOSED for number in ids],
        "signs": [_SIGNS[by_servo[number]] if number in by_servo else 1 for number in ids],
        "models": viperx.EMULATION["models"],
        **options.fields,
    }  # fmt: skip
    bus = make_emulator("dynamixel", given, ServoPlant(ArmPlant(scene), FingerPlant(scene, fingers)))
    (lower, upper), start = limits_of(scene.env), scene.q

    def file(addresses: Mapping[str, str], folder: Path) -> dict[str, Any]:
        joints = tuple(
            ServoJoint(name, servo, sign, zero, float(max(low, at - _REACH)), float(min(high, at + _REACH)))
            for name, servo, sign, zero, low, high, at in zip(
                viperx.JOINTS, _SERVOS, _SIGNS, _ZEROS, lower, upper, start, strict=True
            )
        )
        path = folder / "servos.yaml"
        save(ServoCalibration("viperx", joints, ServoGripper("gripper", 9, _CLOSED, _TRAVEL, scene.opening_m)), path)
        wired = {"port": addresses["robot"], "calibration": str(path), "reply_s": _REPLY_S}
        return {"driver": "viperx", "set": wired}

    return Cast({"robot": bus}, file)


ROBOTS: Mapping[str, tuple[str, Callable[[Scene, Options], Cast]]] = {"ur5e": ("UR5e", _ur5e), "viperx": ("UR5e", _viperx)}
"""Robots that can live in a scene: whose links robosuite has for them, and what speaks for them."""
