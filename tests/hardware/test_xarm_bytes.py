"""The bytes of the emulated xArm control box, without the SDK."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.emulators import xarm as emulator
from hardware.emulators._plants import FirstOrder


def frame(function: int, data: bytes = b"", transaction: int = 1) -> bytes:
    return struct.pack(">3HB", transaction, 2, 1 + len(data), function) + data


def box() -> emulator.Box:
    return emulator.Box(FirstOrder([0.0] * 7))


def test_frames_are_the_vendors() -> None:
    answer = box().answer(bytes.fromhex("0001 0002 0001 01"))
    assert answer[:8] == bytes.fromhex("0001 0002 002a 01 10")  # 40 bytes of version; not ready before it is enabled
    assert answer[8:].rstrip(b"\0") == b"7,7,XI1304EMULATED,AC1300,v2.5.0" and len(answer) == 48
    assert box().answer(bytes.fromhex("0000 0001 0002 0000")) == b""  # a heartbeat
    assert box().answer(bytes.fromhex("0007 0003 0001 fa")) == bytes.fromhex("0007 0003 0002 fa 18")  # no such function


def test_a_goal_is_followed_in_its_mode_only_and_seen_always() -> None:
    it = box()
    goal = struct.pack("<7f", 0.25, 0, 0, 0, 0, 0, 0) + bytes(12)
    assert it.answer(frame(emulator.SERVO_JOINT, goal))[7] == emulator.NOT_READY
    for function, data in ((emulator.MOTION_ENABLE, b"\x08\x01"), (emulator.MODE, b"\x01"), (emulator.SET_STATE, b"\x00")):
        it.answer(frame(function, data))
    assert it.answer(frame(emulator.MOVE_JOINT, goal))[7] == 0  # taken, in the wrong mode
    it.advance(1.0)
    assert struct.unpack("<7f", it.answer(frame(emulator.JOINTS))[8:])[0] == 0.0
    it.answer(frame(emulator.SERVO_JOINT, goal))
    it.answer(frame(emulator.SERVO_JOINT, struct.pack("<7f", *(float("nan"),) * 7)))
    it.advance(1.0)
    assert struct.unpack("<21f", it.answer(frame(emulator.JOINTS, b"\x03"))[8:])[0] == pytest.approx(0.25)
    goals = it.stats()["goals"]
    assert (goals["count"], goals["non_finite"], goals["max"]) == (4, 1, 0.25)


def test_a_change_of_mode_stops_the_arm_until_it_is_started() -> None:
    it = box()
    for function, data in ((emulator.MOTION_ENABLE, b"\x08\x01"), (emulator.SET_STATE, b"\x00")):
        it.answer(frame(function, data))
    assert it.answer(frame(emulator.GET_STATE))[8] == emulator.RESTING
    assert it.answer(frame(emulator.MODE, b"\x01"))[7] == emulator.NOT_READY
    assert it.answer(frame(emulator.GET_STATE))[8] == emulator.MODE_CHANGED == 5
    it.answer(frame(emulator.SET_STATE, b"\x00"))
    assert it.answer(frame(emulator.GET_STATE))[7:] == bytes([0, emulator.RESTING])


def test_an_error_shows_in_every_answer_and_stops_the_arm() -> None:
    it = box()
    it.fail(31)
    assert it.answer(frame(emulator.GET_STATE))[7:] == bytes([emulator.HAS_ERROR | emulator.NOT_READY, emulator.STOPPED])
    assert it.answer(frame(emulator.ERROR))[8:] == b"\x1f\x00"
    assert it.answer(frame(emulator.CLEAR_ERROR))[7] == emulator.NOT_READY


def test_reports_have_the_vendors_lengths() -> None:
    it = box()
    for port, size in ((30001, 145), (30002, 252), (30003, 87)):
        report = it.report(port)
        assert len(report) == size == struct.unpack(">I", report[:4])[0]


@settings(max_examples=30)
@given(st.lists(st.integers(1, 20), max_size=12))
def test_answers_do_not_depend_on_how_the_stream_is_cut(cuts: list[int]) -> None:
    stream = b"".join(frame(function, transaction=function) for function in (1, 13, 15, 42)) + emulator.HEARTBEAT + b"\0\0"
    stream += frame(14, transaction=9)
    whole = emulator.Control(box(), lambda answer: answer).feed(stream)
    talk, answers, at = emulator.Control(box(), lambda answer: answer), b"", 0
    for cut in [*cuts, len(stream)]:
        answers += talk.feed(stream[at : at + cut])
        at += cut
    assert answers == whole and whole.endswith(struct.pack(">3H", 9, 2, 4) + bytes([14, 0x10, 0, 0]))
