"""Where a policy server may listen and who may speak to it: this computer alone, or anybody with TLS and a token."""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import ssl
import stat
from dataclasses import dataclass, field
from pathlib import Path

from robolearn.errors import BadInput, HardwareError

LOOPBACK = ("127.0.0.1", "::1")
MIN_TOKEN = 32  # bytes


@dataclass(frozen=True)
class Bind:
    """Where to listen, and with which files.

    unix: a path, instead of host and port; port 0: any that is free; cert, key: PEM files of the server; client_ca: PEM file of
    who signs clients' certificates, which are then asked for; token_file: what clients must know.
    """

    host: str = "127.0.0.1"
    port: int = 8787
    unix: str = ""
    cert: str = ""
    key: str = ""
    client_ca: str = ""
    token_file: str = ""

    @property
    def local(self) -> bool:
        """True where only this computer can connect. A name such as localhost may lead elsewhere and does not count."""
        return bool(self.unix) or self.host in LOOPBACK


@dataclass(frozen=True)
class Guard:
    """What a server asks of those who connect: the TLS settings, None for none, and the token, empty for none."""

    tls: ssl.SSLContext | None = None
    token: bytes = field(default=b"", repr=False)

    def admits(self, authorization: str | None) -> bool:
        """True where an HTTP Authorization header holds the token, compared in constant time, or none is asked for."""
        if not self.token:
            return True
        given = (authorization or "").encode("utf-8", "replace")
        want = b"Bearer " + self.token
        # Digests have one length: comparing them tells nothing about the length of the token either.
        return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(want).digest())


def guard(bind: Bind) -> Guard:
    """Returns what the server must ask for at this address; BadInput where that address needs more than was given."""
    if not 0 <= bind.port <= 65535:
        raise BadInput(f"serve: --port {bind.port}: want 0 .. 65535")
    if bool(bind.cert) != bool(bind.key):
        raise BadInput("serve: want --cert and --key together")
    if bind.client_ca and not bind.cert:
        raise BadInput("serve: --client-ca asks for certificates of clients, which needs --cert and --key too")
    if bind.unix and bind.cert:
        raise BadInput("serve: --unix is for this computer alone and takes no TLS; leave --cert and --key out")
    missing = [f"--{name}" for name in ("cert", "key", "token_file") if not getattr(bind, name)]
    if not bind.local and missing:
        flags = " and ".join(flag.replace("_", "-") for flag in missing)
        raise BadInput(
            f"serve: others can reach {bind.host}, which needs TLS and a token: give {flags} too, or --host {LOOPBACK[0]}"
        )
    tls = _server_tls(bind) if bind.cert else None
    return Guard(tls, read_token(Path(bind.token_file)) if bind.token_file else b"")


def read_token(path: Path) -> bytes:
    """Returns the token in a file; BadInput where others may read it, or where it is short or does not fit an HTTP header."""
    try:
        _private(path, "token")
        token = path.read_bytes().strip()
    except OSError as error:
        raise BadInput(f"{path}: the token file cannot be read: {error.strerror}") from None
    if len(token) < MIN_TOKEN:
        raise BadInput(f"{path}: want a token of at least {MIN_TOKEN} bytes, got {len(token)}; openssl rand -hex 32 makes one")
    if not all(0x21 <= byte <= 0x7E for byte in token):
        raise BadInput(f"{path}: want a token of printable ASCII without spaces; openssl rand -hex 32 makes one")
    return token


def client_tls(ca: str, cert: str, key: str) -> ssl.SSLContext:
    """Returns the TLS settings of a client that trusts `ca` (a PEM file; "": what this computer trusts); BadInput otherwise."""
    try:
        context = ssl.create_default_context(cafile=ca or None)
        if cert:
            context.load_cert_chain(cert, key or None)
    except (OSError, ssl.SSLError) as error:
        raise BadInput(f"serve: cannot use the certificates {', '.join(x for x in (ca, cert, key) if x)}: {error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def unix_socket(path: Path) -> socket.socket:
    """Returns a socket bound to `path` that only its owner can open (0600); a socket that nobody serves any more is replaced."""
    if path.is_socket() and not _answers(path):
        path.unlink()
    elif path.exists() or path.is_symlink():
        raise BadInput(f"{path}: want a path that is free for a socket; something is there")
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)  # the socket must never be open to others, not even before a chmod
    try:
        made.bind(str(path))
    except OSError as error:
        made.close()
        raise HardwareError(f"{path}: no socket can be made there: {error}") from None
    finally:
        os.umask(old)
    return made


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return True


def _server_tls(bind: Bind) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        _private(Path(bind.key), "key")
        context.load_cert_chain(bind.cert, bind.key)
        if bind.client_ca:
            context.load_verify_locations(bind.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        names = ", ".join(name for name in (bind.cert, bind.key, bind.client_ca) if name)
        raise BadInput(f"serve: want a certificate and its key as PEM files, got {names}: {error}") from None
    return context


def _private(path: Path, what: str) -> None:
    if path.stat().st_mode & (stat.S_IRWXO):
        raise BadInput(f"{path}: the {what} file can be read by every user of this computer; chmod 600 it")
