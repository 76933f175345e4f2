"""The queue between the control loop and the recorder: in order, whole, bounded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn.data._ring import Receiver, Sender, new_memory

ROOT = Path(__file__).resolve().parents[2]


def ring(size: int) -> tuple[Sender, Receiver]:
    memory = new_memory(size)
    inner, outer = os.pipe()
    return Sender(memory, outer), Receiver(memory, inner)


def header(values: np.ndarray) -> bytes:
    return json.dumps({"kind": "row", "arrays": [[values.dtype.str, list(values.shape)]]}).encode()


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 300), st.booleans()), max_size=60))
def test_messages_arrive_whole_and_in_order_or_are_refused_at_once(plan: list[tuple[int, bool]]) -> None:
    sender, receiver = ring(1000)
    sent: list[np.ndarray] = []
    for number, (size, take) in enumerate(plan):
        values = np.full(size, number % 251, np.uint8)
        if sender.send(header(values), [values]):
            sent.append(values)
        else:
            assert sender.free < size + 100
        while take and sent:
            message = receiver.receive(0.0)
            assert message is not None
            np.testing.assert_array_equal(message[1][0], sent.pop(0))
    while sent:
        message = receiver.receive(0.0)
        assert message is not None
        np.testing.assert_array_equal(message[1][0], sent.pop(0))
    assert receiver.receive(0.0) is None and sender.used == 0


def test_a_message_is_found_even_when_the_pipe_had_no_room_for_its_mark() -> None:
    sender, receiver = ring(1 << 20)
    count = 0
    while count < 9000:  # a pipe holds 8,192 marks
        assert sender.send(b'{"kind": "x"}')
        count += 1
    for _ in range(count):
        assert receiver.receive(0.1) is not None
    assert receiver.receive(0.0) is None


def test_a_sender_that_is_gone_is_noticed_after_everything_was_read() -> None:
    memory = new_memory(1000)
    inner, outer = os.pipe()
    sender, receiver = Sender(memory, outer), Receiver(memory, inner)
    sender.send(b'{"kind": "last"}')
    os.close(outer)
    message = receiver.receive(0.1)
    assert message is not None and message[0]["kind"] == "last" and not receiver.closed
    assert receiver.receive(0.1) is None and receiver.closed


def test_the_room_that_is_left_is_never_misread_while_the_other_side_takes_messages() -> None:
    memory = new_memory(1 << 16)
    inner, outer = os.pipe()
    code = (
        "import sys\nfrom robolearn.data._ring import Receiver\n"
        "receiver, count = Receiver(int(sys.argv[1]), int(sys.argv[2])), 0\n"
        "while not receiver.closed: count += receiver.receive(0.5) is not None\n"
        "print(count)\n"
    )
    command = [sys.executable, "-c", code, str(memory), str(inner)]
    other = subprocess.Popen(command, pass_fds=(memory, inner), stdout=subprocess.PIPE, cwd=ROOT)
    os.close(inner)
    sender, message = Sender(memory, outer), header(np.zeros(0, np.uint8))
    for _ in range(30_000):
        while (used := sender.used) > 1 << 15:
            assert used <= 1 << 16
        assert sender.send(message), f"refused with {sender.free} bytes free"
    os.close(outer)
    assert other.communicate(timeout=60)[0] == b"30000\n"
