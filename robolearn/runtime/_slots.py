"""Slots of body time, what lies in them, and how several opinions on one slot are averaged. numpy only.

Slot k is the instant t_start + k / hz of the policy's rate. An action belongs to a slot, and a slot comes once: a loop that
skips a period skips the slot. Real-time chunking is Black, Galliker and Levine, arXiv 2506.07339.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robolearn.core import Outcome, Spec, Tick
from robolearn.errors import BadInput


def slot_at(now_s: float, start_s: float, hz: float) -> int:
    """Returns the slot nearest to `now_s`, so that a tick up to half a period early or late still meets its own."""
    return math.floor((now_s - start_s) * hz + 0.5)


def slots_in(seconds: float, hz: float) -> int:
    """Returns how many slots `seconds` reach over, the last one in part; a rounding error more than a whole number is none."""
    return math.ceil(seconds * hz - 1e-6)


def soft_mask(horizon: int, delay: int, execute: int) -> np.ndarray:
    """Returns how firmly each step of a new chunk (horizon,) is held to the unexecuted rest of the old one (RTC, equation 5).

    W_i is 1 for i < delay, c_i (e^c_i - 1) / (e - 1) with c_i = (horizon - execute - i) / (horizon - execute - delay + 1) up to
    horizon - execute, where the old chunk ends, and 0 after. BadInput where the old chunk ends before the delay does.
    """
    if not (0 <= delay <= horizon - execute and execute >= 0):
        raise BadInput(
            f"soft mask: want 0 <= delay <= horizon - execute, got delay {delay}, horizon {horizon} and execute {execute}"
        )
    i = np.arange(horizon)
    c = (horizon - execute - i) / (horizon - execute - delay + 1)
    soft = np.where(i < horizon - execute, c * np.expm1(np.maximum(c, 0.0)) / (math.e - 1.0), 0.0)
    return np.where(i < delay, 1.0, soft)


@dataclass(frozen=True)
class Kinds:
    """Which numbers of an action are no plain numbers, by index.

    binary: open or shut, never averaged, the newest opinion counts; quaternions: the first index of each wxyz, averaged as a
    rotation; moving: displacements, which are 0 where nothing is to move.
    """

    binary: tuple[int, ...] = ()
    quaternions: tuple[int, ...] = ()
    moving: tuple[int, ...] = ()

    @staticmethod
    def of(spec: Spec, quaternions: tuple[int, ...] = (), binary: tuple[int, ...] | None = None) -> Kinds:
        """Returns the kinds of a body's actions: grips are binary unless told, names that begin with d are displacements.

        BadInput where a quaternion does not lie wholly within the action, or shares a number with another kind.
        """
        width = spec.action.shape[-1]
        names = [name.rpartition(".")[2] for name in spec.action.names]
        if binary is None:
            binary = tuple(i for i, name in enumerate(names) if name.startswith("gripper"))
        taken = [i for first in quaternions for i in range(first, first + 4)] + list(binary)
        if len(set(taken)) < len(taken) or any(not 0 <= i < width for i in taken):
            raise BadInput(
                f"kinds: want quaternions of 4 and binary numbers apart and within 0..{width - 1}, "
                f"got quaternions from {list(quaternions)} and binary {list(binary)}"
            )
        return Kinds(binary, quaternions, tuple(i for i, name in enumerate(names) if name.startswith("d")))

    def average(self, opinions: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Returns the weighted mean (slot, action) of opinions (n, slot, action), oldest first, by weights (n, slot).

        A weight of 0 says that there is no such opinion, whatever the array holds there; every slot wants one that counts.
        Rotations: the mean on SO(3) that minimises chordal distances (Markley et al. 2007), of unit length, its sign that of
        the newest opinion.
        """
        there = weights > 0
        newest = len(weights) - 1 - np.argmax(there[::-1], axis=0)
        last = np.take_along_axis(opinions, newest[None, :, None], axis=0)[0]  # (slot, action)
        known = np.where(there[..., None], opinions, 0.0).astype(np.float64)
        mean = np.einsum("ns,nsa->sa", weights, known) / weights.sum(axis=0)[:, None]
        for first in self.quaternions:
            q = known[..., first : first + 4]
            q = q / np.maximum(np.linalg.norm(q, axis=-1, keepdims=True), 1e-12)
            turned = np.linalg.eigh(np.einsum("ns,nsa,nsb->sab", weights, q, q))[1][..., -1]
            sign = np.where((turned * last[:, first : first + 4]).sum(axis=-1, keepdims=True) < 0, -1.0, 1.0)
            mean[:, first : first + 4] = sign * turned
        mean[:, list(self.binary)] = last[:, list(self.binary)]
        return mean.astype(opinions.dtype)

    def same_signs(self, rows: np.ndarray) -> np.ndarray:
        """Returns actions (n, action) whose quaternions have the sign that is nearest to the row before them."""
        rows = rows.copy()
        for first in self.quaternions:
            q = rows[:, first : first + 4]
            flips = (q[1:] * q[:-1]).sum(axis=1) < 0
            q[1:] *= np.where(np.cumsum(flips) % 2 == 1, -1, 1)[:, None].astype(rows.dtype)
        return rows

    def still(self, last: np.ndarray) -> np.ndarray:
        """Returns the action (action,) that stays where `last` (action,) led: the same, displacements 0."""
        stays = last.copy()
        stays[list(self.moving)] = 0
        return stays


@dataclass(frozen=True)
class Proposal:
    """A plan as the schedule takes it: actions (horizon, action), the first for slot `first`.

    id: counts requests; epoch: whose flush or reset it was asked after; t_obs: when its observation was taken [s]; prefix: how
    many steps it was told would be executed from what was scheduled before; asked: whether it was given those steps.
    """

    actions: np.ndarray
    first: int
    id: int = 0
    epoch: int = 0
    t_obs: float = 0.0
    prefix: int = 0
    asked: bool = False

    @property
    def end(self) -> int:
        """The first slot after it."""
        return self.first + len(self.actions)


@dataclass(frozen=True)
class Held:
    """What lies in a slot: action (action,), and step `index` of which chunk it is (chunk -1: nothing was there, it stayed)."""

    slot: int
    action: np.ndarray
    chunk: int = -1
    epoch: int = 0
    index: int = 0


@dataclass
class Delays:
    """Slots consumed between an observation and the first slot that its plan could still change; the first is the warm-up."""

    recent: deque[int] = field(default_factory=lambda: deque(maxlen=10))
    warm_up: int | None = None
    every: list[int] = field(default_factory=list)

    def add(self, slots: int) -> None:
        """Counts one delay."""
        self.every.append(slots)
        if self.warm_up is None:
            self.warm_up = slots
        else:
            self.recent.append(slots)

    @property
    def expected(self) -> int | None:
        """The longest of the last ten without the warm-up; None before there is one."""
        return max(self.recent, default=None)


@dataclass
class TickClock:
    """A clock [s] for simulation in lockstep: a sink of `rollout` that moves on by 1 / hz with every tick of the body."""

    hz: float
    ticks: int = 0

    def __call__(self) -> float:
        return self.ticks / self.hz

    def begin(self, spec: Any, meta: Mapping[str, Any]) -> None:
        """Goes on from where it is: time does not begin anew with an episode."""

    def record(self, tick: Tick | None = None) -> None:
        """Moves on by one tick."""
        del tick  # Unused: all ticks last the same.
        self.ticks += 1

    def stream(self, name: str, t_ns: int, array: np.ndarray) -> None:
        """Ignores raw streams."""

    def end(self, outcome: Outcome) -> None:
        """Stands still until the next episode."""
