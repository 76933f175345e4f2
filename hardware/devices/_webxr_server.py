"""The https and websocket server of the WebXR device: one thread, one page in control at a time, a token in the address."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hmac
import json
import logging
import statistics
import threading
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from hardware.devices import _tls
from hardware.devices._webxr_wire import MAX_BYTES, Inbox
from robolearn.errors import BadInput, HardwareError, MissingDependency

_HERE = Path(__file__).parent
_FILES = {"/webxr.js": ("_webxr.js", "text/javascript"), "/webxr.css": ("_webxr.css", "text/css")}
_SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Permissions-Policy": "xr-spatial-tracking=(self)",
    "Cache-Control": "no-store",
}
_PER_S, _BURST = 400, 400  # messages; two hands at 90 Hz are 180
_MOST_REFUSED = 50  # messages, then the page is put out
BUSY, PUT_OUT = 4001, 4002  # close codes the page understands


class Server:
    """Serves the page at `address` and gives what it sends to `inbox`; `open` and `close` may be called from any thread."""

    def __init__(self, inbox: Inbox, host: str, port: int, token: str, cache: Path) -> None:
        self.inbox, self.host, self.port, self.token, self.cache = inbox, host, port, token, cache
        self.connected = False
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Starts serving; HardwareError where the port cannot be had."""
        try:
            import websockets  # noqa: F401
        except ImportError:
            raise MissingDependency("websockets", "the WebXR device", "pip install 'robolearn[webxr]'") from None
        pair = _tls.certificate(self.cache, _tls.lan_addresses(), datetime.datetime.now(datetime.UTC))
        self._tls = _tls.ssl_context(*pair)
        self._thread = threading.Thread(target=self._run, name="webxr", daemon=True)
        self._thread.start()
        self._ready.wait(20.0)
        if self._failed is not None:
            self._thread.join()
            raise HardwareError(
                f"webxr: cannot serve at {self.host}:{self.port} ({self._failed}); give another port, or 0 for any that is free"
            )

    def close(self) -> None:
        """Puts the page out and stops serving; safe to call twice."""
        if self._thread is not None and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10.0)
            self._thread = None

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except OSError as error:
            self._failed = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        from websockets.asyncio.server import serve

        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(lambda loop, context: None)  # a broken handshake is the stranger's trouble
        quiet = logging.getLogger("robolearn.webxr")
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
        async with serve(
            self._page, self.host, self.port, ssl=self._tls, process_request=self._request, max_size=MAX_BYTES, max_queue=64,
            compression=None, open_timeout=5, ping_interval=2, ping_timeout=3, close_timeout=1, logger=quiet, server_header=None,
        ) as server:  # fmt: skip
            self.port = next(iter(server.sockets)).getsockname()[1]
            self._ready.set()
            await self._stop.wait()

    def _request(self, connection: Any, request: Any) -> Any:
        """Returns the answer to an http request; None lets a websocket with the right token in."""
        parts = urlsplit(request.path)
        if parts.path in _FILES:
            name, kind = _FILES[parts.path]
            return _answer(connection, (_HERE / name).read_text(), kind)
        if parts.path not in ("/", "/ws"):
            return _answer(connection, "not found\n", "text/plain", HTTPStatus.NOT_FOUND)
        given = parse_qs(parts.query).get("token", [""])[0]
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            text = "This address lacks the right token. Open the whole address that was printed where robolearn was started.\n"
            return _answer(connection, text, "text/plain", HTTPStatus.FORBIDDEN)
        if parts.path == "/ws":
            return None
        page = (_HERE / "_webxr.html").read_text().replace("{{arms}}", str(self.inbox.arms))
        return _answer(connection, page, "text/html")

    async def _page(self, connection: Any) -> None:
        """Serves one page from its first message to its last."""
        from websockets.exceptions import ConnectionClosed

        if self.connected:
            await connection.close(BUSY, "another page is in control")
            return
        self.connected = True
        self.inbox.begin()
        talk = asyncio.create_task(self._talk(connection))
        try:
            with contextlib.suppress(ConnectionClosed):  # how every page ends
                await self._listen(connection)
        finally:
            talk.cancel()
            self.inbox.lost()
            self.connected = False

    async def _listen(self, connection: Any) -> None:
        left, then = float(_BURST), time.monotonic()
        async for text in connection:
            now = time.monotonic()
            left, then = min(_BURST, left + (now - then) * _PER_S) - 1.0, now
            if left < 0:
                await connection.close(PUT_OUT, f"more than {_PER_S} messages a second")
                return
            try:
                self.inbox.take(text)
            except BadInput:
                if self.inbox.counts.refused > _MOST_REFUSED:
                    await connection.close(PUT_OUT, "too many messages that do not fit")
                    return

    async def _talk(self, connection: Any) -> None:
        """Asks for the page's clock, ten times at once and then every second, and tells it how late its messages are."""
        from websockets.exceptions import ConnectionClosed

        count = 0
        with contextlib.suppress(ConnectionClosed):
            while True:
                await connection.send(json.dumps({"ping": self.inbox.ping()}))
                count += 1
                await asyncio.sleep(0.03 if count < 10 else 0.5)
                if count >= 10:
                    await connection.send(json.dumps(self._state()))

    def _state(self) -> dict[str, float | int | str | None]:
        ages, counts, trip = list(self.inbox.ages_ms), self.inbox.counts, self.inbox.clocks.round_trip_ms
        return {
            "round_trip_ms": None if trip is None else round(trip, 2),
            "age_ms": round(statistics.median(ages), 2) if ages else None,
            "taken": counts.taken,
            "dropped": counts.refused + counts.disordered + counts.late,
            "why": counts.why,
        }


def _answer(connection: Any, text: str, kind: str, status: HTTPStatus = HTTPStatus.OK) -> Any:
    response = connection.respond(status, text)
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = f"{kind}; charset=utf-8"
    for name, value in _SECURITY.items():
        response.headers[name] = value
    return response
