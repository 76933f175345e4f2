"""What an emulator is: one file with `Config` and `make(config, plant)`; it answers a vendor's own library as the metal would.

An emulator speaks in vendor units and registers outwards and to a `core.Plant` in SI units inwards. It is served by one thread,
normally in a process of its own (`hardware.emulators._process`), because the vendors' libraries spin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from robolearn import registry
from robolearn.core import Plant
from robolearn.errors import BadInput, nearest

Key = TypeVar("Key")
Value = TypeVar("Value")
EMULATORS = "hardware.emulators"
OPS = (
    "set",
    "dead",
    "alive",
    "alarm",
    "clear",
    "drop",
    "corrupt",
    "delay",
    "freeze",
    "thaw",
    "pstop",
    "estop",
    "unplug",
    "replug",
    "stats",
)


@runtime_checkable
class Emulator(Protocol):
    """A served wire protocol. joints: names of what the plant moves, in its order."""

    joints: tuple[str, ...]

    def open(self) -> str:
        """Opens the port or ports, on this machine only, and returns the address that a driver's configuration takes."""

    def turn(self, timeout_s: float) -> None:
        """Waits at most so long for traffic, answers it, and moves the plant up to now."""

    def control(self, op: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Does one of `OPS`, or raises BadInput for what this emulator has not; stats returns counters and the plant's state."""

    def close(self) -> None:
        """Closes everything; may be called twice."""


@dataclass
class Faults:
    """What goes wrong on purpose, drawn from a seed so that it can be repeated.

    drop, corrupt: probabilities [0, 1] of an answer; delay_s: added before each answer; dead: axes (ids) that do not answer;
    frozen: the measured values no longer change; counts: how often each thing was done.
    """

    seed: int = 0
    drop: float = 0.0
    corrupt: float = 0.0
    delay_s: float = 0.0
    dead: set[int] = field(default_factory=set)
    frozen: bool = False
    counts: dict[str, int] = field(default_factory=lambda: {"dropped": 0, "corrupted": 0, "answers": 0})

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def set(self, op: str, args: Mapping[str, Any]) -> bool:
        """Does drop, corrupt, delay, dead, alive, freeze or thaw; False for any other op. BadInput for a senseless value."""
        if op in ("drop", "corrupt"):
            share = float(args.get("p", 0.0))
            if not 0.0 <= share <= 1.0:
                raise BadInput(f"{op}: want p from 0 to 1, got {share:g}")
            setattr(self, op, share)
        elif op == "delay":
            self.delay_s = max(0.0, float(args.get("s", 0.0)))
        elif op == "dead":
            self.dead.add(int(args["id"]))
        elif op == "alive":
            self.dead.discard(int(args["id"]))
        elif op in ("freeze", "thaw"):
            self.frozen = op == "freeze"
        else:
            return False
        return True

    def spoil(self, answer: bytes) -> bytes:
        """Returns the answer as it arrives: whole, without anything (dropped), or with one bit flipped."""
        self.counts["answers"] += 1
        if self.drop and self._rng.random() < self.drop:
            self.counts["dropped"] += 1
            return b""
        if answer and self.corrupt and self._rng.random() < self.corrupt:
            self.counts["corrupted"] += 1
            at, bit = int(self._rng.integers(len(answer))), int(self._rng.integers(8))
            return answer[:at] + bytes([answer[at] ^ (1 << bit)]) + answer[at + 1 :]
        return answer


def emulator_names() -> tuple[str, ...]:
    """Returns the names of all emulators."""
    return registry.names(EMULATORS)


def make_emulator(name: str, overrides: dict[str, Any], plant: Plant | None = None) -> Emulator:
    """Returns an emulator, not open yet; plant: what it moves, None for its own of first order. ConfigError names the field."""
    from robolearn import config

    module = registry.load(EMULATORS, name, what="emulator")
    return module.make(config.from_mapping(module.Config, overrides, where=f"emulator {name}"), plant)


def one_of(known: Mapping[Key, Value], key: Key, what: str) -> Value:
    """Returns the value of a key; BadInput names those that are known. what: an id, a register, ..."""
    if key not in known:
        raise BadInput(f"no {what} {key} (known: {', '.join(map(str, known))})")
    return known[key]


def unknown(op: str, known: tuple[str, ...]) -> BadInput:
    """Returns the error for an op that an emulator has not."""
    return BadInput(f"unknown op '{op}'{nearest(op, known)}")
