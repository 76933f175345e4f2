"""The policy's side of a deployment: in a process of its own, here or at a server; started anew when it ends, and watched."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from robolearn import config
from robolearn.core import Ask, Chunk, Needs, Obs, Policy, Spec, Verdict
from robolearn.errors import BadInput, HardwareError, RobolearnError
from robolearn.policies import _driven
from robolearn.runtime.remote import InProcess, Planner, Request

PATIENCE_S = 120.0  # for a policy to load, and to make its first plan


@dataclass(frozen=True)
class Source:
    """Where plans come from. spec: the policy's; make: called in the planner's process; facts: for the run log."""

    spec: Spec
    make: Callable[[], Policy]
    facts: Mapping[str, Any]


def local(run: Path, checkpoint: str, device: str, sampling: Mapping[str, Any]) -> Source:
    """Returns a run folder's policy; its weights are loaded in the planner's process. CheckpointError where there is none."""
    from robolearn.apps import _evaluate

    subject = _evaluate.find(str(run), checkpoint)
    if subject.checkpoint is None:
        raise BadInput(f"deploy: {subject.label}: want a run folder; an expert reads its simulator, which is not here")
    spec = Spec.from_json(json.loads((subject.checkpoint / "spec.json").read_text()))
    policy = config.read_yaml(subject.checkpoint / "config.yaml")["policy"]
    execute = sampling.get("execute") or policy.get("execute", 1)
    spec = _driven.body_spec(spec, policy)
    facts = {
        "run": str(run),
        "checkpoint": subject.checkpoint.name,
        "weights_sha256": subject.weights_sha256,
        "task": subject.task,
    }
    make = partial(_loaded, str(subject.checkpoint), device, dict(sampling))
    return Source(replace(spec, execute=int(execute)), make, {**facts, "sampling": dict(sampling)})


def remote(address: str, described: Path, robot: str, settings: Mapping[str, Any]) -> Source:
    """Returns the policy of a server. described: its run folder, or the file that `serve --json` wrote."""
    path = described / "spec.json" if described.is_dir() and (described / "spec.json").is_file() else described
    if path.is_dir():
        from robolearn.training.checkpoint import resolve

        path = resolve(path) / "spec.json"
    try:
        values = json.loads(path.read_text())
        spec, name = Spec.from_json(values.get("spec", values)), values.get("policy", described.resolve().name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: want a run folder or what `robolearn serve --json` wrote, to know the policy: {error}") from None
    return Source(spec, partial(_dialled, address, spec, name, robot, dict(settings)), {"address": address, "policy": name})


def _loaded(checkpoint: str, device: str, sampling: Mapping[str, Any]) -> Policy:
    from robolearn.apps import _evaluate
    from robolearn.training.checkpoint import load_driver

    policy: Policy = load_driver(checkpoint, _evaluate._device(device), 1, sampling)
    return policy


def _dialled(address: str, spec: Spec, name: str, robot: str, settings: Mapping[str, Any]) -> Policy:
    from robolearn.runtime.serve.client import Client
    from robolearn.runtime.serve.link import Settings

    policy: Policy = Client(address, spec, name, robot, Settings(**settings))
    return policy


class Reviver:
    """Starts a planner anew, `times` at most, beside the control loop; call it at every tick while the planner is lost."""

    def __init__(self, source: Source, take: Callable[[Planner], None], tell: Callable[[str], None], times: int = 1) -> None:
        """take: puts a planner that has made its first plan, which is thrown away, in the place of the lost one.

        tell: is told, by whoever calls, why no new one came.
        """
        self._source, self._take, self._tell, self._left = source, take, tell, times
        self._thread: threading.Thread | None = None
        self._made: Planner | None = None
        self._why = ""

    def __call__(self, obs: Obs) -> bool:
        """Returns true once a planner is there again."""
        if self._made is not None:
            made, self._made, self._thread = self._made, None, None
            try:
                self._take(made)
            except HardwareError as error:  # it has ended already
                made.close()
                self._why = str(error)
            else:
                return True
        if self._why:
            self._tell(f"no new planner: {self._why}")
            self._why = ""
        if self._thread is None and self._left > 0:
            self._left -= 1
            self._thread = threading.Thread(target=self._start, args=(obs,), daemon=True, name="new planner")
            self._thread.start()
        return False

    def _start(self, obs: Obs) -> None:
        try:
            planner = InProcess(self._source.make)
            try:
                first_plans(planner, obs, 1)
            except RobolearnError:
                planner.close()
                raise
            self._made = planner
        except (RobolearnError, OSError) as error:
            self._why = str(error)


def first_plans(planner: Planner, obs: Obs, count: int, ask: Ask = Ask()) -> tuple[list[float], int]:
    """Returns how long each of `count` plans from one observation took [s], and how many ticks they reach.

    The first one warms up. HardwareError where none comes.
    """
    took, horizon = list[float](), 0
    planner.reset(0)
    for k in range(count):
        began = time.monotonic()
        planner.observe(obs, None)
        planner.submit(ask, Request(-1 - k, 0, 0))
        while not (ready := planner.poll()):
            if time.monotonic() - began > PATIENCE_S:
                raise HardwareError(f"planner: no plan in {PATIENCE_S:g} s")
            time.sleep(0.001)
        took.append(time.monotonic() - began)
        horizon = len(ready[-1].chunk.actions)
    return took, horizon


class OnPlans:
    """A monitor that is shown whole plans, as they are taken by a schedule, instead of the one action that a tick gets."""

    def __init__(self, watch: Any, plans: Callable[[], list[Chunk]]) -> None:
        """watch: of `robolearn.monitors`; plans: those that were taken in this tick."""
        self.watch, self._plans = watch, plans
        self._verdict = Verdict(-np.inf, np.inf, False)

    @property
    def needs(self) -> Needs:
        """Nothing: the plans were asked for with all that the monitor needs."""
        return Needs()

    def reset(self) -> None:
        """Begins an episode."""
        self.watch.reset()
        self._verdict = Verdict(-np.inf, np.inf, False)

    def update(self, obs: Obs, chunk: Chunk) -> Verdict:
        """Returns the verdict on the newest plan."""
        del chunk  # Unused: one action is no plan.
        for plan in self._plans():
            self._verdict = self.watch.update(obs, plan)
        return self._verdict


def watch_of(source: Source, monitor: str) -> Any:
    """Returns the monitor RUN/monitors/NAME of a local policy; CheckpointError where it was not calibrated on its weights."""
    from robolearn.monitors import _folder
    from robolearn.monitors._watch import Watch

    if source.facts.get("sampling"):
        changed = ", ".join(f"--{name}" for name in source.facts["sampling"])
        raise BadInput(f"deploy: {changed} changes the plans that monitor '{monitor}' was calibrated on; leave it out")
    folder = Path(source.facts["run"]) / "monitors" / monitor
    detector, _ = _folder.load(folder, source.facts["weights_sha256"])
    return Watch(detector, source.facts["task"], monitor)
