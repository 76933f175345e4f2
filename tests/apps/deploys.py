"""A virtual arm deployed on by policies that need no network: what tests of `deploy` and of its faults are made of."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardware._records import Hosting
from robolearn.apps import deploy
from robolearn.apps._deploy_mind import Source
from robolearn.apps._deploy_people import People
from robolearn.apps._deploy_rig import Rig
from robolearn.apps._deployment import Deployment, Wishes
from robolearn.apps._robot_file import Part, RobotFile
from robolearn.core import ArraySpec, Ask, Chunk, Obs, Spec
from robolearn.runtime.parties import Manners
from robolearn.runtime.remote import InProcess, Planner
from robolearn.runtime.runs import Run, open_run
from robolearn.runtime.state import Machine

HOME = np.array([0.0, 0.0, 0.0, -1.57, 0.0, 1.57, 0.785])
NAMES = tuple(f"q{i}" for i in range(7))
OBS = {"joint_pos": ArraySpec((7,), names=NAMES, unit="rad"), "gripper": ArraySpec((1,), names=("opening",), unit="m")}
SPEC = Spec(OBS, ArraySpec((8,), names=(*NAMES, "gripper")), 20.0, codec="joint_abs", execute=4)
PANDA = RobotFile("virtual", {"arm": "panda", "q": HOME.tolist(), "opening_m": 0.08}, share=0.5, start=tuple(HOME))
STALL_S = 10.0  # shared cores stall: what they do to an arm is tested on clocks of our own
PATIENT, CALM = Hosting(hold_after_s=STALL_S, stall_s=STALL_S), Manners(plan_age_s=STALL_S, stall_s=STALL_S)
FILMED = {"img": Part("synthetic", {"size": [64, 48], "hz": 20.0})}


@dataclass
class Waver:
    """A policy that turns the first joint to and fro; from a tick on, `bad` makes its plans NaN, `ill` ends its process.

    drift: where its actions are poses, it moves the hand along y by so much a tick [m].
    """

    spec: Spec = SPEC
    bad: int = -1
    ill: int = -1
    drift: float = 0.0
    tick: int = -1

    def reset(self, seed: int | None = None) -> None:
        del seed
        self.tick = -1

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        del applied
        self.tick, self.obs = self.tick + 1, obs

    def plan(self, ask: Ask = Ask()) -> Chunk:
        del ask
        if 0 <= self.ill <= self.tick:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.drift:
            actions = np.tile(np.concatenate([self.obs["eef_pos"], self.obs["eef_rot6d"], [-1.0]]).astype(np.float32), (12, 1))
            actions[:, 1] += self.drift * np.arange(1, 13)
            return Chunk(actions, self.tick)
        actions = np.tile(np.append(HOME, -1.0).astype(np.float32), (12, 1))
        actions[:, 0] += 0.1 * np.sin(0.1 * (self.tick + 1 + np.arange(12))).astype(np.float32)
        if 0 <= self.bad <= self.tick < self.bad + 20:
            actions[5] = np.nan
        return Chunk(actions, self.tick)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `robolearn deploy` bear a machine that stalls."""
    monkeypatch.setattr(deploy, "Rig", partial(Rig, hosting=PATIENT))
    monkeypatch.setattr(deploy, "Deployment", partial(Deployment, manners=CALM))


def waver(**fields: Any) -> Waver:
    """Returns the policy; a function of a module, as another process wants it."""
    return Waver(**fields)


@dataclass
class Outing:
    """A deployment on the virtual arm that a test may disturb: `at` is called with it, by tick; it stops once `until` holds."""

    out: Path
    robot: RobotFile = PANDA
    spec: Spec = SPEC
    fields: dict[str, Any] = field(default_factory=dict)
    at: dict[int, Callable[[Outing], object]] = field(default_factory=dict)
    until: Callable[[Outing], bool] = lambda outing: False
    wishes: dict[str, Any] = field(default_factory=dict)
    give_up_s: float = 30.0
    whole: bool = False

    def run(self) -> Deployment:
        """Runs it and returns it, everything closed."""
        with ExitStack() as stack:
            self.rig = Rig(self.robot, hosting=PATIENT)
            stack.callback(self.rig.close)
            self.rig.open()
            assert not self.rig.missing, self.rig.missing
            source = Source(self.spec, partial(waver, spec=self.spec), {"task": "wave"})
            self.planner: Planner = InProcess(partial(waver, spec=self.spec, **self.fields))
            stack.callback(self.planner.close)
            wishes = Wishes(self.out, **{"seconds": 3.0, "plain": True, **self.wishes})
            people = People(self.rig, stack)
            manners = replace(CALM, give_up_s=self.give_up_s)
            self.deployment = Deployment(wishes, self.rig, source, self.planner, people, manners=manners)
            people.hear, self.ticks = self._hear(people.hear), -1  # type: ignore[method-assign]
            self.whole = self.deployment.run()
            stack.callback(self.deployment.mind.close)  # of the planner that took the place of the first
        return self.deployment

    def _hear(self, hear: Callable[[], list[str]]) -> Callable[[], list[str]]:
        def heard() -> list[str]:
            board = self.deployment.mind.statistics().ticks
            do = self.at.pop(board, None)
            said = None if do is None else do(self)
            words = ["stop"] if self.until(self) else []
            return [*hear(), *words, *([said] if isinstance(said, str) else [])]

        return heard

    @property
    def machine(self) -> Machine:
        """The state machine at work."""
        return self.deployment.machine

    @property
    def log(self) -> Run:
        """The run log."""
        return open_run(self.out)

    def modes(self) -> list[tuple[str, str]]:
        """Returns (mode it led to, cause) of every change of mode, in order."""
        lines = [line for line in self.log.events if line["event"] == "mode" and line["source"] != line["target"]]
        return [(line["target"], line["kind"]) for line in lines]
