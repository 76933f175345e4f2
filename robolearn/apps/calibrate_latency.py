"""Measure how late an arm's motion follows a setpoint, or a camera's pictures what they show, into the robot's latency file."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hardware._base import CAMERAS, ROBOTS, Identity, Stop, make
from hardware._camera_host import HostedCamera
from hardware._host import Hosted
from hardware._records import Hosting
from hardware._ring import new_run
from robolearn import config
from robolearn.apps import _filmed, _robot_file, _sweep
from robolearn.apps._guide import consent
from robolearn.apps._report import write_json
from robolearn.apps._robot_file import RobotFile
from robolearn.errors import BadInput, UnknownName
from robolearn.runtime import latency_file
from robolearn.runtime.latency import Delay, Latency

CLOCK = _sweep.Clock()
_DITHER = 0.6  # of a period that each cycle waits at most: held setpoints and samples in step would leave a period open


@dataclass(frozen=True)
class Config:
    """Flags of `robolearn calibrate latency`."""

    robot: str
    """A robot file, or the name of a shipped one."""
    camera: str = ""
    """Measure this camera of the robot, and not its arm."""
    joint: str = ""
    """The joint to move; empty: the last one, which moves the least."""
    degrees: float = 2.5
    """How far it moves either way [deg]."""
    slow_hz: float = 0.2
    """Frequency at the beginning [Hz]."""
    fast_hz: float = 0.5
    """Frequency at the end [Hz]."""
    seconds: float = 12.0
    """How long it takes [s]."""
    max_delay_s: float = 0.3
    """Longest delay looked for [s]."""
    out: Path | None = None
    """The latency file; without it data/calibration/ROBOT/latency.yaml, by the robot file's name."""
    overwrite: bool = False
    """Replace what the file says of this joint, or camera."""
    yes: bool = False
    """A real arm moves without asking first."""
    json: Path | None = None
    """Write the figures to this file."""

    def __post_init__(self) -> None:
        """Refuses numbers that make no sense; ValueError names the field."""
        if not 0 < self.degrees <= 20:
            raise ValueError(f"degrees: want up to 20, above 0, got {self.degrees:g}")
        if not (0 < self.slow_hz <= self.fast_hz and self.seconds * self.slow_hz >= 2 and self.seconds <= 120):
            got = f"{self.slow_hz:g} Hz, {self.fast_hz:g} Hz and {self.seconds:g} s"
            raise ValueError(f"want 0 < slow_hz <= fast_hz, and seconds for two slow periods, 120 at most; got {got}")
        if not 0 < self.max_delay_s <= 1:
            raise ValueError(f"max_delay_s: want up to 1, above 0, got {self.max_delay_s:g}")


def run(cfg: Config) -> int:
    """Measures, prints what was found and writes it to the latency file."""
    robot, name = _robot_file.read(cfg.robot), config.find("robot", cfg.robot).stem
    path, device = cfg.out or Path("data/calibration") / name / "latency.yaml", cfg.camera or robot.driver

    def check(joint: str | None, who: Mapping[str, Any] | None = None) -> None:
        if not cfg.overwrite:
            latency_file.check_free(path, device, joint, who)

    check(None if cfg.camera else cfg.joint)  # before anything moves
    found, figures = camera(cfg, robot) if cfg.camera else arm(cfg, robot, check)
    figures = {"robot": name, "device": device, **figures}
    figures["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    joint = None if cfg.camera else str(figures["joint"])
    kept = latency_file.write_device(path, device, found, figures, joint=joint, overwrite=cfg.overwrite)
    joints = latency_file.joints_of(path, device)
    print(f"{path}: {device}: observe_s {kept.observe_s:g}, act_s {kept.act_s:g}" + said_of(joints))
    if Path(robot.latency) != path:
        print(f"To use it, put into the robot's file: latency: {path}")
    write_json(cfg.json, {"file": str(path), "latency": vars(found), **figures})
    return 0


def said_of(joints: Sequence[str]) -> str:
    """Returns of which joints an arm's delays are the largest; "" where there is one to choose from."""
    return f" (of {', '.join(joints)} the largest)" if len(joints) > 1 else ""


def arm(cfg: Config, robot: RobotFile, check: Callable[..., None]) -> tuple[Latency, dict[str, Any]]:
    """Moves one joint and returns its delays, and how they were measured. check: raises where it must not be."""
    hosted = open_arm(robot)
    try:
        identity = hosted.connect()
        joint = index_of(cfg.joint, hosted.caps.joints, robot.driver)
        name = hosted.caps.joints[joint]
        check(name, {"model": identity.model, "serial": identity.serial, "emulated": identity.emulated})
        motion = _sweep.Motion(math.radians(cfg.degrees), cfg.slow_hz, cfg.fast_hz, cfg.seconds)
        limits = robot.make_guard().limits(hosted.caps)
        _sweep.check(motion, limits, joint, float(hosted.read().state.q[joint]))
        if not identity.emulated:
            print("Keep the emergency stop in reach and people out of the arm's. Ctrl-C stops it.")
            consent(f"{robot.driver}: {name} moves {cfg.degrees:g} deg either way for {cfg.seconds:g} s.", cfg.yes)
        hosted.configure()
        hosted.activate()
        recording = _sweep.sweep(hosted, limits, joint, motion, CLOCK)
        hosted.deactivate(Stop.HOLD)
    finally:
        for problem in hosted.close():
            config.warn(problem)
    found = _sweep.estimate(recording, cfg.max_delay_s)
    tell(found, f"{robot.driver}: {name}, {cfg.degrees:g} deg, {cfg.slow_hz:g} to {cfg.fast_hz:g} Hz, {found.samples} samples")
    figures = facts(found, identity) | {"joint": name, "degrees": cfg.degrees, "seconds": cfg.seconds}
    figures |= {"slow_hz": cfg.slow_hz, "fast_hz": cfg.fast_hz, "changed": round(recording.changed, 4)}
    return Latency(round(found.observe_s, 5), round(found.act.seconds, 5)), figures


def camera(cfg: Config, robot: RobotFile) -> tuple[Latency, dict[str, Any]]:
    """Films a clock and returns the camera's delay, and how it was measured."""
    source = open_camera(robot, cfg.camera)
    try:
        identity = source.connect()
        found = _filmed.watch(source, identity, cfg.seconds, CLOCK)
    finally:
        for problem in source.close():
            config.warn(problem)
    low, high = (1000 * bound for bound in found.interval)
    print(f"{cfg.camera}: {found.read} of {found.frames} pictures showed the clock")
    print(f"{'observe':>9} {1000 * found.seconds:6.1f} ms ({low:.1f} .. {high:.1f})  from the clock's picture until we have it")
    print(f"{'stamped':>9} {1000 * found.stamped_s:6.1f} ms  by the camera's own stamps ({found.domain})")
    figures = {"model": identity.model, "serial": identity.serial, "emulated": identity.emulated, **vars(found)}
    return Latency(round(found.seconds, 5)), {**figures, "interval": [round(bound, 5) for bound in found.interval]}


def open_arm(robot: RobotFile) -> Hosted:
    """Returns the arm, not connected, in a process whose cycles are a little out of step."""
    make_driver = partial(make, ROBOTS, robot.driver, dict(robot.set), "robot")
    period_s = 1 / robot.hz
    return Hosted(robot.driver, make_driver, robot.make_guard(), new_run(), Hosting(period_s, dither_s=_DITHER * period_s))


def open_camera(robot: RobotFile, key: str) -> HostedCamera:
    """Returns a camera of the robot, not connected; UnknownName for one that it has not."""
    if key not in robot.cameras:
        raise UnknownName("camera", key, robot.cameras, where="the robot's file")
    part = robot.cameras[key]
    return HostedCamera(key, partial(make, CAMERAS, part.driver, dict(part.set), "camera"), new_run())


def index_of(joint: str, joints: tuple[str, ...], driver: str) -> int:
    """Returns which joint is meant; UnknownName with the nearest one, BadInput for a device without joints."""
    if not joints:
        raise BadInput(f"{driver}: it has no joints; a gripper's delay is not measured here")
    if joint and joint not in joints:
        raise UnknownName("joint", joint, joints, where=driver)
    return joints.index(joint) if joint else len(joints) - 1


def tell(found: _sweep.Found, head: str) -> None:
    """Prints an arm's delays."""
    unsure = f"(+- {1000 * found.observe_unsure_s:.1f})"
    print(head)
    print(f"{'act':>9} {said(found.act)} from the wire until the motion; gain {found.act.gain:.3f}")
    lag = f"the rest is a lag with a time constant of {1000 * found.dead.time_constant_s:.1f} ms"
    print(f"{'dead':>9} {said(found.dead)} of it, before anything moves; {lag}")
    print(f"{'observe':>9} {1000 * found.observe_s:6.1f} ms {unsure:<18} from a measurement until we have it")
    if found.asked is None:
        print(f"{'asked':>9}     -    the guard did not keep up with what was asked; is the machine busy?")
    else:
        print(f"{'asked':>9} {said(found.asked)} from when a setpoint is due until the motion: act, and the guard's own lag")


def facts(found: _sweep.Found, identity: Identity) -> dict[str, Any]:
    """Returns how an arm's delays were found, as plain values."""
    who: Mapping[str, Any] = {"model": identity.model, "serial": identity.serial, "emulated": identity.emulated}
    delays = {
        name: {
            "seconds": round(delay.seconds, 5),
            "interval": [round(bound, 5) for bound in delay.interval],
            "gain": round(delay.gain, 4),
            "residual_rad": round(delay.residual, 6),
        }
        for name, delay in (("act", found.act), ("dead", found.dead), ("asked", found.asked))
        if delay is not None
    }
    return {
        **who,
        **delays,
        "time_constant_s": round(found.dead.time_constant_s, 5),
        "observe_unsure_s": round(found.observe_unsure_s, 5),
        "samples": found.samples,
    }


def said(delay: Delay) -> str:
    """Returns a delay and its interval in milliseconds."""
    span = f"({1000 * delay.interval[0]:.1f} .. {1000 * delay.interval[1]:.1f})"
    return f"{1000 * delay.seconds:6.1f} ms {span:<18}"
