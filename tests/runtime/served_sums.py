"""A served policy whose plans tell everything it ever saw, a body that follows them, and raw messages to its server."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

import numpy as np

from robolearn.core import ArraySpec, Ask, Chunk, Obs, Policy, Spec, Step
from robolearn.errors import BadInput
from robolearn.rollout import rollout
from robolearn.runtime.serve.auth import Bind
from robolearn.runtime.serve.client import Client
from robolearn.runtime.serve.features import spec_text
from robolearn.runtime.serve.link import Disconnected, Settings, dial
from robolearn.runtime.serve.peers import Limits
from robolearn.runtime.serve.server import Server
from robolearn.runtime.serve.wire import Message, decode, encode

SPEC = Spec(
    {"state": ArraySpec((2,), names=("x", "y")), "image": ArraySpec((4, 6, 3), "uint8")},
    ArraySpec((2,), names=("x", "y"), unit="m"),
    10.0,
    goal={"place": ArraySpec((2,))},
    execute=3,
)
PATIENT = Settings(timeout_s=20.0, connect_s=20.0)


class Sums:
    """A policy whose plan tells everything it ever saw: the sum of states, pictures, applied actions and the seed, by tick."""

    def __init__(self) -> None:
        self.spec, self.gate, self.fails = SPEC, threading.Event(), ""
        self.gate.set()
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        self.seed, self.tick, self.seen, self.applied = seed or 0, -1, np.zeros(2), 0.0
        self.log: list[tuple[float, float | None]] = []

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        if self.fails == "observe":
            raise RuntimeError("secret of observe")
        obs["state"] += 0  # a policy may write into what it is given
        self.tick += 1
        self.seen = self.seen * 0.9 + obs["state"] + float(obs["image"].mean())
        self.applied += 0.0 if applied is None else float(applied.sum())
        self.log.append((float(obs["state"][0]), None if applied is None else float(applied[0])))

    def plan(self, ask: Ask = Ask()) -> Chunk:
        self.gate.wait(20.0)
        if self.fails:
            raise {"bad": BadInput("prefix: takes none"), "plan": RuntimeError("secret of plan")}[self.fails]
        goal = float(ask.goal["place"].sum()) if ask.goal else 0.0
        first = self.seen + self.applied + self.seed + goal
        actions = np.stack([first * 0.01 + k for k in range(4)]).astype(np.float32)
        samples = np.stack([actions] * ask.draws) if ask.draws > 1 else None
        return Chunk(actions, self.tick, past=actions[:2], samples=samples, features=np.ones(3, np.float32), events=("success",))


class Body:
    """A point that goes where it is told, and shows itself as a picture too."""

    spec = replace(SPEC, obs={**SPEC.obs, "more": ArraySpec((1,))}, execute=1)

    def reset(self, seed: int | None = None) -> Obs:
        self.state = np.full(2, seed or 0, np.float32)
        return self.obs()

    def obs(self) -> Obs:
        picture = np.full((4, 6, 3), int(abs(self.state[0]) * 7) % 256, np.uint8)
        return {"state": self.state, "image": picture, "more": np.zeros(1, np.float32)}

    def step(self, action: np.ndarray) -> Step:
        self.state = (self.state + 0.1 * action).astype(np.float32)
        return Step(self.obs(), action, action)

    def close(self) -> None: ...


class Actions:
    """A sink that keeps what was asked."""

    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []

    def begin(self, spec: Any, meta: Any) -> None: ...
    def record(self, tick: Any) -> None:
        self.kept.append(tick.asked)

    def stream(self, name: str, t_ns: int, array: np.ndarray) -> None: ...
    def end(self, outcome: Any) -> None: ...


class Place:
    """A running server with every policy it made."""

    def __init__(self, bind: Bind, limits: Limits = Limits()) -> None:
        self.made: list[Sums] = []
        self.freed: list[Policy] = []
        self.server = Server(self.make, "sums", bind, limits, self.freed.append)
        self.server.open()
        self.made.clear()

    def make(self) -> Policy:
        self.made.append(Sums())
        return self.made[-1]

    def client(self, robot: str = "robot", settings: Settings = PATIENT, **how: Any) -> Client:
        return Client(self.server.address, Body.spec, "sums", robot, settings, **how)

    def quiet(self) -> None:
        until(lambda: self.server.metrics.value("robolearn_connections") == 0)


def until(claim: Callable[[], Any]) -> None:
    waited = threading.Event()
    for _ in range(1000):
        if claim():
            return
        waited.wait(0.01)
    raise AssertionError("never came true")


def seen(k: float = 0.0) -> Obs:
    return {"state": np.array([k, 1], np.float32), "image": np.zeros((4, 6, 3), np.uint8)}


def hello(**changes: Any) -> bytes:
    values = {"policy": "sums", "robot": "robot", "role": "control", "spec": spec_text(Body.spec), "shared": ""}
    return encode(Message("hello", "", 0, 1, 5, values | changes))


def request(k: int, welcome: Message, **changes: Any) -> bytes:
    return encode(replace(Message("reset", welcome.session, welcome.epoch, k, 0, {"seed": 0}), **changes))


def spoken(place: Place, *data: bytes | str, settings: Settings = PATIENT) -> list[Message]:
    """Returns what the server answers to raw messages until it closes the connection, or all that it was asked is answered."""
    link, answers = dial(place.server.address, settings), list[Message]()
    with closing(link), suppress(Disconnected):  # that it closes is an answer too, and the last
        for message in data:
            link.send(message)  # type: ignore[arg-type]
        answers.extend(decode(link.receive(20.0)) for _ in data)  # type: ignore[arg-type]
    return answers


def rest(link: Any) -> list[Message]:
    got = []
    with suppress(Disconnected):
        while True:
            got.append(decode(link.receive(20.0)))
    return got


def get(place: Place, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", place.server.port, timeout=20)
    connection.request("GET", path, headers=headers or {})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def drive(mind: Policy, seed: int, steps: int = 11) -> list[np.ndarray]:
    sink = Actions()
    rollout(Body(), mind, max_steps=steps, seed=seed, sinks=[sink])
    return sink.kept
