"""One attempt of `expand`: the source adapted to one reset of the body, tracked until the task is solved or it fails."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robolearn import geometry
from robolearn.apps._joints import HandSolver
from robolearn.core import Obs
from robolearn.data import adapt
from robolearn.data.adapt import Cuts, Leg
from robolearn.data.source import Source

FREE, NEAR = 0.05, 0.015  # how far the aim runs ahead of the hand [m]: in the air, and close to things
TOLERANCE = 0.006  # a leg has arrived [m]; turns count as adapt.METRES_PER_RAD
PATIENCE = 60  # ticks without getting further along the path
CONTACT, SLACK = 8, 0.03  # ticks without getting further, this near to the end [m]: something is in the way, go on
WAIT = 10  # ticks for a row of contact
LINGER = 20  # ticks at the end of the last leg before an attempt counts as unsolved
SETTLE = 10  # ticks after which a dropped object lies still
HELD = 4  # ticks that success must last
GRIP_STILL = 0.0005  # the fingers have stopped [m per tick]


@dataclass(frozen=True)
class Recipe:
    """What the motion of a task is relative to.

    source: the task's name in the recording; moved: the object the hand picks up; bodies: names it may have in the recorded
    model; order: its symmetry about its z axis (1 none, 4 square, 360 round) for the fingers; fits: the same for the place it is
    put; places: whether it is put anywhere; onto: the object it is put on, with its names ("" for a place in the world);
    place_reach: where the last part of that way begins [m]; above: how far over it the hand comes from [m]; held: False for
    what is pushed and pulled, not picked up.
    """

    source: str
    moved: str
    bodies: tuple[str, ...]
    order: int = 1
    fits: int = 1
    places: bool = True
    onto: str = ""
    onto_bodies: tuple[str, ...] = ()
    place_reach: float = adapt.REACH
    above: float = 0.0
    held: bool = True

    @property
    def all_bodies(self) -> dict[str, tuple[str, ...]]:
        """Names in the recorded model by the name of the object."""
        return {self.moved: self.bodies} | ({self.onto: self.onto_bodies} if self.onto else {})


RECIPES = {
    "lift": Recipe("lift", "cube", ("cube", "cube_main"), order=4, places=False),
    "stack": Recipe(
        source="stack",
        moved="cube_a",
        bodies=("cubeA", "cubeA_main"),
        order=4,
        fits=4,
        onto="cube_b",
        onto_bodies=("cubeB", "cubeB_main"),
        place_reach=0.03,
        above=0.03,
    ),
    "can": Recipe("pick_place", "can", ("Can0", "Can_main"), order=360, fits=360),
    "square": Recipe("nut_assembly", "nut", ("SquareNut0", "SquareNut_main"), fits=4, place_reach=0.03, above=0.05),
    "door": Recipe("door", "handle", ("door_handle", "Door_handle"), places=False, held=False),
}


def find_cuts(source: Source, recipe: Recipe) -> Cuts:
    """Returns the rows where the parts of the source begin."""
    if recipe.held:
        return adapt.find_cuts(source, recipe.moved, recipe.place_reach)
    return adapt.find_contact(source, recipe.moved)


class Failed(Exception):
    """An attempt that did not solve its task; the message is the reason that is counted."""


@dataclass
class Episode:
    """What an attempt recorded: a row of observation, action and simulator state per tick, and how the source was turned."""

    rows: list[dict[str, np.ndarray]] = field(default_factory=list)
    transforms: dict[str, Any] = field(default_factory=dict)


class Attempt:
    """A body following the adapted source from one reset; `run` returns the episode or raises Failed."""

    def __init__(self, env: Any, source: Source, recipe: Recipe, cuts: Cuts, noise: float, rng: np.random.Generator) -> None:
        self.env, self.source, self.recipe, self.cuts = env, source, recipe, cuts
        self.noise, self.rng = noise, rng
        self.episode, self.solved = Episode(), 0

    def run(self, seed: int) -> None:
        """Resets the body by `seed`, follows the source's parts and returns what was recorded; Failed with the reason."""
        self.obs: Obs = self.env.reset(seed)
        self.solver = HandSolver(self.env, self.env.data.qpos[self.env.arms[0].qpos].copy())
        self.home = self.env.eef_pose()  # wrists have their range around it, so turns are chosen to stay near it
        self.thing = self.settled_object()
        self.episode.transforms = {"object": self.thing}
        if self.recipe.held:
            self.pick()
        else:
            self.push()
        if self.recipe.places:
            self.place()
        for _ in range(LINGER):
            self.tick(self.aim)
        raise Failed("unsolved")

    def pick(self) -> None:
        """Grasps the object where it lies and lifts it."""
        source, cuts, recipe = self.source, self.cuts, self.recipe
        stop = cuts.carry if recipe.places else cuts.release
        way = adapt.grasp_path(source, cuts, recipe.moved, self.thing, recipe.order, self.home, stop)
        way = adapt.turned(way, way[cuts.grasp - cuts.reach])
        reach, lift = np.split(way, [cuts.grasp - cuts.reach + 1])
        self.episode.transforms["grasp"] = reach[-1]
        before, after = bool(source.closing[cuts.grasp - 1]), bool(source.closing[cuts.grasp])
        self.follow(
            [Leg("reach", adapt.over(self.home, reach[0]), before, FREE), Leg("grasp", adapt.homing(reach), before, NEAR)]
        )
        self.grip(after)
        self.follow([Leg("lift", adapt.leaving(np.concatenate([reach[-1:], lift])), after, NEAR)])

    def push(self) -> None:
        """Asks, from the first contact on, for what the person asked for, a row a tick, waiting where the hand lags behind."""
        source, cuts = self.source, self.cuts
        moved = adapt.upright(self.thing) @ geometry.inverse(adapt.upright(source.things[self.recipe.moved][0]))
        hand, closing = moved @ source.hand, bool(source.closing[cuts.grasp])
        near = hand[cuts.reach : cuts.grasp]
        self.follow([Leg("reach", adapt.over(self.home, near[0]), closing, FREE), Leg("touch", near, closing, NEAR)])
        for row in adapt.pushes(source, cuts.grasp):
            self.closing = bool(source.closing[row])
            for _ in range(WAIT):
                self.tick(moved @ source.asked[row])
                if adapt.metric(hand[row], self.env.eef_pose()) < SLACK:
                    break

    def settled_object(self) -> np.ndarray:
        """Returns where the object (4, 4) will lie: resets drop it from a little above; the body is left as it was."""
        state, home = self.env.state(), self.env.eef_pose()
        self.closing = False
        for _ in range(SETTLE):
            self.env.step(self.command(home))
        thing = self.env.object_poses()[self.recipe.moved]
        self.obs = self.env.restore(state)
        return thing

    def place(self) -> None:
        """Takes the object in the hand to its target, from above, and lets go."""
        source, cuts, recipe = self.source, self.cuts, self.recipe
        poses = self.env.object_poses()
        if poses[recipe.moved][2, 3] < self.thing[2, 3] + 0.5 * adapt.RISEN:
            raise Failed("missed")
        wanted = adapt.upright(source.things[recipe.moved][cuts.place : cuts.release])
        if recipe.onto:
            onto = adapt.upright(source.things[recipe.onto][cuts.release - 1])
            wanted = adapt.upright(poses[recipe.onto]) @ geometry.inverse(onto) @ wanted
        hand = self.env.eef_pose()
        corners = adapt.over(hand, self.way_with_object(wanted, self.home)[0], recipe.above)
        self.follow([Leg("carry", corners, self.closing, FREE)], stop=recipe.above > 0)
        way = self.way_with_object(wanted, corners[-1])
        self.follow([Leg("place", np.concatenate([adapt.over(way[0], way[0], recipe.above)[-1:], way]), self.closing, NEAR)])
        self.grip(bool(source.closing[cuts.release]) if cuts.release < len(source.closing) else self.closing)

    def way_with_object(self, wanted: np.ndarray, hand: np.ndarray) -> np.ndarray:
        """Returns the hand's way (n, 4, 4) that takes the object, as it now lies in the hand, along `wanted`, turned least."""
        hand_from_object = geometry.inverse(self.env.eef_pose()) @ self.env.object_poses()[self.recipe.moved]
        way = adapt.place_path(wanted, hand_from_object, self.recipe.fits, hand)
        way = adapt.homing(adapt.turned(way, way[-1]))
        self.episode.transforms.update(hand_from_object=hand_from_object, release=way[-1])
        return way

    def follow(self, legs: Sequence[Leg], stop: bool = True) -> None:
        """Moves the hand along legs without stopping between them, and with `stop` until it rests at the last one's end."""
        for number, leg in enumerate(legs):
            self.closing, last = leg.closing, stop and number == len(legs) - 1
            pursuit = adapt.Pursuit(adapt.fill(adapt.thin(leg.path) if len(leg.path) > 3 else leg.path), leg.lead)
            stalled = 0
            while not self.finished(pursuit, last):
                before = pursuit.k, adapt.metric(pursuit.path[-1], self.env.eef_pose())
                self.tick(pursuit.aim(self.env.eef_pose()))
                gained = before[1] - adapt.metric(pursuit.path[-1], self.env.eef_pose())
                stalled = 0 if pursuit.k > before[0] or gained > 0.0005 else stalled + 1
                if last and stalled > CONTACT and adapt.metric(pursuit.path[-1], self.env.eef_pose()) < SLACK:
                    break
                if stalled > PATIENCE:
                    raise Failed(f"stuck: {leg.name}")

    def finished(self, pursuit: adapt.Pursuit, last: bool) -> bool:
        """Returns whether the leg is over: arrived at the last one's end, or the aim reached an earlier one's end."""
        hand = self.env.eef_pose()
        pursuit.aim(hand)
        return pursuit.arrived(hand, TOLERANCE if last else pursuit.lead)

    def grip(self, closing: bool) -> None:
        """Gives the gripper its command and holds the hand until the fingers have stopped."""
        self.closing = closing
        still, opening = 0, self.env.gripper_opening()
        for k in range(20):
            self.tick(self.aim)
            still = still + 1 if abs(self.env.gripper_opening() - opening) < GRIP_STILL else 0
            opening = self.env.gripper_opening()
            if k >= 3 and still >= 2:
                return

    def tick(self, aim: np.ndarray) -> None:
        """Asks for the pose `aim` (4, 4) for one tick and records it; raises Solved once the task has been solved for a while."""
        self.aim = aim
        action = self.command(aim)
        self.episode.rows.append({**self.obs, "action": action, "sim_state": self.env.state()})
        if len(self.episode.rows) > self.env.config.max_steps:
            raise Failed("too long")
        step = self.env.step(self.disturbed(aim) if self.noise else action)
        self.obs = step.obs
        self.solved = self.solved + 1 if step.success else 0
        if self.solved >= HELD:
            raise Solved

    def command(self, aim: np.ndarray) -> np.ndarray:
        """Returns the body's action for the pose `aim` (4, 4) and the present gripper command."""
        grip = 1.0 if self.closing else -1.0
        if self.env.spec.codec == "joint_abs":
            return np.append(self.solver.solve(self.env.data.qpos, aim), grip).astype(np.float32)
        return np.concatenate([aim[:3, 3], geometry.rot6d_from_matrix(aim[:3, :3]), [grip]]).astype(np.float32)

    def disturbed(self, aim: np.ndarray) -> np.ndarray:
        """Returns the action that is carried out instead of the recorded one, so that the data show how to come back."""
        turn = geometry.matrix_from_rotvec(self.noise / adapt.METRES_PER_RAD * self.rng.normal(size=3))
        return self.command(geometry.pose(aim[:3, 3] + self.noise * self.rng.normal(size=3), turn @ aim[:3, :3]))


class Solved(Exception):
    """The attempt has solved its task."""


def attempt(env: Any, source: Source, recipe: Recipe, cuts: Cuts, seed: int, noise: float = 0.0) -> Episode:
    """Returns the episode that solves the task from `reset(seed)`; Failed with the reason where it does not."""
    trial = Attempt(env, source, recipe, cuts, noise, np.random.default_rng([seed, 1]))
    with contextlib.suppress(Solved):
        trial.run(seed)
    return trial.episode
