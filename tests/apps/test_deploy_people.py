"""A dead-man or a take-over device that is not there is a line of the check list, and without it nothing is switched on."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robolearn.apps import _deploy_checks as checks
from robolearn.apps import _deploy_people, deploy
from robolearn.apps._deploy_mind import Source
from robolearn.apps._deploy_people import People
from robolearn.apps._deploy_rig import Rig
from robolearn.apps._robot_file import Part
from robolearn.errors import BadInput, Findings, HardwareError
from tests.apps.deploys import PANDA
from tests.apps.wavers import SPEC

BOTH = replace(PANDA, deadman=Part("gamepad"), takeover=Part("spacemouse"))


class Device:
    """A device that is there, or not."""

    kind, arms, closed = "delta", 1, 0

    def __init__(self, there: bool, deadman: bool = True) -> None:
        self.there, self.deadman = there, deadman

    def connect(self) -> None:
        if not self.there:
            raise HardwareError("gamepad: no controller is connected")

    def close(self) -> None:
        self.closed += 1


def people_with(monkeypatch: pytest.MonkeyPatch, devices: dict[str, Device], stack: ExitStack) -> People:
    monkeypatch.setattr(_deploy_people, "make_device", lambda name, fields: devices[name])
    return People(Rig(BOTH), stack)


@pytest.mark.parametrize("absent", ["gamepad", "spacemouse"])
def test_an_absent_device_is_a_line_that_blocks_and_the_other_one_is_closed_again(
    absent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = {name: Device(name != absent) for name in ("gamepad", "spacemouse")}
    with ExitStack() as stack:
        people = people_with(monkeypatch, devices, stack)
        lines = checks.people(BOTH, people.missing)
        assert [line.blocks for line in lines] == [absent == "gamepad", absent == "spacemouse"]
        (line,) = [line.text() for line in lines if line.blocks]
        assert line.startswith("MISSING") and "no controller is connected; connect it, or mend the robot file" in line
    assert all(device.closed == 1 for device in devices.values())


def test_without_its_device_a_dead_man_is_never_held_and_nobody_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        people = people_with(monkeypatch, {"gamepad": Device(False), "spacemouse": Device(False)}, stack)
        assert people.deadman is not None and people.hear() == [] and not people.held()
        assert not people.deadman.held(time.monotonic_ns())
        with pytest.raises(HardwareError, match="no controller is connected"):
            people.over(None, None)  # type: ignore[arg-type]


def test_a_device_without_a_dead_man_switch_is_a_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        people = people_with(monkeypatch, {"gamepad": Device(True, deadman=False), "spacemouse": Device(True)}, stack)
        (dead, _) = checks.people(BOTH, people.missing)
        assert dead.blocks and "gamepad has no dead-man switch" in dead.text() and not people.held()
        assert isinstance(people.missing["dead-man"], BadInput)


def test_the_command_ends_before_a_motor_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = {"gamepad": Device(False), "spacemouse": Device(True)}
    monkeypatch.setattr(_deploy_people, "make_device", lambda name, fields: devices[name])
    monkeypatch.setattr(Rig, "open", lambda rig: None)
    monkeypatch.setattr(Rig, "activate", lambda rig: pytest.fail("the motors were switched on"))
    monkeypatch.setattr(deploy._robot_file, "read", lambda path: BOTH)
    source: Any = Source(SPEC, lambda: pytest.fail("a planner was started"), {})
    monkeypatch.setattr(deploy, "source_of", lambda cfg: source)
    with pytest.raises(Findings, match="nothing was moved; mend dead-man"):
        deploy.run(deploy.Config(tmp_path, "mine", out=tmp_path / "out"))
    assert devices["spacemouse"].closed == 1
