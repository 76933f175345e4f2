"""A policy that lives in another process: a `core.Policy` that asks a server, and believes nothing the server says unchecked."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from robolearn.clock import ping_offset
from robolearn.core import Ask, Chunk, Obs, Spec
from robolearn.errors import ArrayMismatch, BadInput, HardwareError
from robolearn.runtime.serve import link, replies
from robolearn.runtime.serve.features import row_bytes, spec_text
from robolearn.runtime.serve.link import Disconnected, Link, Settings
from robolearn.runtime.serve.mailbox import Mailbox
from robolearn.runtime.serve.reader import ProtocolError
from robolearn.runtime.serve.replies import Offset, Stale
from robolearn.runtime.serve.sessions import CONTROL, OBSERVE, ROLES
from robolearn.runtime.serve.shared import Slots
from robolearn.runtime.serve.wire import Message, encode

MAX_PENDING = 256 * 2**20  # bytes of observations that wait for a plan
_BATCH = 4 * 2**20  # bytes of observations in one message
_BATCH_ROWS = 64
_PINGS = 5
_Row = tuple[Obs, np.ndarray | None]
_Asked = tuple[Mailbox, int]  # and the seq


class Client:
    """The policy `policy` of the server at `address`, for the body with `spec`, which is called `robot` there.

    `observe` only takes note: what was observed travels, in order and complete, with the next `plan`, or earlier where somebody
    calls `flush`. `plan` and `reset` wait for the server, at most `settings.timeout_s` for its answer. Any thread may call any
    method: `observe` goes on while another thread waits in `plan`. `reset` connects again where the connection was lost; an
    episode that was lost is not taken up again. `spec` holds the body's own words for what the policy reads and gives.
    """

    def __init__(
        self,
        address: str,
        spec: Spec,
        policy: str,
        robot: str = "robot",
        settings: Settings = Settings(),
        *,
        role: str = CONTROL,
        dial: Callable[[str, Settings], Link] = link.dial,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Connects and says hello. Disconnected, Refused, ProtocolError or SpecMismatch where that comes to nothing."""
        if role not in ROLES:
            raise BadInput(f"client: want a role of {', '.join(ROLES)}, got '{role}'")
        self.address, self.body, self.policy, self.robot, self.settings, self.role = address, spec, policy, robot, settings, role
        self._dial, self._clock_ns = dial, clock_ns
        self._sending, self._noting = threading.RLock(), threading.Lock()
        self._pending: deque[_Row] = deque()
        self._tick, self._episode, self._t_obs_ns, self._ready = -1, 0, 0, False
        self._session, self._epoch = "", 0
        self._slots: Slots | None = None
        self._box: Mailbox | None = None
        self.connect()

    def connect(self) -> None:
        """Says hello, again where this was connected before: a new session, whose episode begins with `reset`."""
        with self._sending:
            self.close()
            try:
                self._hello()
                self.offset = min((self.ping() for _ in range(_PINGS)), key=lambda offset: offset.round_trip_s)
            except BaseException:
                self.close()
                raise

    def _hello(self) -> None:
        slots: Slots | None = None
        if self.settings.shared and self.address.startswith("unix:"):
            with contextlib.suppress(OSError):  # where there is no room, arrays travel in the message
                slots = Slots()
        self._ready, self._slots = False, slots
        try:
            box = self._box = Mailbox(self._dial(self.address, self.settings), _ignore if slots is None else slots.free)
            values = {"policy": self.policy, "robot": self.robot, "role": self.role, "spec": spec_text(self.body)}
            values["shared"] = "" if slots is None else slots.name
            seq = box.next_seq()
            box.send(seq, encode(Message("hello", self._session, 0, seq, self._clock_ns(), values)))
            welcome = box.wait(seq, self.settings.connect_s)
            theirs = replies.welcomed(welcome, self.policy, self.body)
        finally:
            if slots is not None:
                slots.unlink()
        box.belong(welcome.session, welcome.epoch)
        self._session, self._epoch = welcome.session, welcome.epoch
        self._theirs, self.spec = theirs, replies.agreed(self.body, theirs)
        self._pictures = {f"obs/{key}": self.settings.jpeg_quality for key, array in theirs.obs.items() if array.is_image}
        if slots is not None and not welcome.values["shared"]:
            self._slots = None
            slots.close()

    def reset(self, seed: int | None = None) -> None:
        """Begins an episode; what waited to be sent is forgotten, and a plan that is on its way becomes Stale."""
        self._controls("reset")
        with self._sending:
            if self._box is None or self._box.broken is not None:
                self.connect()
            with self._noting:
                self._pending.clear()
                self._tick, self._episode, self._ready = -1, self._episode + 1, True
            asked = self._ask("reset", {"seed": seed})
        self._answer(asked, "done")

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        """Takes note of one observation and what was applied before it, and never waits. ArrayMismatch where it does not fit."""
        self._controls("observe")
        self._check_whole()
        kept = {}
        for key, array in self._theirs.obs.items():
            array.check(obs[key], f"observation '{key}'")
            kept[key] = np.array(obs[key])  # a copy: the body may use its buffer again
        if applied is not None:
            applied = np.array(applied)
            if applied.shape != self.spec.action.shape or applied.dtype.kind != "f" or not np.isfinite(applied).all():
                raise ArrayMismatch(f"applied: want finite floats {self.spec.action.shape}, got {applied.dtype}{applied.shape}")
        with self._noting:
            if (len(self._pending) + 1) * row_bytes(self._theirs) > MAX_PENDING:
                raise HardwareError(f"client: {len(self._pending)} observations wait to be sent; call plan or flush more often")
            self._pending.append((kept, applied))
            self._tick += 1
            self._t_obs_ns = self._clock_ns()

    def flush(self) -> None:
        """Sends what was observed already, so that less travels with the next plan; waits for the network, not for an answer."""
        self._controls("flush")
        with self._sending:
            self._check_whole()
            with self._noting:
                batches = self._taken()
            for batch in batches:
                self._ask("observe", {"count": len(batch)}, _stacked(batch), waited=False)

    def plan(self, ask: Ask = Ask()) -> Chunk:
        """Returns the server's plan for the newest tick.

        Late where it took too long (ask again), Stale where `reset` came between, Fault where the policy failed, Refused where
        it cannot serve this ask, LeaseLost or Disconnected where the episode is lost, ProtocolError where the server's answer is
        none.
        """
        self._controls("plan")
        values, arrays = replies.asked(ask, self.spec)
        with self._sending:
            self._check_whole()
            with self._noting:
                batches, tick, episode = self._taken(), self._tick, self._episode
            if tick < 0:
                raise BadInput("client: want an observation before the first plan")
            *early, last = batches or [[]]
            for batch in early:
                self._ask("observe", {"count": len(batch)}, _stacked(batch), waited=False)
            asked = self._ask("plan", {"count": len(last), **values}, _stacked(last) | arrays)
        reply = self._answer(asked, "chunk")
        if episode != self._episode:
            raise Stale("client: a reset came while this plan was on its way; it is dropped")
        return replies.planned(reply, self._theirs, ask, tick)

    def ping(self) -> Offset:
        """Returns how far the server's clock is ahead, by the midpoint of a round trip: to report, never to schedule by."""
        with self._sending:
            began = self._clock_ns()
            asked = self._ask("ping", {})
        theirs = self._answer(asked, "pong").values["t_ns"]
        ended = self._clock_ns()
        return Offset(ping_offset([began], [theirs], [ended])[0] / 1e9, (ended - began) / 1e9)

    def watch(self, timeout_s: float) -> Chunk:
        """Returns the next plan that the robot's controller gets; for role "observe". Late where none comes in time."""
        if self.role != OBSERVE:
            raise BadInput(f"client: want role '{OBSERVE}' to watch, this one is here to {self.role}")
        return replies.planned(self._mailbox().next_chunk(timeout_s), self._theirs, None, None)

    @property
    def session(self) -> tuple[str, int]:
        """The id and the epoch of the session. The id is a secret: whoever knows it can take the robot over."""
        return self._session, self._epoch

    @property
    def dropped(self) -> int:
        """How many messages of this session were dropped: for another request, session or epoch."""
        return 0 if self._box is None else self._box.dropped

    def close(self) -> None:
        """Ends the session; safe to call twice, and at any time."""
        box, slots, self._box, self._slots = self._box, self._slots, None, None
        if box is not None:
            box.close()
        if slots is not None:
            slots.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _controls(self, what: str) -> None:
        if self.role != CONTROL:
            raise BadInput(f"client: an observer cannot {what}; want role '{CONTROL}'")

    def _mailbox(self) -> Mailbox:
        box = self._box
        if box is None:
            raise Disconnected("client: not connected; reset connects again")
        return box

    def _check_whole(self) -> None:
        """Raises unless the server's memory of this episode is, or will be, whole."""
        self._mailbox().check()
        if not self._ready:
            raise BadInput("client: want a reset first; observations of this session's episode are missing")

    def _taken(self) -> list[list[_Row]]:
        """Returns what waits to be sent, oldest first, in batches that fit one message each."""
        rows = list(self._pending)
        self._pending.clear()
        size = max(1, min(_BATCH_ROWS, _BATCH // max(1, row_bytes(self._theirs))))
        return [rows[i : i + size] for i in range(0, len(rows), size)]

    def _ask(self, kind: str, values: Mapping[str, Any], arrays: Mapping[str, np.ndarray] = {}, waited: bool = True) -> _Asked:
        """Sends one message and returns where its answer comes; `_sending` must be held, since the server wants them in order."""
        box, slots = self._mailbox(), self._slots
        seq = box.next_seq()
        if slots is not None and arrays:
            slots.begin(seq)
        place = slots.place if slots is not None and arrays else None
        pictures = self._pictures if self.settings.jpeg_quality else {}
        message = Message(kind, self._session, self._epoch, seq, self._t_obs_ns, values, arrays)
        try:
            box.send(seq, encode(message, pictures, place), waited)
        except BaseException:
            self._ready = False  # the rows of this message are lost
            if slots is not None:
                slots.free(seq)
            raise
        return box, seq

    def _answer(self, asked: _Asked, kind: str) -> Message:
        box, seq = asked  # of the session that was asked: another thread may have begun a new one meanwhile
        reply = box.wait(seq, self.settings.timeout_s)
        if reply.kind == "error":
            raise replies.refused(reply)
        if reply.kind != kind:
            raise ProtocolError(f"client: want a {kind} from the server, got '{reply.kind}'")
        return reply


def _ignore(seq: int) -> None:
    del seq  # Unused: there are no slots to free.


def _stacked(rows: list[_Row]) -> dict[str, np.ndarray]:
    """Returns the rows as arrays (row, ...) by name, as a message carries them."""
    if not rows:
        return {}
    arrays = {f"obs/{key}": np.stack([obs[key] for obs, _ in rows]) for key in rows[0][0]}
    given = [applied for _, applied in rows if applied is not None]
    arrays["applied_mask"] = np.array([applied is not None for _, applied in rows])
    if given:
        arrays["applied"] = np.stack([np.zeros_like(given[0]) if applied is None else applied for _, applied in rows])
    return arrays
