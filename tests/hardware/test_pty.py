"""The emulators' serial line, by a clock of our own: answers leave when they are due, and nothing waits for them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import numpy as np
import pytest

from hardware.emulators._base import Faults, make_emulator, one_of
from hardware.emulators._hand import Hand
from hardware.emulators._pty import Wire
from robolearn.errors import BadInput

MS = 1_000_000


class Ends:
    """A wire, what is at its far end, and the time [ns] by which it goes."""

    def __init__(self) -> None:
        self.now, self.faults = 0, Faults()
        self.wire = Wire(self.faults, lambda: self.now)
        self.far = os.open(self.wire.open(), os.O_RDWR | os.O_NONBLOCK)

    def heard(self) -> bytes:
        try:
            return os.read(self.far, 1000)
        except BlockingIOError:
            return b""


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    os.close(made.far)
    made.wire.close()
    made.wire.close()


def test_an_answer_leaves_when_it_is_due_and_what_comes_meanwhile_is_read_at_once(ends: Ends) -> None:
    ends.faults.delay_s = 0.02
    ends.wire.say(b"one")
    ends.now += 5 * MS
    os.write(ends.far, b"next")
    assert ends.wire.read(0.01) == b"next" and ends.heard() == b""
    ends.wire.say(b"two")
    ends.now += 15 * MS
    ends.wire.flush()
    assert ends.heard() == b"one"
    ends.now += 5 * MS
    ends.wire.flush()
    assert ends.heard() == b"two"


def test_an_answer_may_be_due_by_its_bytes_and_keeps_its_place_in_the_row(ends: Ends) -> None:
    ends.wire.say(b"slow ", at_ns=10 * MS)
    ends.wire.say(b"quick")
    assert ends.heard() == b""
    ends.now = 10 * MS
    assert ends.wire.read(0.0) == b"" and ends.heard() == b"slow quick"


def test_waiting_ends_when_an_answer_is_due(ends: Ends) -> None:
    ends.wire.close()
    ends.wire = Wire(ends.faults, time.monotonic_ns)
    path = ends.wire.open()
    os.close(ends.far)
    ends.far = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    ends.wire.say(b"soon", at_ns=time.monotonic_ns() + 10 * MS)
    assert ends.wire.read(60.0) == b"", "else it would take a minute"
    while not (said := ends.heard()):
        ends.wire.read(0.01)
    assert said == b"soon"


def test_what_was_to_be_said_is_gone_with_the_plug(ends: Ends) -> None:
    ends.wire.say(b"never", at_ns=MS)
    ends.wire.unplug()
    ends.wire.replug()
    os.close(ends.far)
    ends.now, ends.far = 2 * MS, os.open(ends.wire.path, os.O_RDWR | os.O_NONBLOCK)
    ends.wire.say(b"new")
    assert ends.heard() == b"new"


def test_a_wire_that_is_not_open_says_so() -> None:
    with pytest.raises(BadInput, match="open it first"):
        Wire(Faults(), lambda: 0).say(b"x")


def test_what_there_is_none_of_is_answered_with_what_there_is() -> None:
    assert one_of({1: "a", 2: "b"}, 2, "servo") == "b"
    with pytest.raises(BadInput, match=r"no servo 3 \(known: 1, 2\)"):
        one_of({1: "a", 2: "b"}, 3, "servo")


@pytest.mark.parametrize("name", ["dynamixel", "feetech"])
def test_every_emulated_bus_names_the_servos_it_has(name: str) -> None:
    with pytest.raises(BadInput, match=r"no servo 7 \(known: 1, 2, 3, 4, 5, 6\)"):
        make_emulator(name, {}).control("alarm", {"id": 7, "bits": 1})


def test_a_hand_leads_the_joints_that_no_servo_holds() -> None:
    hand, at, held = Hand(3), np.array([0.1, 0.2, 0.3]), np.array([True, False, False])
    assert hand.lead(at, held)[1].tolist() == [True, False, False]
    hand.take([1.0, 1.0, None])
    goals, held_now = hand.lead(at, held)
    assert goals.tolist() == [0.1, 1.0, 0.3] and held_now.tolist() == [True, True, False]
    hand.take(None)
    assert hand.lead(at, held)[0].tolist() == at.tolist()
    with pytest.raises(BadInput, match="hand: want 3 angles"):
        hand.take([1.0])
    with pytest.raises(BadInput, match="hand: want 3 angles"):
        hand.take([1.0, float("nan"), None])


@pytest.mark.parametrize("name", ["dynamixel", "feetech"])
def test_a_hand_moves_an_emulated_arm_until_its_torque_comes(name: str) -> None:
    emulator = make_emulator(name, {"ids": [1, 2]})
    emulator.open()

    def moved(seconds: float) -> list[float]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            emulator.turn(0.002)
        return list(emulator.control("stats", {})["q"])

    emulator.control("set", {"hand": [0.05, None]})
    while moved(0.02)[0] < 0.04:
        pass
    assert emulator.control("stats", {})["q"][1] == 0.0
    emulator.control("set", {"hand": None})
    at = emulator.control("stats", {})["q"]
    torque = {"address": 64} if name == "dynamixel" else {"name": "torque"}
    goal = {"address": 116} if name == "dynamixel" else {"name": "goal"}
    emulator.control("set", {"id": 1, "value": 2048 + round(at[0] * 4096 / (2 * np.pi)), **goal})
    emulator.control("set", {"id": 1, "value": 1, **torque})
    emulator.control("set", {"hand": [-0.5, None]})
    assert moved(0.02)[0] == pytest.approx(at[0], abs=0.002)
    emulator.close()
