"""The SpaceMouse driver on reports as the device sends them; never on a real one."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hardware.devices import spacemouse
from hardware.devices.spacemouse import Config
from robolearn.errors import ConfigError, HardwareError, MissingDependency

GOLDEN = (  # device axis, what a person does with the cap -> sample axis and sign
    ((0, -350, 0, 0, 0, 0), 0, 1.0),  # push away from the user: forward
    ((-350, 0, 0, 0, 0, 0), 1, 1.0),  # push left
    ((0, 0, -350, 0, 0, 0), 2, 1.0),  # pull up
    ((0, 0, 0, 0, -350, 0), 3, 1.0),
    ((0, 0, 0, -350, 0, 0), 4, 1.0),
    ((0, 0, 0, 0, 0, -350), 5, 1.0),
)


@pytest.mark.parametrize("axes, axis, sign", GOLDEN)
def test_each_axis_of_the_cap_is_one_axis_of_the_sample(axes: tuple[int, ...], axis: int, sign: float) -> None:
    device, feed = spacemouse.fake(Config())
    device.connect()
    feed.push(*axes)
    (sample,) = device.read()
    np.testing.assert_array_equal(sample.delta, sign * np.eye(6)[axis])


def test_the_axis_map_is_a_rotation_so_turns_map_as_translations_do() -> None:
    axes = spacemouse.FORWARD_LEFT_UP
    np.testing.assert_array_equal(axes @ axes.T, np.eye(3))
    assert np.linalg.det(axes) == pytest.approx(1.0)


def test_split_reports_give_what_a_whole_one_gives() -> None:
    values = (10, -200, 90, 350, -350, 7)
    whole, _ = spacemouse.parse(struct.pack("<B6h", 1, *values), np.zeros(6))
    split, _ = spacemouse.parse(struct.pack("<B3h", 1, *values[:3]), np.zeros(6))
    split, _ = spacemouse.parse(struct.pack("<B3h", 2, *values[3:]), split)
    padded, _ = spacemouse.parse(struct.pack("<B3h", 2, *values[3:]) + bytes(9), split)
    np.testing.assert_array_equal(whole, split)
    np.testing.assert_array_equal(whole, padded)
    np.testing.assert_allclose(whole, np.array(values) / 350)


@pytest.mark.parametrize("report", [b"", b"\x01", b"\x01\x02\x03", b"\x17" + bytes(12), b"\x03"])
def test_a_report_that_is_cut_off_or_of_another_kind_changes_nothing(report: bytes) -> None:
    before = np.full(6, 0.25)
    after, buttons = spacemouse.parse(report, before)
    np.testing.assert_array_equal(after, before)
    assert buttons is None


def test_a_value_beyond_the_stop_is_the_stop() -> None:
    after, _ = spacemouse.parse(struct.pack("<B6h", 1, 32767, -32768, 0, 0, 0, 0), np.zeros(6))
    np.testing.assert_array_equal(after, (1, -1, 0, 0, 0, 0))


def test_the_left_button_turns_the_gripper_over_once_a_press() -> None:
    device, feed = spacemouse.fake(Config())
    device.connect()
    events = []
    for bits in (1, 1, 0, 1):
        feed.press(bits)
        events += [event for sample in device.read() for event in sample.events]
    assert events == ["toggle_grip"] * 2


def test_a_press_and_its_release_between_two_reads_are_not_lost() -> None:
    device, feed = spacemouse.fake(Config())
    device.connect()
    feed.press(1)
    feed.press(0)
    assert device.read()[0].events == ("toggle_grip",)


def test_without_a_deadman_button_the_samples_have_none() -> None:
    device, feed = spacemouse.fake(Config())
    device.connect()
    feed.push(0, -100, 0, 0, 0, 0)
    assert not device.deadman and device.read()[0].deadman is None


def test_a_held_deadman_is_said_at_every_read_and_its_release_once() -> None:
    device, feed = spacemouse.fake(Config(deadman_button=1))
    device.connect()
    feed.press(2)
    assert [sample.deadman for _ in range(3) for sample in device.read()] == [True] * 3
    feed.press(0)
    assert [sample.deadman for _ in range(3) for sample in device.read()] == [False]


def test_a_cap_that_falls_silent_while_moved_is_at_rest_and_says_so_once() -> None:
    device, feed = spacemouse.fake(Config())
    device.connect()
    feed.push(0, -350, 0, 0, 0, 0)
    assert device.read()[0].delta[0] == 1.0
    feed.now_s += 0.05
    assert device.read()[0].delta[0] == 1.0
    feed.now_s += 0.06
    (rest,) = device.read()
    assert not rest.delta.any()
    assert device.read() == ()


def test_unplugging_is_one_line_and_the_device_can_be_connected_again() -> None:
    device, feed = spacemouse.fake(Config())
    device.connect()
    feed.gone = True
    with pytest.raises(HardwareError, match="spacemouse: it is gone"):
        device.read()
    assert device.read() == ()
    feed.gone = False
    device.connect()
    feed.push(0, -350, 0, 0, 0, 0)
    assert device.read()[0].delta[0] == 1.0


def test_one_button_cannot_be_gripper_and_deadman() -> None:
    with pytest.raises(ConfigError, match="both gripper and dead-man"):
        Config(gripper_button=1, deadman_button=1)


class Opened:
    def __init__(self, permitted: bool) -> None:
        self.permitted, self.path, self.waits = permitted, b"", True

    def open_path(self, path: bytes) -> None:
        if not self.permitted:
            raise OSError("open failed")
        self.path = path

    def set_nonblocking(self, on: bool) -> None:
        self.waits = not on


def library(entries: list[tuple[int, int, str]], permitted: bool = True) -> Any:
    listed = [
        {"vendor_id": vendor, "product_id": product, "serial_number": serial, "path": serial.encode()}
        for vendor, product, serial in entries
    ]
    return SimpleNamespace(enumerate=lambda: listed, device=lambda: Opened(permitted))


def test_a_logitech_mouse_is_not_taken_for_a_spacemouse() -> None:
    with pytest.raises(HardwareError, match="found none"):
        spacemouse.open_first(library([(0x046D, 0xC077, "mouse")]), "")
    opened = spacemouse.open_first(library([(0x046D, 0xC077, "mouse"), (0x046D, 0xC626, "cap")]), "")
    assert isinstance(opened, Opened) and opened.path == b"cap" and not opened.waits


def test_a_serial_number_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(HardwareError, match="serial C, found A, B"):
        spacemouse.open_first(library([(0x256F, 0xC635, "A"), (0x256F, 0xC635, "B")]), "C")


def test_a_device_that_may_not_be_opened_says_the_udev_rule() -> None:
    with pytest.raises(HardwareError, match=r'ATTRS\{idVendor\}=="256f"'):
        spacemouse.open_first(library([(0x256F, 0xC635, "A")], permitted=False), "")


def test_the_other_package_called_hid_is_refused_by_the_right_ones_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "hid", SimpleNamespace())
    with pytest.raises(MissingDependency, match="hidapi"):
        spacemouse.make(Config()).connect()
