"""Serve a trained policy to robots on this or other computers: websocket, msgpack, no pickle; health and metrics."""

from __future__ import annotations

import logging
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from robolearn.apps import _evaluate
from robolearn.apps._report import write_json
from robolearn.core import Ask, Chunk, Obs, Policy
from robolearn.errors import BadInput
from robolearn.policies._streams import Streams
from robolearn.runtime.serve.auth import Bind, guard
from robolearn.runtime.serve.features import describe
from robolearn.runtime.serve.peers import Limits
from robolearn.runtime.serve.server import Server


@dataclass(frozen=True)
class Config:
    """Which policy to serve, and where. Other hosts than 127.0.0.1 and ::1 need --cert, --key and --token-file."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder of the policy."""
    host: str = "127.0.0.1"
    """Who may connect: by default this computer only."""
    port: int = 8787
    """0: any free one."""
    unix: Path | None = None
    """Listen on a Unix socket of this path instead, which only you can open: the quickest way on one computer."""
    cert: Path | None = None
    """TLS: the server's certificate (PEM)."""
    key: Path | None = None
    """TLS: its key (PEM), which others must not be able to read."""
    client_ca: Path | None = None
    """TLS: ask clients for a certificate that this one (PEM) signed."""
    token_file: Path | None = None
    """A file with the token that clients must know, at least 32 bytes; others must not be able to read it."""
    name: str = ""
    """What clients ask for; by default the run folder's name."""
    robots: int = 8
    """So many robots may be controlled at once."""
    idle: float = 60.0
    """Put a session out that asked nothing for so long [s]."""
    device: str = "auto"
    """cpu, cuda; auto: cuda where there is one."""
    checkpoint: str = "last"
    """last, best or step_000500."""
    sampler: str = ""
    """Another sampler than in training."""
    steps: int = 0
    """Another number of sampling steps than in training."""
    execute: int = 0
    """Another number of executed actions a plan than in training."""
    log: Path | None = None
    """Add what was refused, and the details of errors, to this file instead of standard error."""
    json: Path | None = None
    """Write the address, once there is one, to this file."""

    def __post_init__(self) -> None:
        """Refuses numbers out of range; ValueError names the field."""
        if self.robots < 1 or not self.idle > 0:
            raise ValueError(f"want robots >= 1 and idle > 0, got {self.robots} and {self.idle}")

    @property
    def bind(self) -> Bind:
        """The address, and the files that guard it."""
        files = {name: str(getattr(self, name) or "") for name in ("unix", "cert", "key", "client_ca", "token_file")}
        return Bind(self.host, self.port, **files)

    @property
    def sampling(self) -> dict[str, Any]:
        """What is sampled in another way than in training."""
        given = {"sampler": self.sampler, "steps": self.steps, "execute": self.execute}
        return {key: value for key, value in given.items() if value}


def run(cfg: Config) -> int:
    """Serves until Ctrl-C or a TERM signal."""
    guard(cfg.bind)  # before anything is loaded, which takes a while
    subject = _evaluate.find(str(cfg.run), cfg.checkpoint)
    if subject.checkpoint is None:
        raise BadInput(f"serve: {subject.label}: want a run folder; an expert reads its simulator, which is not here")
    from robolearn.training.checkpoint import load_driver

    seats = Seats(load_driver(subject.checkpoint, _evaluate._device(cfg.device), 2 * cfg.robots, cfg.sampling), 2 * cfg.robots)
    name = cfg.name or cfg.run.resolve().name
    limits = Limits(robots=cfg.robots, connections=4 * cfg.robots, idle_s=cfg.idle)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    if cfg.log is not None:
        _log_to(cfg.log)
    with Server(seats.take, name, cfg.bind, limits, seats.give_back) as server:
        facts = {"address": server.address, "policy": name, "weights_sha256": subject.weights_sha256}
        write_json(cfg.json, facts | {"spec": seats.spec.to_json()})
        print(f"policy '{name}' at {server.address}  {describe(seats.spec)}  (Ctrl-C ends it)", flush=True)
        server.wait()
    return 0


class Seats:
    """The streams of one network as policies: each robot gets a memory of its own, and the weights are there once."""

    def __init__(self, policy: Streams, count: int) -> None:
        """policy: with at least `count` streams; more than robots, since who takes over sits down before the other gets up."""
        self.policy, self.spec, self._free = policy, policy.spec, list(range(count))

    def take(self) -> Policy:
        """Returns a policy that has seen nothing; BadInput where every seat is taken."""
        if not self._free:
            raise BadInput("serve: every seat is taken")
        stream = self._free.pop()
        self.policy.reset_stream(stream, None)
        return Seat(self.policy, stream)

    def give_back(self, seat: Policy) -> None:
        """Makes the place of `seat` free for another robot."""
        assert isinstance(seat, Seat)
        self._free.append(seat.stream)


class Seat:
    """One stream of a policy, as a policy."""

    def __init__(self, policy: Streams, stream: int) -> None:
        self.policy, self.stream, self.spec = policy, stream, policy.spec

    def reset(self, seed: int | None = None) -> None:
        """Begins an episode."""
        self.policy.reset_stream(self.stream, seed)

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        """Adds one observation, and the action that led to it."""
        self.policy.observe_stream(self.stream, obs, applied)

    def plan(self, ask: Ask = Ask()) -> Chunk:
        """Returns the stream's plan."""
        return self.policy.plan_streams([self.stream], ask)[0]


def _log_to(path: Path) -> None:
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("robolearn.serve")
    log.addHandler(handler)
    log.propagate = False
