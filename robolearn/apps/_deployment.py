"""`Deployment`: the episodes of one policy on one robot, with what stands around it: people, limits, monitor, screen, run log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hardware._base import Setpoint, State
from hardware._records import STATES, Sample
from hardware.devices._tty import Keys
from hardware.real_env import RealEnv
from robolearn import config
from robolearn.apps import _deploy_checks as checks
from robolearn.apps import _deploy_mind as minds
from robolearn.apps._deploy_people import People, invited
from robolearn.apps._deploy_rig import Rig, body_of, limits_of
from robolearn.apps._deploy_screen import Board, Screen
from robolearn.apps._report import git_state
from robolearn.clock import Deadline
from robolearn.core import Ask, Obs, Outcome, Spec, Tick
from robolearn.errors import HardwareError
from robolearn.rollout import rollout
from robolearn.runtime._recovery import AtOnce
from robolearn.runtime.align import Align
from robolearn.runtime.consumers._base import make_consumer
from robolearn.runtime.parties import Manners
from robolearn.runtime.remote import Planner
from robolearn.runtime.runlog import RunLog
from robolearn.runtime.schedule import Rules, Scheduled
from robolearn.runtime.state import Change, Machine, Mode
from robolearn.runtime.supervisor import Supervised
from robolearn.runtime.takeover import TakeOver

_TO_START_S = 60.0  # for the way to the start
_CYCLES = 60  # of the driver, that a tick may bring
_LAST = ("stopped:quit", "stopped:hold", "alarm:")  # reasons after which no other episode is begun
CYCLES = "arm/cycles"  # the stream of the driver's cycles in the run log
ROW = ("q", "qd", "effort", "sent", "aperture", "sent_aperture", "changed", "flags", "holding", "life", "cycle")
"""What a row of it holds: vectors of the joints first, then numbers; life is a place in `hardware._records.STATES`."""


@dataclass(frozen=True)
class Wishes:
    """How to deploy; the fields of `robolearn deploy` that say so."""

    out: Path
    episodes: int = 1
    seconds: float = 30.0
    consumer: str = "replace"
    monitor: str = ""
    task: str = ""
    operator: str = ""
    dry: bool = False
    far: bool = False
    plain: bool = False


def as_row(sample: Sample) -> np.ndarray:
    """Returns a cycle as the run log keeps it (4 n + 7,) float64, in the order of ROW."""
    state = sample.state
    numbers = [state.aperture, sample.sent_aperture, sample.changed, state.flags, sample.holding, STATES.index(sample.life)]
    return np.concatenate([state.q, state.qd, state.effort, sample.sent, np.array([*numbers, sample.cycle], float)])


@dataclass
class Deployment:
    """Episodes of one policy on one robot. lines: the check list, for the run log; outcomes: of the episodes so far.

    manners: `attended` and `waits` follow from who is there and from the consumer.
    """

    wishes: Wishes
    rig: Rig
    source: minds.Source
    planner: Planner
    people: People
    lines: Sequence[checks.Check] = ()
    manners: Manners = Manners()
    outcomes: list[Outcome] = field(default_factory=list)
    why: str = ""

    def __post_init__(self) -> None:
        self.watch = self._watch()
        spec, delays = self.source.spec, self.rig.robot.latencies().devices.values()
        observe_s = max((one.observe_s for one in delays), default=0.0)
        act_s = max((one.act_s for one in delays), default=0.0)
        draws = 1 if self.watch is None else self.watch.watch.needs.draws
        consumer = make_consumer(self.wishes.consumer, {}, spec)
        rules = Rules(observe_s=observe_s, act_s=act_s)
        self._body: RealEnv | None = None
        self.mind = Scheduled(self.planner, consumer, spec, time.monotonic, rules, Ask(draws=draws), here=self._rest)
        self.attended = sys.stdin.isatty() and not self.wishes.plain
        self.machine = Machine(sink=lambda change: None)
        self._newest: Obs = {}
        self._log: RunLog | None = None
        self._cycle, self._cycle_ns, self._warned = -1, 0, False

    def run(self) -> bool:
        """Runs the episodes and returns whether all of the run is on the disk; `why` says what is not."""
        wishes = self.wishes
        with ExitStack() as stack:
            log = stack.enter_context(RunLog(wishes.out, self.facts(), emulated=self.rig.emulated or wishes.dry))
            self._log = log
            board = Board(self._title(), self._ages, self._planning, episodes=wishes.episodes)

            def note(change: Change) -> None:
                log.change(change)
                board.change(change)

            self.machine = board.machine = machine = Machine(sink=note)
            body = self._body = body_of(self.rig, self.source.spec, self._to_start, dry=wishes.dry)
            mind = self.people.over(self.mind, body)
            stack.callback(self.mind.close)  # also of a planner that took the place of the first

            def tell(text: str) -> None:
                log.event("planner", why=text)
                board.note(text)

            supervised = self._supervised(body, mind, machine, tell)
            if not wishes.dry:
                self.rig.activate()  # an arm in FAULT is for people to look at first
            stack.enter_context(Screen(board, f"deploy on {self.rig.robot.driver}", wishes.plain))
            if sys.stdin.isatty() and not wishes.plain:
                self.people.keys = stack.enter_context(Keys()).read
            for k in range(wishes.episodes):
                if not log.healthy:
                    raise HardwareError(f"{wishes.out}: episode {k + 1} is not begun, the run log is not healthy: {log.reason}")
                if k and self.attended and self.rig.metal and not wishes.dry and not invited(board, self.people.hear):
                    break
                board.episode, board.max_steps = k + 1, round(wishes.seconds * self.source.spec.hz)
                outcome = rollout(
                    supervised, mind, max_steps=board.max_steps, seed=k, sinks=[log, board, self, supervised],
                    monitors={} if self.watch is None else {wishes.monitor: self.watch}, on_alarm=supervised.alarm,
                    meta={"task": self.task, "operator": wishes.operator},
                )  # fmt: skip
                self.outcomes.append(outcome)
                log.event("statistics", **asdict(self.mind.statistics()))
                if outcome.reason.startswith(_LAST) or machine.mode is not Mode.IDLE:
                    break
            whole = log.close()
            self.why = log.reason
        return whole

    def begin(self, spec: Spec, meta: Mapping[str, Any]) -> None:
        """Is a sink too, for what a tick does not carry."""

    def record(self, tick: Tick) -> None:
        """Logs the driver's cycles, keeps the observation for a planner to begin with, starts cameras anew that have ended.

        Says once where the log is not healthy.
        """
        self._newest = tick.step.obs
        self.rig.mend()
        if self._log is not None and not self._warned and not self._log.healthy:
            self._warned = True
            self.machine.react("log_dead", self._log.reason, time.monotonic_ns())
        if self.rig.busy:  # with its arm
            return
        if self.rig.arm is not None and self.rig.arm.alive and self._log is not None:
            for sample in self.rig.arm.history(_CYCLES):
                if sample.cycle > self._cycle or sample.state.t_recv_ns > self._cycle_ns:
                    self._cycle, self._cycle_ns = sample.cycle, sample.state.t_recv_ns
                    self._log.sample(CYCLES, sample.state.t_sample_ns, sample.state.t_recv_ns, as_row(sample))

    def stream(self, name: str, t_ns: int, array: np.ndarray) -> None:
        """Ignores raw streams."""

    def end(self, outcome: Outcome) -> None:
        """Keeps what it has."""

    @property
    def task(self) -> str:
        """What the episodes show."""
        return self.wishes.task or str(self.source.facts.get("task", ""))

    def facts(self) -> dict[str, Any]:
        """Returns what run.json keeps of the set-up."""
        commit, dirty = git_state()
        robot = self.rig.robot
        return {
            "task": self.task, "robot": robot.driver, "operator": self.wishes.operator,
            "policy": {**self.source.facts, "consumer": self.wishes.consumer}, "config": config.to_mapping(robot),
            "git": {"commit": commit, "dirty": dirty}, "limits": asdict(self.limits), "latency": robot.latencies().to_json(),
            "devices": {part: asdict(said) for part, said in self.rig.said.items() if not isinstance(said, Exception)},
            "checks": checks.to_json(self.lines), "dry_run": self.wishes.dry,
            "streams": {CYCLES: {"joints": list(self.limits.names), "columns": ROW}},
        }  # fmt: skip

    @cached_property
    def limits(self) -> Any:
        """What the guard in the driver's process keeps."""
        return limits_of(self.rig)

    @cached_property
    def _safe_share(self) -> Any:
        make = self.rig.robot.make_guard().make_safe_share
        return None if make is None else make(self.limits.collision_margin_m)

    def _supervised(self, body: RealEnv, mind: Any, machine: Machine, tell: Callable[[str], None]) -> Supervised:
        wishes, reviver = self.wishes, minds.Reviver(self.source, self.mind.replace, tell)

        def hear() -> Sequence[str]:
            silent = isinstance(mind, TakeOver) and mind.silent
            return [*self.people.hear(), *(["hold"] if silent else [])]

        waits, rest_s = wishes.consumer == "sync", self.rig.hosting.hold_after_s
        manners = replace(self.manners, attended=self.attended, waits=waits, rest_s=rest_s)
        return Supervised(
            body, mind, machine, self._align, manners, self.people.deadman,
            hear, person=lambda: isinstance(mind, TakeOver) and mind.engaged,
            recover=AtOnce if wishes.dry else self.rig.recover, revive=lambda: reviver(self._newest),
        )  # fmt: skip

    def _rest(self) -> np.ndarray:
        assert self._body is not None
        return self._body.rest

    def _align(self, here: np.ndarray, there: np.ndarray) -> Align:
        return Align(self.limits, 1.0 / self.source.spec.hz, here, there, self._safe_share, confirmed=self.wishes.far)

    def _to_start(self, seed: int | None) -> None:
        """Brings the arm to the robot file's start, slowly, before an episode; HardwareError where it does not get there."""
        del seed  # Unused: a real scene has none.
        arm, robot, hz = self.rig.arm, self.rig.robot, self.source.spec.hz
        if not robot.start or self.wishes.dry or arm is None:
            return
        way = self._align(arm.read().state.q, np.array(robot.start))
        beat, end, kept = Deadline(1.0 / hz), time.monotonic() + _TO_START_S, False
        try:
            while not way.done:
                beat.wait()
                words = set(self.people.hear())
                if {"stop", "quit", "estop"} & words:
                    raise KeyboardInterrupt
                kept = (kept or "hold" in words) and "resume" not in words
                if arm.read().life is State.FAULT:
                    raise arm.fault() or HardwareError(f"{robot.driver}: it stopped, and does not say why")
                q = way.step(time.monotonic(), self.people.held() and not kept)
                arm.command(Setpoint(q, None, time.monotonic_ns() + round(1e9 / hz)))
                if time.monotonic() > end:
                    raise HardwareError(
                        f"{robot.driver}: not at its start after {_TO_START_S:g} s; is it held, or the dead-man not?"
                    )
        finally:
            arm.hold()

    def _watch(self) -> minds.OnPlans | None:
        if not self.wishes.monitor:
            return None
        watch = minds.watch_of(self.source, self.wishes.monitor)
        return minds.OnPlans(watch, lambda: self.mind.plans)

    def _title(self) -> str:
        words = ["DRY RUN: nothing is sent"] if self.wishes.dry else []
        words += [] if self.rig.metal else ["EMULATED"]
        off = ", ".join(self.limits.without) or "nothing"
        return "   ".join([f"{self.rig.robot.share:.0%} of the top speed; limits off: {off}", *words])

    def _ages(self) -> dict[str, float]:
        return {key: camera.age_s for key, camera in self.rig.cameras.items()}

    def _planning(self) -> str:
        found = self.mind.statistics()
        late = f"{found.delays[-1]} ticks after their observation" if found.delays else "none yet"
        return f"{late}, underruns {found.underruns}"
