"""Who controls which robot, and what a session's own policy answers; nothing here knows a socket."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from robolearn.core import Ask, Chunk, Obs, Policy, Spec
from robolearn.errors import ArrayMismatch, BadInput, SpecMismatch
from robolearn.runtime.serve.features import describe, read_spec
from robolearn.runtime.serve.reader import ProtocolError
from robolearn.runtime.serve.shared import Window
from robolearn.runtime.serve.wire import Message

CONTROL, OBSERVE = "control", "observe"
ROLES = (CONTROL, OBSERVE)
CODES = ("protocol", "name", "spec", "role", "busy", "full", "lease", "read_only", "reset", "ask", "rate", "idle", "fault")
"""Why a server refuses; the wire carries one of these words beside the sentence."""
MAX_HORIZON = 4096  # actions of a chunk or a prefix


class Refusal(Exception):
    """What a peer is told: one of `CODES`, one sentence, whether the session is over with it, and a number in the log, if any."""

    def __init__(self, code: str, text: str, ends: bool = True, number: str = "") -> None:
        super().__init__(text)
        self.code, self.text, self.ends, self.number = code, text, ends, number


@dataclass
class Session:
    """One peer after its hello: its robot, its role, and for a controller its own policy and whether that was reset."""

    robot: str
    role: str
    epoch: int
    id: str = field(default_factory=lambda: secrets.token_hex(16))  # also the secret by which a client takes over from itself
    policy: Policy | None = None
    window: Window | None = None
    seq: int = 0
    ready: bool = False


@dataclass
class Leases:
    """One controlling session a robot; each new one has a larger epoch."""

    most: int
    held: dict[str, Session] = field(default_factory=dict)
    _epoch: int = 0

    def take(self, robot: str, previous: str) -> tuple[Session, Session | None]:
        """Returns the new session, and the one it replaces: only whoever knows that one's id may. Refusal otherwise."""
        old = self.held.get(robot)
        if old is not None and not secrets.compare_digest(old.id.encode(), previous.encode()):
            raise Refusal(
                "busy", f"robot '{robot}' is controlled by another session; it is free when that one ends or falls silent"
            )
        if old is None and len(self.held) >= self.most:
            raise Refusal("full", f"{self.most} robots are controlled already, which is the most this server was started for")
        self._epoch += 1
        self.held[robot] = session = Session(robot, CONTROL, self._epoch)
        return session, old

    def holds(self, session: Session) -> bool:
        """True while `session` controls its robot."""
        return self.held.get(session.robot) is session

    def free(self, session: Session) -> None:
        """Ends the lease of `session`, if it still has it."""
        if self.holds(session):
            del self.held[session.robot]


def check_hello(hello: Message, name: str, spec: Spec) -> None:
    """Raises Refusal unless the peer wants this policy, and its body, if it controls one, fits the policy's `spec`."""
    if hello.kind != "hello":
        raise Refusal("protocol", f"want a hello first, got '{hello.kind}'")
    if hello.values["role"] not in ROLES:
        raise Refusal("role", f"want a role of {', '.join(ROLES)}, got '{hello.values['role']}'")
    if hello.values["policy"] != name:
        raise Refusal("name", f"this server serves policy '{name}', not '{hello.values['policy']}'")
    body = read_spec(hello.values["spec"])
    try:
        body.require(spec, who=f"policy '{name}'")
    except SpecMismatch as error:
        raise Refusal("spec", f"{error}. The policy {describe(spec)}. The body {describe(body)}") from None


def answer(session: Session, message: Message, max_draws: int) -> Message:
    """Returns what the session's policy says to a reset, observe or plan. Refusal where it cannot be asked that.

    ProtocolError where the rows of the message do not fit; any other exception is the policy's own fault.
    """
    policy = session.policy
    assert policy is not None
    values: Mapping[str, object] = {}
    arrays: Mapping[str, np.ndarray] = {}
    kind = "done"
    if message.kind == "reset":
        session.ready = False
        policy.reset(message.values["seed"])
        session.ready = True
    elif not session.ready:
        raise Refusal("reset", "this episode's memory is not whole; want a reset first", ends=False)
    else:
        session.ready = False  # until every observation has arrived
        for obs, applied in _rows(message, policy.spec):
            policy.observe(obs, applied)
        session.ready = True
        if message.kind == "plan":
            kind, (values, arrays) = "chunk", _said(_planned(policy, _ask(message, policy.spec, max_draws)))
    return Message(kind, session.id, session.epoch, message.seq, message.t_obs_ns, values, arrays)


def _rows(message: Message, spec: Spec) -> list[tuple[Obs, np.ndarray | None]]:
    """Returns the observations of a message, oldest first, each a writable copy, with what was applied before each."""
    count = message.values["count"]
    given = {name: array for name, array in message.arrays.items() if name.startswith(("obs/", "applied"))}
    want = {*(f"obs/{key}" for key in spec.obs), "applied_mask"} if count else set()
    if given.keys() - {"applied"} != want or any(array.shape[:1] != (count,) for array in given.values()):
        raise ProtocolError(f"wire: want {count} rows of each of {', '.join(sorted(want)) or 'nothing'}")
    if not count:
        return []
    mask, applied = given["applied_mask"], given.get("applied")
    if mask.dtype != bool or mask.shape != (count,) or (applied is None and mask.any()):
        raise ProtocolError("wire: want 'applied_mask' as one bool a row, and 'applied' where it is true")
    if applied is not None and (applied.shape[1:] != spec.action.shape or applied.dtype.kind != "f" or not _finite(applied)):
        raise ProtocolError(
            f"wire: want 'applied' as finite floats {spec.action.shape} a row, got {applied.dtype}{applied.shape}"
        )
    rows = []
    for i in range(count):
        obs = {key: given[f"obs/{key}"][i].copy() for key in spec.obs}
        try:
            for key, array in spec.obs.items():
                array.check(obs[key], f"observation '{key}'")
        except ArrayMismatch as error:
            raise ProtocolError(f"wire: {error}") from None
        rows.append((obs, applied[i].copy() if applied is not None and mask[i] else None))
    return rows


def _ask(message: Message, spec: Spec, max_draws: int) -> Ask:
    """Returns what the message asks for; Refusal where it is more than this server gives or does not fit the policy."""
    draws, prefix, mask = message.values["draws"], message.arrays.get("prefix"), message.arrays.get("prefix_mask")
    if draws > max_draws:
        raise Refusal("ask", f"want at most {max_draws} draws a plan, got {draws}", ends=False)
    goal = {name.removeprefix("goal/"): array for name, array in message.arrays.items() if name.startswith("goal/")}
    for key, array in goal.items():
        if key not in spec.goal:
            raise Refusal("ask", f"this policy takes no goal '{key}' (known: {', '.join(spec.goal) or 'none'})", ends=False)
        try:
            spec.goal[key].check(array, f"goal '{key}'")
        except ArrayMismatch as error:
            raise Refusal("ask", str(error), ends=False) from None
    if prefix is not None:
        fits = prefix.ndim and len(prefix) <= MAX_HORIZON and prefix.shape[1:] == spec.action.shape and prefix.dtype.kind == "f"
        if not fits:  # what it holds is for the policy to judge, which knows where it holds
            want = f"at most {MAX_HORIZON} actions {spec.action.shape} as floats"
            raise Refusal("ask", f"want a prefix of {want}, got {prefix.dtype}{prefix.shape}", ends=False)
        prefix = prefix.copy()
    values = {name: value for name, value in message.values.items() if name != "count"}
    return Ask(
        **values, prefix=prefix, prefix_mask=None if mask is None else mask.copy(), goal={k: v.copy() for k, v in goal.items()}
    )


def _planned(policy: Policy, ask: Ask) -> Chunk:
    """Returns the policy's plan; Refusal with the policy's own sentence where it says that the ask does not fit it."""
    try:
        return policy.plan(ask)
    except BadInput as error:
        if type(error) not in (BadInput, ArrayMismatch):  # about a file or a device of this computer, which is nobody's business
            raise
        raise Refusal("ask", " ".join(str(error).split()), ends=False) from None


def _said(chunk: Chunk) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """Returns values and arrays of a chunk; events are a person's and do not travel."""
    names = ("actions", "past", "samples", "past_samples", "features")
    arrays = {name: array for name in names if (array := getattr(chunk, name)) is not None and array.size}
    return {"tick": chunk.tick, "past_stride": chunk.past_stride}, arrays


def _finite(array: np.ndarray) -> bool:
    return bool(np.isfinite(array).all())
