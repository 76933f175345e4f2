"""The ports that the emulated controllers stand behind, on real sockets of this machine and with a clock of our own."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from hardware.emulators._goals import Goals
from hardware.emulators._tcp import Ports
from robolearn.errors import HardwareError

PORT = 20777


class Echo:
    """Greets, says everything again, cannot bear an exclamation mark, and notes when it was left."""

    left = 0

    def greet(self) -> bytes:
        return b"hello "

    def feed(self, data: bytes) -> bytes:
        if b"!" in data:
            raise ValueError("loud")
        return data

    def end(self) -> None:
        Echo.left += 1


@pytest.fixture
def ports() -> Iterator[Ports]:
    served = Ports({PORT: Echo, PORT + 1: Echo}, lambda: now[0])
    served.open()
    yield served
    served.close()
    served.close()


now = [0]


def heard(ports: Ports, sock: socket.socket, enough: Callable[[bytes], bool]) -> bytes:
    """Returns what a client hears until it is enough, or has ended."""
    sock.settimeout(0.005)
    words, end = b"", time.monotonic() + 10.0
    while not enough(words) and time.monotonic() < end:
        ports.wait(0.005)
        try:
            more = sock.recv(1000)
        except TimeoutError:
            continue
        except ConnectionError:
            return words
        if not more:
            return words
        words += more
    return words


def test_an_address_of_its_own_and_every_client_its_conversation(ports: Ports) -> None:
    assert ports.host.startswith("127.") and ports.host != "127.0.0.1"
    with pytest.raises(HardwareError, match=rf"cannot listen on ports {PORT} of {ports.host}"):
        Ports({PORT: Echo}).open(ports.host)
    other = Ports({PORT: Echo})
    assert other.open() != ports.host  # a second one finds another address
    other.close()
    with socket.create_connection((ports.host, PORT)) as first, socket.create_connection((ports.host, PORT + 1)) as second:
        first.sendall(b"a")
        second.sendall(b"b")
        assert heard(ports, first, lambda w: w.endswith(b"a")) == b"hello a"
        assert heard(ports, second, lambda w: w.endswith(b"b")) == b"hello b"
        for _, say in ports.talks(PORT):
            say(b"news")
        assert heard(ports, first, lambda w: w == b"news") == b"news"


def test_words_wait_for_their_delay_and_silence_says_nothing(ports: Ports) -> None:
    ports.delay_s = 0.5
    with socket.create_connection((ports.host, PORT)) as client:
        client.sendall(b"a")
        assert heard(ports, client, lambda _: True) == b""
        for _ in range(20):
            ports.wait(0.002)
        client.settimeout(0.01)
        with pytest.raises(TimeoutError):
            client.recv(10)
        now[0] += 500_000_000
        assert heard(ports, client, lambda w: len(w) == 7) == b"hello a"
        ports.silent, ports.delay_s = True, 0.0
        client.sendall(b"b")
        for _ in range(20):
            ports.wait(0.002)
        ports.silent = False
        client.sendall(b"c")
        assert heard(ports, client, lambda w: w.endswith(b"c")) == b"c"


def test_who_does_not_speak_the_protocol_is_let_go_and_unplugging_ends_everyone(ports: Ports) -> None:
    left = Echo.left
    with socket.create_connection((ports.host, PORT)) as rude, socket.create_connection((ports.host, PORT)) as kind:
        rude.sendall(b"!")
        assert heard(ports, rude, lambda w: False) == b"hello " and Echo.left == left + 1
        kind.sendall(b"k")
        assert heard(ports, kind, lambda w: w.endswith(b"k")) == b"hello k"
        ports.unplug()
        assert heard(ports, kind, lambda w: False) == b"" and Echo.left == left + 2
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((ports.host, PORT))
        ports.replug()
        ports.replug()
        with socket.create_connection((ports.host, PORT)) as again:
            assert heard(ports, again, lambda w: w == b"hello ") == b"hello "


def test_goals_are_noted_as_they_came() -> None:
    goals = Goals()
    assert goals.note([1.0, -2.0]) and not goals.note([float("nan"), 9.0]) and goals.note([0.5, 0.0])
    stats = {"count": 3, "non_finite": 1, "min": -2.0, "max": 1.0, "last": [0.5, 0.0]}
    assert goals.stats() == stats and Goals().stats()["min"] is None
