"""A phone or headset through a page that we serve: WebXR over https, one page in control, held by a dead-man button.

    device = make(Config(port=8443))
    device.connect()
    device.invitation            # the addresses to open, with the token
    device.read()                # samples with a pose in a fixed frame: x forward, y left, z up

The page also has a mode for desktops (drag, keys), which needs no WebXR. See docs/webxr.md.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hardware._base import Kind
from hardware.devices import _tls
from hardware.devices._webxr_server import Server
from hardware.devices._webxr_wire import VERSION, Inbox
from robolearn.core import TeleopSample
from robolearn.errors import ConfigError


@dataclass(frozen=True)
class Config:
    """How the page is served."""

    host: str = "0.0.0.0"
    """Address to listen at: 0.0.0.0 for phones on this network, 127.0.0.1 for this computer (or adb reverse)."""
    port: int = 8443
    """Port of the page; 0 takes any that is free."""
    arms: int = 1
    """Hands the page sends, 1 or 2."""
    token: str = ""
    """Secret in the address; empty makes a new one at every start."""
    cache: str = "~/.cache/robolearn"
    """Folder of the self-signed certificate."""
    full: bool = False
    """Give every sample (for a log), not the newest of each hand."""
    max_age_s: float = 0.25
    """Samples that were longer on their way [s] are dropped."""

    def __post_init__(self) -> None:
        if self.arms not in (1, 2):
            raise ConfigError(f"webxr arms: want 1 or 2, got {self.arms}")
        if not 0 <= self.port < 65536:
            raise ConfigError(f"webxr port: want 0 to 65535, got {self.port}")
        if self.token and len(self.token) < 8:
            raise ConfigError(f"webxr token: want at least 8 characters, got {len(self.token)}; leave it out for a random one")


class Transport(Protocol):
    """Brings what a page sends to an inbox."""

    port: int
    connected: bool

    def open(self) -> None: ...
    def close(self) -> None: ...


class WebXR:
    """The driver. `connected`: a page is in control now."""

    kind: Kind = "pose"
    deadman = True

    def __init__(
        self,
        config: Config,
        transport: Callable[[Inbox], Transport] | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.config, self.arms = config, config.arms
        self.token = config.token or secrets.token_urlsafe(9)
        self.inbox = Inbox(config.arms, clock, config.full, config.max_age_s)
        cache = Path(config.cache).expanduser()
        self._transport = transport(self.inbox) if transport else Server(self.inbox, config.host, config.port, self.token, cache)

    @property
    def connected(self) -> bool:
        """True while a page is in control."""
        return self._transport.connected

    @property
    def address(self) -> str:
        """The page's address on this computer."""
        return f"https://127.0.0.1:{self._transport.port}/?token={self.token}"

    @property
    def invitation(self) -> str:
        """What to tell the operator after `connect`: every address of the page, with the token, and what the browser will say."""
        here = [self.address]
        if self.config.host in ("0.0.0.0", "::", ""):
            here = [self.address.replace("127.0.0.1", address) for address in _tls.lan_addresses()] + here
        return "open " + " or ".join(here) + " (the browser warns once of the self-signed certificate: accept it)"

    def connect(self) -> None:
        """Starts serving; HardwareError where the port is taken."""
        self._transport.open()

    def read(self) -> Sequence[TeleopSample]:
        """Returns the newest sample of each hand since the last call, with everything pressed since then."""
        return self.inbox.read()

    def close(self) -> None:
        """Stops serving; a hand that was held lets go."""
        self._transport.close()
        self.inbox.lost()


def make(config: Config) -> WebXR:
    """Returns the device, which serves once it is connected."""
    return WebXR(config)


class Feed:
    """A page that is none: `play` sends one message of a hand that goes round, held, with a button now and then."""

    port, connected = 0, True

    def __init__(self, inbox: Inbox) -> None:
        self.inbox, self._seq = inbox, 0

    def open(self) -> None:
        """Takes control."""
        self.inbox.begin()

    def close(self) -> None:
        """Is gone."""

    def play(self) -> None:
        """Sends the next messages, one for each hand."""
        for arm in range(self.inbox.arms):
            angle = 0.1 * self._seq
            message = {
                "v": VERSION,
                "seq": self._seq,
                "t": 10.0 * self._seq,
                "arm": arm,
                "p": [0.1 * math.sin(angle), 0.1 * math.cos(angle), 0.1 * math.sin(2 * angle)],
                "q": [0.0, math.sin(angle / 2), 0.0, math.cos(angle / 2)],
                "btn": [0.5],
                "axes": [],
                "deadman": True,
                "ev": ["success"] if self._seq % 4 == 3 else [],
            }
            self._seq += 1
            self.inbox.take(json.dumps(message))


def fake(config: Config) -> tuple[WebXR, Feed]:
    """Returns the driver on messages that `Feed.play` sends."""
    feeds: list[Feed] = []

    def transport(inbox: Inbox) -> Feed:
        feeds.append(Feed(inbox))
        return feeds[0]

    return WebXR(config, transport), feeds[0]
