"""A controller of a UR5e: RTDE (30004), dashboard (29999) and script ports (30001-30003), for ur_rtde or any other client.

It says that it is none: the version that its dashboard gives holds the word EMULATED, and its serial number is all zeros (ur_rtde
takes digits only). Not modelled: kinematics (Cartesian commands end at once, without motion; poses read zero), payload, friction,
how a stop decelerates, and what a script says beyond its being there.
Faults: dead and alive silence the controller with its sockets open, unplug and replug end its connections, freeze stops the
measured values, delay holds every word back, drop loses data packets; pstop, estop and clear (which lets the emergency button go)
are the safety system's; set takes remote, the pendant's switch.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hardware.emulators import _ur_controller as ur
from hardware.emulators._base import Faults, unknown
from hardware.emulators._plants import FirstOrder
from hardware.emulators._rtde import Session
from hardware.emulators._tcp import Ports
from robolearn.core import Plant
from robolearn.errors import ConfigError

DASHBOARD, RTDE, SCRIPTS = 29999, 30004, (30001, 30002, 30003)
SERIAL = "00000000000"
VERSION = (5, 11, 1, 108318)
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")
OPS = ("set", "dead", "alive", "clear", "drop", "delay", "freeze", "thaw", "pstop", "estop", "unplug", "replug", "stats")


@dataclass(frozen=True)
class Config:
    """Where it listens and how it begins."""

    host: str = ""
    """An address of this machine; empty: one of 127.x.y.z that is free."""
    hz: float = 500.0
    """Of the controller's cycle and its data packets."""
    q: tuple[float, ...] = (0.0, -1.57, 1.57, -1.57, -1.57, 0.0)
    """Where the joints begin [rad], unless a plant is given."""
    unlock_s: float = 5.0
    """How long a protective stop must have lasted before it can be unlocked."""
    seed: int = 0
    """Of the drawn faults."""

    def __post_init__(self) -> None:
        if self.hz <= 0 or len(self.q) != len(JOINTS) or self.unlock_s < 0:
            got = f"{self.hz:g}, {len(self.q)} and {self.unlock_s:g}"
            raise ConfigError(f"ur: want hz above 0, {len(JOINTS)} angles in q and unlock_s of at least 0, got {got}")


def make(config: Config, plant: Plant | None = None, clock_ns: Callable[[], int] = time.monotonic_ns) -> Ur:
    """Returns the emulator, not open yet; plant: six joints, None for some of first order with the arm's speed limit."""
    return Ur(config, plant or FirstOrder(config.q, time_constant_s=0.03, speed=np.pi), clock_ns)


class Dashboard:
    """One client's conversation with the dashboard server: a line, a line."""

    def __init__(self, controller: ur.Controller, verbs: Counter[str]) -> None:
        self._controller, self._verbs, self._rest = controller, verbs, b""

    def greet(self) -> bytes:
        """Says who it is."""
        return b"Connected: Universal Robots Dashboard Server\n"

    def feed(self, data: bytes) -> bytes:
        """Returns the answers to the whole lines among the bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return b"".join(self.answer(line.decode("utf-8", "replace").strip()).encode() + b"\n" for line in lines)

    def end(self) -> None:
        """Keeps nothing."""

    def answer(self, line: str) -> str:
        """Returns the answer to one command, as PolyScope 5 words it."""
        c, asked = self._controller, line.lower()
        self._verbs[asked.split(" ")[0] if asked.startswith(("popup", "addtolog")) else asked] += 1
        if asked == "unlock protective stop":
            return "Protective stop releasing" if c.unlock() else "Cannot unlock protective stop until 5s after occurrence"
        if asked == "stop":
            c.stop_program()
            return "Stopped"
        if asked in ("power on", "power off", "brake release"):
            return self._power(asked)
        said = {
            "polyscopeversion": f"URSoftware {'.'.join(map(str, VERSION))} (EMULATED)",
            "get serial number": SERIAL,
            "get robot model": "UR5",
            "is in remote control": "true" if c.remote else "false",
            "robotmode": f"Robotmode: {ur.MODES[c.mode]}",
            "safetymode": f"Safetymode: {ur.SAFETY[c.safety]}",
            "safetystatus": f"Safetystatus: {ur.SAFETY[c.safety]}",
            "running": f"Program running: {'true' if c.program else 'false'}",
            "programstate": f"{'PLAYING' if c.program else 'STOPPED'} <unnamed>",
            "play": "Failed to execute: play",  # no program was loaded from the pendant
            "pause": "Failed to execute: pause",
            "close popup": "closing popup",
            "close safety popup": "closing safety popup",
            "restart safety": "Restarting safety",
            "quit": "Disconnected",
        }
        return said.get(asked) or ("showing popup" if asked.startswith("popup") else f"could not understand: {line}")

    def _power(self, asked: str) -> str:
        c = self._controller
        if asked == "power off":
            c.stop_program()
            c.mode = ur.POWER_OFF
            return "Powering off"
        if c.safety != ur.ESTOP:
            c.mode = max(c.mode, ur.IDLE) if asked == "power on" else ur.RUNNING if c.mode == ur.IDLE else c.mode
        return "Powering on" if asked == "power on" else "Brake releasing"


class Script:
    """One client's connection to a script port: what comes is a program once it has ended."""

    def __init__(self, controller: ur.Controller) -> None:
        self._controller, self._text = controller, b""

    def greet(self) -> bytes:
        """Says nothing; a real one streams its state here."""
        return b""

    def feed(self, data: bytes) -> bytes:
        """Keeps the text until its last line is `end`."""
        self._text += data
        if self._text.rstrip().endswith(b"\nend"):
            self._controller.script(self._text.decode("utf-8", "replace"))
            self._text = b""
        return b""

    def end(self) -> None:
        """Forgets half a program."""
        self._text = b""


class Ur:
    """The `Emulator`: one controller behind five ports."""

    joints = JOINTS

    def __init__(self, config: Config, plant: Plant, clock_ns: Callable[[], int]) -> None:
        self._config, self._clock_ns = config, clock_ns
        self._faults, self._verbs, owners = Faults(config.seed), Counter[str](), dict[str, object]()
        self.controller = ur.Controller(plant, config.unlock_s)
        self._ports = Ports(
            {
                DASHBOARD: lambda: Dashboard(self.controller, self._verbs),
                RTDE: lambda: Session(VERSION, self.controller.take, owners),
                **{port: lambda: Script(self.controller) for port in SCRIPTS},
            },
            clock_ns,
        )
        self._period_ns = int(1e9 / config.hz)
        self._tick, self._began_ns = 0, 0

    def open(self) -> str:
        """Listens and returns the address."""
        self._began_ns = self._clock_ns()
        return self._ports.open(self._config.host)

    def turn(self, timeout_s: float) -> None:
        """Answers for at most so long, and ticks whenever it is time: every tick that was missed is skipped."""
        until = self._clock_ns() + int(timeout_s * 1e9)
        while True:
            due = self._began_ns + (self._tick + 1) * self._period_ns
            self._ports.wait((min(due, until) - self._clock_ns()) / 1e9)
            now = self._clock_ns()
            if now >= due:
                tick = (now - self._began_ns) // self._period_ns
                self.controller.advance((tick - self._tick) * self._period_ns / 1e9)
                self._publish(self._tick, tick)
                self._tick = tick
            if now >= until:
                return

    def control(self, op: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Does one of `OPS`; stats also counts the dashboard's verbs and the data packets."""
        if op not in OPS:
            raise unknown(op, OPS)
        if op in ("dead", "alive"):
            self._ports.silent = op == "dead"
        elif op in ("pstop", "estop"):
            self.controller.stop(ur.PROTECTIVE if op == "pstop" else ur.ESTOP)
        elif op == "clear":
            self.controller.safety = ur.NORMAL if self.controller.safety == ur.ESTOP else self.controller.safety
        elif op == "unplug":
            self._ports.unplug()
            self.controller.stop_program()  # its watchdog or its power would do that
        elif op == "replug":
            self._ports.replug()
        elif op == "set":
            self.controller.remote = bool(args["remote"])
        elif op == "stats":
            return {**self.controller.stats(), **self._faults.counts, "verbs": dict(self._verbs)}
        else:
            self._faults.set(op, args)
            self.controller.frozen, self._ports.delay_s = self._faults.frozen, self._faults.delay_s
        return {}

    def close(self) -> None:
        """Closes all ports."""
        self._ports.close()

    def _publish(self, before: int, tick: int) -> None:
        """Sends the state to every client that is due between two ticks."""
        state = self.controller.outputs()
        for session, say in self._ports.talks(RTDE):
            assert isinstance(session, Session)
            every = max(1, round(self._config.hz / session.hz)) if session.hz else 1
            if session.started and tick // every > before // every:
                say(self._faults.spoil(session.sample(state)))
