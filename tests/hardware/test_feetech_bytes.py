"""Feetech's protocol 0, byte for byte, without a wire: packets, numbers, and what an emulated servo answers."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware import _feetech_wire as wire
from hardware._calibration import homing_offset
from hardware._feetech import FeetechBus
from hardware._feetech_wire import REGISTERS, Packet, Register, decode, encode, pack, take
from hardware.emulators import feetech
from hardware.emulators.feetech import Servo, Servos
from robolearn.errors import BadInput, ConfigError, MissingDependency

HERE, FAST = "00 08 00 00 E8 03", bytes.fromhex("00080000E803")  # goal 2048, time 0, speed 1000
GOLDEN = {  # from the examples of Feetech's protocol manual
    "ping": ("FF FF 01 02 01 FB", Packet(1, wire.PING)),
    "its answer": ("FF FF 01 02 00 FC", Packet(1, 0)),
    "read the position": ("FF FF 01 04 02 38 02 BE", Packet(1, wire.READ, bytes([56, 2]))),
    "its answer, 1304": ("FF FF 01 04 00 18 05 DD", Packet(1, 0, bytes([0x18, 0x05]))),
    "write goal, time and speed": (f"FF FF 01 09 03 2A {HERE} D5", Packet(1, wire.WRITE, b"\x2a" + FAST)),
    "register the same": (f"FF FF 01 09 04 2A {HERE} D4", Packet(1, wire.REG_WRITE, b"\x2a" + FAST)),
    "do what is registered": ("FF FF FE 02 05 FA", Packet(wire.BROADCAST, wire.ACTION)),
    "read two at once": ("FF FF FE 06 82 38 08 01 02 36", Packet(wire.BROADCAST, wire.SYNC_READ, bytes([56, 8, 1, 2]))),
    "write four at once": (
        f"FF FF FE 20 83 2A 06 01 {HERE} 02 {HERE} 03 {HERE} 04 {HERE} 58",
        Packet(wire.BROADCAST, wire.SYNC_WRITE, bytes([42, 6]) + b"".join(bytes([k]) + FAST for k in (1, 2, 3, 4))),
    ),
}
ADDRESSES = {  # of the memory table of the STS series
    "firmware_major": (0, 1), "model": (3, 2), "id": (5, 1), "baud": (6, 1), "return_delay": (7, 1), "response_level": (8, 1),
    "min_position": (9, 2), "max_position": (11, 2), "max_temperature": (13, 1), "max_torque": (16, 2), "phase": (18, 1),
    "p_gain": (21, 1), "d_gain": (22, 1), "i_gain": (23, 1), "protection_current": (28, 2), "homing": (31, 2),
    "operating_mode": (33, 1), "protective_torque": (34, 1), "torque": (40, 1), "acceleration": (41, 1), "goal": (42, 2),
    "goal_time": (44, 2), "goal_velocity": (46, 2), "torque_limit": (48, 2), "lock": (55, 1), "position": (56, 2),
    "velocity": (58, 2), "load": (60, 2), "voltage": (62, 1), "temperature": (63, 1), "alarm": (65, 1), "moving": (66, 1),
    "current": (69, 2),
}  # fmt: skip
SIGNED = [register for register in REGISTERS.values() if register.sign]
packets = st.builds(Packet, st.integers(0, 0xFD), st.integers(0, 0xFF), st.binary(max_size=40))


def said(servos: Servos, servo: int, code: int, params: bytes = b"") -> list[Packet]:
    """Returns what comes back for one instruction."""
    buffer, answers = bytearray(servos.answer(pack(Packet(servo, code, params)))), []
    while (packet := take(buffer)) is not None:
        answers.append(packet)
    return answers


def bus(*ids: int) -> Servos:
    return Servos([Servo(servo, 777, 0, 7.4) for servo in ids])


@pytest.mark.parametrize("name", GOLDEN)
def test_a_packet_is_the_manuals_bytes_and_the_bytes_are_the_packet(name: str) -> None:
    golden, packet = bytes.fromhex(GOLDEN[name][0]), GOLDEN[name][1]
    assert pack(packet) == golden
    assert take(bytearray(golden)) == packet


def test_every_register_lies_where_the_table_says() -> None:
    assert {name: (REGISTERS[name].address, REGISTERS[name].size) for name in ADDRESSES} == ADDRESSES


@settings(max_examples=25)
@given(packets, st.binary(max_size=8).filter(lambda noise: b"\xff" not in noise))
def test_a_packet_is_found_behind_noise_and_nothing_of_it_is_left(packet: Packet, noise: bytes) -> None:
    buffer = bytearray(noise + pack(packet))
    assert take(buffer) == packet and not buffer


@settings(max_examples=25)
@given(packets, st.integers(1, 6))
def test_a_packet_that_is_not_whole_waits_for_the_rest(packet: Packet, missing: int) -> None:
    whole = pack(packet)
    buffer = bytearray(whole[:-missing])
    assert take(buffer) is None
    buffer += whole[-missing:]
    assert take(buffer) == packet


def test_no_single_flipped_bit_passes_for_an_answer_of_the_same_servo_and_length() -> None:
    packet = Packet(3, 0, bytes([0xFF, 0xFF, 0x03, 0x02, 0x12, 0x34]))
    for bit in range(8 * len(pack(packet))):
        buffer = bytearray(pack(packet))
        buffer[bit // 8] ^= 1 << bit % 8
        try:
            found = take(buffer)
        except ValueError:
            continue
        assert found is None or found.servo != packet.servo or len(found.params) != len(packet.params), bit


@pytest.mark.parametrize("register", SIGNED, ids=lambda register: str(register.address))
@settings(max_examples=25)
@given(data=st.data())
def test_signed_values_are_sign_and_magnitude_and_come_back(register: Register, data: st.DataObject) -> None:
    limit = (1 << register.sign) - 1
    value = data.draw(st.integers(-limit, limit))
    raw = int.from_bytes(encode(register, value), "little")
    assert raw & limit == abs(value) and raw >> register.sign == (value < 0)
    assert decode(register, encode(register, value)) == value


@pytest.mark.parametrize("name, value", [("goal", 1 << 15), ("goal", -(1 << 15)), ("homing", 2048), ("lock", 256), ("lock", -1)])
def test_a_value_that_does_not_fit_is_refused_with_the_range(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=r"want -?\d+ to \d+, got"):
        encode(REGISTERS[name], value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2048.0, None])
def test_what_is_no_integer_never_becomes_bytes(value: object) -> None:
    with pytest.raises(TypeError):
        encode(REGISTERS["goal"], value)  # type: ignore[arg-type]


def test_the_homing_offset_brings_every_place_of_the_encoder_to_the_middle() -> None:
    for actual in range(wire.TICKS):
        offset = homing_offset(actual, wire.MIDDLE, FeetechBus.homing_sign)
        assert decode(REGISTERS["homing"], encode(REGISTERS["homing"], offset)) == offset
        assert abs((actual - offset) % wire.TICKS - wire.MIDDLE) <= (1 if actual == 0 else 0)


def test_a_sync_read_is_answered_by_each_servo_in_the_order_asked() -> None:
    answers = said(bus(1, 2, 3), wire.BROADCAST, wire.SYNC_READ, bytes([3, 2, 3, 9, 1]))
    assert answers == [Packet(3, 0, b"\x09\x03"), Packet(1, 0, b"\x09\x03")]


def test_a_servo_that_is_not_there_and_a_damaged_packet_meet_silence() -> None:
    servos = bus(1)
    assert said(servos, 2, wire.PING) == []
    assert servos.answer(bytes.fromhex("FF FF 01 02 01 FA")) == b"" and servos.unheard == 1
    assert servos.answer(bytes.fromhex("FF FF 01 02 01 FA FF FF 01 02 01 FB")) == bytes.fromhex("FF FF 01 02 00 FC")


def test_a_locked_eprom_forgets_when_the_supply_is_cut_and_an_open_one_does_not() -> None:
    servos = bus(1)
    for lock, kept in ((1, 0), (0, 9)):
        said(servos, 1, wire.WRITE, bytes([55, lock]))
        said(servos, 1, wire.WRITE, bytes([31, 9, 0]))
        assert servos.servos[1].get("homing") == 9
        servos.servos[1].power_up()
        assert servos.servos[1].get("homing") == kept


def test_a_registered_write_happens_at_the_action_and_once() -> None:
    servos = bus(1, 2)
    for servo in (1, 2):
        said(servos, servo, wire.REG_WRITE, bytes([42, 100, 0]))
    assert servos.servos[2].get("goal") == 0
    assert said(servos, wire.BROADCAST, wire.ACTION) == []
    assert [servo.get("goal") for servo in servos.servos.values()] == [100, 100]
    said(servos, 1, wire.WRITE, bytes([42, 7, 0]))
    said(servos, wire.BROADCAST, wire.ACTION)
    assert servos.servos[1].get("goal") == 7


def test_what_is_measured_cannot_be_written_and_no_answer_comes_at_response_level_0() -> None:
    servos = bus(1)
    servos.servos[1].put("position", 77)
    said(servos, 1, wire.WRITE, bytes([55, 0, 5, 5]))
    assert servos.servos[1].get("position") == 77 and servos.servos[1].get("lock") == 0
    assert said(servos, 1, wire.WRITE, bytes([8, 0])) == []
    assert said(servos, 1, wire.READ, bytes([8, 1])) == [Packet(1, 0, b"\0")]


def test_an_overloaded_servo_says_so_in_every_answer_and_refuses_torque_off() -> None:
    servos = bus(1)
    said(servos, 1, wire.WRITE, bytes([40, 1]))
    servos.servos[1].put("alarm", 32)
    assert said(servos, 1, wire.WRITE, bytes([40, 0])) == [Packet(1, 32)]
    assert servos.servos[1].get("torque") == 1
    servos.servos[1].power_up()
    assert said(servos, 1, wire.READ, bytes([40, 1])) == [Packet(1, 0, b"\0")]


def test_without_pyserial_the_message_is_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(MissingDependency, match=r"pip install 'robolearn\[feetech\]'"):
        FeetechBus("arm", "anywhere").open()


def test_the_emulator_refuses_what_it_has_not() -> None:
    emulator = feetech.make(feetech.Config())
    with pytest.raises(BadInput, match="unknown op 'pstop'"):
        emulator.control("pstop", {})
    with pytest.raises(BadInput, match=r"no servo 9 \(known: 1, 2, 3, 4, 5, 6\)"):
        emulator.control("alarm", {"id": 9, "bits": 1})
    with pytest.raises(BadInput, match="no register x"):
        emulator.control("set", {"id": 1, "name": "x", "value": 1})
    with pytest.raises(ConfigError, match="want different numbers from 0 to 253"):
        feetech.Config(ids=(1, 1))
    with pytest.raises(ConfigError, match="feetech q: want 6 numbers, one for each of ids, got 1"):
        feetech.Config(q=(0.0,))
