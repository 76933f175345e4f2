"""A robosuite task as a body: our observations, action spaces and state on robosuite's model, controller and success test.

Physics as published: 500 Hz, the controller runs at every physics step, commands at 20 Hz. What robosuite randomises when
it builds a model (the size of Lift's cube) is built once from a fixed seed, so that all bodies of a task share one model;
what it randomises in `reset` (joints, placements) follows the seed of `reset`.
"""

from __future__ import annotations

import logging
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from robolearn import geometry
from robolearn.core import ArraySpec, Camera, Obs, Spec, Step
from robolearn.errors import ArrayMismatch, BadInput, ConfigError
from sim_envs import _mujoco
from sim_envs._arm import JOINT_STIFFNESS, Arm

logging.disable(logging.WARNING)  # robosuite's import tells of optional parts that are not used here
import mujoco  # noqa: E402
import robosuite  # noqa: E402
from robosuite.controllers import load_composite_controller_config  # noqa: E402

logging.disable(logging.NOTSET)
logging.getLogger("robosuite_logs").setLevel(logging.ERROR)

MODEL_SEED = 0
# The linkages of robosuite's Robotiq models block themselves on MuJoCo 3.9 and let go of what they hold.
GRIPPERS = {"UR5e": "PandaGripper", "IIWA": "PandaGripper", "Kinova3": "PandaGripper"}
PHYSICS_HZ = 500
ACTION_NAMES = {
    "osc_delta": ("dx", "dy", "dz", "drx", "dry", "drz", "gripper"),
    "pose_abs": ("x", "y", "z", "r00", "r01", "r02", "r10", "r11", "r12", "gripper"),
}
CAMERAS = {"wrist": "robot0_eye_in_hand"}  # our names where robosuite's say less


@dataclass(frozen=True)
class Body:
    """What all robosuite tasks can be told; a task's Config is this with its own defaults."""

    robot: Literal["Panda", "UR5e", "IIWA", "Kinova3"] = "Panda"
    action: Literal["osc_delta", "pose_abs", "joint_abs"] = "pose_abs"
    cameras: tuple[str, ...] = ()  # agentview, wrist, frontview, ...
    image_size: int = 84
    max_steps: int = 400
    hz: float = 20.0
    fast_render: bool = True  # observations without reflections and multisampling


@dataclass(frozen=True)
class Thing:
    """An object that matters to a task: the name we give it, and the MuJoCo body or site whose pose it has."""

    name: str
    kind: Literal["body", "site"]
    mujoco_name: str


@dataclass(frozen=True)
class Task:
    """What differs between robosuite tasks."""

    name: str
    suite_name: str
    things: tuple[Thing, ...]
    joints: tuple[str, ...] = ()  # joints shown beside the poses, such as a hinge
    placed: tuple[str, ...] = ()  # fixed bodies that robosuite places by editing the model
    arms: int = 1
    view: _mujoco.View = _mujoco.View((-0.1, 0.0, 0.95), 1.5, 150, -20)  # of the default picture


class RobosuiteEnv:
    """A robosuite task as a SimEnv. success is robosuite's own test at one tick and ends the episode; score is 1 or 0."""

    def __init__(self, task: Task, config: Body) -> None:
        self.task, self.config, self.task_facts = task.name, config, task
        self.suite = make_suite(task, config)
        self.model, self.data = self.suite.sim.model._model, self.suite.sim.data._data
        self.arms = [Arm(robot, self.model, config.action) for robot in self.suite.robots]
        self.suffixes = tuple(f"_{k}" for k in range(task.arms)) if task.arms > 1 else ("",)  # of the arms' observation keys
        self._joints = [self.model.joint(name).qposadr[0] for name in task.joints]
        self._placed = [self.model.body(name).id for name in task.placed]
        self._substeps = round(PHYSICS_HZ / config.hz)
        self._renderers: dict[tuple[int, _mujoco.Look], _mujoco.Renderer] = {}
        self.spec = self._spec()

    def reset(self, seed: int | None = None) -> Obs:
        """Starts an episode: joints and objects placed by `seed` (None: fresh entropy). Returns the first observation."""
        seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        with _mujoco.seeded(seed):
            self.suite.reset()
        for arm in self.arms:
            arm.reset(self.data)
        return self._observe()

    def step(self, action: np.ndarray) -> Step:
        """Runs one control tick (50 ms at 20 Hz) and returns what came of it."""
        action = np.asarray(action, dtype=np.float32)
        self.spec.action.check(action, f"{self.task} action")
        wanted = self._within_limits(action)
        for k in range(self._substeps):
            mujoco.mj_step1(self.model, self.data)
            if k == 0:
                for arm, block in zip(self.arms, np.split(wanted, len(self.arms)), strict=True):
                    arm.set_goal(self.data, block)
            for arm in self.arms:
                arm.actuate(self.model, self.data)
            mujoco.mj_step2(self.model, self.data)
        obs = self._observe()
        success = self.success()
        clocks = {"monotonic": time.monotonic_ns(), "wall": time.time_ns(), "sim": round(self.data.time * 1e9)}
        return Step(
            obs, wanted, self.data.ctrl.astype(np.float32), clocks, score=float(success), success=success, terminated=success
        )

    def state(self) -> np.ndarray:
        """Returns the whole state (n,) float64: physics, grippers, controllers, and bodies that `reset` placed."""
        arms = [arm.memory() for arm in self.arms]
        placed = [self.model.body_pos[self._placed].ravel(), self.model.body_quat[self._placed].ravel()]
        return np.concatenate([_mujoco.read_state(self.model, self.data), *arms, *placed])

    def restore(self, state: np.ndarray) -> Obs:
        """Puts a state (n,) of `state` back and returns its observation; what follows is bit-equal to what followed then."""
        state = np.asarray(state, dtype=float)
        sizes = [mujoco.mj_stateSize(self.model, _mujoco.STATE), *(len(arm.memory()) for arm in self.arms)]
        sizes += [3 * len(self._placed), 4 * len(self._placed)]
        if state.shape != (sum(sizes),):
            raise ArrayMismatch(f"{self.task} state: want ({sum(sizes)},), got {state.shape}; is it another robot's or task's?")
        physics, *rest = np.split(state, np.cumsum(sizes)[:-1])
        *arms, positions, quats = rest
        self.model.body_pos[self._placed] = positions.reshape(-1, 3)
        self.model.body_quat[self._placed] = quats.reshape(-1, 4)
        _mujoco.write_state(self.model, self.data, physics)
        for arm, memory in zip(self.arms, arms, strict=True):
            arm.remember(memory)
        return self._observe()

    def restore_legacy(self, row: np.ndarray, model_xml: str = "") -> Obs:
        """Puts a state (1 + nq + nv,) = [time, qpos, qvel] of a robosuite recording back; the arms' rest pose is their home.

        model_xml: the recording's model; fixed bodies that this task places (a door) are put where it has them.
        """
        row = np.asarray(row, dtype=float)
        nq, nv = self.model.nq, self.model.nv
        if row.shape != (1 + nq + nv,):
            raise ArrayMismatch(f"{self.task} legacy state: want [time, qpos, qvel] ({1 + nq + nv},), got {row.shape}")
        for name in self.task_facts.placed if model_xml else ():
            bodies = {body.get("name"): body for body in ElementTree.fromstring(model_xml).iter("body")}
            body = bodies.get(name, bodies.get(name.removesuffix("_main")))  # before robosuite 1.1 without the ending
            if body is None:
                raise BadInput(f"{self.task} legacy state: its model has no body '{name}'")
            self.model.body(name).pos[:] = np.fromstring(body.get("pos", "0 0 0"), sep=" ")
            self.model.body(name).quat[:] = np.fromstring(body.get("quat", "1 0 0 0"), sep=" ")
        mujoco.mj_resetData(self.model, self.data)
        self.data.time, self.data.qpos[:], self.data.qvel[:] = row[0], row[1 : 1 + nq], row[1 + nq :]
        mujoco.mj_forward(self.model, self.data)
        for arm in self.arms:
            arm.remember(np.concatenate([np.zeros(len(arm.fingers) + 1), arm.home]))
        return self._observe()

    def render(self, camera: str | None = None, size: int = 512) -> np.ndarray:
        """Returns a picture (size, size, 3) uint8 from `camera` (default: the task's best view), with smooth edges."""
        view = self.task_facts.view if camera is None else self._camera_name(camera)
        return self._renderer(size, _mujoco.SMOOTH).draw(self.data, view)

    def close(self) -> None:
        """Frees renderers and simulator."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
        self.suite.close()

    def versions(self) -> dict[str, str]:
        """Returns the versions of physics and renderer."""
        return {"mujoco": mujoco.__version__, "robosuite": robosuite.__version__, "gl": _mujoco.os.environ["MUJOCO_GL"]}

    def success(self) -> bool:
        """Returns whether the task is solved now: robosuite's own test."""
        return bool(self.suite._check_success())

    def eef_pose(self, arm: int = 0) -> np.ndarray:
        """Returns world_from_eef (4, 4) [m] of the grip site between the fingertips."""
        site = self.arms[arm].site
        return geometry.pose(self.data.site_xpos[site], self.data.site_xmat[site].reshape(3, 3))

    def object_poses(self) -> dict[str, np.ndarray]:
        """Returns world_from_object (4, 4) [m] of every object of the task, by name."""
        poses = {}
        for thing in self.task_facts.things:
            part = getattr(self.data, thing.kind)(thing.mujoco_name)
            poses[thing.name] = geometry.pose(part.xpos, part.xmat.reshape(3, 3))
        return poses

    def calibration(self, camera: str) -> Camera:
        """Returns the calibration of an observation's camera, where it is now."""
        return _mujoco.camera(self.model, self.data, self._camera_name(camera), self.config.image_size)

    def gripper_closed(self, arm: int = 0) -> bool:
        """Returns whether the gripper's last command closes it."""
        return self.arms[arm].command > 0

    def gripper_opening(self, arm: int = 0) -> float:
        """Returns the distance [m] between the middles of the two finger pads."""
        left, right = self.arms[arm].pads
        return float(np.linalg.norm(self.data.geom_xpos[left] - self.data.geom_xpos[right]))

    def _within_limits(self, action: np.ndarray) -> np.ndarray:
        blocks = action.reshape(len(self.arms), -1).copy()
        if self.config.action == "osc_delta":
            return np.clip(blocks, -1.0, 1.0).ravel()
        blocks[:, -1] = np.clip(blocks[:, -1], -1.0, 1.0)
        return blocks.ravel()

    def _observe(self) -> Obs:
        # The physics leaves positions one step behind the joints: bring them up to date.
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        obs: Obs = {}
        for k, suffix in enumerate(self.suffixes):
            world_from_eef = self.eef_pose(k)
            obs[f"eef_pos{suffix}"] = world_from_eef[:3, 3].astype(np.float32)
            obs[f"eef_rot6d{suffix}"] = geometry.rot6d_from_matrix(world_from_eef[:3, :3]).astype(np.float32)
            obs[f"gripper{suffix}"] = np.array([self.gripper_opening(k)], np.float32)
            if self.config.action == "joint_abs":
                obs[f"joint_pos{suffix}"] = self.data.qpos[self.arms[k].qpos].astype(np.float32)
        parts = [np.concatenate([p[:3, 3], geometry.rot6d_from_matrix(p[:3, :3])]) for p in self.object_poses().values()]
        obs["object"] = np.concatenate([*parts, self.data.qpos[self._joints]]).astype(np.float32)
        look = _mujoco.FAST if self.config.fast_render else _mujoco.ROBOSUITE
        for name in self.config.cameras:
            renderer = self._renderer(self.config.image_size, look)
            obs[f"{name}_image"] = renderer.draw(self.data, self._camera_name(name))
        return obs

    def _spec(self) -> Spec:
        obs = {}
        for suffix in self.suffixes:
            obs[f"eef_pos{suffix}"] = ArraySpec((3,), names=("x", "y", "z"), unit="m", frame="world")
            obs[f"eef_rot6d{suffix}"] = ArraySpec((6,), names=ACTION_NAMES["pose_abs"][3:9], frame="world")
            obs[f"gripper{suffix}"] = ArraySpec((1,), names=("opening",), unit="m")
            if self.config.action == "joint_abs":  # a body that is told joint angles shows them
                n = len(self.arms[0].qpos)
                obs[f"joint_pos{suffix}"] = ArraySpec((n,), names=tuple(f"q{i}" for i in range(n)), unit="rad")
        poses = ACTION_NAMES["pose_abs"][:9]
        names = [f"{thing.name}_{axis}" for thing in self.task_facts.things for axis in poses] + list(self.task_facts.joints)
        obs["object"] = ArraySpec((len(names),), names=tuple(names), unit="m, rad", frame="world")
        size = self.config.image_size
        cameras = {}
        for name in self.config.cameras:
            obs[f"{name}_image"] = ArraySpec((size, size, 3), "uint8")
            camera = self.calibration(name)
            moving = _mujoco.moves(self.model, self._camera_name(name))  # where it is, only an observation says
            cameras[f"{name}_image"] = replace(camera, world_from_camera=()) if moving else camera
        block = ACTION_NAMES.get(self.config.action, (*[f"q{i}" for i in range(len(self.arms[0].qpos))], "gripper"))
        if len(self.arms) > 1:
            block = tuple(f"{name}{suffix}" for suffix in self.suffixes for name in block)
        action = ArraySpec((len(block),), names=block, frame="" if self.config.action == "joint_abs" else "world")
        return Spec(obs, action, self.config.hz, cameras, codec=self.config.action)

    def _camera_name(self, name: str) -> str:
        return CAMERAS.get(name, name)

    def _renderer(self, size: int, look: _mujoco.Look) -> _mujoco.Renderer:
        if (size, look) not in self._renderers:
            self._renderers[size, look] = _mujoco.Renderer(self.model, size, look)
        return self._renderers[size, look]


def make_suite(task: Task, config: Body, pictures: bool = False) -> Any:
    """Returns robosuite's own environment, its model built from the fixed seed; it draws pictures only when asked to."""
    if PHYSICS_HZ % config.hz:
        raise ConfigError(f"task {task.name}: hz: want a divisor of {PHYSICS_HZ}, got {config.hz:g}")
    with _mujoco.seeded(MODEL_SEED):
        return robosuite.make(
            task.suite_name,
            robots=[config.robot] * task.arms,
            controller_configs=[_controllers(config)] * task.arms,
            gripper_types=[GRIPPERS.get(config.robot, "default")] * task.arms,
            control_freq=config.hz,
            use_camera_obs=False,
            use_object_obs=pictures,
            has_renderer=False,
            has_offscreen_renderer=pictures,
            renderer="mujoco",
            ignore_done=True,
            hard_reset=False,
        )


def _controllers(config: Body) -> Mapping[str, Any]:
    controllers = load_composite_controller_config(robot=config.robot)
    assert controllers is not None
    arm = controllers["body_parts"]["right"]
    if config.action == "pose_abs":
        arm.update(input_type="absolute", input_ref_frame="world")
    elif config.action == "joint_abs":
        arm.update(type="JOINT_POSITION", input_type="absolute", kp=JOINT_STIFFNESS)
    return controllers
