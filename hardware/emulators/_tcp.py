"""The ports of an emulated controller: many listening sockets on one loopback address, served by one thread.

The vendors' libraries have their port numbers built in, so every emulator takes an address of its own in 127.0.0.0/8 (Linux).
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from robolearn.errors import HardwareError

_FULL = 1 << 20  # [bytes] a client that reads so little is let go


class Talk(Protocol):
    """One connection's side of a protocol."""

    def greet(self) -> bytes:
        """Returns what is said before the client says anything."""

    def feed(self, data: bytes) -> bytes:
        """Takes bytes however TCP cut them; returns the answers."""

    def end(self) -> None:
        """The client is gone."""


@dataclass
class _Client:
    port: int
    sock: socket.socket
    talk: Talk
    rest: bytes = b""
    later: deque[tuple[int, bytes]] = field(default_factory=deque)


class Ports:
    """Listens on one address and talks to whoever connects. silent: hears everything and says nothing; delay_s: of every word."""

    def __init__(self, talks: Mapping[int, Callable[[], Talk]], clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        """talks: for each port [1..65535], what makes the conversation of a new client."""
        self._talks, self._clock_ns = dict(talks), clock_ns
        self._selector = selectors.DefaultSelector()
        self._listeners: list[socket.socket] = []
        self._clients: list[_Client] = []
        self.host, self.silent, self.delay_s = "", False, 0.0

    def open(self, host: str = "") -> str:
        """Binds all ports and returns the address; host: "" takes one that is free. HardwareError where none can be had."""
        problem: OSError | None = None
        for candidate in [host] if host else _addresses():
            try:
                self._listeners = _listen_all(candidate, self._talks)
            except OSError as error:
                problem = error
                if isinstance(error, PermissionError):  # no other address will help
                    break
                continue
            for port, listener in zip(self._talks, self._listeners, strict=True):
                self._selector.register(listener, selectors.EVENT_READ, port)
            self.host = candidate
            return candidate
        ports = ", ".join(map(str, self._talks))
        raise HardwareError(f"emulator: cannot listen on ports {ports} of {host or '127.x.y.z'}: {problem}")

    def wait(self, timeout_s: float) -> None:
        """Waits at most so long for traffic and answers it."""
        for key, _ in self._selector.select(max(0.0, timeout_s)):
            if isinstance(key.data, _Client):
                self._hear(key.data)
            else:
                self._accept(key.fileobj, key.data)  # type: ignore[arg-type]
        self._flush()

    def talks(self, port: int) -> Iterator[tuple[Talk, Callable[[bytes], None]]]:
        """Yields every conversation on a port, and how to say something in it unasked."""
        for client in [client for client in self._clients if client.port == port]:
            yield client.talk, lambda words, client=client: self._say(client, words)  # type: ignore[misc]
        self._flush()

    def unplug(self) -> None:
        """Ends every connection and stops listening; the address is kept."""
        for client in list(self._clients):
            self._drop(client)
        for listener in self._listeners:
            self._selector.unregister(listener)
            listener.close()
        self._listeners = []

    def replug(self) -> None:
        """Listens again on the same address; nothing where it does so already."""
        if not self._listeners:
            self.open(self.host)

    def close(self) -> None:
        """Unplugs for good; may be called twice."""
        self.unplug()

    def _accept(self, listener: socket.socket, port: int) -> None:
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = _Client(port, sock, self._talks[port]())
            self._clients.append(client)
            self._selector.register(sock, selectors.EVENT_READ, client)
            self._say(client, client.talk.greet())

    def _hear(self, client: _Client) -> None:
        try:
            data = client.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            if data:
                self._say(client, client.talk.feed(data))
        except (ValueError, struct.error):  # no client of this protocol
            data = b""
        if not data:
            self._drop(client)

    def _say(self, client: _Client, words: bytes) -> None:
        if words and not self.silent:
            client.later.append((self._clock_ns() + int(self.delay_s * 1e9), words))

    def _flush(self) -> None:
        now = self._clock_ns()
        for client in list(self._clients):
            while client.later and client.later[0][0] <= now:
                client.rest += client.later.popleft()[1]
            try:
                sent = client.sock.send(client.rest) if client.rest else 0
            except BlockingIOError:  # its buffer is full: the rest goes later
                sent = 0
            except OSError:
                self._drop(client)
                continue
            client.rest = client.rest[sent:]
            if len(client.rest) > _FULL:
                self._drop(client)

    def _drop(self, client: _Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self._selector.unregister(client.sock)
            client.sock.close()
            client.talk.end()


def _addresses() -> Iterable[str]:
    """Yields loopback addresses that differ from process to process, never 127.0.0.1."""
    pid = os.getpid()
    for step in range(64):
        mixed = (pid * 64 + step) % (250 * 250 * 100)
        yield f"127.{100 + mixed // 62500}.{1 + mixed // 250 % 250}.{1 + mixed % 250}"


def _listen_all(host: str, ports: Iterable[int]) -> list[socket.socket]:
    """Returns a listening socket for every port; all of them or none."""
    with contextlib.ExitStack() as opened:
        listeners = []
        for port in ports:
            listener = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(8)
            listener.setblocking(False)
            listeners.append(listener)
        opened.pop_all()
        return listeners
