"""The latency file keeps every device and every joint that was measured, and gives schedules the largest of an arm's joints."""

from __future__ import annotations

from pathlib import Path

import pytest

from robolearn.errors import AlreadyExists, ConfigError
from robolearn.runtime.latency import Latency, LatencyModel
from robolearn.runtime.latency_file import check_free, joints_of, read, write_device


def test_a_latency_file_keeps_every_device_and_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    path = tmp_path / "arm" / "latency.yaml"
    with pytest.raises(ConfigError, match="no such latency file"):
        read(path)
    write_device(path, "arm", Latency(0.001, 0.1), {"gain": 0.9})
    write_device(path, "cam", Latency(0.17), {})
    with pytest.raises(AlreadyExists, match="latency of cam"):
        write_device(path, "cam", Latency(0.2), {})
    write_device(path, "cam", Latency(0.2), {}, overwrite=True)
    assert read(path) == LatencyModel({"arm": Latency(0.001, 0.1), "cam": Latency(0.2)})
    assert "gain: 0.9" in path.read_text() and [file.name for file in path.parent.iterdir()] == ["latency.yaml"]
    path.write_text("devices: {arm: {act: 0.1}}\n")
    with pytest.raises(ConfigError, match=r"latency\.yaml: devices: arm: unknown field 'act'"):
        read(path)


def test_every_joint_is_kept_and_the_arm_has_the_largest_of_them(tmp_path: Path) -> None:
    path = tmp_path / "latency.yaml"
    write_device(path, "cam", Latency(0.17), {})
    assert write_device(path, "arm", Latency(0.001, 0.09), {"gain": 0.9}, joint="elbow") == Latency(0.001, 0.09)
    assert write_device(path, "arm", Latency(0.004, 0.05), {"gain": 0.8}, joint="wrist") == Latency(0.004, 0.09)
    assert read(path) == LatencyModel({"cam": Latency(0.17), "arm": Latency(0.004, 0.09)})
    assert joints_of(path, "arm") == ("elbow", "wrist") and joints_of(path, "cam") == ()
    with pytest.raises(AlreadyExists, match="latency of arm: wrist"):
        write_device(path, "arm", Latency(), {}, joint="wrist")
    assert write_device(path, "arm", Latency(0.002, 0.02), {}, joint="elbow", overwrite=True) == Latency(0.004, 0.05)
    assert "gain: 0.8" in path.read_text()


def test_joints_of_another_arm_are_refused_and_dropped_only_when_told_to(tmp_path: Path) -> None:
    path, emulated, metal = tmp_path / "latency.yaml", {"serial": "A", "emulated": True}, {"serial": "A", "emulated": False}
    write_device(path, "arm", Latency(0.0, 0.5), emulated, joint="elbow")
    check_free(path, "arm", "wrist", emulated)
    with pytest.raises(AlreadyExists, match="latency of arm, elbow of another arm exists"):
        check_free(path, "arm", "wrist", metal)
    assert write_device(path, "arm", Latency(0.0, 0.1), metal, joint="wrist", overwrite=True) == Latency(0.0, 0.1)
    assert joints_of(path, "arm") == ("wrist",)


def test_a_figure_that_is_of_no_joint_stands_for_all_of_them_until_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "latency.yaml"
    write_device(path, "arm", Latency(0.5, 0.5), {"by": "hand"})
    for joint in (None, "", "wrist"):
        with pytest.raises(AlreadyExists, match="latency of arm exists"):
            check_free(path, "arm", joint)
    assert write_device(path, "arm", Latency(0.0, 0.03), {}, joint="wrist", overwrite=True) == Latency(0.0, 0.03)
    check_free(path, "arm", "")
    check_free(path, "arm", "elbow")


def test_a_file_of_one_joint_alone_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "latency.yaml"
    write_device(path, "arm", Latency(0.003, 0.07), {"joint": "wrist", "gain": 0.97})
    assert write_device(path, "arm", Latency(0.001, 0.05), {"joint": "elbow"}, joint="elbow") == Latency(0.003, 0.07)
    assert joints_of(path, "arm") == ("wrist", "elbow") and read(path).of("arm") == Latency(0.003, 0.07)


def test_a_joint_whose_figure_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "latency.yaml"
    path.write_text("devices: {arm: {act_s: 0.1}}\nmeasured: {arm: {joints: {wrist: {act_s: soon}}}}\n")
    with pytest.raises(ConfigError, match=r"latency\.yaml: measured: arm: wrist"):
        write_device(path, "arm", Latency(), {}, joint="elbow")
