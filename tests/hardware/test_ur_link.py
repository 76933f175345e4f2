"""What the UR5e's driver does without a controller: its limits of time, its clock, its configuration."""

from __future__ import annotations

import math
import os
import socket
import sys
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware._errors import TransportLost, TransportTimeout
from hardware.robots import ur5e
from hardware.robots._envelope import Envelope
from hardware.robots._ur_link import Link
from robolearn.errors import ConfigError, MissingDependency


def test_a_call_that_hangs_has_an_end() -> None:
    with pytest.raises(TransportTimeout, match=r"did not finish a command in 0\.01 s"):
        Link("ur5e", "127.0.0.1", time.monotonic_ns).within(lambda: time.sleep(0.3), 0.01)


def test_a_call_that_fails_is_a_lost_connection() -> None:
    def fail() -> None:
        raise RuntimeError("write: Broken pipe")

    link = Link("ur5e", "127.0.0.1", time.monotonic_ns)
    for call in (link.within, link.do):
        with pytest.raises(TransportLost, match=r"the controller at 127\.0\.0\.1 has gone: write: Broken pipe"):
            call(fail)
    with pytest.raises(TransportLost, match="not connected; disconnect and connect again"):
        link.there()
    with pytest.raises(TransportLost, match="dashboard: 'robotmode': not connected"):
        link.ask("robotmode")


def test_a_controller_that_accepts_and_says_nothing_is_lost_before_a_client_of_the_library_meets_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such a client would wait for ever, and the whole process with it."""
    clients: list[str] = []
    for module, client in (("rtde_receive", "RTDEReceiveInterface"), ("dashboard_client", "DashboardClient")):
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{client: lambda *_, client=client: clients.append(client)}))
    host = f"127.78.{os.getpid() % 200 + 1}.{os.getpid() // 200 % 200 + 1}"
    lost = pytest.raises(TransportLost, match=rf"no controller at {host} in 3 tries: timed out")
    with socket.create_server((host, 29999)), socket.create_server((host, 30004)), lost:
        Link("ur5e", host, time.monotonic_ns).open(0.01)
    assert clients == []


def test_without_the_library_its_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rtde_receive", None)
    with pytest.raises(MissingDependency, match=r"pip install 'robolearn\[ur\]'"):
        ur5e.make(ur5e.Config()).connect()


def test_a_wrong_configuration_says_what_is_wanted() -> None:
    with pytest.raises(ConfigError, match=r"lookahead_s of 0.03 to 0.2 and gain of 100 to 2000, got 0.5 s and 300"):
        ur5e.Config(lookahead_s=0.5)
    for limits, line in (
        ({"lower": (0.0,) * 5}, "want as many lower as upper limits"),
        ({"upper": (math.inf,) * 6}, "limits, finite, each below its other"),
        ({"lower": (-1.0,) * 5, "upper": (1.0,) * 5}, "want 6 limits"),
    ):
        with pytest.raises(ConfigError, match=line):
            ur5e.Config(**limits)
    with pytest.raises(ConfigError, match="rates, speeds and times above 0"):
        ur5e.Config(watchdog_s=0.0)


@settings(max_examples=30)
@given(st.integers(-(10**12), 10**12), st.lists(st.integers(0, 5_000_000), min_size=1, max_size=60))
def test_a_sample_never_comes_before_it_was_sent(offset_ns: int, delays_ns: list[int]) -> None:
    """Packets every 2 ms, each late by its own delay: the mapped time is the sent one plus the smallest delay so far."""
    envelope = Envelope()
    for k, delay in enumerate(delays_ns):
        sent = k * 2_000_000
        ours = envelope.local_ns(sent, sent + offset_ns + delay)
        assert ours == sent + offset_ns + min(delays_ns[: k + 1])


def test_an_old_packet_is_forgotten_as_clocks_drift() -> None:
    envelope = Envelope(window_ns=4_000_000_000)
    assert envelope.local_ns(0, 1_000) == 1_000
    assert envelope.local_ns(10_000_000_000, 10_000_000_500) == 10_000_000_500
    assert envelope.local_ns(20_000_000_000, 20_000_900_000) == 20_000_900_000
