"""A virtual arm deployed on by policies that need no network: what tests of `deploy` and of its faults are made of."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hardware._records import Hosting
from robolearn.apps import deploy
from robolearn.apps._deploy_mind import Source
from robolearn.apps._deploy_people import People
from robolearn.apps._deploy_rig import Rig
from robolearn.apps._deployment import Deployment, Wishes
from robolearn.apps._robot_file import Part, RobotFile
from robolearn.core import Spec
from robolearn.runtime.parties import Manners
from robolearn.runtime.remote import InProcess, Planner
from robolearn.runtime.runs import Run, open_run
from robolearn.runtime.state import Machine
from tests.apps.wavers import HOME, SPEC, waver

STALL_S = 10.0  # shared cores stall: what they do to an arm is tested on clocks of our own
_ARM = {"arm": "panda", "q": HOME.tolist(), "opening_m": 0.08, "watchdog_s": STALL_S}
PANDA = RobotFile("virtual", _ARM, share=0.5, start=tuple(HOME))
PATIENT, CALM = Hosting(hold_after_s=STALL_S, stall_s=STALL_S), Manners(plan_age_s=STALL_S, stall_s=STALL_S)
FILMED = {"img": Part("synthetic", {"size": [64, 48], "hz": 20.0})}


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `robolearn deploy` bear a machine that stalls."""
    monkeypatch.setattr(deploy, "Rig", partial(Rig, hosting=PATIENT))
    monkeypatch.setattr(deploy, "Deployment", partial(Deployment, manners=CALM))


@dataclass
class Outing:
    """A deployment on the virtual arm that a test may disturb: `at` is called with it, by tick; it hears what `until`
    says, or stops once that is True."""

    out: Path
    robot: RobotFile = PANDA
    spec: Spec = SPEC
    fields: dict[str, Any] = field(default_factory=dict)
    at: dict[int, Callable[[Outing], object]] = field(default_factory=dict)
    until: Callable[[Outing], bool | str] = lambda outing: False
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
            last = self.until(self)
            words = ["stop"] if last is True else [last]
            return [*hear(), *(word for word in (*words, said) if word and isinstance(word, str))]

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
