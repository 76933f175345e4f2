"""How long one observation takes to a policy server and its plan back, on this computer, with a policy that costs nothing."""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from robolearn.core import ArraySpec, Ask, Chunk, Obs, Spec
from robolearn.errors import BadInput, HardwareError
from robolearn.runtime.serve.auth import Bind
from robolearn.runtime.serve.client import Client
from robolearn.runtime.serve.link import Settings
from robolearn.runtime.serve.peers import Limits
from robolearn.runtime.serve.server import Server

WAYS = ("tcp", "unix", "shared")
_NAME, _JOINTS, _HORIZON, _WARM = "still", 14, 50, 10


@dataclass(frozen=True)
class RoundTrip:
    """Milliseconds of all calls of all clients together: half were faster than p50, 99 of 100 faster than p99."""

    way: str
    bytes: int
    calls: int
    clients: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class Still:
    """A policy that observes `size` bytes and stays: what a round trip costs beside the network's own work."""

    def __init__(self, size: int) -> None:
        """size: bytes of one observation, the 14 joints' 56 among them."""
        self.spec = still_spec(size)
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Begins an episode."""
        del seed  # Unused: nothing is drawn.
        self._tick = -1

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        """Counts."""
        del obs, applied  # Unused: it stays anyway.
        self._tick += 1

    def plan(self, ask: Ask = Ask()) -> Chunk:
        """Returns 50 actions."""
        del ask  # Unused: there is one way to stay.
        return Chunk(np.zeros((_HORIZON, _JOINTS), np.float32), self._tick)


def still_spec(size: int) -> Spec:
    """Returns the spec of `Still`: a picture's worth of bytes and 14 joints."""
    pixels = size - 4 * _JOINTS
    if pixels < 1:
        raise BadInput(f"round_trip: want more than {4 * _JOINTS} bytes, got {size}")
    return Spec({"pixels": ArraySpec((pixels,), "uint8"), "joints": ArraySpec((_JOINTS,))}, ArraySpec((_JOINTS,)), 30.0)


def round_trip(bytes: int = 301_178, calls: int = 380, clients: int = 1, way: str = "tcp") -> RoundTrip:
    """Returns the times of `calls` round trips of `bytes` by each of `clients` robots at once.

    Each robot is a thread here, the server a process of its own. way: tcp (a websocket on loopback), unix (the same on a Unix
    socket), shared (with arrays in shared memory).
    """
    if way not in WAYS or calls < 1 or clients < 1:
        raise BadInput(
            f"round_trip: want a way of {', '.join(WAYS)} and at least one call and client, got {way}, {calls}, {clients}"
        )
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        bind = Bind(port=0) if way == "tcp" else Bind(unix=str(Path(folder) / "serve.sock"))
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, bytes, clients, bind), daemon=True)
        process.start()
        try:
            if not ours.poll(60.0):
                raise HardwareError("round_trip: the server did not start within 60 s")
            address = ours.recv_bytes().decode()
            settings = Settings(timeout_s=30.0, shared=way == "shared")
            times = _measured(address, still_spec(bytes), calls, clients, settings)
        finally:
            ours.close()  # tells the server to end
            process.join(10.0)
            process.kill()
    p50, p99 = np.percentile(times, [50, 99])
    return RoundTrip(way, bytes, calls, clients, float(p50), float(p99), max(times))


def _measured(address: str, spec: Spec, calls: int, clients: int, settings: Settings) -> list[float]:
    times: list[float] = []
    failures: list[BaseException] = []
    together = threading.Barrier(clients)

    def drive(robot: int) -> None:
        rng = np.random.default_rng(robot)
        obs = {"pixels": rng.integers(0, 256, spec.obs["pixels"].shape, np.uint8), "joints": np.zeros(_JOINTS, np.float32)}
        try:
            with Client(address, spec, _NAME, f"robot {robot}", settings) as client:
                client.reset(robot)
                together.wait(60.0)
                for call in range(calls + _WARM):
                    began = time.perf_counter()
                    client.observe(obs, None)
                    client.plan()
                    if call >= _WARM:
                        times.append((time.perf_counter() - began) * 1e3)
        except BaseException as error:  # handed to the thread that waits
            failures.append(error)
            together.abort()

    threads = [threading.Thread(target=drive, args=(robot,)) for robot in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return times


def _serve(pipe: Connection, size: int, robots: int, bind: Bind) -> None:
    """Serves until the other end of the pipe is closed."""
    with Server(lambda: Still(size), _NAME, bind, Limits(robots=robots, connections=robots + 1, messages_per_s=1e6)) as server:
        pipe.send_bytes(server.address.encode())
        try:
            pipe.recv_bytes()
        except EOFError:
            return
