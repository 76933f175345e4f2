"""A person as a model: sees the robot late, moves the hand towards the next part of a path, trembles, drifts, and holds an elbow.

For tests and benchmarks that need an operator and have none. The hand closes the loop as a person does,
    v = gain (aim - x),   x = seen(t - reaction) + (hand(t) - hand(t - reaction)),
with the aim the furthest point of the path within `lead` of x (pure pursuit), v through two lags and with noise in proportion
to it. Every draw comes from the generator given, time from the number of steps. Torso frame: x forward, y left, z up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from robolearn import geometry
from robolearn.core import TeleopSample
from robolearn.errors import BadInput

Array = np.ndarray
METRES_PER_RAD = 0.1  # how far a turn counts as a way
SHOULDER = np.array([0.0, -0.20, 0.0])  # [m] torso frame, right arm
UPPER_M, LOWER_M = 0.30, 0.27
REST = np.array([0.30, -0.22, -0.08])  # [m] of the hand as an episode begins, torso frame
STRAIGHT = 0.98  # share of the arm's length beyond which the elbow is held


@dataclass(frozen=True)
class Person:
    """How a person moves. hz: of the tracking device; reaction_s: between seeing and moving; gain [1/s], lag_s, max_speed [m/s],
    max_turn [rad/s]: of the hand; noise: share of the speed; tremor_m, tremor_hz: amplitude and band; drift_m over drift_s: slow
    wander; sensor_m, sensor_rad: noise of the device; swivel_rad over swivel_s: wander of the elbow about shoulder-wrist;
    wait_s: before engaging; clutch_every_s: mean time between letting go of the clutch to move the hand back (0: never).
    """

    hz: float = 60.0
    reaction_s: float = 0.15
    gain: float = 3.0
    lag_s: float = 0.05
    max_speed: float = 0.20
    max_turn: float = 0.8
    noise: float = 0.15
    tremor_m: float = 0.001
    tremor_hz: tuple[float, float] = (8.0, 12.0)
    drift_m: float = 0.002
    drift_s: float = 1.5
    sensor_m: float = 0.0005
    sensor_rad: float = 0.004
    swivel_rad: float = 0.2
    swivel_s: float = 1.5
    wait_s: float = 0.15
    clutch_every_s: float = 0.0
    clutch_off_s: float = 0.4


@dataclass(frozen=True)
class Link:
    """How samples travel: delay_s, plus up to jitter_s, and a share `loss` never arrives."""

    delay_s: float = 0.01
    jitter_s: float = 0.0
    loss: float = 0.0

    def __post_init__(self) -> None:
        if min(self.delay_s, self.jitter_s) < 0 or not 0 <= self.loss < 1:
            raise BadInput(f"link: want times not below 0 and loss in [0, 1), got {self.delay_s}, {self.jitter_s}, {self.loss}")


@dataclass(frozen=True)
class Part:
    """A stretch of the way: poses (n, 4, 4) of the robot's hand [m], then the gripper, then a rest.

    lead [m]: how far ahead the person aims; tolerance [m]: when they are content; rest_s: after it.
    """

    path: Array
    closing: bool
    lead: float
    tolerance: float
    rest_s: float = 0.0


class Hand(NamedTuple):
    """One sample of the person's hand before it travels: torso_from_hand (4, 4) [m], keypoints (3, 3) [m], grip, dead-man."""

    pose: Array
    keypoints: Array
    grip: float
    held: bool


class Wander:
    """A smooth random vector (n,) of standard deviation 1 with correlation time `tau_s` [s]: two equal lags of white noise."""

    def __init__(self, n: int, tau_s: float, dt: float, rng: np.random.Generator) -> None:
        self.rng, self.keep = rng, float(np.exp(-dt / max(tau_s, dt)))
        self.a = rng.normal(size=n)
        self.b = np.zeros(n)
        k = self.keep
        self.scale = float(np.sqrt((1 + k * k) / (1 + k) ** 2))  # of b, whose variance is that in the long run

    def step(self) -> Array:
        """Returns the next value."""
        k = self.keep
        self.a = k * self.a + np.sqrt(1 - k * k) * self.rng.normal(size=len(self.a))
        self.b = k * self.b + (1 - k) * self.a
        return self.b / self.scale


class Operator:
    """A person following `parts` by looking at the robot's hand; `step` is one sample of their device, `done` at the end."""

    def __init__(self, parts: Sequence[Part], robot: Array, person: Person, rng: np.random.Generator) -> None:
        if not parts:
            raise BadInput("operator: want at least one part of a way, got none")
        self.parts, self.person, self.rng = list(parts), person, rng
        self.dt = 1.0 / person.hz
        self.steps, self.part, self.k, self.rested = 0, 0, 0, 0.0
        self.start = np.array(robot, float)
        self.moved, self.turned = np.zeros(3), np.eye(3)  # by the hand while it is engaged
        self.offset = np.zeros(3)  # by the hand while it is not
        self.v, self.w = np.zeros((2, 3)), np.zeros((2, 3))
        self.free_s = 0.0
        delay = max(1, round(person.reaction_s * person.hz))
        self.past: deque[tuple[Array, Array, Array]] = deque(maxlen=delay)
        self.drift, self.swivel = Wander(6, person.drift_s, self.dt, rng), Wander(1, person.swivel_s, self.dt, rng)
        self.tremor_hz = rng.uniform(*person.tremor_hz, size=3)
        self.tremor_at = rng.uniform(0, 2 * np.pi, size=3)

    @property
    def done(self) -> bool:
        """Whether all parts are behind the person."""
        return self.part >= len(self.parts)

    def step(self, robot: Array) -> Hand:
        """Returns the hand one device period later, the robot's hand being at `robot` (4, 4)."""
        self.steps += 1
        held = self.steps * self.dt > self.person.wait_s and self._clutched()
        self.past.append((np.array(robot, float), self.moved.copy(), self.turned.copy()))
        seen, moved_then, turned_then = self.past[0]
        position = seen[:3, 3] + self.moved - moved_then
        rotation = self.turned @ turned_then.T @ seen[:3, :3]
        gap, turn = self._wish(position, rotation) if held else (np.zeros(3), np.zeros(3))
        self._move(gap, turn, held)
        return self._sample(held)

    def _wish(self, position: Array, rotation: Array) -> tuple[Array, Array]:
        """Returns how far (3,) [m] and (3,) [rad] the aim is from where the person believes the robot's hand is."""
        part = self.parts[min(self.part, len(self.parts) - 1)]

        def far(pose: Array) -> float:
            turn = METRES_PER_RAD * float(geometry.angle_between(pose[:3, :3], rotation))
            return float(np.hypot(np.linalg.norm(pose[:3, 3] - position), turn))

        while self.k + 1 < len(part.path) and far(part.path[self.k + 1]) <= part.lead:
            self.k += 1
        aim = part.path[self.k]
        if not self.done and self.k == len(part.path) - 1 and (self.rested > 0 or far(aim) <= part.tolerance):
            self.rested += self.dt
            if self.rested >= part.rest_s:
                self.part, self.k, self.rested = self.part + 1, 0, 0.0
        return aim[:3, 3] - position, geometry.rotvec_from_matrix(aim[:3, :3] @ rotation.T)

    def _move(self, gap: Array, turn: Array, held: bool) -> None:
        p, keep = self.person, np.exp(-self.dt / self.person.lag_s)
        for state, error, most in ((self.v, gap, p.max_speed), (self.w, turn, p.max_turn)):
            wanted = p.gain * error
            size = float(np.linalg.norm(wanted))
            wanted = wanted * min(1.0, most / max(size, 1e-12))
            wanted = wanted + p.noise * np.linalg.norm(wanted) * self.rng.normal(size=3)
            state[0] = keep * state[0] + (1 - keep) * wanted
            state[1] = keep * state[1] + (1 - keep) * state[0]
        if held:
            self.moved = self.moved + self.v[1] * self.dt
            self.turned = geometry.matrix_from_rotvec(self.w[1] * self.dt) @ self.turned
        else:  # the hand goes back to where it is comfortable
            back = -(self.moved + self.offset)
            self.offset = self.offset + np.clip(back, -p.max_speed * self.dt, p.max_speed * self.dt)

    def _clutched(self) -> bool:
        p = self.person
        if self.free_s > 0:
            self.free_s -= self.dt
            return self.free_s <= 0
        if p.clutch_every_s > 0 and self.rng.random() < self.dt / p.clutch_every_s:
            self.free_s = p.clutch_off_s
            return False
        return True

    def _sample(self, held: bool) -> Hand:
        p = self.person
        wander = self.drift.step()
        self.tremor_at = self.tremor_at + 2 * np.pi * self.tremor_hz * self.dt
        shake = p.tremor_m * np.sin(self.tremor_at) / np.sqrt(3)
        true = REST + self.moved + self.offset + p.drift_m * wander[:3] + shake
        turn = p.drift_m / METRES_PER_RAD * wander[3:] + p.sensor_rad * self.rng.normal(size=3)
        rotation = geometry.matrix_from_rotvec(turn) @ self.turned
        position = true + p.sensor_m * self.rng.normal(size=3)
        keypoints = limb(position, p.swivel_rad * float(self.swivel.step()[0]))
        parts = self.parts
        closing = parts[min(self.part, len(parts) - 1)].closing
        if not self.done and self.rested > 0 and self.part + 1 < len(parts):
            closing = parts[self.part + 1].closing  # content with the place: the fingers go first
        return Hand(geometry.pose(position, rotation), keypoints, float(closing), held)


def limb(wrist: Array, swivel_rad: float) -> Array:
    """Returns shoulder, elbow and wrist (3, 3) [m, torso frame] of a right arm; swivel 0: the elbow hangs down, + outwards."""
    reach = wrist - SHOULDER
    far = float(np.linalg.norm(reach))
    e = reach / max(far, 1e-9)
    far = float(np.clip(far, abs(UPPER_M - LOWER_M) + 0.02, STRAIGHT * (UPPER_M + LOWER_M)))
    down = np.array([0.0, 0.0, -1.0]) - e * -e[2]
    down = down / max(float(np.linalg.norm(down)), 1e-9)
    side = np.cross(e, down)
    out = np.cos(swivel_rad) * down - np.sin(swivel_rad) * side
    cos_a = (UPPER_M**2 + far**2 - LOWER_M**2) / (2 * UPPER_M * far)
    elbow = SHOULDER + UPPER_M * (cos_a * e + np.sqrt(max(0.0, 1 - cos_a**2)) * out)
    return np.stack([SHOULDER, elbow, SHOULDER + far * e])


class Packets:
    """Samples on their way: `send` at the device's time, `ready` what has arrived by then; late ones are dropped, newest wins."""

    def __init__(self, link: Link, rng: np.random.Generator) -> None:
        self.link, self.rng, self.newest = link, rng, -1
        self.waiting: list[tuple[float, int, TeleopSample]] = []

    def send(self, t_s: float, sample: TeleopSample) -> None:
        """Puts a sample, measured at `t_s` [s], on its way or loses it."""
        lost, wait = self.rng.random() < self.link.loss, self.rng.uniform(0.0, 1.0) * self.link.jitter_s
        if not lost:
            self.waiting.append((t_s + self.link.delay_s + wait, sample.t_dev_ns, sample))

    def ready(self, now_s: float) -> list[tuple[float, TeleopSample]]:
        """Returns (arrival [s], sample) of what has arrived since the last call, in the order of arrival."""
        here = sorted((entry for entry in self.waiting if entry[0] <= now_s), key=lambda entry: entry[:2])
        self.waiting = [entry for entry in self.waiting if entry[0] > now_s]
        out = []
        for arrival, order, sample in here:
            if order > self.newest:
                self.newest = order
                out.append((arrival, sample))
        return out
