"""Keys from a real pseudo-terminal: named, whole, and the terminal is put back whatever happens."""

from __future__ import annotations

import contextlib
import os
import pty
import termios
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.devices._tty import SESSION_KEYS, Keys, split
from hardware.devices.keyboard import MOTIONS, Config, Keyboard
from robolearn.core import OPERATOR_EVENTS
from robolearn.errors import HardwareError


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def test_keys_are_named_and_nothing_is_left(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    with Keys(theirs) as keys:
        assert keys.read() == []
        os.write(ours, b"a\x1b[A\x1b[6~ \r\x7f\x08q\x1bOD")
        assert keys.read() == ["a", "up", "pagedown", "space", "enter", "backspace", "backspace", "q", "left"]
        assert keys.read() == []


def test_a_sequence_that_comes_in_two_pieces_is_one_key_and_a_lone_escape_is_escape(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    now = [0.0]
    with Keys(theirs, clock=lambda: now[0]) as keys:
        os.write(ours, b"\x1b")
        assert keys.read() == []
        os.write(ours, b"[C")
        assert keys.read() == ["right"]
        os.write(ours, b"\x1b")
        assert keys.read() == []
        now[0] += 0.2
        assert keys.read() == ["esc"]


@pytest.mark.parametrize("how", ["ends", "raises"])
def test_the_terminal_is_put_back(terminal: tuple[int, int], how: str) -> None:
    _, theirs = terminal
    before = termios.tcgetattr(theirs)
    with contextlib.suppress(RuntimeError), Keys(theirs):
        assert termios.tcgetattr(theirs)[3] != before[3]
        if how == "raises":
            raise RuntimeError
    assert termios.tcgetattr(theirs) == before


def test_what_is_no_terminal_is_refused_in_one_line(tmp_path: object) -> None:
    read, write = os.pipe()
    with pytest.raises(HardwareError, match="not a terminal"), Keys(read):
        pass
    os.close(read)
    os.close(write)


@given(st.binary(max_size=40), st.integers(0, 40))
def test_bytes_give_the_same_keys_however_they_are_cut(data: bytes, cut: int) -> None:
    whole, rest = split(data, whole=False)
    first, kept = split(data[:cut], whole=False)
    second, kept = split(kept + data[cut:], whole=False)
    assert first + second == whole and kept == rest


def test_motion_keys_and_session_keys_do_not_meet() -> None:
    assert not set(MOTIONS) & set(SESSION_KEYS)
    assert set(SESSION_KEYS.values()) <= set(OPERATOR_EVENTS)


def test_a_press_is_a_deflection_of_150_ms_then_one_sample_of_rest() -> None:
    now, pressed = [1.0], [["up"]]
    board = Keyboard(Config(), source=lambda: pressed.pop() if pressed else [], clock=lambda: now[0])
    first = board.read()
    assert first[0].delta is not None and first[0].delta[0] > 0 and first[0].deadman is None
    now[0] += 0.1
    assert board.read()[0].delta[0] > 0  # type: ignore[index]
    now[0] += 0.1
    assert not board.read()[0].delta.any()  # type: ignore[union-attr]
    assert board.read() == []


def test_the_other_arm_takes_over_and_the_first_is_told_to_rest() -> None:
    pressed = [["left"], ["tab", "left"]]
    board = Keyboard(Config(arms=2), source=lambda: pressed.pop(0) if pressed else [], clock=lambda: 1.0)
    assert [sample.arm for sample in board.read()] == [0]
    rest, moving = board.read()
    assert (rest.arm, moving.arm) == (0, 1)
    assert not rest.delta.any() and moving.delta.any()  # type: ignore[union-attr]
