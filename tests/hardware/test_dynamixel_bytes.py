"""Dynamixel protocol 2.0 byte by byte, without any vendor's package: the manual's own packets, and what a servo refuses."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware import _dynamixel_registers as ours
from hardware.emulators import _dynamixel_wire as wire
from hardware.emulators._dynamixel_bus import Bus
from hardware.emulators._dynamixel_table import MARK, REGISTERS, Mount, Servo
from hardware.emulators.dynamixel import Config, servos_of
from robolearn.errors import ConfigError

GOAL, TORQUE, WATCHDOG, POSITION = 116, 64, 98, 132
READ, WRITE, REBOOT, SYNC_READ, SYNC_WRITE = 2, 3, 8, 0x82, 0x83


def manual(text: str) -> bytes:
    """Returns the bytes of a packet as the manual prints it, behind the header."""
    return wire.HEADER + bytes.fromhex(text)


OK_1 = manual("01 04 00 55 00 A1 0C")
# Request, answers, and registers (id, address, value) set before: the examples of the e-Manual, models 1030 with firmware 38.
EXAMPLES = {
    "ping": ("01 03 00 01 19 4E", ["01 07 00 55 00 06 04 26 65 5D"], []),
    "broadcast ping": ("FE 03 00 01 31 42", ["01 07 00 55 00 06 04 26 65 5D", "02 07 00 55 00 06 04 26 6F 6D"], []),
    "read": ("01 07 00 02 84 00 04 00 1D 15", ["01 08 00 55 00 A6 00 00 00 8C C0"], [(1, 132, 166)]),
    "write": ("01 09 00 03 74 00 00 02 00 00 CA 89", ["01 04 00 55 00 A1 0C"], []),
    "reg write": ("01 09 00 04 68 00 C8 00 00 00 AE 8E", ["01 04 00 55 00 A1 0C"], []),
    "reboot": ("01 03 00 08 2F 4E", ["01 04 00 55 00 A1 0C"], []),
    "clear": ("01 08 00 10 01 44 58 4C 22 B1 DC", ["01 04 00 55 00 A1 0C"], []),
    "sync read": (
        "FE 09 00 82 84 00 04 00 01 02 CE FA",
        ["01 08 00 55 00 A6 00 00 00 8C C0", "02 08 00 55 00 1F 08 00 00 BA BE"],
        [(1, 132, 166), (2, 132, 2079)],
    ),
    "sync write": ("FE 11 00 83 74 00 04 00 01 96 00 00 00 02 AA 00 00 00 82 87", [], []),
    "bulk read": (
        "FE 0D 00 92 01 90 00 02 00 02 92 00 01 00 1A 05",
        ["01 06 00 55 00 77 00 C3 69", "02 05 00 55 00 24 8B A9"],
        [(1, 144, 119), (2, 146, 36)],
    ),
    "bulk write": ("FE 10 00 93 01 20 00 02 00 A0 00 02 1F 00 01 00 50 B7 68", [], []),
    "fast sync read": (
        "FE 0A 00 8A 84 00 04 00 03 07 04 20 F2",
        ["FE 19 00 55 00 03 A6 00 00 00 84 08 00 07 1F 08 00 00 16 CA 00 04 FF 03 00 00 D1 9E"],
        [(3, 132, 166), (7, 132, 2079), (4, 132, 1023)],
    ),
}  # fmt: skip


def bus(*ids: int) -> Bus:
    return Bus([Servo(number, 1030, 38, Mount(k)) for k, number in enumerate(ids)])


def ask(line: Bus, servo: int, instruction: int, *given: int | bytes) -> tuple[int, bytes]:
    """Returns error byte and data of the one answer."""
    data = b"".join(piece if isinstance(piece, bytes) else piece.to_bytes(2, "little") for piece in given)
    (answer,) = line.answer(wire.packet(servo, instruction, data))
    said = wire.parse(answer)
    assert said.good and said.servo == servo and said.instruction == wire.STATUS
    return said.parameters[0], said.parameters[1:]


def write(line: Bus, servo: int, address: int, value: int) -> int:
    size = REGISTERS[address][1]
    return ask(line, servo, WRITE, address, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))[0]


def read(line: Bus, servo: int, address: int) -> int:
    size = REGISTERS[address][1]
    return int.from_bytes(ask(line, servo, READ, address, size)[1], "little", signed=True)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_of_the_manual_is_answered_byte_by_byte(name: str) -> None:
    request, answers, values = EXAMPLES[name]
    line = bus(*((3, 7, 4) if name.startswith("fast") else (1, 2)))
    for number, address, value in values:
        next(servo for servo in line.servos if servo.id == number).put(address, value)
    packet = manual(request)
    assert wire.parse(packet).good, "the checksum is the manual's"
    assert line.answer(packet) == [manual(answer) for answer in answers]


def test_what_many_are_told_at_once_lands_in_each() -> None:
    line = bus(1, 2)
    line.answer(manual(EXAMPLES["sync write"][0]))
    line.servos[1].put(31, 70)
    line.answer(manual(EXAMPLES["bulk write"][0]))
    assert [read(line, 1, GOAL), read(line, 2, GOAL), read(line, 1, 32), read(line, 2, 31)] == [150, 170, 160, 80]


def test_what_was_registered_happens_at_the_action() -> None:
    line = bus(1)
    line.answer(manual("01 09 00 04 68 00 C8 00 00 00 AE 8E"))
    assert read(line, 1, 104) == 0 and read(line, 1, 69) == 1
    assert line.answer(manual("01 03 00 05 02 CE")) == [OK_1]
    assert read(line, 1, 104) == 200 and read(line, 1, 69) == 0
    assert ask(line, 1, 5)[0] == 2, "nothing is registered any more"


def test_a_goal_that_holds_a_header_is_stuffed_on_the_wire_and_whole_at_the_servo() -> None:
    """A current of -1 before a velocity that begins with FD is such a case (rustypot PR 121)."""
    line = bus(1, 2)
    line.servos[0].table[126:136] = struct.pack("<hii", -1, 0xFD, 2048)
    (answer, _) = line.answer(wire.packet(wire.BROADCAST, SYNC_READ, struct.pack("<HH", 126, 10) + b"\x01\x02"))
    assert answer[5] == 15 and b"\xff\xff\xfd\xfd" in answer[7:] and len(answer) == 22
    assert wire.parse(answer).parameters[1:] == struct.pack("<hii", -1, 0xFD, 2048)
    goal = int.from_bytes(b"\x00\xff\xff\xfd", "little", signed=True)
    line.servos[0].put(11, 4)
    assert write(line, 1, GOAL, goal) == 0 and read(line, 1, GOAL) == goal


@given(st.binary(max_size=40).map(lambda data: data.replace(b"\x07", b"\xff").replace(b"\x08", b"\xfd")))
@settings(max_examples=40)
def test_stuffing_is_undone_and_hides_every_header(data: bytes) -> None:
    stuffed = wire.stuff(data)
    assert wire.unstuff(stuffed) == data and wire.HEADER not in stuffed


@given(st.lists(st.binary(max_size=12), max_size=4), st.integers(1, 9), st.binary(max_size=5).filter(lambda b: 0xFF not in b))
@settings(max_examples=40)
def test_packets_are_found_in_pieces_and_behind_noise(payloads: list[bytes], step: int, noise: bytes) -> None:
    packets = [wire.packet(1, WRITE, payload) for payload in payloads]
    data, stream, found = noise + noise.join(packets), wire.Stream(), []
    for at in range(0, len(data), step):
        found += list(stream.feed(data[at : at + step]))
    assert found == packets


def test_a_flipped_bit_is_told_to_whoever_it_was_meant_for() -> None:
    line = bus(1)
    broken = bytearray(manual("01 07 00 02 84 00 04 00 1D 15"))
    broken[9] ^= 1
    (answer,) = line.answer(bytes(broken))
    assert wire.parse(answer).parameters == b"\x03" and line.counts["crc_errors"] == 1
    broken[4] = 99
    assert line.answer(bytes(broken)) == []


@pytest.mark.parametrize(
    ("address", "data", "error"),
    (
        (0, b"\x01\x00", 7),  # read only
        (132, b"\x00\x00\x00\x00", 7),
        (5, b"\x00", 7),  # no register
        (GOAL, b"\x00\x00", 5),  # half of one
        (TORQUE, b"\x02", 4),
        (WATCHDOG, b"\x80", 4),
        (GOAL, struct.pack("<i", 3000), 6),  # beyond its own limits
        (GOAL, struct.pack("<i", 1000), 6),
        (102, struct.pack("<h", 1800), 6),
        (GOAL, struct.pack("<i", 2100), 0),
    ),
)
def test_a_servo_refuses_with_the_number_of_the_manual(address: int, data: bytes, error: int) -> None:
    line = bus(1)
    assert write(line, 1, 48, 2900) == 0 and write(line, 1, 52, 1200) == 0
    before = bytes(line.servos[0].table)
    assert ask(line, 1, WRITE, address, data)[0] == error
    assert error == 0 or bytes(line.servos[0].table) == before


def test_a_read_beyond_the_table_and_an_unknown_instruction_are_errors() -> None:
    line = bus(1)
    assert ask(line, 1, READ, 140, 20) == (7, b"")
    assert ask(line, 1, READ, 140)[0] == 5
    assert ask(line, 1, 0x77)[0] == 2


def test_settings_are_locked_while_the_torque_is_on() -> None:
    line = bus(1)
    assert write(line, 1, TORQUE, 1) == 0
    assert write(line, 1, 11, 4) == 7 and read(line, 1, 11) == 3
    assert write(line, 1, TORQUE, 0) == 0 and write(line, 1, 11, 4) == 0


def test_a_shut_down_servo_takes_no_torque_until_it_is_rebooted() -> None:
    line = bus(1)
    servo = line.servos[0]
    assert write(line, 1, TORQUE, 1) == 0
    servo.alarm(0x20)
    assert not servo.torque and write(line, 1, TORQUE, 1) == 128 | 1
    assert ask(line, 1, READ, 70, 1) == (128, b"\x20")
    line.reboot_s = 0.1
    assert ask(line, 1, REBOOT)[0] == 128
    assert line.answer(wire.packet(1, 1)) == [], "it is away"
    line.now = 0.2
    assert read(line, 1, 70) == 0 and write(line, 1, TORQUE, 1) == 0


def test_a_reboot_forgets_what_is_not_kept_and_counts_within_a_turn_again() -> None:
    line = bus(1)
    servo = line.servos[0]
    assert write(line, 1, 11, 4) == 0 and write(line, 1, 112, 50) == 0
    servo.measure(10.0, 0.0, 0.0)
    assert read(line, 1, POSITION) == 2048 + round(10 * 4096 / (2 * np.pi))
    ask(line, 1, REBOOT)
    assert read(line, 1, 11) == 4 and read(line, 1, 112) == 0
    assert read(line, 1, POSITION) == read(line, 1, GOAL) == (2048 + round(10 * 4096 / (2 * np.pi))) % 4096


def test_torque_in_position_mode_takes_the_count_back_into_one_turn() -> None:
    line = bus(1, 2)
    for servo, mode in zip(line.servos, (3, 4), strict=True):
        servo.put(11, mode)
        servo.measure(10.0, 0.0, 0.0)
        write(line, servo.id, TORQUE, 1)
    assert read(line, 1, POSITION) == read(line, 2, POSITION) % 4096 != read(line, 2, POSITION)


def test_a_watchdog_trips_in_silence_with_torque_only_and_locks_the_goals() -> None:
    line = bus(1)
    servo = line.servos[0]
    write(line, 1, WATCHDOG, 5)
    servo.watch(9.0)
    assert read(line, 1, WATCHDOG) == 5, "without torque it sleeps"
    line.now = 10.0
    write(line, 1, TORQUE, 1)
    write(line, 1, GOAL, 3000)
    servo.watch(10.09)
    assert read(line, 1, WATCHDOG) == 5
    line.now = 10.05
    line.answer(wire.packet(99, 1))  # whoever it is for, somebody is there
    servo.watch(10.14)
    assert read(line, 1, WATCHDOG) == 5
    servo.watch(10.2)
    assert read(line, 1, WATCHDOG) == -1 and servo.get(GOAL) == servo.get(POSITION) == 0
    assert write(line, 1, GOAL, 2048) == 4 and write(line, 1, WATCHDOG, 5) == 4
    assert write(line, 1, WATCHDOG, 0) == 0 and write(line, 1, GOAL, 2048) == 0


def test_a_shadow_does_what_its_leader_is_told_and_says_nothing() -> None:
    line = bus(2, 3)
    assert write(line, 3, 12, 2) == 0
    assert write(line, 2, GOAL, 1000) == 0  # `ask` wants exactly one answer
    assert read(line, 3, GOAL) == 1000
    line.answer(wire.packet(wire.BROADCAST, SYNC_WRITE, struct.pack("<HHBi", GOAL, 4, 2, 1500)))
    assert read(line, 2, GOAL) == read(line, 3, GOAL) == 1500


def test_a_servo_answers_as_much_as_its_status_level_says() -> None:
    line = bus(1)
    line.servos[0].put(68, 1)
    assert line.answer(wire.packet(1, WRITE, struct.pack("<HB", TORQUE, 1))) == [] and read(line, 1, TORQUE) == 1
    line.servos[0].put(68, 0)
    assert line.answer(wire.packet(1, READ, struct.pack("<HH", TORQUE, 1))) == [] and ask(line, 1, 1)[1] == b"\x06\x04\x26"


def test_the_dead_say_nothing_and_a_fast_read_waits_for_them_in_vain() -> None:
    line = bus(1, 2, 3)
    line.dead.add(2)
    given = struct.pack("<HH", POSITION, 4) + b"\x01\x02\x03"
    assert [answer[4] for answer in line.answer(wire.packet(wire.BROADCAST, SYNC_READ, given))] == [1, 3]
    assert line.answer(wire.packet(wire.BROADCAST, 0x8A, given)) == []


def test_goals_are_taken_down_before_any_check_and_a_cast_nan_is_one() -> None:
    line = bus(1)
    write(line, 1, 48, 3000)
    assert write(line, 1, GOAL, 4000) == 6
    assert write(line, 1, GOAL, -(1 << 31)) == 6
    seen = line.goals.stats()
    assert seen["count"] == 2 and seen["non_finite"] == 1 and seen["max"] == pytest.approx((4000 - 2048) * 2 * np.pi / 4096)
    assert line.counts["writes"] == 1


def test_mounting_homing_and_direction_shift_what_a_servo_reads() -> None:
    config = Config(ids=(1,), zeros=(100,), signs=(-1,), homing=(30,), drive_modes=(1,))
    (servo,) = servos_of(config)
    servo.measure(1.0, 0.5, 0.2)
    servo.switched_on()
    encoder = 100 - round(4096 / (2 * np.pi))
    assert servo.get(POSITION) == -encoder % 4096 + 30
    assert servo.get(128) == round(0.5 * 60 / (0.229 * 2 * np.pi)) and servo.get(126) == 200
    assert servo.angle(servo.get(POSITION)) == pytest.approx(1.0, abs=2e-3)
    assert servo.table[2:6] == MARK


@pytest.mark.parametrize(
    ("change", "said"),
    (
        ({"zeros": (1, 2)}, "dynamixel zeros: want 6 numbers, one for each of ids"),
        ({"ids": (1, 1)}, "dynamixel ids: want different numbers of 0 to 252, got (1, 1)"),
        ({"ids": (253,)}, "want different numbers of 0 to 252"),
    ),
)
def test_servos_that_cannot_be_are_refused(change: dict[str, tuple[int, ...]], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        Config(**change)  # type: ignore[arg-type]
    assert said in str(error.value)


def test_our_two_tables_agree_with_each_other() -> None:
    for name, (address, size, _) in ours.REGISTERS.items():
        assert REGISTERS[address][1] == size, name
    assert int.from_bytes(MARK, "little") == ours.EMULATED


@pytest.mark.skipif(importlib.util.find_spec("dynamixel_easy_sdk") is None, reason="dynamixel-sdk is not installed")
@pytest.mark.parametrize("model", ("xl330_m288", "xm430_w350", "xm540_w270", "xc330_t288"))
def test_our_tables_agree_with_the_vendors(model: str) -> None:
    spec = importlib.util.find_spec("dynamixel_easy_sdk")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "control_table"
    lines = (folder / f"{model}.model").read_text().split("[control table]")[1].splitlines()
    theirs = {int(line.split("\t")[0]): int(line.split("\t")[1]) for line in lines if line[:1].isdigit()}
    for name, (address, size, _) in ours.REGISTERS.items():
        assert theirs[address] == size, name
    numbers = (folder / "dynamixel.model").read_text().splitlines()[1:]
    known = {int(line.split("\t")[0]): line.split("\t")[1].removesuffix(".model") for line in numbers if line.strip()}
    for number, (name, _) in ours.MODELS.items():
        assert known[number] == name.lower().replace("-", "_")
