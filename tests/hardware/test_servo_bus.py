"""What every bus of servos shares: patience, registers and their settings, the port, and the adapter behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hardware import _servo_bus
from hardware._dynamixel import DynamixelBus
from hardware._errors import (
    ConfigMismatch,
    HwError,
    NotReady,
    TransportLost,
    TransportTimeout,
)
from hardware._feetech import FeetechBus
from hardware.emulators._pty import Line
from tests.hardware.toy_bus import ToyBus


def test_what_passes_by_itself_is_tried_again_and_what_does_not_is_not() -> None:
    calls: list[int] = []

    def fails(error: HwError, times: int) -> int:
        calls.append(0)
        if len(calls) <= times:
            raise error
        return len(calls)

    assert _servo_bus.firmly(lambda: fails(TransportTimeout("toy", "late"), 2), tries=3) == 3
    calls.clear()
    with pytest.raises(TransportTimeout):
        _servo_bus.firmly(lambda: fails(TransportTimeout("toy", "late"), 3), tries=3)
    calls.clear()
    with pytest.raises(TransportLost):
        _servo_bus.firmly(lambda: fails(TransportLost("toy", "gone"), 9))
    assert len(calls) == 1


def test_an_adapter_is_known_by_the_name_the_system_gives_its_serial_number(tmp_path: Path) -> None:
    port, links = tmp_path / "ttyUSB0", tmp_path / "by-id"
    port.touch()
    links.mkdir()
    (links / "usb-FTDI_FT4THLXZ-if00").symlink_to(port)
    assert _servo_bus.adapter_serial(str(port), links) == "usb-FTDI_FT4THLXZ-if00"
    assert _servo_bus.adapter_serial(str(tmp_path / "ttyUSB1"), links) == ""
    assert _servo_bus.adapter_serial(str(port), tmp_path / "none") == ""


def test_the_latency_timer_of_an_adapter_is_read_where_it_has_one(tmp_path: Path) -> None:
    (tmp_path / "ttyUSB0").mkdir()
    (tmp_path / "ttyUSB0" / "latency_timer").write_text("16\n")
    assert _servo_bus.latency_timer_ms("/dev/ttyUSB0", tmp_path) == 16
    assert _servo_bus.latency_timer_ms("/dev/ttyACM0", tmp_path) is None


def test_settings_that_differ_are_written_with_the_torque_off_and_no_others() -> None:
    bus = ToyBus(is_open=True)
    bus.table[1].update(torque=1, speed=7)
    changed = _servo_bus.settle(bus, 1, {"homing": 3, "return_delay": 0, "speed": 8}, "toy")
    assert changed == {"return_delay": (250, 0), "speed": (7, 8)}
    assert bus.log == [("torque", 1, 0), ("return_delay", 1, 0), ("speed", 1, 8)]
    assert _servo_bus.settle(bus, 1, {"homing": 3, "return_delay": 0, "speed": 8}, "toy") == {} and len(bus.log) == 3


def test_a_setting_is_known_by_what_it_reads_and_not_by_the_answer_to_its_writing() -> None:
    bus = ToyBus(is_open=True, mute=True)
    bus.table[1]["torque"] = 1
    assert _servo_bus.settle(bus, 1, {"return_delay": 0}, "toy") == {"return_delay": (250, 0)} and bus.table[1]["torque"] == 0
    bus.fixed = {"speed"}
    with pytest.raises(ConfigMismatch, match="toy: servo 1: speed is 10 after 8 was written"):
        _servo_bus.settle(bus, 1, {"speed": 8}, "toy")


def test_bits_have_names_and_one_without_says_its_number() -> None:
    assert _servo_bus.bits_named(0b1000_0101, {1: "voltage", 4: "heat"}) == ("voltage", "heat", "bit 7")
    assert _servo_bus.bits_named(0, {1: "voltage"}) == ()


def test_a_register_that_the_family_has_not_is_not_ready() -> None:
    assert _servo_bus.register("toy", "torque", {"torque": 64}) == 64
    with pytest.raises(NotReady, match="toy: no register 'tork'; did you mean 'torque'"):
        _servo_bus.register("toy", "tork", {"torque": 64})


@pytest.mark.parametrize("make", [DynamixelBus, FeetechBus])
def test_a_port_belongs_to_one_bus_and_a_line_that_nobody_reads_is_no_place_to_wait(make: Any) -> None:
    pytest.importorskip("serial")
    pytest.importorskip("dynamixel_sdk") if make is DynamixelBus else None
    line = Line()
    bus, other = make("toy", line.path), make("other", line.path)
    bus.open()
    with pytest.raises(TransportLost, match=r"other: .* cannot be opened .* close what else uses it"):
        other.open()
    with pytest.raises(TransportTimeout, match=r"toy: .* takes no more packets"):
        for _ in range(100_000):
            bus.goals(range(50), [2048] * 50)
    bus.close()
    other.open()
    other.close()
    line.close()
