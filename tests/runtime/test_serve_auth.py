"""A server beyond this computer asks for TLS and a token or does not start; who has neither learns nothing."""

from __future__ import annotations

import datetime
import hmac
import http.client
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardware.devices import _tls
from robolearn.errors import BadInput, HardwareError
from robolearn.runtime.serve import auth, link
from robolearn.runtime.serve.auth import Bind, Guard, guard, read_token, unix_socket
from robolearn.runtime.serve.client import Client
from robolearn.runtime.serve.link import Disconnected, Settings, dial
from robolearn.runtime.serve.peers import Limits
from robolearn.runtime.serve.round_trip import Still, still_spec
from robolearn.runtime.serve.server import Server

pytest.importorskip("websockets")
pytest.importorskip("msgpack")
TOKEN = b"0123456789abcdef" * 2


def private(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def pair(folder: Path) -> tuple[str, str]:
    pytest.importorskip("cryptography")
    now = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    certificate, key = _tls.certificate(folder, [], min(now, datetime.datetime.now(datetime.UTC)))
    return str(certificate), str(key)


@pytest.fixture(scope="module")
def bind(tmp_path_factory: pytest.TempPathFactory) -> Bind:
    """An address that every computer could reach, with all that it takes."""
    folder = tmp_path_factory.mktemp("auth")
    certificate, key = pair(folder)
    return Bind("0.0.0.0", 0, cert=certificate, key=key, token_file=str(private(folder / "token", TOKEN + b"\n")))


@pytest.fixture(scope="module")
def server(bind: Bind) -> Iterator[Server]:
    with Server(lambda: Still(100), "still", bind, Limits(hello_s=20, ping_s=20, pong_s=20)) as served:
        yield served


def settings(bind: Bind, **changes: Any) -> Settings:
    return replace(Settings(timeout_s=20.0, connect_s=20.0, token_file=bind.token_file, ca=bind.cert), **changes)


def address(server: Server) -> str:
    return f"wss://localhost:{server.port}"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "localhost", "robot.example", "127.0.0.2", ""])
@pytest.mark.parametrize("given", [(), ("token_file",), ("cert", "key")])
def test_an_address_that_others_can_reach_needs_tls_and_a_token(bind: Bind, host: str, given: tuple[str, ...]) -> None:
    made: list[int] = []
    partial = Bind(host, 0, **{name: getattr(bind, name) for name in given})
    lacking = "--cert and --key" if given else "--cert and --key and --token-file"
    with pytest.raises(BadInput, match="--token-file" if "cert" in given else lacking) as refused:
        Server(lambda: made.append(1) or Still(100), "still", partial)  # type: ignore[arg-type,func-returns-value]
    assert not made and "\n" not in str(refused.value)  # nothing was loaded, nothing listens
    assert guard(replace(bind, host=host)).tls is not None


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_this_computer_alone_needs_nothing(host: str) -> None:
    found = guard(Bind(host))
    assert found.tls is None and not found.token and found.admits(None)
    assert guard(Bind("0.0.0.0", unix="serve.sock")) == found  # a Unix socket has no host


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"port": 70_000}, "--port 70000: want 0 .. 65535"),
        ({"key": ""}, "want --cert and --key together"),
        ({"cert": "", "client_ca": "ca.pem", "key": ""}, "--client-ca asks for certificates"),
        ({"unix": "serve.sock"}, "takes no TLS"),
        ({"cert": "missing.pem"}, "want a certificate and its key as PEM files, got missing.pem"),
        ({"client_ca": "missing.pem"}, "want a certificate and its key as PEM files"),
        ({"token_file": "missing"}, "missing: the token file cannot be read: No such file"),
    ],
)
def test_what_does_not_go_together_is_refused_at_the_start(bind: Bind, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        guard(replace(bind, host="127.0.0.1", **changes))


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (TOKEN[:31], 0o600, "at least 32 bytes, got 31; openssl rand"),
        (b" " * 20 + TOKEN[:31] + b"\n" * 20, 0o600, "at least 32 bytes, got 31"),
        (TOKEN, 0o604, "can be read by every user of this computer; chmod 600"),
        (TOKEN + b" and words", 0o600, "printable ASCII without spaces"),
        (TOKEN + b"\xff", 0o600, "printable ASCII without spaces"),
    ],
)
def test_a_token_that_is_short_or_open_to_others_is_refused(tmp_path: Path, content: bytes, mode: int, why: str) -> None:
    with pytest.raises(BadInput, match=why) as refused:
        read_token(private(tmp_path / "token", content, mode))
    assert TOKEN[:8].decode() not in str(refused.value)
    assert read_token(private(tmp_path / "good", TOKEN + b"\n", 0o640)) == TOKEN


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    certificate, key = pair(tmp_path)
    Path(key).chmod(0o644)
    with pytest.raises(BadInput, match="the key file can be read by every user"):
        guard(Bind(cert=certificate, key=key))


def test_tokens_are_compared_in_constant_time_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    plain = hmac.compare_digest
    monkeypatch.setattr(auth.hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or plain(a, b))
    found = Guard(token=TOKEN)
    good = f"Bearer {TOKEN.decode()}"
    for given in (None, "", "Bearer ", good[:-1], good + "x", good.lower() + "é", TOKEN.decode(), "Basic " + TOKEN.decode()):
        assert not found.admits(given)
    assert found.admits(good)
    assert len(compared) == 9 and len(set(compared)) == 1  # of one length, whatever was given
    assert TOKEN.decode() not in repr(found)


def test_a_robot_with_the_token_is_served_through_tls(server: Server, bind: Bind) -> None:
    with Client(address(server), still_spec(100), "still", settings=settings(bind)) as client:
        client.reset(0)
        client.observe({"pixels": np.zeros(44, np.uint8), "joints": np.zeros(14, np.float32)}, None)
        assert client.plan().actions.shape == (50, 14)
    assert server.address.startswith("wss://0.0.0.0:")


def test_without_the_token_there_is_no_session_and_no_metrics_but_health(server: Server, bind: Bind, tmp_path: Path) -> None:
    wrong = private(tmp_path / "wrong", TOKEN[::-1])
    before = server.metrics.value("robolearn_refused_total", 'code="token"')
    for file in ("", str(wrong)):
        with pytest.raises(Disconnected, match="status 401: want the server's token"):
            dial(address(server), settings(bind, token_file=file))
    context = ssl.create_default_context(cafile=bind.cert)
    for path, headers, status in (
        ("/healthz", {}, 200),
        ("/metrics", {}, 401),
        ("/metrics", {"Authorization": f"Bearer {TOKEN[::-1].decode()}"}, 401),
        ("/metrics", {"Authorization": f"Bearer {TOKEN.decode()}"}, 200),
        ("/", {}, 401),
    ):
        connection = http.client.HTTPSConnection("localhost", server.port, context=context, timeout=20)
        connection.request("GET", path, headers=headers)
        assert connection.getresponse().status == status
        connection.close()
    assert server.metrics.value("robolearn_refused_total", 'code="token"') == before + 5


def test_a_server_with_another_certificate_is_not_spoken_to(server: Server, bind: Bind, tmp_path: Path) -> None:
    other, _ = pair(tmp_path)
    for ca in (other, ""):
        with pytest.raises(Disconnected, match="certificate"):
            dial(address(server), settings(bind, ca=ca))
    with pytest.raises(BadInput, match=r"cannot use the certificates missing\.pem"):
        dial(address(server), settings(bind, ca="missing.pem"))
    with pytest.raises(Disconnected):  # no TLS
        dial(f"ws://127.0.0.1:{server.port}", settings(bind))


def test_clients_can_be_asked_for_a_certificate_too(bind: Bind, tmp_path: Path) -> None:
    certificate, key = pair(tmp_path)
    asking = replace(bind, client_ca=certificate)
    with Server(lambda: Still(100), "still", asking) as served:
        with pytest.raises(Disconnected):
            link = dial(address(served), settings(bind))  # TLS 1.3 tells a client only when it reads
            link.receive(20.0)
        with Client(address(served), still_spec(100), "still", settings=settings(bind, cert=certificate, key=key)) as client:
            client.reset(0)


def test_a_unix_socket_is_its_owners_alone_and_a_dead_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "serve.sock"
    mask = os.umask(0)
    try:
        unix_socket(path).close()  # nobody listens: what a server leaves behind that was killed
    finally:
        assert os.umask(mask) == 0
    assert path.stat().st_mode & 0o777 == 0o600
    with Server(lambda: Still(100), "still", Bind(unix=str(path))) as served:
        assert path.stat().st_mode & 0o777 == 0o600 and served.address == f"unix:{path}"
        with pytest.raises(BadInput, match="something is there"):
            unix_socket(path)
        with Client(served.address, still_spec(100), "still") as client:
            client.reset(0)
    assert not path.exists()


def test_what_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    path = private(tmp_path / "precious", b"data")
    with pytest.raises(BadInput, match="want a path that is free for a socket"):
        unix_socket(path)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="something is there"):
        unix_socket(link)
    with pytest.raises(HardwareError, match="no socket can be made there"):
        unix_socket(tmp_path / "missing" / "serve.sock")
    assert path.read_bytes() == b"data" and socket.AF_UNIX


def test_a_handshake_that_stalls_is_begun_anew_once() -> None:
    waits = list[float]()

    def stalls(open_timeout: float) -> str:
        waits.append(open_timeout)
        if len(waits) == 1:
            raise TimeoutError
        return "open"

    assert link._opened(stalls, 3.0) == "open" and waits == [1.5, 1.5]
