"""What the memory tasks on an arm share: a robosuite body in a scene that can hold it still, and a go lamp.

While the scene holds, nothing moves, only the clock: commands are replaced by the pose held (that is what `Step.filtered`
says), so neither poses nor applied actions can carry a fact through the hold. A task makes what follows equal for all facts by
`put`ting the simulator into one and the same state as the hold begins, to the bit. Under equal commands everything observed
from there on is equal, whatever the fact: positions, pictures, and what the physics makes of the commands.

Every number of an extra observation is also a lamp on the table, so that pictures show what the numbers say. All an episode
hides is in `Now` and `kept`, which are part of the saved state.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np

from robolearn import geometry
from robolearn.core import ArraySpec, Camera, Obs, Step
from robolearn.errors import ArrayMismatch
from sim_envs import _mujoco, _robosuite
from sim_envs._robosuite import Body, RobosuiteEnv, Task

VERSION = "1"  # rises when equal seeds no longer give equal episodes
Rgba = tuple[float, float, float, float]
Point = tuple[float, float, float]  # [m], world

_DRAW = 7  # keeps the task's draws apart from those that robosuite takes from the same seed
_RUNNING, _SUCCESS, _WRONG = 0.0, 1.0, 2.0
_LIT, _DARK = (0.15, 0.85, 0.25, 1.0), (0.25, 0.25, 0.25, 1.0)


@dataclass(frozen=True)
class Config(Body, ABC):
    """memory_steps: how long the scene holds [ticks]; max_steps: ticks until the episode is cut off (0: as many as it needs)."""

    max_steps: int = 0
    memory_steps: int = 64

    def __post_init__(self) -> None:
        if self.memory_steps < 1:
            raise ValueError(f"memory_steps: want at least 1, got {self.memory_steps}")
        if self.max_steps < 0:
            raise ValueError(f"max_steps: want at least 0, got {self.max_steps}")
        if self.max_steps == 0:
            object.__setattr__(self, "max_steps", self.budget())

    @abstractmethod
    def budget(self) -> int:
        """Returns the ticks that an unhurried episode needs."""


@dataclass
class Now:
    """All that an episode hides beside the simulator's state, in the order in which it is saved.

    fact: class index; free_at: the tick from which commands move the arm; count: what the task counts.
    """

    tick: float = 0.0
    fact: float = 0.0
    free_at: float = 0.0
    count: float = 0.0
    verdict: float = _RUNNING


@dataclass(frozen=True)
class Mark:
    """Something flat or round on the table that can be seen and not touched: where, and its measures [m]."""

    position: Point
    radius: float = 0.05
    height: float = 0.001
    shape: Literal["cylinder", "sphere"] = "cylinder"
    rgba: Rgba = _DARK


GO_LAMP = MappingProxyType({"go": Mark((0.18, 0.0, 0.82), 0.02, shape="sphere")})


def scene(name: str, suite_name: str, marks: Mapping[str, Mark]) -> str:
    """Makes robosuite's environment `suite_name` with `marks` known to robosuite as `name`, and returns that name."""
    base = _robosuite.robosuite.environments.REGISTERED_ENVS[suite_name]

    def load_model(suite: Any) -> None:
        base._load_model(suite)
        for key, mark in marks.items():
            size = [mark.radius] if mark.shape == "sphere" else [mark.radius, mark.height / 2]
            geom = _robosuite.robosuite.utils.mjcf_utils.new_geom(
                _geom_name(key), mark.shape, size, mark.position, group=1, rgba=mark.rgba, contype=0, conaffinity=0, mass=0
            )
            suite.model.worldbody.append(geom)

    type(base)(name, (base,), {"_load_model": load_model})  # robosuite's metaclass files it under its name
    return name


class MemoryArm(ABC):
    """A robosuite body whose scene knows a fact: wrong ends the episode as a failure, right as a success; score is 1 or 0."""

    shows: ClassVar[Mapping[str, ArraySpec]] = MappingProxyType({})  # extra observations beside `go`, named after their lamps

    def __init__(self, task: Task, config: Config) -> None:
        self.task, self.config, self.task_facts = task.name, config, task
        self.inner = RobosuiteEnv(task, config)
        self.model, self.data, self.arms = self.inner.model, self.inner.data, self.inner.arms
        own = {key: spec for key, spec in self.inner.spec.obs.items() if spec.shape != (0,)}  # a scene may have no object
        self.spec = replace(self.inner.spec, obs={**own, **self.shows, "go": ArraySpec((1,), names=("go",))})
        self.now, self.kept = Now(), np.zeros(0)  # kept: a state (n,) that the task remembers, of fixed length
        self._seen: Obs = {}

    # What a task says of itself.

    @abstractmethod
    def begin(self, rng: np.random.Generator) -> None:
        """Draws the fact of an episode and lays out the things."""

    @abstractmethod
    def extras(self) -> dict[str, np.ndarray]:
        """Returns the observations named by `shows`."""

    @abstractmethod
    def judge(self) -> None:
        """Looks at where things are after a tick: `hold`, `put`, `finish` or nothing."""

    # What a body does.

    def reset(self, seed: int | None = None) -> Obs:
        """Starts an episode: joints, things and fact drawn by `seed` (None: fresh entropy). Returns the first observation."""
        entropy = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self.inner.reset(entropy)
        self.now = Now()
        self.begin(np.random.default_rng((_DRAW, entropy)))
        self._paint()
        return self._look()

    def step(self, action: np.ndarray) -> Step:
        """Runs one control tick and returns what came of it; while the scene holds, only the clock moves."""
        action = np.asarray(action, dtype=np.float32)
        self.spec.action.check(action, f"{self.task} action")
        step = self.inner.step(action) if self.free else self._still()
        self._seen = step.obs
        self.now.tick += 1
        if self.now.verdict == _RUNNING:
            self.judge()
        obs = self._look() if self._paint() else self._obs()
        success, done = self.now.verdict == _SUCCESS, self.now.verdict != _RUNNING
        return replace(step, obs=obs, score=float(success), success=success, terminated=done)

    def state(self) -> np.ndarray:
        """Returns the whole state (n,) float64: `now`, what is kept, and the inner body's state."""
        return np.concatenate([list(vars(self.now).values()), self.kept, self.inner.state()])

    def restore(self, state: np.ndarray) -> Obs:
        """Puts a state (n,) of `state` back and returns its observation; what follows is bit-equal to what followed then."""
        state = np.asarray(state, dtype=float)
        hidden, kept, want = len(fields(Now)), len(self.kept), len(self.state())
        if state.shape != (want,):
            raise ArrayMismatch(f"{self.task} state: want ({want},), got {state.shape}; is it another robot's or task's?")
        self.now, self.kept = Now(*state[:hidden].tolist()), state[hidden : hidden + kept].copy()
        self._paint()
        self._seen = self.inner.restore(state[hidden + kept :])
        return self._obs()

    def with_fact(self, fact: int) -> Obs:
        """Returns what is seen now if the fact of this episode is `fact`, all else as it is; the episode goes on so."""
        self.now.fact = float(fact)
        return self._look() if self._paint() else self._obs()

    def render(self, camera: str | None = None, size: int = 512) -> np.ndarray:
        """Returns a picture (size, size, 3) uint8 from `camera` (default: the task's best view), with smooth edges."""
        return self.inner.render(camera, size)

    def close(self) -> None:
        """Frees renderers and simulator."""
        self.inner.close()

    def versions(self) -> dict[str, str]:
        """Returns the versions of the rules, of physics and renderer."""
        return {"memory_arm": VERSION, **self.inner.versions()}

    def eef_pose(self, arm: int = 0) -> np.ndarray:
        """Returns world_from_eef (4, 4) [m] of the grip site between the fingertips."""
        return self.inner.eef_pose(arm)

    def object_poses(self) -> dict[str, np.ndarray]:
        """Returns world_from_object (4, 4) [m] of every object of the task, by name."""
        return self.inner.object_poses()

    def calibration(self, camera: str) -> Camera:
        """Returns the calibration of an observation's camera, where it is now."""
        return self.inner.calibration(camera)

    def gripper_closed(self, arm: int = 0) -> bool:
        """Returns whether the gripper's last command closes it."""
        return self.inner.gripper_closed(arm)

    def gripper_opening(self, arm: int = 0) -> float:
        """Returns the distance [m] between the middles of the two finger pads."""
        return self.inner.gripper_opening(arm)

    # What a task calls.

    @property
    def free(self) -> bool:
        """True while commands move the arm, which is what the go lamp says."""
        return self.now.tick >= self.now.free_at

    def hold(self, ticks: int) -> None:
        """Keeps everything still for `ticks` observations, this one included."""
        self.now.free_at = self.now.tick + ticks

    def put(self, state: np.ndarray) -> None:
        """Puts the inner body into `state` (n,), at the time that it is now."""
        now = self.data.time
        self._seen = self.inner.restore(state)
        self.data.time = now

    def rest(self, unused: str, away: Point) -> np.ndarray:
        """Returns the inner body's state (n,) at rest with all arms at home and the scene's `unused` thing hidden at `away`."""
        self.model.geom_group[self.model.geom_bodyid == self.model.body(unused).id] = _mujoco.HIDDEN
        self.inner.reset(0)
        self.clear(unused, away)
        for arm in self.arms:
            self.data.qpos[arm.qpos] = arm.home
        self.data.qvel[:] = 0.0
        for arm in self.arms:
            arm.reset(self.data)
        self.inner.restore(self.inner.state())
        return self.inner.state()

    def clear(self, unused: str, away: Point) -> None:
        """Lays a thing that has no part in the task down out of the way."""
        thing_to(self.inner, unused, geometry.pose(list(away), np.eye(3)))

    def finish(self, success: bool) -> None:
        """Ends the episode."""
        self.now.verdict = _SUCCESS if success else _WRONG

    def hand_is_at(self, point: Point | np.ndarray, within: float, arm: int = 0) -> bool:
        """Returns whether the grip site is within that distance [m] of a point."""
        return float(np.linalg.norm(self.eef_pose(arm)[:3, 3] - point)) < within

    def _still(self) -> Step:
        """Returns a tick in which nothing moves: the command is the pose held, the motors' commands are the last ones."""
        self.data.time += 1 / self.config.hz
        clocks = {"monotonic": time.monotonic_ns(), "wall": time.time_ns(), "sim": round(self.data.time * 1e9)}
        return Step(self._seen, self._held(), self.data.ctrl.astype(np.float32), clocks)

    def _held(self) -> np.ndarray:
        """Returns the action (action,) that asks for the pose of now."""
        return np.concatenate([self._held_by(k) for k in range(len(self.arms))]).astype(np.float32)

    def _held_by(self, k: int) -> np.ndarray:
        arm, hand = self.arms[k], self.eef_pose(k)
        if self.config.action == "osc_delta":
            pose = np.zeros(6)
        elif self.config.action == "joint_abs":
            pose = self.data.qpos[arm.qpos]
        else:
            pose = np.concatenate([hand[:3, 3], geometry.rot6d_from_matrix(hand[:3, :3])])
        return np.append(pose, arm.command)

    def _look(self) -> Obs:
        self._seen = self.inner.restore(self.inner.state())
        return self._obs()

    def _lamps(self) -> dict[str, np.ndarray]:
        return {**self.extras(), "go": np.array([self.free], np.float32)}

    def _obs(self) -> Obs:
        seen = {**self._seen, **self._lamps()}
        return {key: seen[key].copy() for key in self.spec.obs}

    def _paint(self) -> bool:
        """Gives every lamp the colour of its number; returns whether one changed."""
        before = self.model.geom_rgba.copy()
        for key, values in self._lamps().items():
            for name, value in zip(self.spec.obs[key].names, values, strict=True):
                self.model.geom(_geom_name(name)).rgba[:] = _LIT if value > 0 else _DARK
        return not np.array_equal(before, self.model.geom_rgba)


def _geom_name(mark: str) -> str:
    return f"mark_{mark}"


def thing_to(env: RobosuiteEnv, body: str, world_from_thing: np.ndarray) -> None:
    """Lays a loose thing down at rest at `world_from_thing` (4, 4)."""
    joint = env.model.joint(int(env.model.body(body).jntadr[0]))
    start, speed = int(joint.qposadr[0]), int(joint.dofadr[0])
    env.data.qpos[start : start + 3] = world_from_thing[:3, 3]
    env.data.qpos[start + 3 : start + 7] = geometry.quat_wxyz_from_matrix(world_from_thing[:3, :3])
    env.data.qvel[speed : speed + 6] = 0.0
