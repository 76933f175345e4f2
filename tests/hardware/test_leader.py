"""The leader arm's driver on servos that are none, and the vendor's package replaced by one that answers from a table."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.devices import leader
from hardware.devices.leader import MISSES, TICKS, Config, Dynamixel
from robolearn.errors import ConfigError, HardwareError, MissingDependency

TURN = 2 * np.pi


def test_servos_at_their_offsets_are_joints_at_zero() -> None:
    device, _ = leader.fake(Config())
    device.connect()
    np.testing.assert_allclose(device.read()[0].joints, np.zeros(7), atol=1e-12)


def test_signs_turn_joints_over() -> None:
    device, feed = leader.fake(Config(signs=(1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0)))
    device.connect()
    feed.ticks = [TICKS // 2 + 512] * 7
    np.testing.assert_allclose(device.read()[0].joints, np.array([1, -1, 1, -1, 1, -1, 1]) * TURN / 8)


@given(st.lists(st.integers(-2000, 2000), min_size=1, max_size=40))
def test_a_joint_that_passes_the_end_of_a_turn_goes_on_counting(steps: list[int]) -> None:
    """Steps below half a turn: the unwrapped angle is the sum of them, whatever the servo's own turn says."""
    device, feed = leader.fake(Config(ids=(1,)))
    device.connect()
    device.read()
    for step in steps:
        feed.ticks[0] += step
        (sample,) = device.read()
        assert sample.joints is not None
        np.testing.assert_allclose(sample.joints, [(feed.ticks[0] - TICKS // 2) * TURN / TICKS], atol=1e-9)


@given(
    st.lists(st.floats(-1.5, 1.5), min_size=3, max_size=3),
    st.lists(st.sampled_from((-1.0, 1.0)), min_size=3, max_size=3),
    st.lists(st.integers(0, 3), min_size=3, max_size=3),
)
def test_offsets_found_in_a_known_pose_give_that_pose_back(joints: list[float], signs: list[float], quarters: list[int]) -> None:
    angles = np.array(signs) * joints + np.array(quarters) * np.pi / 2
    ticks = np.round(angles * TICKS / TURN).astype(int)
    offsets = leader.offsets_at(ticks.tolist(), np.array(joints) + 0.1, signs)  # a pose held by hand is never exact
    device, feed = leader.fake(Config(ids=(1, 2, 3), signs=tuple(signs), offsets=offsets))
    device.connect()
    feed.ticks = ticks.tolist()
    np.testing.assert_allclose(device.read()[0].joints, joints, atol=TURN / TICKS)


def test_the_trigger_closes_the_gripper_from_open_to_closed() -> None:
    device, feed = leader.fake(Config(ids=(1,), gripper_id=9, gripper_open=0.0, gripper_closed=TURN / 4))
    device.connect()
    grips = []
    for ticks in (-100, 0, TICKS // 8, TICKS // 4, TICKS // 3):
        feed.ticks[1] = ticks
        grips.append(device.read()[0].grip)
    np.testing.assert_allclose(np.array(grips, float), (0, 0, 0.5, 1, 1))


def test_a_trigger_may_be_the_deadman_and_closes_with_the_rest_of_its_way() -> None:
    device, feed = leader.fake(Config(ids=(1,), gripper_id=9, gripper_closed=TURN / 4, deadman_at=0.2))
    device.connect()
    said = []
    for share in (0.0, 0.1, 0.25, 0.6, 1.0):
        feed.ticks[1] = round(share * TICKS / 4)
        (sample,) = device.read()
        said.append((sample.deadman, round(sample.grip or 0.0, 3)))
    assert device.deadman and said == [(False, 0.0), (False, 0.0), (True, 0.062), (True, 0.5), (True, 1.0)]


def test_a_lost_answer_gives_no_sample_and_ten_in_a_row_are_a_lost_bus() -> None:
    device, feed = leader.fake(Config())
    device.connect()
    feed.silent = True
    assert [device.read() for _ in range(MISSES - 1)] == [()] * (MISSES - 1)
    with pytest.raises(HardwareError, match="without an answer"):
        device.read()


def test_answers_in_between_keep_the_bus() -> None:
    device, feed = leader.fake(Config())
    device.connect()
    for k in range(4 * MISSES):
        feed.silent = k % MISSES != 0
        assert len(device.read()) == int(not feed.silent)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"signs": (1.0, -1.0)}, "want 7 numbers"),
        ({"signs": (2.0,) * 7}, "want 1 or -1"),
        ({"ids": (1, 1)}, "different servos"),
        ({"deadman_at": 0.2}, "gripper_id"),
        ({"gripper_open": 0.7}, "same angle"),
    ],
)
def test_a_config_that_cannot_be_is_refused_by_name(wrong: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Config(**wrong)


def vendor(positions: dict[int, int], opens: bool = True) -> SimpleNamespace:
    """A stand-in of dynamixel_sdk: the servos of `positions` answer with these unsigned values."""

    class PortHandler:
        def __init__(self, name: str) -> None:
            self.name = name

        def openPort(self) -> bool:
            return opens

        def setBaudRate(self, baud: int) -> bool:
            return baud > 0

        def closePort(self) -> None: ...

    class PacketHandler:
        def __init__(self, protocol: float) -> None:
            assert protocol == 2.0

        def write1ByteTxRx(self, port: object, servo: int, address: int, value: int) -> tuple[int, int]:
            assert (address, value) == (64, 0), "a leader is moved by hand: its torque is off"
            return (0, 0) if servo in positions else (-3001, 0)

    class GroupSyncRead:
        def __init__(self, port: object, packets: object, address: int, size: int) -> None:
            self.asked: list[int] = []

        def addParam(self, servo: int) -> bool:
            self.asked.append(servo)
            return True

        def txRxPacket(self) -> int:
            return 0

        def isAvailable(self, servo: int, address: int, size: int) -> bool:
            return servo in positions

        def getData(self, servo: int, address: int, size: int) -> int:
            return positions[servo]

    return SimpleNamespace(PortHandler=PortHandler, PacketHandler=PacketHandler, GroupSyncRead=GroupSyncRead)


def test_positions_below_zero_come_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dynamixel_sdk", vendor({1: 2048, 2: (1 << 32) - 5}))
    bus = Dynamixel("port", 57600, (1, 2))
    bus.open()
    assert bus.read() == [2048, -5]
    bus.close()


def test_a_servo_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dynamixel_sdk", vendor({1: 0, 2: 0}))
    with pytest.raises(HardwareError, match="servo 3 on port does not answer"):
        Dynamixel("port", 57600, (1, 2, 3)).open()


def test_a_port_that_does_not_open_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dynamixel_sdk", vendor({}, opens=False))
    with pytest.raises(HardwareError, match="port cannot be opened at 57600"):
        Dynamixel("port", 57600, (1,)).open()


def test_without_the_vendors_package_the_line_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dynamixel_sdk", None)
    with pytest.raises(MissingDependency, match=r"robolearn\[dynamixel\]"):
        leader.make(Config()).connect()
