"""The operator model on a body: a person who saw the real demonstration and repeats it by eye, as a device and as a pilot.

The hand's way comes from the human demonstration of robosuite, cut relative to the object and moved to where the object of
this reset lies; the person of `robolearn.teleop.operator_model` follows it with their own noise, delay and elbow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from robolearn import geometry
from robolearn.apps import _cockpit
from robolearn.apps._expand import RECIPES, Recipe, find_cuts
from robolearn.apps.expand import find_source
from robolearn.core import Outcome, Spec, TeleopSample, Tick
from robolearn.data import adapt
from robolearn.data.adapt import Cuts
from robolearn.data.convert.robosuite_demo import read_demo
from robolearn.data.source import Source, read_source
from robolearn.errors import BadInput
from robolearn.teleop import robots
from robolearn.teleop.arm import Arm
from robolearn.teleop.clutch import Clutch, Feel
from robolearn.teleop.drives import Drive, Follower, simple_drives
from robolearn.teleop.follow import HandPose, Sew
from robolearn.teleop.operator_model import Link, Operator, Packets, Part, Person
from robolearn.teleop.pilot import Pilot, Seat

Array = np.ndarray
Kind = Literal["keypoints", "pose"]
FREE, NEAR = 0.06, 0.03  # how far ahead the person aims [m]: in the air, near the object
LOOSE, CLOSE = 0.02, 0.008  # when they are content with a place [m]
LOOK_S, SQUEEZE_S, HOLD_S = 0.1, 0.5, 2.0  # before closing, while closing, at the end
SETTLE = 10  # ticks after which a dropped object lies still
CATCH_UP_S = 0.5  # what was missed while nobody read is not made up for beyond this
HAND = "robot0_right_hand"


@dataclass(frozen=True)
class Lesson:
    """What a person remembers of a demonstration: the recording, where its parts begin, and what they are relative to."""

    source: Source
    cuts: Cuts
    recipe: Recipe


def lesson(task: str = "lift") -> Lesson:
    """Returns what there is to repeat for a task that ends with the object in the hand; BadInput for another."""
    fitting = [name for name, recipe in RECIPES.items() if recipe.held and not recipe.places]
    if task not in fitting:
        raise BadInput(
            f"operator model: task '{task}': the person can pick up but not place; tasks that fit: {', '.join(fitting)}"
        )
    recipe = RECIPES[task]
    source = read_source(read_demo(find_source(task)), recipe.all_bodies)
    return Lesson(source, find_cuts(source, recipe), recipe)


def parts_of(learnt: Lesson, body: Any) -> list[Part]:
    """Returns the way for the hand on a body that was just reset; the body is left as it was."""
    recipe, cuts = learnt.recipe, learnt.cuts
    home = body.eef_pose()
    thing = settled_object(body, recipe.moved)
    way = adapt.grasp_path(learnt.source, cuts, recipe.moved, thing, recipe.order, home, cuts.release)
    way = adapt.turned(way, way[cuts.grasp - cuts.reach])
    reach, lift = np.split(way, [cuts.grasp - cuts.reach + 1])
    before, after = bool(learnt.source.closing[cuts.grasp - 1]), bool(learnt.source.closing[cuts.grasp])

    def path(poses: Array) -> Array:
        return adapt.fill(adapt.thin(poses) if len(poses) > 3 else poses)

    return [
        Part(path(adapt.over(home, reach[0])), before, FREE, LOOSE),
        Part(path(adapt.homing(reach)), before, NEAR, CLOSE, LOOK_S),
        Part(reach[-1:], after, NEAR, CLOSE, SQUEEZE_S),
        Part(path(adapt.leaving(np.concatenate([reach[-1:], lift]))), after, FREE, LOOSE, HOLD_S),
    ]


def settled_object(body: Any, name: str) -> Array:
    """Returns where an object (4, 4) will lie: resets drop it from a little above; the body is left as it was."""
    state = body.state()
    for _ in range(SETTLE):
        body.step(still(body))
    thing: Array = body.object_poses()[name]
    body.restore(state)
    return thing


def still(body: Any) -> Array:
    """Returns the action that leaves a one-armed body where it is, gripper open."""
    pose, codec = body.eef_pose(), body.spec.codec
    parts = {
        "joint_abs": lambda: body.data.qpos[body.arms[0].qpos],
        "pose_abs": lambda: np.concatenate([pose[:3, 3], geometry.rot6d_from_matrix(pose[:3, :3])]),
        "osc_delta": lambda: np.zeros(6),
    }
    if codec not in parts:
        raise BadInput(f"operator model: the body takes actions '{codec}', want one of {', '.join(parts)}")
    return np.append(parts[codec](), -1.0).astype(np.float32)


class OperatorDevice:
    """The person as an input device. `restart` before each reset of the body; the way is chosen at the first `read` after it.

    look: returns where the robot's hand is now (4, 4); plan: returns the parts of the way; clock: now [s].
    """

    arms, deadman = 1, True

    def __init__(
        self,
        look: Callable[[], Array],
        plan: Callable[[], Sequence[Part]],
        seed: int,
        person: Person,
        link: Link,
        clock: Callable[[], float],
    ) -> None:
        self.look, self.plan, self.person, self.link, self.clock = look, plan, person, link, clock
        self.kind: Kind = "keypoints"
        self.restart(seed)

    def connect(self) -> None:
        """Has nothing to open."""

    def close(self) -> None:
        """Has nothing to let go of."""

    def restart(self, seed: int) -> None:
        """Begins anew with the draws of `seed`: a new reset of the body, another mood of the person."""
        self._rng = np.random.default_rng([seed, 7])
        self._operator: Operator | None = None
        self._said: list[str] = []

    def say(self, event: str) -> None:
        """Adds an operator event to the next sample."""
        self._said.append(event)

    @property
    def done(self) -> bool:
        """Whether the person has come to the end of the way."""
        return self._operator is not None and self._operator.done

    def read(self) -> list[TeleopSample]:
        """Returns what arrived since the last call."""
        now = self.clock()
        if self._operator is None:
            self._operator = Operator(self.plan(), self.look(), self.person, self._rng)
            self._packets = Packets(self.link, self._rng)
            self._next = now + self._operator.dt
        self._next = max(self._next, now - CATCH_UP_S)
        while self._next <= now + 1e-9:
            self._packets.send(self._next, self._sample(self._operator, self._next))
            self._next += self._operator.dt
        return [replace(sample, t_recv_ns=int(at * 1e9)) for at, sample in self._packets.ready(now + 1e-9)]

    def _sample(self, operator: Operator, t_s: float) -> TeleopSample:
        hand, events = operator.step(self.look()), tuple(self._said)
        self._said = []
        keypoints = hand.keypoints if self.kind == "keypoints" else None
        t_ns = int(t_s * 1e9)
        return TeleopSample(t_ns, t_ns, pose=hand.pose, keypoints=keypoints, deadman=hand.held, grip=hand.grip, events=events)


def operator_device(
    body: Any,
    seed: int,
    task: str = "lift",
    kind: Kind = "keypoints",
    person: Person = Person(),
    link: Link = Link(),
    clock: Callable[[], float] = time.monotonic,
) -> OperatorDevice:
    """Returns the person in front of a simulated body as a device."""
    learnt = lesson(task)
    device = OperatorDevice(body.eef_pose, lambda: parts_of(learnt, body), seed, person, link, clock)
    device.kind = kind
    return device


def follower_of(name: Literal["sew", "hand"], arm: Arm, spec: Spec, max_speed: float = 2.0) -> Follower:
    """Returns the solver that turns hand poses into joint angles: SEW retargeting, or the hand's inverse kinematics alone."""
    if name == "sew":
        return Sew(arm, spec.hz, max_speed)
    return HandPose(arm, robots.model(arm.name), HAND.removeprefix("robot0_"), spec.hz, max_speed)


def drive_of(body: Any, follower: Literal["sew", "hand"]) -> Drive:
    """Returns what turns hand targets into actions of a one-armed body."""
    if body.spec.codec != "joint_abs":
        return simple_drives(body.spec)[0]
    arm = robots.arm(body.config.robot.lower())
    return _cockpit.seated(body, 0, follower_of(follower, arm, body.spec), arm, HAND)


def pilot_of(body: Any, device: OperatorDevice, follower: Literal["sew", "hand"] = "sew", feel: Feel = Feel()) -> Pilot:
    """Returns the person in front of the body as a policy; the body must have been reset once."""
    return Pilot(body.spec, device.read, [Seat(drive_of(body, follower), Clutch(feel))], device.clock)


class SimClock:
    """The time [s] of a simulated body as a sink: every tick adds its period, so that nobody waits and every run is the same."""

    def __init__(self, hz: float) -> None:
        self.period, self.ticks = 1.0 / hz, 0

    def __call__(self) -> float:
        """Returns now [s]."""
        return self.ticks * self.period

    def begin(self, spec: Spec, meta: Any) -> None:
        """Time goes on between episodes."""

    def record(self, tick: Tick) -> None:
        """Adds a tick."""
        self.ticks += 1

    def stream(self, name: str, t_ns: int, array: Array) -> None:
        """Ignores raw streams."""

    def end(self, outcome: Outcome) -> None:
        """Has nothing to close."""
