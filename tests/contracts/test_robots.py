"""What every robot and gripper promises without cable, power or the vendor's library."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hardware._base import GRIPPERS, ROBOTS, Driver, Setpoint, State
from hardware._calibration import ServoCalibration, ServoGripper, ServoJoint, save
from hardware._errors import HwError, NotReady
from hardware._life import Attended
from hardware.emulators._base import emulator_names, make_emulator
from robolearn import registry
from robolearn.errors import ConfigError, HardwareError, MissingDependency

DRIVERS = [(package, name) for package in (ROBOTS, GRIPPERS) for name in registry.names(package)]
NOWHERE: dict[str, dict[str, Any]] = {
    "koch": {"port": "/dev/robolearn-no-such-port"},
    "viperx": {"port": "/dev/robolearn-no-such-port"},
    "so101": {"port": "/dev/robolearn-no-such-port"},
    "robotiq_2f": {"port": "/dev/robolearn-no-such-port"},
    "ur5e": {"host": "127.250.250.250", "timeout_s": 0.2},
    "xarm7": {"host": "127.250.250.250", "port": 20999},
    "fr3": {"host": "127.250.250.250"},
    "virtual": {"model": "/robolearn/no/such/model.xml"},
}
SERVOS = {
    "koch": (1, 2, 3, 4, 5),
    "viperx": (1, 2, 4, 6, 7, 8),
    "so101": (1, 2, 3, 4, 5),
}  # ids of the joints; shadows have their own


def module(package: str, name: str) -> Any:
    return registry.load(package, name)


@pytest.fixture
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Driver:
    """Returns a driver of something that is not there."""
    package, name = request.param
    made, where = module(package, name), dict(NOWHERE[name])
    if name in SERVOS:
        joints = tuple(ServoJoint(joint, k, 1, 2048, -1.0, 1.0) for k, joint in zip(SERVOS[name], made.JOINTS, strict=True))
        save(ServoCalibration(name, joints, ServoGripper("gripper", 20, 2048, 600, 0.05)), tmp_path / "arm.yaml")
        where["calibration"] = str(tmp_path / "arm.yaml")
    found: Driver = made.make(made.Config(**where))
    return found


def every(drivers: list[tuple[str, str]]) -> Any:
    return pytest.mark.parametrize("driver", drivers, indirect=True, ids=[name for _, name in drivers])


def test_every_driver_has_a_place_that_is_not_there() -> None:
    assert {name for _, name in DRIVERS} == set(NOWHERE)


@every(DRIVERS)
def test_it_is_a_driver_before_anything_is_connected(driver: Driver) -> None:
    assert isinstance(driver, Driver)


@every([pair for pair in DRIVERS if pair[1] != "fr3"])  # libfranka asks for a second and more
def test_what_is_not_there_is_one_line_and_nothing_stays_open(driver: Driver) -> None:
    still_open = []
    for _ in range(2):  # the first time, a library may open what stays open for good
        with pytest.raises((HardwareError, MissingDependency, ConfigError)) as caught:
            driver.connect()
        assert "\n" not in str(caught.value) and str(caught.value)
        assert driver.disconnect() == [] and driver.disconnect() == []
        del caught
        still_open.append(len(os.listdir("/proc/self/fd")))
    assert still_open[1] <= still_open[0]


@every(DRIVERS)
def test_it_can_be_let_go_of_before_it_was_connected(driver: Driver) -> None:
    assert driver.disconnect() == []


@every(DRIVERS)
def test_unconnected_it_takes_no_setpoint(driver: Driver) -> None:
    arm = Attended(driver, "arm", 0.01)
    with pytest.raises(NotReady):
        arm.cycle(Setpoint([0.0]))  # type: ignore[arg-type]
    with pytest.raises((HwError, MissingDependency)):
        driver.exchange(None)
    assert arm.state is State.CREATED


@pytest.mark.parametrize(("package", "name"), DRIVERS, ids=[name for _, name in DRIVERS])
def test_its_file_says_how_to_configure_it(package: str, name: str) -> None:
    made = module(package, name)
    assert made.__doc__ and made.Config.__doc__ and made.make.__doc__
    assert made.EMULATOR in ("", *emulator_names()) and len(made.NEEDS) in (0, 2)
    if made.EMULATOR:
        make_emulator(made.EMULATOR, made.EMULATION).close()


def test_no_file_loads_a_vendors_library_before_it_is_connected() -> None:
    names = [f"{package}.{name}" for package, name in DRIVERS]
    libraries = sorted({needs[0] for needs in (module(*pair).NEEDS for pair in DRIVERS) if needs})
    load = f"import importlib, sys; [importlib.import_module(name) for name in {names}]"
    code = f"{load}; print([name for name in {libraries} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
