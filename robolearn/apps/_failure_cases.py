"""The cases of `study failure`: whose rollouts are watched, and what befalls them.

The four planar policies are those of the memory study (arm ptp, seed 0), trained where they are missing; any other trained run
is a case too, with the disturbances of its task here or others by flag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robolearn.apps import _study_memory as memory
from robolearn.apps._evaluate import Subject, find
from robolearn.errors import BadInput, nearest
from sim_envs import perturb

# What befalls the episodes of each task, chosen on seeds from 50000 so that the policy solves 40 to 90 % and some of every kind.
PLANAR = {
    "shell-64": "none:0.35,weak=0.7@6:0.2,slip=0.6@6:0.15,freeze=40@6:0.1,noise=0.6@6:0.1,delay=6@6:0.1",
    "nearer-64": "none:0.4,weak=0.78@6:0.15,slip=0.8@6:0.15,offset=0.5@6:0.1,noise=3@6:0.1,goal=1:0.1",
    "twice-16": "none:0.4,weak=0.4@6:0.15,slip=0.3@6:0.15,freeze=40@6:0.1,noise=1@6:0.1,delay=6@6:0.1",
    "scoops-16": "none:0.4,weak=0.4@6:0.15,slip=0.3@6:0.15,freeze=40@6:0.1,push=0.6@6:0.1,delay=6@6:0.1",
}
TASKS = {
    "lift": "none:0.35,offset=0.025@3:0.2,push=0.3@3:0.25,noise=2@3:0.2",
    "pusht": "none:0.4,offset=20@10:0.2,push=60@10:0.2,delay=3@10:0.2",
}
ARM = "ptp"


@dataclass(frozen=True)
class Case:
    """A policy and what befalls its episodes. name: of its rows; run: its folder, None for a policy of the memory study."""

    name: str
    mixture: str
    run: Path | None = None

    def subject(self, policies: Path) -> Subject:
        """Returns the policy; one of the memory study is trained now where it is missing in the folder `policies`."""
        if self.run is not None:
            return find(str(self.run))
        plan = memory.Plan(policies, demos=200, episodes=1, eval_seed=0)
        cell = memory.Cell(self.name, ARM, 0)
        memory.demonstrations(plan, self.name)
        memory.train(plan, cell)
        return find(str(memory.run_folder(plan, cell)))


def chosen(tasks: Sequence[str], runs: Sequence[Path], disturb: Sequence[str]) -> list[Case]:
    """Returns the cases that are asked for: planar ones by name, runs by folder; all planar ones where neither is given.

    disturb: one mixture a run, none at all: those of their tasks. BadInput names what there is no case of.
    """
    for task in tasks:
        if task not in PLANAR:
            raise BadInput(f"tasks: no case '{task}'{nearest(task, PLANAR)}; other policies are given as --runs FOLDER")
    if disturb and len(disturb) != len(runs):
        raise BadInput(f"disturb: want one mixture for each of {len(runs)} runs, got {len(disturb)}")
    planar = tasks or (() if runs else PLANAR)
    cases = [Case(task, PLANAR[task]) for task in planar]
    cases += [of_run(run, mixture) for run, mixture in zip(runs, disturb or [""] * len(runs), strict=True)]
    names = [case.name for case in cases]
    if twice := {name for name in names if names.count(name) > 1}:
        raise BadInput(f"cases: '{min(twice)}' is asked for twice; want folders of different names")
    return cases


def of_run(run: Path, mixture: str = "") -> Case:
    """Returns the case of a trained run, under the disturbances of its task unless others are given."""
    task = find(str(run)).task
    if not mixture and task not in TASKS:
        raise BadInput(f"{run}: no disturbances are set for '{task}' (only {', '.join(TASKS)}); give some with --disturb")
    perturb.parse(mixture or TASKS[task])
    return Case(run.resolve().name, mixture or TASKS[task], run)
