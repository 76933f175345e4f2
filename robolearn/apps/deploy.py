"""Run a policy on a robot: a check list first, limits always, every run kept as data; --dry-run does all but the motors."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import tyro

from robolearn.apps import _deploy_checks as checks
from robolearn.apps import _deploy_mind as minds
from robolearn.apps import _robot_file
from robolearn.apps._deploy_checks import Check
from robolearn.apps._deploy_people import People
from robolearn.apps._deploy_rig import Rig, body_of, limits_of, wait_for_pictures
from robolearn.apps._deployment import Deployment, Wishes
from robolearn.apps._report import write_json
from robolearn.errors import BadInput, Findings, Halted
from robolearn.runtime.remote import InProcess
from robolearn.runtime.state import Mode

_PLANS = 4  # made before the start: a warm-up, and three that are timed
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BAD_ENDS = ("stopped:fault", "stopped:estop", "stopped:hold")


@dataclass(frozen=True)
class Config:
    """Which policy, on which robot, and how."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder of the policy; with --policy, that folder or the file that `serve --json` wrote."""
    robot: str
    """A robot file: configs/robot/NAME.yaml, by name or path."""
    policy: str = ""
    """Plan at a server instead: ws://127.0.0.1:PORT, wss://HOST:PORT or unix:PATH (see `robolearn serve`)."""
    token_file: str = ""
    """Of the server."""
    ca: str = ""
    """Of the server, where it is not one that this computer trusts."""
    dry_run: bool = False
    """Everything but the motors: devices are read, plans are made, nothing is switched on or sent."""
    episodes: int = 1
    """How many."""
    seconds: float = 30.0
    """Of an episode, at most."""
    consumer: Literal["sync", "replace", "ensemble", "weighted_overlap", "rtc_guided", "rtc_trained"] = "replace"
    """What becomes of a new plan while the old one is executed."""
    share: float = 0.0
    """Of the top speed, 0 to 1; 0: as the robot file says. Begin with 0.1."""
    monitor: str = ""
    """Let RUN/monitors/NAME watch; an alarm holds."""
    task: str = ""
    """What the episodes show; by default the policy's task."""
    operator: str = ""
    """Who is there."""
    out: Path | None = None
    """Where the run is kept; by default data/runs/deploy/DATE-TIME."""
    yes: bool = False
    """Move without asking, and allow a longer way to the first target."""
    plain: bool = False
    """Plain lines instead of the screen, and no keys."""
    device: str = "auto"
    """Of the network: cpu, cuda; auto: cuda where there is one."""
    checkpoint: str = "last"
    """last, best or step_000500."""
    sampler: str = ""
    """Another sampler than in training."""
    steps: int = 0
    """Another number of sampling steps than in training."""
    execute: int = 0
    """Another number of executed actions a plan than in training."""
    json: Path | None = None
    """Write check list and outcomes to this file."""

    def __post_init__(self) -> None:
        """Refuses numbers out of range; ValueError names the field."""
        if self.episodes < 1 or not self.seconds > 0 or not 0 <= self.share <= 1:
            got = f"{self.episodes}, {self.seconds:g} and {self.share:g}"
            raise ValueError(f"want episodes >= 1, seconds > 0 and share from 0 to 1, got {got}")
        if self.monitor and (self.policy or self.consumer != "sync"):
            raise ValueError(
                "monitor: it was calibrated on a policy that waits for its plans, so its promise holds with --consumer sync "
                "and a policy of this computer only"
            )


def run(cfg: Config) -> int:
    """Goes through the check list, runs the episodes, and prints where they are kept."""
    robot = _robot_file.read(cfg.robot)
    rig = Rig(replace(robot, share=cfg.share) if cfg.share else robot)
    source = source_of(cfg)
    out = cfg.out or Path("data/runs/deploy") / datetime.now().strftime("%Y%m%d-%H%M%S")
    wishes = Wishes(
        out, cfg.episodes, cfg.seconds, cfg.consumer, cfg.monitor, cfg.task, cfg.operator, cfg.dry_run, cfg.yes, cfg.plain
    )
    if threading.current_thread() is threading.main_thread():
        for number in _ENDING[1:]:  # a closed terminal too ends it as Ctrl-C does
            signal.signal(number, signal.default_int_handler)
    with ExitStack() as stack:
        stack.callback(closed, rig)
        people = People(rig, stack)
        lines, planner = prepare(cfg, rig, source, people, out)
        for line in lines:
            print(line.text(), flush=True)
        if planner is None or any(line.blocks for line in lines):
            write_json(cfg.json, {"checks": checks.to_json(lines), "episodes": []})
            raise Findings(f"deploy: nothing was moved; mend {', '.join(line.name for line in lines if line.blocks)}")
        consent(cfg, rig)
        deployment = Deployment(wishes, rig, source, planner, people, lines)
        whole = deployment.run()
    return report(cfg, deployment, whole)


def source_of(cfg: Config) -> minds.Source:
    """Returns where plans come from; nothing is loaded yet."""
    if cfg.policy:
        settings = {"token_file": cfg.token_file, "ca": cfg.ca}
        return minds.remote(cfg.policy, cfg.run, Path(cfg.robot).stem, settings)
    given = {"sampler": cfg.sampler, "steps": cfg.steps, "execute": cfg.execute}
    return minds.local(cfg.run, cfg.checkpoint, cfg.device, {key: value for key, value in given.items() if value})


def prepare(cfg: Config, rig: Rig, source: minds.Source, people: People, out: Path) -> tuple[list[Check], InProcess | None]:
    """Opens everything and returns the check list, and the planner where nothing is missing; nothing moves."""
    robot, planner = rig.robot, None
    lines = [*checks.libraries(robot), *checks.people(robot, people.missing), *checks.latency(robot), *checks.disk(out)]
    rig.open()
    lines += checks.connected(rig)
    if rig.arm is not None:
        lines += [*checks.limits(limits_of(rig)), *checks.start(robot, limits_of(rig))]
        lines += [*checks.fits(rig, source.spec), *checks.stays(source.spec)]
    if rig.cameras:
        wait_for_pictures(rig)
        lines += checks.ages(rig)
    if not any(line.blocks for line in lines):
        planner = InProcess(source.make)
        people.stack.callback(planner.close)
        obs = body_of(rig, source.spec, lambda seed: None, dry=True).reset()
        took, horizon = minds.first_plans(planner, obs, _PLANS)
        lines += checks.planning(took[1:], source.spec, horizon, cfg.consumer == "sync")
    return lines, planner


def consent(cfg: Config, rig: Rig) -> None:
    """Asks before metal moves; BadInput where nobody agrees."""
    if cfg.dry_run or cfg.yes or not rig.metal:
        return
    if not sys.stdin.isatty():
        raise BadInput("deploy: this moves a real arm; give --yes, or run it in a terminal and type yes")
    print(f"This moves a real arm ({rig.robot.driver}) at up to {rig.robot.share:.0%} of its speed.")
    print("Is a hand on the emergency stop?")
    try:
        agreed = input("type yes: ").strip().lower() == "yes"
    except EOFError:  # Ctrl-D
        agreed = False
    if not agreed:
        raise BadInput("deploy: nothing was moved")


def closed(rig: Rig) -> None:
    """Closes the devices; a second Ctrl-C, or a word to end, does not stop that half-way."""
    ours = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _ENDING} if ours else {}
    try:
        wrong = rig.close()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for error in wrong:
        print(f"robolearn: closing: {error}", file=sys.stderr)


def report(cfg: Config, deployment: Deployment, whole: bool) -> int:
    """Prints what came of it and writes --json.

    Findings where a fault ended an episode, or the log is not whole; Halted where an alarm did.
    """
    out, outcomes = deployment.wishes.out, deployment.outcomes
    for k, outcome in enumerate(outcomes):
        print(f"episode {k + 1}: {outcome.reason}, {outcome.steps} ticks")
    print(f"{out}: kept" if whole else f"{out}: not all of it is on the disk: {deployment.why}")
    figures = {
        "checks": checks.to_json(deployment.lines),
        "episodes": [asdict(outcome) for outcome in outcomes],
        "out": str(out),
        "statistics": asdict(deployment.mind.statistics()),
    }
    write_json(cfg.json, figures)
    ended = [outcome.reason for outcome in outcomes if outcome.reason.startswith(_BAD_ENDS)]
    machine = deployment.machine
    if machine.mode in (Mode.FAULT, Mode.ESTOP):  # at the horizon too
        ended.append(f"{machine.mode}: {', '.join(machine.causes)}")
    if ended or not whole:
        raise Findings(f"deploy: {ended[0].removeprefix('stopped:') if ended else 'the run log is not whole'}")
    alarms = [outcome.reason for outcome in outcomes if outcome.reason.startswith("alarm:")]
    if alarms:
        raise Halted(f"deploy: {alarms[0]}")
    return 0
