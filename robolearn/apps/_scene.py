"""A simulated task as the world of a robot: joint setpoints move its arm, and a referee places it, watches it and says go.

A scene has one owner, whose plants move it: the emulators of one process, or a virtual arm. Time passes in `ArmPlant.advance`
only. The arm is held by computed torque within the model's own actuators: physics and torque limits are those of the plain task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import mujoco
import numpy as np

from robolearn.errors import ArrayMismatch, BadInput
from sim_envs import _base as sim
from sim_envs._robosuite import PHYSICS_HZ, Body, RobosuiteEnv

MIDDLE = 0.5  # where the fingers are told to be before the first command, as in the plain task


@dataclass(frozen=True)
class SceneConfig:
    """Which world. overrides: of the task's Config; seed: of the first placement.

    stiffness [1/s^2], damping [1/s]: of the error in each joint, times the inertia that the joint feels.
    """

    task: str = "lift"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    stiffness: float = 900.0
    damping: float = 60.0


@dataclass(frozen=True)
class Look:
    """What the referee sees. state: of `SimEnv.state`; t_ns: when it was so, by the owner's clock; episode: counts placements.

    running: False between `reset` and `go`, while the world is held still.
    """

    state: np.ndarray
    t_ns: int
    episode: int
    running: bool


class Referee(Protocol):
    """Who places a world, lets it run and watches it; the robot knows nothing of it."""

    def reset(self, seed: int) -> None:
        """Places arm and objects as the plain task does with this seed, and holds the world still."""

    def go(self) -> None:
        """Lets time run."""

    def look(self) -> Look:
        """Returns what there is to see."""


class Scene:
    """The world, and its `Referee` within the owner's process.

    opening_m: between the finger pads, fully open; on_turn: called at every `advance`, whether the world runs or not.
    """

    def __init__(self, config: SceneConfig, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        """BadInput for a task that is no robosuite task with one arm."""
        self.config, self._clock_ns = config, clock_ns
        self.env = one_armed(config)
        self._model, self._data, self._arm = self.env.model, self.env.data, self.env.arms[0]
        self._ends = finger_ends(self.env)
        self.opening_m = self._ends.opened_m - self._ends.closed_m
        self._finger_step = self._arm.gripper.speed * self.env.config.hz / (2 * PHYSICS_HZ)  # of the whole way, in a physics step
        self._mass = np.zeros((self._model.nv, self._model.nv))
        self.torque = np.ones(len(self._arm.qpos), dtype=bool)
        self.on_turn: Callable[[], None] = lambda: None
        self._episode, self._rest_s = -1, 0.0
        self.reset(config.seed)
        self.go()

    def reset(self, seed: int) -> None:
        """Places arm and objects as the plain task does with this seed, and holds the world still."""
        self.env.reset(seed)
        self.target = self.q
        self.aperture = self._finger = MIDDLE
        self._running, self._rest_s, self._t_ns = False, 0.0, self._clock_ns()
        self._episode += 1

    def go(self) -> None:
        """Lets time run."""
        self._running = True

    def look(self) -> Look:
        """Returns what there is to see."""
        return Look(self.env.state(), self._t_ns, self._episode, self._running)

    @property
    def q(self) -> np.ndarray:
        """Joints (n,) [rad] as the model counts them."""
        return np.array(self._data.qpos[self._arm.qpos])

    @property
    def qd(self) -> np.ndarray:
        """Joint speeds (n,) [rad/s]."""
        return np.array(self._data.qvel[self._arm.dofs])

    @property
    def effort(self) -> np.ndarray:
        """Torques of the actuators (n,) [N m]."""
        return np.array(self._data.ctrl[self._arm.actuators])

    @property
    def opening(self) -> float:
        """Between the finger pads [m]; 0 where they meet."""
        mujoco.mj_kinematics(self._model, self._data)
        return max(0.0, self.env.gripper_opening() - self._ends.closed_m)

    def advance(self, seconds: float) -> None:
        """Lets so much time pass, in whole physics steps; what is left over is kept for the next call."""
        self.on_turn()
        if self._running:
            self._rest_s += seconds
            steps = int(self._rest_s * PHYSICS_HZ + 1e-6)
            self._rest_s -= steps / PHYSICS_HZ
            for _ in range(steps):
                mujoco.mj_step1(self._model, self._data)
                self._actuate()
                mujoco.mj_step2(self._model, self._data)
        self._t_ns = self._clock_ns()

    def _actuate(self) -> None:
        """Writes the controls of this physics step."""
        data, arm, c = self._data, self._arm, self.config
        mujoco.mj_fullM(self._model, self._mass, data.qM)
        pull = c.stiffness * (self.target - data.qpos[arm.qpos]) - c.damping * data.qvel[arm.dofs]
        torques = self._mass[arm.dofs, arm.dofs] @ pull + data.qfrc_bias[arm.dofs] - data.qfrc_passive[arm.dofs]
        data.ctrl[arm.actuators] = np.where(self.torque, np.clip(torques, arm.low, arm.high), 0.0)
        self._finger += float(np.clip(self.aperture - self._finger, -self._finger_step, self._finger_step))
        data.ctrl[arm.fingers] = self._ends.closed + self._finger * (self._ends.opened - self._ends.closed)


class ArmPlant:
    """The arm of a scene as a `core.Plant`; what moves it moves the world. torque: (n,) bool, which joints are held."""

    def __init__(self, scene: Scene, signs: Sequence[int] = (), zeros: Sequence[float] = ()) -> None:
        """signs, zeros [rad]: q of the device = signs (q of the model - zeros); empty: the device counts as the model does."""
        n = len(scene.q)
        self._scene, self._signs, self._zeros = scene, np.array(signs or (1,) * n), np.array(zeros or (0.0,) * n)
        if len(self._signs) != n or len(self._zeros) != n:
            raise BadInput(f"scene: the arm has {n} joints, got {len(self._signs)} signs and {len(self._zeros)} zeros")
        self.torque = scene.torque

    def command(self, target: np.ndarray) -> None:
        """Takes a target (n,) [rad] of the device; ArrayMismatch for another shape or what is not finite."""
        target = np.asarray(target, dtype=float)
        if target.shape != self._zeros.shape or not np.isfinite(target).all():
            raise ArrayMismatch(f"scene: want {len(self._zeros)} finite joint angles, got {np.array2string(target, threshold=8)}")
        self._scene.target = self._signs * target + self._zeros

    def advance(self, seconds: float) -> None:
        """Lets so much time pass in the scene."""
        self._scene.advance(seconds)

    def measure(self) -> Mapping[str, np.ndarray]:
        """Returns q [rad], qd [rad/s] and effort [N m] of the device, each (n,)."""
        s = self._scene
        return {"q": self._signs * (s.q - self._zeros), "qd": self._signs * s.qd, "effort": self._signs * s.effort}


class FingerPlant:
    """The fingers of a scene as a `core.Plant` with one joint: the opening [m], or an angle in proportion to it.

    torque: (1,) bool; fingers without it stay where they were told to be.
    """

    def __init__(self, scene: Scene, open_at: float = 0.0) -> None:
        """open_at: what the joint reads when open, [m] or [rad]; 0: the opening itself. It reads 0 when closed."""
        self._scene, self._open_at = scene, open_at or scene.opening_m
        self.torque = np.ones(1, dtype=bool)

    def command(self, target: np.ndarray) -> None:
        """Takes the opening (1,) that is wanted; ArrayMismatch for another shape or what is not finite."""
        target = np.asarray(target, dtype=float)
        if target.shape != (1,) or not np.isfinite(target).all():
            raise ArrayMismatch(f"scene: want one finite opening, got {np.array2string(target, threshold=8)}")
        if self.torque[0]:
            self._scene.aperture = float(np.clip(target[0] / self._open_at, 0.0, 1.0))

    def advance(self, seconds: float) -> None:
        """Does nothing: the arm's plant moves the scene."""
        del seconds  # Unused: see above.

    def measure(self) -> Mapping[str, np.ndarray]:
        """Returns q, qd (0: it is not measured) and effort 0, each (1,)."""
        share = self._scene.opening / self._scene.opening_m
        return {"q": np.array([share * self._open_at]), "qd": np.zeros(1), "effort": np.zeros(1)}


class ServoPlant:
    """Arm and fingers on one bus, as one `core.Plant`: the arm's joints, then the gripper's angle [rad]."""

    def __init__(self, arm: ArmPlant, fingers: FingerPlant) -> None:
        self._arm, self._fingers = arm, fingers
        self.torque = np.concatenate([arm.torque, fingers.torque])

    def command(self, target: np.ndarray) -> None:
        """Takes a target (n + 1,) [rad]."""
        self._arm.torque[:], self._fingers.torque[:] = self.torque[:-1], self.torque[-1:]
        self._arm.command(target[:-1])
        self._fingers.command(target[-1:])

    def advance(self, seconds: float) -> None:
        """Lets so much time pass in the scene."""
        self._arm.advance(seconds)

    def measure(self) -> Mapping[str, np.ndarray]:
        """Returns q [rad], qd [rad/s] and effort, each (n + 1,)."""
        arm, fingers = self._arm.measure(), self._fingers.measure()
        return {key: np.concatenate([arm[key], fingers[key]]) for key in arm}


@dataclass(frozen=True)
class FingerEnds:
    """Controls of the finger actuators (m,) when closed and opened, and the distance of the pads' middles there [m]."""

    closed: np.ndarray
    opened: np.ndarray
    closed_m: float
    opened_m: float


def finger_ends(env: RobosuiteEnv) -> FingerEnds:
    """Returns the ends of a gripper's way, from its own commands on a copy of the state."""
    arm, model, data = env.arms[0], env.model, mujoco.MjData(env.model)
    memory, controls, distances = arm.memory(), [], []
    for command in (1.0, -1.0):
        for _ in range(round(2 / arm.gripper.speed) + 1):
            arm.gripper.format_action(np.array([command]))
        controls.append(arm.finger_middle + arm.finger_half * arm.gripper.current_action)
        joints = model.actuator_trnid[arm.fingers, 0]
        data.qpos[model.jnt_qposadr[joints]] = controls[-1]  # position actuators: a control is where the joint goes
        mujoco.mj_kinematics(model, data)
        distances.append(float(np.linalg.norm(data.geom_xpos[arm.pads[0]] - data.geom_xpos[arm.pads[1]])))
    arm.remember(memory)
    return FingerEnds(controls[0], controls[1], distances[0], distances[1])


def one_armed(config: SceneConfig) -> RobosuiteEnv:
    """Returns the body of a scene's task; BadInput for a task that is no robosuite task with one arm."""
    env = sim.make(config.task, config.overrides) if issubclass(sim.module(config.task).Config, Body) else None
    if not isinstance(env, RobosuiteEnv) or len(env.arms) != 1:
        raise BadInput(f"scene: task '{config.task}' has no single arm of robosuite, as lift, can or square have")
    return env
