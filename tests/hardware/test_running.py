"""An emulator in a process of its own: it says why it does not come up, answers its channel, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hardware.emulators._process import Running
from robolearn.core import Plant
from robolearn.errors import BadInput, HardwareError


def gone(path: Path) -> bool:
    end = time.monotonic() + 20
    while path.exists() and time.monotonic() < end:
        time.sleep(0.01)
    return not path.exists()


def test_it_leaves_no_port_behind() -> None:
    with Running("feetech", {"ids": [1]}) as box:
        port = Path(box.address)
        assert port.exists() and box.control("stats")["goals"]
    assert gone(port.parent)
    box.close()


def test_killed_it_is_named() -> None:
    with Running("feetech", {"ids": [1]}) as box:
        os.kill(box.pid, signal.SIGKILL)
        with pytest.raises(HardwareError, match="emulator: it ended"):
            for _ in range(100):
                box.control("stats")


def test_what_it_has_not_is_refused_and_it_goes_on() -> None:
    with Running("feetech", {"ids": [1]}) as box:
        with pytest.raises(BadInput, match="unknown op 'fly'"):
            box.control("fly")
        assert "goals" in box.control("stats")


class Broken:
    """An emulator with a mistake in it, which is no end of whoever wanted it."""

    joints = ()

    def open(self) -> str:
        return "nowhere"

    def turn(self, timeout_s: float) -> None:
        raise OSError("a mistake")

    def control(self, op: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
        return {}

    def close(self) -> None: ...


def broken(name: str, overrides: dict[str, Any], plant: Plant | None) -> Broken:
    return Broken()


def test_a_mistake_in_an_emulator_is_not_taken_for_the_end_of_the_parent() -> None:
    with Running("broken", make=broken) as box:
        box._process.join(20)
        assert box._process.exitcode == 1
        with pytest.raises(HardwareError, match="emulator: it ended"):
            box.control("stats")


def test_one_that_cannot_begin_says_why_here() -> None:
    with pytest.raises(HardwareError, match="want different numbers from 0 to 253"):
        Running("feetech", {"ids": [1, 1]})
