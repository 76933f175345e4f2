"""What every input device keeps, checked on its real driver over a fake transport; a new device is tested by being there."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import pytest

from hardware._base import Device, device_module, device_names, make_device
from robolearn.core import OPERATOR_EVENTS
from robolearn.errors import ConfigError

NAMES = device_names()
SHAPES = {"pose": (4, 4), "delta": (6,), "keypoints": (3, 3)}


def played(name: str, times: int = 12) -> tuple[Device, list]:
    module = device_module(name)
    device, feed = module.fake(module.Config())
    device.connect()
    samples = list(device.read())
    for _ in range(times):
        feed.play()
        samples += device.read()
    return device, samples


@pytest.mark.parametrize("name", NAMES)
def test_a_device_gives_at_least_three_different_samples_of_its_kind(name: str) -> None:
    device, samples = played(name)
    device.close()
    assert isinstance(device, Device)
    values = [getattr(sample, device.kind) for sample in samples]
    assert all(value is not None for value in values), "a sample without what the device's kind promises"
    if device.kind in SHAPES:
        assert {value.shape for value in values} == {SHAPES[device.kind]}
    assert all(np.isfinite(value).all() for value in values)
    assert len({value.tobytes() for value in values}) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_what_a_sample_says_is_within_the_vocabulary(name: str) -> None:
    device, samples = played(name)
    device.close()
    for sample in samples:
        assert 0 <= sample.arm < device.arms
        assert sample.deadman is not None or not device.deadman, "where there is a dead-man, each sample says whether it is held"
        assert sample.grip is None or 0.0 <= sample.grip <= 1.0
        assert 0.0 <= sample.confidence <= 1.0
        assert set(sample.events) <= {*OPERATOR_EVENTS, "toggle_grip"}
        if sample.delta is not None:
            assert np.abs(sample.delta).max() <= 1.0
        if sample.pose is not None:
            np.testing.assert_allclose(sample.pose[:3, :3] @ sample.pose[:3, :3].T, np.eye(3), atol=1e-9)
            assert np.linalg.det(sample.pose[:3, :3]) > 0
            np.testing.assert_array_equal(sample.pose[3], (0, 0, 0, 1))


@pytest.mark.parametrize("name", NAMES)
def test_samples_come_oldest_first_and_are_received_after_they_were_measured(name: str) -> None:
    device, samples = played(name)
    device.close()
    for arm in range(device.arms):
        times = [(sample.t_dev_ns, sample.t_recv_ns) for sample in samples if sample.arm == arm]
        assert times == sorted(times)
        assert all(measured <= received for measured, received in times)


@pytest.mark.parametrize("name", NAMES)
def test_samples_share_no_memory(name: str) -> None:
    device, samples = played(name)
    device.close()
    values = [getattr(sample, device.kind) for sample in samples]
    assert not any(np.shares_memory(a, b) for a, b in itertools.pairwise(values))


@pytest.mark.parametrize("name", NAMES)
def test_closing_is_safe_before_connecting_and_twice(name: str) -> None:
    module = device_module(name)
    device, _ = module.fake(module.Config())
    device.close()
    device.connect()
    device.close()
    device.close()
    assert list(device.read()) == []  # and says nothing afterwards


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_setting_is_refused_by_name(name: str) -> None:
    assert dataclasses.is_dataclass(device_module(name).Config)
    with pytest.raises(ConfigError, match="colour"):
        make_device(name, {"colour": "red"})


def test_devices_import_without_a_display_and_without_vendor_libraries() -> None:
    code = (
        "import sys\n"
        "for name in ('hid', 'pygame', 'dynamixel_sdk', 'pynput', 'websockets', 'cryptography', 'mediapipe', 'cv2', 'torch'):\n"
        "    sys.modules[name] = None\n"
        "from hardware._base import device_module, device_names\n"
        "for name in device_names():\n"
        "    device_module(name).fake(device_module(name).Config())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
