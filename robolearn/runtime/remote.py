"""Where plans are made: in this thread with a delay that a simulation injects (`Local`), or in another process (`InProcess`).

A planner is told every tick's observation (memory moves there) and, now and then, to plan; the plan comes out of `poll` when it
is ready. What crosses to the other process is raw numbers under a JSON header, never an object that is executed to be read.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from robolearn.core import Ask, Chunk, Obs, Policy, Spec
from robolearn.errors import BadInput, HardwareError
from robolearn.runtime._planning import packed, packed_fields, serve, unpacked, unpacked_fields

_BACKLOG = 1024  # messages that wait for the other process before it counts as gone
_CLOSE = packed("close", {})


@dataclass(frozen=True)
class Request:
    """Names one plan. id counts them; epoch: that of the schedule; slot: that of the observation, where the plan begins."""

    id: int
    epoch: int
    slot: int


@dataclass(frozen=True)
class Planned:
    """A plan that is ready. request, epoch: what it answers; seconds: from the request until now."""

    request: int
    epoch: int
    chunk: Chunk
    seconds: float


@runtime_checkable
class Planner(Protocol):
    """Makes plans beside the control loop. No call waits; a planner that is gone raises HardwareError in `reset` and `poll`."""

    spec: Spec

    def reset(self, seed: int | None = None) -> None: ...
    def observe(self, obs: Obs, applied: np.ndarray | None) -> None: ...
    def submit(self, ask: Ask, request: Request) -> None: ...
    def poll(self) -> list[Planned]: ...
    def close(self) -> None: ...


class Local:
    """Plans at once in this thread and hands the plan out `delay_s` later by the clock, as a simulation in lockstep wants it."""

    def __init__(self, policy: Policy, delay_s: float | Callable[[], float], clock: Callable[[], float]) -> None:
        """delay_s: [s], or draws one for each plan; clock: [s]."""
        self.policy, self.spec, self._clock = policy, policy.spec, clock
        self._delay: Callable[[], float] = delay_s if callable(delay_s) else lambda: delay_s
        self._waiting: list[tuple[float, Planned]] = []

    def reset(self, seed: int | None = None) -> None:
        """Starts an episode; plans of the one before are not handed out any more."""
        self.policy.reset(seed)
        self._waiting = []

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        """Shows the policy this tick's observation."""
        self.policy.observe(obs, applied)

    def submit(self, ask: Ask, request: Request) -> None:
        """Plans now, for later. BadInput where the delay is negative or not finite."""
        delay = float(self._delay())
        if not 0.0 <= delay < np.inf:
            raise BadInput(f"delay_s: want a finite number of at least 0 s, got {delay}")
        planned = Planned(request.id, request.epoch, self.policy.plan(ask), delay)
        self._waiting.append((self._clock() + delay, planned))

    def poll(self) -> list[Planned]:
        """Returns the plans whose delay is over."""
        now = self._clock() + 1e-9  # sums of seconds round
        ready = [planned for at, planned in self._waiting if at <= now]
        self._waiting = [(at, planned) for at, planned in self._waiting if at > now]
        return ready

    def close(self) -> None:
        """Holds nothing that must be let go."""


class InProcess:
    """Plans in a process of its own, so that neither a busy interpreter nor a crash of the policy stops the control loop.

    Observations are sent on by a thread: a planner that reads slowly, or not at all, never holds up the caller. When several
    requests have come by the time it reads, it makes the newest plan only. lost: why it is gone, "" while it is there.
    """

    def __init__(
        self, make_policy: Callable[[], Policy], clock: Callable[[], float] = time.monotonic, start_s: float = 120.0
    ) -> None:
        """make_policy: a function of a module, which the other process calls; start_s: how long it may take [s].

        HardwareError where it fails, dies or takes longer.
        """
        context = multiprocessing.get_context("spawn")
        self._link, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, make_policy), daemon=True, name="planner")
        self._clock, self.lost, self._closed = clock, "", False
        self._inbox: deque[bytes] = deque()
        self._outbox: queue.Queue[bytes] = queue.Queue(_BACKLOG)
        self._began: dict[int, float] = {}
        self._ending = threading.Lock()
        self._process.start()
        theirs.close()  # so that its end closes with it
        try:
            if not self._link.poll(start_s):
                raise HardwareError(
                    f"planner: not ready after {start_s:g} s; a policy that loads for longer wants a larger start_s"
                )
            kind, plain, _ = unpacked(self._link.recv_bytes())
        except (HardwareError, EOFError, OSError) as error:
            self._stop(0.0)
            raise error if isinstance(error, HardwareError) else HardwareError(self._ended()) from error
        if kind == "failed":
            self._stop(1.0)
            raise HardwareError(f"planner: its policy could not be made: {plain['error']}")
        self.spec = Spec.from_json(plain["spec"])
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """Of the planner's process."""
        return int(self._process.pid or 0)

    def reset(self, seed: int | None = None) -> None:
        """Starts an episode; HardwareError where the process is gone."""
        if self.lost:
            raise HardwareError(self.lost)
        self._began.clear()
        self._put(packed("reset", {"seed": seed}))

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        """Sends the policy what it reads of this tick's observation, and what was applied."""
        arrays = {f"obs/{key}": obs[key] for key in self.spec.obs}
        self._put(packed("observe", {}, arrays if applied is None else {**arrays, "applied": applied}))

    def submit(self, ask: Ask, request: Request) -> None:
        """Sends a request; what was observed before counts, what comes after does not."""
        self._began[request.id] = self._clock()
        plain, arrays = packed_fields(ask)
        self._put(packed("plan", {"request": request.id, "epoch": request.epoch, "ask": plain}, arrays))

    def poll(self) -> list[Planned]:
        """Returns the plans that have come; HardwareError, again at every call, where the process is gone and none is left."""
        lost, ready = self.lost, []
        while self._inbox:
            kind, plain, arrays = unpacked(self._inbox.popleft())
            if kind == "failed":
                lost = self.lost = f"planner: its policy failed: {plain['error']}"
            else:
                began = self._began.pop(plain["request"], self._clock())
                chunk = unpacked_fields(Chunk, plain["chunk"], arrays)
                ready.append(Planned(plain["request"], plain["epoch"], chunk, self._clock() - began))
        if lost and not ready:
            raise HardwareError(lost)
        return ready

    def close(self) -> None:
        """Ends the process, by force where it does not end by itself; returns within a few seconds, and may be called twice."""
        if self._closed:
            return
        patience_s = 0.0 if self.lost else 1.0
        self.lost = self.lost or "planner: it was closed"
        with contextlib.suppress(queue.Full):
            self._outbox.put_nowait(_CLOSE)
        self._stop(patience_s)
        for thread in self._threads:
            thread.join(1.0)

    def _put(self, message: bytes) -> None:
        try:
            if not self.lost:
                self._outbox.put_nowait(message)
        except queue.Full:
            self.lost = f"planner: it has left {_BACKLOG} messages unread; it hangs, or plans for longer than it is asked to"

    def _send(self) -> None:
        with contextlib.suppress(OSError):  # the reader notices that it is gone
            while True:
                message = self._outbox.get()
                self._link.send_bytes(message)
                if message == _CLOSE:
                    return

    def _receive(self) -> None:
        try:
            while True:
                self._inbox.append(self._link.recv_bytes())
        except (EOFError, OSError):
            with self._ending:
                self._process.join(1.0)
            self.lost = self.lost or self._ended()

    def _ended(self) -> str:
        return f"planner: its process has ended (exit code {self._process.exitcode}); start it anew"

    def _stop(self, patience_s: float) -> None:
        self._closed = True
        with self._ending:  # two threads that wait for one process take its exit code from each other
            self._process.join(patience_s)
            if self._process.is_alive():
                self._process.kill()
                self._process.join(1.0)
        self._link.close()
