"""What a client makes of a server's replies: each is checked against what was asked and what the body can take."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from robolearn.core import Ask, Chunk, Spec
from robolearn.errors import ArrayMismatch, HardwareError
from robolearn.runtime.serve.features import read_spec
from robolearn.runtime.serve.reader import ProtocolError
from robolearn.runtime.serve.sessions import MAX_HORIZON
from robolearn.runtime.serve.wire import Message


class Refused(HardwareError):
    """The server declined: another policy, a spec that does not fit, a robot under control already, an unfit ask."""


class LeaseLost(HardwareError):
    """This session does not control the robot any more; `reset` begins a new one."""


class Fault(HardwareError):
    """The server's policy failed; the message holds the number of the entry in the server's log."""


class Stale(HardwareError):
    """The plan is of an episode that is over."""


@dataclass(frozen=True)
class Offset:
    """How far the server's monotonic clock is ahead [s], to half the round trip [s] at worst. For reports only."""

    offset_s: float
    round_trip_s: float


def refused(message: Message) -> HardwareError:
    """Returns the error that a server's refusal is on this side."""
    code, text = message.values["code"], message.values["text"][:2000]
    kind = {"lease": LeaseLost, "idle": LeaseLost, "fault": Fault, "protocol": ProtocolError}.get(code, Refused)
    return kind(f"client: the server says: {text}")


def welcomed(message: Message, policy: str, body: Spec) -> Spec:
    """Returns the spec of the server's policy, checked against the body's; SpecMismatch where they do not fit."""
    if message.kind == "error":
        raise refused(message)
    if message.kind != "welcome" or not message.session:
        raise ProtocolError(f"client: want a welcome from the server, got '{message.kind}'")
    if message.values["policy"] != policy:
        raise ProtocolError(f"client: want policy '{policy}', the server welcomes to '{message.values['policy']}'")
    theirs = read_spec(message.values["spec"])
    body.require(theirs, who=f"policy '{policy}'")
    if theirs.action.dtype not in ("float16", "float32", "float64"):
        raise ProtocolError(f"client: want actions as floats, the server gives {theirs.action.dtype}")
    return theirs


def agreed(body: Spec, theirs: Spec) -> Spec:
    """Returns the client's spec: of the body's own words, those that the server chose; its names and units count for nothing."""
    return replace(
        body.select(tuple(theirs.obs)),
        action=replace(body.action, dtype=theirs.action.dtype),
        goal=theirs.goal,
        execute=theirs.execute,
        memory_stride=theirs.memory_stride,
    )


def planned(message: Message, spec: Spec, ask: Ask | None, tick: int | None) -> Chunk:
    """Returns the chunk in a reply; ProtocolError unless it is for `tick` and has actions that a body with `spec` can take.

    ask, tick: None where somebody else asked.
    """
    given = message.arrays
    if tick is not None and message.values["tick"] != tick:
        raise ProtocolError(f"client: want a plan for tick {tick}, the server planned for {message.values['tick']}")
    horizon = len(given["actions"]) if "actions" in given and given["actions"].ndim else 0
    n_past = len(given["past"]) if "past" in given and given["past"].ndim else 0
    draws = len(given["samples"]) if "samples" in given and given["samples"].ndim else 0
    if not 0 < horizon <= MAX_HORIZON or (ask is not None and draws > ask.draws):
        raise ProtocolError(
            f"client: want 1 .. {MAX_HORIZON} actions and no more draws than asked for, got {horizon} and {draws}"
        )
    action, dtype = spec.action.shape, np.dtype(spec.action.dtype)
    want = {
        "actions": (horizon, *action),
        "past": (n_past, *action),
        "samples": (draws, horizon, *action),
        "past_samples": (draws, n_past, *action),
    }
    for name, array in given.items():
        fits = array.ndim == 1 if name == "features" else array.shape == want[name] and array.dtype == dtype
        if not fits or array.dtype.kind != "f" or not np.isfinite(array).all():
            told = "numbers" if name == "features" else f"{dtype}{want[name]}"
            raise ProtocolError(f"client: the server's '{name}': want finite {told}, got {array.dtype}{array.shape}")
    arrays: dict[str, Any] = {name: array.copy() for name, array in given.items()}
    return Chunk(tick=message.values["tick"], past_stride=message.values["past_stride"], **arrays)


def asked(ask: Ask, spec: Spec) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns values and arrays of an ask, as a plan message carries them; ArrayMismatch where the policy has no such goal."""
    values = {f.name: getattr(ask, f.name) for f in fields(ask) if f.name not in ("prefix", "prefix_mask", "goal")}
    values |= {name: float(values[name]) for name in ("guidance", "prefix_beta")}
    arrays = {name: np.asarray(array) for name in ("prefix", "prefix_mask") if (array := getattr(ask, name)) is not None}
    for key, array in ask.goal.items():
        if key not in spec.goal:
            raise ArrayMismatch(f"goal '{key}': this policy takes {', '.join(spec.goal) or 'none'}")
        spec.goal[key].check(array, f"goal '{key}'")
        arrays[f"goal/{key}"] = np.asarray(array)
    return values, arrays
