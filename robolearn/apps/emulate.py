"""Answer a vendor's library as a robot would, on this machine: to rehearse with, without metal."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml

from hardware._base import GRIPPERS, ROBOTS
from hardware.emulators._base import OPS, emulator_names, make_emulator
from robolearn import registry
from robolearn.errors import BadInput, ConfigError, HardwareError, RobolearnError, UnknownName

_TURN_S = 0.02


@dataclass(frozen=True)
class Config:
    """Which robot, and how it begins."""

    name: Annotated[str, tyro.conf.Positional]
    """A robot (koch, viperx, so101, ur5e, xarm7), a gripper (robotiq_2f), or a protocol: `ls hardware/emulators`."""
    set: tuple[str, ...] = ()
    """Fields of the emulator, FIELD=VALUE each, such as seed=3 or ids=[1,2,3]."""
    scene: str = ""
    """A task, such as lift, whose world stands behind the robot (ur5e, viperx), its gripper and its cameras."""
    seed: int = 0
    """Of the scene's first placement."""
    scene_set: tuple[str, ...] = ()
    """Fields of the scene's task, FIELD=VALUE each, such as image_size=128."""
    cameras: tuple[str, ...] = ()
    """Cameras of the scene to serve, such as agentview and wrist."""
    robot_file: Path | None = None
    """Write here what `deploy --robot` takes to drive this robot; it holds as long as the emulation runs."""
    seconds: float = 0.0
    """End after so long; 0: at Ctrl-C."""

    def __post_init__(self) -> None:
        """Refuses a time that has passed; ValueError names the field."""
        if not self.seconds >= 0:
            raise ValueError(f"seconds: want 0 or more, got {self.seconds}")
        if not self.scene and (self.cameras or self.scene_set or self.robot_file):
            raise ValueError("scene: cameras, scene_set and robot_file are of a scene; name its task, such as lift")


def run(cfg: Config) -> int:
    """Prints the address and serves; a line on standard input is a fault to cause, such as `drop p=0.02` or `estop`."""
    emulator = made(cfg)
    eyes: list[Any] = []
    try:
        try:
            address = emulator.open()
        except OSError as error:
            raise HardwareError(f"emulate {cfg.name}: {error.strerror or error}; set another port or host") from None
        print(f"{cfg.name}: EMULATED, at {address}; type a fault ({', '.join(OPS)}), or Ctrl-C", flush=True)
        if cfg.scene:
            show_scene(cfg, emulator, eyes)
        began = time.monotonic()
        lines = typed()
        while not cfg.seconds or time.monotonic() - began < cfg.seconds:
            emulator.turn(_TURN_S)
            line = next(lines)
            if line:
                print(json.dumps(said(emulator, line)), flush=True)
    except KeyboardInterrupt:  # the way to end it
        return 0
    finally:
        for eye in eyes:
            eye.close()
        emulator.close()
    return 0


def made(cfg: Config) -> Any:
    """Returns the emulator that is asked for, not open yet: of a robot alone, or of one in a scene."""
    speaks = protocols()
    if cfg.name not in speaks:
        raise UnknownName("robot", cfg.name, speaks)
    fields = dict(map(pair, cfg.set))
    if not cfg.scene:
        own = {} if "ids" in fields else emulations().get(cfg.name, {})  # servos of one's own choice are those of nobody's arm
        return make_emulator(speaks[cfg.name], {**own, **fields})
    from robolearn.apps._scene_stage import stage  # a robot alone needs no simulator

    overrides = dict(map(pair, cfg.scene_set))
    return stage(cfg.name, {"task": cfg.scene, "seed": cfg.seed, "overrides": overrides, "fields": fields})


def show_scene(cfg: Config, stage: Any, eyes: list[Any]) -> None:
    """Starts the cameras of an open stage, which are added to `eyes`, and prints where everything is."""
    from robolearn.apps._scene_eyes import Served

    eyes.extend(Served(stage.addresses["scene"], camera, stage.image_size) for camera in cfg.cameras)
    while not all(eye.ready() for eye in eyes):
        stage.turn(_TURN_S)  # they look at the scene while they come up
    for part, address in {**stage.addresses, **{eye.camera: eye.address for eye in eyes}}.items():
        print(f"  {part:<10} {address}", flush=True)
    if cfg.robot_file is not None:
        cameras = {
            f"{eye.camera}_image": {"driver": "synthetic", "set": {"size": [eye.size, eye.size], "address": eye.address}}
            for eye in eyes
        }
        cfg.robot_file.write_text(yaml.safe_dump({**stage.robot_file(), "cameras": cameras}, sort_keys=False))
        print(f"wrote {cfg.robot_file}", flush=True)


def protocols() -> dict[str, str]:
    """Returns the emulator of every robot and gripper that has one, and of every protocol by its own name."""
    robots = {name: module.EMULATOR for name, module in _modules().items()}
    return {name: name for name in emulator_names()} | {name: speaks for name, speaks in robots.items() if speaks}


def emulations() -> dict[str, Mapping[str, Any]]:
    """Returns the fields of its emulator that make it the robot of a name: which servos it has, and how they are mounted."""
    return {name: module.EMULATION for name, module in _modules().items()}


def _modules() -> dict[str, Any]:
    return {name: registry.load(package, name) for package in (ROBOTS, GRIPPERS) for name in registry.names(package)}


def said(emulator: Any, line: str) -> dict[str, Any]:
    """Returns what an emulator answers to a line of fault and arguments; an error is an answer too."""
    op, *arguments = line.split()
    try:
        return dict(emulator.control(op, dict(map(pair, arguments))))
    except KeyError as error:
        return {"error": f"{op}: {error.args[0]} is missing"}
    except (RobolearnError, ValueError) as error:
        return {"error": str(error)}


def pair(text: str) -> tuple[str, Any]:
    """Returns field and value of FIELD=VALUE; BadInput for anything else."""
    field, equals, value = text.partition("=")
    if not (field and equals):
        raise BadInput(f"'{text}': want FIELD=VALUE")
    try:
        return field, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"{field}: {str(error).splitlines()[0]}, in '{value}'") from None


def typed() -> Iterator[str]:
    """Yields the next whole line of standard input, "" whenever there is none yet or no more."""
    try:
        place, there = sys.stdin.fileno(), True
    except (OSError, ValueError):  # a notebook: nobody types there
        place, there = -1, False
    rest = b""
    while True:
        while b"\n" not in rest and there and select.select([place], [], [], 0.0)[0]:
            got = os.read(place, 4096)
            there, rest = bool(got), rest + got
        line, newline, left = rest.partition(b"\n")
        if newline:
            rest = left
        yield line.decode(errors="replace").strip() if newline else ""
