"""The policy server: listens, lets in whom the rules let in, and answers /healthz and /metrics on the same port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from robolearn.core import Policy
from robolearn.errors import BadInput, HardwareError, MissingDependency
from robolearn.runtime.serve.auth import Bind, guard, unix_socket
from robolearn.runtime.serve.features import read_spec, row_bytes, spec_text
from robolearn.runtime.serve.metrics import Metrics
from robolearn.runtime.serve.peers import Limits, Peers, Served
from robolearn.runtime.serve.reader import MAX_BYTES, ProtocolError

MAX_ROW = MAX_BYTES // 2  # bytes of one observation


class Server:
    """Serves policies made by `make_policy` under the name `name`; `open` and `close` may be called from any thread.

    Every controlling session gets a policy of its own, so that memories do not mix; all of them are asked in one thread, one
    after the other. free: told, in that thread, of each policy whose session has ended. clock: monotonic [s].
    """

    def __init__(
        self,
        make_policy: Callable[[], Policy],
        name: str,
        bind: Bind = Bind(),
        limits: Limits = Limits(),
        free: Callable[[Policy], object] = lambda policy: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """BadInput where the address needs more than it was given, or the policy reads what the wire does not carry."""
        self.bind, self.limits, self.port, self.metrics = bind, limits, bind.port, Metrics()
        self._guard = guard(bind)
        first = make_policy()
        free(first)
        _check_served(name, first)
        served = Served(make_policy, name, first.spec, free)
        self._peers = Peers(served, limits, self.metrics, clock, shared=bool(bind.unix))
        self._ready, self._failed = threading.Event(), ""
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def address(self) -> str:
        """What a client is given: ws://host:port, wss://host:port or unix:path."""
        if self.bind.unix:
            return f"unix:{self.bind.unix}"
        host = f"[{self.bind.host}]" if ":" in self.bind.host else self.bind.host
        return f"{'wss' if self._guard.tls else 'ws'}://{host}:{self.port}"

    def open(self) -> str:
        """Starts serving, where it does not already, and returns the address; HardwareError where that cannot be had."""
        if self._thread is not None:
            return self.address
        try:
            import msgpack  # noqa: F401
            import websockets  # noqa: F401
        except ImportError as error:
            raise MissingDependency(error.name or "websockets", "a policy server", "pip install 'robolearn[serve]'") from None
        listening = unix_socket(Path(self.bind.unix)) if self.bind.unix else None
        self._thread = threading.Thread(target=self._run, args=(listening,), name="serve", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failed:
            self.close()
            raise HardwareError(f"serve: cannot listen at {self.address}: {self._failed}; give another port, or 0 for any")
        return self.address

    def wait(self) -> None:
        """Waits for the end of an open server; HardwareError where it ended by itself."""
        thread = self._thread
        if thread is not None:
            thread.join()
            if self._failed:
                raise HardwareError(f"serve: the server at {self.address} has ended: {self._failed}")

    def close(self) -> None:
        """Ends every session and stops serving; safe to call twice."""
        if self._thread is None:
            return
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10.0)
        self._thread = None
        self._peers.close()
        if self.bind.unix:
            Path(self.bind.unix).unlink(missing_ok=True)

    def __enter__(self) -> Server:
        self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self, listening: Any) -> None:
        try:
            asyncio.run(self._serve(listening))
        except Exception as error:  # whatever ended it is told to who waits: the thread has nobody else
            self._failed = str(error) or type(error).__name__
        finally:
            self._ready.set()

    async def _serve(self, listening: Any) -> None:
        from websockets.asyncio.server import serve, unix_serve

        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(lambda loop, context: None)  # a broken handshake is the stranger's trouble
        quiet = logging.getLogger("robolearn.serve.websockets")
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
        how: dict[str, Any] = {
            "process_request": self._request, "origins": [None], "max_size": MAX_BYTES, "max_queue": 4, "compression": None,
            "open_timeout": self.limits.hello_s, "ping_interval": self.limits.ping_s, "ping_timeout": self.limits.pong_s,
            "close_timeout": 1, "logger": quiet, "server_header": None, "write_limit": 2**20,
        }  # fmt: skip
        made = (
            unix_serve(self._peer, None, sock=listening, **how)
            if listening
            else serve(self._peer, self.bind.host, self.bind.port, ssl=self._guard.tls, **how)
        )
        async with made as server:
            if not listening:
                self.port = next(iter(server.sockets)).getsockname()[1]
            self._ready.set()
            await self._stop.wait()

    async def _peer(self, connection: Any) -> None:
        await self._peers.serve(_Websocket(connection))

    def _request(self, connection: Any, request: Any) -> Any:
        """Returns the answer to an HTTP request; None lets a websocket in, which no page of a browser is (see `origins`)."""
        path = urlsplit(request.path).path
        if path == "/healthz":
            if self._peers.busy_s() > self.limits.stuck_s:
                return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "the policy has not answered for a long time\n")
            return connection.respond(HTTPStatus.OK, "ok\n")
        given = request.headers.get_all("Authorization")
        if not self._guard.admits(given[0] if len(given) == 1 else None):
            self.metrics.add("robolearn_refused_total", label='code="token"')
            return connection.respond(HTTPStatus.UNAUTHORIZED, "want the server's token as 'Authorization: Bearer ...'\n")
        if path == "/metrics":
            answered = connection.respond(HTTPStatus.OK, self.metrics.text())
            del answered.headers["Content-Type"]
            answered.headers["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8"
            return answered
        if path != "/":
            return connection.respond(HTTPStatus.NOT_FOUND, "want / (websocket), /healthz or /metrics\n")
        if self.metrics.value("robolearn_connections") >= self.limits.connections:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n")
        return None


class _Websocket:
    """A `peers.Connection` over a websocket of the library."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def receive(self) -> bytes | str:
        from websockets.exceptions import ConnectionClosed

        try:
            data: bytes | str = await self._connection.recv()
        except ConnectionClosed:
            raise EOFError from None
        return data

    async def send(self, data: bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            await self._connection.send(data)
        except ConnectionClosed:
            raise EOFError from None

    async def close(self, code: int, reason: str) -> None:
        await self._connection.close(code, reason)


def _check_served(name: str, policy: Policy) -> None:
    """Raises BadInput where the policy reads what a message does not carry."""
    try:
        read_spec(spec_text(policy.spec))
    except ProtocolError as error:
        raise BadInput(f"serve: policy '{name}' cannot be served: {error}") from None
    if row_bytes(policy.spec) > MAX_ROW:
        raise BadInput(f"serve: policy '{name}' reads {row_bytes(policy.spec)} bytes a tick, want at most {MAX_ROW}")
