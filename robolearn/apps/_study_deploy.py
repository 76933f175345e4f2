"""One cell of `study deploy`: a policy on a body, with a consumer and a delay, and what is measured there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robolearn.apps._evaluate import Options, evaluate, find
from robolearn.apps._report import git_state, versions
from robolearn.core import Outcome, Spec, Tick
from robolearn.errors import BadInput
from robolearn.rollout import rollout
from robolearn.runtime.consumers._base import make_consumer
from robolearn.runtime.remote import Local
from robolearn.runtime.schedule import Rules, Scheduled
from sim_envs._base import with_cameras

if TYPE_CHECKING:
    from robolearn.apps._scene_body import Judged

SDK = {"ur5e": "UR5e", "viperx": "UR5e"}  # an emulated robot, and the arm of the scene that moves behind it
BODIES = ("sim", "virtual", *SDK)
FIGURES = ("seconds", "jerk", "seam_p95", "seam_max", "idle_share", "delay_ticks", "wall_s")
LATENESS = ("age_p50_ms", "age_p95_ms", "cycle_late_p95_ms")  # cells of before these were measured have none
MAX_STEPS = 200
ACCELERATION, JERK = 20.0, 1000.0  # [rad/s^2], [rad/s^3] of the limits: below the data sheets of Panda and UR5e


@dataclass(frozen=True)
class Cell:
    """A run folder, a body, what becomes of late plans, how late they are, and how late the arm is taken to be [ms]."""

    run: str
    body: str
    consumer: str
    delay_ms: int
    act_ms: int = 0

    @property
    def name(self) -> str:
        """RUN/BODY/CONSUMER/DELAY, and +ACT where the arm's lateness is told to the schedule."""
        told = f"+{self.act_ms}" if self.act_ms else ""
        return f"{Path(self.run).name}/{self.body}/{self.consumer}/{self.delay_ms}{told}"


@dataclass(frozen=True)
class Plan:
    """Which episodes; picklable."""

    first_seed: int
    episodes: int

    @property
    def seeds(self) -> range:
        """Of the episodes."""
        return range(self.first_seed, self.first_seed + self.episodes)


def parse(name: str, runs: Sequence[Path]) -> Cell:
    """Returns the cell called RUN/BODY/CONSUMER/DELAY[+ACT] of one of the run folders; BadInput where there is none."""
    run, *rest = name.split("/")
    found = [str(folder) for folder in runs if folder.name == run]
    try:
        body, consumer, late = rest
        delay, _, act = late.partition("+")
        cell = Cell(found[0], body, consumer, int(delay), int(act or 0))
    except (ValueError, IndexError):
        raise BadInput(f"cell: want RUN/BODY/CONSUMER/DELAY of {', '.join(r.name for r in runs)}, got '{name}'") from None
    if body not in BODIES:
        raise BadInput(f"cell: want a body of {', '.join(BODIES)}, got '{body}'")
    return cell


def run_cell(plan: Plan, cell: Cell) -> dict[str, Any]:
    """Returns the figures of a cell."""
    began = time.monotonic()
    found = _plain(plan, cell) if cell.body == "sim" else _deployed(plan, cell)
    commit, dirty = git_state()
    subject = find(cell.run)
    return {
        "cell": cell.name, "body": cell.body, "consumer": cell.consumer, "delay_ms": cell.delay_ms, "act_ms": cell.act_ms,
        "robot": subject.env.get("robot", "Panda"), **found, "first_seed": plan.first_seed,
        "weights_sha256": subject.weights_sha256, "commit": commit, "dirty": dirty, "cpu": versions()["cpu"],
        "date": time.strftime("%Y-%m-%d"), "wall_s": round(time.monotonic() - began, 1),
    }  # fmt: skip


def _plain(plan: Plan, cell: Cell) -> dict[str, Any]:
    """Returns the figures of the task itself, as `eval` has them."""
    subject = find(cell.run)
    options = Options(episodes=plan.episodes, seed=plan.first_seed, workers=0, max_steps=MAX_STEPS)
    outcomes = [record.outcome for record in evaluate(subject, options).records]
    hz = 20.0
    unmeasured = dict.fromkeys(("jerk", "seam_p95", "seam_max", *LATENESS), float("nan"))
    return {**_ends(outcomes, hz), **unmeasured, "idle_share": 0.0, "delay_ticks": 0.0}


def _ends(outcomes: list[Outcome], hz: float) -> dict[str, Any]:
    solved = [outcome.steps / hz for outcome in outcomes if outcome.success]
    return {
        "success": [int(bool(outcome.success)) for outcome in outcomes],
        "steps": [outcome.steps for outcome in outcomes],
        "reasons": sorted({outcome.reason for outcome in outcomes}),
        "seconds": float(np.mean(solved)) if solved else float("nan"),
    }


@dataclass
class Measured:
    """A sink that measures how smooth an episode was: jerk of what was sent at the driver's rate, jumps where plans meet.

    And how old the oldest of what the policy saw was at each tick, and how late the driver's cycles came.
    """

    mind: Scheduled
    body: Judged
    history: Callable[[int], Any]
    sent: list[np.ndarray] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    jerks: list[float] = field(default_factory=list)
    seams: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    delays: list[int] = field(default_factory=list)
    ages_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)

    def begin(self, spec: Spec, meta: Mapping[str, Any]) -> None:
        """Begins an episode where the arm was placed; what it did before is of another one."""
        before = self.history(1)
        self.sent, self.stamps, self._cycle = [], [], before[-1].cycle if before else -1

    def record(self, tick: Tick) -> None:
        """Takes the driver's cycles since the last tick, and the plans that were taken."""
        for sample in self.history(60):
            if sample.cycle > self._cycle and np.isfinite(sample.sent).all():
                self._cycle = sample.cycle
                self.sent.append(sample.sent)
                self.stamps.append(sample.state.t_sample_ns)
                self.late_s.append(sample.late_s)
        self.ages_s.append(self.body.age_s)
        self.seams += [offer.jump for _, offer in self.mind.news if offer.accepted and offer.jump > 0]

    def stream(self, name: str, t_ns: int, array: np.ndarray) -> None:
        """Ignores raw streams."""

    def end(self, outcome: Outcome) -> None:
        """Takes the figures of the episode."""
        q, period_s = np.array(self.sent), float(np.median(np.diff(self.stamps))) * 1e-9 if len(self.stamps) > 4 else 0.01
        if len(q) > 4:
            self.jerks.append(float(np.sqrt(np.mean((np.diff(q, 3, axis=0) / period_s**3) ** 2))))
        found = self.mind.statistics()
        self.idle.append(found.idle_share)
        self.delays += found.delays

    def figures(self) -> dict[str, float]:
        """Returns the means over episodes."""
        seams = self.seams or [0.0]
        ages_ms = 1e3 * np.quantile(self.ages_s or [np.nan], (0.5, 0.95))
        return {
            "jerk": float(np.mean(self.jerks)), "seam_p95": float(np.quantile(seams, 0.95)), "seam_max": float(max(seams)),
            "idle_share": float(np.mean(self.idle)), "delay_ticks": float(np.mean(self.delays or [0])),
            "age_p50_ms": float(ages_ms[0]), "age_p95_ms": float(ages_ms[1]),
            "cycle_late_p95_ms": float(1e3 * np.quantile(self.late_s or [np.nan], 0.95)),
        }  # fmt: skip


def _deployed(plan: Plan, cell: Cell) -> dict[str, Any]:
    """Returns the figures of a policy that drives a driver, whose arm is part of the task's scene."""
    import torch

    from robolearn.training.checkpoint import load_policy

    torch.set_num_threads(1)
    subject = find(cell.run)
    assert subject.checkpoint is not None
    policy = load_policy(subject.checkpoint)
    env = with_cameras(subject.env, [key for key, array in policy.spec.obs.items() if array.is_image])
    keys = tuple(policy.spec.obs)
    where = _virtual(subject.task, env, keys) if cell.body == "virtual" else _sdk(cell.body, subject.task, env, keys)
    with where as (body, history, now_s):
        planner = Local(policy, cell.delay_ms / 1000, now_s)
        rules = Rules(act_s=cell.act_ms / 1000)
        mind = Scheduled(planner, make_consumer(cell.consumer, {}, policy.spec), body.spec, now_s, rules)
        measured = Measured(mind, body, history)
        outcomes = [rollout(body, mind, max_steps=MAX_STEPS, seed=seed, sinks=[measured]) for seed in plan.seeds]
        return {**_ends(outcomes, body.spec.hz), **measured.figures()}


Where = tuple["Judged", Callable[[int], Any], Callable[[], float]]


@contextmanager
def _virtual(task: str, env: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[Where]:
    from robolearn.apps._scene import SceneConfig
    from robolearn.apps._scene_sim import SimulatedArm

    with SimulatedArm(SceneConfig(task, dict(env)), keys) as arm:
        yield arm.body, arm.arm.history, arm.time.now_s


@contextmanager
def _sdk(robot: str, task: str, env: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[Where]:
    from hardware._base import GRIPPERS, ROBOTS, make
    from hardware._host import Hosted
    from hardware._pair import Pair, make_gripper_guard
    from hardware._records import Hosting
    from hardware._ring import new_run, sweep
    from hardware.emulators._process import Running
    from robolearn.apps._guarded import MakeGuard
    from robolearn.apps._scene import one_armed
    from robolearn.apps._scene_body import Twin, Wiring, body
    from robolearn.apps._scene_eyes import Film, filmed, hosted
    from robolearn.apps._scene_link import SceneLink
    from robolearn.apps._scene_stage import stage

    if env.get("robot", "Panda") != SDK[robot]:
        raise BadInput(
            f"study deploy: body {robot} has the arm of a {SDK[robot]}, the policy is for a {env.get('robot', 'Panda')}"
        )
    run, film = new_run(), Film(tuple(env.get("cameras", ())), env.get("image_size", Film.size))
    overrides = {key: value for key, value in env.items() if key not in ("cameras", "image_size")}
    with ExitStack() as opened:
        opened.callback(sweep, run)
        box = opened.enter_context(Running(robot, {"task": task, "seed": 0, "overrides": overrides}, make=stage))
        file, address = box.control("robot_file"), box.control("addresses")["scene"]
        twin = Twin((link := SceneLink(address)).config, link)
        eyes = opened.enter_context(hosted(address, film, run))
        n = len(twin.env.arms[0].qpos)
        guard = MakeGuard(1.0, {"acceleration": (ACCELERATION,) * n, "jerk": (JERK,) * n})
        make_arm = partial(make, ROBOTS, file["driver"], dict(file["set"]), "robot")
        arm: Any = Hosted(robot, make_arm, guard, run, Hosting(0.01))
        opened.callback(arm.close)
        arm.connect()
        if "gripper" in file:
            part = file["gripper"]
            make_it = partial(make, GRIPPERS, part["driver"], dict(part["set"]), "gripper")
            fingers = Hosted("gripper", make_it, make_gripper_guard, run, Hosting(0.02))
            opened.callback(fingers.close)
            fingers.connect()
            arm = Pair(arm, fingers)
        spec = one_armed(filmed(link.config, film.cameras, film.size)).spec if eyes else twin.spec
        wiring = Wiring(eyes, wait=lambda: time.sleep(0.6))
        yield body(twin, arm, spec.select(keys), wiring), arm.history, time.monotonic
