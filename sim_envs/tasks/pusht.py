"""PushT: push a tee onto its goal with a round finger, in the physics that the human demonstrations and published scores have.

pymunk at 100 Hz, control at 10 Hz. The finger is a kinematic circle that follows the commanded point under a PD law.
Score of a step: min(1, coverage / 0.95); success and the end: coverage > 0.95. Every constant and the order of the
set-up matter: all 206 human demonstrations replay to 1.5e-5 px with them (`robolearn replay`), and with nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import pymunk

from robolearn.core import ArraySpec, Obs, Spec, Step
from robolearn.errors import BadInput
from sim_envs import _tee
from sim_envs._pusher import Pusher

HZ = 10.0
SUBSTEPS = 10
DT = 0.01  # [s]
STIFFNESS, DAMPING = 100.0, 20.0  # of the finger's PD law [1/s^2], [1/s]
SOLVED = 0.95  # coverage

_RESET_ORDER, _POSE_ORDER = 0.0, 1.0
_HEAD = 17  # numbers in a state before the actions


@dataclass(frozen=True)
class Config:
    """cameras: ("img",) adds the picture to the observations; image_size: its side [px]; max_steps: ticks of 0.1 s."""

    max_steps: int = 300
    cameras: tuple[str, ...] = ()
    image_size: int = 96

    def __post_init__(self) -> None:
        if unknown := [camera for camera in self.cameras if camera != "img"]:
            raise ValueError(f"cameras: unknown camera '{unknown[0]}' (known: img)")


class PushT:
    """The table, the tee and the finger.

    A state is: finger x, y; tee x, y, angle; their velocities; tick; start pose and its order; all actions so far. The
    solver of pymunk keeps contacts that it does not show, so a state is continued bit by bit by replaying its actions.
    """

    task = "pusht"

    def __init__(self, config: Config = Config()) -> None:
        self.config = config
        obs = {
            "state": ArraySpec((5,), "float32", ("agent_x", "agent_y", "block_x", "block_y", "block_angle"), "px, rad", "table"),
            "keypoint": ArraySpec((9, 2), "float32", ("x", "y"), "px", "table"),
        }
        if config.cameras:
            obs["img"] = ArraySpec((config.image_size, config.image_size, 3), "uint8")
        self.spec = Spec(obs=obs, action=ArraySpec((2,), "float32", ("x", "y"), "px", "table"), hz=HZ)
        self._start = np.zeros(5)
        self._order = _RESET_ORDER
        self._actions: list[np.ndarray] = []
        self._build()

    def versions(self) -> dict[str, str]:
        """Returns the versions of physics and renderer."""
        return {"pymunk": pymunk.version, "chipmunk": pymunk.chipmunk_version, "opencv": cv2.__version__}

    def reset(self, seed: int | None = None) -> Obs:
        """Returns the first observation of the episode that `seed` gives, as in the benchmark."""
        random = np.random.RandomState(seed)  # the published seeds are those of this generator
        x, y = random.randint(50, 450), random.randint(50, 450)
        block_x, block_y = random.randint(100, 400), random.randint(100, 400)
        return self._begin(np.array([x, y, block_x, block_y, random.randn() * 2 * np.pi - np.pi]), _RESET_ORDER)

    def step(self, action: np.ndarray) -> Step:
        """Moves the finger towards `action` (x, y) [px] for 0.1 s."""
        action = np.asarray(action, dtype=np.float64)
        self._advance(action)
        covered = self.coverage()
        done = covered > SOLVED
        return Step(
            obs=self._obs(),
            filtered=action.astype(np.float32),
            sent=action.astype(np.float32),
            t_ns={"sim": round(len(self._actions) * 1e9 / HZ)},
            score=min(1.0, covered / SOLVED),
            success=done,
            terminated=done,
            truncated=not done and len(self._actions) >= self.config.max_steps,
        )

    def coverage(self) -> float:
        """Returns the share of the goal's area that the tee covers."""
        return _tee.coverage(*self._block.position, self._block.angle)

    def state(self) -> np.ndarray:
        """Returns the whole state (17 + 2 max_steps,) float64; see the class."""
        if len(self._actions) > self.config.max_steps:
            raise BadInput(f"pusht: a state holds {self.config.max_steps} actions, this episode has {len(self._actions)}")
        out = np.zeros(_HEAD + 2 * self.config.max_steps)
        out[:_HEAD] = (*self._pose(), *self._motion(), len(self._actions), *self._start, self._order)
        if self._actions:
            out[_HEAD : _HEAD + 2 * len(self._actions)] = np.concatenate(self._actions)
        return out

    def restore(self, state: np.ndarray) -> Obs:
        """Returns the observation of a saved `state`, or of a pose (5,) x, y, x, y [px], angle [rad] at rest."""
        state = np.asarray(state, dtype=np.float64)
        if state.shape == (5,):
            return self._begin(state, _POSE_ORDER)
        if state.shape[0] < _HEAD:
            raise BadInput(
                f"pusht: want a state of {_HEAD + 2 * self.config.max_steps} numbers or a pose of 5, got {state.shape}"
            )
        self._begin(state[11:16], state[16])
        for action in state[_HEAD : _HEAD + 2 * int(state[10])].reshape(-1, 2):
            self._advance(action)
        return self._obs()

    def render(self, camera: str | None = None) -> np.ndarray:
        """Returns the picture (512, 512, 3) uint8 RGB for people, or the observation `camera` "img"."""
        if camera == "img":
            return _tee.draw_observation(self._pose()[:2], self._pose()[2:], self.config.image_size)
        return _tee.draw_picture(
            self._pose()[:2], self._pose()[2:], self._actions[-1] if self._actions else None, self.coverage()
        )

    def close(self) -> None:
        """Holds nothing open."""

    def _build(self) -> None:
        """Builds the table anew; the order of the insertions fixes the order in which the solver visits contacts."""
        self._space = pymunk.Space()
        self._space.damping = 0
        for a, b in _tee.WALLS:
            self._space.add(pymunk.Segment(self._space.static_body, a, b, _tee.WALL_RADIUS))
        self._agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self._agent.position = (256, 400)
        self._space.add(self._agent, pymunk.Circle(self._agent, _tee.AGENT_RADIUS))
        mass = 1.0
        self._block = pymunk.Body(mass, 2 * pymunk.moment_for_poly(mass, _tee.BAR))
        parts = [pymunk.Poly(self._block, _tee.BAR), pymunk.Poly(self._block, _tee.STEM)]
        self._block.center_of_gravity = (parts[0].center_of_gravity + parts[1].center_of_gravity) / 2
        self._block.position = (256, 300)
        self._space.add(self._block, *parts)

    def _begin(self, start: np.ndarray, order: float) -> Obs:
        self._build()
        self._start, self._order, self._actions = start.copy(), order, []
        x, y, block_x, block_y, angle = start.tolist()
        self._agent.position = (x, y)
        # Position and angle do not commute: the tee turns about its centre of gravity, which is not its frame's origin.
        if order == _POSE_ORDER:
            self._block.angle = angle
        self._block.position = (block_x, block_y)
        self._block.angle = angle
        self._space.step(DT)
        return self._obs()

    def _advance(self, action: np.ndarray) -> None:
        x, y = action.tolist()
        agent, space = self._agent, self._space
        vx, vy = agent.velocity
        for _ in range(SUBSTEPS):
            px, py = agent.position
            vx += (STIFFNESS * (x - px) - DAMPING * vx) * DT
            vy += (STIFFNESS * (y - py) - DAMPING * vy) * DT
            agent.velocity = (vx, vy)
            space.step(DT)
        self._actions.append(action)

    def _pose(self) -> np.ndarray:
        block = self._block
        return np.array([*self._agent.position, *block.position, block.angle % (2 * math.pi)])

    def _motion(self) -> np.ndarray:
        return np.array([*self._agent.velocity, *self._block.velocity, self._block.angular_velocity])

    def _obs(self) -> Obs:
        pose = self._pose()
        obs = {"state": pose.astype(np.float32), "keypoint": _tee.place(_tee.KEYPOINTS, *pose[2:]).astype(np.float32)}
        if self.config.cameras:
            obs["img"] = self.render("img")
        return obs


def make(config: Config) -> PushT:
    """Returns the body, ready to be reset."""
    return PushT(config)


def mirror(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns rows (n, ...) of `state`, `keypoint` and `action` as seen in a mirror along the line x + y = 512.

    That line is an axis of the table and of the goal, and the tee is its own mirror image: what solves the task, solves it
    mirrored. (The walls, centred at 255.5, move by one px; `keypoint` is of the same points of the tee, not their twins.)
    """
    if "keypoint" in rows and "state" not in rows:
        raise BadInput("pusht: want 'state' beside 'keypoint' to mirror them")
    flipped = {"action": lambda: _flip(rows["action"]), "state": lambda: _flip_state(rows["state"])}
    out = {key: make() for key, make in flipped.items() if key in rows}
    if "keypoint" in rows:
        out["keypoint"] = np.stack([_tee.place(_tee.KEYPOINTS, *pose) for pose in out["state"][:, 2:]])
    return out


def _flip(points: np.ndarray) -> np.ndarray:
    return 2 * _tee.GOAL[0] - points[..., ::-1].astype(np.float64)


def _flip_state(state: np.ndarray) -> np.ndarray:
    angle = (2 * _tee.GOAL[2] - state[:, 4:].astype(np.float64)) % (2 * math.pi)
    return np.concatenate([_flip(state[:, :2]), _flip(state[:, 2:4]), angle], axis=1)


def expert(env: PushT, rng: np.random.Generator) -> Pusher:
    """Returns a scripted pusher that looks one push ahead in a simulator of its own."""
    return Pusher(PushT(Config(max_steps=10_000)), env.spec, rng)
