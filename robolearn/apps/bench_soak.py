"""A deployment that goes on while everything around it breaks: nothing beyond limits at the wire, memory flat, no zombies."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hardware._base import State
from hardware._host import Hosted
from hardware.emulators._process import Running
from robolearn.apps import _anchors_wire as wire
from robolearn.apps._deploy_mind import Source
from robolearn.apps._deploy_people import People
from robolearn.apps._deploy_rig import Rig
from robolearn.apps._deployment import CYCLES, Deployment, Wishes
from robolearn.apps._report import write_json
from robolearn.apps._robot_file import RobotFile
from robolearn.core import ArraySpec, Ask, Chunk, Obs, Policy, Spec
from robolearn.errors import Findings, HardwareError
from robolearn.runtime.remote import InProcess
from robolearn.runtime.runs import open_run

JOINTS = tuple(f"q{i}" for i in range(5))
OBS = {"joint_pos": ArraySpec((5,), names=JOINTS, unit="rad")}
SPEC = Spec(OBS, ArraySpec((6,), names=(*JOINTS, "gripper")), 20.0, codec="joint_abs")
PERIOD_S = 0.01
SWING, EVERY_S = 0.5, 6.0  # [rad] of the policy; a fault begins so long after the last, on average
TROUBLES = ("drop", "corrupt", "delay", "dead", "alarm", "unplug", "stop_driver", "stop_planner", "hold")
GROWTH_MIB = 50.0  # of all processes together, from a third of the time to the end


@dataclass(frozen=True)
class Config:
    """How long, and which faults."""

    minutes: float = 30.0
    seed: int = 0
    """Of the faults."""
    json: Path | None = None
    """Write the figures to this file."""

    def __post_init__(self) -> None:
        """Refuses a time that has passed; ValueError names the field."""
        if not self.minutes > 0:
            raise ValueError(f"minutes: want more than 0, got {self.minutes:g}")


@dataclass
class Swing:
    """A policy that swings all joints slowly and knows no network."""

    spec: Spec = SPEC
    tick: int = -1

    def reset(self, seed: int | None = None) -> None:
        """Starts an episode."""
        self.tick = -1

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        """Counts ticks."""
        self.tick += 1

    def plan(self, ask: Ask = Ask()) -> Chunk:
        """Returns the next 16 ticks of the swing; one plan in a hundred is not finite."""
        phase = 0.04 * (self.tick + 1 + np.arange(16))
        actions = np.zeros((16, 6), np.float32)
        actions[:, :5] = SWING * np.sin(phase)[:, None]
        if self.tick % 100 == 50:
            actions[3] = np.nan
        return Chunk(actions, self.tick)


def swing() -> Policy:
    """Returns the policy; a function of a module, as another process wants it."""
    return Swing()


@dataclass
class Troublemaker:
    """What breaks things while a deployment runs, and mends them again after a while; the operator who recovers, too."""

    rng: random.Random
    box: Running
    rig: Rig
    planner: InProcess
    began: float = field(default_factory=time.monotonic)
    counts: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, float]] = field(default_factory=list)  # s, MiB
    _next_s: float = 5.0
    _mend_s: float = float("inf")
    _mend: tuple[tuple[str, dict[str, Any]], ...] = ()

    def __call__(self) -> Sequence[str]:
        """Is called at every tick; returns what the operator says."""
        now = time.monotonic() - self.began
        if not self.memory or now - self.memory[-1][0] > 5.0:
            self.memory.append((now, memory_mib()))
        if now > self._mend_s:
            for op, arguments in self._mend:
                self.box.control(op, **arguments)
            self._mend_s, self._next_s = float("inf"), now + self.rng.expovariate(1.0 / EVERY_S)
            return ["recover", "resume"]
        if now > self._next_s and self._mend_s == float("inf"):
            return self._break(now)
        return ()

    def _break(self, now: float) -> Sequence[str]:
        what = self.rng.choice(TROUBLES)
        self.counts[what] += 1
        self._mend, self._mend_s = (), now + self.rng.uniform(0.5, 2.5)
        servo = self.rng.choice(wire.SERVOS)
        if what in ("drop", "corrupt"):
            self.box.control(what, p=self.rng.uniform(0.02, 0.5))
            self._mend = ((what, {"p": 0.0}),)
        elif what == "delay":
            self.box.control(what, s=self.rng.uniform(0.0, 0.01))
            self._mend = ((what, {"s": 0.0}),)
        elif what == "dead":
            self.box.control(what, id=servo)
            self._mend = (("alive", {"id": servo}),)
        elif what == "alarm":
            self.box.control(what, id=servo, bits=32)
            self._mend = (("clear", {"id": servo}),)
        elif what == "unplug":
            self.box.control(what)
            self._mend = (("replug", {}),)
        elif what == "hold":
            return ["hold"]
        elif what == "stop_planner":
            _stopped(self.planner.pid, 0.3)
        elif isinstance(self.rig.arm, Hosted):  # it is not there while it is opened anew
            _stopped(self.rig.arm.pid, 0.3)
        return ()


def _stopped(pid: int, seconds: float) -> None:
    """Stops a process for so long, beside this one."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(seconds, _continued, (pid,)).start()


def _continued(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def run(cfg: Config) -> int:
    """Runs the deployment, prints what broke and what came of it; Findings (exit code 1) where a promise was broken."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        box = stack.enter_context(Running("dynamixel"))
        calibration = wire.koch_calibration(Path(folder) / "koch.yaml")
        robot = RobotFile("koch", {"port": box.address, "calibration": str(calibration)}, hz=1.0 / PERIOD_S, share=0.5)
        rig = Rig(robot)
        stack.callback(rig.close)
        opened(rig)
        planner = InProcess(swing)
        stack.callback(planner.close)
        people = People(rig, stack)
        trouble = people.hear = Troublemaker(random.Random(cfg.seed), box, rig, planner)  # type: ignore[method-assign, assignment]
        wishes = Wishes(Path(folder) / "log", seconds=60 * cfg.minutes, plain=True)
        deployment = Deployment(wishes, rig, Source(SPEC, swing, {"task": "swing"}), planner, people)
        deployment.attended = True
        whole = deployment.run()
        goals = box.control("stats")["goals"]
        limits = deployment.limits
        outcome = deployment.outcomes[0]
        wrong = rig.close()
        figures = judged(Path(folder) / "log", limits, goals)
        figures |= {
            "minutes": cfg.minutes, "ticks": outcome.steps, "reason": outcome.reason, "troubles": dict(trouble.counts),
            "memory_mib": trouble.memory, "growth_mib": growth(trouble.memory), "log_whole": whole, "closing": wrong,
        }  # fmt: skip
    figures["zombies"] = zombies()
    write_json(cfg.json, figures, cfg.seed)
    print(f"{outcome.steps} ticks, {sum(trouble.counts.values())} troubles, modes {figures['modes']}")
    print(f"at the wire: {goals['count']} goals, {goals['non_finite']} not finite; growth {figures['growth_mib']:.1f} MiB")
    broken = [name for name, holds in promises(figures).items() if not holds]
    if broken:
        raise Findings(f"soak: {', '.join(broken)}")
    return 0


def opened(rig: Rig) -> None:
    """Opens the arm, in three attempts: a busy machine misses answers. HardwareError where it does not answer."""
    for _ in range(3):
        rig.open()
        if not rig.missing and rig.arm is not None and rig.arm.read().life is State.CONNECTED:
            return
        rig.close()
    raise HardwareError(f"soak: {next(iter(rig.missing.values()), 'the arm is in FAULT before anything was asked of it')}")


def promises(figures: dict[str, Any]) -> dict[str, bool]:
    """Returns which promises held, by what a broken one is called."""
    return {
        "a goal at the wire was not finite": figures["non_finite"] == 0,
        "a setpoint was outside the limits": figures["beyond_rad"] <= 1e-6,
        "a setpoint was faster than the limits": figures["speed_share"] <= 1.0 + 1e-6,
        "memory grew": figures["growth_mib"] <= GROWTH_MIB,
        "a process was left behind": figures["zombies"] == 0,
        "the episode ended early": figures["reason"] == "horizon",
        "the run log is not whole": figures["log_whole"],
    }


def judged(log: Path, limits: Any, goals: dict[str, Any]) -> dict[str, Any]:
    """Returns how what was sent stands to the limits, over the whole run log."""
    run_log, bounds, n = open_run(log), limits.bounds, len(limits.names)
    rows, t_ns = np.asarray(run_log.streams[CYCLES].values), run_log.streams[CYCLES].t_ns
    sent, cycle = rows[:, 3 * n : 4 * n], rows[:, -1]
    active: np.ndarray = np.isfinite(sent).all(axis=1)
    beyond = float(np.maximum(bounds.lower - sent[active], sent[active] - bounds.upper).max())
    one_on = active[1:] & active[:-1] & (np.diff(cycle) == 1)  # neither switched on anew nor opened anew between
    spans = np.maximum(np.diff(t_ns) * 1e-9, PERIOD_S)[one_on]
    speeds = np.abs(np.diff(sent, axis=0))[one_on] / spans[:, None]
    modes = Counter(line["target"] for line in run_log.events if line["event"] == "mode" and line["source"] != line["target"])
    return {
        "beyond_rad": beyond, "speed_share": float((speeds / bounds.velocity).max()), "goals": goals,
        "non_finite": int(goals["non_finite"]), "modes": dict(modes), "cycles": int(active.sum()),
    }  # fmt: skip


def growth(memory: Sequence[tuple[float, float]]) -> float:
    """Returns how much the memory grew from the second third of the time to the last [MiB], by medians."""
    third = max(1, len(memory) // 3)
    used = [mib for _, mib in memory]
    return float(np.median(used[-third:]) - np.median(used[third : 2 * third] or used))


def memory_mib() -> float:
    """Returns the memory of this process and all below it [MiB], what they share counted once each."""
    return sum(_rss_mib(pid) for pid in (os.getpid(), *children(os.getpid())))


def children(pid: int) -> list[int]:
    """Returns all processes below one."""
    below: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, task.read_text().split()):
                below += [child, *children(child)]
    return below


def zombies() -> int:
    """Returns how many processes below this one have ended and were not waited for, or still run."""
    time.sleep(1.0)
    left = 0
    for pid in children(os.getpid()):
        with suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
            left += "resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_text() or state.split()[0] == "Z"
    return left


def _rss_mib(pid: int) -> float:
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20
    return 0.0
