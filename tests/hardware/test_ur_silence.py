"""A controller that falls silent just as a client of ur_rtde is made stops the whole driver process; its parent ends it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import pytest

from hardware._errors import DriverEnded, TransportLost
from hardware._host import Hosted
from hardware._ring import new_run
from hardware.robots import ur5e
from tests.hardware import hosted

pytest.importorskip("rtde_receive", reason="ur_rtde is not installed: pip install 'robolearn[ur]'")
PATIENCE_S = 30.0  # shared cores stall


@dataclass
class Silent:
    """A controller that answers the first connection to each port and takes the others without a word; met: one came to RTDE."""

    host: str
    met: threading.Event = field(default_factory=threading.Event)
    kept: list[socket.socket] = field(default_factory=list)

    def serve(self, server: socket.socket) -> None:
        first = True
        while True:
            try:
                here, _ = server.accept()
            except OSError:
                return
            self.kept.append(here)
            if first:
                here.sendall(b"Connected\n")
            elif server.getsockname()[1] == 30004:
                self.met.set()
            first = False


@pytest.fixture
def silent() -> Iterator[Silent]:
    controller = Silent(f"127.79.{os.getpid() % 200 + 1}.{os.getpid() // 200 % 200 + 1}")
    servers = [socket.create_server((controller.host, port)) for port in (29999, 30004)]
    for server in servers:
        threading.Thread(target=controller.serve, args=(server,), daemon=True).start()
    yield controller
    for one in (*servers, *controller.kept):
        one.close()


def test_a_driver_that_the_library_froze_is_found_out_and_killed_within_its_time_limits(silent: Silent) -> None:
    arm = Hosted("ur5e", partial(ur5e.make, ur5e.Config(host=silent.host)), hosted.make_guard, new_run())
    try:
        with pytest.raises(TransportLost, match=r"^ur5e: connect: its driver process does not answer in 0\.05 s"):
            arm.connect(timeout_s=0.05)
        assert silent.met.wait(PATIENCE_S), "the library's client is being made"
        time.sleep(0.1)
        with pytest.raises(TransportLost, match="health: its driver process does not answer"):
            arm.health(timeout_s=0.05)
    finally:
        said = arm.close(timeout_s=0.1)
    assert said[-1] == "ur5e: its driver process had to be killed" and not arm.alive
    with pytest.raises(DriverEnded, match=r"exit code -9"):
        arm.read()
