"""The two-embodiment bench: the same scenes and physics performed by a robot's gripper or by a drawn human hand.

A free-flying parallel gripper follows the asked pose with a force-limited servo, and two calibrated cameras look on. With
embodiment "human" the gripper is not drawn; in its place stands a hand of 21 landmarks that holds what the gripper holds. So both
embodiments have the same episodes, and a human video of the bench has exact labels. (Bench after MT-pi, arXiv 2501.06994.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from robolearn import geometry
from robolearn.core import ArraySpec, Camera, Obs, Spec, Step
from robolearn.errors import ArrayMismatch, BadInput
from sim_envs import _mujoco, _two_hands_hand
from sim_envs._two_hands_scene import CAMERAS, CLOSED_HALF, INERTIA, MASS, OPEN_HALF, TIGHTEST_HALF, TIMESTEP, scene_xml

import mujoco  # isort: skip  # after _mujoco, which chooses the GL library

VERSION = "1"  # rises when equal seeds no longer give equal episodes
HZ = 10.0
ACTION_NAMES = ("x", "y", "z", "r00", "r01", "r02", "r10", "r11", "r12", "gripper")
POSE_NAMES = ACTION_NAMES[:9]
HELD = 4  # [ticks] that a task must stay solved: a demonstration shows where its motion ends, and a bump does not count
SUBSTEPS = round(1.0 / HZ / TIMESTEP)
FASTEST, FASTEST_TURN = 0.5, 3.0  # [m/s], [rad/s], of the goal that the servo follows
LOW, HIGH = np.array([-0.40, -0.30, 0.155]), np.array([0.40, 0.30, 0.45])  # [m], where the flange may go
HOME = np.array([0.0, 0.0, 0.36])  # [m], of the flange
POINTING_DOWN = np.array([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, -1.0]])  # the fingers open along the world's y
VIEW = _mujoco.View((0.0, 0.0, 0.12), 1.15, 75, -30)  # of the picture for people
STIFF = 60.0  # [1/s], natural frequency of the servo
MOST_FORCE, MOST_TORQUE = 40.0, 5.0  # [N], [N m]

_HELD = _two_hands_hand.N_FACTS  # where `userdata` counts the ticks; before it stand the hand's facts, after it the task's


@dataclass(frozen=True)
class Body:
    """What all tasks of the bench can be told; a task's Config is this with its own defaults.

    hand: which hand a human uses, "any": either, by the episode.
    """

    embodiment: Literal["robot", "human"] = "robot"
    hand: Literal["right", "left", "any"] = "right"
    cameras: tuple[str, ...] = ()
    image_size: int = 96
    max_steps: int = 80

    def __post_init__(self) -> None:
        if unknown := [camera for camera in self.cameras if camera not in CAMERAS]:
            raise ValueError(f"cameras: unknown camera '{unknown[0]}' (known: {', '.join(CAMERAS)})")
        if self.image_size < 16 or self.max_steps < 1:
            raise ValueError(f"want image_size >= 16 and max_steps >= 1, got {self.image_size} and {self.max_steps}")


@dataclass(frozen=True)
class Task:
    """What differs between the tasks of the bench.

    objects: MJCF of the task's bodies; things: bodies whose pose is observed; joints: joints that are observed [m];
    facts: numbers of an episode beside the hand's, drawn by `place`; view: of the picture for people.
    """

    name: str
    objects: str
    things: tuple[str, ...]
    place: Callable[[TwoHands, np.random.Generator], np.ndarray]  # puts the bodies down and returns the facts (n,)
    solved: Callable[[TwoHands], bool]  # now; success is HELD ticks of it
    score: Callable[[TwoHands], float]  # progress in [0, 1]
    joints: tuple[str, ...] = ()
    n_facts: int = 0
    apply: Callable[[TwoHands, np.ndarray], None] = lambda env, facts: None  # what the facts (n,) change in the model
    view: _mujoco.View = VIEW


class TwoHands:
    """A task of the bench as a SimEnv; success ends the episode."""

    def __init__(self, task: Task, config: Body) -> None:
        self.task, self.config, self.task_facts = task.name, config, task
        bones = _two_hands_hand.BONES if config.embodiment == "human" else ()
        n_facts = _two_hands_hand.N_FACTS + 1 + task.n_facts
        self.model = mujoco.MjModel.from_xml_string(scene_xml(task.objects, bones, n_facts))
        self.data = mujoco.MjData(self.model)
        self._gripper = self.model.body("gripper").id
        joint = self.model.joint("gripper")
        self._q, self._v = int(joint.qposadr[0]), int(joint.dofadr[0])
        self._fingers = np.array([self.model.joint(f"finger_{side}").qposadr[0] for side in ("left", "right")])
        self._joints = np.array([self.model.joint(name).qposadr[0] for name in task.joints], int)
        self._things = [self.model.body(name).id for name in task.things]
        self._goal = int(self.model.body("goal").mocapid[0])
        self._renderers: dict[tuple[int, _mujoco.Look], _mujoco.Renderer] = {}
        mujoco.mj_forward(self.model, self.data)
        self.spec = self._spec()

    def reset(self, seed: int | None = None) -> Obs:
        """Starts an episode: hand and objects placed by `seed` (None: fresh entropy). Returns the first observation."""
        rng = np.random.default_rng(seed)
        mujoco.mj_resetData(self.model, self.data)
        start = HOME + rng.uniform(-1.0, 1.0, 3) * (0.03, 0.03, 0.02)
        turn = geometry.rotation_z(rng.uniform(-0.15, 0.15)) @ POINTING_DOWN
        pose = np.concatenate([start, geometry.quat_wxyz_from_matrix(turn)])
        self.data.qpos[self._q : self._q + 7] = pose
        self.data.mocap_pos[self._goal], self.data.mocap_quat[self._goal] = pose[:3], pose[3:]
        self.data.qpos[self._fingers] = self.data.ctrl[:] = OPEN_HALF
        hand = _two_hands_hand.drawn_facts(rng, self.config.hand)
        self.data.userdata[:] = np.concatenate([hand, [0.0], self.task_facts.place(self, rng)])
        self._apply()
        mujoco.mj_forward(self.model, self.data)
        return self._observe()

    def step(self, action: np.ndarray) -> Step:
        """Runs one control tick (0.1 s) and returns what came of it."""
        action = np.asarray(action, dtype=np.float32)
        self.spec.action.check(action, f"{self.task} action")
        wanted = action.copy()
        wanted[:3] = np.clip(action[:3], LOW, HIGH)
        wanted[9] = np.clip(action[9], -1.0, 1.0)
        if wanted[9] != 0:  # 0 leaves the fingers
            self.data.ctrl[:] = TIGHTEST_HALF if wanted[9] > 0 else OPEN_HALF
        self._follow(wanted)
        obs = self._observe()
        held = self.data.userdata[_HELD] + 1 if self.task_facts.solved(self) else 0
        self.data.userdata[_HELD] = held
        success = bool(held >= HELD)
        clocks = {"monotonic": time.monotonic_ns(), "wall": time.time_ns(), "sim": round(self.data.time * 1e9)}
        sent = np.concatenate([self.data.mocap_pos[self._goal], self.data.mocap_quat[self._goal], self.data.ctrl])
        score = 1.0 if success else self.task_facts.score(self)
        return Step(obs, wanted, sent.astype(np.float32), clocks, score=score, success=success, terminated=success)

    def state(self) -> np.ndarray:
        """Returns the whole state (n,) float64: physics, the servo's goal and the facts of the episode."""
        return _mujoco.read_state(self.model, self.data)

    def restore(self, state: np.ndarray) -> Obs:
        """Puts a state (n,) of `state` back and returns its observation; what follows is bit-equal to what followed then."""
        state = np.asarray(state, dtype=float)
        want = mujoco.mj_stateSize(self.model, _mujoco.STATE)
        if state.shape != (want,):
            raise ArrayMismatch(f"{self.task} state: want ({want},), got {state.shape}; is it another task's?")
        mujoco.mj_setState(self.model, self.data, state, _mujoco.STATE)
        self._apply()  # the model first, what follows from the state is computed with it
        _mujoco.write_state(self.model, self.data, state)
        return self._observe()

    def render(self, camera: str | None = None, size: int = 512) -> np.ndarray:
        """Returns a picture (size, size, 3) uint8 from `camera` (default: the task's best view), with smooth edges."""
        if camera is not None and camera not in CAMERAS:
            raise BadInput(f"{self.task}: unknown camera '{camera}' (known: {', '.join(CAMERAS)})")
        return self._renderer(size, _mujoco.SMOOTH).draw(self.data, self.task_facts.view if camera is None else camera)

    def close(self) -> None:
        """Frees the renderers."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def versions(self) -> dict[str, str]:
        """Returns the versions of the rules, of physics and renderer."""
        return {"two_hands": VERSION, "mujoco": mujoco.__version__, "gl": _mujoco.os.environ["MUJOCO_GL"]}

    def eef_pose(self) -> np.ndarray:
        """Returns world_from_hand (4, 4) [m] of the flange: z is the approach, y the way the fingers open."""
        return geometry.pose(self.data.xpos[self._gripper], self.data.xmat[self._gripper].reshape(3, 3))

    def gripper_half(self) -> float:
        """Returns the distance [m] from the middle to either fingertip."""
        return float(self.data.qpos[self._fingers].mean())

    def gripper_open(self) -> float:
        """Returns 1.0 for open fingers, 0.0 for fingers CLOSED_HALF from the middle or nearer."""
        return float(np.clip((self.gripper_half() - CLOSED_HALF) / (OPEN_HALF - CLOSED_HALF), 0.0, 1.0))

    def object_poses(self) -> dict[str, np.ndarray]:
        """Returns world_from_object (4, 4) [m] of every thing of the task, by name."""
        return {
            name: geometry.pose(self.data.xpos[body], self.data.xmat[body].reshape(3, 3))
            for name, body in zip(self.task_facts.things, self._things, strict=True)
        }

    def calibration(self, camera: str) -> Camera:
        """Returns the exact calibration of a camera, for observations' pictures."""
        return _mujoco.camera(self.model, self.data, camera, self.config.image_size)

    def facts(self) -> np.ndarray:
        """Returns the numbers (n,) of this episode that the task's `place` drew."""
        return self.data.userdata[_HELD + 1 :].copy()

    def hand_facts(self) -> np.ndarray:
        """Returns the numbers (n,) of this episode's drawn hand, see `_two_hands_hand.drawn_facts`."""
        return self.data.userdata[:_HELD].copy()

    def _apply(self) -> None:
        self.task_facts.apply(self, self.facts())
        if self.config.embodiment == "human":
            _two_hands_hand.colour(self.model, self.hand_facts())

    def _follow(self, wanted: np.ndarray) -> None:
        """Moves the servo's goal towards the pose of an action (10,), at most as fast as allowed, and the gripper after it."""
        data, v = self.data, self._v
        goal, goal_quat = data.mocap_pos[self._goal], data.mocap_quat[self._goal]
        speed, turning, lag = (wanted[:3] - goal) * HZ, np.zeros(3), np.zeros(3)
        speed *= min(1.0, FASTEST / max(float(np.linalg.norm(speed)), 1e-9))
        mujoco.mju_subQuat(turning, _quat_wxyz(geometry.matrix_from_rot6d(wanted[3:9])), goal_quat)
        turning *= HZ * min(1.0, FASTEST_TURN / max(HZ * float(np.linalg.norm(turning)), 1e-9))
        position, held = data.qpos[self._q : self._q + 3], data.qpos[self._q + 3 : self._q + 7]
        force, torque = data.qfrc_applied[v : v + 3], data.qfrc_applied[v + 3 : v + 6]  # the torque in the gripper's frame
        moving, rotating = data.qvel[v : v + 3], data.qvel[v + 3 : v + 6]
        step = speed * TIMESTEP
        for _ in range(SUBSTEPS):
            goal += step
            mujoco.mju_quatIntegrate(goal_quat, turning, TIMESTEP)
            mujoco.mju_subQuat(lag, goal_quat, held)
            force[:] = _limited(MASS, MOST_FORCE, (goal - position).tolist(), (speed - moving).tolist())
            torque[:] = _limited(INERTIA, MOST_TORQUE, lag.tolist(), (turning - rotating).tolist())
            mujoco.mj_step(self.model, data)

    def _observe(self) -> Obs:
        mujoco.mj_kinematics(self.model, self.data)  # the physics leaves positions one step behind the joints
        mujoco.mj_comPos(self.model, self.data)
        if self.config.embodiment == "human":
            _two_hands_hand.place(self.model, self.data, landmarks(self))
        world_from_hand = self.eef_pose()
        obs: Obs = {
            "eef_pos": world_from_hand[:3, 3].astype(np.float32),
            "eef_quat_wxyz": _quat_wxyz(world_from_hand[:3, :3]).astype(np.float32),
            "gripper_open": np.array([self.gripper_open()], np.float32),
        }
        parts = [np.concatenate([p[:3, 3], geometry.rot6d_from_matrix(p[:3, :3])]) for p in self.object_poses().values()]
        obs["object"] = np.concatenate([*parts, self.data.qpos[self._joints]]).astype(np.float32)
        for name in self.config.cameras:
            obs[f"{name}_image"] = self._renderer(self.config.image_size, _mujoco.FAST).draw(self.data, name)
        return obs

    def _spec(self) -> Spec:
        things = [f"{name}_{axis}" for name in self.task_facts.things for axis in POSE_NAMES] + list(self.task_facts.joints)
        obs = {
            "eef_pos": ArraySpec((3,), names=("x", "y", "z"), unit="m", frame="world"),
            "eef_quat_wxyz": ArraySpec((4,), names=("w", "x", "y", "z"), frame="world"),
            "gripper_open": ArraySpec((1,), names=("open",)),
            "object": ArraySpec((len(things),), names=tuple(things), unit="m", frame="world"),
        }
        size = self.config.image_size
        cameras = {f"{name}_image": self.calibration(name) for name in self.config.cameras}
        obs |= {key: ArraySpec((size, size, 3), "uint8") for key in cameras}
        action = ArraySpec((10,), names=ACTION_NAMES, frame="world")
        return Spec(obs, action, HZ, cameras, codec="pose_abs")

    def _renderer(self, size: int, look: _mujoco.Look) -> _mujoco.Renderer:
        if (size, look) not in self._renderers:
            self._renderers[size, look] = _mujoco.Renderer(self.model, size, look)
        return self._renderers[size, look]


def _limited(inertia: float, most: float, lag: list[float], slip: list[float]) -> list[float]:
    """Returns the servo's force (3,) for how far and how much slower than its goal the gripper is, at most `most` long."""
    stiff, damp = inertia * STIFF * STIFF, 2.0 * inertia * STIFF  # critically damped
    x, y, z = (stiff * a + damp * b for a, b in zip(lag, slip, strict=True))
    share = min(1.0, most / max(math.sqrt(x * x + y * y + z * z), 1e-9))
    return [share * x, share * y, share * z]


def _quat_wxyz(matrix: np.ndarray) -> np.ndarray:
    """Returns the unit quaternion (4,) of a rotation (3, 3); at every tick, where geometry's checks would cost most of it."""
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, np.ascontiguousarray(matrix).ravel())
    return quat if quat[0] >= 0 else -quat


def landmarks(env: TwoHands) -> np.ndarray:
    """Returns the exact 21 landmarks (21, 3) [m] in the world of the hand that stands, or would stand, for the gripper now."""
    hand_from_point = _two_hands_hand.posed(env.gripper_half(), env.hand_facts())
    world_from_hand = env.eef_pose()
    return hand_from_point @ world_from_hand[:3, :3].T + world_from_hand[:3, 3]
