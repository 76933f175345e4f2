"""Serves the viewer: NiceGUI gives page, server and three.js; the page's own files lie beside this one."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from nicegui import ui
from starlette.middleware.trustedhost import TrustedHostMiddleware

from robolearn.apps._view_api import Api
from robolearn.errors import BadInput

_FOLDER = Path(__file__).parent
_LOCAL = ("127.0.0.1", "localhost", "::1")
_HEAD = '<link rel="stylesheet" href="/view/_view.css"><script type="module" src="/view/_view.js"></script>'


def build(api: Api, host: str = "127.0.0.1") -> FastAPI:
    """Returns the web application: the API's routes, and one page with the shell that the script fills."""
    web = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if host in _LOCAL:  # a name that some page makes point to this machine is not ours
        web.add_middleware(TrustedHostMiddleware, allowed_hosts=[*_LOCAL, "[::1]"])
    web.routes.extend(api.routes())

    def page() -> None:
        ui.add_head_html(_HEAD)
        ui.html((_FOLDER / "_view.html").read_text(), sanitize=False)

    ui.run_with(
        web,
        root=page,
        title=f"{api.dataset.path.name} · robolearn",
        dark=None,  # as the browser says
        language="en-US",
        tailwind=False,
        reconnect_timeout=60,  # [s]: a busy computer is no reason to load the page again
        show_welcome_message=False,
    )
    return web


def listen(host: str, port: int) -> socket.socket:
    """Returns a bound socket; BadInput where the address is taken or not ours. port 0: any free one."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        way = "give another --port, or 0 for any free one" if error.errno in (13, 98, 48) else "give another --host"
        raise BadInput(f"{host}:{port}: cannot listen there ({os.strerror(error.errno or 0)}); {way}") from error


def serve(api: Api, place: socket.socket, ready: Callable[[str], None]) -> None:
    """Serves until Ctrl-C; `ready` is told the address once the page can be opened."""
    host, port = place.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    server = uvicorn.Server(uvicorn.Config(build(api, host), log_level="error", timeout_graceful_shutdown=1))
    original = server.startup

    async def startup(sockets: list[socket.socket] | None = None) -> None:
        await original(sockets)
        ready(address)

    server.startup = startup  # type: ignore[method-assign]
    server.run(sockets=[place])
    if server.should_exit:  # asyncio does not always hand on the interrupt that ended it
        raise KeyboardInterrupt
