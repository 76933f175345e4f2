"""The bytes of a Robotiq gripper's manual, and what the driver makes of senseless settings and answers; no wire."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from hardware._base import Setpoint
from hardware._errors import TransportCorrupt, TransportLost, TransportTimeout
from hardware._modbus import Modbus
from hardware.emulators import robotiq
from hardware.emulators._modbus import Conversation, crc16, take
from hardware.emulators.robotiq import Gripper
from hardware.grippers import robotiq_2f
from hardware.grippers.robotiq_2f import STATUS, Config, Robotiq2F, Status, command, make, parse
from robolearn.errors import BadInput, ConfigError, MissingDependency

NOTHING = np.zeros(0)
FRAMES = {  # whole RTU frames of the 2F manual's example of a grip
    "reset": ("09 10 03 E8 00 03 06 00 00 00 00 00 00 73 30", command(0)),
    "activate": ("09 10 03 E8 00 03 06 01 00 00 00 00 00 72 E1", command(0x01)),
    "close": ("09 10 03 E8 00 03 06 09 00 00 FF FF FF 42 29", command(0x09, 255, 1.0, 1.0)),
    "open": ("09 10 03 E8 00 03 06 09 00 00 00 FF FF 72 19", command(0x09, 0, 1.0, 1.0)),
}
STATUSES = {  # three registers, as the manual reads them
    "homing": ("1100 0000 0000", Status(True, False, 1, 0, 0, 0, 0, 0.0)),
    "homed": ("3100 0000 0000", Status(True, False, 3, 0, 0, 0, 0, 0.0)),
    "on its way": ("3900 00FF 0E0A", Status(True, True, 3, 0, 0, 255, 14, 0.10)),
    "gripping": ("B900 00FF BD00", Status(True, True, 3, 2, 0, 255, 189, 0.0)),
    "open": ("F900 0000 0D00", Status(True, True, 3, 3, 0, 0, 13, 0.0)),
    "not activated": ("0000 0700 0000", Status(False, False, 0, 0, 7, 0, 0, 0.0)),
}


@pytest.mark.parametrize("name", FRAMES)
def test_the_manuals_frames_are_what_the_driver_commands(name: str) -> None:
    frame, values = bytes.fromhex(FRAMES[name][0]), FRAMES[name][1]
    assert crc16(frame[:-2]) == frame[-2:]
    assert frame[7:-2] == b"".join(value.to_bytes(2, "big") for value in values)
    unit, pdu = take(bytearray(frame)) or (0, b"")
    answer = bytes([unit]) + Gripper(robotiq.Config(), 0.0).answer(pdu)
    assert answer + crc16(answer) == bytes.fromhex("09 10 03 E8 00 03 01 30")


@pytest.mark.parametrize("name", STATUSES)
def test_the_manuals_status_is_read_bit_by_bit(name: str) -> None:
    assert parse([int(word, 16) for word in STATUSES[name][0].split()]) == STATUSES[name][1]


def test_a_frame_waits_for_its_end_and_a_damaged_one_meets_silence() -> None:
    whole = bytes.fromhex(FRAMES["close"][0])
    for cut in range(len(whole)):
        assert take(bytearray(whole[:cut])) is None
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        assert take(damaged) is None


def test_the_emulated_gripper_names_what_it_cannot_answer() -> None:
    gripper = Gripper(robotiq.Config(), 0.0)
    assert gripper.answer(bytes([5, 0, 0, 0, 0])) == bytes([0x85, 1])
    assert gripper.answer(bytes([4, 0, 0, 0, 3])) == bytes([0x84, 2])
    assert gripper.answer(bytes([16, 7, 0xD0, 0, 1, 2, 9, 0])) == bytes([0x90, 2])
    assert gripper.answer(bytes([4, 7])) == bytes([0x84, 3])


def test_going_before_activation_is_a_fault_that_activation_ends() -> None:
    gripper = Gripper(robotiq.Config(speed=(1.0, 1.0)), 100.0)
    gripper.answer(bytes.fromhex("10 03E8 0003 06 0800 00FF 0000"))
    assert gripper.fault == 7 and gripper.advance(1.0, 100.0) == 100.0
    gripper.answer(bytes.fromhex("10 03E8 0003 06 0900 00FF 0000"))
    position, seen = 100.0, set()
    for _ in range(100):
        position = gripper.advance(0.01, position)
        seen.add(gripper.state)
    assert seen == {1, 3} and gripper.fault == 0 and position == 255.0


def test_tcp_requests_are_answered_however_they_are_cut() -> None:
    gripper = Gripper(robotiq.Config(), 0.0)
    request = bytes.fromhex("45 33 00 00 00 06 09 04 07 D0 00 01")
    talk = Conversation(9, gripper.answer, bytes)
    assert b"".join(talk.feed(request[k : k + 1]) for k in range(len(request))) == bytes.fromhex(
        "45 33 00 00 00 05 09 04 02 00 00"
    )


def test_a_late_answer_to_another_request_is_no_answer() -> None:
    pytest.importorskip("pymodbus")
    wire = Modbus("gripper", "/dev/null", 9, 115200, 0.1, "robotiq")
    late = SimpleNamespace(isError=lambda: False, function_code=16)
    wire._client = SimpleNamespace(read_input_registers=lambda *args, **kwargs: late)
    with pytest.raises(TransportCorrupt, match="want an answer to function 4, got a late one to 16"):
        wire.read(STATUS, 3)
    late.function_code, late.registers = 4, [1, 2]
    with pytest.raises(TransportCorrupt, match="want 3 registers, got 2"):
        wire.read(STATUS, 3)


def test_a_write_that_takes_too_long_is_a_miss_and_no_lost_line() -> None:
    exceptions = pytest.importorskip("pymodbus.exceptions")

    def stuck(*args: object, **kwargs: object) -> None:
        raise exceptions.ConnectionException("write timeout")

    wire = Modbus("gripper", "/dev/null", 9, 115200, 0.1, "robotiq")
    wire._client = SimpleNamespace(read_input_registers=stuck, connected=True)
    with pytest.raises(TransportTimeout, match="no time to send in 100 ms"):
        wire.read(STATUS, 3)
    wire._client = SimpleNamespace(read_input_registers=stuck, connected=False, close=lambda: None)
    with pytest.raises(TransportLost, match="is gone"):
        wire.read(STATUS, 3)


def test_without_pymodbus_the_message_is_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymodbus.client", None)
    with pytest.raises(MissingDependency, match=r"pip install 'robolearn\[robotiq\]'"):
        make(Config()).connect()


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"speed": 1.5}, "speed and force from 0 to 1"),
        ({"open_at": 200, "closed_at": 100}, "open_at < closed_at"),
        ({"opening_m": 0.0}, "opening_m, timeout_s and homing_s above 0"),
        ({"port": "tcp://somewhere"}, "want a serial port or tcp://host:port, got 'tcp://somewhere'"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Config(**wrong)  # type: ignore[arg-type]


def test_the_ends_of_the_fingers_way_are_the_configs() -> None:
    gripper = Robotiq2F(Config(open_at=3, closed_at=228))
    sent: list[list[int]] = []

    def answered(to: int, values: list[int], address: int, count: int) -> list[int]:
        sent.append(values)
        return [0x3900, values[1], values[1] << 8]

    gripper.wire = SimpleNamespace(write_and_read=answered)  # type: ignore[assignment]
    seen = [gripper.exchange(Setpoint(NOTHING, aperture)).aperture for aperture in (1.0, 0.5, 0.0)]
    assert [values[1] for values in sent] == [3, 116, 228]
    assert seen == pytest.approx([1.0, 0.5, 0.0], abs=0.005)


def test_the_emulator_refuses_what_it_has_not() -> None:
    emulator = robotiq.make(robotiq.Config())
    with pytest.raises(BadInput, match="unknown op 'estop'"):
        emulator.control("estop", {})
    with pytest.raises(BadInput, match="corrupt: TCP delivers no damaged bytes"):
        robotiq.make(robotiq.Config(transport="tcp")).control("corrupt", {"p": 0.1})
    with pytest.raises(ConfigError, match="want rtu or tcp"):
        robotiq.Config(transport="udp")
    with pytest.raises(ConfigError, match="want object_m from 0"):
        robotiq.Config(object_m=1.0)


def test_every_fault_of_the_manual_has_a_name() -> None:
    assert sorted(robotiq_2f.FAULTS) == [5, 7, 8, 9, 10, 11, 12, 13, 14, 15]
