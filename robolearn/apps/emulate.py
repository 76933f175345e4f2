"""Answer a vendor's library as a robot would, on this machine: to rehearse with, without metal."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
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
    seconds: float = 0.0
    """End after so long; 0: at Ctrl-C."""

    def __post_init__(self) -> None:
        """Refuses a time that has passed; ValueError names the field."""
        if not self.seconds >= 0:
            raise ValueError(f"seconds: want 0 or more, got {self.seconds}")


def run(cfg: Config) -> int:
    """Prints the address and serves; a line on standard input is a fault to cause, such as `drop p=0.02` or `estop`."""
    speaks = protocols()
    if cfg.name not in speaks:
        raise UnknownName("robot", cfg.name, speaks)
    emulator = make_emulator(speaks[cfg.name], dict(map(pair, cfg.set)))
    try:
        address = emulator.open()
    except OSError as error:
        raise HardwareError(f"emulate {cfg.name}: {error.strerror or error}; set another port or host") from None
    print(f"{cfg.name}: EMULATED, at {address}; type a fault ({', '.join(OPS)}), or Ctrl-C", flush=True)
    began = time.monotonic()
    try:
        lines = typed()
        while not cfg.seconds or time.monotonic() - began < cfg.seconds:
            emulator.turn(_TURN_S)
            line = next(lines)
            if line:
                print(json.dumps(said(emulator, line)), flush=True)
    except KeyboardInterrupt:  # the way to end it
        return 0
    finally:
        emulator.close()
    return 0


def protocols() -> dict[str, str]:
    """Returns the emulator of every robot and gripper that has one, and of every protocol by its own name."""
    robots = {name: registry.load(package, name).EMULATOR for package in (ROBOTS, GRIPPERS) for name in registry.names(package)}
    return {name: name for name in emulator_names()} | {name: speaks for name, speaks in robots.items() if speaks}


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
