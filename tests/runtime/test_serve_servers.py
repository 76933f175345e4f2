"""A server that lies, hangs or is not there gets no action through and does not hold the robot up."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_sums import PATIENT, SPEC, Body, seen

from robolearn.core import ArraySpec
from robolearn.errors import BadInput, SpecMismatch
from robolearn.runtime.serve.client import Client
from robolearn.runtime.serve.features import spec_text
from robolearn.runtime.serve.link import Disconnected, Late, Settings, dial
from robolearn.runtime.serve.reader import ProtocolError
from robolearn.runtime.serve.wire import Message, decode, encode

pytest.importorskip("msgpack")
pytest.importorskip("websockets")


class Liar:
    """A hostile server, as a link: answers each message with what `answer` makes of it."""

    def __init__(self, answer: Callable[[Message], list[bytes | str]]) -> None:
        self.answer, self.answers = answer, list[bytes | str]()

    def send(self, data: bytes) -> None:
        self.answers += self.answer(decode(data, SPEC.obs))

    def receive(self, timeout_s: float) -> bytes | str:
        if not self.answers:
            raise Late("client: no answer came in time")
        return self.answers.pop(0)

    def close(self) -> None: ...


def lied_to(plan: Callable[[Message], list[bytes | str]] | None = None, **welcome: Any) -> Client:
    """Returns a client whose server is honest but for its welcome and its plans."""

    def answer(m: Message) -> list[bytes | str]:
        kind = {"hello": "welcome", "plan": "chunk", "ping": "pong"}.get(m.kind, "done")
        session = ("5e55", 4)
        if kind == "chunk" and plan is not None:
            return plan(replace(m, kind="chunk", arrays={}, values={}))
        values: dict[str, Any] = {
            "welcome": {"policy": "sums", "spec": spec_text(SPEC), "shared": False} | welcome,
            "pong": {"t_ns": 5},
        }.get(kind, {})
        return [encode(Message(kind, *session, m.seq, 0, values))]

    settings = Settings(timeout_s=0.05, connect_s=0.05)
    return Client("ws://[::1]:1", Body.spec, "sums", settings=settings, dial=lambda address, settings: Liar(answer))


def planned(m: Message, tick: int = 0, **changes: Any) -> bytes:
    head = {key: changes.pop(key) for key in ("session", "epoch", "seq") if key in changes}
    arrays = {"actions": np.zeros((4, 2), np.float32)} | changes
    return encode(replace(m, values={"tick": tick, "past_stride": 1}, arrays=arrays, **head))


@pytest.mark.parametrize(
    ("plan", "error", "why"),
    [
        (lambda m: [b"\x80\x04N."], ProtocolError, "wire: "),
        (lambda m: ["text"], ProtocolError, "sent text"),
        (lambda m: [planned(m, tick=1)], ProtocolError, "plan for tick 0, the server planned for 1"),
        (lambda m: [planned(m, actions=np.full((4, 2), np.nan, np.float32))], ProtocolError, "'actions': want finite"),
        (lambda m: [planned(m, actions=np.zeros((4, 3), np.float32))], ProtocolError, "'actions': want finite float32"),
        (lambda m: [planned(m, actions=np.zeros((4, 2), np.int32))], ProtocolError, "'actions': want finite float32"),
        (lambda m: [planned(m, actions=np.zeros((4, 2), np.float64))], ProtocolError, "'actions': want finite float32"),
        (lambda m: [planned(m, actions=np.zeros((5000, 2), np.float32))], ProtocolError, "1 .. 4096 actions"),
        (lambda m: [planned(m, samples=np.zeros((2, 4, 2), np.float32))], ProtocolError, "no more draws than asked for"),
        (lambda m: [planned(m, past=np.full((1, 2), np.inf, np.float32))], ProtocolError, "'past': want finite"),
        (lambda m: [planned(m, features=np.zeros((2, 2), np.float32))], ProtocolError, "'features': want finite numbers"),
        (lambda m: [encode(replace(m, values={"tick": 0, "past_stride": 1}))], ProtocolError, "1 .. 4096 actions"),
        (lambda m: [encode(replace(m, kind="done", values={}))], ProtocolError, "want a chunk"),
        (lambda m: [planned(m, seq=m.seq - 1)], Late, "no answer"),
        (lambda m: [planned(m, epoch=m.epoch - 1)], Late, "no answer"),
        (lambda m: [planned(m, session="0" * 32)], Late, "no answer"),
        (lambda m: [], Late, "no answer"),
    ],
)  # fmt: skip
def test_a_hostile_server_gets_no_action_through(plan: Any, error: type[Exception], why: str) -> None:
    client = lied_to(plan)
    client.reset(0)
    client.observe(seen(), None)
    with pytest.raises(error, match=why) as raised:
        client.plan()
    assert "\n" not in str(raised.value)
    assert client.dropped == (error is Late and bool(plan(Message("chunk", "5e55", 4, 9)) if why == "no answer" else []))


@pytest.mark.parametrize(
    ("welcome", "error", "why"),
    [
        ({"policy": "other"}, ProtocolError, "want policy 'sums'"),
        ({"spec": "{x"}, ProtocolError, "spec: "),
        ({"spec": spec_text(replace(SPEC, action=ArraySpec((3,))))}, SpecMismatch, "actions of shape"),
        ({"spec": spec_text(replace(SPEC, hz=50.0))}, SpecMismatch, "50 Hz"),
        ({"spec": spec_text(replace(SPEC, action=ArraySpec((2,), "int64")))}, ProtocolError, "want actions as floats"),
    ],
)
def test_a_hostile_welcome_is_refused(welcome: dict[str, Any], error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        lied_to(**welcome)


def test_what_a_server_calls_things_counts_for_nothing() -> None:
    odd = replace(SPEC, action=ArraySpec((2,), names=("dx", "dy"), unit="km"), execute=2)
    client = lied_to(spec=spec_text(odd))
    assert client.spec.action == Body.spec.action and client.spec.execute == 2  # displacements would be another body's
    assert client.offset.offset_s < 0  # its clock is reported, and used for nothing


@pytest.mark.parametrize(
    "address",
    [
        "ws://192.0.2.1:80",
        "ws://localhost:80",
        "http://127.0.0.1",
        "127.0.0.1:80",
        "wss://",
        "ws://127.0.0.1/x",
        "ws://127.0.0.1:99999",
        "ws://[127.0.0.1",
        "unix:",
    ],
)
def test_an_address_that_leaves_this_computer_in_clear_or_is_none_is_refused(address: str) -> None:
    with pytest.raises((BadInput, Disconnected), match="client: "):
        dial(address, PATIENT)


def test_nobody_at_an_address_and_settings_out_of_range_are_named(tmp_path: Path) -> None:
    with pytest.raises(Disconnected, match="nobody serves at unix:"):
        dial(f"unix:{tmp_path}/none", PATIENT)
    for values in ({"timeout_s": 0.0}, {"connect_s": float("nan")}, {"jpeg_quality": 101}):
        with pytest.raises(BadInput, match=f"client: {next(iter(values))}"):
            Settings(**values)  # type: ignore[arg-type]


def test_a_server_that_takes_nothing_any_more_does_not_hold_the_robot_for_ever() -> None:
    from websockets.sync.server import serve

    gone = threading.Event()
    with serve(lambda connection: gone.wait(20.0), "127.0.0.1", 0, max_queue=1, max_size=None, close_timeout=0.1) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        link = dial(f"ws://127.0.0.1:{server.socket.getsockname()[1]}", Settings(timeout_s=0.1))
        waits = link._connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16)  # type: ignore[attr-defined]
        assert 0 < struct.unpack("@ll", waits)[1] < 200_000  # [us]: a send gives up long before pings do
        with pytest.raises(Disconnected, match="client: "):
            for _ in range(100):
                link.send(bytes(2**20))
        gone.set()
        link.close()
        server.shutdown()
        thread.join()
