"""What each disturbance does to one episode: of the sensors, of the motors, of the world; KINDS is the list.

A kind is a function (body, strength, rng) -> Effect; a body that cannot suffer it raises SpecMismatch, which says what it lacks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from robolearn.core import Obs
from robolearn.errors import SpecMismatch
from sim_envs import _base
from sim_envs._planar import Planar
from sim_envs.tasks.pusht import PushT

_AXES = {"x": 0, "y": 1, "z": 2}
_TABLE = (80.0, 432.0)  # [px] between which a push leaves PushT's tee: the finger can still get round it
Rng = np.random.Generator
Spread = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Effect:
    """What a disturbance does to one episode from its beginning on.

    see(obs, shown, k): what is shown instead of `obs`, k ticks after the beginning; shown: the look before it, if any.
    act(asked, told): what the body is told instead of `asked`; told: what it was told a tick before, if anything.
    begin, settle, end: called at the beginning, after every tick since, at the end. rewinds: the body's clock is set to 0.
    """

    see: Callable[[Obs, Obs | None, int], Obs] = lambda obs, shown, k: obs
    act: Callable[[np.ndarray, np.ndarray | None], np.ndarray] = lambda asked, told: asked
    begin: Callable[[], object] = lambda: None
    settle: Callable[[], object] = lambda: None
    end: Callable[[], object] = lambda: None
    rewinds: bool = False


class Body:
    """A bare body and what the kinds must know of it."""

    def __init__(self, env: Any, spread: Spread | None) -> None:
        self.env, self.spec, self.spread = env, env.spec, spread
        names = [name.rpartition(".")[2] for name in env.spec.action.names] or [""]
        self.moving = np.array([name.startswith("d") for name in names])  # displacements, of which 0 is none
        self.grips = np.array([name.startswith("gripper") for name in names])

    @cached_property
    def looks(self) -> list[tuple[Obs, float]]:
        """First observations of 16 seeds, each with the fact that its episode hides (0 where there is none)."""
        return [(self.env.reset(seed), getattr(getattr(self.env, "now", None), "fact", 0.0)) for seed in range(16)]

    def need(self, kind: str, found: Any, without: str) -> Any:
        """Returns what a kind needs of the body if it is there; SpecMismatch says what the body lacks."""
        if found:
            return found
        raise SpecMismatch(f"{kind}: {getattr(self.env, 'task', type(self.env).__name__)} {without}")

    def images(self, kind: str) -> list[str]:
        """Returns the keys of the pictures shown."""
        keys = [key for key, spec in self.spec.obs.items() if spec.is_image]
        return list(self.need(kind, keys, "shows no pictures; give it cameras"))

    def model(self, kind: str, without: str = "is no MuJoCo body") -> Any:
        """Returns the MuJoCo model of the body."""
        self.need(kind, hasattr(self.env, "model") and hasattr(self.env, "task_facts"), without)
        return self.env.model

    def still(self, asked: np.ndarray, told: np.ndarray | None) -> np.ndarray:
        """Returns the action that goes on with what was told before: no displacement, the last target."""
        return np.where(self.moving, 0, asked if told is None else told)


def noise(body: Body, strength: float, rng: Rng) -> Effect:
    """Returns normal noise on every float observation, in units of its spread: as given, or the s.d. of first observations."""
    floats = [key for key, spec in body.spec.obs.items() if spec.dtype.startswith("float")]
    body.need("noise", floats, "shows no numbers")
    spread = body.spread or {key: np.std([obs[key] for obs, _ in body.looks], axis=0) for key in floats}
    body.spec.select(tuple(spread))  # refuses a spread of what is not shown
    return _seen(spread, lambda key, array: array + strength * spread[key] * rng.normal(size=array.shape))


def offset(body: Body, strength: float, rng: Rng) -> Effect:
    """Returns one displacement of all positions shown (numbers named x, y, z or ..._x), in the observation's own unit."""
    axes = {key: [_AXES.get(name.rpartition("_")[2], 3) for name in spec.names] for key, spec in body.spec.obs.items()}
    found = sorted({axis for columns in axes.values() for axis in columns} - {3})
    vector = np.zeros(4)
    body.need("offset", found, "shows no positions (numbers named x, y or z)")
    vector[found] = strength * _way(rng, len(found))
    by = {key: vector[columns] for key, columns in axes.items() if set(columns) - {3}}
    return _seen(by, lambda key, array: array + by[key])


def lighting(body: Body, strength: float, rng: Rng) -> Effect:
    """Returns pictures brighter or darker by the factor e^strength, with a tinge of up to half as much."""
    gain = np.exp(strength * (rng.choice((-1.0, 1.0)) + rng.uniform(-0.5, 0.5, 3)))
    return _seen(body.images("lighting"), lambda _, image: np.clip(np.rint(image * gain), 0, 255))


def camera(body: Body, strength: float, rng: Rng) -> Effect:
    """Returns pictures shifted by `strength` pixels; what comes into view repeats the edge."""
    shift = np.column_stack([np.eye(2), np.rint(strength * _way(rng, 2))])
    how = (None, cv2.INTER_NEAREST, cv2.BORDER_REPLICATE)
    return _seen(body.images("camera"), lambda _, image: cv2.warpAffine(image, shift, image.shape[1::-1], *how))


def distractor(body: Body, strength: float, rng: Rng) -> Effect:
    """Returns a coloured disc over pictures, always in one place; its radius is `strength` of their height."""
    (x, y), colour = rng.uniform(size=2).tolist(), rng.integers(0, 256, 3).tolist()

    def covered(_: str, image: np.ndarray) -> np.ndarray:
        high, wide = image.shape[:2]
        return cv2.circle(image.copy(), (int(x * wide), int(y * high)), round(strength * high), colour, cv2.FILLED)

    return _seen(body.images("distractor"), covered)


def freeze(_: Body, strength: float, __: Rng) -> Effect:
    """Returns a sensor that shows the look before it once more, for `strength` ticks."""
    return Effect(see=lambda obs, shown, k: obs if not shown or k >= strength else {key: a.copy() for key, a in shown.items()})


def delay(body: Body, strength: float, _: Rng) -> Effect:
    """Returns actions carried out `strength` ticks late; until the first comes through, the body goes on as it was told."""
    waiting: deque[np.ndarray] = deque()

    def late(asked: np.ndarray, told: np.ndarray | None) -> np.ndarray:
        waiting.extend([body.still(asked, told)] * (int(strength) - len(waiting)))
        waiting.append(asked.copy())
        return waiting.popleft()

    return Effect(act=late)


def weak(body: Body, strength: float, _: Rng) -> Effect:
    """Returns motors that lack `strength` of a displacement, or of the way from the last target to the new one; grips do not."""
    lost = np.where(body.grips, 0.0, strength)
    return Effect(act=lambda asked, told: asked + lost * (body.still(asked, told) - asked))


def slip(body: Body, strength: float, rng: Rng) -> Effect:
    """Returns a line that loses each action with probability `strength`."""
    return Effect(act=lambda asked, told: body.still(asked, told) if rng.random() < strength else asked)


def mass(body: Body, strength: float, _: Rng) -> Effect:
    """Returns things heavier by the share `strength`, lighter below 0; not the arms, whose control law would know."""
    model = body.model("mass")
    body.need("mass", body.env.task_facts.things, "has no thing to weigh")
    arms = [model.body_rootid[arm.base] for arm in body.env.arms]
    things = (model.body_weldid != 0) & ~np.isin(model.body_rootid, arms)
    heavier = dict.fromkeys(("body_mass", "body_inertia", "body_subtreemass"), 1 + strength)
    return _scaled(model, things, {**heavier, "body_invweight0": 1 / (1 + strength)})


def friction(body: Body, strength: float, _: Rng) -> Effect:
    """Returns all surfaces rougher by the share `strength`, smoother below 0."""
    return _scaled(body.model("friction"), slice(None), {"geom_friction": 1 + strength})


def goal(body: Body, strength: float, rng: Rng) -> Effect:
    """Returns a hidden fact (what is wanted) that moves on by `strength` places, up or down."""
    env, places = body.env, int(strength * rng.choice((-1, 1)))
    body.need("goal", hasattr(env, "with_fact") and len({fact for _, fact in body.looks}) > 1, "has no goal that could move")
    n = _base.module(env.task).N_FACTS
    body.need("goal", places % n, f"has {n} goals; want to move by fewer places, got {strength:g}")
    return Effect(begin=lambda: env.with_fact((int(env.now.fact) + places) % n))


def push(body: Body, strength: float, rng: Rng) -> Effect:
    """Returns one displacement of a planar hand [half sides] or PushT's tee [px], or blow of a tick to a thing or hand [N s]."""
    env, way = body.env, strength * _way(rng, 2)

    def move_hand() -> None:
        x, y = np.clip((env.now.x + way[0], env.now.y + way[1]), -1, 1).tolist()
        env.restore(np.array(list(vars(replace(env.now, x=x, y=y)).values())))

    def move_tee() -> None:
        pose = env.state()[:5]
        pose[2:4] = np.clip(pose[2:4] + way, np.minimum(pose[2:4], _TABLE[0]), np.maximum(pose[2:4], _TABLE[1]))
        env.restore(pose)

    if isinstance(env, Planar):
        return Effect(begin=move_hand)
    if isinstance(env, PushT):
        return Effect(begin=move_tee, rewinds=True)
    model = body.model("push", "is no planar, PushT or MuJoCo body")
    struck = model.site_bodyid[env.arms[0].site]
    for thing in env.task_facts.things[:1]:
        part = getattr(model, thing.kind)(thing.mujoco_name)
        struck = part.id if thing.kind == "body" else part.bodyid[0]
    force = env.data.xfrc_applied[struck, :2]  # [N]
    return Effect(begin=lambda: np.copyto(force, way * body.spec.hz), settle=lambda: force.fill(0.0))


def _way(rng: Rng, dims: int) -> np.ndarray:
    vector = rng.normal(size=dims)
    return vector / np.linalg.norm(vector)


def _seen(keys: Iterable[str], change: Callable[[str, np.ndarray], np.ndarray]) -> Effect:
    return Effect(see=lambda obs, shown, k: {**obs, **{key: change(key, obs[key]).astype(obs[key].dtype) for key in keys}})


def _scaled(model: Any, rows: Any, factors: Mapping[str, float]) -> Effect:
    """Returns the effect of scaling rows of some arrays of a model until the episode is over or the next one begins."""
    kept = [(getattr(model, name), getattr(model, name).copy(), factor) for name, factor in factors.items()]

    def put(on: bool) -> None:
        for array, before, factor in kept:
            array[rows] = before[rows] * (factor if on else 1.0)

    return Effect(begin=lambda: put(True), end=lambda: put(False))


@dataclass(frozen=True)
class Kind:
    """One way to disturb: effect(body, strength, rng), which touches nothing yet; unit, most and least of the strength."""

    effect: Callable[[Body, float, Rng], Effect]
    unit: str
    high: float = 1e6
    low: float = 0.0
    from_reset: bool = False


KINDS: dict[str, Kind] = {
    "none": Kind(lambda body, strength, rng: Effect(), "nothing", high=0.0),
    "noise": Kind(noise, "a number of spreads"),
    "offset": Kind(offset, "a length in the unit of the positions"),
    "lighting": Kind(lighting, "a logarithm of brightness"),
    "camera": Kind(camera, "a number of pixels"),
    "distractor": Kind(distractor, "a share of the picture's height, 0 to 1", high=1.0),
    "freeze": Kind(freeze, "whole ticks"),
    "delay": Kind(delay, "whole ticks"),
    "weak": Kind(weak, "the share of a motion that is lost, 0 to 1", high=1.0),
    "slip": Kind(slip, "the share of actions that are lost, 0 to 1", high=1.0),
    "mass": Kind(mass, "a relative change, -0.99 or more", low=-0.99, from_reset=True),
    "friction": Kind(friction, "a relative change, -0.99 or more", low=-0.99, from_reset=True),
    "goal": Kind(goal, "whole places"),
    "push": Kind(push, "half sides (planar), px (pusht) or N s (MuJoCo)"),
}
