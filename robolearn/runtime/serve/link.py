"""A client's connection to a policy server, with every foreign exception mapped to one of ours at this border."""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from robolearn.errors import BadInput, HardwareError, MissingDependency
from robolearn.runtime.serve.auth import LOOPBACK, client_tls, read_token
from robolearn.runtime.serve.reader import MAX_BYTES


class Disconnected(HardwareError):
    """There is no server at the other end, or not any more."""


class Late(HardwareError):
    """No answer came in time."""


@dataclass(frozen=True)
class Settings:
    """How a client speaks to a server.

    timeout_s: how long one answer may take, and one message may wait to be taken; connect_s: the same for the connection;
    token_file, ca, cert, key: what `auth` wants at wss addresses (ca "": what this computer trusts; cert and key only where the
    server asks for them); jpeg_quality: of observed pictures, 0 sends them as they are; shared: use shared memory where the
    address is unix:.
    """

    timeout_s: float = 5.0
    connect_s: float = 10.0
    token_file: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    jpeg_quality: int = 0
    shared: bool = True

    def __post_init__(self) -> None:
        """BadInput names a setting that is out of range."""
        for name in ("timeout_s", "connect_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise BadInput(f"client: {name}: want seconds above 0, got {value}")
        if not 0 <= self.jpeg_quality <= 100:
            raise BadInput(f"client: jpeg_quality: want 0 (off) .. 100, got {self.jpeg_quality}")


class Link(Protocol):
    """Messages to and from one server. Disconnected once that is gone; `receive` raises Late where nothing comes in time."""

    def send(self, data: bytes) -> None: ...
    def receive(self, timeout_s: float) -> bytes | str: ...
    def close(self) -> None: ...


def dial(address: str, settings: Settings) -> Link:
    """Returns an open link to ws://127.0.0.1:PORT, wss://HOST:PORT or unix:PATH.

    BadInput for another address: without TLS nothing leaves this computer. Disconnected where nobody answers or the server
    declines.
    """
    try:
        from websockets.exceptions import InvalidStatus, InvalidURI, WebSocketException
        from websockets.sync.client import connect, unix_connect
    except ImportError:
        raise MissingDependency("websockets", "a policy server's client", "pip install 'robolearn[serve]'") from None
    how = _options(settings)
    try:
        if address.startswith("unix:"):
            return _Websocket(_opened(partial(unix_connect, address.removeprefix("unix:"), **how), settings.connect_s), settings)
        check_address(address)
        tls = client_tls(settings.ca, settings.cert, settings.key) if address.startswith("wss:") else None
        return _Websocket(_opened(partial(connect, address, ssl=tls, proxy=None, **how), settings.connect_s), settings)
    except InvalidURI:
        raise BadInput(f"client: '{address}' is no address") from None
    except InvalidStatus as error:
        body = bytes(error.response.body or b"")[:200].decode("ascii", "replace").strip()
        told = "".join(c if c.isprintable() else " " for c in body)
        raise Disconnected(f"client: {address} declined with status {error.response.status_code}: {told}") from None
    except (OSError, EOFError, WebSocketException) as error:
        raise Disconnected(
            f"client: nobody serves at {address}: {error or type(error).__name__}; start it with robolearn serve"
        ) from None


def check_address(address: str) -> None:
    """Raises BadInput unless `address` is wss://HOST[:PORT], or ws:// to this computer."""
    try:
        parts = urlsplit(address)
        fine = bool(parts.hostname) and parts.path in ("", "/") and not parts.query and not parts.username and parts.port != 0
        fine = fine and parts.scheme in ("ws", "wss")
    except ValueError:  # no port is that large, no address has that bracket
        fine = False
    if not fine:
        raise BadInput(f"client: want ws://127.0.0.1:PORT, wss://HOST:PORT or unix:PATH, got '{address}'")
    if parts.scheme == "ws" and parts.hostname not in LOOPBACK:
        raise BadInput(
            f"client: {address} leaves this computer unencrypted; want wss:// there, or ws:// to one of {', '.join(LOOPBACK)}"
        )


def _opened(connect: Callable[..., Any], connect_s: float) -> Any:
    """Returns a connection. A handshake that stalls is begun anew, once: through TLS it was seen to, and why is not known."""
    try:
        return connect(open_timeout=connect_s / 2)
    except TimeoutError:
        return connect(open_timeout=connect_s / 2)


def _options(settings: Settings) -> dict[str, Any]:
    quiet = logging.getLogger("robolearn.serve.websockets")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    token = read_token(Path(settings.token_file)).decode("ascii") if settings.token_file else ""
    return {
        "additional_headers": {"Authorization": f"Bearer {token}"} if token else {}, "max_size": MAX_BYTES, "max_queue": 16,
        "compression": None, "close_timeout": 1, "ping_interval": 2,
        "ping_timeout": max(6.0, settings.timeout_s), "logger": quiet, "user_agent_header": None,
    }  # fmt: skip


class _Websocket:
    """A `Link` over a websocket of the library; a send that the server does not take in time ends it."""

    def __init__(self, connection: Any, settings: Settings) -> None:
        self._stack = contextlib.ExitStack()
        self._connection = self._stack.enter_context(connection)
        whole, rest = divmod(settings.timeout_s, 1.0)
        wait = struct.pack("@ll", int(whole), int(rest * 1e6) or int(not whole))
        self._connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)

    def send(self, data: bytes) -> None:
        """Sends one message; Disconnected where the server does not take it."""
        from websockets.exceptions import ConnectionClosed

        try:
            self._connection.send(data)
        except ConnectionClosed as closed:
            raise Disconnected(_why(closed)) from None

    def receive(self, timeout_s: float) -> bytes | str:
        """Returns the next message."""
        from websockets.exceptions import ConnectionClosed

        try:
            data: bytes | str = self._connection.recv(timeout=max(0.0, timeout_s))
        except TimeoutError:
            raise Late("client: no answer came in time") from None
        except ConnectionClosed as closed:
            raise Disconnected(_why(closed)) from None
        return data

    def close(self) -> None:
        """Says goodbye; safe to call twice."""
        with contextlib.suppress(OSError):
            self._stack.close()


def _why(closed: Any) -> str:
    said = closed.rcvd
    reason = "".join(c for c in said.reason if c.isprintable())[:100] if said is not None else ""
    return f"client: the server closed the connection{f' ({said.code} {reason})'.replace(' )', ')') if said is not None else ''}"
