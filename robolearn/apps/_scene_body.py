"""A robot whose world is a scene, as a body: its joints come from its driver, objects and success from the referee.

The observations are those of the plain task, key by key: what an arm knows of itself is computed from its measured joints, the
rest is the task's own, as a tracker beside the robot would see it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from hardware._base import ArmState, Setpoint, State, Stop
from hardware._errors import StaleData
from hardware._records import Sample
from hardware.real_env import Arm, Eye, RealEnv, Sensed, Shown
from robolearn import geometry
from robolearn.apps._scene import MIDDLE, Look, Referee, SceneConfig, finger_ends, one_armed
from robolearn.clock import Deadline
from robolearn.core import Ask, Chunk, Obs, Policy, Spec, Step
from robolearn.runtime.codecs._base import make_codec
from robolearn.runtime.kinematics import Hand
from sim_envs._robosuite import RobosuiteEnv

_FRESH = 2  # cycles after which a sample is certainly of after a placement
_ANEW_S, _LOOK_S = 2.0, 0.005  # how long pictures of a new placement are waited for, and between two looks for them


class Twin:
    """The scene's task on the evaluator's side, which shows what the referee last saw. spec: of the plain task."""

    def __init__(self, config: SceneConfig, referee: Referee, env: RobosuiteEnv | None = None) -> None:
        """config: of the scene; a camera in its overrides is drawn at every look.

        env: the body of the scene itself, where it is in this thread; None: a copy.
        """
        self.env, self.referee = env or one_armed(config), referee
        self.spec = self.env.spec
        self._obs: Obs = {}
        self._shown: tuple[np.ndarray, Obs] | None = None

    def see(self) -> Look:
        """Looks, and sets the body to what there is."""
        look = self.referee.look()
        self._obs = self.env.restore(look.state)
        return look

    def read(self, key: str) -> tuple[np.ndarray, int]:
        """Returns an observation of the plain task and when it was so [monotonic ns]."""
        look = self.see()
        return self._obs[key], look.t_ns

    def drawn(self, state: np.ndarray) -> Obs:
        """Returns the observation of a state, for a body that only draws: asked again for the same one, it draws nothing."""
        if self._shown is None or not np.array_equal(self._shown[0], state):
            self._shown = np.array(state), self.env.restore(state)
        return self._shown[1]

    def success(self) -> bool:
        """Returns whether the task is solved in what was seen last: its own check."""
        return self.env.success()

    def close(self) -> None:
        """Frees the body."""
        self.env.close()


class Placeable(Arm, Protocol):
    """An arm that can be switched off, placed from outside and switched on again; `Hosted` and `Stepped` are."""

    def configure(self) -> object: ...
    def activate(self) -> None: ...
    def deactivate(self, stop: Stop, *, drop: bool = False) -> None: ...
    def clear_fault(self) -> None: ...
    def read_fresh(self, after: int, timeout_s: float) -> Sample: ...


def place(arm: Placeable, referee: Referee, seed: int | None, wait: Callable[[], None] = lambda: None) -> None:
    """Begins an episode: the arm is switched off, placed and switched on where it then is, and time runs.

    wait: until a gripper that remembers its last command has followed a new one: the fingers begin half open, as in the
    plain task.
    """
    life = arm.read().life
    if life is State.FAULT:
        arm.clear_fault()
    elif life is State.ACTIVE:
        arm.deactivate(Stop.HOLD)
    referee.reset(int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed)
    arm.read_fresh(arm.read().cycle + _FRESH, 5.0)
    if arm.read().life is State.CONNECTED:
        arm.configure()
    arm.activate()
    arm.command(Setpoint(arm.read().state.q, MIDDLE))
    wait()
    referee.go()


def see_anew(eyes: Mapping[str, Eye], clock_ns: Callable[[], int], sleep: Callable[[float], None]) -> None:
    """Waits until every camera shows what was so after this call: an older picture may be of before a placement.

    StaleData where one does not within two seconds.
    """
    since = clock_ns()
    for key, eye in eyes.items():
        while (frame := eye.newest()) is None or frame.t_capture_ns < since:
            if clock_ns() - since > _ANEW_S * 1e9:
                raise StaleData(key, f"no picture of the new placement in {_ANEW_S:g} s; is its process starved?")
            sleep(_LOOK_S)


class Judged:
    """A `RealEnv` whose steps say whether the task is solved, as the referee sees it; success ends the episode as in the task."""

    def __init__(self, env: RealEnv, twin: Twin) -> None:
        self.env, self.twin, self.spec = env, twin, env.spec

    @property
    def age_s(self) -> float:
        """Age [s] of the oldest input of the newest observation."""
        return self.env.age_s

    @property
    def late(self) -> tuple[str, ...]:
        """Inputs of the newest observation that were late."""
        return self.env.late

    def reset(self, seed: int | None = None) -> Obs:
        """Places arm and objects by the seed and returns the first observation."""
        return self.env.reset(seed)

    def step(self, action: np.ndarray) -> Step:
        """Does one tick and looks at the world."""
        return self._judged(self.env.step(action))

    def still(self) -> Step:
        """Does one tick in which the arm stays, and looks at the world."""
        return self._judged(self.env.still())

    def toward(self, q: np.ndarray) -> Step:
        """Does one tick towards joints (n,) [rad], and looks at the world."""
        return self._judged(self.env.toward(q))

    def where(self) -> np.ndarray:
        """Returns the measured joints (n,) [rad]."""
        return self.env.where()

    def target(self, action: np.ndarray) -> np.ndarray:
        """Returns the joints (n,) [rad] that an action asks for."""
        return self.env.target(action)

    def close(self) -> None:
        """Asks the arm to hold."""
        self.env.close()

    def _judged(self, step: Step) -> Step:
        self.twin.see()
        success = self.twin.success()
        return replace(step, score=float(success), success=success, terminated=success)


@dataclass(frozen=True)
class Wiring:
    """What a body in a scene needs beside twin and arm.

    eyes: cameras by observation key; clock_ns, sleep: of the world; wait: see `place`; sensed: keys that the referee shows,
    though the arm could.
    """

    eyes: Mapping[str, Eye] = field(default_factory=dict)
    clock_ns: Callable[[], int] = time.monotonic_ns
    sleep: Callable[[float], None] = time.sleep
    wait: Callable[[], None] = lambda: None
    sensed: Sequence[str] = ()


def body(twin: Twin, arm: Placeable, spec: Spec | None = None, wiring: Wiring = Wiring()) -> Judged:
    """Returns the arm in its scene as a body. spec: of the plain task, cut to what a policy reads; None: all of it.

    The first tick of an episode begins its grid of time, so that every tick lasts one period.
    """
    plain, w = spec or twin.spec, wiring
    own = {key: one for key, one in shown(twin.env).items() if key in plain.obs and key not in w.sensed}
    eyes = {key: eye for key, eye in w.eyes.items() if key in plain.obs}
    rest = [key for key in plain.obs if key not in own and key not in eyes]
    sensed = {key: Sensed(plain.obs[key], lambda key=key: twin.read(key)) for key in rest}  # type: ignore[misc]
    rate = Deadline(1.0 / plain.hz, w.clock_ns, w.sleep)

    def begin(seed: int | None) -> None:
        place(arm, twin.referee, seed, w.wait)
        see_anew(eyes, w.clock_ns, w.sleep)
        rate.restart()

    codec = make_codec(plain.codec, hand_of(twin.env))
    env = RealEnv(plain, arm, codec, own, eyes=eyes, sensed=sensed, begin=begin, clock_ns=w.clock_ns, rate=rate)
    return Judged(env, twin)


def joints_of(env: RobosuiteEnv) -> tuple[str, ...]:
    """Returns the names of the arm's joints in the model."""
    by_address = {int(env.model.jnt_qposadr[j]): env.model.joint(j).name for j in range(env.model.njnt)}
    return tuple(by_address[int(at)] for at in env.arms[0].qpos)


def limits_of(env: RobosuiteEnv) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lower and upper ends (n,) [rad] of the arm's joints."""
    lower, upper = np.array([env.model.joint(name).range for name in joints_of(env)]).T
    return lower, upper


def hand_of(env: RobosuiteEnv) -> Hand:
    """Returns the kinematics of the task's arm, in the world of the task, up to the point between the fingertips."""
    return Hand(env.model, joints_of(env), env.model.site(env.arms[0].site).name, *limits_of(env))


def shown(env: RobosuiteEnv) -> dict[str, Shown]:
    """Returns the observations of the plain task that an arm knows of itself, from its measured joints and aperture."""
    hand, ends, specs = hand_of(env), finger_ends(env), env.spec.obs

    def turned(state: ArmState) -> np.ndarray:
        return geometry.rot6d_from_matrix(hand.pose(state.q)[:3, :3]).astype(np.float32)

    def opening(state: ArmState) -> np.ndarray:
        return np.array([ends.closed_m + state.aperture * (ends.opened_m - ends.closed_m)], np.float32)

    of: dict[str, Callable[[ArmState], np.ndarray]] = {
        "eef_pos": lambda state: hand.pose(state.q)[:3, 3].astype(np.float32),
        "eef_rot6d": turned,
        "gripper": opening,
        "joint_pos": lambda state: state.q.astype(np.float32),
    }
    return {key: Shown(specs[key], of[key]) for key in of if key in specs}


class Watching:
    """A task's scripted expert on a robot: it reads the objects from the twin, and acts as any policy."""

    def __init__(self, expert: Policy, twin: Twin) -> None:
        """expert: made for `twin.env`."""
        self._expert, self._twin, self.spec = expert, twin, expert.spec

    def reset(self, seed: int | None = None) -> None:
        """Starts an episode."""
        self._expert.reset(seed)

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        """Looks at the world, then goes on."""
        self._twin.see()
        self._expert.observe(obs, applied)

    def plan(self, ask: Ask = Ask()) -> Chunk:
        """Returns the expert's action of this tick."""
        return self._expert.plan(ask)
